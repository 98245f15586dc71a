package i2c

import (
	"time"

	"gateway/adapters"
)

// ROHM BH1750FVI (technical note BH1750FVI): illuminance.

func bh1750Chips() []Chip {
	return []Chip{{
		Name: "bh1750", Aliases: []string{"bh1750fvi", "gy30", "gy302"},
		About:      "ROHM illuminance",
		Addresses:  []uint16{0x23, 0x5C},
		Quantities: []Quantity{{Name: "illuminance", Unit: "lx", Decimals: 1, Min: 0, Max: 121557}},
		Settings: []Setting{
			{Name: "mtreg", Default: 69.0, Min: 31, Max: 254, About: "measurement time register: the sensitivity, 69 is 1"},
			{Name: "mode", Default: "high", Values: []any{"high", "high2", "low"}, About: "resolution: 1 lx, 0.5 lx or 4 lx"},
		},
		make: func(s settings) driver {
			d := bh1750{mtreg: s.int("mtreg"), command: 0x20, per: 1, conversion: 180 * time.Millisecond}
			switch s.text("mode") {
			case "high2":
				d.command, d.per = 0x21, 2
			case "low":
				d.command, d.conversion = 0x23, 24*time.Millisecond
			}
			d.conversion = d.conversion * time.Duration(d.mtreg) / 69
			return d
		},
	}}
}

type bh1750 struct {
	mtreg      int
	command    byte    // a one-time measurement; the chip powers down after it
	per        float64 // counts per count of the plain mode
	conversion time.Duration
}

func (bh1750) setup(c *conn) error { return c.write(0x01) } // power on

func (d bh1750) measure(c *conn, r *results) error {
	// The measurement time register is lost with the power, so it is written each time.
	for _, command := range []byte{0x40 | byte(d.mtreg>>5), 0x60 | byte(d.mtreg&0x1F), d.command} {
		if err := c.write(command); err != nil {
			return err
		}
	}
	if err := c.wait(d.conversion); err != nil {
		return err
	}
	var b [2]byte
	if err := c.read(b[:]); err != nil {
		return err
	}
	raw := uint16(b[0])<<8 | uint16(b[1])
	if raw == 0xFFFF {
		r.fail(0, adapters.ReasonOverrange)
		return nil
	}
	// Illuminance is the counts over 1.2, by the sensitivity (p. 11 "Measurement sequence example").
	r.float(0, float64(raw)/1.2*69/float64(d.mtreg)/d.per)
	return nil
}
