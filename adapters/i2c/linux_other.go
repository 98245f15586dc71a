//go:build !linux

package i2c

import (
	"errors"
	"fmt"
	"runtime"
	"time"

	periph "periph.io/x/conn/v3/i2c"
)

// OpenLinux says that there is no I²C bus to be opened on this system.
func OpenLinux(path string, _ time.Duration) (periph.BusCloser, error) {
	return nil, fmt.Errorf("i2c: %s: I2C buses can be opened on Linux only, this is %s: %w", path, runtime.GOOS, errors.ErrUnsupported)
}

// FindAdapter finds none.
func FindAdapter(name string) (string, error) { return findAdapter(name, nil, AdapterName) }

// Buses returns none.
func Buses() []string { return nil }

// AdapterName returns "".
func AdapterName(string) string { return "" }

// KernelDriver returns "".
func KernelDriver(string, uint16) string { return "" }
