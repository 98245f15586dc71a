package i2c

import (
	"encoding/binary"
	"time"

	"gateway/adapters"
)

// Bosch BMP180 (datasheet BST-BMP180-DS000) and its forerunner BMP085: pressure and temperature. The
// arithmetic is 3.5 "Calculating pressure and temperature", in integers as there, for the result is
// defined by their rounding.

func bmp180Chips() []Chip {
	return []Chip{{
		Name: "bmp180", Aliases: []string{"bmp085"},
		About:     "Bosch temperature and pressure",
		Addresses: []uint16{0x77},
		Quantities: []Quantity{
			{Name: "temperature", Unit: "°C", Decimals: 1, Min: -40, Max: 85},
			{Name: "pressure", Unit: "hPa", Decimals: 2, Min: 300, Max: 1100},
		},
		Settings: []Setting{{Name: "oversampling", Default: 0.0, Min: 0, Max: 3, Values: []any{0.0, 1.0, 2.0, 3.0}, About: "of the pressure, 0 to 3: 1, 2, 4 or 8 samples"}},
		identify: func(c *conn) (bool, error) {
			id, err := c.reg8(0xD0)
			return id == 0x55, err
		},
		make: func(s settings) driver { return &bmp180{oss: uint(s.int("oversampling"))} },
	}}
}

type bmp180 struct {
	oss uint
	cal bmp180Calibration
}

type bmp180Calibration struct {
	ac1, ac2, ac3      int16
	ac4, ac5, ac6      uint16
	b1, b2, mb, mc, md int16
}

func (k *bmp180Calibration) parse(b []byte) error {
	var w [11]uint16
	for i := range w {
		w[i] = binary.BigEndian.Uint16(b[2*i:])
		// 3.4: a word of 0 or 0xFFFF means that the communication does not work.
		if w[i] == 0 || w[i] == 0xFFFF {
			return chipErrorf(adapters.ReasonProtocol, "calibration word %d is 0x%04x, which no BMP180 has", i, w[i])
		}
	}
	*k = bmp180Calibration{
		int16(w[0]), int16(w[1]), int16(w[2]), w[3], w[4], w[5],
		int16(w[6]), int16(w[7]), int16(w[8]), int16(w[9]), int16(w[10]),
	}
	return nil
}

// temperature returns tenths of °C, and B5, which the pressure wants. A zero divisor gives ok false.
func (k *bmp180Calibration) temperature(ut int32) (tenths, b5 int32, ok bool) {
	x1 := int32(int64(ut-int32(k.ac6)) * int64(k.ac5) >> 15)
	d := x1 + int32(k.md)
	if d == 0 {
		return 0, 0, false
	}
	b5 = x1 + int32(k.mc)<<11/d
	return (b5 + 8) >> 4, b5, true
}

// pressure returns pascals.
func (k *bmp180Calibration) pressure(up, b5 int32, oss uint) (pa int32, ok bool) {
	b6 := int64(b5) - 4000
	x1 := int64(k.b2) * (b6 * b6 >> 12) >> 11
	x2 := int64(k.ac2) * b6 >> 11
	b3 := ((int64(k.ac1)*4+x1+x2)<<oss + 2) / 4
	x1 = int64(k.ac3) * b6 >> 13
	x2 = int64(k.b1) * (b6 * b6 >> 12) >> 16
	b4 := int64(k.ac4) * ((x1+x2+2)>>2 + 32768) >> 15
	if b4 == 0 {
		return 0, false
	}
	b7 := (int64(up) - b3) * (50000 >> oss)
	p := b7 * 2 / b4
	if b7 >= 0x80000000 {
		p = b7 / b4 * 2
	}
	x1 = (p >> 8) * (p >> 8)
	x1 = x1 * 3038 >> 16
	x2 = -7357 * p >> 16
	return int32(p + (x1+x2+3791)>>4), true
}

func (d *bmp180) setup(c *conn) error {
	id, err := c.reg8(0xD0)
	if err != nil {
		return err
	}
	if id != 0x55 {
		return chipErrorf(adapters.ReasonProtocol, "chip id 0x%02x is not that of a BMP180 (0x55)", id)
	}
	var b [22]byte
	if err := c.readReg(0xAA, b[:]); err != nil {
		return err
	}
	return d.cal.parse(b[:])
}

func (d *bmp180) measure(c *conn, r *results) error {
	// Conversion times at most: table 3 (4.5 ms; 4.5, 7.5, 13.5 and 25.5 ms).
	ut, err := d.convert(c, 0x2E, 5*time.Millisecond, 2)
	if err != nil {
		return err
	}
	up, err := d.convert(c, 0x34|byte(d.oss)<<6, time.Duration(2+3<<d.oss)*time.Millisecond, 3)
	if err != nil {
		return err
	}
	tenths, b5, ok := d.cal.temperature(ut)
	if !ok {
		return chipErrorf(adapters.ReasonProtocol, "temperature %d does not fit the calibration", ut)
	}
	r.float(0, float64(tenths)/10)
	if pa, ok := d.cal.pressure(up>>(8-d.oss), b5, d.oss); ok {
		r.float(1, float64(pa)/100)
	} else {
		r.fail(1, adapters.ReasonProtocol)
	}
	return nil
}

// convert starts a conversion and reads its result of n bytes.
func (d *bmp180) convert(c *conn, command byte, time time.Duration, n int) (int32, error) {
	if err := c.write(0xF4, command); err != nil {
		return 0, err
	}
	if err := c.wait(time); err != nil {
		return 0, err
	}
	var b [3]byte
	if err := c.readReg(0xF6, b[:n]); err != nil {
		return 0, err
	}
	v := int32(0)
	for _, x := range b[:n] {
		v = v<<8 | int32(x)
	}
	return v, nil
}
