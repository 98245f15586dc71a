package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"

	"golang.org/x/term"

	"gateway/internal/demo"
)

var demoCommand = command{
	name:    "demo",
	usage:   "[--for 30s]",
	summary: "Show the main job with simulated devices and two brokers; needs no hardware and no configuration.",
	run:     runDemo,
}

func runDemo(ctx context.Context, c call) error {
	f := c.flags(`
A boiler and a meter on Modbus, a weather mast on a serial line and two I2C chips are simulated behind
real transports and read by the very pipeline of 'gateway run'. The upstream broker is taken away once
by itself, and whenever u is pressed; q or Ctrl-C ends the demo. It opens loopback ports only.

Exit status: 0 when everything arrived everywhere, 1 when something was lost.`)
	length := f.Duration("for", 0, "the `duration` that it runs; 0: until q or Ctrl-C")
	data := f.String("data", "", "`directory` of the queue, kept at the end (default: a temporary one)")
	printConfig := f.Bool("print-config", false, "print the configuration that it runs, before it runs")
	writeConfig := f.String("write-config", "", "write that configuration to a `file`")
	level := f.String("log", "", "log to standard error at this `level`: debug, info, warn or error (default: nothing)")
	if err := c.parse(f, 0, 0); err != nil {
		return err
	}
	if *length < 0 {
		return usagef("--for %v: a duration cannot be negative", *length)
	}
	o := demo.Options{For: *length, Data: *data, Out: c.out, Log: slog.New(slog.DiscardHandler)}
	if *level != "" {
		var err error
		if o.Log, err = newLogger(*level); err != nil {
			return err
		}
	}
	o.OnConfig = func(text string) error {
		if *printConfig {
			fmt.Fprintln(c.out, text)
		}
		if *writeConfig != "" {
			return os.WriteFile(*writeConfig, []byte(text), 0o644)
		}
		return nil
	}
	restore := terminal(c, &o)
	account, err := demo.Run(ctx, o)
	restore()
	if err != nil && !errors.Is(err, demo.ErrLost) {
		return err
	}
	fmt.Fprintf(c.out, "\n%s", account)
	return err
}

// terminal sets the demo up for a person at a terminal, where there is one, and returns what undoes
// it.
func terminal(c call, o *demo.Options) (restore func()) {
	out, isFile := c.out.(*os.File)
	in, alsoFile := c.in.(*os.File)
	if !isFile || !alsoFile || !term.IsTerminal(int(out.Fd())) || !term.IsTerminal(int(in.Fd())) {
		return func() {}
	}
	width, height, err := term.GetSize(int(out.Fd()))
	if err != nil || width < 40 {
		return func() {}
	}
	before, err := term.MakeRaw(int(in.Fd()))
	if err != nil {
		return func() {}
	}
	keys := make(chan byte)
	go func() { // ends with the program: a read of a terminal cannot be called off
		defer close(keys)
		key := make([]byte, 1)
		for {
			if _, err := io.ReadFull(in, key); err != nil {
				return
			}
			keys <- key[0]
		}
	}()
	o.Keys = keys
	o.Size = func() (int, int) {
		if w, h, err := term.GetSize(int(out.Fd())); err == nil {
			width, height = w, h
		}
		return width, height
	}
	return func() { _ = term.Restore(int(in.Fd()), before) }
}
