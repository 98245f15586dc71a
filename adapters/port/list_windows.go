package port

import (
	"fmt"
	"strings"

	"go.bug.st/serial/enumerator"
)

// List returns the serial ports that the platform knows.
func List() ([]Info, error) {
	ports, err := enumerator.GetDetailedPortsList()
	if err != nil {
		return nil, fmt.Errorf("port: list: %w", err)
	}
	var list []Info
	for _, p := range ports {
		i := Info{Name: p.Name}
		if p.IsUSB {
			i.USB = USB{Vendor: strings.ToLower(p.VID), Product: strings.ToLower(p.PID), Serial: p.SerialNumber}
			i.Maker, i.Product = p.Manufacturer, p.Product
		}
		list = append(list, i)
	}
	return list, nil
}

func ports() ([]Info, error) { return List() }
