package modbus_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"gateway/adapters"
	"gateway/adapters/modbus"
	"gateway/adapters/port"
	"gateway/adapters/sim"
)

func TestASampleOfEachTableOverTCP(t *testing.T) {
	m := sim.NewModbus()
	m.Unit(1).Set(sim.Coils, 3, 1).Set(sim.DiscreteInputs, 10, 0, 1).Set(sim.InputRegisters, 100, 0xfff6).Set(sim.HoldingRegisters, 0, 0x4366, 0x199a)
	s := newSink()
	start(t, modbus.Options{
		Name: "plc", Framing: modbus.TCP, Address: tcpServer(t, m), Sink: s,
		Devices: []modbus.Device{{Name: "dev", Unit: 1, Interval: time.Hour, Timeout: time.Minute, Points: []modbus.Point{
			point("pump", modbus.Coil, 3, field(t, "bool")),
			point("door", modbus.Discrete, 11, field(t, "bool")),
			point("temperature", modbus.Input, 100, field(t, "int16")),
			point("voltage", modbus.Holding, 0, field(t, "float32")),
		}}},
	})
	sample := s.next(t)
	want(t, sample, "pump", good(adapters.BoolValue(true)))
	want(t, sample, "door", good(adapters.BoolValue(true)))
	want(t, sample, "temperature", good(adapters.IntValue(-10)))
	want(t, sample, "voltage", good(adapters.FloatValue(230.1)))
}

func TestEveryFramingGivesTheSame(t *testing.T) {
	for _, f := range []modbus.Framing{modbus.TCP, modbus.RTU, modbus.RTUOverTCP, modbus.ASCII} {
		t.Run(f.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := sim.NewModbus()
				m.Unit(7).Set(sim.InputRegisters, 0, 1, 2, 3)
				s := newSink()
				o := modbus.Options{Framing: f, Address: "h:1", Port: port.Config{Name: "p", Baud: 9600}, Sink: s,
					Devices: []modbus.Device{{Name: "dev", Unit: 7, Points: []modbus.Point{point("x", modbus.Input, 2, field(t, "uint16"))}}}}
				switch f {
				case modbus.TCP:
					o.Dial = pipeDial(t, m.ServeConn)
				case modbus.RTUOverTCP:
					o.Dial = pipeDial(t, m.ServeRTU)
				case modbus.RTU:
					o.Open = pipeLine(t, m.ServeRTU)
				case modbus.ASCII:
					o.Open = pipeLine(t, m.ServeASCII)
				}
				start(t, o)
				want(t, s.next(t), "x", good(adapters.UintValue(3)))
			})
		})
	}
}

func TestAWriteGoesInFrontAndIsReadBack(t *testing.T) {
	m := sim.NewModbus()
	m.Unit(1).Set(sim.HoldingRegisters, 0, 0, 0, 0xff00).Set(sim.Coils, 0, 0)
	s := newSink()
	setpoint := point("setpoint", modbus.Holding, 0, field(t, "float32"))
	setpoint.Writable = true
	relay := point("relay", modbus.Coil, 0, field(t, "bool"))
	relay.Writable = true
	part := point("mode", modbus.Holding, 2, field(t, "uint8_low"))
	part.Writable = true
	locked := point("locked", modbus.Holding, 2, field(t, "uint16"))
	b, _ := start(t, modbus.Options{
		Framing: modbus.TCP, Address: tcpServer(t, m), Sink: s,
		Devices: []modbus.Device{{Name: "dev", Unit: 1, Interval: time.Hour, Timeout: time.Minute, Points: []modbus.Point{setpoint, relay, part, locked}}},
	})
	s.next(t)
	ctx := context.Background()
	for name, v := range map[string]adapters.Value{"setpoint": adapters.FloatValue(21.5), "relay": adapters.BoolValue(true), "mode": adapters.UintValue(3)} {
		got, err := b.Write(ctx, "dev", name, v)
		if got != v || err != nil {
			t.Errorf("%s: %v, %v", name, got, err)
		}
		want(t, s.next(t), name, good(v))
	}
	if got := m.Unit(1).Get(sim.HoldingRegisters, 2); got != 0xff03 {
		t.Errorf("the other half of the register was touched: %04x", got)
	}
	if _, err := b.Write(ctx, "dev", "locked", adapters.UintValue(1)); !errors.Is(err, modbus.ErrNotWritable) {
		t.Errorf("locked: %v", err)
	}
	if _, err := b.Write(ctx, "dev", "none", adapters.UintValue(1)); !errors.Is(err, modbus.ErrNoPoint) {
		t.Errorf("none: %v", err)
	}
	if _, err := b.Write(ctx, "dev", "mode", adapters.UintValue(300)); err == nil {
		t.Error("300 fits into eight bits")
	}
}

// Function 22 writes a whole register, too, where it is asked for.
func TestTheFunctionThatWritesIsTheOneAskedFor(t *testing.T) {
	m := sim.NewModbus()
	u := m.Unit(1).Set(sim.HoldingRegisters, 0, 1, 2).Set(sim.Coils, 0, 0)
	c := newClient(t, modbus.Options{Framing: modbus.TCP, Address: tcpServer(t, m)})
	c.Timeout = time.Minute
	for _, w := range []struct {
		function byte
		kind     modbus.Kind
		typ      string
		first    byte // function that goes over the wire first
	}{
		{0, modbus.Coil, "bool", 5}, {5, modbus.Coil, "bool", 5}, {15, modbus.Coil, "bool", 15},
		{0, modbus.Holding, "uint16", 6}, {6, modbus.Holding, "uint16", 6}, {16, modbus.Holding, "uint16", 16},
		{22, modbus.Holding, "uint16", 22}, {23, modbus.Holding, "uint16", 23},
		{0, modbus.Holding, "uint32", 16}, {23, modbus.Holding, "uint32", 23},
		{0, modbus.Holding, "uint8_high", 22}, {22, modbus.Holding, "uint8_low", 22},
	} {
		p := point("x", w.kind, 0, field(t, w.typ))
		p.Function = w.function
		for _, v := range []uint64{1, 0} {
			value := adapters.UintValue(v)
			if w.kind == modbus.Coil {
				value = adapters.BoolValue(v == 1)
			}
			u.Requests()
			if got, err := c.Write(t.Context(), 1, p, value); err != nil || got != value {
				t.Errorf("function %d of a %s: %v, %v", w.function, w.typ, got, err)
			}
			if r := u.Requests(); r[0].PDU[0] != w.first {
				t.Errorf("function %d of a %s: function %d was sent", w.function, w.typ, r[0].PDU[0])
			}
		}
	}
}

func TestWhatGoesOverTheBusIsCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := sim.NewModbus()
		u := m.Unit(1).Set(sim.HoldingRegisters, 0, 1)
		u.Fault(sim.ModbusFault{Delay: 150 * time.Millisecond}, sim.ModbusFault{WrongUnit: 9}, sim.ModbusFault{Short: 1})
		b, stop := start(t, modbus.Options{Framing: modbus.TCP, Address: "h:1", Dial: pipeDial(t, m.ServeConn), Sink: newSink(),
			Devices: []modbus.Device{{Name: "dev", Unit: 1, Interval: time.Second, Timeout: 100 * time.Millisecond, Points: registers(t, 0, 1)}}})
		time.Sleep(time.Minute + 500*time.Millisecond) // between two polls
		stop()
		// Twelve bytes ask for a register, eleven give it, and once ten. The late answer and another unit's are
		// none in time; the short one ends the connection.
		if n := b.Status().Traffic; n.Late != 1 || n.Stray != 11 || n.Exchanges < 50 || n.Out != 12*n.Exchanges || n.In != 11*n.Exchanges-1 ||
			n.Unanswered != 2 || n.Damaged != 1 || n.Opened != 2 {
			t.Errorf("%+v", n)
		}
	})
}
