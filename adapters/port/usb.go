package port

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// A USB says which USB device a port belongs to. Empty fields match any.
type USB struct {
	Vendor, Product string // four hexadecimal digits, as lsusb shows them: 0403, 6001
	Serial          string // serial number
	Interface       string // two hexadecimal digits, for adapters with several ports: 00, 01
}

func (u USB) String() string {
	s := "usb"
	for _, f := range []struct{ key, value string }{
		{"vendor", u.Vendor}, {"product", u.Product}, {"serial", u.Serial}, {"interface", u.Interface},
	} {
		if f.value != "" {
			s += " " + f.key + " " + f.value
		}
	}
	return s
}

// match tells whether i belongs to the device.
func (u USB) match(i *Info) bool {
	is := func(want, got string) bool { return want == "" || strings.EqualFold(want, got) }
	return i.USB.Vendor != "" && is(u.Vendor, i.USB.Vendor) && is(u.Product, i.USB.Product) &&
		(u.Serial == "" || u.Serial == i.USB.Serial) && is(u.Interface, i.USB.Interface)
}

// find returns the one port of the device.
func (u USB) find() (Info, error) {
	all, err := ports()
	if err != nil {
		return Info{}, fmt.Errorf("port: %s: %w", u, err)
	}
	return u.pick(all)
}

func (u USB) pick(all []Info) (Info, error) {
	all = slices.DeleteFunc(slices.Clone(all), func(i Info) bool { return !u.match(&i) })
	switch len(all) {
	case 0:
		return Info{}, fmt.Errorf("port: %s: %w", u, ErrAbsent)
	case 1:
		return all[0], nil
	}
	var names []string
	for _, i := range all {
		names = append(names, i.Name)
	}
	return Info{}, fmt.Errorf("port: %s: %w: %s; add the serial number or the interface", u, errAmbiguous, strings.Join(names, ", "))
}

var errAmbiguous = errors.New("several ports match")

// Info describes a serial port of the machine.
type Info struct {
	Name    string   // /dev/ttyUSB0
	Aliases []string // stable names for it: /dev/serial/by-id/..., /dev/serial0
	Driver  string   // the kernel's driver; empty where it is not known
	USB     USB      // empty where it is no USB device
	Maker   string   // what the USB device says of itself
	Product string
	Holders []string // who has it open, as far as we may look: "minicom (pid 4711)"
}
