package i2c

import (
	"math"
	"testing"
	"testing/synctest"

	periph "periph.io/x/conn/v3/i2c"
	"periph.io/x/conn/v3/physic"
	theirAht20 "periph.io/x/devices/v3/aht20"
	theirBmxx80 "periph.io/x/devices/v3/bmxx80"
	theirIna219 "periph.io/x/devices/v3/ina219"
	theirMcp9808 "periph.io/x/devices/v3/mcp9808"
)

// periph's drivers are an independent reading of the same datasheets: on the same chip they must
// measure the same. They are not used themselves because they hold the bus while they wait, and hide
// the kernel's errors (bmxx80 wraps with %v, ina219 and mcp9808 replace them), so that an absent chip
// could not be told from a bus that hangs.

// model is a chip as registers, the pointer advancing with each byte.
type model struct {
	mem  map[byte][]byte // answers by register or command
	last byte
}

func (m *model) tx(w, r []byte) error {
	if len(w) > 0 {
		m.last = w[0]
	}
	copy(r, m.mem[m.last])
	return nil
}

// ours measures with our driver.
func ours(t *testing.T, bus periph.Bus, chipName string, set map[string]any) map[string]float64 {
	t.Helper()
	chip, err := Lookup(chipName)
	if err != nil {
		t.Fatal(err)
	}
	s, err := chip.complete(set)
	if err != nil {
		t.Fatal(err)
	}
	c := testConn(bus, chip.Addresses[0])
	d, out := chip.make(s), newResults(len(chip.Quantities))
	for i := range out.wanted {
		out.wanted[i] = true
	}
	if err := d.setup(c); err != nil {
		t.Fatal(err)
	}
	if err := d.measure(c, out); err != nil {
		t.Fatal(err)
	}
	values := map[string]float64{}
	for i, q := range chip.Quantities {
		values[q.Name], _ = out.slots[i].value.Number()
	}
	return values
}

func agree(t *testing.T, what string, got, want, within float64) {
	t.Helper()
	if math.Abs(got-want) > within {
		t.Errorf("%s: %v, periph's driver says %v", what, got, want)
	}
}

func TestPeriphsDriversMeasureTheSame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // they sleep
		bus := &fakeBus{chips: map[uint16]func(w, r []byte) error{}}
		var e physic.Env
		celsius := func() float64 { return e.Temperature.Celsius() }
		percent := func() float64 { return float64(e.Humidity) / float64(physic.PercentRH) }

		bme := &model{mem: map[byte][]byte{
			0xD0: {0x60}, 0xF3: {0}, 0x88: exampleTrimming(), 0xE1: humidityTrimming,
			0xF7: append(append([]byte(nil), exampleData...), 0x6E, 0xD0),
		}}
		bus.chips[0x76] = bme.tx
		sensor, err := theirBmxx80.NewI2C(bus, 0x76, &theirBmxx80.DefaultOpts)
		if err != nil {
			t.Fatal(err)
		}
		if err := sensor.Sense(&e); err != nil {
			t.Fatal(err)
		}
		got := ours(t, bus, "bme280", nil)
		agree(t, "bme280 temperature", got["temperature"], celsius(), 0.011)
		agree(t, "bme280 pressure", got["pressure"], float64(e.Pressure)/float64(physic.Pascal)/100, 0.005)
		agree(t, "bme280 humidity", got["humidity"], percent(), 0.02)

		answer := []byte{0x1C, 0x73, 0x2A, 0x65, 0xC0, 0x1F}
		aht := &model{mem: map[byte][]byte{0x71: {0x18}, 0xAC: append(answer, crcSensirion.Sum(answer...))}}
		bus.chips[0x38] = func(w, r []byte) error { return aht.tx(w, r) }
		a, err := theirAht20.NewI2C(bus, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := a.Sense(&e); err != nil {
			t.Fatal(err)
		}
		got = ours(t, bus, "aht20", nil)
		agree(t, "aht20 temperature", got["temperature"], celsius(), 1e-6)
		agree(t, "aht20 humidity", got["humidity"], percent(), 1e-4)

		mcp := &model{mem: map[byte][]byte{5: be16(0xDE6C), 6: be16(0x0054), 7: be16(0x0400)}}
		bus.chips[0x18] = mcp.tx
		m, err := theirMcp9808.New(bus, &theirMcp9808.DefaultOpts)
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Sense(&e); err != nil {
			t.Fatal(err)
		}
		agree(t, "mcp9808 temperature", ours(t, bus, "mcp9808", nil)["temperature"], celsius(), 1e-9)

		ina := &model{mem: map[byte][]byte{1: be16(2345), 2: be16(2995 << 3), 3: be16(0), 4: be16(2345)}}
		bus.chips[0x40] = ina.tx
		i, err := theirIna219.New(bus, &theirIna219.Opts{SenseResistor: 100 * physic.MilliOhm})
		if err != nil {
			t.Fatal(err)
		}
		p, err := i.Sense()
		if err != nil {
			t.Fatal(err)
		}
		got = ours(t, bus, "ina219", nil)
		agree(t, "ina219 voltage", got["voltage"], float64(p.Voltage)/float64(physic.Volt), 1e-9)
		agree(t, "ina219 shunt", got["shunt_voltage"], float64(p.Shunt)/float64(physic.MilliVolt), 1e-9)
	})
}
