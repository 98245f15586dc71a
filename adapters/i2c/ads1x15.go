package i2c

import (
	"time"

	"gateway/adapters"
)

// TI ADS1115 (datasheet SBAS444) and ADS1015 (SBAS473): four inputs, single-ended or as four
// differential pairs. Each input that is wanted is a single-shot conversion. The smaller ones of the
// family have one pair; the ADS1113 and ADS1013 have one range as well.

func ads1x15Chips() []Chip {
	var q []Quantity
	for _, name := range []string{"a0", "a1", "a2", "a3", "a0-a1", "a0-a3", "a1-a3", "a2-a3"} {
		q = append(q, Quantity{Name: name, Unit: "V", Decimals: 6, Extra: len(name) > 2})
	}
	pair := []Quantity{{Name: "a0-a1", Unit: "V", Decimals: 6}}
	ranges := []any{6.144, 4.096, 2.048, 1.024, 0.512, 0.256}
	long := []any{8.0, 16.0, 32.0, 64.0, 128.0, 250.0, 475.0, 860.0}
	short := []any{128.0, 250.0, 490.0, 920.0, 1600.0, 2400.0, 3300.0}
	chip := func(name, about string, bits int, q []Quantity, full []any, deflt float64) Chip {
		mux, rates, rate := adsMux[:], long, 128.0
		if bits == 12 {
			rates, rate = short, 1600
		}
		if len(q) == 1 {
			mux = adsMux[4:5]
		}
		return Chip{
			Name: name, About: about,
			Addresses: []uint16{0x48, 0x49, 0x4A, 0x4B}, Quantities: q,
			Settings: []Setting{
				{Name: "range", Default: deflt, Unit: "V", Values: full, About: "full scale; an input may never be above the supply"},
				{Name: "rate", Default: rate, Unit: "1/s", Values: rates, About: "samples per second: the slower, the less noise"},
			},
			make: func(s settings) driver {
				d := ads1x15{mux: mux, bits: bits, full: s.num("range"), rate: s.num("rate")}
				for i, v := range ranges {
					if v == d.full {
						d.pga = uint16(i)
					}
				}
				for i, v := range rates {
					if v == d.rate {
						d.dr = uint16(i)
					}
				}
				return d
			},
		}
	}
	return []Chip{
		chip("ads1115", "TI four voltages, 16 bits", 16, q, ranges, 4.096),
		chip("ads1114", "TI one voltage, 16 bits", 16, pair, ranges, 4.096),
		chip("ads1113", "TI one voltage, 16 bits, one range", 16, pair, ranges[2:3], 2.048),
		chip("ads1015", "TI four voltages, 12 bits", 12, q, ranges, 4.096),
		chip("ads1014", "TI one voltage, 12 bits", 12, pair, ranges, 4.096),
		chip("ads1013", "TI one voltage, 12 bits, one range", 12, pair, ranges[2:3], 2.048),
	}
}

type ads1x15 struct {
	mux     []uint16 // the codes of the quantities
	bits    int
	full    float64 // volts
	pga, dr uint16
	rate    float64
}

// adsMux are the codes of the inputs in the order of the quantities (MUX[2:0] of the Config register).
var adsMux = [8]uint16{4, 5, 6, 7, 0, 1, 2, 3}

func (ads1x15) setup(c *conn) error {
	// There is no id; that the configuration can be read must do.
	_, err := c.reg16(1)
	return err
}

func (d ads1x15) measure(c *conn, r *results) error {
	for i, mux := range d.mux {
		if !r.wants(i) {
			continue
		}
		// OS: start; MODE: single shot; comparator off.
		if err := c.writeReg16(1, 0x8000|mux<<12|d.pga<<9|0x0100|d.dr<<5|0x0003); err != nil {
			return err
		}
		// The oscillator is 10 % off at most, waking takes 25 µs (ADS1115, "Oscillator" and "Reset and Power-Up").
		if err := c.wait(time.Duration(1.1/d.rate*float64(time.Second)) + 50*time.Microsecond); err != nil {
			return err
		}
		if err := c.poll(10, time.Millisecond, func() (bool, error) {
			conf, err := c.reg16(1)
			return conf&0x8000 != 0, err
		}); err != nil {
			return err
		}
		v, err := c.reg16(0)
		if err != nil {
			return err
		}
		// Left-justified two's complement; the ends are where it clips ("Data Format").
		raw := int16(v) >> (16 - d.bits)
		if most := int16(1<<(d.bits-1) - 1); raw == most || raw == -most-1 {
			r.fail(i, adapters.ReasonOverrange)
			continue
		}
		r.float(i, float64(raw)*d.full/float64(int32(1)<<(d.bits-1)))
	}
	return nil
}
