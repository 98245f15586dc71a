package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"gateway/adapters"
	"gateway/adapters/port"
	"gateway/adapters/serial"
	"gateway/adapters/serial/frame"
	"gateway/config"
	"gateway/internal/gateway"
)

var serialCommand = command{
	name:    "serial",
	usage:   "list | monitor PORT [flags]",
	summary: "List the serial ports, and watch what comes over one of them.",
	run:     runSerial,
}

// serialCommands are the subcommands of serial.
var serialCommands = []command{
	{name: "serial list", summary: "List the serial ports with their USB identity, their stable names and who holds them.", run: runSerialList},
	{name: "serial monitor", usage: "[flags] PORT", summary: "Show what comes over a port: bytes and text, the frames they make, the points those would give.", run: runSerialMonitor},
}

func runSerial(ctx context.Context, c call) error { return c.dispatch(ctx, serialCommands) }

func runSerialList(_ context.Context, c call) error {
	f := c.flags(`
No port is opened: some devices take that for a reset. Who holds a port is seen only for processes
that this user may look into.`)
	if err := c.parse(f, 0, 0); err != nil {
		return err
	}
	list, err := port.List()
	if err != nil {
		return err
	}
	if len(list) == 0 {
		fmt.Fprintln(c.out, "There is no serial port with hardware behind it. A USB adapter that is plugged in should appear here;\nif it does not, 'dmesg' says why.")
		return nil
	}
	for i := range list {
		printPort(c.out, &list[i])
	}
	return nil
}

func printPort(w io.Writer, p *port.Info) {
	fmt.Fprint(w, p.Name)
	if p.Driver != "" {
		fmt.Fprintf(w, "  (%s)", p.Driver)
	}
	fmt.Fprintln(w)
	if p.USB.Vendor != "" {
		fmt.Fprintf(w, "    usb      %s\n", strings.TrimSpace(p.Maker+" "+p.Product))
		fmt.Fprintf(w, "    in TOML  usb = { vendor = %q, product = %q", p.USB.Vendor, p.USB.Product)
		for _, x := range []struct{ key, value string }{{"serial", p.USB.Serial}, {"interface", p.USB.Interface}} {
			if x.value != "" {
				fmt.Fprintf(w, ", %s = %q", x.key, x.value)
			}
		}
		fmt.Fprintln(w, " }")
	}
	for _, a := range p.Aliases {
		fmt.Fprintf(w, "    or       port = %q\n", a)
	}
	if len(p.Holders) > 0 {
		fmt.Fprintf(w, "    held by  %s\n", strings.Join(p.Holders, ", "))
	}
}

// A monitorFlags says how to listen to a port that no configuration describes.
type monitorFlags struct {
	config, delimiter string
	port              port.Config
	parity, flow      string
	silence           time.Duration
	duration          time.Duration
}

func (m *monitorFlags) add(f *flag.FlagSet) {
	f.StringVar(&m.config, "config", "", "the configuration `file` that describes the port (default: that of the service, if it is there and does)")
	f.IntVar(&m.port.Baud, "baud", 9600, "the line's `speed`")
	f.IntVar(&m.port.DataBits, "data-bits", 8, "the `number` of bits of a character, 5 to 8")
	f.StringVar(&m.parity, "parity", "none", "the `parity`: none, even, odd, mark or space")
	f.Float64Var(&m.port.StopBits, "stop-bits", 1, "their `number`: 1, 1.5 or 2")
	f.StringVar(&m.flow, "flow", "none", "the `control` of the flow: none, rts/cts or xon/xoff")
	f.StringVar(&m.delimiter, "line", `\n`, "the `characters` that end a line, as in frame = { line = ... }")
	f.DurationVar(&m.silence, "silence", 0, "a silence of this `duration` ends a frame, instead of --line")
	f.DurationVar(&m.duration, "for", 0, "the `duration` to watch; 0: until Ctrl-C")
}

func runSerialMonitor(ctx context.Context, c call) error {
	f := c.flags(`
PORT is the path of a port, or the name of a [[serial]] table. Where the configuration describes the
port, its settings, its framing and its devices are used, those that are asked are asked, and the points
are shown; nothing is published. The flags are for a port that it does not describe.

A line of bytes that came starts with <, one that was sent with >. A port belongs to one program at a
time: stop the service to watch one that it has open.`)
	var m monitorFlags
	m.add(f)
	if err := c.parse(f, 1, 1); err != nil {
		return err
	}
	o, err := m.options(c, f.Arg(0))
	if err != nil {
		return err
	}
	return watchLine(ctx, c.out, o, m.duration)
}

// options finds the table that describes the port, or describes it by the flags.
func (m *monitorFlags) options(c call, name string) (serial.Options, error) {
	path := m.config
	if path == "" {
		path = defaultConfig
		if _, err := os.Stat(path); err != nil {
			path = ""
		}
	}
	if path != "" {
		cfg, err := loadConfig(c, path)
		if err != nil {
			return serial.Options{}, err
		}
		for i := range cfg.Serial {
			s := &cfg.Serial[i]
			if s.Name == name || s.Port == name || s.Port != "" && samePath(s.Port, name) {
				return gateway.SerialOptions(s)
			}
		}
		if m.config != "" {
			return serial.Options{}, fmt.Errorf("%s describes no serial port %q", path, name)
		}
	}
	return m.plain(name)
}

func samePath(a, b string) bool {
	x, err := filepath.EvalSymlinks(a)
	if err != nil {
		return false
	}
	y, err := filepath.EvalSymlinks(b)
	return err == nil && x == y
}

func (m *monitorFlags) plain(name string) (serial.Options, error) {
	p := m.port
	p.Name, p.Parity, p.Flow = name, port.Parity(m.parity), port.Flow(m.flow)
	if err := p.Check(); err != nil {
		return serial.Options{}, &exitError{exitUsage, err}
	}
	o := serial.Options{Name: name, Frame: frame.Spec{Kind: frame.Line}}
	var delimiter config.Bytes
	if err := delimiter.UnmarshalText([]byte(m.delimiter)); err != nil {
		return o, usagef("--line: %v", err)
	}
	o.Frame.Delimiter = delimiter
	if m.silence > 0 {
		o.Frame = frame.Spec{Kind: frame.Gap, Silence: m.silence}
	}
	o.Open = func(context.Context) (serial.Conn, error) {
		open, err := port.Open(p)
		if err != nil {
			return nil, err
		}
		return open, nil
	}
	return o, nil
}

// watchLine runs the line and prints all that happens on it.
func watchLine(ctx context.Context, out io.Writer, o serial.Options, duration time.Duration) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if duration > 0 {
		t := time.AfterFunc(duration, func() { cancel(nil) })
		defer t.Stop()
	}
	screen := &monitor{out: out, fail: func(err error) { cancel(err) }}
	start := time.Now()
	o.Sink = adapters.SinkFunc(func(adapters.Sample) bool { return true })
	o.Clock = func() adapters.Instant { return adapters.Instant(time.Since(start)) }
	o.Logger = slog.New(slog.DiscardHandler)
	o.Trace = screen.see
	open := o.Open
	o.Open = func(ctx context.Context) (serial.Conn, error) {
		conn, err := open(ctx)
		if err == nil {
			screen.opened(o.Name)
		}
		return conn, err
	}
	b, err := serial.New(o)
	if err != nil {
		return err
	}
	err = b.Run(ctx)
	screen.flush()
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) && !errors.Is(cause, context.DeadlineExceeded) {
		return cause
	}
	s := b.Stats()
	fmt.Fprintf(out, "%d bytes, %d frames, %d of them for nobody; thrown away: %d for their checksum, %d garbage, %d other\n",
		s.Bytes, s.Frames, s.Unclaimed, s.Checksum, s.Garbage, s.Other)
	if l := s.Line; l != (port.Counts{}) {
		fmt.Fprintf(out, "the driver counted %d characters, and errors: %d framing, %d parity, %d breaks, %d lost in the hardware, %d in the driver\n",
			l.Received, l.Framing, l.Parity, l.Break, l.Overrun, l.BufferOverrun)
	}
	return err
}
