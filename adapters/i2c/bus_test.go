package i2c

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	periph "periph.io/x/conn/v3/i2c"
	"periph.io/x/conn/v3/physic"

	"gateway/adapters"
)

// A fakeBus answers for chips by functions, and tells what was asked of it.
type fakeBus struct {
	mu     sync.Mutex
	chips  map[uint16]func(w, r []byte) error
	log    []string // "0s 44 w2400"
	start  time.Time
	busy   bool
	closed int
	dead   error         // what every transaction says
	wire   time.Duration // that a transaction takes
}

func (b *fakeBus) String() string                  { return "fake" }
func (b *fakeBus) SetSpeed(physic.Frequency) error { return nil }
func (b *fakeBus) Close() error {
	b.closed++
	return nil
}

func (b *fakeBus) fault(addr uint16, f Fault) error {
	return &TxError{"fake", addr, f, nil}
}

func (b *fakeBus) Tx(addr uint16, w, r []byte) error {
	b.mu.Lock()
	if b.busy {
		b.mu.Unlock()
		panic("two transactions at once")
	}
	b.busy = true
	what := fmt.Sprintf("%v %02x", time.Since(b.start), addr)
	if len(w) > 0 {
		what += fmt.Sprintf(" w%x", w)
	}
	if len(r) > 0 {
		what += fmt.Sprintf(" r%d", len(r))
	}
	b.log = append(b.log, what)
	b.mu.Unlock()
	if b.wire > 0 {
		<-time.After(b.wire)
	}
	defer func() {
		b.mu.Lock()
		b.busy = false
		b.mu.Unlock()
	}()
	if b.dead != nil {
		return b.dead
	}
	chip, ok := b.chips[addr]
	if !ok {
		return b.fault(addr, FaultNoAck)
	}
	return chip(w, r)
}

// sht3xAt answers like an SHT3x that measures 25 °C and 50 %RH.
func sht3xAt(w, r []byte) error {
	copy(r, withCRC(0x6666, 0x8000))
	return nil
}

// A rig runs a Bus in a synctest bubble.
type rig struct {
	bus     *fakeBus
	b       *Bus
	start   time.Time
	refuse  bool
	mu      sync.Mutex // guards samples, for tests that look while the bus runs
	samples []adapters.Sample
}

func newRig(t *testing.T, devices ...Device) *rig {
	t.Helper()
	r := &rig{start: time.Now()}
	r.bus = &fakeBus{chips: map[uint16]func(w, r []byte) error{}, start: r.start}
	b, err := New(Options{
		Name:    "header",
		Open:    func() (periph.BusCloser, error) { return r.bus, nil },
		Devices: devices,
		Sink: adapters.SinkFunc(func(s adapters.Sample) bool {
			if r.refuse {
				return false
			}
			r.mu.Lock()
			defer r.mu.Unlock()
			r.samples = append(r.samples, s)
			return true
		}),
		Clock: func() adapters.Instant { return adapters.Instant(time.Since(r.start)) + 1 },
	})
	if err != nil {
		t.Fatal(err)
	}
	r.b = b
	return r
}

// run lets the bus work for d.
func (r *rig) run(t *testing.T, d time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	if err := r.b.Run(ctx); err != nil {
		t.Fatal(err)
	}
}

func (r *rig) of(device string) (s []adapters.Sample) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, sample := range r.samples {
		if sample.Schema.Device == device {
			s = append(s, sample)
		}
	}
	return s
}

func (r *rig) status(device string) adapters.DeviceStatus {
	for _, s := range r.b.Status().Devices {
		if s.Device == device {
			return s
		}
	}
	return adapters.DeviceStatus{}
}

func sht(name string, addr uint16) Device {
	return Device{Name: name, Chip: "sht3x", Address: addr, Interval: time.Second}
}

func TestAChipIsReadAtItsInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, sht("roof", 0x44))
		r.bus.chips[0x44] = sht3xAt
		r.run(t, 4500*time.Millisecond)
		if len(r.samples) != 5 {
			t.Fatalf("%d samples in 4.5 s", len(r.samples))
		}
		s := r.samples[0]
		if s.Schema.Bus != "header" || s.Schema.Device != "roof" || len(s.Readings) != 2 ||
			s.Schema.Points[0].Name != "temperature" || s.Schema.Points[0].Unit != "°C" || s.Schema.Points[0].Decimals != 2 {
			t.Errorf("%+v", s)
		}
		if v, _ := s.Readings[0].Value.Number(); v != 25 || s.Readings[0].Quality != adapters.Good {
			t.Errorf("%+v", s.Readings[0])
		}
		st := r.status("roof")
		if st.State != adapters.Online || st.Polls != 5 || st.Failures != 0 || st.Overruns != 0 {
			t.Errorf("%+v", st)
		}
		if r.bus.closed != 1 {
			t.Errorf("the bus was closed %d times", r.bus.closed)
		}
	})
}

// While one chip converts, the other is served: both triggers go out before either answer is read.
func TestTheBusIsFreeDuringAConversion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, sht("roof", 0x44), sht("cellar", 0x45))
		r.bus.chips[0x44], r.bus.chips[0x45] = sht3xAt, sht3xAt
		r.run(t, 500*time.Millisecond)
		got := strings.Join(r.bus.log, "\n")
		want := strings.Join([]string{
			"0s 44 w3093", "0s 45 w3093", "1ms 44 w30a2", "1ms 45 w30a2",
			"3ms 44 w2400", "3ms 45 w2400", "19ms 44 r6", "19ms 45 r6",
		}, "\n")
		if got != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
		// A reading's time is the arrival of the answer that carried it.
		if at := r.samples[0].Time; at != adapters.Instant(19*time.Millisecond)+1 {
			t.Errorf("sample at %v", time.Duration(at))
		}
	})
}

func TestAnAbsentChipBacksOffAndCostsItsNeighbourNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, sht("dead", 0x45), sht("alive", 0x44))
		r.bus.chips[0x44] = sht3xAt
		r.run(t, 59500*time.Millisecond)
		if n := len(r.of("alive")); n != 60 {
			t.Errorf("the neighbour gave %d samples in a minute", n)
		}
		dead := r.of("dead")
		if len(dead) < 5 || len(dead) > 9 {
			t.Errorf("%d attempts at the absent chip in a minute", len(dead))
		}
		for _, s := range dead {
			for _, reading := range s.Readings {
				if reading.Quality != adapters.Bad || reading.Reason != adapters.ReasonNoAck || reading.Value.Kind() != adapters.None {
					t.Fatalf("%+v", reading)
				}
			}
		}
		if st := r.status("dead"); st.State != adapters.Offline || !strings.Contains(st.Err, "no chip") || st.Failures != st.Polls {
			t.Errorf("%+v", st)
		}
	})
}

// A chip that was away has lost its configuration: it is set up again.
func TestAChipThatComesBackIsSetUpAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, sht("roof", 0x44))
		away := func(w, rd []byte) error { return r.bus.fault(0x44, FaultRemote) }
		resets := 0
		here := func(w, rd []byte) error {
			if len(w) == 2 && w[0] == 0x30 && w[1] == 0xA2 {
				resets++
			}
			return sht3xAt(w, rd)
		}
		r.bus.chips[0x44] = func(w, rd []byte) error {
			if at := time.Since(r.start); at > 1500*time.Millisecond && at < 3500*time.Millisecond {
				return away(w, rd)
			}
			return here(w, rd)
		}
		r.run(t, 10500*time.Millisecond)
		if resets != 2 {
			t.Errorf("%d resets, want one at the start and one at the return", resets)
		}
		if st := r.status("roof"); st.State != adapters.Online || st.Err != "" {
			t.Errorf("%+v", st)
		}
	})
}

func TestADamagedAnswerIsAskedForOnceMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, sht("roof", 0x44))
		n := 0
		r.bus.chips[0x44] = func(w, rd []byte) error {
			sht3xAt(w, rd)
			if len(rd) > 0 {
				if n++; n == 1 || n > 2 {
					rd[0] ^= 1
				}
			}
			return nil
		}
		r.run(t, 1500*time.Millisecond)
		if q := r.samples[0].Readings[0].Quality; q != adapters.Good {
			t.Errorf("the first sample, damaged once, is %v", q)
		}
		if got := r.samples[1].Readings[0]; got.Quality != adapters.Bad || got.Reason != adapters.ReasonChecksum {
			t.Errorf("the second, damaged twice: %+v", got)
		}
	})
}

func TestALostArbitrationIsRepeatedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, sht("roof", 0x44))
		n := 0
		r.bus.chips[0x44] = func(w, rd []byte) error {
			if n++; n%3 != 0 {
				return r.bus.fault(0x44, FaultArbitration)
			}
			return sht3xAt(w, rd)
		}
		r.run(t, 500*time.Millisecond)
		if r.samples[0].Readings[0].Quality != adapters.Good {
			t.Errorf("%+v", r.samples[0])
		}
	})
}

func TestABusThatHangsIsOpenedAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, sht("roof", 0x44))
		r.bus.dead = r.bus.fault(0x44, FaultTimeout)
		opened := 0
		r.b.o.Open = func() (periph.BusCloser, error) {
			if opened++; opened == 2 {
				r.bus.dead = nil // as after the kernel's bus recovery
				r.bus.chips[0x44] = sht3xAt
			}
			return r.bus, nil
		}
		r.run(t, time.Minute)
		if opened != 2 {
			t.Errorf("opened %d times", opened)
		}
		if st := r.status("roof"); st.State != adapters.Online {
			t.Errorf("%+v", st)
		}
		if got := r.samples[0].Readings[0].Reason; got != adapters.ReasonTimeout {
			t.Errorf("reason %q: a hanging bus is not an absent chip", got)
		}
	})
}

// A line held low by a chip without power stays so for hours: opening the bus anew is tried less and less
// often, and what the samples say does not get more for it.
func TestABusThatHangsForLongIsNotOpenedForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var devices []Device
		for i := range 8 {
			devices = append(devices, Device{Name: fmt.Sprint("chip-", i), Chip: "tmp75", Address: 0x48 + uint16(i), Interval: time.Second})
		}
		r := newRig(t, devices...)
		r.bus.dead = r.bus.fault(0x48, FaultTimeout)
		opened := 0
		r.b.o.Open = func() (periph.BusCloser, error) { opened++; return r.bus, nil }
		r.run(t, time.Hour)
		if opened < 100 || opened > 150 {
			t.Errorf("opened %d times in an hour", opened)
		}
		if n := len(r.of("chip-0")); n < 50 || n > 3600 {
			t.Errorf("%d samples of a chip in an hour", n)
		}
	})
}

func TestABusThatIsNotThereIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, sht("roof", 0x44))
		r.bus.chips[0x44] = sht3xAt
		r.b.o.Open = func() (periph.BusCloser, error) {
			if time.Since(r.start) < 20*time.Second {
				return nil, fmt.Errorf("i2c: /dev/i2c-1 is not there: %w", syscall.ENOENT)
			}
			return r.bus, nil
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		done := make(chan error, 1)
		go func() { done <- r.b.Run(ctx) }()
		<-time.After(10 * time.Second)
		synctest.Wait()
		if s := r.b.Status(); s.Open || !strings.Contains(s.Err, "not there") {
			t.Errorf("%+v", s)
		}
		if got := r.of("roof")[0].Readings[0]; got.Quality != adapters.Bad || got.Reason != adapters.ReasonAbsent {
			t.Errorf("%+v", got)
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		last := r.samples[len(r.samples)-1]
		if last.Readings[0].Quality != adapters.Good || r.status("roof").State != adapters.Online {
			t.Errorf("%+v", last)
		}
		if n := r.status("roof").Overruns; n != 0 {
			t.Errorf("%d overruns for a bus that was away", n)
		}
	})
}

func TestAChipIsReadAsSoonAsItsBusIsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := sht("slow", 0x44)
		slow.Interval = time.Hour
		quick := sht("quick", 0x45)
		r := newRig(t, slow, quick)
		r.bus.chips[0x44], r.bus.chips[0x45] = sht3xAt, sht3xAt
		var back time.Duration
		r.b.o.Open = func() (periph.BusCloser, error) {
			if back = time.Since(r.start); back < 10*time.Second {
				return nil, fmt.Errorf("i2c: /dev/i2c-1 is not there: %w", syscall.ENOENT)
			}
			return r.bus, nil
		}
		r.run(t, 2*time.Hour+time.Minute)
		var good []time.Duration
		for _, s := range r.of("slow") {
			if s.Readings[0].Quality == adapters.Good {
				good = append(good, time.Duration(s.Time))
			}
		}
		want := []time.Duration{back, time.Hour, 2 * time.Hour}
		if !slices.EqualFunc(good, want, func(got, want time.Duration) bool { return got >= want && got < want+time.Second }) {
			t.Errorf("good at %v, want %v and how long the chip takes", good, want)
		}
		for _, s := range r.samples {
			if len(s.Readings) != len(s.Schema.Points) {
				t.Errorf("%+v", s)
			}
		}
		if n := r.status("slow").Overruns + r.status("quick").Overruns; n != 0 {
			t.Errorf("%d overruns", n)
		}
	})
}

func TestABusThatVanishesIsClosedAndOpenedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, sht("roof", 0x44))
		r.bus.chips[0x44] = func(w, rd []byte) error {
			if at := time.Since(r.start); at > 4500*time.Millisecond && at < 5500*time.Millisecond {
				return r.bus.fault(0x44, FaultGone)
			}
			return sht3xAt(w, rd)
		}
		r.run(t, 15*time.Second)
		if r.bus.closed != 2 {
			t.Errorf("closed %d times", r.bus.closed)
		}
		if st := r.status("roof"); st.State != adapters.Online {
			t.Errorf("%+v", st)
		}
	})
}

func TestAPointHasAnIntervalScaleOffsetAndRange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		low, high := 0.0, 40.0
		r := newRig(t, Device{Name: "roof", Chip: "sht3x", Interval: time.Second, Points: []Point{
			{Name: "fahrenheit", From: "temperature", Unit: "°F", Scale: 1.8, Offset: 32},
			{Name: "humidity", Min: &low, Max: &high},
			{Name: "temperature", Interval: 3 * time.Second},
		}})
		r.bus.chips[0x44] = sht3xAt
		r.run(t, 6500*time.Millisecond)
		if len(r.samples) != 7 {
			t.Fatalf("%d samples", len(r.samples))
		}
		for i, s := range r.samples {
			if f, _ := s.Readings[0].Value.Number(); f != 77 {
				t.Errorf("25 °C are %v °F", f)
			}
			if s.Readings[1].Reason != adapters.ReasonRange {
				t.Errorf("50 %% are good although 40 is the most: %+v", s.Readings[1])
			}
			if want := i%3 == 0; (len(s.Readings) == 3) != want {
				t.Errorf("sample %d has %d readings", i, len(s.Readings))
			}
		}
		if p := r.samples[0].Schema.Points[0]; p.Unit != "°F" || p.Decimals != 2 {
			t.Errorf("%+v", p)
		}
	})
}

func TestAScaleMovesTheDecimals(t *testing.T) {
	for scale, want := range map[float64]int8{1: 2, 10: 1, 1000: 0, 0.1: 3, 0.25: 3, 1.8: 2, -0.001: 5} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, Device{Name: "roof", Chip: "sht3x", Interval: time.Second, Points: []Point{{Name: "temperature", Scale: scale}}})
			if got := r.b.devices[0].schema.Points[0].Decimals; got != want {
				t.Errorf("0.01 °C times %v has %d decimals, want %d", scale, got, want)
			}
		})
	}
}

func TestASlowBusOverrunsAndSaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := sht("roof", 0x44)
		d.Interval = 20 * time.Millisecond
		r := newRig(t, d)
		r.bus.wire = 10 * time.Millisecond
		r.bus.chips[0x44] = sht3xAt
		r.run(t, time.Second)
		st := r.status("roof")
		if st.Overruns < 20 || st.Polls+st.Overruns < 45 || st.Polls+st.Overruns > 52 {
			t.Errorf("%+v", st)
		}
	})
}

func TestTheBeatGoesOnWhenNothingIsDue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := sht("roof", 0x44)
		d.Interval = time.Hour
		r := newRig(t, d)
		r.bus.chips[0x44] = sht3xAt
		r.run(t, time.Minute)
		if beat := r.b.Status().Beat; beat < 6 {
			t.Errorf("%d beats in a minute", beat)
		}
	})
}

func TestARefusedSampleIsCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, sht("roof", 0x44))
		r.bus.chips[0x44] = sht3xAt
		r.refuse = true
		r.run(t, 2500*time.Millisecond)
		if s := r.b.Status(); s.Refused != 3 || len(r.samples) != 0 {
			t.Errorf("%+v", s)
		}
	})
}

func TestAMultiplexersChannelIsChosenOnlyWhenItChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, c, trunk := sht("a", 0x44), sht("b", 0x44), sht("c", 0x44), sht("trunk", 0x45)
		a.Mux, b.Mux, c.Mux = &Mux{0x70, 0}, &Mux{0x70, 5}, &Mux{0x71, 1}
		r := newRig(t, a, trunk, b, c)
		open := map[uint16]byte{0x71: 0xFF} // left so by another program
		r.bus.chips[0x70] = func(w, _ []byte) error { open[0x70] = w[0]; return nil }
		r.bus.chips[0x71] = func(w, _ []byte) error { open[0x71] = w[0]; return nil }
		r.bus.chips[0x45] = sht3xAt
		r.bus.chips[0x44] = func(w, rd []byte) error {
			// Which of the three answers depends on the open channel; two at once is a collision.
			if (open[0x70] == 0) == (open[0x71] == 0) {
				t.Errorf("channels %08b and %08b are open at once", open[0x70], open[0x71])
			}
			word := map[[2]byte]uint16{{1, 0}: 0x1000, {1 << 5, 0}: 0x2000, {0, 2}: 0x3000}[[2]byte{open[0x70], open[0x71]}]
			copy(rd, withCRC(word, word))
			return nil
		}
		r.run(t, 3500*time.Millisecond)
		for name, word := range map[string]float64{"a": 0x1000, "b": 0x2000, "c": 0x3000} {
			for _, s := range r.of(name) {
				if v, _ := s.Readings[0].Value.Number(); v != -45+175*word/65535 {
					t.Errorf("%s measured %v, which is another chip's", name, v)
				}
			}
		}
		for i := 1; i < len(r.bus.log); i++ {
			_, now, _ := strings.Cut(r.bus.log[i], " ")
			_, before, _ := strings.Cut(r.bus.log[i-1], " ")
			if strings.HasPrefix(now, "70 ") && now == before {
				t.Errorf("channel chosen twice in a row: %s", now)
			}
		}
	})
}

// A chip that does not answer makes the gateway doubt its multiplexer's channel; the channel is closed
// all the same before one of another multiplexer is opened.
func TestAfterAnErrorTheOtherMultiplexerIsStillClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gone, here := sht("gone", 0x44), sht("here", 0x44)
		gone.Mux, here.Mux = &Mux{0x70, 0}, &Mux{0x71, 1}
		r := newRig(t, gone, here)
		open := map[uint16]byte{}
		r.bus.chips[0x70] = func(w, _ []byte) error { open[0x70] = w[0]; return nil }
		r.bus.chips[0x71] = func(w, _ []byte) error { open[0x71] = w[0]; return nil }
		r.bus.chips[0x44] = func(w, rd []byte) error {
			if open[0x71] == 0 {
				return r.bus.fault(0x44, FaultNoAck)
			}
			if open[0x70] != 0 {
				t.Error("two channels are open")
			}
			return sht3xAt(w, rd)
		}
		r.run(t, 10500*time.Millisecond)
		if st := r.status("here"); st.State != adapters.Online || st.Failures != 0 {
			t.Errorf("%+v", st)
		}
		// A multiplexer without power cannot have a channel open: it holds nobody up.
		delete(r.bus.chips, 0x70)
		open[0x70] = 0
		r.run(t, 10500*time.Millisecond)
		if st := r.status("here"); st.State != adapters.Online || st.Failures != 0 {
			t.Errorf("%+v", st)
		}
	})
}

// A multiplexer that answered an error may have lost its power, and with it its channel.
func TestAfterAnErrorTheChannelIsChosenAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := sht("a", 0x44)
		d.Mux = &Mux{0x70, 3}
		r := newRig(t, d)
		chosen, failed := 0, false
		r.bus.chips[0x70] = func(w, _ []byte) error { chosen++; return nil }
		r.bus.chips[0x44] = func(w, rd []byte) error {
			if time.Since(r.start) > 1500*time.Millisecond && !failed {
				failed = true
				return r.bus.fault(0x44, FaultNoAck)
			}
			return sht3xAt(w, rd)
		}
		r.run(t, 5500*time.Millisecond)
		if chosen != 2 {
			t.Errorf("chosen %d times", chosen)
		}
	})
}

// To open a bus takes a moment; the first measurement does not wait for the second turn because of it.
func TestAChipIsReadAtOnceHoweverLongItsInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := sht("cellar", 0x44)
		d.Interval = time.Hour
		r := newRig(t, d)
		r.bus.chips[0x44] = sht3xAt
		open := r.b.o.Open
		r.b.o.Open = func() (periph.BusCloser, error) {
			<-time.After(time.Millisecond)
			return open()
		}
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Hour+time.Minute)
		defer cancel()
		if err := r.b.Run(ctx); err != nil {
			t.Fatal(err)
		}
		if len(r.samples) != 3 || r.samples[0].Time > adapters.Instant(time.Second) {
			t.Errorf("three turns in two hours, the first at once: %v", r.samples)
		}
	})
}

func TestWhatCannotWorkIsRefused(t *testing.T) {
	behind := func(name string, addr, mux uint16, channel int) Device {
		d := sht(name, addr)
		d.Mux = &Mux{mux, channel}
		return d
	}
	for _, c := range []struct {
		want    string
		devices []Device
	}{
		{`address 0x44 is "a"'s already`, []Device{sht("a", 0x44), sht("b", 0x44)}},
		{`can have 0x44, 0x45`, []Device{sht("a", 0x46)}},
		{`44 is decimal, and 0x44 was probably meant`, []Device{sht("a", 44)}},
		{`on channel 1 of multiplexer 0x70 is "a"'s already`, []Device{behind("a", 0x44, 0x70, 1), behind("b", 0x44, 0x70, 1)}},
		{`on the bus itself, which is heard`, []Device{sht("a", 0x44), behind("b", 0x44, 0x70, 1)}},
		{"a TCA9548A has 0x70 to 0x77", []Device{behind("a", 0x44, 0x60, 1)}},
		{"a TCA9548A has 0 to 7", []Device{behind("a", 0x44, 0x70, 8)}},
		{`did you mean "bme280"`, []Device{{Name: "a", Chip: "bme28", Interval: time.Second}}},
		{"no chip; add chip", []Device{{Name: "a", Interval: time.Second}}},
		{"interval 0s", []Device{{Name: "a", Chip: "sht3x"}}},
		{`did you mean "humidity"`, []Device{{Name: "a", Chip: "sht3x", Interval: time.Second, Points: []Point{{Name: "humidty"}}}}},
		{`it gives temperature and humidity`, []Device{{Name: "a", Chip: "sht3x", Interval: time.Second, Points: []Point{{Name: "co2"}}}}},
		{"sht3x has no settings", []Device{{Name: "a", Chip: "sht3x", Interval: time.Second, Settings: map[string]any{"gain": 1}}}},
		{"needs its registers described", []Device{{Name: "a", Chip: GenericChip, Interval: time.Second}}},
	} {
		_, err := New(Options{Path: "/dev/i2c-1", Sink: adapters.SinkFunc(func(adapters.Sample) bool { return true }), Clock: func() adapters.Instant { return 0 }, Devices: c.devices})
		var de *DeviceError
		if err == nil || !strings.Contains(err.Error(), c.want) || !errors.As(err, &de) {
			t.Errorf("%v, want %q", err, c.want)
		}
	}
}

// One cycle of a chip as the bus's goroutine carries it out: setup, trigger, wait, answer, sample.
func BenchmarkCycle(b *testing.B) {
	port := &fakeBus{chips: map[uint16]func(w, r []byte) error{0x44: sht3xAt}}
	bus, err := New(Options{
		Name: "header", Open: func() (periph.BusCloser, error) { return port, nil }, Devices: []Device{sht("roof", 0x44)},
		Sink: adapters.SinkFunc(func(adapters.Sample) bool { return true }), Clock: func() adapters.Instant { return 1 },
	})
	if err != nil {
		b.Fatal(err)
	}
	bus.schedule = adapters.NewSchedule(time.Now())
	d := bus.devices[0]
	d.job = bus.schedule.Add(d.pace, 0)
	if err := bus.open(); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		port.log = port.log[:0]
		for again := true; again; again = d.running() {
			if err := d.turn(); err != nil {
				b.Fatal(err)
			}
		}
	}
}
