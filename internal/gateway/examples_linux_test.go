package gateway

import (
	"bytes"
	"compress/gzip"
	"context"
	"io"
	"log/slog"
	"maps"
	"math"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"periph.io/x/conn/v3/i2c"

	"gateway/adapters/sim"
	"gateway/config"
	"gateway/mqtt"
	"gateway/mqtt/broker"
	"gateway/mqtt/client"
)

// promised finds a message that an example says is published: its topic and its payload.
var promised = regexp.MustCompile(`(?m)^#   (\S+/\S+) ([[{].*|\S+|\S+,\S+ .*)$`)

// varying is what of a message is another one each time.
var varying = []struct{ what, with string }{
	{`"epoch":.*?,"values"`, `"values"`},
	{`"bt":[0-9.e+]+`, `"bt":0`},
	{` [0-9]{19}$`, ` 0`},
}

func constant(message string) string {
	for _, v := range varying {
		message = regexp.MustCompile(v.what).ReplaceAllString(message, v.with)
	}
	return message
}

// Each example, run against simulated devices and a broker, publishes what its comments say.
func TestExamplesPublishWhatTheySay(t *testing.T) {
	t.Run("raspberry-pi", func(t *testing.T) {
		meters := sim.NewModbus()
		float := func(unit byte, address uint16, v float32) {
			bits := math.Float32bits(v)
			meters.Unit(unit).Set(sim.InputRegisters, address, uint16(bits>>16), uint16(bits))
		}
		for unit, v := range map[byte][3]float32{1: {230.5, 1250, 4021.5}, 2: {229.75, 87.5, 310.25}} {
			for i, address := range []uint16{0, 12, 72} {
				float(unit, address, v[i])
			}
			for a := uint16(0); a < 74; a += 2 { // the meter has what lies between, too
				if a != 0 && a != 12 && a != 72 {
					float(unit, a, 0)
				}
			}
		}
		line, scale := pty(t), pty(t)
		served(t, func() { _ = meters.ServeRTU(line) }, func() { line.Close() })
		ctx, cancel := context.WithCancel(t.Context())
		talker := sim.Talker{Line: scale, Interval: 50 * time.Millisecond, Say: func(time.Duration) []byte { return []byte("ST,GS,  +12.340kg\r\n") }}
		served(t, func() { _ = talker.Run(ctx) }, cancel)
		chip := sim.NewBME280(time.Now)
		chip.Temperature, chip.Pressure, chip.Humidity = sim.Wave{Mean: 21.5, Period: 1}, sim.Wave{Mean: 101320, Period: 1}, sim.Wave{Mean: 48, Period: 1}
		runExample(t, "raspberry-pi", map[string]string{
			"/dev/serial/by-id/usb-FTDI_USB-RS485_A10KZP45-if00-port0":       line.Path(),
			"/dev/serial/by-id/usb-FTDI_FT232R_USB_UART_B20LQR56-if00-port0": scale.Path(),
		}, sim.NewI2CBus("header", map[uint16]sim.I2CChip{0x76: chip}))
	})
	t.Run("plants", func(t *testing.T) {
		plc := sim.NewModbus()
		plc.Unit(1).Set(sim.InputRegisters, 100, 712).Set(sim.Coils, 3, 1).Set(sim.HoldingRegisters, 10, 1)
		runExample(t, "plants", map[string]string{"192.168.10.20": listening(t, plc), `wait = "30s"`: `wait = "1s"`, "samples = 10": "samples = 1"}, nil)
	})
	t.Run("minimal", func(t *testing.T) {
		plc := sim.NewModbus()
		plc.Unit(1).Set(sim.InputRegisters, 100, 712)
		runExample(t, "minimal", map[string]string{"192.168.10.20:502": listening(t, plc)}, nil)
	})
}

// served runs f beside the test, and at its end stops it and waits.
func served(t *testing.T, f, stop func()) {
	var active sync.WaitGroup
	active.Go(f)
	t.Cleanup(func() {
		stop()
		active.Wait()
	})
}

func pty(t *testing.T) *sim.PTY {
	p, err := sim.OpenPTY(filepath.Join(t.TempDir(), "tty"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

func listening(t *testing.T, m *sim.Modbus) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served(t, func() { _ = m.ServeTCP(l) }, func() { l.Close() })
	return l.Addr().String()
}

// runExample runs an example with its places replaced, all destinations at one broker, until everything that
// its comments promise has arrived.
func runExample(t *testing.T, name string, places map[string]string, chips *sim.I2CBus) {
	source, err := os.ReadFile(filepath.Join("..", "..", "examples", name+".toml"))
	if err != nil {
		t.Fatal(err)
	}
	missing := map[string]string{} // what to come, by topic and what is constant of its payload
	for _, m := range promised.FindAllStringSubmatch(string(source), -1) {
		missing[m[1]+" "+constant(m[2])] = m[0]
	}
	if len(missing) == 0 {
		t.Fatal("the example says nothing of what it publishes")
	}
	dir, err := os.MkdirTemp("", "s") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "b")
	text := string(source)
	for what, with := range places {
		if !strings.Contains(text, what) {
			t.Fatalf("the example has no %s", what)
		}
		text = strings.ReplaceAll(text, what, with)
	}
	text = regexp.MustCompile(`url = "\S+"`).ReplaceAllString(text, `url = "unix:`+socket+`"`)
	if !strings.Contains(text, "[gateway]") {
		text += "\n[gateway]\n"
	}
	text = strings.Replace(text, "[gateway]\n", "[gateway]\nclock = \"trust\"\ndata = \""+filepath.Join(dir, "data")+"\"\n", 1)
	inside := socket
	if strings.Contains(text, "[[destination]]") {
		inside += "inside"
	}
	text += "\n[broker]\nlisten = [\"unix:" + inside + "\"]\n"
	for _, m := range regexp.MustCompile(`password_file = "(\S+)"`).FindAllStringSubmatch(text, -1) {
		path := filepath.Join(dir, "credentials", m[1])
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("secret\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cfg, problems := config.Parse(name+".toml", text)
	if cfg != nil {
		Check(cfg, filepath.Join(dir, "gateway.toml"))
	}
	if problems.Failed() {
		t.Fatal(problems)
	}

	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	arrived := map[string]string{} // the last message of each topic, for people
	var mu sync.Mutex
	sub, err := client.New(client.Options{URLs: []string{"unix:" + socket}, ClientID: "test", Version: mqtt.V5, Handler: func(m mqtt.Message) {
		mu.Lock()
		defer mu.Unlock()
		payload := unpacked(m.Payload)
		arrived[m.Topic] = payload
		delete(missing, m.Topic+" "+constant(payload))
		if len(missing) == 0 {
			cancel()
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	o := Options{Config: cfg, ConfigFile: filepath.Join(dir, "gateway.toml"), Log: log, Linked: func(ctx context.Context) error {
		_, err := sub.Subscribe(ctx, mqtt.Subscription{Filter: "#", QoS: mqtt.AtLeastOnce})
		return err
	}}
	if chips != nil {
		o.OpenI2C = func(string) (i2c.BusCloser, error) { return chips, nil }
	}
	g, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	var active sync.WaitGroup
	defer active.Wait()
	if inside != socket {
		upstream, err := broker.New(broker.Options{Listen: []broker.Listener{{Network: "unix", Address: socket}}, Logger: log})
		if err != nil {
			t.Fatal(err)
		}
		active.Go(func() { _ = upstream.Run(ctx) })
	}
	active.Go(func() { _ = sub.Run(ctx) })
	if err := g.Run(ctx); err != nil {
		t.Error(err)
	}
	cancel()
	mu.Lock()
	defer mu.Unlock()
	for want := range maps.Values(missing) {
		t.Errorf("did not come: %s", want)
	}
	if len(missing) > 0 {
		t.Errorf("what came: %q", arrived)
	}
}

// unpacked undoes gzip.
func unpacked(payload []byte) string {
	z, err := gzip.NewReader(bytes.NewReader(payload))
	if err != nil {
		return string(payload)
	}
	b, err := io.ReadAll(z)
	if err != nil {
		return err.Error()
	}
	return string(b)
}
