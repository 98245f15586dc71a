package gateway

import (
	"fmt"
	"time"
)

// openBuses makes the adapters. They open their ports when they run, and wait for those that are
// absent.
func (g *Gateway) openBuses() error {
	env := busEnv{Sink: g.filter, Clock: g.clock.Now, Log: g.log, OpenI2C: g.o.OpenI2C}
	add := func(kind, name string, b bus, err error) error {
		if err != nil {
			return fmt.Errorf("%s %q: %w", kind, name, err)
		}
		label := fmt.Sprintf("%s %q", kind, name)
		g.buses = append(g.buses, namedBus{label, b})
		g.health.Add(label, 30*time.Second, func() uint64 { return b.Status().Beat })
		return nil
	}
	cfg := g.o.Config
	for i := range cfg.Modbus {
		b, err := newModbus(&cfg.Modbus[i], env)
		if err := add("modbus", cfg.Modbus[i].Name, b, err); err != nil {
			return err
		}
	}
	for i := range cfg.Serial {
		b, err := newSerial(&cfg.Serial[i], env)
		if err := add("serial", cfg.Serial[i].Name, b, err); err != nil {
			return err
		}
	}
	for i := range cfg.I2C {
		b, err := newI2C(&cfg.I2C[i], env)
		if err := add("i2c", cfg.I2C[i].Name, b, err); err != nil {
			return err
		}
	}
	return nil
}
