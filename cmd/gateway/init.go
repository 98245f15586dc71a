package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"gateway/internal/service"
)

var initCommand = command{
	name:    "init",
	usage:   "[--data DIRECTORY] [FILE]",
	summary: "Write a configuration to begin with, commented, where there is none.",
	run:     runInit,
}

func runInit(_ context.Context, c call) error {
	f := c.flags(`
FILE is gateway.toml in this directory when it is left out; a file that is there already is left alone. As it is
written, 'gateway run --config FILE' starts a broker on this machine's loopback and reads nothing yet; the examples in
it need only their leading # taken away. A service of the machine is made by 'gateway service install' instead.`)
	data := f.String("data", "", "the `directory` of the queue; by default gateway-data beside FILE")
	if err := c.parse(f, 0, 1); err != nil {
		return err
	}
	path := "gateway.toml"
	if f.NArg() > 0 {
		path = f.Arg(0)
	}
	absolute, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	if *data == "" {
		*data = filepath.Join(filepath.Dir(absolute), "gateway-data")
	}
	if *data, err = filepath.Abs(*data); err != nil {
		return err
	}
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s is there already, and is left as it is; 'gateway check --config %[1]s' tells what it says", path)
	}
	if err != nil {
		return err
	}
	if _, err := file.WriteString(service.ByHand(absolute, *data)); err != nil {
		return errors.Join(err, file.Close(), os.Remove(path))
	}
	if err := file.Close(); err != nil {
		return err
	}
	_, err = fmt.Fprintf(c.out, "%s is written; add your sensors to it, then\n  gateway check --config %[1]s\n  gateway run --config %[1]s\n", path)
	return err
}
