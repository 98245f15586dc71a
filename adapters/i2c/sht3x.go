package i2c

import "time"

// Sensirion SHT30, SHT31, SHT35 (datasheet SHT3x-DIS, version 6) and SHT40, SHT41, SHT45 (datasheet
// SHT4x): temperature and relative humidity, factory-calibrated, each word with a CRC.

func sht3xChips() []Chip {
	quantities := func(min, max float64) []Quantity {
		return []Quantity{
			{Name: "temperature", Unit: "°C", Decimals: 2, Min: min, Max: max},
			{Name: "humidity", Unit: "%", Decimals: 2, Min: 0, Max: 100},
		}
	}
	return []Chip{{
		Name: "sht3x", Aliases: []string{"sht30", "sht31", "sht35", "sht3xdis"},
		About:      "Sensirion temperature and humidity",
		Addresses:  []uint16{0x44, 0x45},
		Quantities: quantities(-40, 125),
		identify:   identifySHT3x,
		command:    true,
		make:       func(settings) driver { return sht3x{} },
	}, {
		Name: "sht4x", Aliases: []string{"sht40", "sht41", "sht43", "sht45"},
		About:      "Sensirion temperature and humidity",
		Addresses:  []uint16{0x44, 0x45, 0x46},
		Quantities: quantities(-40, 125),
		identify:   identifySHT4x,
		make:       func(settings) driver { return sht4x{} },
	}}
}

type sht3x struct{}

func (sht3x) setup(c *conn) error {
	// The chip may be in periodic mode, left so by another program: Break (4.8), then soft reset
	// (4.9), which takes at most 1.5 ms ("Timing Specification for the Sensor System").
	if err := c.command(0x3093); err != nil {
		return err
	}
	if err := c.wait(time.Millisecond); err != nil {
		return err
	}
	if err := c.command(0x30A2); err != nil {
		return err
	}
	return c.wait(2 * time.Millisecond)
}

func (sht3x) measure(c *conn, r *results) error {
	// Single shot, high repeatability, no clock stretching ("Measurement Commands in Single Shot Mode"): at most 15.5 ms.
	if err := c.command(0x2400); err != nil {
		return err
	}
	w, err := readSHT(c, 16*time.Millisecond)
	if err != nil {
		return err
	}
	// 4.13 "Conversion of Signal Output".
	r.float(0, -45+175*float64(w[0])/65535)
	r.float(1, 100*float64(w[1])/65535)
	return nil
}

// identifySHT3x reads the status register, which comes with a CRC.
func identifySHT3x(c *conn) (bool, error) {
	var b [3]byte
	var w [1]uint16
	if err := c.tx([]byte{0xF3, 0x2D}, b[:]); err != nil {
		return false, err
	}
	return crcSensirion.words(b[:], w[:]) == nil, nil
}

type sht4x struct{}

func (sht4x) setup(c *conn) error {
	// Soft reset: 1 ms (datasheet SHT4x, "Command Overview" and "Timing Specifications").
	if err := c.write(0x94); err != nil {
		return err
	}
	return c.wait(2 * time.Millisecond)
}

func (sht4x) measure(c *conn, r *results) error {
	// Measure with high precision: at most 8.3 ms.
	if err := c.write(0xFD); err != nil {
		return err
	}
	w, err := readSHT(c, 9*time.Millisecond)
	if err != nil {
		return err
	}
	r.float(0, -45+175*float64(w[0])/65535)
	// The formula reaches -6 and 119 %RH; values outside of 0 to 100 may be cropped ("Conversion of
	// Signal Output").
	r.float(1, min(max(-6+125*float64(w[1])/65535, 0), 100))
	return nil
}

// identifySHT4x reads the serial number.
func identifySHT4x(c *conn) (bool, error) {
	if err := c.write(0x89); err != nil {
		return false, err
	}
	_, err := readSHT(c, time.Millisecond)
	if err == errChecksum {
		return false, nil
	}
	return err == nil, err
}

// readSHT reads two words after the conversion time. While the chip converts it does not
// acknowledge its read address; once more of the same time is granted then.
func readSHT(c *conn, conversion time.Duration) (w [2]uint16, err error) {
	var b [6]byte
	for range 2 {
		if err := c.wait(conversion); err != nil {
			return w, err
		}
		if err = c.read(b[:]); !busy(err) {
			break
		}
	}
	if err != nil {
		return w, err
	}
	return w, crcSensirion.words(b[:], w[:])
}
