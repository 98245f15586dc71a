package i2c

import (
	"time"

	"gateway/adapters"
)

// Aosong AHT20 and AHT21 (product manual AHT20, "Sensor Reading Process"): temperature and relative
// humidity. The AHT10 is the same without a CRC.

func aht20Chips() []Chip {
	q := []Quantity{
		{Name: "temperature", Unit: "°C", Decimals: 2, Min: -40, Max: 85},
		{Name: "humidity", Unit: "%", Decimals: 2, Min: 0, Max: 100},
	}
	return []Chip{{
		Name: "aht20", Aliases: []string{"aht21", "aht25", "am2301b", "dht20"},
		About: "Aosong temperature and humidity", Addresses: []uint16{0x38}, Quantities: q,
		make: func(settings) driver { return aht20{calibrate: 0xBE, crc: true} },
	}, {
		Name: "aht10", Aliases: []string{"aht15"},
		About: "Aosong temperature and humidity", Addresses: []uint16{0x38, 0x39}, Quantities: q,
		make: func(settings) driver { return aht20{calibrate: 0xE1} },
	}}
}

type aht20 struct {
	calibrate byte // command that loads the calibration
	crc       bool
}

const (
	ahtBusy       = 0x80
	ahtCalibrated = 0x08
)

func (d aht20) setup(c *conn) error {
	status, err := c.reg8(0x71)
	if err != nil || status&ahtCalibrated != 0 {
		return err
	}
	if err := c.write(d.calibrate, 0x08, 0x00); err != nil {
		return err
	}
	return c.wait(10 * time.Millisecond)
}

func (d aht20) measure(c *conn, r *results) error {
	if err := c.write(0xAC, 0x33, 0x00); err != nil {
		return err
	}
	if err := c.wait(80 * time.Millisecond); err != nil {
		return err
	}
	b := make([]byte, 6, 7)
	if d.crc {
		b = b[:7]
	}
	if err := c.poll(8, 10*time.Millisecond, func() (bool, error) {
		err := c.read(b)
		return b[0]&ahtBusy == 0, err
	}); err != nil {
		return err
	}
	if d.crc && crcSensirion.Sum(b[:6]...) != b[6] {
		return errChecksum
	}
	if b[0]&ahtCalibrated == 0 {
		return chipErrorf(adapters.ReasonNotReady, "the chip has lost its calibration; it is loaded again")
	}
	rawH := uint32(b[1])<<12 | uint32(b[2])<<4 | uint32(b[3])>>4
	rawT := uint32(b[3]&0x0F)<<16 | uint32(b[4])<<8 | uint32(b[5])
	r.float(0, float64(rawT)/(1<<20)*200-50)
	r.float(1, float64(rawH)/(1<<20)*100)
	return nil
}
