package i2c

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"periph.io/x/conn/v3/i2c/i2ctest"

	"gateway/adapters"
)

// le16 makes words of 16 bits, low byte first.
func le16(words ...int) (b []byte) {
	for _, w := range words {
		b = append(b, byte(w), byte(w>>8))
	}
	return b
}

// An integration under way is broken off: its counts belong to the setting before.
var tsl2561Setup = []i2ctest.IO{{W: []byte{0x80, 0x00}}, {W: []byte{0x81, 0x02}}, {W: []byte{0x80, 0x03}}}

func TestTSL2561(t *testing.T) {
	exchange{
		chip: "tsl2561", setup: tsl2561Setup,
		want: []string{"illuminance", "full_counts", "infrared_counts"},
		measure: []i2ctest.IO{
			{W: []byte{0x80}, R: []byte{0x33}},
			{W: []byte{0xAC}, R: le16(1000, 200)},
		},
		// Gain 1: counts times 16. CH1/CH0 is 0.2.
		values: map[string]any{
			"illuminance": 0.0304*16000 - 0.062*16000*math.Pow(0.2, 1.4),
			"full_counts": 1000.0, "infrared_counts": 200.0,
		},
	}.run(t)
	exchange{
		chip: "tsl2561", setup: tsl2561Setup,
		measure: []i2ctest.IO{{W: []byte{0x80}, R: []byte{0x33}}, {W: []byte{0xAC}, R: le16(65535, 200)}},
		values:  map[string]any{"illuminance": adapters.ReasonOverrange},
	}.run(t)
	exchange{chip: "tsl2561", setup: tsl2561Setup, measure: []i2ctest.IO{{W: []byte{0x80}, R: []byte{0x30}}}, err: "powered down"}.run(t)
}

// The formula in floating point must agree with the integer routine of the same datasheet ("Simplified
// Lux Calculation"), whose tables for the packages T, FN and CL stand below.
func TestTSL2561AgreesWithTheIntegerReference(t *testing.T) {
	reference := func(ch0, ch1 int64) int64 {
		ratio := int64(0)
		if ch0 != 0 {
			ratio = (ch1<<10/ch0 + 1) >> 1
		}
		table := []struct{ k, b, m int64 }{
			{0x0040, 0x01F2, 0x01BE}, {0x0080, 0x0214, 0x02D1}, {0x00C0, 0x023F, 0x037B}, {0x0100, 0x0270, 0x03FE},
			{0x0138, 0x016F, 0x01FC}, {0x019A, 0x00D2, 0x00FB}, {0x029A, 0x0018, 0x0012}, {math.MaxInt64, 0, 0},
		}
		for _, e := range table {
			if ratio <= e.k {
				return (max(ch0*e.b-ch1*e.m, 0) + 1<<13) >> 14
			}
		}
		return 0
	}
	r := rand.New(rand.NewPCG(3, 4))
	for range 20000 {
		ch0 := float64(2000 + r.IntN(60000))
		ch1 := math.Round(ch0 * r.Float64() * 1.2)
		got, want := tsl2561Lux(ch0, ch1, false), float64(reference(int64(ch0), int64(ch1)))
		// The tables are pieces of straight lines: within 2 % of full brightness.
		if math.Abs(got-want) > 2+0.02*0.0304*ch0 {
			t.Fatalf("counts %v, %v: %v lx, reference %v", ch0, ch1, got, want)
		}
	}
}

func TestTSL2591(t *testing.T) {
	setup := []i2ctest.IO{
		{W: []byte{0xB2}, R: []byte{0x50}},
		{W: []byte{0xA0, 0x00}}, {W: []byte{0xA1, 0x10}}, {W: []byte{0xA0, 0x03}},
	}
	exchange{
		chip: "tsl2591", setup: setup,
		measure: []i2ctest.IO{
			{W: []byte{0xB3}, R: []byte{0x00}}, {W: []byte{0xB3}, R: []byte{0x01}},
			{W: []byte{0xB4}, R: le16(1000, 250)},
		},
		// 750 * (1 - 0.25) / (100 * 25 / 408)
		values: map[string]any{"illuminance": 91.8},
		busy:   100 * time.Millisecond,
	}.run(t)
	exchange{
		chip: "tsl2591", setup: setup,
		measure: []i2ctest.IO{{W: []byte{0xB3}, R: []byte{0x01}}, {W: []byte{0xB4}, R: le16(36863, 250)}},
		values:  map[string]any{"illuminance": adapters.ReasonOverrange},
	}.run(t)
	exchange{
		chip: "tsl2591", setup: setup,
		measure: []i2ctest.IO{{W: []byte{0xB3}, R: []byte{0}}, {W: []byte{0xB3}, R: []byte{0}}},
		err:     "lost its configuration",
	}.run(t)
}

// Vishay's application note 84323: at gain 1/8 and 100 ms a count is 0.5376 lx (0.0042 * 16 * 8).
func TestVEML7700(t *testing.T) {
	setup := []i2ctest.IO{{W: []byte{0, 0x01, 0x10}}, {W: []byte{3, 0, 0}}, {W: []byte{0, 0x00, 0x10}}}
	conf := i2ctest.IO{W: []byte{0}, R: le16(0x1000)}
	exchange{
		chip: "veml7700", setup: setup,
		measure: []i2ctest.IO{conf, {W: []byte{4}, R: le16(1000)}},
		values:  map[string]any{"illuminance": 537.6},
	}.run(t)
	lux := 10000 * 0.5376
	exchange{
		chip: "veml7700", setup: setup,
		measure: []i2ctest.IO{conf, {W: []byte{4}, R: le16(10000)}},
		values: map[string]any{"illuminance": 6.0135e-13*math.Pow(lux, 4) - 9.3924e-9*math.Pow(lux, 3) +
			8.1488e-5*lux*lux + 1.0023*lux},
		within: 1e-6,
	}.run(t)
	exchange{
		chip: "veml7700", settings: map[string]any{"gain": 2.0, "integration": int64(800)},
		setup:   []i2ctest.IO{{W: []byte{0, 0xC1, 0x08}}, {W: []byte{3, 0, 0}}, {W: []byte{0, 0xC0, 0x08}}},
		measure: []i2ctest.IO{{W: []byte{0}, R: le16(0x08C0)}, {W: []byte{4}, R: le16(1000)}},
		values:  map[string]any{"illuminance": 4.2},
	}.run(t)
	exchange{chip: "veml7700", setup: setup, measure: []i2ctest.IO{{W: []byte{0}, R: le16(1)}}, err: "lost its power"}.run(t)
}
