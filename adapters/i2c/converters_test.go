package i2c

import (
	"fmt"
	"testing"
	"time"

	"periph.io/x/conn/v3/i2c/i2ctest"

	"gateway/adapters"
)

func TestPCF8591(t *testing.T) {
	exchange{
		chip: "pcf8591", settings: map[string]any{"reference": 2.56},
		measure: []i2ctest.IO{{W: []byte{0x44}, R: []byte{0x80, 0x00, 0x40, 0x80, 0xFF}}},
		values:  map[string]any{"a0": 0.0, "a1": 0.64, "a2": 1.28, "a3": adapters.ReasonOverrange},
	}.run(t)
}

// Microchip DS22003 (MCP3421), the table of output codes of 18 bits: at 18 bits and gain 1 the least
// significant bit is 15.625 µV.
func TestMCP3421Codes(t *testing.T) {
	for code, want := range map[int]any{
		0x00000: 0.0, 0x00001: 15.625e-6, -1: -15.625e-6, 0x10000: 1.024, -0x10000: -1.024,
		0x1FFFF: adapters.ReasonOverrange, -0x20000: adapters.ReasonOverrange,
	} {
		t.Run(fmt.Sprint(code), func(t *testing.T) {
			b := []byte{byte(code >> 16), byte(code >> 8), byte(code)}
			exchange{
				chip:    "mcp3421",
				measure: []i2ctest.IO{{W: []byte{0x8C}}, {R: append(b, 0x8C)}, {R: append(b, 0x0C)}},
				values:  map[string]any{"ch1": want},
				busy:    267 * time.Millisecond, // 3.75 samples a second
			}.run(t)
		})
	}
}

func TestMCP3424TheChannelThatIsWanted(t *testing.T) {
	exchange{
		chip: "mcp3424", settings: map[string]any{"bits": int64(16), "gain": int64(8)}, want: []string{"ch3"},
		measure: []i2ctest.IO{{W: []byte{0xCB}}, {R: []byte{0x10, 0x00, 0x4B}}},
		values:  map[string]any{"ch3": 4096 * 62.5e-6 / 8},
	}.run(t)
	// An MCP3421 takes no notice of the channel bits and says so.
	exchange{
		chip: "mcp3424", settings: map[string]any{"bits": int64(16), "gain": int64(8)}, want: []string{"ch3"},
		measure: []i2ctest.IO{{W: []byte{0xCB}}, {R: []byte{0x10, 0x00, 0x0B}}},
		err:     "fewer channels",
	}.run(t)
}

// Maxim 19-5170 (DS3231), "Temperature Registers": 0x19 0x40 is +25.25 °C.
func TestDS3231(t *testing.T) {
	answer := func(change func(b []byte)) []byte {
		b := []byte{0x59, 0x58, 0x23, 0x02, 0x31, 0x12, 0x26, 0, 0, 0, 0, 0, 0, 0, 0, 0x08, 0, 0x19, 0x40}
		change(b)
		return b
	}
	for _, c := range []struct {
		name   string
		change func(b []byte)
		values map[string]any
	}{
		{"24 hours", func([]byte) {}, map[string]any{"temperature": 25.25, "time": "2026-12-31T23:58:59Z", "oscillator_stopped": false}},
		{"12 hours, afternoon", func(b []byte) { b[2] = 0x71 }, map[string]any{"temperature": 25.25, "time": "2026-12-31T23:58:59Z", "oscillator_stopped": false}},
		{"12 hours, midnight", func(b []byte) { b[2] = 0x52 }, map[string]any{"temperature": 25.25, "time": "2026-12-31T00:58:59Z", "oscillator_stopped": false}},
		{"below zero", func(b []byte) { b[0x11], b[0x12] = 0xFF, 0xC0 }, map[string]any{"temperature": -0.25, "time": "2026-12-31T23:58:59Z", "oscillator_stopped": false}},
		{"stood still", func(b []byte) { b[0x0F] = 0x88 }, map[string]any{"temperature": 25.25, "time": adapters.ReasonNotReady, "oscillator_stopped": true}},
		{"no date", func(b []byte) { b[4], b[5] = 0x31, 0x02 }, map[string]any{"temperature": 25.25, "time": adapters.ReasonParse, "oscillator_stopped": false}},
		{"no decimals", func(b []byte) { b[0] = 0x1B }, map[string]any{"temperature": 25.25, "time": adapters.ReasonParse, "oscillator_stopped": false}},
	} {
		t.Run(c.name, func(t *testing.T) {
			exchange{chip: "ds3231", measure: []i2ctest.IO{{W: []byte{0}, R: answer(c.change)}}, values: c.values}.run(t)
		})
	}
}

// Melexis 3901090614 (MLX90614), 8.4.3.1: reading RAM 0x07 of address 0x5A gives 0x3AD2 with the
// packet error code 0x30, over the bytes B4 07 B5 D2 3A.
func TestMLX90614ExampleOfTheDatasheet(t *testing.T) {
	if got := crcPEC.Sum(0xB4, 0x07, 0xB5, 0xD2, 0x3A); got != 0x30 {
		t.Errorf("PEC %02x", got)
	}
	ambient := []byte{0xD2, 0x3A}
	ambient = append(ambient, crcPEC.Sum(0xB4, 0x06, 0xB5, 0xD2, 0x3A))
	exchange{
		chip:    "mlx90614",
		measure: []i2ctest.IO{{W: []byte{0x07}, R: []byte{0xD2, 0x3A, 0x30}}, {W: []byte{0x06}, R: ambient}},
		values:  map[string]any{"object_temperature": 28.01, "ambient_temperature": 28.01},
		within:  1e-6,
	}.run(t)
	exchange{
		chip:    "mlx90614",
		measure: []i2ctest.IO{{W: []byte{0x07}, R: []byte{0xD3, 0x3A, 0x30}}},
		err:     "checksum",
	}.run(t)
}
