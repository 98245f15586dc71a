package config

import (
	"fmt"
	"time"
)

// I2C is a table [[i2c]]: one bus and the chips on it.
type I2C struct {
	At      Place
	Name    string        `toml:"name"`
	Bus     int           `toml:"bus"`     // N of /dev/i2c-N
	Path    string        `toml:"path"`    // instead of bus: a device or a symbolic link to one
	Adapter string        `toml:"adapter"` // instead of bus: a part of the adapter's name, for USB adapters
	Timeout time.Duration `toml:"timeout"` // of one transaction; 0: as the kernel's driver has it
	Devices []I2CDevice   `toml:"device"`
	Report
}

// I2CDevice is a table [[i2c.device]].
type I2CDevice struct {
	At       Place
	Name     string            `toml:"name"`
	Labels   map[string]string `toml:"labels"`
	Chip     string            `toml:"chip"`
	Address  uint16            `toml:"address"` // 0: the chip's usual one
	Mux      *I2CMux           `toml:"mux"`
	PEC      bool              `toml:"pec"`
	Interval time.Duration     `toml:"interval"`
	Settings map[string]any    `toml:"settings"` // of the chip
	Points   []I2CPoint        `toml:"points"`   // none: all that the chip gives

	Init []I2CStep `toml:"init"` // chip = "registers"
	Read []I2CStep `toml:"read"`
	Report
}

// I2CMux is the multiplexer channel that a device sits behind.
type I2CMux struct {
	At      Place
	Address uint16 `toml:"address"`
	Channel int    `toml:"channel"`
}

// I2CPoint is one quantity of a device. The second half is for devices described by registers.
type I2CPoint struct {
	At       Place
	Name     string            `toml:"name"`
	From     string            `toml:"from"` // the chip's name for it; empty: name
	Unit     string            `toml:"unit"`
	Decimals *int8             `toml:"decimals"`
	Labels   map[string]string `toml:"labels"`
	Scale    float64           `toml:"scale"`
	Offset   float64           `toml:"offset"`
	Min      *float64          `toml:"min"`
	Max      *float64          `toml:"max"`
	Interval time.Duration     `toml:"interval"` // 0: the device's
	Report

	Step      int               `toml:"step"`   // which of the read steps, from 1
	Byte      int               `toml:"byte"`   // first byte in the step's answer, from 0, check bytes not counted
	Type      string            `toml:"type"`   // uint16, int12, float32, bcd8, ...
	Order     string            `toml:"order"`  // of the bytes: big, little, ...
	Length    int               `toml:"length"` // bytes of a text, or of the number that shift or mask picks from
	Shift     int               `toml:"shift"`  // bits below the number
	Mask      uint64            `toml:"mask"`   // instead of shift: which bits the number is, a run of ones
	Sentinels []uint64          `toml:"sentinels"`
	Values    map[string]string `toml:"values"` // an enumeration: 0 = "off"
	Flags     map[string]string `toml:"flags"`  // a bit field: 3 = "alarm"
}

func (p *I2CPoint) setDefaults() { p.Scale, p.Step = 1, 1 }

// I2CStep is one exchange of a device described by its registers.
type I2CStep struct {
	At     Place
	Write  []uint8       `toml:"write"`
	Wait   time.Duration `toml:"wait"`
	Bytes  int           `toml:"bytes"` // to read
	CRC    *I2CCRC       `toml:"crc"`
	Expect []uint8       `toml:"expect"` // what the answer must begin with
	Mask   []uint8       `toml:"mask"`   // which bits of that count
	Tries  int           `toml:"tries"`
}

func (s *I2CStep) setDefaults() { s.Tries = 1 }

// I2CCRC is the check of an answer: groups of Every bytes, each followed by its CRC-8.
type I2CCRC struct {
	Poly  uint8 `toml:"poly"`
	Init  uint8 `toml:"init"`
	Every int   `toml:"every"`
}

func (c *I2CCRC) setDefaults() { *c = I2CCRC{Poly: 0x31, Init: 0xFF, Every: 2} }

func (b *I2C) setDefaults() { b.Bus = -1 }

func (d *I2CDevice) setDefaults() { d.Interval = 10 * time.Second }

// Device returns the path of the bus, or the name of its adapter.
func (b *I2C) Device() string {
	switch {
	case b.Path != "":
		return b.Path
	case b.Adapter != "":
		return b.Adapter
	}
	return fmt.Sprintf("/dev/i2c-%d", b.Bus)
}

func (b *I2C) check(buses, devices *unique) {
	buses.add(b.At, b.Name)
	ways := 0
	for _, key := range []string{"bus", "path", "adapter"} {
		if b.At.Has(key) {
			ways++
		}
	}
	switch {
	case ways > 1:
		b.At.Errorf("", "bus, path and adapter all say which bus it is; keep one")
	case b.At.Has("bus") && b.Bus < 0:
		b.At.Errorf("bus", "bus %d: it is the N of /dev/i2c-N", b.Bus)
	case b.Bus < 0 && b.Path == "" && b.Adapter == "":
		b.At.Errorf("", "which bus? Add bus = 1 for /dev/i2c-1; 'gateway i2c scan' lists them")
	}
	if b.Timeout != 0 && (b.Timeout < 10*time.Millisecond || b.Timeout > 10*time.Second) {
		b.At.Errorf("timeout", "timeout %v: must be from 10ms to 10s", b.Timeout)
	}
	if len(b.Devices) == 0 {
		b.At.Errorf("", "has no device; add an [[i2c.device]]")
	}
	for i := range b.Devices {
		d := &b.Devices[i]
		devices.add(d.At, d.Name)
		d.check()
	}
}

// minI2CInterval keeps a bus usable: at 100 kHz a byte takes 90 µs.
const minI2CInterval = 5 * time.Millisecond

func (d *I2CDevice) check() {
	if d.Interval < minI2CInterval {
		d.At.Errorf("interval", "interval %v: must be at least %v", d.Interval, minI2CInterval)
	}
	points := unique{what: "point"}
	for i := range d.Points {
		p := &d.Points[i]
		points.add(p.At, p.Name)
		if p.Interval != 0 && p.Interval < minI2CInterval {
			p.At.Errorf("interval", "interval %v: must be at least %v", p.Interval, minI2CInterval)
		}
		if p.Min != nil && p.Max != nil && *p.Min > *p.Max {
			p.At.Errorf("min", "the valid range is empty: min %v is above max %v", *p.Min, *p.Max)
		}
		if p.At.Has("scale") && p.Scale == 0 {
			p.At.Errorf("scale", "scale 0 makes every value 0; leave it out for none")
		}
		if p.Shift != 0 && p.Mask != 0 {
			p.At.Errorf("mask", "shift and mask both say which bits it is; keep one")
		}
	}
}
