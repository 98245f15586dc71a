//go:build linux

package gateway

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gateway/adapters"
	"gateway/adapters/sim"
	"gateway/config"
)

// run runs the lines of a configuration until enough has said so, and returns what they gave.
func runSerial(t *testing.T, src string, enough func(seen map[string]string) bool) map[string]string {
	t.Helper()
	cfg, problems := config.Parse("gateway.toml", src)
	if !problems.Failed() {
		Check(cfg, "gateway.toml")
	}
	if problems.String() != "" {
		t.Fatal(problems)
	}
	samples := make(chan adapters.Sample, 1000)
	start := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	done := make(chan error)
	for i := range cfg.Serial {
		b, err := newSerial(&cfg.Serial[i], busEnv{
			Sink:  adapters.SinkFunc(func(s adapters.Sample) bool { samples <- s; return true }),
			Clock: func() adapters.Instant { return adapters.Instant(time.Since(start)) },
			Log:   slog.New(slog.DiscardHandler),
		})
		if err != nil {
			t.Fatal(err)
		}
		go func() { done <- b.Run(ctx) }()
	}
	seen := map[string]string{}
	for !enough(seen) {
		select {
		case s := <-samples:
			for _, r := range s.Readings {
				key := s.Schema.Device + "." + s.Schema.Points[r.Point].Name
				seen[key] = r.Value.String()
				if r.Quality != adapters.Good {
					seen[key] = "(" + string(r.Reason) + ")"
				}
			}
		case <-ctx.Done():
			t.Fatalf("only %v came", seen)
		}
	}
	cancel()
	for range cfg.Serial {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	return seen
}

// simulated runs a simulated device on a line of its own and returns the line.
func simulated(t *testing.T, make func(line io.ReadWriter) interface{ Run(context.Context) error }) *sim.PTY {
	t.Helper()
	line, err := sim.OpenPTY(filepath.Join(t.TempDir(), "tty"))
	if err != nil {
		t.Fatal(err)
	}
	done := make(line)
	ctx, cancel := context.WithCancel(context.Background())
	ended := runAside(func() error { return done.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		line.Close()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return line
}

func runAside(f func() error) <-chan error {
	done := make(chan error, 1)
	go func() { done <- f() }()
	return done
}

func TestSerialFromTheFileToSamples(t *testing.T) {
	type runner = interface{ Run(context.Context) error }
	scale := simulated(t, func(line io.ReadWriter) runner { return sim.NewScale(line) })
	gps := simulated(t, func(line io.ReadWriter) runner { return sim.NewGPS(line) })
	meter := simulated(t, func(line io.ReadWriter) runner { return sim.NewP1Meter(line) })
	soil := simulated(t, func(line io.ReadWriter) runner { return sim.NewSDI12(line, '3') })
	seen := runSerial(t, fmt.Sprintf(`
[[serial]]
name = "scale-port"
port = %q
frame = { line = "\r\n" }

  [[serial.device]]
  name = "scale"
  match = '^ST,GS,\s*(?P<weight>[-+0-9. ]+)kg'

[[serial]]
name = "gps-port"
port = %q

  [[serial.device]]
  name = "gps"
  format = "nmea"
  points = [
    { name = "latitude", field = "GGA.latitude", unit = "deg" },
    { name = "altitude", field = "GGA.altitude", unit = "m", min = 0, max = 40 },
    { name = "speed", field = "RMC.speed", unit = "km/h", scale = 1.852 },
  ]

[[serial]]
name = "meter-port"
port = %q
baud = 115200

  [[serial.device]]
  name = "meter"
  format = "obis"
  points = [
    { name = "energy", field = "1-0:1.8.1", unit = "kWh" },
    { name = "gas", field = "0-1:24.2.1", unit = "m3" },
  ]

[[serial]]
name = "soil-bus"
port = %q
baud = 1200
data_bits = 7
parity = "even"

  [[serial.device]]
  name = "soil"
  address = "3"
  interval = "10s"

    [[serial.device.message]]
    send = "{address}M!"
    match = '^{address}\d{4}$'
    wait = "1100ms"

    [[serial.device.message]]
    send = "{address}D0!"
    match = '^{address}(?P<moisture>[+-][0-9.]+)(?P<temperature>[+-][0-9.]+)$'
`, scale.Path(), gps.Path(), meter.Path(), soil.Path()), func(seen map[string]string) bool { return len(seen) == 8 })
	for key, want := range map[string]string{
		"scale.weight": "0", "gps.altitude": "(out of range)", "gps.speed": "56.486", "meter.energy": "1234.5",
		"meter.gas": "42.123", "soil.moisture": "23.4", "soil.temperature": "12.5",
	} {
		if got := seen[key]; !strings.HasPrefix(got, want) {
			t.Errorf("%s is %s, want %s", key, got, want)
		}
	}
}

func TestWhatIsWrongWithASerialTableIsSaidWithItsLine(t *testing.T) {
	cfg, problems := config.Parse("gateway.toml", `
[[serial]]
name = "a"
port = "/dev/null"
parity = "strange"

  [[serial.device]]
  name = "scale"
  match = '^(?P<weight>[0-9.]+)(?P<unit>\w+)$'
  points = [
    { name = "weight" },
  ]

  [[serial.device]]
  name = "broken"
  match = '('

  [[serial.device]]
  name = "wind"
  format = "nmae"
  points = [{ name = "speed" }]

  [[serial.device]]
  name = "gps"
  format = "nmea"
  points = [
    { name = "lat", field = "GGA.latitude" },
    { name = "speed", field = "RMC.sped" },
    { name = "time", field = "ZDA.time", type = "txt" },
  ]

  [[serial.device]]
  name = "nothing"
  points = [{ name = "x" }]

[[serial]]
name = "b"
port = "/dev/null"
frame = { fixed = 8 }

  [[serial.device]]
  name = "bin"
  format = "binary"
  points = [
    { name = "x", type = "uint61x", at = 1 },
  ]

  [[serial.device]]
  name = "lost"
  format = "binary"
  points = [{ name = "x", type = "uint16", at = 1 }]

[[serial]]
name = "c"
port = "/dev/null"
frame = { line = "\n", end = "x", checksum = "crc17" }
  [[serial.device]]
  name = "c"
  match = '(?P<x>.)'

[[serial]]
name = "d"
port = "/dev/null"
frame = { line = "\n", checksum = "crc16-modbuss" }
  [[serial.device]]
  name = "d"
  match = '(?P<x>.)'
`)
	if problems.Failed() {
		t.Fatal(problems)
	}
	Check(cfg, "gateway.toml")
	text := problems.String()
	for _, want := range []string{
		`gateway.toml:5: serial "a": parity "strange": none, odd, even, mark or space`,
		`gateway.toml:9: serial "a", device "scale": no point takes the group "unit"; add one, or make it (?:...)`,
		"gateway.toml:16: serial \"a\", device \"broken\": error parsing regexp: missing closing ): `(`",
		`gateway.toml:20: serial "a", device "wind": format "nmae" is unknown; did you mean "nmea"?`,
		`gateway.toml:28: serial "a", device "gps", point "speed": "RMC.sped": did you mean RMC.speed?`,
		`gateway.toml:29: serial "a", device "gps", point "time": type "txt" is unknown; did you mean "text"?`,
		`gateway.toml:32: serial "a", device "nothing": does not say what its messages look like`,
		`gateway.toml:45: serial "b", device "bin", point "x": no type "uint61x"`,
		`gateway.toml:56: serial "c", frame: say how frames are told apart by exactly one of`,
		`gateway.toml:64: serial "d", frame: checksum "crc16-modbuss" is unknown; did you mean "crc16-modbus"?`,
		`gateway.toml:36: serial "b": device "lost" talks by itself: frames of a fixed`,
		`is at the same place`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not said", want)
		}
	}
	if t.Failed() {
		t.Log(text)
	}
}
