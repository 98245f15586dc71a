package i2c

import (
	"time"

	"gateway/adapters"
)

// Thermometers whose register 0 is the temperature, high byte first, left-justified in 1/256 °C: the
// LM75 and its many successors, TI's TMP102, TMP75 and TMP117, and Microchip's MCP9808 with a
// register file of its own.

func tmp102Chips() []Chip {
	temperature := func(decimals int8, min, max float64) []Quantity {
		return []Quantity{{Name: "temperature", Unit: "°C", Decimals: decimals, Min: min, Max: max}}
	}
	span := func(from, to uint16) (a []uint16) {
		for ; from <= to; from++ {
			a = append(a, from)
		}
		return a
	}
	lm75Like := func(name string, bits int, resolution byte, about string, aliases ...string) Chip {
		decimals := int8(bits - 8)
		return Chip{
			Name: name, Aliases: aliases, About: about,
			Addresses: span(0x48, 0x4F), Quantities: temperature(min(decimals, 4), -55, 128),
			make: func(settings) driver { return lm75{^uint16(0) << (16 - bits), resolution} },
		}
	}
	return []Chip{
		lm75Like("lm75", 9, 0, "temperature in steps of 0.5 °C", "ds75", "ds1775"),
		lm75Like("lm75a", 11, 0, "temperature in steps of 0.125 °C", "lm75b", "pct2075"),
		lm75Like("tmp75", 12, 0x60, "TI temperature in steps of 0.0625 °C", "tmp105", "tmp175", "tmp275", "stds75", "mcp9800"),
		{
			Name: "tmp102", Aliases: []string{"tmp112"}, About: "TI temperature",
			Addresses: span(0x48, 0x4B), Quantities: temperature(4, -55, 150),
			make: func(settings) driver { return tmp102{} },
		}, {
			Name: "tmp117", Aliases: []string{"tmp116", "tmp119"}, About: "TI temperature, precise",
			Addresses: span(0x48, 0x4B), Quantities: temperature(4, -55, 150),
			identify: func(c *conn) (bool, error) {
				id, err := c.reg16(0x0F)
				return id&0xFFF == 0x117 || id&0xFFF == 0x116, err
			},
			make: func(settings) driver { return tmp117{} },
		}, {
			Name: "mcp9808", About: "Microchip temperature, precise",
			Addresses: span(0x18, 0x1F), Quantities: temperature(4, -40, 125),
			identify: identifyMCP9808,
			make:     func(settings) driver { return mcp9808{} },
		},
	}
}

// The LM75 has no register that tells it from others; it converts by itself after power-on.
type lm75 struct {
	mask       uint16 // the bits below the resolution are undefined in old chips
	resolution byte   // bits of the configuration: R1 and R0 of TI's are 9 bits after power-on (SBOS288)
}

// setup leaves shutdown mode, register 1 bit 0 (LM75 datasheet, "Configuration Register"), and sets the
// resolution.
func (d lm75) setup(c *conn) error {
	conf, err := c.reg8(1)
	if err != nil {
		return err
	}
	want := conf&^1 | d.resolution
	if conf == want {
		return nil
	}
	if err := c.write(1, want); err != nil {
		return err
	}
	return c.wait(300 * time.Millisecond) // the slowest of them
}

func (d lm75) measure(c *conn, r *results) error {
	v, err := c.reg16(0)
	if err != nil {
		return err
	}
	r.float(0, float64(int16(v&d.mask))/256)
	return nil
}

// tmp102: TI datasheet SBOS397. In extended mode (EM, bit 4 of the configuration) values have 13
// bits, which bit 0 of the temperature register tells.
type tmp102 struct{}

func (tmp102) setup(c *conn) error {
	conf, err := c.reg16(1)
	if err != nil || conf&0x0100 == 0 {
		return err
	}
	// SD: it is in shutdown mode; 26 ms, at most 35, for a conversion.
	if err := c.writeReg16(1, conf&^0x0100); err != nil {
		return err
	}
	return c.wait(40 * time.Millisecond)
}

func (tmp102) measure(c *conn, r *results) error {
	v, err := c.reg16(0)
	if err != nil {
		return err
	}
	if v&1 != 0 {
		r.float(0, float64(int16(v)>>3)*0.0625)
	} else {
		r.float(0, float64(int16(v)>>4)*0.0625)
	}
	return nil
}

// tmp117: TI datasheet SNOSD82, "Register Map".
type tmp117 struct{}

func (tmp117) setup(c *conn) error {
	id, err := c.reg16(0x0F)
	if err != nil {
		return err
	}
	if id &= 0xFFF; id != 0x117 && id != 0x116 {
		return chipErrorf(adapters.ReasonProtocol, "device id 0x%03x is not that of a TMP117", id)
	}
	// Continuous conversion, 8 averages, one conversion a second: what it has after power-on.
	if err := c.writeReg16(1, 0x0220); err != nil {
		return err
	}
	return c.wait(130 * time.Millisecond) // 8 conversions of 15.5 ms
}

func (tmp117) measure(c *conn, r *results) error {
	v, err := c.reg16(0)
	if err != nil {
		return err
	}
	if v == 0x8000 { // -256 °C: no conversion since power-on (Temp_Result)
		return errNotReady
	}
	r.float(0, float64(int16(v))*0.0078125)
	return nil
}

// mcp9808: Microchip datasheet DS20005095, 5.1.
type mcp9808 struct{}

func identifyMCP9808(c *conn) (bool, error) {
	maker, err := c.reg16(6)
	if err != nil || maker != 0x0054 {
		return false, err
	}
	id, err := c.reg16(7)
	return id>>8 == 0x04, err
}

func (mcp9808) setup(c *conn) error {
	ok, err := identifyMCP9808(c)
	if err != nil {
		return err
	}
	if !ok {
		return chipErrorf(adapters.ReasonProtocol, "its manufacturer and device id are not those of an MCP9808")
	}
	if err := c.writeReg16(1, 0); err != nil { // continuous conversion
		return err
	}
	if err := c.write(8, 3); err != nil { // 0.0625 °C
		return err
	}
	return c.wait(260 * time.Millisecond) // 250 ms typically
}

func (mcp9808) measure(c *conn, r *results) error {
	v, err := c.reg16(5)
	if err != nil {
		return err
	}
	// Bits 15 to 13 are alerts, bit 12 is the sign of a 13-bit two's complement (5.1.3).
	r.float(0, float64(int16(v<<3)>>3)*0.0625)
	return nil
}
