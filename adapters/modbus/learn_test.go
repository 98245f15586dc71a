package modbus_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"gateway/adapters"
	"gateway/adapters/modbus"
	"gateway/adapters/sim"
)

// learn runs one device with points r0… on a line in memory.
func learn(t *testing.T, test func(t *testing.T, u *sim.ModbusUnit, s *sink), points int, change func(*modbus.Device)) {
	synctest.Test(t, func(t *testing.T) {
		m := sim.NewModbus()
		u := m.Unit(1)
		s := newSink()
		d := modbus.Device{Name: "dev", Unit: 1, Interval: time.Second, Timeout: 100 * time.Millisecond, Points: registers(t, 0, points)}
		if change != nil {
			change(&d)
		}
		o := modbus.Options{Framing: modbus.TCP, Address: "h:1", Dial: pipeDial(t, m.ServeConn), Sink: s, Devices: []modbus.Device{d}}
		for i := range uint16(points) {
			u.Set(sim.HoldingRegisters, i, i)
		}
		u.Set(sim.HoldingRegisters, 200, make([]uint16, 10)...).Set(sim.Coils, 0, make([]uint16, 50)...)
		start(t, o)
		test(t, u, s)
	})
}

// settle waits for as many samples and returns the last.
func settle(t *testing.T, s *sink, cycles int) adapters.Sample {
	t.Helper()
	var last adapters.Sample
	for range cycles {
		last = s.next(t)
	}
	return last
}

// modbus4mqtt#13: one bad register fails the whole batch.
func TestOneBadRegisterHurtsNobody(t *testing.T) {
	learn(t, func(t *testing.T, u *sim.ModbusUnit, s *sink) {
		settle(t, s, 1)
		u.Clear(sim.HoldingRegisters, 37)
		first := s.next(t)
		for i := range 100 {
			if i == 37 {
				want(t, first, "r37", bad("refused: exception 2"))
			} else {
				want(t, first, "r"+itoa(i), good(adapters.UintValue(uint64(i))))
			}
		}
		// What was learned is used: from now on two requests a cycle, none of which is refused.
		u.Requests()
		again := s.next(t)
		want(t, again, "r37", bad("refused: exception 2"))
		want(t, again, "r99", good(adapters.UintValue(99)))
		if n := len(u.Requests()); n != 2 {
			t.Errorf("%d requests in the cycle after, want 2", n)
		}
		// It is tried again now and then, and taken back when it is there.
		u.Set(sim.HoldingRegisters, 37, 37)
		end := time.Now().Add(time.Hour)
		for get(t, s.next(t), "r37").Quality != adapters.Good {
			if time.Now().After(end) {
				t.Fatal("an address that is there again is not read within an hour")
			}
		}
		settle(t, s, 1)
		u.Requests()
		s.next(t)
		if n := len(u.Requests()); n != 1 {
			t.Errorf("%d requests a cycle when all is well again", n)
		}
	}, 100, nil)
}

// A wrong address in the configuration, or a device that lacks a register, is told in the log: once, with the
// point's name, for whoever reads no topic. One answer that was lost is no news.
func TestPointsThatADeviceDoesNotGiveAreInTheLogOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := sim.NewModbus()
		u := m.Unit(1).Set(sim.HoldingRegisters, 0, 1, 2, 3)
		s := newSink()
		var log bytes.Buffer
		start(t, modbus.Options{
			Framing: modbus.TCP, Address: "h:1", Dial: pipeDial(t, m.ServeConn), Sink: s, Logger: slog.New(slog.NewTextHandler(&log, nil)),
			Devices: []modbus.Device{{Name: "dev", Unit: 1, Interval: time.Second, Timeout: 100 * time.Millisecond, Points: registers(t, 0, 5)}},
		})
		settle(t, s, 10)
		u.Fault(sim.ModbusFault{Silent: true})
		settle(t, s, 10)
		synctest.Wait()
		const line = `points=2 without="r3 (holding 3: refused: exception 2), r4 (holding 4: refused: exception 2)"`
		if got := log.String(); strings.Count(got, line) != 1 || strings.Count(got, "does not give all points") != 1 {
			t.Errorf("%s\nwant, once: %s", got, line)
		}
	})
}

// A bus with many devices that is unplugged is one line in the log, not one for each of them.
func TestABusThatIsAwayIsOneLineInTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSink()
		var log bytes.Buffer
		o := modbus.Options{Framing: modbus.TCP, Address: "h:1", Sink: s, Logger: slog.New(slog.NewTextHandler(&log, nil)),
			Dial: func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("no route to host") }}
		for _, name := range []string{"a", "b", "c"} {
			o.Devices = append(o.Devices, modbus.Device{Name: name, Unit: 1, Interval: time.Second, Timeout: 100 * time.Millisecond, Points: registers(t, 0, 1)})
		}
		b, _ := start(t, o)
		settle(t, s, 9)
		synctest.Wait()
		if got := log.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, "bus not usable; waiting for it") {
			t.Error(got)
		}
		for _, d := range b.Status().Devices {
			if d.State != adapters.Offline || d.Err == "" {
				t.Errorf("%+v", d)
			}
		}
	})
}

// At the edges of a block as in its middle, registers and bits.
func TestBadAddressesAtTheEdgesAreFound(t *testing.T) {
	learn(t, func(t *testing.T, u *sim.ModbusUnit, s *sink) {
		settle(t, s, 1)
		for _, a := range []uint16{0, 1, 48, 49} {
			u.Clear(sim.HoldingRegisters, a)
			u.Clear(sim.Coils, a)
		}
		for range 3 {
			sample := s.next(t)
			for i := range 100 {
				n, w := i%50, good(adapters.UintValue(uint64(i)))
				if i >= 50 {
					w = good(adapters.BoolValue(false))
				}
				if n < 2 || n > 47 {
					w = bad("refused: exception 2")
				}
				want(t, sample, "r"+itoa(i), w)
			}
		}
		u.Requests()
		s.next(t)
		if n := len(u.Requests()); n != 2 {
			t.Errorf("%d requests once it is known", n)
		}
	}, 100, func(d *modbus.Device) {
		for i := 50; i < 100; i++ {
			d.Points[i] = point("r"+itoa(i), modbus.Coil, uint16(i-50), field(t, "bool"))
		}
	})
}

func TestManyBadRegistersAreFoundInAFewCycles(t *testing.T) {
	learn(t, func(t *testing.T, u *sim.ModbusUnit, s *sink) {
		settle(t, s, 1)
		for a := uint16(3); a < 100; a += 7 {
			u.Clear(sim.HoldingRegisters, a)
		}
		last := settle(t, s, 4)
		for i := range 100 {
			if i >= 3 && (i-3)%7 == 0 {
				want(t, last, "r"+itoa(i), bad("refused: exception 2"))
			} else {
				want(t, last, "r"+itoa(i), good(adapters.UintValue(uint64(i))))
			}
		}
	}, 100, nil)
}

// A fast line is given no more cycles than it takes.
func TestManyBadRegistersAreFoundInOneCycleOverAFastLine(t *testing.T) {
	learn(t, func(t *testing.T, u *sim.ModbusUnit, s *sink) {
		settle(t, s, 1)
		for a := uint16(0); a < 100; a += 3 {
			u.Clear(sim.HoldingRegisters, a)
		}
		sample := s.next(t)
		for i := range 100 {
			if i%3 == 0 {
				want(t, sample, "r"+itoa(i), bad("refused: exception 2"))
			} else {
				want(t, sample, "r"+itoa(i), good(adapters.UintValue(uint64(i))))
			}
		}
	}, 100, nil)
}

// A device that refuses everything is not asked for everything again and again.
func TestADeviceThatRefusesEverythingIsAskedForLittle(t *testing.T) {
	for _, code := range []byte{1, 2, 3, 4} {
		learn(t, func(t *testing.T, u *sim.ModbusUnit, s *sink) {
			settle(t, s, 1)
			u.Requests()
			u.Always(&sim.ModbusFault{Exception: code})
			s.next(t)
			if n := len(u.Requests()); n > 200 {
				t.Errorf("exception %d: %d requests in the first cycle", code, n)
			}
			most := 0
			for range 600 {
				sample := s.next(t)
				want(t, sample, "r99", bad(adapters.Reason("refused: exception "+itoa(int(code)))))
				most = max(most, len(u.Requests()))
			}
			if most > 8 {
				t.Errorf("exception %d: up to %d requests in a cycle later on", code, most)
			}
			u.Always(nil)
			for begin := time.Now(); get(t, s.next(t), "r99").Quality != adapters.Good; {
				if time.Since(begin) > time.Hour {
					t.Fatalf("exception %d: nothing is read an hour later", code)
				}
			}
		}, 100, nil)
	}
}

func TestTheDevicesRealMaximumIsLearned(t *testing.T) {
	learn(t, func(t *testing.T, u *sim.ModbusUnit, s *sink) {
		settle(t, s, 1)
		u.Limit(37)
		for range 12 {
			sample := s.next(t)
			for i := range 100 {
				want(t, sample, "r"+itoa(i), good(adapters.UintValue(uint64(i))))
			}
		}
		u.Requests()
		s.next(t)
		var sizes []int
		for _, r := range u.Requests() {
			sizes = append(sizes, int(r.PDU[4]))
		}
		if !slices.Equal(sizes, []int{37, 37, 26}) {
			t.Errorf("requests for %v registers, want 37, 37, 26", sizes)
		}
	}, 100, nil)
}

func TestAHoleThatMustNotBeReadIsLearned(t *testing.T) {
	learn(t, func(t *testing.T, u *sim.ModbusUnit, s *sink) {
		settle(t, s, 1)
		u.Clear(sim.HoldingRegisters, 2, 3)
		sample := s.next(t)
		want(t, sample, "r0", good(adapters.UintValue(0)))
		want(t, sample, "r5", good(adapters.UintValue(5)))
		u.Requests()
		sample = s.next(t)
		want(t, sample, "r5", good(adapters.UintValue(5)))
		if n := len(u.Requests()); n != 2 {
			t.Errorf("%d requests in the cycle after, want 2", n)
		}
	}, 6, func(d *modbus.Device) { d.Points = slices.Delete(d.Points, 2, 4) })
}

func TestAFunctionThatTheDeviceDoesNotKnowIsLeftOut(t *testing.T) {
	learn(t, func(t *testing.T, u *sim.ModbusUnit, s *sink) {
		settle(t, s, 1)
		u.Fault(sim.ModbusFault{Exception: 1})
		want(t, s.next(t), "r0", bad("refused: exception 1"))
		u.Requests()
		s.next(t)
		if n := len(u.Requests()); n != 0 {
			t.Errorf("%d requests for what the device does not know", n)
		}
	}, 3, nil)
}

// What was refused as a whole is tried again as a whole.
func TestAFunctionThatTheDeviceLearnsIsReadInOneRequestAgain(t *testing.T) {
	learn(t, func(t *testing.T, u *sim.ModbusUnit, s *sink) {
		settle(t, s, 1)
		u.Always(&sim.ModbusFault{Exception: 1})
		s.next(t)
		u.Always(nil)
		u.Requests()
		for get(t, s.next(t), "r0").Quality != adapters.Good {
		}
		if n := len(u.Requests()); n != 1 {
			t.Errorf("%d requests until all is read again", n)
		}
	}, 100, nil)
}

// Some devices do not refuse an address that they do not have: they fall silent.
func TestABlockThatTheDeviceDoesNotAnswerIsNarrowedDown(t *testing.T) {
	learn(t, func(t *testing.T, u *sim.ModbusUnit, s *sink) {
		settle(t, s, 1)
		u.Mute(sim.HoldingRegisters, 45)
		end := time.Now().Add(10 * time.Minute)
		for {
			sample := s.next(t)
			n := 0
			for _, r := range sample.Readings {
				if r.Quality == adapters.Good {
					n++
				}
			}
			if n == 49 {
				want(t, sample, "r45", bad(adapters.ReasonTimeout))
				break
			}
			if time.Now().After(end) {
				t.Fatalf("%d of 50 points after ten minutes", n)
			}
		}
	}, 50, func(d *modbus.Device) {
		// Two blocks: one that is always answered shows that the device is alive.
		for i := range 10 {
			d.Points[i].Address = uint16(200 + i)
		}
	})
}

func TestBusyIsAReasonNotAZero(t *testing.T) { // home-assistant/core#51103
	learn(t, func(t *testing.T, u *sim.ModbusUnit, s *sink) {
		settle(t, s, 1)
		u.Always(&sim.ModbusFault{Exception: 6})
		want(t, s.next(t), "r1", bad(adapters.ReasonBusy))
		u.Always(nil)
		want(t, settle(t, s, 2), "r1", good(adapters.UintValue(1)))
	}, 3, nil)
}

func TestPointsHaveIntervalsOfTheirOwn(t *testing.T) {
	learn(t, func(t *testing.T, u *sim.ModbusUnit, s *sink) {
		for range 11 {
			s.next(t)
		}
		counts := map[string]int{}
		for _, sample := range s.of("dev") {
			for _, r := range sample.Readings {
				counts[sample.Schema.Points[r.Point].Name]++
			}
		}
		if counts["r0"] != 11 || counts["r1"] != 3 || counts["r2"] != 11 {
			t.Errorf("in 10 s: %v, want r0 11, r1 (every 5 s) 3, r2 11", counts)
		}
		for _, sample := range s.of("dev") {
			if sample.Time%adapters.Instant(time.Second) > adapters.Instant(100*time.Millisecond) {
				t.Errorf("a sample at %v", time.Duration(sample.Time))
			}
		}
	}, 3, func(d *modbus.Device) { d.Points[1].Interval = 5 * time.Second })
}

// A gateway that passes requests on to a serial line answers for its silent devices: exceptions 10 and
// 11 are no answers of theirs.
func TestAGatewaysExceptionForASilentDeviceIsATimeout(t *testing.T) {
	for _, code := range []byte{10, 11} {
		synctest.Test(t, func(t *testing.T) {
			m := sim.NewModbus()
			m.Unit(1).Set(sim.HoldingRegisters, 0, 1).Always(&sim.ModbusFault{Exception: code})
			m.Unit(2).Set(sim.HoldingRegisters, 0, 2)
			s := newSink()
			b, stop := start(t, modbus.Options{Framing: modbus.TCP, Address: "h:1", Dial: pipeDial(t, m.ServeConn), Sink: s, Devices: []modbus.Device{
				{Name: "silent", Unit: 1, Interval: time.Second, Points: registers(t, 0, 1)},
				{Name: "well", Unit: 2, Interval: time.Second, Points: registers(t, 0, 1)},
			}})
			time.Sleep(5*time.Minute + 500*time.Millisecond)
			stop()
			for _, sample := range s.of("silent") {
				want(t, sample, "r0", bad(adapters.ReasonTimeout))
			}
			if n := m.Unit(1).Count(); n > 15 {
				t.Errorf("the silent device was asked %d times in five minutes", n)
			}
			if n := len(s.of("well")); n != 301 {
				t.Errorf("%d samples of its neighbour in five minutes", n)
			}
			if d := b.Status().Devices[0]; d.State != adapters.Offline {
				t.Errorf("%+v", d)
			}
		})
	}
}

func TestAWriteToABusThatHasStoppedSaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := sim.NewModbus()
		m.Unit(1).Set(sim.HoldingRegisters, 0, 1)
		points := registers(t, 0, 1)
		points[0].Writable = true
		b, stop := start(t, modbus.Options{Framing: modbus.TCP, Address: "h:1", Dial: pipeDial(t, m.ServeConn), Sink: newSink(),
			Devices: []modbus.Device{{Name: "dev", Unit: 1, Points: points}}})
		stop()
		if _, err := b.Write(t.Context(), "dev", "r0", adapters.UintValue(1)); !errors.Is(err, modbus.ErrStopped) {
			t.Errorf("%v", err)
		}
	})
}

func TestWhatWasReadBeforeTheConnectionWasLostIsDelivered(t *testing.T) {
	learn(t, func(t *testing.T, u *sim.ModbusUnit, s *sink) {
		settle(t, s, 1)
		u.Fault(sim.ModbusFault{}, sim.ModbusFault{Cut: 3, Disconnect: true}, sim.ModbusFault{Cut: 3, Disconnect: true})
		sample := s.next(t)
		want(t, sample, "r0", good(adapters.UintValue(0)))
		want(t, sample, "r1", bad(adapters.ReasonAbsent))
		sample = s.next(t)
		want(t, sample, "r1", good(adapters.UintValue(0)))
	}, 2, func(d *modbus.Device) { d.Points[1].Address = 200 })
}
