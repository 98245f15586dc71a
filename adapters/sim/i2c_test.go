package sim_test

import (
	"context"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"gateway/adapters"
	"gateway/adapters/i2c"
	"gateway/adapters/sim"
)

// reader reads devices of a simulated bus for a while.
func reader(t *testing.T, bus *sim.I2CBus, length time.Duration, devices ...i2c.Device) (samples []adapters.Sample) {
	t.Helper()
	start := time.Now()
	b, err := i2c.New(i2c.Options{
		Name: "header", Open: bus.Open, Devices: devices,
		Sink:  adapters.SinkFunc(func(s adapters.Sample) bool { samples = append(samples, s); return true }),
		Clock: func() adapters.Instant { return adapters.Instant(time.Since(start)) },
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), length)
	defer cancel()
	if err := b.Run(ctx); err != nil {
		t.Fatal(err)
	}
	return samples
}

// The gateway's own drivers must read from the models what the models' waves say.
func TestSimulatedChipsAreReadByTheDrivers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		roof, cellar, battery, tank, office := sim.NewBME280(time.Now), sim.NewSHT3x(time.Now), sim.NewINA219(time.Now), sim.NewADS1115(time.Now), sim.NewSCD41(time.Now)
		bench := sim.NewSHT3x(time.Now)
		bench.Temperature.Mean = 31
		mux := &sim.TCA9548A{Channels: [8]map[uint16]sim.I2CChip{3: {0x45: cellar}, 5: {0x45: bench}}}
		bus := sim.NewI2CBus("sim", map[uint16]sim.I2CChip{0x70: mux, 0x76: roof, 0x40: battery, 0x48: tank, 0x62: office})
		samples := reader(t, bus, time.Hour,
			i2c.Device{Name: "roof", Chip: "bme280", Interval: time.Minute},
			i2c.Device{Name: "cellar", Chip: "sht3x", Address: 0x45, Mux: &i2c.Mux{Address: 0x70, Channel: 3}, Interval: time.Minute},
			i2c.Device{Name: "bench", Chip: "sht3x", Address: 0x45, Mux: &i2c.Mux{Address: 0x70, Channel: 5}, Interval: time.Minute},
			i2c.Device{Name: "battery", Chip: "ina219", Interval: time.Minute},
			i2c.Device{Name: "tank", Chip: "ads1115", Interval: time.Minute, Points: []i2c.Point{{Name: "a0"}, {Name: "a1"}, {Name: "a2"}, {Name: "a3"}, {Name: "a0-a1"}}},
			i2c.Device{Name: "office", Chip: "scd41", Interval: time.Minute},
		)
		waves := map[string][]func(time.Duration) float64{
			"roof":    {roof.Temperature.At, func(t time.Duration) float64 { return roof.Pressure.At(t) / 100 }, roof.Humidity.At},
			"cellar":  {cellar.Temperature.At, cellar.Humidity.At},
			"bench":   {bench.Temperature.At, bench.Humidity.At},
			"battery": {battery.Voltage.At, battery.Current.At, func(t time.Duration) float64 { return battery.Voltage.At(t) * battery.Current.At(t) }},
			"tank": {
				tank.Inputs[0].At, tank.Inputs[1].At, tank.Inputs[2].At, tank.Inputs[3].At,
				func(t time.Duration) float64 { return tank.Inputs[0].At(t) - tank.Inputs[1].At(t) },
			},
			"office": {office.CO2.At, office.Temperature.At, office.Humidity.At},
		}
		count := map[string]int{}
		for _, s := range samples {
			name, at := s.Schema.Device, time.Duration(s.Time)
			count[name]++
			if name == "office" && count[name] == 1 {
				continue // it has not measured yet
			}
			within := 0.05
			if name == "office" {
				within = 1.5 // whole ppm
			}
			for i, r := range s.Readings {
				got, _ := r.Value.Number()
				if want := waves[name][i](at); r.Quality != adapters.Good || math.Abs(got-want) > within {
					t.Fatalf("%s after %v: %s is %v %v %q, the wave says %v", name, at, s.Schema.Points[i].Name, r.Quality, r.Value, r.Reason, want)
				}
			}
		}
		for name := range waves {
			if count[name] < 59 {
				t.Errorf("%d samples of %s in an hour", count[name], name)
			}
		}
	})
}

func TestChipsCanBeUnpluggedAndTheBusHeld(t *testing.T) {
	bus := sim.NewI2CBus("sim", map[uint16]sim.I2CChip{0x44: sim.NewSHT3x(time.Now)})
	try := func() any {
		err := bus.Tx(0x44, []byte{0x30, 0xA2}, nil)
		if f, faulty := i2c.FaultOf(err); faulty {
			return f
		}
		return err
	}
	if got := try(); got != nil {
		t.Error(got)
	}
	bus.Unplug(0x44)
	if got := try(); got != i2c.FaultNoAck {
		t.Error(got)
	}
	bus.Return(0x44)
	bus.Stick(true)
	if got := try(); got != i2c.FaultTimeout {
		t.Error(got)
	}
	bus.Stick(false)
	if got := try(); got != nil {
		t.Error(got)
	}
}
