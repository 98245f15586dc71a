package modbus_test

import (
	"fmt"
	"io"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"gateway/adapters"
	"gateway/adapters/modbus"
	"gateway/adapters/port"
	"gateway/adapters/sim"
)

// Some gateways close the connection when they are asked for a unit that they do not like.
func TestADeviceThatDropsTheConnectionCostsItsNeighboursNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := sim.NewModbus()
		s := newSink()
		o := modbus.Options{Framing: modbus.TCP, Address: "h:1", Dial: pipeDial(t, m.ServeConn), Sink: s}
		for unit := byte(1); unit <= 5; unit++ {
			m.Unit(unit).Set(sim.HoldingRegisters, 0, 1)
			o.Devices = append(o.Devices, modbus.Device{Name: fmt.Sprint("dev", unit), Unit: unit, Interval: time.Second, Points: registers(t, 0, 1)})
		}
		m.Unit(2).Always(&sim.ModbusFault{Silent: true, Disconnect: true})
		b, stop := start(t, o)
		time.Sleep(time.Minute + 500*time.Millisecond)
		stop()
		for i, d := range b.Status().Devices {
			good := 0
			for _, sample := range s.of(d.Device) {
				if get(t, sample, "r0").Quality == adapters.Good {
					good++
				}
			}
			switch {
			case i == 1 && (good != 0 || d.State != adapters.Offline):
				t.Errorf("%s is %v, with %d good samples", d.Device, d.State, good)
			case i != 1 && (good != 61 || d.State != adapters.Online):
				t.Errorf("%s is %v, with %d good samples in a minute, want 61", d.Device, d.State, good)
			}
		}
		if n := m.Unit(2).Count(); n > 20 {
			t.Errorf("the device that drops the connection was asked %d times in a minute", n)
		}
	})
}

// A gateway to a serial line is busy with a device that does not answer for longer than the timeout, and
// carries nothing else meanwhile.
func TestAGatewayThatWaitsForASilentDeviceCostsItsNeighboursNoReading(t *testing.T) {
	for _, f := range []modbus.Framing{modbus.TCP, modbus.RTUOverTCP} {
		t.Run(f.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := sim.NewModbus()
				s := newSink()
				o := modbus.Options{Framing: f, Address: "h:1", Dial: pipeDial(t, m.ServeConn), Sink: s}
				if f == modbus.RTUOverTCP {
					o.Dial = pipeDial(t, m.ServeRTU)
				}
				for unit := byte(1); unit <= 5; unit++ {
					m.Unit(unit).Set(sim.HoldingRegisters, 0, 1)
					o.Devices = append(o.Devices, modbus.Device{Name: fmt.Sprint("dev", unit), Unit: unit, Interval: 5 * time.Second, Points: registers(t, 0, 1)})
				}
				b, stop := start(t, o)
				time.Sleep(2 * time.Second)
				m.Unit(2).Always(&sim.ModbusFault{Delay: 2500 * time.Millisecond, Exception: 11})
				time.Sleep(5*time.Minute + 2*time.Second) // the last cycle is over, however long the gateway was busy
				stop()
				for i, d := range b.Status().Devices {
					if i == 1 {
						if d.State != adapters.Offline {
							t.Errorf("%s is %v", d.Device, d.State)
						}
						continue
					}
					if n := len(s.of(d.Device)); n != 61 || d.Failures != 0 {
						t.Errorf("%s gave %d samples, want 61, and failed %d times", d.Device, n, d.Failures)
					}
				}
			})
		})
	}
}

// A block over which the connection is lost takes only itself and what comes after it along.
func TestABlockThatDropsTheConnectionLeavesTheOthers(t *testing.T) {
	learn(t, func(t *testing.T, u *sim.ModbusUnit, s *sink) {
		settle(t, s, 1)
		u.Fault(sim.ModbusFault{}, sim.ModbusFault{Silent: true, Disconnect: true}, sim.ModbusFault{Silent: true, Disconnect: true})
		sample := s.next(t)
		want(t, sample, "r0", good(adapters.UintValue(0)))
		want(t, sample, "r1", bad(adapters.ReasonAbsent))
		want(t, sample, "r2", bad(adapters.ReasonAbsent))
		sample = s.next(t)
		for _, name := range []string{"r0", "r1", "r2"} {
			want(t, sample, name, good(adapters.UintValue(0)))
		}
	}, 3, func(d *modbus.Device) { d.Points[1].Address, d.Points[2].Address, d.Hole = 200, 209, -1 })
}

// A watchdog must not take patience with a slow device for a loop that hangs.
func TestTheLoopIsSeenAliveWhileADeviceIsSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := sim.NewModbus()
		m.Unit(1).Set(sim.HoldingRegisters, 0, 1).Always(&sim.ModbusFault{Silent: true})
		b, _ := start(t, modbus.Options{Framing: modbus.RTU, Port: port.Config{Name: "p"}, Open: pipeLine(t, m.ServeRTU), Sink: newSink(),
			Devices: []modbus.Device{{Name: "dev", Unit: 1, Timeout: 20 * time.Second, Retries: 10, Points: registers(t, 0, 1)}}})
		var last uint64
		for range 20 {
			time.Sleep(25 * time.Second)
			beat := b.Status().Beat
			if beat == last {
				t.Fatal("no beat in 25 s")
			}
			last = beat
		}
	})
}

// neighbours runs a device on an RTU line between two others and returns how often it was asked in ten
// minutes, and how many good samples the others gave, 601 each when nothing is in their way.
func neighbours(t *testing.T, serve func(*sim.Modbus) func(io.ReadWriter) error, spoil func(*sim.ModbusUnit)) (asked, good int) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		m := sim.NewModbus()
		s := newSink()
		o := modbus.Options{Framing: modbus.RTU, Port: port.Config{Name: "p", Baud: 19200}, Open: pipeLine(t, serve(m)), Sink: s}
		for unit := byte(1); unit <= 3; unit++ {
			m.Unit(unit).Set(sim.HoldingRegisters, 0, make([]uint16, 20)...)
			d := modbus.Device{Name: fmt.Sprint("dev", unit), Unit: unit, Interval: time.Second, Timeout: 500 * time.Millisecond, Points: registers(t, 0, 20), Hole: -1}
			for i := range d.Points {
				d.Points[i].Address = uint16(i) / 5 * 100 // four blocks
				d.Points[i].Address += uint16(i) % 5
			}
			for block := range uint16(4) {
				m.Unit(unit).Set(sim.HoldingRegisters, 100*block, make([]uint16, 5)...)
			}
			o.Devices = append(o.Devices, d)
		}
		spoil(m.Unit(2))
		_, stop := start(t, o)
		time.Sleep(10*time.Minute + 500*time.Millisecond)
		stop()
		asked = m.Unit(2).Count()
		for _, name := range []string{"dev1", "dev3"} {
			for _, sample := range s.of(name) {
				if get(t, sample, "r0").Quality == adapters.Good {
					good++
				}
			}
		}
	})
	return asked, good
}

// steps is how often a device that backs off is tried at most in ten minutes: seven times until it is
// asked once a minute, then once in 45 s, for the pauses are shortened by up to a quarter.
const steps = 7 + 14

// A noisy line gives a byte or two when a transceiver turns around, also where nobody answers.
type noisy struct{ io.ReadWriter }

func (n *noisy) Read(b []byte) (int, error) {
	k, err := n.ReadWriter.Read(b)
	if k > 0 && b[0] == 2 {
		if _, err := n.ReadWriter.Write([]byte{0x00, 0xff}); err != nil {
			return 0, err
		}
	}
	return k, err
}

func TestNoiseInsteadOfAnAnswerCostsOneTimeoutPerBackoffStep(t *testing.T) {
	asked, good := neighbours(t,
		func(m *sim.Modbus) func(io.ReadWriter) error {
			return func(line io.ReadWriter) error { return m.ServeRTU(&noisy{line}) }
		},
		func(u *sim.ModbusUnit) { u.Always(&sim.ModbusFault{Silent: true}) })
	if asked > steps || good < 2*601-asked {
		t.Errorf("asked %d times, its neighbours gave %d good samples of 1202", asked, good)
	}
}

func TestHalfAnAnswerIsAskedForOnceMoreAndBacksOff(t *testing.T) {
	asked, good := neighbours(t,
		func(m *sim.Modbus) func(io.ReadWriter) error { return m.ServeRTU },
		func(u *sim.ModbusUnit) { u.Always(&sim.ModbusFault{Cut: 6}) })
	if asked > 3*steps || good < 2*601-2*asked {
		t.Errorf("asked %d times, its neighbours gave %d good samples of 1202", asked, good)
	}
}

// Whatever a device does to its answers, and however late they are: what is taken for good is right.
func TestNothingThatADeviceDoesMakesAWrongValue(t *testing.T) {
	for _, f := range all {
		for seed := range uint64(4) {
			t.Run(fmt.Sprint(f, " ", seed), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { mischief(t, f, rand.New(rand.NewPCG(seed, 1))) })
			})
		}
	}
}

func mischief(t *testing.T, f modbus.Framing, r *rand.Rand) {
	m := sim.NewModbus()
	s := newSink()
	serve := map[modbus.Framing]func(io.ReadWriter) error{modbus.TCP: m.ServeConn, modbus.RTU: m.ServeRTU, modbus.RTUOverTCP: m.ServeRTU, modbus.ASCII: m.ServeASCII}[f]
	o := modbus.Options{Framing: f, Address: "h:1", Port: port.Config{Name: "p"}, Sink: s, Dial: pipeDial(t, serve), Open: pipeLine(t, serve),
		Backoff: adapters.Backoff{Min: 100 * time.Millisecond, Max: time.Second}}
	for unit := byte(1); unit <= 3; unit++ {
		u := m.Unit(unit)
		d := modbus.Device{Name: fmt.Sprint("dev", unit), Unit: unit, Interval: time.Second, Timeout: 100 * time.Millisecond, Retries: int(unit) - 1, Hole: -1,
			Backoff: adapters.Backoff{Min: 200 * time.Millisecond, Max: 2 * time.Second}}
		// Blocks of one, one, two, two and three registers, and of bits.
		for at, size := range map[uint16]uint16{0: 1, 10: 1, 20: 2, 30: 2, 40: 3} {
			for i := range size {
				u.Set(sim.HoldingRegisters, at+i, 1000*uint16(unit)+at+i)
				d.Points = append(d.Points, point(fmt.Sprint("h", at+i), modbus.Holding, at+i, field(t, "uint16")))
			}
			u.Set(sim.InputRegisters, at, 1000*uint16(unit)+500+at)
			d.Points = append(d.Points, point(fmt.Sprint("i", at), modbus.Input, at, field(t, "uint16")))
			u.Set(sim.Coils, at, at/10%2)
			d.Points = append(d.Points, point(fmt.Sprint("c", at), modbus.Coil, at, field(t, "bool")))
		}
		o.Devices = append(o.Devices, d)
		for range 20000 {
			u.Fault(misdeed(r, f))
		}
	}
	_, stop := start(t, o)
	time.Sleep(10 * time.Minute)
	stop()
	good := 0
	for i, d := range o.Devices {
		for _, sample := range s.of(d.Name) {
			for _, reading := range sample.Readings {
				p := &d.Points[reading.Point]
				right := adapters.UintValue(1000*uint64(i+1) + uint64(p.Address))
				switch p.Kind {
				case modbus.Input:
					right = adapters.UintValue(1000*uint64(i+1) + 500 + uint64(p.Address))
				case modbus.Coil:
					right = adapters.BoolValue(p.Address/10%2 == 1)
				}
				if reading.Quality != adapters.Good {
					continue
				}
				if good++; reading.Value != right {
					t.Fatalf("%s of %s is %v at %v, want %v", p.Name, d.Name, reading.Value, time.Duration(sample.Time), right)
				}
			}
		}
	}
	if good < 500 {
		t.Errorf("only %d good readings", good)
	}
}

// misdeed returns a fault, or none, at random.
func misdeed(r *rand.Rand, framing modbus.Framing) (f sim.ModbusFault) {
	kinds := 25
	if framing != modbus.TCP {
		// What says that it is of another unit, function or length, and comes late, is what it says.
		kinds = 22
	}
	switch r.IntN(kinds) {
	case 0:
		f.Delay = time.Duration(r.IntN(3000)) * time.Millisecond
	case 1, 2:
		f.Delay = 90*time.Millisecond + time.Duration(r.IntN(60))*time.Millisecond
	case 3:
		f.Cut = 1 + r.IntN(12)
	case 4:
		f.Split, f.Delay = 1+r.IntN(8), time.Duration(r.IntN(105))*time.Millisecond
	case 5:
		f.Before = []byte{1, 3, 2, byte(r.Uint32())}[:1+r.IntN(4)]
	case 6:
		f.After = []byte{byte(1 + r.IntN(3)), 3, 2, byte(r.Uint32())}[:1+r.IntN(4)]
	case 7:
		f.Corrupt = true
	case 22:
		f.WrongUnit = byte(1 + r.IntN(4))
	case 23:
		f.Short = 2 * (1 + r.IntN(2))
	case 10:
		f.Exception = byte(5 + r.IntN(2))
	case 11:
		f.Silent = true
	case 12:
		f.Trickle = time.Duration(1+r.IntN(30)) * time.Millisecond
	case 13:
		f.Cut, f.Disconnect = r.IntN(10), true
	case 14:
		f.WrongTx = uint16(0x8000 + r.IntN(3))
	case 24:
		f.WrongFunc = byte(1 + r.IntN(4))
	}
	return f
}

// Patience with a busy device is at its neighbours' cost: one that is busy for ever has it once.
func TestADeviceThatIsBusyForEverIsAskedOnceInACycle(t *testing.T) {
	asked, good := neighbours(t,
		func(m *sim.Modbus) func(io.ReadWriter) error { return m.ServeRTU },
		func(u *sim.ModbusUnit) { u.Always(&sim.ModbusFault{Exception: 6}) })
	if asked > 601+10 || good < 2*601-2 {
		t.Errorf("asked %d times, its neighbours gave %d good samples of 1202", asked, good)
	}
}

// Many devices refuse everything while they start.
func TestADeviceThatRefusesEverythingWhileItStartsIsSoonReadAgain(t *testing.T) {
	for code, within := range map[byte]time.Duration{2: 2 * time.Minute, 4: 30 * time.Second} {
		learn(t, func(t *testing.T, u *sim.ModbusUnit, s *sink) {
			settle(t, s, 1)
			u.Always(&sim.ModbusFault{Exception: code})
			time.Sleep(5 * time.Second)
			u.Always(nil)
			begin := time.Now()
			for all := false; !all; {
				sample := s.next(t)
				all = true
				for _, r := range sample.Readings {
					all = all && r.Quality == adapters.Good
				}
				if took := time.Since(begin); took > within {
					t.Fatalf("after exception %d not all is read %v after the start", code, took)
				}
			}
		}, 20, nil)
	}
}

func TestOddIntervalsDoNotKeepTheLoopAwake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := sim.NewModbus()
		m.Unit(1).Set(sim.HoldingRegisters, 0, 1, 2)
		s := newSink()
		points := registers(t, 0, 2)
		points[0].Interval, points[1].Interval = time.Second, 999*time.Millisecond
		b, stop := start(t, modbus.Options{Framing: modbus.TCP, Address: "h:1", Dial: pipeDial(t, m.ServeConn), Sink: s,
			Devices: []modbus.Device{{Name: "dev", Unit: 1, Points: points}}})
		time.Sleep(time.Minute)
		stop()
		if n := len(s.of("dev")); n < 118 || n > 122 {
			t.Errorf("%d samples in a minute, want about 120", n)
		}
		if beat := b.Status().Beat; beat > 2000 {
			t.Errorf("the loop woke %d times in a minute", beat)
		}
	})
}

// Fifty devices on one wire at 19200 baud, among them one with a bad register, one that is silent, one
// that is busy and one whose answers are damaged: all others give every value in every cycle.
func TestFiftyDevicesOnOneWire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const char = 11 * time.Second / 19200
		m := sim.NewModbus()
		s := newSink()
		var sent, answered []frameAt
		o := modbus.Options{Framing: modbus.RTU, Port: port.Config{Name: "p", Baud: 19200, Parity: port.ParityEven},
			Open: recordedLine(t, char, m.ServeRTU, &sent, &answered), Sink: s}
		for unit := byte(1); unit <= 50; unit++ {
			m.Unit(unit).Set(sim.HoldingRegisters, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9)
			o.Devices = append(o.Devices, modbus.Device{Name: "dev" + itoa(int(unit)), Unit: unit, Interval: 5 * time.Second, Timeout: 200 * time.Millisecond, Points: registers(t, 0, 10)})
		}
		m.Unit(10).Clear(sim.HoldingRegisters, 4)
		m.Unit(20).Always(&sim.ModbusFault{Silent: true})
		m.Unit(30).Always(&sim.ModbusFault{Exception: 6})
		m.Unit(40).Always(&sim.ModbusFault{Corrupt: true})
		b, stop := start(t, o)
		time.Sleep(10*time.Minute + 4*time.Second)
		stop()
		for _, d := range b.Status().Devices {
			samples := s.of(d.Device)
			bad := map[string]adapters.Reason{"dev10": "refused: exception 2", "dev20": adapters.ReasonTimeout, "dev30": adapters.ReasonBusy, "dev40": adapters.ReasonChecksum}[d.Device]
			if bad == "" || d.Device == "dev10" {
				if len(samples) != 121 || d.Overruns != 0 {
					t.Errorf("%s gave %d samples, want 121, and missed %d", d.Device, len(samples), d.Overruns)
				}
			}
			for i, sample := range samples {
				for _, r := range sample.Readings {
					wrong := bad
					if d.Device == "dev10" && r.Point != 4 {
						wrong = ""
					}
					if r.Reason != wrong || wrong == "" && r.Value != adapters.UintValue(uint64(r.Point)) {
						t.Fatalf("%s, r%d, cycle %d: %v %q, want %q", d.Device, r.Point, i, r.Value, r.Reason, wrong)
					}
				}
			}
		}
		for i := 1; i < len(sent); i++ {
			if gap := sent[i].at.Sub(sent[i-1].at) - time.Duration(sent[i-1].size)*char; gap < 7*char/2 {
				t.Fatalf("request %d came %v after the one before", i, gap)
			}
		}
	})
}
