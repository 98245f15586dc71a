package i2c

import (
	"math"
	"strings"
	"testing"
	"time"

	periph "periph.io/x/conn/v3/i2c"
	"periph.io/x/conn/v3/i2c/i2ctest"

	"gateway/adapters"
)

// An exchange is what a chip's driver says and hears in a setup and a measurement, and what comes of
// it. Those of the chips' tests are constructed from the datasheet unless they name another source.
type exchange struct {
	chip     string
	addr     uint16 // 0: the usual one
	settings map[string]any
	want     []string // quantities to measure; nil: those that are not extra
	setup    []i2ctest.IO
	measure  []i2ctest.IO
	values   map[string]any // float64 (within tolerance), adapters.Reason, or a plain value
	within   float64        // tolerance of floats; 0: 1e-9
	err      string         // what the error says; "": none
	busy     time.Duration  // the least that the driver must wait in the measurement
}

// run plays the exchange and compares.
func (x exchange) run(t *testing.T) {
	t.Helper()
	chip, err := Lookup(x.chip)
	if err != nil {
		t.Fatal(err)
	}
	addr := x.addr
	if addr == 0 {
		addr = chip.Addresses[0]
	}
	var ops []i2ctest.IO
	for _, op := range append(append(ops, x.setup...), x.measure...) {
		op.Addr = addr
		ops = append(ops, op)
	}
	bus := &i2ctest.Playback{Ops: ops, DontPanic: true}
	var waited time.Duration
	c := &conn{
		bus: bus, addr: addr, pec: chip.pec,
		pause: func(d time.Duration) error { waited += d; return nil },
		clock: func() adapters.Instant { return 1 },
	}
	set, err := chip.complete(x.settings)
	if err != nil {
		t.Fatal(err)
	}
	d := chip.make(set)
	if err := d.setup(c); err != nil {
		x.checkError(t, err)
		return
	}
	if len(x.setup) != bus.Count {
		t.Fatalf("the setup took %d transactions, not %d", bus.Count, len(x.setup))
	}
	waited = 0
	r := newResults(len(chip.Quantities))
	for i, q := range chip.Quantities {
		r.wanted[i] = !q.Extra
	}
	if x.want != nil {
		clear(r.wanted)
		for _, name := range x.want {
			i, err := chip.quantity(name)
			if err != nil {
				t.Fatal(err)
			}
			r.wanted[i] = true
		}
	}
	if err := d.measure(c, r); err != nil {
		x.checkError(t, err)
		return
	}
	if x.err != "" {
		t.Fatalf("no error; want %q", x.err)
	}
	if err := bus.Close(); err != nil {
		t.Fatal(err)
	}
	if waited < x.busy {
		t.Errorf("waited %v for a conversion of %v", waited, x.busy)
	}
	within := x.within
	if within == 0 {
		within = 1e-9
	}
	for name, want := range x.values {
		i, err := chip.quantity(name)
		if err != nil {
			t.Fatal(err)
		}
		got := r.slots[i]
		switch want := want.(type) {
		case adapters.Reason:
			if got.reason != want || !got.set {
				t.Errorf("%s: %v %q, want %q", name, got.value, got.reason, want)
			}
		case float64:
			f, ok := got.value.Number()
			if !ok || got.reason != "" || math.Abs(f-want) > within {
				t.Errorf("%s: %v %q, want %v", name, got.value, got.reason, want)
			}
		case string:
			if got.value != adapters.StringValue(want) {
				t.Errorf("%s: %v %q, want %q", name, got.value, got.reason, want)
			}
		case bool:
			if got.value != adapters.BoolValue(want) {
				t.Errorf("%s: %v %q, want %v", name, got.value, got.reason, want)
			}
		default:
			t.Fatalf("%s: a %T", name, want)
		}
	}
	for i, q := range chip.Quantities {
		if _, expected := x.values[q.Name]; !expected && r.slots[i].set {
			t.Errorf("%s was measured and nobody asked for it", q.Name)
		}
	}
}

func (x exchange) checkError(t *testing.T, err error) {
	t.Helper()
	if x.err == "" || !strings.Contains(err.Error(), x.err) {
		t.Fatalf("error %q, want %q", err, x.err)
	}
}

func TestEveryChipOfTheCatalogueIsWellFormed(t *testing.T) {
	seen := map[string]string{}
	for _, c := range Chips() {
		for _, n := range append([]string{c.Name}, c.Aliases...) {
			if n != normal(n) {
				t.Errorf("%q: names are small letters and digits", n)
			}
			if other, twice := seen[n]; twice {
				t.Errorf("%q names both %s and %s", n, other, c.Name)
			}
			seen[n] = c.Name
			if got, err := Lookup(strings.ToUpper(n)); err != nil || got.Name != c.Name {
				t.Errorf("%q is not found by its name in capitals: %v", n, err)
			}
		}
		if c.About == "" || len(c.Addresses) == 0 || len(c.Quantities) == 0 || c.make == nil {
			t.Errorf("%s is not complete", c.Name)
		}
		for _, a := range c.Addresses {
			if a < 0x08 || a > 0x77 {
				t.Errorf("%s: address 0x%02x is reserved", c.Name, a)
			}
		}
		for _, s := range c.Settings {
			if _, err := s.check(s.Default); err != nil {
				t.Errorf("%s: the default of %s: %v", c.Name, s.Name, err)
			}
		}
	}
}

func TestAnUnknownChipIsAnsweredWithTheOneMeant(t *testing.T) {
	for typed, want := range map[string]string{
		"bme208": `did you mean "bme280"`,
		"sht33":  "did you mean",
		"xyzzy":  "known are",
		"":       "known are",
	} {
		if _, err := Lookup(typed); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", typed, err, want)
		}
	}
	if c, err := Lookup("SHT-31"); err != nil || c.Name != "sht3x" {
		t.Errorf("SHT-31: %q %v", c.Name, err)
	}
}

func TestSettingsAreChecked(t *testing.T) {
	chip, err := Lookup("bme280")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		given map[string]any
		want  string
	}{
		{map[string]any{"filter": int64(4)}, ""},
		{map[string]any{"filter": int64(5)}, "not one of"},
		{map[string]any{"filter": "much"}, "not a number"},
		{map[string]any{"fliter": int64(4)}, "bme280 has"},
	} {
		_, err := chip.complete(c.given)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: %v, want %q", c.given, err, c.want)
		}
	}
}

// The examples are those of the makers' documents.
func TestCRC8(t *testing.T) {
	for _, c := range []struct {
		source string
		crc    CRC8
		bytes  []byte
		want   byte
	}{
		{"Sensirion SHT3x-DIS datasheet, Checksum Calculation", crcSensirion, []byte{0xBE, 0xEF}, 0x92},
		{"TE HTU21D(F) datasheet, CRC-8 Checksum", crcHTU21, []byte{0xDC}, 0x79},
		{"TE HTU21D(F) datasheet, CRC-8 Checksum", crcHTU21, []byte{0x68, 0x3A}, 0x7C},
		{"TE HTU21D(F) datasheet, CRC-8 Checksum", crcHTU21, []byte{0x4E, 0x85}, 0x6B},
		{"catalogue of parametrised CRC algorithms, CRC-8/SMBUS check", crcPEC, []byte("123456789"), 0xF4},
	} {
		if got := c.crc.Sum(c.bytes...); got != c.want {
			t.Errorf("%s: %02x of % x, want %02x", c.source, got, c.bytes, c.want)
		}
	}
}

// testConn is a driver's way to a chip whose waits cost nothing.
func testConn(bus periph.Bus, addr uint16) *conn {
	return &conn{
		bus: bus, addr: addr,
		pause: func(time.Duration) error { return nil },
		clock: func() adapters.Instant { return 1 },
	}
}
