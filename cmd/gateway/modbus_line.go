package main

import (
	"errors"
	"flag"
	"fmt"
	"strings"
	"time"

	gb "github.com/goburrow/modbus"

	"gateway/adapters/hint"
	"gateway/adapters/modbus"
	"gateway/adapters/port"
	"gateway/internal/gateway"
)

// A lineFlags says which line to talk on.
type lineFlags struct {
	port, address, framing, parity string
	bus, config                    string
	configured                     *modbus.Options // of the bus
	baud                           int
	data                           int
	stop                           float64
	unit                           int
	timeout                        time.Duration
}

func (l *lineFlags) add(f *flag.FlagSet) {
	f.StringVar(&l.port, "port", "", "`path` of a serial port")
	f.StringVar(&l.address, "address", "", "network address, `host[:port]`")
	f.StringVar(&l.bus, "bus", "", "`name` of a [[modbus]] bus of the configuration, with its settings of the line")
	f.StringVar(&l.config, "config", defaultConfig, "the configuration `file` that --bus is in")
	f.StringVar(&l.framing, "framing", "", "the `framing`: tcp, rtu, ascii, rtu-over-tcp or udp (default: tcp with an address, rtu with a port)")
	f.IntVar(&l.data, "data-bits", 0, "the `number` of bits of a character, 7 or 8 (default: 8, with ascii 7)")
	f.Float64Var(&l.stop, "stop-bits", 1, "their `number`: 1 or 2")
	f.DurationVar(&l.timeout, "timeout", time.Second, "how long a device may take to answer")
}

func (l *lineFlags) addOne(f *flag.FlagSet) {
	l.add(f)
	f.IntVar(&l.baud, "baud", 9600, "the line's `speed`")
	f.StringVar(&l.parity, "parity", "none", "the `parity`: none, even or odd")
	f.IntVar(&l.unit, "unit", 1, "the device's unit `id`")
}

// find looks the bus up in the configuration, where one is named.
func (l *lineFlags) find(c call) error {
	if l.bus == "" {
		return nil
	}
	if l.port != "" || l.address != "" {
		return usagef("--bus, --port and --address each say which line it is; keep one")
	}
	cfg, err := loadConfig(c, l.config)
	if err != nil {
		return err
	}
	var names []string
	for i := range cfg.Modbus {
		b := &cfg.Modbus[i]
		names = append(names, b.Name)
		if b.Name != l.bus {
			continue
		}
		o, err := gateway.ModbusLine(b)
		if err != nil {
			return err
		}
		l.configured, l.port, l.address, l.baud, l.parity = &o, b.Port, b.Address, b.Baud, b.Parity
		if b.USB != nil {
			l.port = "usb"
		}
		return nil
	}
	return usagef("%s has no Modbus bus %q%s", l.config, l.bus, hint.DidYouMean(l.bus, names))
}

// client returns a client on the line.
func (l *lineFlags) client() (*modbus.Client, error) {
	o, err := l.options()
	if err != nil {
		return nil, err
	}
	if l.unit < 0 || l.unit > 255 {
		return nil, usagef("unit %d: 0 to 255 are possible", l.unit)
	}
	client, err := modbus.NewClient(*o)
	if err != nil {
		return nil, &exitError{exitUsage, err}
	}
	client.Timeout = l.timeout
	return client, nil
}

// options returns what the flags say of the line.
func (l *lineFlags) options() (*modbus.Options, error) {
	if l.configured != nil {
		return l.configured, nil
	}
	o := &modbus.Options{Name: "line"}
	framing := l.framing
	if framing == "" {
		framing = "tcp"
		if l.port != "" {
			framing = "rtu"
		}
	}
	framings := map[string]modbus.Framing{"tcp": modbus.TCP, "rtu": modbus.RTU, "ascii": modbus.ASCII, "rtu-over-tcp": modbus.RTUOverTCP, "udp": modbus.UDP}
	var ok bool
	if o.Framing, ok = framings[framing]; !ok {
		return nil, usagef("framing %q: there are tcp, rtu, ascii, rtu-over-tcp and udp", framing)
	}
	serial := o.Framing == modbus.RTU || o.Framing == modbus.ASCII
	switch {
	case l.port == "" && l.address == "":
		return nil, usagef("which line? --port PATH for a serial one, --address HOST for one on the network, --bus NAME for one of the configuration")
	case l.port != "" && l.address != "":
		return nil, usagef("--port and --address both say which line it is; keep one")
	case serial && l.port == "":
		return nil, usagef("framing %s needs --port", framing)
	case !serial && l.address == "":
		return nil, usagef("framing %s needs --address", framing)
	}
	if serial {
		o.Port = port.Config{Name: l.port, Baud: l.baud, Parity: port.Parity(l.parity), DataBits: l.data, StopBits: l.stop}
		if l.data == 0 && o.Framing == modbus.ASCII {
			o.Port.DataBits = 7
		}
	} else if o.Address = l.address; !strings.Contains(l.address, ":") {
		o.Address += ":502"
	}
	return o, nil
}

// explainLine says what to do about a line that cannot be used.
func explainLine(err error) error {
	switch {
	case errors.Is(err, port.ErrBusy):
		return fmt.Errorf("%w\nIf it is the gateway's service, stop it first: systemctl stop gateway", err)
	case errors.As(err, new(*gb.ModbusError)):
		return explainException(err)
	case errors.Is(err, modbus.ErrTimeout):
		return fmt.Errorf("%w; is the unit id right, and on a serial line the speed, the parity and the order of the two wires?", err)
	}
	return err
}

// explainException says what a device means by an exception [AP 7].
func explainException(err error) error {
	var e *gb.ModbusError
	if !errors.As(err, &e) {
		return err
	}
	meaning := map[byte]string{
		1:  "it does not know the function; for writing there may be another (--function 5, 6, 15 or 16)",
		2:  "it has no such address, or not as many from there on",
		3:  "it does not give as many at once, or not take the value",
		4:  "it failed while it carried the request out",
		5:  "it needs more time",
		6:  "it is busy; try again",
		10: "the gateway in between has no way to it",
		11: "the gateway in between got no answer from it",
	}[e.ExceptionCode]
	if meaning == "" {
		meaning = "its manual says what that means"
	}
	return fmt.Errorf("the device answers function %d with exception %d: %s", e.FunctionCode&0x7f, e.ExceptionCode, meaning)
}
