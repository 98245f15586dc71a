package modbus_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
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

func TestAFIFOQueueOfNothingIsAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		answer := []byte{1, 0x18, 0x00, 0x00}
		answer = binary.LittleEndian.AppendUint16(answer, crc(answer))
		c := newClient(t, modbus.Options{Framing: modbus.RTU, Port: port.Config{Name: "p"}, Open: pipeLine(t, func(line io.ReadWriter) error {
			if _, err := io.ReadFull(line, make([]byte, 6)); err != nil {
				return err
			}
			_, err := line.Write(answer)
			return err
		})})
		if got, err := c.FIFO(t.Context(), 1, 0); !errors.Is(err, modbus.ErrProtocol) {
			t.Errorf("% x, %v", got, err)
		}
	})
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
