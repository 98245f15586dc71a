package i2c

import (
	"time"

	"gateway/adapters"
)

// TI INA219 (datasheet SBOS448) and INA226 (SBOS547): voltage of a bus, and by a shunt its current and
// power. Current and power are computed here from the two voltages, which the chip's own registers do
// with less precision and only while their calibration register has not been lost with the power.

const (
	inaVoltage = iota
	inaCurrent
	inaPower
	inaShunt
)

func inaChips() []Chip {
	q := []Quantity{
		inaVoltage: {Name: "voltage", Unit: "V", Decimals: 3},
		inaCurrent: {Name: "current", Unit: "A", Decimals: 4},
		inaPower:   {Name: "power", Unit: "W", Decimals: 3},
		inaShunt:   {Name: "shunt_voltage", Unit: "mV", Decimals: 4, Extra: true},
	}
	var addresses []uint16
	for a := uint16(0x40); a <= 0x4F; a++ {
		addresses = append(addresses, a)
	}
	shunt := func(ohms float64) []Setting {
		return []Setting{{Name: "shunt", Default: ohms, Unit: "Ω", Min: 1e-6, Max: 1000, About: "resistance of the shunt"}}
	}
	return []Chip{{
		Name: "ina219", Aliases: []string{"ina220"}, About: "TI voltage, current and power",
		Addresses: addresses, Quantities: q, Settings: shunt(0.1),
		make: func(s settings) driver { return ina219{ohms: s.num("shunt")} },
	}, {
		Name: "ina226", Aliases: []string{"ina230", "ina231"}, About: "TI voltage, current and power, precise",
		Addresses: addresses, Quantities: q, Settings: shunt(0.1),
		identify: identifyINA226,
		make:     func(s settings) driver { return ina226{ohms: s.num("shunt")} },
	}}
}

// inaResults puts what follows from the two voltages. full and clipped say that the bus's and the
// shunt's are at the end of their range.
func inaResults(r *results, volts, shuntVolts, ohms float64, full, clipped bool) {
	r.float(inaVoltage, volts)
	if full {
		r.fail(inaVoltage, adapters.ReasonOverrange)
	}
	if clipped {
		for _, i := range []int{inaCurrent, inaPower, inaShunt} {
			if r.wants(i) {
				r.fail(i, adapters.ReasonOverrange)
			}
		}
		return
	}
	amperes := shuntVolts / ohms
	r.float(inaCurrent, amperes)
	r.float(inaPower, volts*amperes)
	if full {
		r.fail(inaPower, adapters.ReasonOverrange)
	}
	if r.wants(inaShunt) {
		r.float(inaShunt, shuntVolts*1000)
	}
}

type ina219 struct{ ohms float64 }

// 32 V, ±320 mV, 12 bits, continuous: the value after power-on (Configuration Register).
const ina219Config = 0x399F

func (ina219) setup(c *conn) error {
	if err := c.writeReg16(0, ina219Config); err != nil {
		return err
	}
	return c.wait(2 * time.Millisecond) // two conversions of at most 586 µs
}

func (d ina219) measure(c *conn, r *results) error {
	shunt, err := c.reg16(1)
	if err != nil {
		return err
	}
	bus, err := c.reg16(2)
	if err != nil {
		return err
	}
	// 10 µV; bits 15 to 3 of the bus voltage, 4 mV (Shunt Voltage Register, Bus Voltage Register).
	s := int16(shunt)
	inaResults(r, float64(bus>>3)*4/1000, float64(s)/1e5, d.ohms, bus>>3 >= 8000, s >= 32000 || s <= -32000)
	return nil
}

type ina226 struct{ ohms float64 }

func identifyINA226(c *conn) (bool, error) {
	maker, err := c.reg16(0xFE)
	if err != nil || maker != 0x5449 { // "TI"
		return false, err
	}
	die, err := c.reg16(0xFF)
	return die&0xFFF0 == 0x2260, err
}

func (ina226) setup(c *conn) error {
	ok, err := identifyINA226(c)
	if err != nil {
		return err
	}
	if !ok {
		return chipErrorf(adapters.ReasonProtocol, "its manufacturer and die id are not those of an INA226")
	}
	// 16 averages of 1.1 ms conversions of both voltages, continuous (Configuration Register).
	if err := c.writeReg16(0, 0x4527); err != nil {
		return err
	}
	return c.wait(40 * time.Millisecond) // 16 * 2 * 1.21 ms at most
}

func (d ina226) measure(c *conn, r *results) error {
	shunt, err := c.reg16(1)
	if err != nil {
		return err
	}
	bus, err := c.reg16(2)
	if err != nil {
		return err
	}
	// 2.5 µV and 1.25 mV (Shunt Voltage Register, Bus Voltage Register).
	s := int16(shunt)
	inaResults(r, float64(bus)*1.25/1000, float64(s)*2.5e-6, d.ohms, bus >= 0x7FFF, s == 32767 || s == -32768)
	return nil
}
