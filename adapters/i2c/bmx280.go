package i2c

import (
	"encoding/binary"
	"math"
	"time"

	"gateway/adapters"
)

// Bosch BME280 (datasheet BST-BME280-DS002) and BMP280 (BST-BMP280-DS001): pressure, temperature
// and, of the BME280, humidity. The chip sleeps between measurements and is woken for each (forced
// mode), which is what the datasheets recommend for weather stations and what heats it least.

const (
	bmxTemperature = iota
	bmxPressure
	bmxHumidity
)

func bmx280Chips() []Chip {
	oversampling := func(name string, deflt float64) Setting {
		return Setting{Name: name, Default: deflt, Values: []any{1.0, 2.0, 4.0, 8.0, 16.0}, About: "oversampling of the " + name[:len(name)-len("_oversampling")]}
	}
	all := []Setting{
		oversampling("temperature_oversampling", 1),
		oversampling("pressure_oversampling", 1),
		oversampling("humidity_oversampling", 1),
		{Name: "filter", Default: 0.0, Values: []any{0.0, 2.0, 4.0, 8.0, 16.0}, About: "coefficient of the low-pass filter, 0: off"},
	}
	bme := Chip{
		Name: "bme280", About: "Bosch temperature, pressure and humidity",
		Addresses: []uint16{0x76, 0x77},
		Quantities: []Quantity{
			bmxTemperature: {Name: "temperature", Unit: "°C", Decimals: 2, Min: -40, Max: 85},
			bmxPressure:    {Name: "pressure", Unit: "hPa", Decimals: 2, Min: 300, Max: 1100},
			bmxHumidity:    {Name: "humidity", Unit: "%", Decimals: 2, Min: 0, Max: 100},
		},
		Settings: all,
		identify: func(c *conn) (bool, error) {
			id, err := c.reg8(0xD0)
			return id == 0x60, err
		},
		make: func(s settings) driver { return &bmx280{s: s, humidity: true} },
	}
	bmp := bme
	bmp.Name, bmp.About = "bmp280", "Bosch temperature and pressure"
	bmp.Quantities = bme.Quantities[:bmxHumidity]
	bmp.Settings = []Setting{all[0], all[1], all[3]}
	bmp.identify = func(c *conn) (bool, error) {
		id, err := c.reg8(0xD0)
		return id >= 0x56 && id <= 0x58, err
	}
	bmp.make = func(s settings) driver { return &bmx280{s: s} }
	return []Chip{bme, bmp}
}

type bmx280 struct {
	s        settings
	humidity bool
	cal      bmxCalibration
}

// bmxCalibration is the trimming of one chip: BME280 datasheet, table 16; BMP280, table 17.
type bmxCalibration struct {
	t1                             uint16
	t2, t3                         int16
	p1                             uint16
	p2, p3, p4, p5, p6, p7, p8, p9 int16
	h1                             uint8
	h2                             int16
	h3                             uint8
	h4, h5                         int16 // 12 bits, signed
	h6                             int8
}

// parse takes registers 0x88 to 0xA1 and, of a BME280, 0xE1 to 0xE7.
func (k *bmxCalibration) parse(tp []byte, h []byte) {
	u := func(i int) uint16 { return binary.LittleEndian.Uint16(tp[i:]) }
	s := func(i int) int16 { return int16(u(i)) }
	*k = bmxCalibration{
		t1: u(0), t2: s(2), t3: s(4),
		p1: u(6), p2: s(8), p3: s(10), p4: s(12), p5: s(14), p6: s(16), p7: s(18), p8: s(20), p9: s(22),
	}
	if len(h) == 0 {
		return
	}
	k.h1 = tp[25]
	k.h2 = int16(binary.LittleEndian.Uint16(h))
	k.h3 = h[2]
	// H4 and H5 share a byte and carry their sign in the top bit of their high byte.
	k.h4 = int16(int8(h[3]))<<4 | int16(h[4]&0x0F)
	k.h5 = int16(int8(h[5]))<<4 | int16(h[4]>>4)
	k.h6 = int8(h[6])
}

// The three functions below are the double-precision formulas of the BME280 datasheet, 8.1
// ("Compensation formulas in double precision floating point"); the BMP280's are the same.

// temperature returns °C, and the fine temperature that the other two formulas want.
func (k *bmxCalibration) temperature(adc uint32) (celsius, fine float64) {
	a := float64(adc)
	x := (a/16384 - float64(k.t1)/1024) * float64(k.t2)
	y := a/131072 - float64(k.t1)/8192
	sum := x + y*y*float64(k.t3)
	return sum / 5120, math.Trunc(sum)
}

// pressure returns pascals, 0 where the trimming is unusable.
func (k *bmxCalibration) pressure(adc uint32, fine float64) float64 {
	x := fine/2 - 64000
	y := x * x * float64(k.p6) / 32768
	y += x * float64(k.p5) * 2
	y = y/4 + float64(k.p4)*65536
	x = (float64(k.p3)*x*x/524288 + float64(k.p2)*x) / 524288
	x = (1 + x/32768) * float64(k.p1)
	if x == 0 {
		return 0
	}
	p := 1048576 - float64(adc)
	p = (p - y/4096) * 6250 / x
	x = float64(k.p9) * p * p / 2147483648
	y = p * float64(k.p8) / 32768
	return p + (x+y+float64(k.p7))/16
}

// relative returns the relative humidity in percent, 0 to 100.
func (k *bmxCalibration) relative(adc uint16, fine float64) float64 {
	h := fine - 76800
	h = (float64(adc) - (float64(k.h4)*64 + float64(k.h5)/16384*h)) *
		(float64(k.h2) / 65536 * (1 + float64(k.h6)/67108864*h*(1+float64(k.h3)/67108864*h)))
	h *= 1 - float64(k.h1)*h/524288
	return min(max(h, 0), 100)
}

func (d *bmx280) setup(c *conn) error {
	id, err := c.reg8(0xD0)
	if err != nil {
		return err
	}
	isBME, isBMP := id == 0x60, id >= 0x56 && id <= 0x58
	switch {
	case !isBME && !isBMP:
		return chipErrorf(adapters.ReasonProtocol, "chip id 0x%02x is neither a BME280 (0x60) nor a BMP280 (0x58)", id)
	case d.humidity && isBMP:
		return chipErrorf(adapters.ReasonProtocol, "chip id 0x%02x is a BMP280, which has no humidity: set chip = \"bmp280\"", id)
	}
	// After power-on the trimming is copied to its registers: im_update, bit 0 of status.
	if err := c.poll(10, 2*time.Millisecond, func() (bool, error) {
		status, err := c.reg8(0xF3)
		return status&1 == 0, err
	}); err != nil {
		return err
	}
	var tp [26]byte
	if err := c.readReg(0x88, tp[:]); err != nil {
		return err
	}
	var h []byte
	if d.humidity {
		h = make([]byte, 7)
		if err := c.readReg(0xE1, h); err != nil {
			return err
		}
	}
	d.cal.parse(tp[:], h)
	if d.cal.t1 == 0 || d.cal.t1 == 0xFFFF || d.cal.p1 == 0 || d.cal.p1 == 0xFFFF {
		return chipErrorf(adapters.ReasonProtocol, "the chip's trimming is empty (T1 0x%04x, P1 0x%04x): it is damaged or not what it says", d.cal.t1, d.cal.p1)
	}
	return nil
}

// field returns the three-bit code of an oversampling or filter setting.
func (d *bmx280) field(name string) (code byte, times float64) {
	times = d.s.num(name)
	codes := map[float64]byte{0: 0, 1: 1, 2: 2, 4: 3, 8: 4, 16: 5}
	return codes[times], times
}

func (d *bmx280) measure(c *conn, r *results) error {
	osT, nT := d.field("temperature_oversampling")
	osP, nP := d.field("pressure_oversampling")
	filter, _ := d.field("filter")
	if filter > 0 {
		filter-- // codes 1 to 4 for 2 to 16
	}
	// All registers are written each time, for a chip that lost its power has forgotten them. In
	// sleep mode, where the chip is, config is not ignored (5.4.6); ctrl_hum takes effect with the
	// write of ctrl_meas (5.4.3). Mode 1 is forced.
	conversion := 1.25 + 2.3*nT + 2.3*nP + 0.575 // ms at most; 9.1
	commands := []byte{0xF5, filter << 2, 0xF4, osT<<5 | osP<<2 | 1}
	answer := make([]byte, 6, 8)
	if d.humidity {
		osH, nH := d.field("humidity_oversampling")
		conversion += 2.3*nH + 0.575
		commands = append([]byte{0xF2, osH}, commands...)
		answer = answer[:8]
	}
	if err := c.write(commands...); err != nil {
		return err
	}
	if err := c.wait(time.Duration(conversion * float64(time.Millisecond))); err != nil {
		return err
	}
	if err := c.poll(10, 2*time.Millisecond, func() (bool, error) {
		status, err := c.reg8(0xF3)
		return status&8 == 0, err
	}); err != nil {
		return err
	}
	// One burst, so that all belong to one measurement (4.1 "Data register shadowing").
	if err := c.readReg(0xF7, answer); err != nil {
		return err
	}
	adc := func(b []byte) uint32 { return uint32(b[0])<<12 | uint32(b[1])<<4 | uint32(b[2])>>4 }
	rawP, rawT := adc(answer), adc(answer[3:])
	const skipped = 0x80000 // what the registers hold without a measurement
	if rawT == skipped {
		return errNotReady
	}
	t, fine := d.cal.temperature(rawT)
	r.float(bmxTemperature, t)
	if rawP == skipped {
		r.fail(bmxPressure, adapters.ReasonNotReady)
	} else {
		r.float(bmxPressure, d.cal.pressure(rawP, fine)/100)
	}
	if d.humidity {
		if raw := binary.BigEndian.Uint16(answer[6:]); raw == 0x8000 {
			r.fail(bmxHumidity, adapters.ReasonNotReady)
		} else {
			r.float(bmxHumidity, d.cal.relative(raw, fine))
		}
	}
	return nil
}
