package demo

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"periph.io/x/conn/v3/i2c"

	"gateway/adapters/decode"
	"gateway/adapters/sim"
)

// devices are the simulated ones, each behind the transport that a real one has: a Modbus TCP server
// on a loopback port, a Modbus RTU meter and a weather mast behind pseudo-terminals, two chips behind
// periph's bus interface.
type devices struct {
	plc    net.Listener
	meter  *sim.PTY // nil where the system has no pseudo-terminals of ours
	mast   *sim.PTY
	chips  *sim.I2CBus
	active sync.WaitGroup
}

// openDevices brings the devices to life; dir is where the serial ports appear.
func openDevices(dir string) (_ *devices, err error) {
	d := &devices{}
	defer func() {
		if err != nil {
			d.close()
		}
	}()
	if d.plc, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		return nil, fmt.Errorf("the simulated PLC: %w", err)
	}
	if d.meter, err = sim.OpenPTY(filepath.Join(dir, "ttyMeter")); err != nil && !errors.Is(err, errors.ErrUnsupported) {
		return nil, fmt.Errorf("the simulated meter: %w", err)
	}
	if d.mast, err = sim.OpenPTY(filepath.Join(dir, "ttyMast")); err != nil && !errors.Is(err, errors.ErrUnsupported) {
		return nil, fmt.Errorf("the simulated weather mast: %w", err)
	}
	d.chips = sim.NewI2CBus("demo", map[uint16]sim.I2CChip{
		0x76: sim.NewBME280(time.Now),
		0x44: sim.NewSHT3x(time.Now),
	})

	boiler := sim.NewModbus()
	err = errors.Join(
		moving(boiler.Unit(1), 100, "int16", 0.1, around(71, 6, 47*time.Second)),
		moving(boiler.Unit(1), 101, "int16", 0.1, around(54, 4, 61*time.Second)),
		moving(boiler.Unit(1), 110, "uint32", 1, func(t time.Duration) float64 { return 48210 + t.Hours() }))
	if err != nil {
		return nil, err
	}
	boiler.Unit(1).Set(sim.Coils, 3, 1)
	d.active.Go(func() { _ = boiler.ServeTCP(d.plc) }) // ends when close closes the listener

	if d.meter != nil {
		meter := sim.NewModbus()
		err = errors.Join(
			moving(meter.Unit(7), 0, "float32", 1, around(231.4, 1.8, 13*time.Second)),
			moving(meter.Unit(7), 12, "float32", 1, around(1840, 620, 29*time.Second)),
			moving(meter.Unit(7), 72, "float32", 1, func(t time.Duration) float64 { return 15360.2 + t.Seconds()/1800 }))
		if err != nil {
			return nil, err
		}
		d.active.Go(func() { _ = meter.ServeRTU(d.meter) })
	}
	return d, nil
}

// run lets the weather mast talk until ctx ends.
func (d *devices) run(ctx context.Context) {
	if d.mast == nil {
		return
	}
	begun, tick := time.Now(), time.NewTicker(time.Second)
	defer tick.Stop()
	speed, direction := around(5.2, 3.1, 19*time.Second), around(245, 40, 53*time.Second)
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			t := now.Sub(begun)
			_, _ = fmt.Fprintf(d.mast, "WIND %.1f m/s %03.0f\r\n", speed(t), direction(t)) // nobody listens yet: lost, as on a real line
		}
	}
}

func (d *devices) close() {
	if d.plc != nil {
		d.plc.Close()
	}
	for _, p := range []*sim.PTY{d.meter, d.mast} {
		if p != nil {
			p.Close()
		}
	}
	d.active.Wait()
}

// openI2C is what the adapter opens instead of /dev/i2c-1.
func (d *devices) openI2C(string) (i2c.BusCloser, error) { return d.chips, nil }

// moving lets input registers follow a function of time.
func moving(u *sim.ModbusUnit, address uint16, kind string, scale float64, value func(time.Duration) float64) error {
	t, err := decode.ParseType(kind)
	if err != nil {
		return err
	}
	field, err := decode.New(decode.Spec{Type: t, Scale: scale})
	if err != nil {
		return err
	}
	u.Move(sim.InputRegisters, address, field, value)
	return nil
}

// around swings about a middle.
func around(middle, swing float64, period time.Duration) func(time.Duration) float64 {
	return func(t time.Duration) float64 {
		x := 2 * math.Pi * t.Seconds() / period.Seconds()
		return middle + swing*(0.8*math.Sin(x)+0.2*math.Sin(5.3*x))
	}
}

// config is the file that a user with such devices would write.
func (d *devices) config(data, local, upstream string) string {
	var b strings.Builder
	fmt.Fprintf(&b, `# The configuration of the demo: what you would write for devices like these.

[gateway]
id = "demo"
data = %q
clock = "trust"                   # this machine's clock is right, whatever keeps it

[broker]                          # the local broker, inside the gateway
listen = [%q]
persistence = false               # the demo keeps nothing

[[destination]]                   # the broker upstream
name = "upstream"
url = "mqtt://%s"

[[modbus]]                        # a PLC over Modbus TCP
name = "plc"
address = %q

  [[modbus.device]]
  name = "boiler"
  unit = 1
  interval = "1s"
  points = [
    { name = "supply", input = 100, type = "int16", scale = 0.1, unit = "°C" },
    { name = "return", input = 101, type = "int16", scale = 0.1, unit = "°C" },
    { name = "hours", input = 110, type = "uint32", unit = "h" },
    { name = "pump", coil = 3 },
  ]
`, data, local, upstream, d.plc.Addr().String())
	if d.meter != nil {
		fmt.Fprintf(&b, `
[[modbus]]                        # a meter over Modbus RTU, on a USB RS-485 stick
name = "rs485"
port = %q
baud = 9600
parity = "even"

  [[modbus.device]]
  name = "meter"
  unit = 7
  interval = "500ms"
  points = [
    { name = "voltage", input = 0, type = "float32", unit = "V", decimals = 1 },
    { name = "power", input = 12, type = "float32", unit = "W", decimals = 0 },
    { name = "energy", input = 72, type = "float32", unit = "kWh", decimals = 2 },
  ]
`, d.meter.Path())
	}
	if d.mast != nil {
		fmt.Fprintf(&b, `
[[serial]]                        # a weather mast that talks by itself
name = "mast-port"
port = %q
frame = { line = '\r\n' }

  [[serial.device]]
  name = "mast"
  match = '^WIND (?P<speed>[0-9.]+) m/s (?P<direction>[0-9]+)$'
  timeout = "5s"
  points = [
    { name = "speed", unit = "m/s", decimals = 1 },
    { name = "direction", unit = "°", decimals = 0 },
  ]
`, d.mast.Path())
	}
	b.WriteString(`
[[i2c]]                           # two chips on the Pi's header
name = "header"
bus = 1

  [[i2c.device]]
  name = "roof"
  chip = "bme280"
  address = 0x76
  interval = "2s"

  [[i2c.device]]
  name = "cellar"
  chip = "sht3x"
  address = 0x44
  interval = "2s"
`)
	return b.String()
}

// tempDir makes the directory of a demo that was given none.
func tempDir() (dir string, remove func(), err error) {
	dir, err = os.MkdirTemp("", "gateway-demo-")
	return dir, func() { os.RemoveAll(dir) }, err
}
