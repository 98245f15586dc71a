package i2c

import (
	"encoding/binary"
	"math"
	"slices"
	"time"

	"gateway/adapters"
)

// Light sensors with two channels or two settings: ams TSL2561 (datasheet TAOS059), ams TSL2591
// (datasheet TSL2591) and Vishay VEML7700 (datasheet 84286, application note 84323).

const (
	lightLux = iota
	lightBroad
	lightInfrared
)

func lightChips() []Chip {
	counts := func(name string) Quantity { return Quantity{Name: name, Extra: true} }
	lux := func(most float64) Quantity { return Quantity{Name: "illuminance", Unit: "lx", Decimals: 2, Max: most} }
	return []Chip{{
		Name: "tsl2561", Aliases: []string{"tsl2560"}, About: "ams illuminance",
		Addresses:  []uint16{0x39, 0x29, 0x49},
		Quantities: []Quantity{lightLux: lux(100000), lightBroad: counts("full_counts"), lightInfrared: counts("infrared_counts")},
		Settings: []Setting{
			{Name: "gain", Default: 1.0, Values: []any{1.0, 16.0}},
			{Name: "integration", Default: 402.0, Unit: "ms", Values: []any{13.7, 101.0, 402.0}},
			{Name: "package", Default: "t", Values: []any{"t", "cs"}, About: "of the chip: t also for FN and CL"},
		},
		identify: func(c *conn) (bool, error) {
			id, err := c.reg8(0x8A)
			return id>>4 == 0x5 || id>>4 == 0x1, err
		},
		make: func(s settings) driver {
			return tsl2561{gain: s.num("gain"), ms: s.num("integration"), cs: s.text("package") == "cs"}
		},
	}, {
		Name: "tsl2591", About: "ams illuminance, wide range",
		Addresses:  []uint16{0x29},
		Quantities: []Quantity{lightLux: lux(88000), lightBroad: counts("full_counts"), lightInfrared: counts("infrared_counts")},
		Settings: []Setting{
			{Name: "gain", Default: "medium", Values: []any{"low", "medium", "high", "max"}, About: "1, 25, 428 or 9876"},
			{Name: "integration", Default: 100.0, Unit: "ms", Values: []any{100.0, 200.0, 300.0, 400.0, 500.0, 600.0}},
		},
		identify: func(c *conn) (bool, error) {
			id, err := c.reg8(0xB2)
			return id == 0x50, err
		},
		make: func(s settings) driver {
			return tsl2591{gain: slices.Index([]string{"low", "medium", "high", "max"}, s.text("gain")), ms: s.num("integration")}
		},
	}, {
		Name: "veml7700", Aliases: []string{"veml6030"}, About: "Vishay illuminance",
		Addresses:  []uint16{0x10, 0x48},
		Quantities: []Quantity{lightLux: lux(200000), lightBroad: counts("white_counts")},
		Settings: []Setting{
			{Name: "gain", Default: 0.125, Values: []any{0.125, 0.25, 1.0, 2.0}},
			{Name: "integration", Default: 100.0, Unit: "ms", Values: []any{25.0, 50.0, 100.0, 200.0, 400.0, 800.0}},
			{Name: "resolution", Default: 0.0042, Unit: "lx", Min: 0.001, Max: 0.01, About: "a count at gain 2 and 800 ms: 0.0042, in datasheets before 2024 0.0036"},
		},
		make: func(s settings) driver {
			return veml7700{gain: s.num("gain"), ms: s.num("integration"), resolution: s.num("resolution")}
		},
	}}
}

type tsl2561 struct {
	gain, ms float64
	cs       bool
}

func (d tsl2561) setup(c *conn) error {
	// Powered down first: an integration that another program began would end with the new setting's
	// name and the old one's counts.
	if err := c.write(0x80, 0x00); err != nil {
		return err
	}
	timing := map[float64]byte{13.7: 0, 101: 1, 402: 2}[d.ms]
	if d.gain == 16 {
		timing |= 0x10
	}
	if err := c.write(0x81, timing); err != nil {
		return err
	}
	if err := c.write(0x80, 0x03); err != nil { // power up
		return err
	}
	return c.wait(time.Duration(d.ms*1.1+10) * time.Millisecond)
}

func (d tsl2561) measure(c *conn, r *results) error {
	power, err := c.reg8(0x80)
	if err != nil {
		return err
	}
	if power&3 != 3 {
		return chipErrorf(adapters.ReasonNotReady, "the chip is powered down: it has lost its configuration")
	}
	var b [4]byte
	if err := c.readReg(0xAC, b[:]); err != nil { // word protocol, both channels
		return err
	}
	ch0, ch1 := binary.LittleEndian.Uint16(b[:]), binary.LittleEndian.Uint16(b[2:])
	countsWanted(r, ch0, ch1)
	// The most that the integration time allows; beyond it the ratio of the channels means nothing.
	full := map[float64]uint16{13.7: 5047, 101: 37177, 402: 65535}[d.ms]
	if ch0 >= full || ch1 >= full {
		r.fail(lightLux, adapters.ReasonOverrange)
		return nil
	}
	scale := 402 / d.ms * 16 / d.gain
	r.float(lightLux, tsl2561Lux(float64(ch0)*scale, float64(ch1)*scale, d.cs))
	return nil
}

func countsWanted(r *results, ch0, ch1 uint16) {
	if r.wants(lightBroad) {
		r.put(lightBroad, adapters.UintValue(uint64(ch0)))
	}
	if r.wants(lightInfrared) {
		r.put(lightInfrared, adapters.UintValue(uint64(ch1)))
	}
}

// tsl2561Lux is the empirical formula of the datasheet, "Calculating Lux", for counts at gain 16 and
// 402 ms.
func tsl2561Lux(ch0, ch1 float64, cs bool) float64 {
	if ch0 == 0 {
		return 0
	}
	ratio := ch1 / ch0
	if cs {
		switch {
		case ratio <= 0.52:
			return 0.0315*ch0 - 0.0593*ch0*math.Pow(ratio, 1.4)
		case ratio <= 0.65:
			return 0.0229*ch0 - 0.0291*ch1
		case ratio <= 0.80:
			return 0.0157*ch0 - 0.0180*ch1
		case ratio <= 1.30:
			return 0.00338*ch0 - 0.00260*ch1
		}
		return 0
	}
	switch {
	case ratio <= 0.50:
		return 0.0304*ch0 - 0.062*ch0*math.Pow(ratio, 1.4)
	case ratio <= 0.61:
		return 0.0224*ch0 - 0.031*ch1
	case ratio <= 0.80:
		return 0.0128*ch0 - 0.0153*ch1
	case ratio <= 1.30:
		return 0.00146*ch0 - 0.00112*ch1
	}
	return 0
}

type tsl2591 struct {
	gain int
	ms   float64
}

// tsl2591Gain are the typical gains (datasheet, "ALS Characteristics").
var tsl2591Gain = [4]float64{1, 25, 428, 9876}

func (d tsl2591) setup(c *conn) error {
	id, err := c.reg8(0xB2)
	if err != nil {
		return err
	}
	if id != 0x50 {
		return chipErrorf(adapters.ReasonProtocol, "chip id 0x%02x is not that of a TSL2591 (0x50)", id)
	}
	// Off first, so that AVALID speaks of an integration with this gain and time.
	if err := c.write(0xA0, 0x00); err != nil {
		return err
	}
	if err := c.write(0xA1, byte(d.gain<<4)|byte(d.ms/100-1)); err != nil {
		return err
	}
	return c.write(0xA0, 0x03) // power on, start
}

func (d tsl2591) measure(c *conn, r *results) error {
	// AVALID: a whole integration since the start. A chip that has lost its power stays at 0.
	if err := c.poll(2, time.Duration(d.ms*1.1)*time.Millisecond, func() (bool, error) {
		status, err := c.reg8(0xB3)
		return status&1 != 0, err
	}); err != nil {
		if err != errNotReady {
			return err
		}
		return chipErrorf(adapters.ReasonNotReady, "the chip does not integrate: it has lost its configuration")
	}
	var b [4]byte
	if err := c.readReg(0xB4, b[:]); err != nil {
		return err
	}
	ch0, ch1 := binary.LittleEndian.Uint16(b[:]), binary.LittleEndian.Uint16(b[2:])
	countsWanted(r, ch0, ch1)
	full := uint16(65535)
	if d.ms == 100 {
		full = 36863 // datasheet, "Maximum ALS count"
	}
	if ch0 >= full || ch1 >= full {
		r.fail(lightLux, adapters.ReasonOverrange)
		return nil
	}
	r.float(lightLux, tsl2591Lux(float64(ch0), float64(ch1), d.ms, tsl2591Gain[d.gain]))
	return nil
}

// tsl2591Lux: the datasheet has no formula. This is the one that Adafruit's driver for its breakout
// board uses, after ams' DN40 "Lux and CCT Calculations", with a device factor of 408.
func tsl2591Lux(ch0, ch1, ms, gain float64) float64 {
	if ch0 == 0 {
		return 0
	}
	perLux := ms * gain / 408
	return max((ch0-ch1)*(1-ch1/ch0)/perLux, 0)
}

type veml7700 struct{ gain, ms, resolution float64 }

// config is the command register 0 (datasheet, table 1).
func (d veml7700) config() uint16 {
	gain := map[float64]uint16{1: 0, 2: 1, 0.125: 2, 0.25: 3}[d.gain]
	integration := map[float64]uint16{100: 0, 200: 1, 400: 2, 800: 3, 50: 8, 25: 12}[d.ms]
	return gain<<11 | integration<<6
}

func (d veml7700) setup(c *conn) error {
	conf := d.config()
	// Shut down (bit 0) first: what is under way was begun with another setting.
	if err := c.write(0, byte(conf)|1, byte(conf>>8)); err != nil {
		return err
	}
	if err := c.write(3, 0, 0); err != nil { // power saving off
		return err
	}
	if err := c.write(0, byte(conf), byte(conf>>8)); err != nil {
		return err
	}
	// 2.5 ms to wake, then a whole integration.
	return c.wait(time.Duration(d.ms*1.2+5) * time.Millisecond)
}

func (d veml7700) measure(c *conn, r *results) error {
	word := func(reg byte) (uint16, error) {
		var b [2]byte
		err := c.readReg(reg, b[:])
		return binary.LittleEndian.Uint16(b[:]), err
	}
	conf, err := word(0)
	if err != nil {
		return err
	}
	if conf != d.config() {
		return chipErrorf(adapters.ReasonNotReady, "the configuration reads 0x%04x, not 0x%04x: the chip has lost its power", conf, d.config())
	}
	als, err := word(4)
	if err != nil {
		return err
	}
	if r.wants(lightBroad) {
		white, err := word(5)
		if err != nil {
			return err
		}
		r.put(lightBroad, adapters.UintValue(uint64(white)))
	}
	if als == 0xFFFF {
		r.fail(lightLux, adapters.ReasonOverrange)
		return nil
	}
	lux := float64(als) * d.resolution * (2 / d.gain) * (800 / d.ms)
	if lux > 1000 {
		// The application note's correction of the detector's bend.
		lux = ((6.0135e-13*lux-9.3924e-9)*lux+8.1488e-5)*lux*lux + 1.0023*lux
	}
	r.float(lightLux, lux)
	return nil
}
