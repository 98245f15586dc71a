package i2c

import (
	"fmt"
	"testing"
	"time"

	"periph.io/x/conn/v3/i2c/i2ctest"

	"gateway/adapters"
)

// TI SBOS448 (INA219), "Calculating Current and Power", the table of the example: a shunt of 2 mΩ, the registers
// 0x07D0 and 0x5D98 are 20 mV and 11.98 V; 10 A and 119.8 W.
func TestINA219WorkedExampleOfTheDatasheet(t *testing.T) {
	exchange{
		chip: "ina219", settings: map[string]any{"shunt": 0.002},
		want:    []string{"voltage", "current", "power", "shunt_voltage"},
		setup:   []i2ctest.IO{{W: []byte{0, 0x39, 0x9F}}},
		measure: []i2ctest.IO{{W: []byte{1}, R: be16(0x07D0)}, {W: []byte{2}, R: be16(0x5D98)}},
		values:  map[string]any{"voltage": 11.98, "current": 10.0, "power": 119.8, "shunt_voltage": 20.0},
	}.run(t)
}

func TestINA219CurrentFlowsBothWaysAndClips(t *testing.T) {
	for raw, want := range map[int]any{-1000: -0.1, 32000: adapters.ReasonOverrange, -32000: adapters.ReasonOverrange} {
		values := map[string]any{"voltage": 12.0, "current": want, "power": want}
		if f, ok := want.(float64); ok {
			values["power"] = 12 * f
		}
		exchange{
			chip:    "ina219",
			setup:   []i2ctest.IO{{W: []byte{0, 0x39, 0x9F}}},
			measure: []i2ctest.IO{{W: []byte{1}, R: be16(raw)}, {W: []byte{2}, R: be16(3000 << 3)}},
			values:  values,
		}.run(t)
	}
}

// "Full-scale range" of the bus voltage: 32 V is 8000 (SBOS448), 0x7FFF is the end of the INA226's register.
func TestABusAboveTheRangeIsNoVoltage(t *testing.T) {
	over := map[string]any{"voltage": adapters.ReasonOverrange, "current": 0.1, "power": adapters.ReasonOverrange}
	exchange{
		chip: "ina219", setup: []i2ctest.IO{{W: []byte{0, 0x39, 0x9F}}},
		measure: []i2ctest.IO{{W: []byte{1}, R: be16(1000)}, {W: []byte{2}, R: be16(8000 << 3)}},
		values:  over,
	}.run(t)
	exchange{
		chip: "ina226",
		setup: []i2ctest.IO{
			{W: []byte{0xFE}, R: []byte("TI")}, {W: []byte{0xFF}, R: be16(0x2260)}, {W: []byte{0, 0x45, 0x27}},
		},
		measure: []i2ctest.IO{{W: []byte{1}, R: be16(4000)}, {W: []byte{2}, R: be16(0x7FFF)}},
		values:  over,
	}.run(t)
}

// TI SBOS547 (INA226, June 2011), page 16, table 1 "Configure/Measure/Calculate Example": a shunt of 2 mΩ, the registers 8000 and 9584 are 20 mV and
// 11.98 V; 10 A and 119.8 W.
func TestINA226WorkedExampleOfTheDatasheet(t *testing.T) {
	exchange{
		chip: "ina226", addr: 0x41, settings: map[string]any{"shunt": 0.002},
		setup: []i2ctest.IO{
			{W: []byte{0xFE}, R: []byte("TI")}, {W: []byte{0xFF}, R: be16(0x2260)},
			{W: []byte{0, 0x45, 0x27}},
		},
		measure: []i2ctest.IO{{W: []byte{1}, R: be16(8000)}, {W: []byte{2}, R: be16(9584)}},
		values:  map[string]any{"voltage": 11.98, "current": 10.0, "power": 119.8},
	}.run(t)
	exchange{chip: "ina226", setup: []i2ctest.IO{{W: []byte{0xFE}, R: be16(0)}}, err: "not those of an INA226"}.run(t)
}

// TI SBAS444 (ADS1115), "Data Format", the table "Input Signal Versus Ideal Output Code".
func TestADS1115Codes(t *testing.T) {
	const full = 2.048
	for code, want := range map[int]any{
		0x0001: full / 32768, 0: 0.0, 0xFFFF: -full / 32768, 0x4000: full / 2, 0xC000: -full / 2,
		0x7FFF: adapters.ReasonOverrange, 0x8000: adapters.ReasonOverrange,
	} {
		t.Run(fmt.Sprintf("%04x", code), func(t *testing.T) {
			exchange{
				chip: "ads1115", settings: map[string]any{"range": full}, want: []string{"a0-a1"},
				setup: []i2ctest.IO{{W: []byte{1}, R: be16(0x8583)}},
				measure: []i2ctest.IO{
					{W: []byte{1, 0x85, 0x83}},      // OS, AIN0-AIN1, ±2.048 V, single shot, 128/s
					{W: []byte{1}, R: be16(0x0583)}, // still converting
					{W: []byte{1}, R: be16(0x8583)}, // done
					{W: []byte{0}, R: be16(code)},
				},
				values: map[string]any{"a0-a1": want},
				busy:   time.Second / 128,
			}.run(t)
		})
	}
}

// SBAS444, "Device Comparison": the ADS1113 and ADS1114 have the pair alone, the ADS1113 one range. A code for
// another input would be answered with that pair's voltage under another name.
func TestTheSmallADSHaveOnePair(t *testing.T) {
	for _, name := range []string{"ads1113", "ads1114"} {
		chip, err := Lookup(name)
		if err != nil || len(chip.Quantities) != 1 {
			t.Fatalf("%+v, %v", chip, err)
		}
		exchange{
			chip: name, settings: map[string]any{"range": 2.048},
			setup: []i2ctest.IO{{W: []byte{1}, R: be16(0x8583)}},
			measure: []i2ctest.IO{
				{W: []byte{1, 0x85, 0x83}}, {W: []byte{1}, R: be16(0x8583)}, {W: []byte{0}, R: be16(0x4000)},
			},
			values: map[string]any{"a0-a1": 1.024},
		}.run(t)
	}
	small, err := Lookup("ADS1013")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := small.complete(map[string]any{"range": 4.096}); err == nil {
		t.Error("a range that the ADS1013 does not have")
	}
}

func TestADS1015ReadsTheFourInputsInTurn(t *testing.T) {
	var measure []i2ctest.IO
	for i, code := range []int{0x1000, 0x2000, 0x3FF0, 0x0010} {
		measure = append(measure,
			i2ctest.IO{W: []byte{1, byte(0xC3 | i<<4), 0x83}}, // OS, AINi, ±4.096 V, 1600/s
			i2ctest.IO{W: []byte{1}, R: be16(0x8583)},
			i2ctest.IO{W: []byte{0}, R: be16(code)})
	}
	exchange{
		chip:    "ads1015",
		setup:   []i2ctest.IO{{W: []byte{1}, R: be16(0x8583)}},
		measure: measure,
		values:  map[string]any{"a0": 0.512, "a1": 1.024, "a2": 2.046, "a3": 0.002},
	}.run(t)
}
