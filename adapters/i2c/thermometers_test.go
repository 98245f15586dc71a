package i2c

import (
	"fmt"
	"testing"
	"time"

	"periph.io/x/conn/v3/i2c/i2ctest"

	"gateway/adapters"
)

// Bosch BMP180 datasheet (BST-BMP180-DS000), figure 4 "Algorithm for pressure and temperature
// measurement", with its worked example: UT 27898 and UP 23843 are 15.0 °C and 69964 Pa.
var bmp180Setup = []i2ctest.IO{
	{W: []byte{0xD0}, R: []byte{0x55}},
	{W: []byte{0xAA}, R: be16(408, -72, -14383, 32741, 32757, 23153, 6190, 4, -32768, -8711, 2868)},
}

// be16 makes words of 16 bits, high byte first.
func be16(words ...int) (b []byte) {
	for _, w := range words {
		b = append(b, byte(w>>8), byte(w))
	}
	return b
}

func TestBMP180WorkedExampleOfTheDatasheet(t *testing.T) {
	exchange{
		chip:  "bmp180",
		setup: bmp180Setup,
		measure: []i2ctest.IO{
			{W: []byte{0xF4, 0x2E}}, {W: []byte{0xF6}, R: be16(27898)},
			{W: []byte{0xF4, 0x34}}, {W: []byte{0xF6}, R: []byte{23843 >> 8, 23843 & 0xFF, 0}},
		},
		values: map[string]any{"temperature": 15.0, "pressure": 699.64},
		busy:   9 * time.Millisecond,
	}.run(t)
	// The same pressure with three more bits of it.
	exchange{
		chip:     "bmp085",
		settings: map[string]any{"oversampling": int64(3)},
		setup:    bmp180Setup,
		measure: []i2ctest.IO{
			{W: []byte{0xF4, 0x2E}}, {W: []byte{0xF6}, R: be16(27898)},
			{W: []byte{0xF4, 0xF4}}, {W: []byte{0xF6}, R: []byte{23843 >> 8, 23843 & 0xFF, 0}},
		},
		values: map[string]any{"temperature": 15.0, "pressure": 699.64},
		within: 0.03,
		busy:   30 * time.Millisecond,
	}.run(t)
}

func TestBMP180UnusableCalibration(t *testing.T) {
	setup := []i2ctest.IO{bmp180Setup[0], {W: []byte{0xAA}, R: make([]byte, 22)}}
	exchange{chip: "bmp180", setup: setup, err: "calibration word 0 is 0x0000"}.run(t)
	exchange{chip: "bmp180", setup: []i2ctest.IO{{W: []byte{0xD0}, R: []byte{0x58}}}, err: "chip id 0x58"}.run(t)
}

// The rows of the datasheets' tables of temperature data: TI SBOS397 (TMP102) "12-Bit" and "13-Bit
// Temperature Data Format", TI SNOSD82 (TMP117) "16-Bit Temperature Data Format", National DS012658
// (LM75) "Temperature Data Format", Microchip DS20005095 (MCP9808) 5.1.3.
func TestThermometersTables(t *testing.T) {
	alwaysOn := map[string][]i2ctest.IO{
		"lm75":    {{W: []byte{1}, R: []byte{0}}},
		"tmp75":   {{W: []byte{1}, R: []byte{0x60}}},
		"tmp102":  {{W: []byte{1}, R: be16(0x60A0)}},
		"tmp117":  {{W: []byte{0x0F}, R: be16(0x1117)}, {W: []byte{1, 0x02, 0x20}}},
		"mcp9808": {{W: []byte{6}, R: be16(0x0054)}, {W: []byte{7}, R: be16(0x0400)}, {W: []byte{1, 0, 0}}, {W: []byte{8, 3}}},
	}
	for _, c := range []struct {
		chip string
		raw  int
		want float64
	}{
		{"tmp102", 0x7FF0, 127.9375}, {"tmp102", 0x6400, 100}, {"tmp102", 0x5000, 80}, {"tmp102", 0x4B00, 75},
		{"tmp102", 0x3200, 50}, {"tmp102", 0x1900, 25}, {"tmp102", 0x0040, 0.25}, {"tmp102", 0, 0},
		{"tmp102", 0xFFC0, -0.25}, {"tmp102", 0xE700, -25}, {"tmp102", 0xC900, -55},
		{"tmp102", 0x4B01, 150}, {"tmp102", 0x4001, 128}, {"tmp102", 0x0C81, 25}, {"tmp102", 0xF381, -25}, {"tmp102", 0xE481, -55},
		{"lm75", 0x7D00, 125}, {"lm75", 0x1900, 25}, {"lm75", 0x0080, 0.5}, {"lm75", 0, 0}, {"lm75", 0xFF80, -0.5}, {"lm75", 0xE700, -25}, {"lm75", 0xC900, -55},
		{"lm75", 0x197F, 25}, // the bits below are undefined
		{"lm75a", 0x197F, 25.375}, {"tmp75", 0x197F, 25.4375},
		{"tmp117", 0x0001, 0.0078125}, {"tmp117", 0x3200, 100}, {"tmp117", 0x0C80, 25}, {"tmp117", 0xFFFF, -0.0078125}, {"tmp117", 0xF380, -25},
		{"mcp9808", 0x0190, 25}, {"mcp9808", 0xC190, 25}, {"mcp9808", 0x1FF0, -1}, {"mcp9808", 0x0004, 0.25}, {"mcp9808", 0x1E70, -25},
	} {
		t.Run(fmt.Sprintf("%s/%04x", c.chip, c.raw), func(t *testing.T) {
			setup, ok := alwaysOn[c.chip]
			if !ok {
				setup = alwaysOn["lm75"]
			}
			reg := byte(0)
			if c.chip == "mcp9808" {
				reg = 5
			}
			exchange{
				chip: c.chip, setup: setup,
				measure: []i2ctest.IO{{W: []byte{reg}, R: be16(c.raw)}},
				values:  map[string]any{"temperature": c.want},
			}.run(t)
		})
	}
}

func TestThermometersThatSleepAreWoken(t *testing.T) {
	read := []i2ctest.IO{{W: []byte{0}, R: be16(0x1900)}}
	want := map[string]any{"temperature": 25.0}
	exchange{chip: "lm75", setup: []i2ctest.IO{{W: []byte{1}, R: []byte{0x41}}, {W: []byte{1, 0x40}}}, measure: read, values: want}.run(t)
	// A TMP75 measures with 9 bits after power-on.
	exchange{chip: "tmp75", setup: []i2ctest.IO{{W: []byte{1}, R: []byte{0}}, {W: []byte{1, 0x60}}}, measure: read, values: want}.run(t)
	exchange{chip: "tmp102", setup: []i2ctest.IO{{W: []byte{1}, R: be16(0x61A0)}, {W: []byte{1, 0x60, 0xA0}}}, measure: read, values: want}.run(t)
}

func TestTMP117BeforeItsFirstConversion(t *testing.T) {
	exchange{
		chip:    "tmp117",
		setup:   []i2ctest.IO{{W: []byte{0x0F}, R: be16(0x0117)}, {W: []byte{1, 0x02, 0x20}}},
		measure: []i2ctest.IO{{W: []byte{0}, R: be16(0x8000)}},
		err:     "no new measurement",
	}.run(t)
}

func TestAHT20(t *testing.T) {
	// 0x80000 of 2^20 are 50 %RH; 0x60000 are 25 °C (product manual AHT20, "Signal Conversion").
	answer := []byte{0x1C, 0x80, 0x00, 0x06, 0x00, 0x00}
	answer = append(answer, crcSensirion.Sum(answer...))
	busy := append([]byte(nil), answer...)
	busy[0] |= 0x80
	exchange{
		chip:    "aht20",
		setup:   []i2ctest.IO{{W: []byte{0x71}, R: []byte{0x10}}, {W: []byte{0xBE, 0x08, 0x00}}},
		measure: []i2ctest.IO{{W: []byte{0xAC, 0x33, 0x00}}, {R: busy}, {R: answer}},
		values:  map[string]any{"temperature": 25.0, "humidity": 50.0},
		busy:    80 * time.Millisecond,
	}.run(t)
	ready := []i2ctest.IO{{W: []byte{0x71}, R: []byte{0x18}}}
	damaged := append([]byte(nil), answer...)
	damaged[2] ^= 0x01
	exchange{chip: "aht20", setup: ready, measure: []i2ctest.IO{{W: []byte{0xAC, 0x33, 0x00}}, {R: damaged}}, err: "checksum"}.run(t)
	exchange{chip: "aht10", setup: ready, measure: []i2ctest.IO{{W: []byte{0xAC, 0x33, 0x00}}, {R: answer[:6]}},
		values: map[string]any{"temperature": 25.0, "humidity": 50.0}}.run(t)
}

// The words and their checks are the examples of TE's HTU21D(F) datasheet: 0x683A with 0x7C is
// 24.7 °C, 0x4E85 with 0x6B a humidity.
func TestHTU21D(t *testing.T) {
	reset := []i2ctest.IO{{W: []byte{0xFE}}}
	exchange{
		chip: "htu21d", setup: reset,
		measure: []i2ctest.IO{
			{W: []byte{0xF3}}, {R: []byte{0x68, 0x3A, 0x7C}},
			{W: []byte{0xF5}}, {R: []byte{0x4E, 0x85, 0x6B}},
		},
		values: map[string]any{"temperature": 24.7, "humidity": 32.3},
		within: 0.05,
		busy:   66 * time.Millisecond,
	}.run(t)
	exchange{
		chip: "si7021", setup: reset, want: []string{"humidity"},
		measure: []i2ctest.IO{{W: []byte{0xF5}}, {R: []byte{0x4E, 0x85, 0x6C}}},
		err:     "checksum",
	}.run(t)
}

// ROHM's technical note BH1750FVI, "Measurement sequence example": 0x8390 is 28067 lx.
func TestBH1750(t *testing.T) {
	on := []i2ctest.IO{{W: []byte{0x01}}}
	exchange{
		chip: "bh1750", setup: on,
		measure: []i2ctest.IO{{W: []byte{0x42}}, {W: []byte{0x65}}, {W: []byte{0x20}}, {R: be16(0x8390)}},
		values:  map[string]any{"illuminance": 28067.0},
		within:  0.5,
		busy:    180 * time.Millisecond,
	}.run(t)
	exchange{
		chip: "bh1750", addr: 0x5C, setup: on,
		settings: map[string]any{"mode": "high2", "mtreg": int64(138)},
		measure:  []i2ctest.IO{{W: []byte{0x44}}, {W: []byte{0x6A}}, {W: []byte{0x21}}, {R: be16(0x8390)}},
		values:   map[string]any{"illuminance": 28067.0 / 4},
		within:   0.2,
		busy:     360 * time.Millisecond,
	}.run(t)
	exchange{
		chip: "bh1750", setup: on, settings: map[string]any{"mode": "low"},
		measure: []i2ctest.IO{{W: []byte{0x42}}, {W: []byte{0x65}}, {W: []byte{0x23}}, {R: be16(0xFFFF)}},
		values:  map[string]any{"illuminance": adapters.ReasonOverrange},
	}.run(t)
}
