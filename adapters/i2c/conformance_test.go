package i2c_test

import (
	"testing"
	"time"

	"gateway/adapters"
	"gateway/adapters/adapterstest"
	"gateway/adapters/i2c"
	"gateway/adapters/sim"
)

func TestConformance(t *testing.T) {
	adapterstest.Run(t, true, func(t *testing.T) *adapterstest.Rig {
		bus := sim.NewI2CBus("sim", map[uint16]sim.I2CChip{
			0x44: sim.NewSHT3x(time.Now), 0x76: sim.NewBME280(time.Now), 0x45: sim.NewSHT3x(time.Now),
		})
		address := map[string]uint16{"alpha": 0x44, "beta": 0x76, "gamma": 0x45}
		return &adapterstest.Rig{
			New: func(sink adapters.Sink, clock adapters.Clock) (adapterstest.Adapter, error) {
				return i2c.New(i2c.Options{
					Name: "header", Open: bus.Open, Sink: sink, Clock: clock,
					Devices: []i2c.Device{
						{Name: "alpha", Chip: "sht3x", Interval: time.Second},
						{Name: "beta", Chip: "bme280", Interval: time.Second},
						{Name: "gamma", Chip: "sht3x", Address: 0x45, Interval: time.Second},
					},
				})
			},
			Devices:  []string{"alpha", "beta", "gamma"},
			Interval: time.Second,
			Silence:  func(device string) { bus.Unplug(address[device]) },
			Restore:  func(device string) { bus.Return(address[device]) },
			Unplug:   bus.Vanish,
			Plug:     bus.Appear,
		}
	})
}
