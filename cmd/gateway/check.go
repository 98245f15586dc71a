package main

import (
	"context"
	"fmt"

	"gateway/config"
	"gateway/internal/gateway"
)

var checkCommand = command{
	name:    "check",
	usage:   "--config FILE",
	summary: "Report everything that is wrong with a configuration, each with its line and the mend.",
	run:     runCheck,
}

func runCheck(_ context.Context, c call) error {
	f := c.flags(`
Nothing is opened and nothing is sent: a check may run beside the service. What depends on the
machine as it is today, such as a port that is absent, is a warning.

Exit status: 0 the file can be used, perhaps with warnings; 78 it cannot.`)
	path := f.String("config", defaultConfig, "the configuration `file`")
	all := f.Bool("points", false, "list every Modbus point with its address on the wire and in the classic notation; without it,\nthose that the file writes in the classic notation")
	if err := c.parse(f, 0, 0); err != nil {
		return err
	}
	cfg, err := loadConfig(c, *path)
	if err != nil {
		return err
	}
	fmt.Fprintf(c.out, "%s: %s\n", *path, gateway.Describe(cfg))
	for _, line := range gateway.Addresses(cfg, *all) {
		fmt.Fprintf(c.out, "%s: %s\n", *path, line)
	}
	return nil
}

// defaultConfig is where the package installs the configuration.
const defaultConfig = "/etc/gateway/gateway.toml"

// loadConfig loads and checks a configuration as all commands do, and prints what is wrong with it.
func loadConfig(c call, path string) (*config.Config, error) {
	cfg, problems := config.Load(path)
	if cfg != nil {
		gateway.Check(cfg, path)
	}
	fmt.Fprint(c.err, problems)
	if problems.Failed() {
		return nil, &exitError{exitConfig, nil}
	}
	return cfg, nil
}
