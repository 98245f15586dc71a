package i2c

import "time"

// TE HTU21D(F) (datasheet HPC199), Silicon Labs Si7021 (datasheet Si7021-A20), Sensirion SHT20/21/25:
// one command set, one pair of formulas, one CRC.

func htu21Chips() []Chip {
	return []Chip{{
		Name: "htu21d", Aliases: []string{"si7021", "si7013", "si7020", "sht20", "sht21", "sht25", "htu20d", "gy21", "gy213v"},
		About:     "TE, Silicon Labs, Sensirion temperature and humidity",
		Addresses: []uint16{0x40},
		Quantities: []Quantity{
			{Name: "temperature", Unit: "°C", Decimals: 2, Min: -40, Max: 125},
			{Name: "humidity", Unit: "%", Decimals: 2, Min: 0, Max: 100},
		},
		make: func(settings) driver { return htu21{} },
	}}
}

type htu21 struct{}

func (htu21) setup(c *conn) error {
	// Soft reset: less than 15 ms (HTU21D, "Soft Reset").
	if err := c.write(0xFE); err != nil {
		return err
	}
	return c.wait(15 * time.Millisecond)
}

func (d htu21) measure(c *conn, r *results) error {
	// "No hold" commands, so that the chip does not hold the bus's clock while it converts. At most
	// 50 ms for 14 bits of temperature, 16 ms for 12 bits of humidity (HTU21D); Si7021 is faster.
	if r.wants(0) {
		t, err := d.convert(c, 0xF3, 50*time.Millisecond)
		if err != nil {
			return err
		}
		r.float(0, -46.85+175.72*t/65536)
	}
	if r.wants(1) {
		h, err := d.convert(c, 0xF5, 25*time.Millisecond)
		if err != nil {
			return err
		}
		// Slightly outside of 0 to 100 is to be expected and cropped (Si7021, 5.1.1).
		r.float(1, min(max(-6+125*h/65536, 0), 100))
	}
	return nil
}

func (htu21) convert(c *conn, command byte, conversion time.Duration) (float64, error) {
	if err := c.write(command); err != nil {
		return 0, err
	}
	var b [3]byte
	var err error
	for range 2 {
		if err := c.wait(conversion); err != nil {
			return 0, err
		}
		if err = c.read(b[:]); !busy(err) {
			break
		}
	}
	if err != nil {
		return 0, err
	}
	if crcHTU21.Sum(b[:2]...) != b[2] {
		return 0, errChecksum
	}
	// The two lowest bits are status, not value.
	return float64(uint16(b[0])<<8 | uint16(b[1]&^3)), nil
}
