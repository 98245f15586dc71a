package gateway

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"periph.io/x/conn/v3/i2c"

	"gateway/adapters"
	"gateway/adapters/sim"
	"gateway/config"
)

// A chip of the catalogue, and the same kind of chip described by its registers alone.
const i2cConfig = `
[[i2c]]
name = "header"
bus = 1

  [[i2c.device]]
  name = "roof"
  chip = "bme280"
  address = 0x76
  interval = "1s"
  points = [
    { name = "temperature", offset = -0.5, labels = { place = "roof" } },
    { name = "sea_level", from = "pressure", offset = 12.5, min = 900, max = 1100, interval = "5s" },
  ]

  [[i2c.device]]
  name = "cellar"
  chip = "registers"
  address = 0x44
  interval = "2s"
  init = [{ write = [0x30, 0xA2], wait = "2ms" }]
  read = [{ write = [0x24, 0x00], wait = "16ms", bytes = 6, crc = { poly = 0x31, init = 0xFF, every = 2 } }]
  points = [
    { name = "temperature", byte = 0, type = "uint16", scale = 0.0026703288, offset = -45, unit = "°C", decimals = 2 },
    { name = "humidity", byte = 2, type = "uint16", scale = 0.0015259022, unit = "%" },
    { name = "wet", byte = 2, type = "uint16", mask = 0x8000, values = { 0 = "dry", 1 = "wet" } },
  ]
`

func TestI2CFromTheFileToSamples(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg, problems := config.Parse("gateway.toml", i2cConfig)
		if problems.Failed() {
			t.Fatal(problems)
		}
		Check(cfg, "gateway.toml")
		if problems.Failed() {
			t.Fatal(problems)
		}
		roof, cellar := sim.NewBME280(time.Now), sim.NewSHT3x(time.Now)
		port := sim.NewI2CBus("sim", map[uint16]sim.I2CChip{0x76: roof, 0x44: cellar})
		var samples []adapters.Sample
		start := time.Now()
		b, err := newI2C(&cfg.I2C[0], busEnv{
			Sink:  adapters.SinkFunc(func(s adapters.Sample) bool { samples = append(samples, s); return true }),
			Clock: func() adapters.Instant { return adapters.Instant(time.Since(start)) },
			Log:   slog.New(slog.DiscardHandler),
			OpenI2C: func(device string) (i2c.BusCloser, error) {
				if device != "/dev/i2c-1" {
					t.Errorf("opened %q", device)
				}
				return port, nil
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 9500*time.Millisecond)
		defer cancel()
		if err := b.Run(ctx); err != nil {
			t.Fatal(err)
		}
		count := map[string]int{}
		for _, s := range samples {
			count[s.Schema.Device] += len(s.Readings)
			at := time.Duration(s.Time)
			want := []float64{roof.Temperature.At(at) - 0.5, roof.Pressure.At(at)/100 + 12.5}
			if s.Schema.Device == "cellar" {
				want = []float64{cellar.Temperature.At(at), cellar.Humidity.At(at)}
			}
			for i, w := range want {
				if i >= len(s.Readings) {
					continue
				}
				if got, _ := s.Readings[i].Value.Number(); got-w > 0.05 || w-got > 0.05 {
					t.Errorf("%s %s: %v, want %v", s.Schema.Device, s.Schema.Points[i].Name, s.Readings[i], w)
				}
			}
			if s.Schema.Device == "cellar" && s.Readings[2].Value != adapters.StringValue("wet") {
				t.Errorf("%v", s.Readings[2])
			}
		}
		if count["roof"] != 10+2 || count["cellar"] != 5*3 {
			t.Errorf("readings: %v", count)
		}
		if l := samples[0].Schema.Points[0].Labels; len(l) != 1 || l[0] != (adapters.Label{Name: "place", Value: "roof"}) {
			t.Errorf("labels %v", l)
		}
	})
}

func TestI2CMistakesAreReportedWithTheirLine(t *testing.T) {
	for _, c := range []struct{ device, want string }{
		{`chip = "bme208"`, `:6: i2c "header", device "x": unknown chip "bme208"; did you mean "bme280"?`},
		{"chip = 'bme280'\naddress = 0x40", `:7: i2c "header", device "x": address 0x40: bme280 can have 0x76, 0x77`},
		{"chip = 'bme280'\npoints = [{ name = 'presure' }]", `:7: i2c "header", device "x", point "presure": bme280 has no "presure"; did you mean "pressure"?`},
		{"chip = 'bme280'\nsettings = { filter = 3 }", `:7: i2c "header", device "x": setting "filter": 3 is not one of 0, 2, 4, 8 and 16`},
		{"chip = 'bme280'\nmux = { address = 0x60, channel = 1 }", `:7: i2c "header", device "x": multiplexer address 0x60`},
		{"chip = 'bme280'\ninterval = '1ms'", `:7: i2c "header", device "x": interval 1ms: must be at least 5ms`},
		{"chip = 'bme280'\nread = [{ bytes = 2 }]", `init and read are for chip = "registers"`},
		{"chip = 'bme280'\npoints = [{ name = 'pressure', type = 'uint16' }]", `type is for chip = "registers"`},
		{"chip = 'registers'\npoints = [{ name = 'a', type = 'uint16' }]", "nothing is read"},
		{"chip = 'registers'\naddress = 0x44\nread = [{ write = [0], bytes = 2 }]", "there is no point"},
		{"chip = 'registers'\naddress = 0x44\nread = [{ write = [0], bytes = 2 }]\npoints = [{ name = 'a', type = 'uint16', byte = 1 }]", `:9: i2c "header", device "x", point "a": bytes 1 to 2: the answer has 2`},
		{"chip = 'registers'\naddress = 0x44\nread = [{ write = [0], bytes = 2 }]\npoints = [{ name = 'a', type = 'unit16' }]", `did you mean "uint16"`},
		{"chip = 'registers'\naddress = 0x44\nread = [{ write = [0], bytes = 2 }]\npoints = [{ name = 'a', type = 'uint16', mask = 0x0505 }]", `mask 0x505 is not one run of ones`},
		{"chip = 'registers'\naddress = 0x44\nread = [{ write = [0], bytes = 2, crc = {} }]\npoints = [{ name = 'a', type = 'uint16' }]", `:8: i2c "header", device "x": read step 1: 2 bytes are no whole number of groups`},
		{"chip = 'registers'\naddress = 0x78\nread = [{ write = [0], bytes = 2 }]\npoints = [{ name = 'a', type = 'uint16' }]", `:7: i2c "header", device "x": address 0x78: devices have 0x03 to 0x77`},
		{"chip = 'registers'\nread = [{ write = [0], bytes = 2 }]\npoints = [{ name = 'a', type = 'uint16' }]", `no address; add address = 0x44`},
	} {
		src := "[[i2c]]\nname = \"header\"\nbus = 1\n[[i2c.device]]\nname = \"x\"\n" + c.device + "\n"
		cfg, problems := config.Parse("gateway.toml", src)
		if !problems.Failed() {
			Check(cfg, "gateway.toml")
		}
		if !problems.Failed() || !strings.Contains(problems.String(), c.want) {
			t.Errorf("%s:\ngot  %s\nwant %s", c.device, problems, c.want)
		}
	}
}

func TestTheBusIsNamedInOneWay(t *testing.T) {
	for replaced, want := range map[string]string{
		"":                                   ":2: i2c \"header\": which bus? Add bus = 1",
		"bus = -1":                           ":4: i2c \"header\": bus -1: it is the N",
		"bus = 1\nadapter = 'CP2112'":        "keep one",
		"adapter = 'there is no such thing'": ":4: warning: i2c \"header\": i2c: no adapter",
	} {
		cfg, problems := config.Parse("gateway.toml", strings.Replace(i2cConfig, "bus = 1", replaced, 1))
		if !problems.Failed() {
			Check(cfg, "gateway.toml")
		}
		if !strings.Contains(problems.String(), want) {
			t.Errorf("%s: %s, want %q", replaced, problems, want)
		}
	}
}

func TestAnAbsentI2CBusIsAWarning(t *testing.T) {
	cfg, problems := config.Parse("gateway.toml", strings.ReplaceAll(i2cConfig, "bus = 1", "bus = 250"))
	Check(cfg, "gateway.toml")
	if problems.Failed() || !strings.Contains(problems.String(), `:4: warning: i2c "header": /dev/i2c-250 is not there today`) {
		t.Errorf("%s", problems)
	}
}
