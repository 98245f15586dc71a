package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"gateway/buffer"
	"gateway/config"
	"gateway/internal/gateway"
	"gateway/internal/logging"
	"gateway/systemd"
)

var runCommand = command{
	name:    "run",
	usage:   "--config FILE",
	summary: "Read the sensors, queue the readings, publish them; until a signal ends it.",
	run:     runRun,
}

func runRun(ctx context.Context, c call) error {
	f := c.flags(`
The first SIGINT, SIGTERM or SIGHUP ends it in order: polls stop, what can be delivered is delivered, the
queue is closed. A second one ends it at once; the queue loses nothing by that.

Exit status: 0 after an orderly stop, 1 when a part failed, 64 for a wrong command line, 78 for a
configuration that cannot be used, a file of the broker's that cannot be, or a queue that a newer program wrote.`)
	path := f.String("config", defaultConfig, "the configuration `file`")
	level := f.String("log", "info", "how much to say, the `level`: debug, info, warn or error")
	if err := c.parse(f, 0, 0); err != nil {
		return err
	}
	log, err := newLogger(*level)
	if err != nil {
		return err
	}
	cfg, err := loadConfig(c, *path)
	if err != nil {
		return err
	}
	return runGateway(ctx, log, cfg, *path)
}

// newLogger returns the logger of the commands that run for long. It writes to standard error.
func newLogger(level string) (*slog.Logger, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, usagef("--log %q: use debug, info, warn or error", level)
	}
	return logging.New(os.Stderr, l, os.Getenv), nil
}

func runGateway(ctx context.Context, log *slog.Logger, cfg *config.Config, path string) error {
	notify, err := systemd.NewNotifier(os.Getenv)
	if err != nil {
		log.Warn("the service manager cannot be told how this service fares", "err", err)
	}
	started := make(chan struct{})
	g, err := gateway.Open(gateway.Options{Config: cfg, ConfigFile: path, Version: version(), Log: log, Started: func() { close(started) }})
	if err != nil {
		return startFault(err)
	}
	log.Info("starting", "version", version(), "config", path, "sets_up", gateway.Describe(cfg))

	ended := make(chan error, 1)
	go func() { ended <- g.Run(ctx) }()
	watching, stopWatching := context.WithCancel(context.WithoutCancel(ctx))
	watched := make(chan error, 1)
	defer func() {
		stopWatching()
		<-watched
	}()
	go func() { watched <- watch(watching, notify, g, started, log) }()

	select {
	case err = <-ended:
	case <-ctx.Done():
		tell(log, notify.Stopping("delivering what is left"))
		err = <-ended
	}
	if errors.Is(err, context.Canceled) {
		err = nil
	}
	return err
}

// startFault tells what to be started again mends no more than a bad configuration from what it might.
func startFault(err error) error {
	newer, file := (*buffer.ErrNewer)(nil), (*gateway.BrokerFileError)(nil)
	if errors.As(err, &newer) || errors.As(err, &file) {
		return &exitError{exitConfig, err}
	}
	return err
}

// watch tells the service manager that the gateway has started, that it is healthy, and how it fares.
func watch(ctx context.Context, notify *systemd.Notifier, g *gateway.Gateway, started <-chan struct{}, log *slog.Logger) error {
	select {
	case <-started:
		tell(log, notify.Ready(g.Status().String()))
	case <-ctx.Done():
		return nil
	}
	done := make(chan error, 1)
	go func() { done <- notify.Watch(ctx, g.Health, log) }()
	tick := time.NewTicker(5 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			tell(log, notify.Status(g.Status().String()))
		case err := <-done:
			return err
		}
	}
}

func tell(log *slog.Logger, err error) {
	if err != nil {
		log.Warn("the service manager cannot be told how this service fares", "err", fmt.Errorf("notify: %w", err))
	}
}
