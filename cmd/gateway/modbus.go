package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	gb "github.com/goburrow/modbus"

	"gateway/adapters"
	"gateway/adapters/decode"
	"gateway/adapters/modbus"
	"gateway/adapters/port"
	"gateway/config"
	"gateway/internal/gateway"
)

var modbusCommand = command{
	name:    "modbus",
	usage:   "scan | read | write | profiles [flags]",
	summary: "Find, read and write Modbus devices by hand, and list the device profiles.",
	run:     runModbus,
}

// modbusCommands are the subcommands of modbus.
var modbusCommands = []command{
	{name: "modbus scan", usage: "--port PATH | --address HOST | --bus NAME [flags]", summary: "Look for devices on a line or at an address, and propose their profiles.", run: runModbusScan},
	{name: "modbus read", usage: "--port PATH | --address HOST | --bus NAME [flags] TABLE FROM [COUNT]", summary: "Read any range and print every sensible meaning of its bytes.", run: runModbusRead},
	{name: "modbus write", usage: "--port PATH | --address HOST | --bus NAME [flags] TABLE AT VALUE", summary: "Write one value, read it back and print it.", run: runModbusWrite},
	{name: "modbus profiles", usage: "[--dir DIR] [NAME]", summary: "List the device profiles, or print what one of them reads.", run: runModbusProfiles},
}

func runModbus(ctx context.Context, c call) error { return c.dispatch(ctx, modbusCommands) }

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
	f.StringVar(&l.framing, "framing", "", "tcp, rtu, ascii, rtu-over-tcp or udp (default: tcp with an address, rtu with a port)")
	f.IntVar(&l.data, "data-bits", 0, "7 or 8 (default: 8, with ascii 7)")
	f.Float64Var(&l.stop, "stop-bits", 1, "1 or 2")
	f.DurationVar(&l.timeout, "timeout", time.Second, "how long a device may take to answer")
}

func (l *lineFlags) addOne(f *flag.FlagSet) {
	l.add(f)
	f.IntVar(&l.baud, "baud", 9600, "speed of the serial line")
	f.StringVar(&l.parity, "parity", "none", "none, even or odd")
	f.IntVar(&l.unit, "unit", 1, "unit id of the device")
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
	if near := config.Nearest(l.bus, names); near != "" {
		return usagef("%s has no Modbus bus %q; did you mean %q?", l.config, l.bus, near)
	}
	return usagef("%s has no Modbus bus %q", l.config, l.bus)
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

// parseWhere reads "holding 0" or "40001" from the arguments, and returns what follows.
func parseWhere(args []string) (modbus.Kind, uint16, []string, error) {
	if len(args) == 0 {
		return 0, 0, nil, usagef("which registers? Say, for instance, holding 0 10 or 40001 10")
	}
	for k := modbus.Coil; k <= modbus.Holding; k++ {
		if args[0] != k.String() {
			continue
		}
		if len(args) < 2 {
			return 0, 0, nil, usagef("which %s? Its address is missing, counted from 0", k.Element())
		}
		n, err := strconv.ParseUint(args[1], 0, 16)
		if err != nil {
			return 0, 0, nil, usagef("address %q: 0 to 65535 are possible", args[1])
		}
		return k, uint16(n), args[2:], nil
	}
	k, n, err := modbus.ParseNotation(args[0])
	if err != nil {
		if near := config.Nearest(args[0], []string{"coil", "discrete", "input", "holding"}); near != "" {
			return 0, 0, nil, usagef("there is no table %q; did you mean %q?", args[0], near)
		}
		return 0, 0, nil, usagef("%q is neither a table (coil, discrete, input, holding) nor an address such as 40001", args[0])
	}
	return k, n, args[1:], nil
}

func runModbusRead(ctx context.Context, c call) error {
	f := c.flags(`
TABLE FROM is coil, discrete, input or holding with an address counted from 0, or the notation 40001.

Example: gateway modbus read --port /dev/ttyUSB0 --unit 1 input 0 10`)
	var l lineFlags
	l.addOne(f)
	lines := f.Bool("toml", false, "print the configuration lines for more than 8 registers, too")
	if err := c.parse(f, 1, 3); err != nil {
		return err
	}
	if err := l.find(c); err != nil {
		return err
	}
	k, from, rest, err := parseWhere(f.Args())
	if err != nil {
		return err
	}
	count := 1
	if len(rest) > 1 {
		return usagef("unexpected argument %q", rest[1])
	}
	if len(rest) == 1 {
		if count, err = strconv.Atoi(rest[0]); err != nil || count < 1 || int(from)+count > 65536 {
			return usagef("count %q: at least 1, and not beyond address 65535", rest[0])
		}
	}
	client, err := l.client()
	if err != nil {
		return err
	}
	defer client.Close()
	data, missing, err := readRange(ctx, client, byte(l.unit), k, from, count)
	if err != nil {
		return explainLine(err)
	}
	printRange(c.out, k, from, data, *lines)
	if missing != nil {
		fmt.Fprintf(c.err, "Some are missing: %v\n", explainException(missing))
	}
	return nil
}

// readRange reads a range of any length, in as many requests as it takes. What the device refuses is
// nil among the elements; missing is why. Where it refuses all of them, that is the error.
func readRange(ctx context.Context, client *modbus.Client, unit byte, k modbus.Kind, from uint16, count int) (all [][]byte, missing, err error) {
	step := 120
	if k.Bits() {
		step = 1920
	}
	var read func(at uint16, count int) error
	read = func(at uint16, count int) error {
		b, err := client.Read(ctx, unit, k, at, count)
		var e *gb.ModbusError
		switch {
		case errors.As(err, &e) && e.ExceptionCode >= 2 && e.ExceptionCode <= 4:
			if missing = err; count == 1 {
				all = append(all, nil)
				return nil
			}
			if err := read(at, count/2); err != nil {
				return err
			}
			return read(at+uint16(count/2), count-count/2)
		case err != nil:
			return err
		}
		for i := range count {
			if k.Bits() {
				all = append(all, []byte{b[i/8] >> (i % 8) & 1})
			} else {
				all = append(all, slices.Clone(b[2*i:2*i+2]))
			}
		}
		return nil
	}
	for done := 0; done < count; done += step {
		if err := read(from+uint16(done), min(step, count-done)); err != nil {
			return nil, nil, err
		}
	}
	if !slices.ContainsFunc(all, func(b []byte) bool { return b != nil }) {
		return nil, nil, missing
	}
	return all, missing, nil
}

func runModbusWrite(ctx context.Context, c call) error {
	f := c.flags(`
TABLE AT is coil or holding with an address counted from 0, or the notation 40001. On a serial line
unit 0 is all devices at once; nobody answers then, and nothing is read back.

Example: gateway modbus write --port /dev/ttyUSB0 --unit 3 coil 0 on`)
	var l lineFlags
	l.addOne(f)
	typ := f.String("type", "", "type of the value (default: bool for coils, uint16 for registers)")
	order := f.String("order", "ABCD", "byte order")
	scale := f.Float64("scale", 1, "what the register's number is multiplied by")
	function := f.Int("function", 0, "function `code` that writes: 5, 6, 15, 16, 22 or 23 (default: by type)")
	if err := c.parse(f, 2, 3); err != nil {
		return err
	}
	if err := l.find(c); err != nil {
		return err
	}
	k, at, rest, err := parseWhere(f.Args())
	if err != nil {
		return err
	}
	if len(rest) != 1 {
		return usagef("one value is written, %d are given", len(rest))
	}
	p, err := writePoint(k, at, *typ, *order, *scale, rest[0])
	if err != nil {
		return &exitError{exitUsage, trimmed(err)}
	}
	p.Function = byte(*function)
	client, err := l.client()
	if err != nil {
		return err
	}
	defer client.Close()
	v, err := client.Write(ctx, byte(l.unit), p, adapters.StringValue(rest[0]))
	if err != nil {
		return explainLine(err)
	}
	fmt.Fprintf(c.out, "%s %d (%s) of unit %d: %v\n", k, at, k.Notation(at), l.unit, v)
	return nil
}

// writePoint makes the point that is written.
func writePoint(k modbus.Kind, at uint16, typ, order string, scale float64, value string) (modbus.Point, error) {
	p := modbus.Point{Kind: k, Address: at, Writable: true}
	if typ == "" {
		if typ = "uint16"; k.Bits() {
			typ = "bool"
		} else if strings.HasPrefix(value, "-") {
			typ = "int16"
		}
	}
	t, err := decode.ParseType(typ)
	if err != nil {
		return p, err
	}
	if t.Text() {
		t.Bytes = len(value)
	}
	if !k.Bits() {
		if t, err = t.InRegisters(); err != nil {
			return p, err
		}
	}
	spec := decode.Spec{Type: t, Scale: scale}
	if spec.Order, err = decode.ParseOrder(order); err != nil {
		return p, err
	}
	if p.Field, err = decode.New(spec); err != nil {
		return p, err
	}
	// Before anything is opened, the value is known to fit.
	if err := p.Field.Encode(make([]byte, p.Field.Size()), adapters.StringValue(value)); err != nil {
		return p, err
	}
	return p, p.Check()
}

// trimmed takes the library's prefix off an error about an argument.
func trimmed(err error) error {
	return errors.New(strings.TrimPrefix(strings.TrimPrefix(err.Error(), "decode: "), "modbus: "))
}

func runModbusProfiles(_ context.Context, c call) error {
	f := c.flags(`
A profile of your own is a TOML file in the directory that [gateway] profiles names; it goes before a
built-in one of the same name.`)
	dir := f.String("dir", "/etc/gateway/profiles", "`directory` of your own profiles")
	if err := c.parse(f, 0, 1); err != nil {
		return err
	}
	if _, err := os.Stat(*dir); err != nil {
		*dir = ""
	}
	if f.NArg() == 1 {
		return printProfile(c, *dir, f.Arg(0))
	}
	for _, name := range config.Profiles(*dir) {
		p, err := config.LoadProfile(*dir, name)
		if err != nil {
			fmt.Fprintf(c.err, "%v\n", err)
			continue
		}
		fmt.Fprintf(c.out, "%-26s %s\n", name, p.Title)
	}
	return nil
}
