// Command broker measures the gateway's broker beside Debian's Mosquitto and mochi-mqtt, interleaved in one
// run, with a load generator of its own: throughput and broker CPU per message at QoS 0 and 1 from 1 to 1,
// 50 to 1 and 1 to 50 with 64-byte payloads, latency at 1,000 messages a second, memory per idle connection
// and per stored filter. It prints medians, ratios and the targets, and exits with 1 where one is
// missed. Read the ratios, not the absolute figures.
//
// A publisher writes what its window lets go at once in one write, up to -batch messages, as clients with a
// buffer do. With -batch 1 each message costs it a system call, and on a machine of two cores it is the
// generator that is measured: compare the cores that the broker was busy on, which are printed, too.
//
//	go run ./bench/broker [-rounds 5] [-seconds 2] [-only throughput,latency,idle,filters]
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"time"
)

func main() {
	if len(os.Args) == 3 && os.Args[1] == serveMochi {
		fmt.Fprintln(os.Stderr, runMochi(os.Args[2]))
		os.Exit(1)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	met, err := run(ctx)
	if err != nil {
		fmt.Fprintln(os.Stderr, "broker bench:", err)
		os.Exit(2)
	}
	if !met {
		os.Exit(1)
	}
}

func run(ctx context.Context) (met bool, err error) {
	rounds := flag.Int("rounds", 5, "how often everything is measured")
	seconds := flag.Float64("seconds", 2, "how long each throughput is measured")
	batch := flag.Int("batch", 16, "messages that a publisher puts into one write at most")
	only := flag.String("only", "throughput,latency,idle,filters", "what to measure")
	conns := flag.Int("connections", 10_000, "idle connections")
	filters := flag.Int("filters", 100_000, "stored filters")
	match := flag.String("scenario", "", "only the throughput scenarios whose name contains this, such as \"50 to 1\"")
	servers := flag.String("servers", "gateway,mosquitto,mochi", "whom to measure")
	flag.Parse()
	binary, err := buildGateway()
	if err != nil {
		return false, err
	}
	defer os.RemoveAll(binary.dir)
	b := &bench{binary: binary, figures: make(map[figure][]float64)}
	wants := func(what string) bool { return slices.Contains(strings.Split(*only, ","), what) }
	for round := range *rounds {
		for _, name := range strings.Split(*servers, ",") {
			fmt.Fprintf(os.Stderr, "round %d of %d: %s\n", round+1, *rounds, name)
			if wants("throughput") {
				for _, s := range scenarios {
					if !strings.Contains(s.String(), *match) {
						continue
					}
					s.batch = *batch
					if err := b.throughput(ctx, name, s, time.Duration(*seconds*float64(time.Second))); err != nil {
						return false, fmt.Errorf("%s, %s: %w", name, s, err)
					}
				}
			}
			if wants("latency") {
				if err := b.latency(ctx, name, 3*time.Second); err != nil {
					return false, fmt.Errorf("%s, latency: %w", name, err)
				}
			}
			if wants("idle") && round == 0 {
				if err := b.idle(ctx, name, *conns); err != nil {
					return false, fmt.Errorf("%s, idle: %w", name, err)
				}
			}
			if wants("filters") && round == 0 {
				if err := b.filters(ctx, name, *filters); err != nil {
					return false, fmt.Errorf("%s, filters: %w", name, err)
				}
			}
		}
	}
	return b.report(os.Stdout), nil
}
