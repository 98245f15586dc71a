package main

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	periph "periph.io/x/conn/v3/i2c"

	"gateway/adapters/i2c"
	"gateway/adapters/sim"
)

func simulated(t *testing.T) *sim.I2CBus {
	t.Helper()
	return sim.NewI2CBus("/dev/i2c-9", map[uint16]sim.I2CChip{0x76: sim.NewBME280(time.Now), 0x44: sim.NewSHT3x(time.Now)})
}

func TestI2CScanDrawsTheGridAndNamesTheChips(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		if err := scanI2C(t.Context(), &out, simulated(t), i2c.First, i2c.Last, i2c.CommandIDs); err != nil {
			t.Fatal(err)
		}
		want := `     0  1  2  3  4  5  6  7  8  9  a  b  c  d  e  f
00:                         -- -- -- -- -- -- -- --
10: -- -- -- -- -- -- -- -- -- -- -- -- -- -- -- --
20: -- -- -- -- -- -- -- -- -- -- -- -- -- -- -- --
30: -- -- -- -- -- -- -- -- -- -- -- -- -- -- -- --
40: -- -- -- -- 44 -- -- -- -- -- -- -- -- -- -- --
50: -- -- -- -- -- -- -- -- -- -- -- -- -- -- -- --
60: -- -- -- -- -- -- -- -- -- -- -- -- -- -- -- --
70: -- -- -- -- -- -- 76 --

0x44  sht3x, by its id
0x76  bme280, by its id
`
		if out.String() != want {
			t.Errorf("got\n%s\nwant\n%s", &out, want)
		}
		out.Reset()
		if err := scanI2C(t.Context(), &out, simulated(t), 0x44, 0x44, i2c.NoIDs); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(out.String(), "0x44  may be ina219, ina226, sht3x, sht4x") {
			t.Errorf("without ids: %s", &out)
		}
	})
}

// A scan as it is by default writes into no register: SHT3x, which has none, is only guessed at.
func TestI2CScanSendsNoCommandsUnasked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := &writes{I2CBus: simulated(t)}
		var out bytes.Buffer
		if err := scanI2C(t.Context(), &out, bus, i2c.First, i2c.Last, i2c.RegisterIDs); err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"0x44  may be ina219, sht3x", "0x76  bme280, by its id"} {
			if !strings.Contains(out.String(), want) {
				t.Errorf("no %q in\n%s", want, &out)
			}
		}
		if bus.most > 1 {
			t.Errorf("%d bytes were written at once", bus.most)
		}
	})
}

// writes sees how much is written at once.
type writes struct {
	*sim.I2CBus
	most int
}

func (b *writes) Tx(addr uint16, w, r []byte) error {
	b.most = max(b.most, len(w))
	return b.I2CBus.Tx(addr, w, r)
}

func TestI2CScanBehindAMultiplexer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mux := &sim.TCA9548A{Channels: [8]map[uint16]sim.I2CChip{3: {0x76: sim.NewBME280(time.Now)}}}
		bus := sim.NewI2CBus("/dev/i2c-9", map[uint16]sim.I2CChip{0x70: mux})
		// In this order: a channel stays open after its scan.
		for _, c := range []struct{ args, want string }{
			{"9", "0x70  may be a multiplexer: look behind it with --mux 0x70:0\n"},
			{"--mux 0x70:3 9", "0x76  bme280, by its id\n"},
		} {
			args, want := c.args, c.want
			var out bytes.Buffer
			o := i2cFlags{open: func(string) (periph.BusCloser, error) { return bus, nil }}
			c := call{i2cCommand, streams{nil, &out, &out}, nil}
			f := o.flags(c)
			if err := f.Parse(strings.Fields(args)); err != nil {
				t.Fatal(err)
			}
			if err := o.scan(t.Context(), c, f.Args()); err != nil || !strings.HasSuffix(out.String(), want) {
				t.Errorf("%s: %v, want %q in\n%s", args, err, want, &out)
			}
		}
	})
}

func TestI2CScanOfABusThatHangs(t *testing.T) {
	bus := simulated(t)
	bus.Stick(true)
	err := scanI2C(t.Context(), new(bytes.Buffer), bus, i2c.First, i2c.Last, i2c.RegisterIDs)
	if err == nil || !strings.Contains(err.Error(), "held low") {
		t.Error(err)
	}
	err = scanI2C(t.Context(), new(bytes.Buffer), simulated(t), 0x10, 0x20, i2c.RegisterIDs)
	if err == nil || !strings.Contains(err.Error(), "nobody answers") {
		t.Error(err)
	}
}

// read carries out `gateway i2c read` on a simulated bus.
func read(t *testing.T, bus *sim.I2CBus, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	o := i2cFlags{open: func(string) (periph.BusCloser, error) { return bus, nil }}
	c := call{i2cCommand, streams{nil, &out, &out}, args}
	f := o.flags(c)
	if err := f.Parse(args); err != nil {
		t.Fatal(err)
	}
	err := o.read(context.Background(), c, f.Args())
	return out.String(), err
}

func TestI2CReadPrintsTheMeasurement(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out, err := read(t, simulated(t), "--set", "filter=4", "bme280")
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"temperature  18.", " °C\n", "pressure     1013.", " hPa\n", "humidity     5", " %\n"} {
			if !strings.Contains(out, want) {
				t.Errorf("%q is not in\n%s", want, out)
			}
		}
		out, err = read(t, simulated(t), "--count", "3", "sht31")
		if err != nil || strings.Count(out, "temperature") != 3 {
			t.Errorf("%v\n%s", err, out)
		}
	})
}

func TestI2CReadOfAChipThatIsNotThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out, err := read(t, simulated(t), "--address", "0x45", "sht3x")
		if err == nil || !strings.Contains(err.Error(), "no chip at this address") || !strings.Contains(out, "bad: no ack") {
			t.Errorf("%v\n%s", err, out)
		}
		_, err = read(t, simulated(t), "--set", "filter=5", "bme280")
		if err == nil || !strings.Contains(err.Error(), "not one of") {
			t.Error(err)
		}
		_, err = read(t, simulated(t), "--mux", "seventy", "bme280")
		if err == nil || !strings.Contains(err.Error(), "0x70:3") {
			t.Error(err)
		}
	})
}
