package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	gb "github.com/goburrow/modbus"

	"gateway/adapters"
	"gateway/adapters/decode"
	"gateway/adapters/hint"
	"gateway/adapters/modbus"
	"gateway/config"
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
		if near := hint.DidYouMean(args[0], []string{"coil", "discrete", "input", "holding"}); near != "" {
			return 0, 0, nil, usagef("there is no table %q%s", args[0], near)
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
