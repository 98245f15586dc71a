package i2c

import "gateway/adapters"

// Melexis MLX90614 (datasheet 3901090614): temperature without contact, by infrared. It speaks SMBus
// with packet error codes.

func mlx90614Chips() []Chip {
	return []Chip{{
		Name: "mlx90614", Aliases: []string{"gy906"},
		About:     "Melexis infrared temperature",
		Addresses: []uint16{0x5A},
		Quantities: []Quantity{
			{Name: "object_temperature", Unit: "°C", Decimals: 2, Min: -70, Max: 382.2},
			{Name: "ambient_temperature", Unit: "°C", Decimals: 2, Min: -40, Max: 125},
		},
		pec:  true,
		make: func(settings) driver { return mlx90614{} },
	}}
}

type mlx90614 struct{}

func (mlx90614) setup(*conn) error { return nil }

func (mlx90614) measure(c *conn, r *results) error {
	for i, reg := range []byte{0x07, 0x06} { // RAM: T_OBJ1, T_A (8.4.5)
		var b [2]byte
		if err := c.readReg(reg, b[:]); err != nil {
			return err
		}
		raw := uint16(b[1])<<8 | uint16(b[0])
		if raw&0x8000 != 0 { // the error flag
			r.fail(i, adapters.ReasonSentinel)
			continue
		}
		r.float(i, float64(raw)*0.02-273.15)
	}
	return nil
}
