//go:build !linux && !windows

package port

import (
	"fmt"

	"go.bug.st/serial"
)

// List returns the serial ports that the platform names. What USB devices they belong to is not to be
// had without cgo.
func List() ([]Info, error) {
	names, err := serial.GetPortsList()
	if err != nil {
		return nil, fmt.Errorf("port: list: %w", err)
	}
	var list []Info
	for _, name := range names {
		list = append(list, Info{Name: name})
	}
	return list, nil
}

func ports() ([]Info, error) { return List() }
