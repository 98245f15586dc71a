package modbus_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"gateway/adapters"
	"gateway/adapters/decode"
	"gateway/adapters/modbus"
	"gateway/adapters/sim"
)

// chain sets up a SunSpec map of the common model and one other.
func chain(u *sim.ModbusUnit, base, model uint16, registers ...uint16) {
	u.Set(sim.HoldingRegisters, base, 0x5375, 0x6e53, 1, 65)
	u.Set(sim.HoldingRegisters, base+4, make([]uint16, 65)...)
	u.Set(sim.HoldingRegisters, base+69, model, uint16(len(registers)))
	u.Set(sim.HoldingRegisters, base+71, registers...)
	u.Set(sim.HoldingRegisters, base+71+uint16(len(registers)), 0xffff, 0)
}

// sunspec is a device whose power is in the third register of model 103 or 101, its exponent in the
// fourth.
func sunspec(t *testing.T) modbus.Device {
	power := point("power", modbus.Holding, 2, field(t, "int16", func(s *decode.Spec) { s.Sentinels = []uint64{0x8000} }))
	power.Factor = &modbus.Register{Kind: modbus.Holding, Address: 3}
	power.Writable = true
	return modbus.Device{Name: "pv", Unit: 1, Interval: time.Second, Timeout: 100 * time.Millisecond, SunSpec: []uint16{103, 101}, Points: []modbus.Point{power}}
}

func TestASunSpecModelIsFoundWhereverItLies(t *testing.T) {
	for _, base := range []uint16{40000, 50000, 0} {
		synctest.Test(t, func(t *testing.T) {
			m := sim.NewModbus()
			u := m.Unit(1)
			chain(u, base, 101, 3450, 0xffff)
			s := newSink()
			b, _ := start(t, modbus.Options{Framing: modbus.TCP, Address: "h:1", Dial: pipeDial(t, m.ServeConn), Sink: s, Devices: []modbus.Device{sunspec(t)}})
			want(t, s.next(t), "power", good(adapters.FloatValue(345)))
			u.Requests()
			want(t, s.next(t), "power", good(adapters.FloatValue(345)))
			if n := len(u.Requests()); n != 1 {
				t.Errorf("%d requests once the model is known", n)
			}
			if got, err := b.Write(t.Context(), "pv", "power", adapters.FloatValue(12.5)); err != nil || got != adapters.FloatValue(12.5) {
				t.Errorf("%v, %v", got, err)
			}
			if got := u.Get(sim.HoldingRegisters, base+71); got != 125 {
				t.Errorf("the register holds %d", got)
			}
		})
	}
}

func TestADeviceWithoutTheModelSaysSo(t *testing.T) {
	for name, set := range map[string]func(*sim.ModbusUnit){
		"no SunSpec": func(u *sim.ModbusUnit) { u.Set(sim.HoldingRegisters, 7, 1) },
		"other model": func(u *sim.ModbusUnit) {
			chain(u, 40000, 203, 1, 2)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := sim.NewModbus()
				set(m.Unit(1))
				s := newSink()
				b, _ := start(t, modbus.Options{Framing: modbus.TCP, Address: "h:1", Dial: pipeDial(t, m.ServeConn), Sink: s, Devices: []modbus.Device{sunspec(t)}})
				want(t, s.next(t), "power", bad(adapters.ReasonUnsupported))
				want(t, s.next(t), "power", bad(adapters.ReasonUnsupported))
				if d := b.Status().Devices[0]; d.State != adapters.Online || d.Err == "" {
					t.Errorf("%+v", d)
				}
				chain(m.Unit(1), 0, 103, 7, 0)
				for range 100 {
					if get(t, s.next(t), "power").Quality == adapters.Good {
						return
					}
				}
				if name == "no SunSpec" {
					t.Error("a model that appears is not found")
				}
			})
		})
	}
}

func TestAModelThatMovedIsFoundAgainAfterAnAbsence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := sim.NewModbus()
		chain(m.Unit(1), 40000, 103, 1000, 0)
		s := newSink()
		start(t, modbus.Options{Framing: modbus.TCP, Address: "h:1", Dial: pipeDial(t, m.ServeConn), Sink: s, Devices: []modbus.Device{sunspec(t)}})
		want(t, s.next(t), "power", good(adapters.FloatValue(1000)))
		m.Remove(1)
		for get(t, s.next(t), "power").Quality == adapters.Good {
		}
		chain(m.Unit(1), 50000, 103, 2000, 0)
		for {
			if r := get(t, s.next(t), "power"); r.Quality == adapters.Good {
				want(t, s.samples[len(s.samples)-1], "power", good(adapters.FloatValue(2000)))
				return
			}
		}
	})
}

func TestAChainThatMakesNoSenseIsNotFollowedInEachCycle(t *testing.T) {
	for name, lie := range map[string]func(*sim.ModbusUnit){
		"no end": func(u *sim.ModbusUnit) {
			u.Set(sim.HoldingRegisters, 40000, make([]uint16, 500)...)
			u.Set(sim.HoldingRegisters, 40000, 0x5375, 0x6e53)
		},
		"a model at the end of all addresses": func(u *sim.ModbusUnit) {
			u.Set(sim.HoldingRegisters, 40000, 0x5375, 0x6e53, 1, 65528-40004)
			u.Set(sim.HoldingRegisters, 65528, 103, 2, 1, 0, 0xffff, 0)
			u.Set(sim.HoldingRegisters, 0, 4711, 0) // where the addresses would begin anew
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := sim.NewModbus()
				lie(m.Unit(1))
				s := newSink()
				d := sunspec(t)
				d.Points[0].Address = 8
				_, stop := start(t, modbus.Options{Framing: modbus.TCP, Address: "h:1", Dial: pipeDial(t, m.ServeConn), Sink: s, Devices: []modbus.Device{d}})
				time.Sleep(5*time.Minute + 500*time.Millisecond)
				stop()
				for _, sample := range s.of("pv") {
					if get(t, sample, "power").Quality == adapters.Good {
						t.Fatalf("a value out of nothing: %+v", sample)
					}
				}
				if n := m.Unit(1).Count(); n > 15*70 {
					t.Errorf("%d requests in five minutes", n)
				}
			})
		})
	}
}

// A command may come before the first poll.
func TestAWriteFindsTheModelItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := sim.NewModbus()
		u := m.Unit(1)
		chain(u, 40000, 103, 1000, 0xffff, 0, 0)
		u.Fault(sim.ModbusFault{Silent: true}) // the first poll
		s := newSink()
		b, _ := start(t, modbus.Options{Framing: modbus.TCP, Address: "h:1", Dial: pipeDial(t, m.ServeConn), Sink: s, Devices: []modbus.Device{sunspec(t)}})
		want(t, s.next(t), "power", bad(adapters.ReasonTimeout))
		if v, err := b.Write(t.Context(), "pv", "power", adapters.FloatValue(20)); err != nil || v != adapters.FloatValue(20) {
			t.Errorf("%v, %v", v, err)
		}
		u.Set(sim.HoldingRegisters, 40072, 0x8000) // there is no scale factor
		if _, err := b.Write(t.Context(), "pv", "power", adapters.FloatValue(20)); err == nil || !strings.Contains(err.Error(), "no scale factor") {
			t.Errorf("%v", err)
		}
	})
}

func TestAChainIsFoundThoughTheDeviceIsMuteWhereItIsNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := sim.NewModbus()
		u := m.Unit(1)
		chain(u, 0, 103, 1000, 0)
		u.Mute(sim.HoldingRegisters, 40000)
		u.Mute(sim.HoldingRegisters, 50000)
		s := newSink()
		start(t, modbus.Options{Framing: modbus.TCP, Address: "h:1", Dial: pipeDial(t, m.ServeConn), Sink: s, Devices: []modbus.Device{sunspec(t)}})
		for range 3 {
			if get(t, s.next(t), "power").Quality == adapters.Good {
				return
			}
		}
		t.Error("not found in three attempts")
	})
}
