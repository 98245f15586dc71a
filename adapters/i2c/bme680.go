package i2c

import (
	"encoding/binary"
	"math"
	"time"

	"gateway/adapters"
)

// Bosch BME680 and BME688 (datasheets BST-BME680-DS001, BST-BME688-DS000): temperature, pressure,
// humidity, and the resistance of a heated metal oxide, which falls with volatile organic compounds.
// Bosch's index of air quality is closed software; the resistance is what the chip measures.

const (
	bme680Temperature = iota
	bme680Pressure
	bme680Humidity
	bme680Gas
)

func bme680Chips() []Chip {
	return []Chip{{
		Name: "bme680", Aliases: []string{"bme688"},
		About:     "Bosch temperature, pressure, humidity and gas resistance",
		Addresses: []uint16{0x76, 0x77},
		Quantities: []Quantity{
			bme680Temperature: {Name: "temperature", Unit: "°C", Decimals: 2, Min: -40, Max: 85},
			bme680Pressure:    {Name: "pressure", Unit: "hPa", Decimals: 2, Min: 300, Max: 1100},
			bme680Humidity:    {Name: "humidity", Unit: "%", Decimals: 2, Min: 0, Max: 100},
			bme680Gas:         {Name: "gas_resistance", Unit: "Ω"},
		},
		Settings: []Setting{
			{Name: "heater", Default: 320.0, Unit: "°C", Min: 200, Max: 400, About: "target of the gas sensor's plate"},
			{Name: "heating", Default: 150.0, Unit: "ms", Min: 1, Max: 4032, About: "how long it is heated"},
			{Name: "ambient", Default: 25.0, Unit: "°C", Min: -40, Max: 85, About: "assumed before the first measurement"},
		},
		identify: func(c *conn) (bool, error) {
			id, err := c.reg8(0xD0)
			return id == 0x61, err
		},
		make: func(s settings) driver {
			return &bme680{heater: s.num("heater"), heating: s.int("heating"), ambient: s.num("ambient")}
		},
	}}
}

type bme680 struct {
	heater  float64
	heating int // ms
	ambient float64
	variant byte // 1: BME688
	cal     bme680Calibration
}

// bme680Calibration is the trimming of one chip (BME680 datasheet, 3.3; its gas part table 11).
type bme680Calibration struct {
	t1               uint16
	t2               int16
	t3               int8
	p1               uint16
	p2               int16
	p3               int8
	p4, p5           int16
	p6, p7           int8
	p8, p9           int16
	p10              uint8
	h1, h2           uint16 // 12 bits
	h3, h4, h5       int8
	h6               uint8
	h7               int8
	g1               int8
	g2               int16
	g3               int8
	heatRange        uint8
	heatVal, rangeSw int8
}

// parse takes registers 0x89 to 0xA1, 0xE1 to 0xF0, and 0x00, 0x02, 0x04.
func (k *bme680Calibration) parse(a, b []byte, heatVal, heatRange, rangeSw byte) {
	u := func(reg int) uint16 { // little endian from either block
		if reg >= 0xE1 {
			return binary.LittleEndian.Uint16(b[reg-0xE1:])
		}
		return binary.LittleEndian.Uint16(a[reg-0x89:])
	}
	*k = bme680Calibration{
		t1: u(0xE9), t2: int16(u(0x8A)), t3: int8(a[0x8C-0x89]),
		p1: u(0x8E), p2: int16(u(0x90)), p3: int8(a[0x92-0x89]), p4: int16(u(0x94)), p5: int16(u(0x96)),
		p7: int8(a[0x98-0x89]), p6: int8(a[0x99-0x89]), p8: int16(u(0x9C)), p9: int16(u(0x9E)), p10: a[0xA0-0x89],
		h1: uint16(b[2])<<4 | uint16(b[1]&0x0F), h2: uint16(b[0])<<4 | uint16(b[1]>>4),
		h3: int8(b[3]), h4: int8(b[4]), h5: int8(b[5]), h6: b[6], h7: int8(b[7]),
		g2: int16(u(0xEB)), g1: int8(b[0xED-0xE1]), g3: int8(b[0xEE-0xE1]),
		heatRange: heatRange >> 4 & 3, heatVal: int8(heatVal), rangeSw: int8(rangeSw) >> 4,
	}
}

// The functions below are the floating-point formulas of the BME680 datasheet, 3.3 and 3.4.

func (k *bme680Calibration) temperature(adc uint32) (celsius, fine float64) {
	a := float64(adc)
	d := a/131072 - float64(k.t1)/8192
	fine = (a/16384-float64(k.t1)/1024)*float64(k.t2) + d*d*float64(k.t3)*16
	return fine / 5120, fine
}

// pressure returns pascals, 0 where the trimming is unusable.
func (k *bme680Calibration) pressure(adc uint32, fine float64) float64 {
	x := fine/2 - 64000
	y := x * x * float64(k.p6) / 131072
	y += x * float64(k.p5) * 2
	y = y/4 + float64(k.p4)*65536
	x = (float64(k.p3)*x*x/16384 + float64(k.p2)*x) / 524288
	x = (1 + x/32768) * float64(k.p1)
	if x == 0 {
		return 0
	}
	p := (1048576 - float64(adc) - y/4096) * 6250 / x
	x = float64(k.p9) * p * p / 2147483648
	y = p * float64(k.p8) / 32768
	z := p / 256
	z = z * z * z * float64(k.p10) / 131072
	return p + (x+y+z+float64(k.p7)*128)/16
}

// relative returns the relative humidity in percent, 0 to 100.
func (k *bme680Calibration) relative(adc uint16, fine float64) float64 {
	t := fine / 5120
	x := float64(adc) - (float64(k.h1)*16 + float64(k.h3)/2*t)
	y := x * (float64(k.h2) / 262144 * (1 + float64(k.h4)/16384*t + float64(k.h5)/1048576*t*t))
	return min(max(y+(float64(k.h6)/16384+float64(k.h7)/2097152*t)*y*y, 0), 100)
}

// The constants of the gas ranges in percent (BME680 datasheet, 3.4.1 "Gas resistance readout").
var (
	bme680K1 = [16]float64{0, 0, 0, 0, 0, -1, 0, -0.8, 0, 0, -0.2, -0.5, 0, -1, 0, 0}
	bme680K2 = [16]float64{0, 0, 0, 0, 0.1, 0.7, 0, -0.8, -0.1, 0, 0, 0, 0, 0, 0, 0}
)

// gas returns the resistance in ohms of a BME680.
func (k *bme680Calibration) gas(adc uint16, rng byte) float64 {
	x := (1340 + 5*float64(k.rangeSw)) * (1 + bme680K1[rng]/100)
	return 1 / ((1 + bme680K2[rng]/100) * 0.000000125 * float64(uint32(1)<<rng) * ((float64(adc)-512)/x + 1))
}

// gas688 returns the resistance in ohms of a BME688 (Bosch's BME68x driver, calc_gas_resistance_high).
func gas688(adc uint16, rng byte) float64 {
	return 1e6 * float64(uint32(262144)>>rng) / (4096 + 3*(float64(adc)-512))
}

// heat returns the code of a target temperature of the plate.
func (k *bme680Calibration) heat(target, ambient float64) byte {
	x := float64(k.g1)/16 + 49
	y := float64(k.g2)/32768*0.0005 + 0.00235
	z := float64(k.g3) / 1024
	x = x*(1+y*target) + z*ambient
	return byte(min(max(3.4*(x*(4/(4+float64(k.heatRange)))*(1/(1+float64(k.heatVal)*0.002))-25), 0), 255))
}

// bme680Wait is the code of a heating time: 6 bits with a factor of 1, 4, 16 or 64 (gas_wait_x).
func bme680Wait(ms int) byte {
	factor := byte(0)
	for ms > 63 && factor < 3 {
		ms = (ms + 2) / 4
		factor++
	}
	return factor<<6 | byte(min(ms, 63))
}

func (d *bme680) setup(c *conn) error {
	id, err := c.reg8(0xD0)
	if err != nil {
		return err
	}
	if id != 0x61 {
		return chipErrorf(adapters.ReasonProtocol, "chip id 0x%02x is not that of a BME680 (0x61)", id)
	}
	var a [0xA2 - 0x89]byte
	var b [0xF1 - 0xE1]byte
	if err := c.readReg(0x89, a[:]); err != nil {
		return err
	}
	if err := c.readReg(0xE1, b[:]); err != nil {
		return err
	}
	var heat [5]byte
	if err := c.readReg(0x00, heat[:]); err != nil {
		return err
	}
	d.variant = b[0xF0-0xE1]
	d.cal.parse(a[:], b[:], heat[0], heat[2], heat[4])
	if d.cal.t1 == 0 || d.cal.t1 == 0xFFFF {
		return chipErrorf(adapters.ReasonProtocol, "the chip's trimming is empty (T1 0x%04x)", d.cal.t1)
	}
	return nil
}

func (d *bme680) measure(c *conn, r *results) error {
	wantGas := r.wants(bme680Gas)
	runGas := byte(0)
	if wantGas {
		runGas = 0x10
		if d.variant == 1 {
			runGas = 0x20
		}
	}
	// Written each time, for a chip that lost its power has forgotten it: the heater's set-point 0,
	// oversampling 2 of the humidity, 8 of the temperature, 4 of the pressure, and forced mode.
	if err := c.write(
		0x5A, d.cal.heat(d.heater, d.ambient), 0x64, bme680Wait(d.heating), 0x71, runGas,
		0x72, 0x02, 0x74, 4<<5|3<<2|1,
	); err != nil {
		return err
	}
	// 1963 µs for each of the 14 samples, five gaps of 477 µs, and 1 ms to wake (Bosch's driver,
	// bme68x_get_meas_dur).
	conversion := (14*1963 + 4*477 + 5*477 + 1000) * time.Microsecond
	if wantGas {
		conversion += time.Duration(d.heating) * time.Millisecond
	}
	if err := c.wait(conversion); err != nil {
		return err
	}
	var b [17]byte // 0x1D to 0x2D
	if err := c.poll(10, 5*time.Millisecond, func() (bool, error) {
		err := c.readReg(0x1D, b[:])
		return b[0]&0x80 != 0, err
	}); err != nil {
		return err
	}
	adc := func(b []byte) uint32 { return uint32(b[0])<<12 | uint32(b[1])<<4 | uint32(b[2])>>4 }
	t, fine := d.cal.temperature(adc(b[5:]))
	d.ambient = math.Round(min(max(t, -40), 85))
	r.float(bme680Temperature, t)
	r.float(bme680Pressure, d.cal.pressure(adc(b[2:]), fine)/100)
	r.float(bme680Humidity, d.cal.relative(binary.BigEndian.Uint16(b[8:]), fine))
	if wantGas {
		d.gas(b[:], r)
	}
	return nil
}

// gas puts the resistance, where the heater reached its target (bits gas_valid and heat_stab).
func (d *bme680) gas(b []byte, r *results) {
	g := b[0x2A-0x1D:]
	if d.variant == 1 {
		g = b[0x2C-0x1D:]
	}
	raw := uint16(g[0])<<2 | uint16(g[1])>>6
	switch {
	case g[1]&0x30 != 0x30:
		r.fail(bme680Gas, adapters.ReasonNotReady)
	case d.variant == 1:
		r.float(bme680Gas, gas688(raw, g[1]&0x0F))
	default:
		r.float(bme680Gas, d.cal.gas(raw, g[1]&0x0F))
	}
}
