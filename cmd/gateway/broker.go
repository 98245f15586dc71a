package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"gateway/config"
	"gateway/internal/gateway"
	"gateway/internal/logging"
)

var brokerCommand = command{
	name:    "broker",
	usage:   "[--listen ADDRESS]... [--config FILE] [--data DIR]",
	summary: "Run the MQTT broker alone: no queue, no devices.",
	run:     runBroker,
}

func runBroker(ctx context.Context, c call) error {
	f := c.flags(`
An ADDRESS is host:port, or a URL: mqtt://host:port, mqtts://, ws://, wss://, unix:/path. All other
settings are those of the configuration's [broker] table; without a configuration they have their
defaults: clients on this machine need no password, others are refused, and nothing is kept on the
disk unless --data says where.

Exit status: 0 after an orderly stop, 1 when a part failed, 64 for a wrong command line, 78 for a
configuration, or a file that it names, that cannot be used.

Example: gateway broker --listen 127.0.0.1:1883`)
	var listen []string
	f.Func("listen", "an `address` to listen on, instead of the configuration's; may be repeated", func(s string) error {
		_, err := config.ParseListen(s)
		listen = append(listen, s)
		return err
	})
	path := f.String("config", "", "the configuration `file`; only its [broker] table and the directory of its data count")
	data := f.String("data", "", "the `directory` for sessions and retained messages, instead of the configuration's")
	if err := c.parse(f, 0, 0); err != nil {
		return err
	}
	var cfg *config.Config
	if *path != "" {
		var err error
		if cfg, err = loadConfig(c, *path); err != nil {
			return err
		}
	} else {
		var problems *config.Problems
		src := "[broker]\npersistence = false\n"
		if len(listen) == 0 {
			return usagef("neither --listen nor --config says where to listen")
		}
		if cfg, problems = config.Parse("defaults", src); problems.Failed() {
			return errors.New(strings.TrimSpace(problems.String()))
		}
	}
	if len(listen) > 0 {
		cfg.Broker.Listen = listen
	}
	if *data != "" {
		cfg.Gateway.Data, cfg.Broker.Persistence = *data, true
	}
	log := logging.New(os.Stderr, nil, os.Getenv)
	b, store, err := gateway.NewBroker(&cfg.Broker, gateway.BrokerEnv{
		ConfigFile: *path, Data: cfg.Gateway.Data, Getenv: os.Getenv, Version: "gateway " + version(), Log: log,
	})
	if err != nil {
		return startFault(err)
	}
	err = b.Run(ctx)
	if closeErr := store.Close(); err == nil && closeErr != nil {
		err = fmt.Errorf("closing the store: %w", closeErr)
	}
	return err
}
