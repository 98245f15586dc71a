package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	periph "periph.io/x/conn/v3/i2c"

	"gateway/adapters"
	"gateway/adapters/hint"
	"gateway/adapters/i2c"
	"gateway/internal/clock"
	"gateway/internal/gateway"
)

var i2cCommand = command{
	name:    "i2c",
	usage:   "scan [BUS] | read CHIP | read --config FILE DEVICE | chips",
	summary: "Find the chips of an I2C bus, read one, list those that are known.",
	run:     runI2C,
}

const i2cNotes = `
scan shows who answers on a bus, in the grid that i2cdetect's users know, and what it may be: by its
id where the chip has one, else by its address. UU is an address that a driver of the kernel has.
Without BUS, which is a number or a path, it lists the buses of this machine.

read takes measurements of one chip, named as in the configuration, or of a device of a
configuration. Do not use it while the service reads the same chip.

Exit status: 0 found or read; 1 nobody answered, or not with a value.`

func runI2C(ctx context.Context, c call) error {
	var o i2cFlags
	f := o.flags(c)
	// Flags may stand before and after the names.
	var words []string
	for rest := c.args; ; {
		if err := parseFlags(f, rest); err != nil {
			return err
		}
		if f.NArg() == 0 {
			break
		}
		words, rest = append(words, f.Arg(0)), f.Args()[1:]
	}
	if len(words) == 0 {
		return usagef("what? Name one of scan, read and chips")
	}
	switch words[0] {
	case "scan":
		return o.scan(ctx, c, words[1:])
	case "read":
		return o.read(ctx, c, words[1:])
	case "chips":
		return printChips(c.out)
	}
	return usagef("there is no %q%s", words[0], hint.OneOf(words[0], []string{"scan", "read", "chips"}))
}

// i2cFlags are the flags of all three.
type i2cFlags struct {
	bus, mux, config string
	address          uint
	first, last      uint
	ids              string
	count            int
	every, timeout   time.Duration
	settings         i2cSettings

	open func(path string) (periph.BusCloser, error) // a seam for the tests
}

func (o *i2cFlags) flags(c call) *flag.FlagSet {
	o.settings = i2cSettings{}
	if o.open == nil {
		o.open = func(path string) (periph.BusCloser, error) { return i2c.OpenLinux(path, 0) }
	}
	f := c.flags(i2cNotes)
	f.StringVar(&o.bus, "bus", "1", "read: the `bus`, a number or a path")
	f.StringVar(&o.mux, "mux", "", "look behind a multiplexer: its `address:channel`, such as 0x70:3")
	f.StringVar(&o.config, "config", "", "read: the configuration `file` that has the device")
	f.UintVar(&o.address, "address", 0, "read: the chip's `address`, where it is not the usual one")
	f.UintVar(&o.first, "first", i2c.First, "scan: the first `address`")
	f.UintVar(&o.last, "last", i2c.Last, "scan: the last `address`")
	f.StringVar(&o.ids, "ids", "registers", "scan: how chips are told: \"no\", by their id \"registers\", or by \"commands\" too, which\nanother chip at the same address might take for a write")
	f.IntVar(&o.count, "count", 1, "read: how many measurements")
	f.DurationVar(&o.every, "every", time.Second, "read: a measurement each")
	f.DurationVar(&o.timeout, "timeout", 30*time.Second, "read: how long to wait for a chip that is not ready")
	f.Var(o.settings, "set", "read: a `name=value` of the chip's settings; may be repeated")
	return f
}

// i2cSettings are settings as words of the command line.
type i2cSettings map[string]any

func (s i2cSettings) String() string { return "" }

func (s i2cSettings) Set(text string) error {
	name, value, ok := strings.Cut(text, "=")
	if !ok {
		return fmt.Errorf("%q is not name=value", text)
	}
	if n, err := strconv.ParseFloat(value, 64); err == nil {
		s[name] = n
	} else if b, err := strconv.ParseBool(value); err == nil {
		s[name] = b
	} else {
		s[name] = value
	}
	return nil
}

// i2cPath returns the path of a bus that was named by its number or its path.
func i2cPath(bus string) string {
	if _, err := strconv.Atoi(bus); err == nil {
		return "/dev/i2c-" + bus
	}
	return bus
}

// channel returns the multiplexer channel that was asked for, or nil.
func (o *i2cFlags) channel() (*i2c.Mux, error) {
	if o.mux == "" {
		return nil, nil
	}
	address, channel, _ := strings.Cut(o.mux, ":")
	a, err := strconv.ParseUint(address, 0, 8)
	n, err2 := strconv.Atoi(channel)
	if err != nil || err2 != nil {
		return nil, usagef("--mux %s: must be address:channel, such as 0x70:3", o.mux)
	}
	return &i2c.Mux{Address: uint16(a), Channel: n}, nil
}

func (o *i2cFlags) scan(ctx context.Context, c call, words []string) error {
	if len(words) > 1 {
		return usagef("unexpected argument %q", words[1])
	}
	if o.first > o.last || o.last > 0x7F {
		return usagef("addresses %#x to %#x: must be within 0x00 to 0x7f", o.first, o.last)
	}
	ids, ok := map[string]i2c.IDs{"no": i2c.NoIDs, "registers": i2c.RegisterIDs, "commands": i2c.CommandIDs}[o.ids]
	if !ok {
		return usagef("--ids %s: must be no, registers or commands", o.ids)
	}
	if len(words) == 0 {
		return listBuses(c.out)
	}
	mux, err := o.channel()
	if err != nil {
		return err
	}
	path := i2cPath(words[0])
	bus, err := o.open(path)
	if err != nil {
		return err
	}
	defer bus.Close()
	if mux != nil {
		if err := mux.Choose(bus); err != nil {
			return err
		}
	}
	title := path
	if name := i2c.AdapterName(path); name != "" {
		title += " (" + name + ")"
	}
	fmt.Fprintln(c.out, title)
	return scanI2C(ctx, c.out, bus, uint16(o.first), uint16(o.last), ids)
}

func listBuses(w io.Writer) error {
	buses := i2c.Buses()
	if len(buses) == 0 {
		return errors.New("there is no I2C bus: enable I2C (Raspberry Pi: raspi-config, or dtparam=i2c_arm=on in config.txt) and load the module i2c-dev")
	}
	for _, path := range buses {
		fmt.Fprintf(w, "%-3s %s  %s\n", strings.TrimPrefix(filepath.Base(path), "i2c-"), path, i2c.AdapterName(path))
	}
	fmt.Fprintln(w, "\nScan one with: gateway i2c scan N")
	return nil
}

// scanI2C prints the grid and what was found.
func scanI2C(ctx context.Context, w io.Writer, bus periph.Bus, first, last uint16, ids i2c.IDs) error {
	fmt.Fprint(w, "     0  1  2  3  4  5  6  7  8  9  a  b  c  d  e  f")
	var found []i2c.Found
	stuck := 0
	next := uint16(0) // the cell that is printed next
	cell := func(addr uint16, text string) {
		for ; next < addr; next++ {
			if next%16 == 0 {
				fmt.Fprintf(w, "\n%02x:", next)
			}
			fmt.Fprint(w, "   ")
		}
		if next%16 == 0 {
			fmt.Fprintf(w, "\n%02x:", next)
		}
		fmt.Fprint(w, " ", text)
		next++
	}
	err := i2c.Scan(ctx, bus, first, last, ids, func(f i2c.Found, ok bool) {
		switch {
		case !ok:
			if fault, _ := i2c.FaultOf(f.Fault); fault == i2c.FaultTimeout {
				stuck++
			}
			cell(f.Addr, "--")
			return
		case f.Claimed:
			cell(f.Addr, "UU")
		default:
			cell(f.Addr, fmt.Sprintf("%02x", f.Addr))
		}
		found = append(found, f)
	})
	fmt.Fprint(w, "\n\n")
	if err != nil {
		return err
	}
	for _, f := range found {
		fmt.Fprintf(w, "0x%02x  %s\n", f.Addr, describeFound(f, bus.String()))
	}
	switch asked := int(last-first) + 1; {
	case stuck == asked && stuck > 1:
		return errors.New("every address timed out: a line of the bus is held low; check the pull-ups and the supply of the chips")
	case len(found) == 0:
		return errors.New("nobody answers: check wiring and supply, and whether it is this bus")
	}
	return nil
}

func describeFound(f i2c.Found, path string) string {
	var parts []string
	switch {
	case len(f.Sure) > 0:
		parts = append(parts, strings.Join(f.Sure, " or ")+", by its id")
	case len(f.Maybe) > 0:
		parts = append(parts, "may be "+strings.Join(f.Maybe, ", "))
	}
	if f.Mux {
		parts = append(parts, fmt.Sprintf("may be a multiplexer: look behind it with --mux 0x%02x:0", f.Addr))
	}
	if f.Claimed {
		driver := i2c.KernelDriver(path, f.Addr)
		if driver == "" {
			driver = "a driver"
		}
		parts = append(parts, "the kernel's "+driver+" has it, and reading beside it does no harm")
	}
	if len(parts) == 0 {
		return "none of the catalogue, by its address and id; describe it with chip = \"" + i2c.GenericChip + "\""
	}
	return strings.Join(parts, "; ")
}

func (o *i2cFlags) read(ctx context.Context, c call, words []string) error {
	if len(words) != 1 {
		return usagef("read takes the name of one chip, such as bme280, or with --config of one device")
	}
	if o.count < 1 || o.every <= 0 {
		return usagef("--count and --every must be positive")
	}
	path, device := i2cPath(o.bus), i2c.Device{Name: words[0], Chip: words[0], Address: uint16(o.address), Settings: o.settings}
	if o.config != "" {
		cfg, err := loadConfig(c, o.config)
		if err != nil {
			return err
		}
		if path, device, err = gateway.I2CDevice(cfg, words[0]); err != nil {
			return err
		}
	} else {
		mux, err := o.channel()
		if err != nil {
			return err
		}
		device.Mux = mux
	}
	device.Interval = o.every
	for i := range device.Points {
		device.Points[i].Interval = 0
	}
	return o.measure(ctx, c.out, path, device)
}

// measure prints count samples of a device.
func (o *i2cFlags) measure(ctx context.Context, w io.Writer, path string, device i2c.Device) error {
	ctx, cancel := context.WithTimeout(ctx, o.timeout+time.Duration(o.count)*o.every)
	defer cancel()
	var port periph.BusCloser
	left, last := o.count, adapters.Sample{}
	bus, err := i2c.New(i2c.Options{
		Name: path, Clock: clock.System().Now, Devices: []i2c.Device{device},
		Open: func() (periph.BusCloser, error) { return port, nil },
		Sink: adapters.SinkFunc(func(s adapters.Sample) bool {
			last = s
			if !slices.ContainsFunc(s.Readings, func(r adapters.Reading) bool { return r.Reason != adapters.ReasonNotReady }) {
				return true // nothing yet; the bus comes back to it
			}
			if printReadings(w, s); left <= 1 {
				cancel()
			}
			left--
			return true
		}),
	})
	if err != nil {
		return err
	}
	if port, err = o.open(path); err != nil {
		return err
	}
	if err := bus.Run(ctx); err != nil {
		return err
	}
	status := bus.Status().Devices[0]
	switch {
	case status.Err != "":
		return errors.New(status.Err)
	case left > 0 && last.Schema == nil:
		return errors.New("interrupted")
	case left > 0:
		printReadings(w, last)
		return fmt.Errorf("the chip has not measured within %v", o.timeout)
	}
	return nil
}

func printReadings(w io.Writer, s adapters.Sample) {
	width := 0
	for _, p := range s.Schema.Points {
		width = max(width, len(p.Name))
	}
	for _, r := range s.Readings {
		p := s.Schema.Points[r.Point]
		text := r.Value.String()
		if f, ok := r.Value.Number(); ok && r.Value.Kind() == adapters.Float && p.Decimals >= 0 {
			text = strconv.FormatFloat(f, 'f', int(p.Decimals), 64)
		}
		switch r.Quality {
		case adapters.Bad:
			text = "bad: " + string(r.Reason)
		case adapters.Stale:
			text += " (stale: " + string(r.Reason) + ")"
		}
		fmt.Fprintf(w, "%-*s  %s %s\n", width, p.Name, text, p.Unit)
	}
}

// printChips lists the catalogue.
func printChips(w io.Writer) error {
	for _, chip := range i2c.Chips() {
		var addresses, points []string
		for _, a := range chip.Addresses {
			addresses = append(addresses, fmt.Sprintf("0x%02x", a))
		}
		if len(addresses) > 4 {
			addresses = []string{addresses[0] + "-" + addresses[len(addresses)-1][2:]}
		}
		for _, q := range chip.Quantities {
			points = append(points, strings.TrimSpace(q.Name+" "+q.Unit))
		}
		fmt.Fprintf(w, "%-9s %s", chip.Name, chip.About)
		if len(chip.Aliases) > 0 {
			fmt.Fprintf(w, " (also %s)", strings.Join(chip.Aliases, ", "))
		}
		fmt.Fprintf(w, "\n%10saddress %s; points %s\n", "", strings.Join(addresses, ", "), strings.Join(points, ", "))
		for _, s := range chip.Settings {
			fmt.Fprintf(w, "%10ssetting %s = %s", "", s.Name, i2cValue(s.Default))
			switch {
			case s.Values != nil:
				var values []string
				for _, v := range s.Values {
					values = append(values, i2cValue(v))
				}
				fmt.Fprintf(w, ", one of %s", strings.Join(values, ", "))
			case s.Min < s.Max:
				fmt.Fprintf(w, ", %v to %v", s.Min, s.Max)
			}
			fmt.Fprintln(w, strings.TrimRight(" "+s.Unit, " ")+notes(s.About))
		}
	}
	return nil
}

func notes(about string) string {
	if about == "" {
		return ""
	}
	return ": " + about
}

// i2cValue writes a setting's value as TOML has it.
func i2cValue(v any) string {
	if text, ok := v.(string); ok {
		return strconv.Quote(text)
	}
	return fmt.Sprint(v)
}
