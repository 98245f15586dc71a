package gateway

import (
	"context"
	"log/slog"

	"periph.io/x/conn/v3/i2c"

	"gateway/adapters"
)

// A bus is an adapter at work: one physical bus and the devices on it.
type bus interface {
	// Run reads the devices until ctx ends; it returns an error only for what no retry can mend.
	Run(ctx context.Context) error
	Status() adapters.BusStatus
}

// busEnv is what the wiring gives every adapter.
type busEnv struct {
	Sink  adapters.Sink
	Clock adapters.Clock
	Log   *slog.Logger

	OpenI2C I2COpener
}

// An I2COpener opens an I2C bus by its device, /dev/i2c-1.
type I2COpener func(device string) (i2c.BusCloser, error)
