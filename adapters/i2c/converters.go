package i2c

import (
	"time"

	"gateway/adapters"
)

// More converters: NXP PCF8591 (four 8-bit inputs) and Microchip MCP3421 to MCP3424 (18 bits, one to
// four differential inputs).

func converterChips() []Chip {
	span := func(from, to uint16) (a []uint16) {
		for ; from <= to; from++ {
			a = append(a, from)
		}
		return a
	}
	var four, differential []Quantity
	for i := range 4 {
		four = append(four, Quantity{Name: "a" + string(rune('0'+i)), Unit: "V", Decimals: 3})
		differential = append(differential, Quantity{Name: "ch" + string(rune('1'+i)), Unit: "V", Decimals: 7})
	}
	mcp := func(name string, channels int, addresses []uint16, aliases ...string) Chip {
		return Chip{
			Name: name, Aliases: aliases, About: "Microchip differential voltage, 18 bits",
			Addresses: addresses, Quantities: differential[:channels],
			Settings: []Setting{
				{Name: "bits", Default: 18.0, Values: []any{12.0, 14.0, 16.0, 18.0}, About: "240, 60, 15 or 3.75 conversions a second"},
				{Name: "gain", Default: 1.0, Values: []any{1.0, 2.0, 4.0, 8.0}},
			},
			make: func(s settings) driver { return mcp342x{bits: s.int("bits"), gain: s.int("gain")} },
		}
	}
	return []Chip{{
		Name: "pcf8591", About: "NXP four voltages, 8 bits",
		Addresses: span(0x48, 0x4F), Quantities: four,
		Settings: []Setting{{Name: "reference", Default: 3.3, Unit: "V", Min: 0.1, Max: 6, About: "voltage at VREF, above that at AGND"}},
		make:     func(s settings) driver { return pcf8591{s.num("reference")} },
	},
		mcp("mcp3421", 1, span(0x68, 0x6F)),
		mcp("mcp3422", 2, span(0x68, 0x6F), "mcp3423"),
		mcp("mcp3424", 4, span(0x68, 0x6F)),
	}
}

// pcf8591: NXP datasheet PCF8591, 8.2 "Control byte" and 8.4 "A/D conversion".
type pcf8591 struct{ reference float64 }

func (pcf8591) setup(*conn) error { return nil }

func (d pcf8591) measure(c *conn, r *results) error {
	// Four single-ended inputs, auto-increment, the analog output on (which keeps the oscillator
	// running, as auto-increment wants). The first byte is the result of the conversion before.
	var b [5]byte
	if err := c.tx([]byte{0x44}, b[:]); err != nil {
		return err
	}
	for i, v := range b[1:] {
		if v == 0xFF {
			r.fail(i, adapters.ReasonOverrange)
			continue
		}
		r.float(i, float64(v)*d.reference/256)
	}
	return nil
}

// mcp342x: Microchip datasheet DS22003 (MCP3421), 4.0 and 5.0.
type mcp342x struct{ bits, gain int }

func (mcp342x) setup(*conn) error { return nil }

func (d mcp342x) measure(c *conn, r *results) error {
	rate := map[int]byte{12: 0, 14: 1, 16: 2, 18: 3}[d.bits]
	gain := map[int]byte{1: 0, 2: 1, 4: 2, 8: 3}[d.gain]
	conversion := map[int]time.Duration{12: 5, 14: 19, 16: 75, 18: 300}[d.bits] * time.Millisecond
	n := 3
	if d.bits == 18 {
		n = 4
	}
	for channel := range r.wanted {
		if !r.wants(channel) {
			continue
		}
		config := byte(channel)<<5 | rate<<2 | gain
		if err := c.write(0x80 | config); err != nil { // one-shot conversion
			return err
		}
		if err := c.wait(conversion); err != nil {
			return err
		}
		var b [4]byte
		if err := c.poll(5, 10*time.Millisecond, func() (bool, error) {
			err := c.read(b[:n])
			return b[n-1]&0x80 == 0, err // RDY is 0 when the result is new
		}); err != nil {
			return err
		}
		if b[n-1]&0x7F != config {
			return chipErrorf(adapters.ReasonProtocol, "the configuration reads 0x%02x, not 0x%02x: this chip has fewer channels or is another one", b[n-1]&0x7F, config)
		}
		raw := int32(int8(b[0])) // above the number's sign bit the sign is repeated
		for _, v := range b[1 : n-1] {
			raw = raw<<8 | int32(v)
		}
		if most := int32(1)<<(d.bits-1) - 1; raw >= most || raw <= -most-1 {
			r.fail(channel, adapters.ReasonOverrange)
			continue
		}
		// The least significant bit is 2*2.048 V / 2^bits ("Equations for the Output Codes"), by the gain.
		r.float(channel, float64(raw)*4.096/float64(int32(1)<<d.bits)/float64(d.gain))
	}
	return nil
}
