package i2c

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"periph.io/x/conn/v3/i2c/i2ctest"

	"gateway/adapters"
	"gateway/adapters/decode"
)

func number(t testing.TB, kind decode.Kind, bits, shift, bytes int) decode.Type {
	t.Helper()
	return decode.Type{Kind: kind, Bits: bits, Shift: shift, Bytes: bytes}
}

// play measures once with a chip that is described by its registers.
func (r *Registers) play(t *testing.T, pec bool, ops ...i2ctest.IO) (*results, time.Duration, error) {
	t.Helper()
	chip, err := r.chip()
	if err != nil {
		t.Fatal(err)
	}
	for i := range ops {
		ops[i].Addr = 0x40
	}
	bus := &i2ctest.Playback{Ops: ops, DontPanic: true}
	var waited time.Duration
	c := &conn{
		bus: bus, addr: 0x40, pec: pec, clock: func() adapters.Instant { return 1 },
		pause: func(d time.Duration) error { waited += d; return nil },
	}
	d, out := chip.make(nil), newResults(len(chip.Quantities))
	if err = d.setup(c); err == nil {
		err = d.measure(c, out)
	}
	if closing := bus.Close(); err == nil && closing != nil {
		t.Error(closing)
	}
	return out, waited, err
}

// The SHT3x by its registers alone, and what else fields can be.
func TestAChipByItsRegisters(t *testing.T) {
	r := &Registers{
		Init: []Step{
			{Write: []byte{0x30, 0xA2}, Wait: 2 * time.Millisecond},
			{Write: []byte{0x0F}, Bytes: 1, Expect: []byte{0x60}, Mask: []byte{0xF0}},
		},
		Read: []Step{
			{Write: []byte{0x24, 0x00}, Wait: 16 * time.Millisecond, Bytes: 6, CRC: &crcSensirion, Every: 2},
			{Write: []byte{0x10}, Bytes: 3},
			{Bytes: 1},
		},
		Fields: []Field{
			{Name: "temperature", Spec: decode.Spec{Type: number(t, decode.Uint, 16, 0, 2), Scale: 175.0 / 65535, Offset: -45}},
			{Name: "humidity", At: 2, Spec: decode.Spec{Type: number(t, decode.Uint, 16, 0, 2), Scale: 100.0 / 65535}},
			{Name: "twelve", Step: 1, Spec: decode.Spec{Type: number(t, decode.Int, 12, 4, 2)}},
			{Name: "five", Step: 1, At: 2, Spec: decode.Spec{Type: number(t, decode.Int, 5, 1, 1)}},
			{Name: "flag", Step: 1, At: 2, Spec: decode.Spec{Type: number(t, decode.Bool, 1, 7, 1)}},
			{Name: "little", Step: 1, At: 1, Spec: decode.Spec{Type: number(t, decode.Uint, 16, 0, 2), Order: decode.SwapBytes}},
			{Name: "none", Step: 2, Spec: decode.Spec{Type: number(t, decode.Uint, 8, 0, 1), Sentinels: []uint64{0xFF}}},
		},
	}
	out, waited, err := r.play(t, false,
		i2ctest.IO{W: []byte{0x30, 0xA2}},
		i2ctest.IO{W: []byte{0x0F}, R: []byte{0x6A}},
		i2ctest.IO{W: []byte{0x24, 0x00}}, i2ctest.IO{R: withCRC(0x6666, 0x8000)},
		i2ctest.IO{W: []byte{0x10}, R: []byte{0xFF, 0xE0, 0xB4}},
		i2ctest.IO{R: []byte{0xFF}},
	)
	if err != nil {
		t.Fatal(err)
	}
	if waited != 18*time.Millisecond {
		t.Errorf("waited %v", waited)
	}
	for i, want := range []result{
		{value: adapters.FloatValue(25)}, {value: adapters.FloatValue(100.0 / 65535 * 0x8000)},
		{value: adapters.IntValue(-2)}, {value: adapters.IntValue(-6)}, {value: adapters.BoolValue(true)},
		{value: adapters.UintValue(0xB4E0)}, {reason: adapters.ReasonSentinel},
	} {
		want.set = true
		if out.slots[i] != want {
			t.Errorf("%s: %+v, want %+v", r.Fields[i].Name, out.slots[i], want)
		}
	}
}

var oneField = []Field{{Name: "x", Spec: decode.Spec{Type: decode.Type{Kind: decode.Uint, Bits: 8, Bytes: 1}}}}

func TestAStepIsTriedUntilTheAnswerIsAsExpected(t *testing.T) {
	r := &Registers{Read: []Step{{Write: []byte{0x27}, Bytes: 2, Wait: time.Millisecond, Expect: []byte{0x01}, Mask: []byte{0x01}, Tries: 3}}, Fields: oneField}
	ask := i2ctest.IO{W: []byte{0x27}}
	out, waited, err := r.play(t, false, ask, i2ctest.IO{R: []byte{0, 9}}, ask, i2ctest.IO{R: []byte{0xF1, 9}})
	if err != nil || out.slots[0].value != adapters.UintValue(0xF1) || waited != 2*time.Millisecond {
		t.Errorf("%+v, %v, waited %v", out.slots[0], err, waited)
	}
	no := i2ctest.IO{R: []byte{0, 9}}
	if _, _, err := r.play(t, false, ask, no, ask, no, ask, no); !errors.Is(err, errNotReady) {
		t.Errorf("%v, want not ready", err)
	}
}

func TestAnotherChipThanDescribedIsRefused(t *testing.T) {
	r := &Registers{
		Init:   []Step{{Write: []byte{0x0F}, Bytes: 1, Expect: []byte{0xBB}}},
		Read:   []Step{{Write: []byte{0}, Bytes: 1}},
		Fields: oneField,
	}
	_, _, err := r.play(t, false, i2ctest.IO{W: []byte{0x0F}, R: []byte{0xBC}})
	if err == nil || !strings.Contains(err.Error(), "answers bc, expected is bb") || reasonOf(err) != adapters.ReasonProtocol {
		t.Errorf("%v, %q", err, reasonOf(err))
	}
}

func TestADamagedGroupIsFound(t *testing.T) {
	r := &Registers{Read: []Step{{Bytes: 6, CRC: &crcSensirion, Every: 2}}, Fields: oneField}
	good := withCRC(0x1234, 0x5678)
	for i := range good {
		bad := append([]byte(nil), good...)
		bad[i] ^= 0x04
		if _, _, err := r.play(t, false, i2ctest.IO{R: bad}); reasonOf(err) != adapters.ReasonChecksum {
			t.Errorf("byte %d damaged: %v", i, err)
		}
	}
}

// SMBus 3.1, 6.4.1.1: the code is over the address with its direction and all bytes, across the
// repeated start.
func TestPacketErrorCodes(t *testing.T) {
	r := &Registers{
		Init:   []Step{{Write: []byte{0x21, 0x05}}},
		Read:   []Step{{Write: []byte{0x07}, Bytes: 2}, {Bytes: 1}},
		Fields: oneField,
	}
	ops := []i2ctest.IO{
		{W: []byte{0x21, 0x05, crcPEC.Sum(0x80, 0x21, 0x05)}},
		{W: []byte{0x07}, R: []byte{0xD2, 0x3A, crcPEC.Sum(0x80, 0x07, 0x81, 0xD2, 0x3A)}},
		{R: []byte{0x55, crcPEC.Sum(0x81, 0x55)}},
	}
	out, _, err := r.play(t, true, ops...)
	if err != nil || out.slots[0].value != adapters.UintValue(0xD2) {
		t.Errorf("%+v, %v", out.slots[0], err)
	}
	ops[2].R[0] ^= 1
	if _, _, err := r.play(t, true, ops...); reasonOf(err) != adapters.ReasonChecksum {
		t.Errorf("damaged: %v", err)
	}
}

func TestDescriptionsThatCannotBe(t *testing.T) {
	read := []Step{{Write: []byte{0}, Bytes: 2}}
	for name, c := range map[string]struct {
		r    Registers
		want string
	}{
		"no reading":         {Registers{Fields: oneField}, "nothing is read"},
		"no field":           {Registers{Read: read}, "there is no point"},
		"field beyond":       {Registers{Read: read, Fields: []Field{{Name: "x", At: 2, Spec: oneField[0].Spec}}}, "bytes 2 to 2: the answer has 2"},
		"no such step":       {Registers{Read: read, Fields: []Field{{Name: "x", Step: 1, Spec: oneField[0].Spec}}}, "step 2: there are 1"},
		"empty step":         {Registers{Read: []Step{{}}, Fields: oneField}, "neither writes nor reads"},
		"broken groups":      {Registers{Read: []Step{{Bytes: 4, CRC: &crcPEC, Every: 2}}, Fields: oneField}, "no whole number of groups"},
		"too long a wait":    {Registers{Read: []Step{{Bytes: 4, Wait: time.Hour}}, Fields: oneField}, "at most 1m0s"},
		"too many bytes":     {Registers{Read: []Step{{Bytes: 4000}}, Fields: oneField}, "more than 1024"},
		"too many tries":     {Registers{Read: []Step{{Bytes: 4, Tries: 5000}}, Fields: oneField}, "1 to 1000"},
		"mask too short":     {Registers{Read: []Step{{Bytes: 4, Expect: []byte{1, 2}, Mask: []byte{1}}}, Fields: oneField}, "differ in length"},
		"expect too long":    {Registers{Read: []Step{{Bytes: 1, Expect: []byte{1, 2}}}, Fields: oneField}, "the answer 1"},
		"impossible decoder": {Registers{Read: read, Fields: []Field{{Name: "x"}}}, "decode:"},
	} {
		if _, err := c.r.chip(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

func TestADeviceByItsRegistersOnTheBus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Device{
			Name: "x", Address: 0x20, Interval: time.Second,
			Registers: &Registers{Read: []Step{{Write: []byte{0}, Bytes: 1}}, Fields: oneField},
		})
		r.bus.chips[0x20] = func(w, rd []byte) error { rd[0] = 7; return nil }
		r.run(t, 2500*time.Millisecond)
		if len(r.samples) != 3 || r.samples[0].Readings[0].Value != adapters.UintValue(7) {
			t.Errorf("%+v", r.samples)
		}
	})
}

// Whatever a chip answers and whatever a description asks for: no panic, and each field is good or
// has a reason.
func FuzzAnswers(f *testing.F) {
	f.Add(byte(2), byte(16), byte(0), byte(2), byte(0), byte(2), withCRC(0x6666, 0x8000))
	f.Add(byte(1), byte(5), byte(3), byte(1), byte(4), byte(0), []byte{1, 2, 3, 4, 5})
	f.Add(byte(3), byte(32), byte(0), byte(4), byte(0), byte(0), []byte{0x7F, 0xC0, 0, 0})
	f.Fuzz(func(t *testing.T, kind, bits, shift, size, at, every byte, answer []byte) {
		step := Step{Bytes: len(answer)}
		if every > 0 {
			step.CRC, step.Every = &crcSensirion, int(every)
		}
		r := &Registers{Read: []Step{step}, Fields: []Field{{
			Name: "x", At: int(at),
			Spec: decode.Spec{Type: decode.Type{Kind: decode.Kind(kind % 9), Bits: int(bits), Shift: int(shift), Bytes: int(size)}},
		}}}
		chip, err := r.chip()
		if err != nil {
			return
		}
		c := &conn{
			bus: &i2ctest.Playback{Ops: []i2ctest.IO{{R: answer}}, DontPanic: true}, clock: func() adapters.Instant { return 1 },
			pause: func(time.Duration) error { return nil },
		}
		out := newResults(1)
		if err := chip.make(nil).measure(c, out); err != nil {
			if reasonOf(err) != adapters.ReasonChecksum {
				t.Fatal(err)
			}
			return
		}
		if s := out.slots[0]; !s.set || (s.value.Kind() == adapters.None) == (s.reason == "") {
			t.Fatalf("%+v", s)
		}
	})
}

// Whatever the chips of the catalogue are answered: no panic, no endless loop, and no result that is
// neither good nor bad.
func FuzzChips(f *testing.F) {
	chips := Chips()
	for i, chip := range chips {
		// Words with the right check, in case the chip has one; and what gets past its identity.
		f.Add(byte(i), withCRC(0x8006, 500, 0x6667))
		id := map[string]string{
			"bme280": "\x60\x00", "bmp280": "\x58\x00", "bme680": "\x61", "bmp180": "\x55", "ccs811": "\x81\x90\x01\xC2\x00\x0C\x98\x00",
			"ina226": "TI\x22\x60", "mcp9808": "\x00\x54\x04\x00", "tmp117": "\x01\x17", "tsl2561": "\x03", "tsl2591": "\x50", "veml7700": "\x00\x10",
			"aht20": "\x08", "htu21d": "\x68\x3A\x7C", "mcp3421": "\x01\x02\x03\x0C",
		}[chip.Name]
		f.Add(byte(i), append([]byte(id), exampleTrimming()...))
		f.Add(byte(i), []byte(id))
	}
	f.Fuzz(func(t *testing.T, which byte, answers []byte) {
		chip := chips[int(which)%len(chips)]
		set, err := chip.complete(nil)
		if err != nil {
			t.Fatal(err)
		}
		waits := 0
		c := &conn{
			bus: &stream{answers: answers}, addr: chip.Addresses[0], clock: func() adapters.Instant { return 1 },
			pause: func(time.Duration) error {
				if waits++; waits > 500 {
					t.Fatalf("%s waits for ever", chip.Name)
				}
				return nil
			},
		}
		d, out := chip.make(set), newResults(len(chip.Quantities))
		for i := range out.wanted {
			out.wanted[i] = true
		}
		if d.setup(c) != nil {
			return
		}
		for range 20 { // an SGP30 has no result before the sixteenth
			waits = 0
			if err := d.measure(c, out); err != nil && err != errNotReady {
				return
			}
		}
		for i, s := range out.slots {
			if s.set && s.reason == "" && s.value.Kind() == adapters.None {
				// A value that is not finite is made bad by the point.
				p := point{scale: 1}
				if _, why := p.convert(s.value, chip.Quantities[i]); why != adapters.ReasonNotFinite {
					t.Fatalf("%s %s: %+v", chip.Name, chip.Quantities[i].Name, s)
				}
			}
		}
	})
}

// A stream is a bus on which reads take the bytes of one string, over and over.
type stream struct {
	i2ctest.Playback
	answers []byte
	at      int
}

func (s *stream) Tx(_ uint16, _, r []byte) error {
	for i := range r {
		if len(s.answers) > 0 {
			r[i] = s.answers[s.at%len(s.answers)]
			s.at++
		}
	}
	return nil
}
