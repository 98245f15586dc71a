package modbus_test

import (
	"bytes"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"gateway/adapters/modbus"
	"gateway/adapters/port"
	"gateway/adapters/sim"
)

func TestThePlanTellsTheTimeOnTheWire(t *testing.T) {
	points := registers(t, 0, 20)
	for i := 10; i < 20; i++ {
		points[i].Interval = 10 * time.Second
	}
	f, err := modbus.Plan(modbus.Options{Framing: modbus.RTU, Port: port.Config{Name: "p", Baud: 9600, Parity: port.ParityEven},
		Devices: []modbus.Device{{Name: "dev", Unit: 1, Interval: time.Second, Points: points}}})
	if err != nil {
		t.Fatal(err)
	}
	if len(f.Requests) != 1 {
		t.Fatalf("%+v", f.Requests)
	}
	r := f.Requests[0]
	// 8 + 5 + 40 characters of 11 bits, and twice 3.5 characters of silence
	want := time.Duration(float64(53+7) * 11 / 9600 * 1e9)
	if r.Function != 3 || r.Count != 20 || r.Bytes != 53 || (r.Wire-want).Abs() > time.Microsecond {
		t.Errorf("%+v, want %v", r, want)
	}
	// One full cycle in ten, nine of half the registers.
	small := float64(33+7) * 11 / 9600
	if share := (want.Seconds() + 9*small) / 10; math.Abs(f.Wire-share) > 1e-6 || f.Exchanges != 1 {
		t.Errorf("the line is taken for %v of the time, want %v", f.Wire, share)
	}
}

func TestThePlanSeesABusThatIsAskedForTooMuch(t *testing.T) {
	o := modbus.Options{Framing: modbus.RTU, Port: port.Config{Name: "p", Baud: 2400}}
	for unit := byte(1); unit <= 10; unit++ {
		o.Devices = append(o.Devices, modbus.Device{Name: string('a' + rune(unit)), Unit: unit, Interval: time.Second, Points: registers(t, 0, 40)})
	}
	f, err := modbus.Plan(o)
	if err != nil {
		t.Fatal(err)
	}
	if f.Wire < 1 {
		t.Errorf("ten devices of 40 registers a second at 2400 baud take %v of the time", f.Wire)
	}
}

func TestThePlanOfATCPBusKnowsNoSpeed(t *testing.T) {
	f, err := modbus.Plan(modbus.Options{Framing: modbus.TCP, Address: "h:502", Devices: []modbus.Device{{Name: "dev", Points: registers(t, 0, 130)}}})
	if err != nil {
		t.Fatal(err)
	}
	if len(f.Requests) != 2 || f.Requests[0].Count != 125 || f.Requests[0].Wire != 0 || f.Wire != 0 || f.Exchanges != 2 {
		t.Errorf("%+v", f)
	}
}

// Intervals that rarely fall together are averaged all the same.
func TestThePlanAveragesOddIntervals(t *testing.T) {
	for _, c := range []struct {
		a, b time.Duration
		want float64 // exchanges a second
	}{
		{time.Second, time.Second, 1},
		{time.Second, 5 * time.Second, 1.2},
		{333 * time.Millisecond, time.Minute, 1/0.333 + 1.0/60},
		{time.Minute, 59999 * time.Millisecond, 1.0/60 + 1/59.999},
		{24 * time.Hour, 24 * time.Hour, 1.0 / 86400},
	} {
		points := registers(t, 0, 2)
		points[1].Address, points[0].Interval, points[1].Interval = 100, c.a, c.b
		d := modbus.Device{Name: "d", Unit: 1, Points: points, Hole: 100}
		if c.a != c.b {
			d.Hole = -1
		}
		f, err := modbus.Plan(modbus.Options{Framing: modbus.RTU, Port: port.Config{Name: "p"}, Devices: []modbus.Device{d}})
		if err != nil {
			t.Fatal(err)
		}
		if math.Abs(f.Exchanges/c.want-1) > 1e-6 {
			t.Errorf("each %v and each %v: %v exchanges a second, want %v", c.a, c.b, f.Exchanges, c.want)
		}
	}
}

// What the plan says is what goes over the wire.
func TestThePlanIsWhatIsAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := sim.NewModbus()
		o := modbus.Options{Framing: modbus.RTU, Port: port.Config{Name: "p"}, Open: pipeLine(t, m.ServeRTU), Sink: newSink()}
		for unit := byte(1); unit <= 2; unit++ {
			u := m.Unit(unit).Set(sim.HoldingRegisters, 0, make([]uint16, 300)...).Set(sim.InputRegisters, 0, make([]uint16, 40)...).Set(sim.Coils, 0, make([]uint16, 600)...)
			u.Set(sim.DiscreteInputs, 9, 1)
			d := modbus.Device{Name: "d" + itoa(int(unit)), Unit: unit, Interval: time.Minute, MaxRegisters: 50 * int(unit)}
			for _, at := range []uint16{0, 7, 40, 57, 120, 121, 290} {
				d.Points = append(d.Points, point("h"+itoa(int(at)), modbus.Holding, at, field(t, "float32")))
			}
			d.Points = append(d.Points, point("i", modbus.Input, 3, field(t, "uint64")), point("d", modbus.Discrete, 9, field(t, "bool")),
				point("c0", modbus.Coil, 0, field(t, "bool")), point("c255", modbus.Coil, 255, field(t, "bool")), point("c520", modbus.Coil, 520, field(t, "bool")))
			o.Devices = append(o.Devices, d)
		}
		f, err := modbus.Plan(o)
		if err != nil {
			t.Fatal(err)
		}
		_, stop := start(t, o)
		time.Sleep(30 * time.Second)
		stop()
		for unit := byte(1); unit <= 2; unit++ {
			asked := m.Unit(unit).Requests()
			for _, r := range f.Requests {
				if r.Unit != unit {
					continue
				}
				want := []byte{r.Function, byte(r.Address >> 8), byte(r.Address), byte(r.Count >> 8), byte(r.Count)}
				if len(asked) == 0 || !bytes.Equal(asked[0].PDU, want) {
					t.Fatalf("unit %d was asked % x, the plan has % x", unit, asked, want)
				}
				asked = asked[1:]
			}
			if len(asked) > 0 {
				t.Errorf("unit %d was asked for more: % x", unit, asked)
			}
		}
	})
}
