package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"

	"gateway/mqtt"
)

// A figure is one thing measured of one server.
type figure struct{ server, what string }

type bench struct {
	binary  gatewayBinary
	figures map[figure][]float64
}

func (b *bench) add(server, what string, v float64) {
	f := figure{server, what}
	b.figures[f] = append(b.figures[f], v)
}

// median returns the median of a figure's rounds.
func (b *bench) median(server, what string) (float64, bool) {
	v := slices.Clone(b.figures[figure{server, what}])
	if len(v) == 0 {
		return 0, false
	}
	slices.Sort(v)
	return v[len(v)/2], true
}

// patience is how long a server may take to do anything.
const patience = time.Minute

// throughput measures deliveries per second and the broker's CPU per delivery.
func (b *bench) throughput(ctx context.Context, name string, s scenario, d time.Duration) error {
	srv, err := b.start(ctx, name)
	if err != nil {
		return err
	}
	defer srv.stop()
	l, err := startLoad(srv.addr, s, 0)
	if err != nil {
		return err
	}
	defer l.stop()
	if err := l.wait(ctx, 500*time.Millisecond); err != nil { // to come up to speed
		return err
	}
	cpu0, err := srv.cpu()
	if err != nil {
		return err
	}
	n0, t0 := l.delivered.Load(), time.Now()
	n, t := int64(0), time.Duration(0)
	for n == 0 { // more than once where the machine stood still that long
		if t > patience {
			return fmt.Errorf("nothing was delivered in %s", t)
		}
		if err := l.wait(ctx, d); err != nil {
			return err
		}
		n, t = l.delivered.Load()-n0, time.Since(t0)
	}
	cpu, err := srv.cpu()
	if err != nil {
		return err
	}
	b.add(name, s.String()+" messages/s", float64(n)/t.Seconds())
	b.add(name, s.String()+" CPU µs/message", float64((cpu-cpu0).Microseconds())/float64(n))
	b.add(name, s.String()+" cores busy", (cpu-cpu0).Seconds()/t.Seconds())
	return nil
}

// latency measures the time from publisher to receiver at 1,000 messages a second, QoS 1.
func (b *bench) latency(ctx context.Context, name string, d time.Duration) error {
	srv, err := b.start(ctx, name)
	if err != nil {
		return err
	}
	defer srv.stop()
	l, err := startLoad(srv.addr, scenario{qos: mqtt.AtLeastOnce, publishers: 1, receivers: 1, window: 1000, batch: 1}, time.Millisecond)
	if err != nil {
		return err
	}
	err = l.wait(ctx, d)
	l.stop()
	if err != nil {
		return err
	}
	b.add(name, "p50 µs at 1,000/s", float64(percentile(l.latencies, 0.5).Microseconds()))
	b.add(name, "p99 µs at 1,000/s", float64(percentile(l.latencies, 0.99).Microseconds()))
	return nil
}

// settle is how long memory is left alone before it is measured.
const settle = 2 * time.Second

// idle measures the memory of connections that do nothing.
func (b *bench) idle(ctx context.Context, name string, n int) error {
	srv, err := b.start(ctx, name)
	if err != nil {
		return err
	}
	defer srv.stop()
	first, err := dial(srv.addr, "first")
	if err != nil {
		return err
	}
	defer first.nc.Close()
	before, err := srv.rss()
	if err != nil {
		return err
	}
	for i := range n {
		c, err := dial(srv.addr, fmt.Sprintf("idle-%05d", i))
		if err != nil {
			return err
		}
		defer c.nc.Close()
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	time.Sleep(settle)
	after, err := srv.rss()
	if err != nil {
		return err
	}
	b.add(name, "KiB per idle connection", (after-before)/1024/float64(n))
	return nil
}

// filters measures the memory of subscriptions.
func (b *bench) filters(ctx context.Context, name string, n int) error {
	srv, err := b.start(ctx, name)
	if err != nil {
		return err
	}
	defer srv.stop()
	c, err := dial(srv.addr, "filters")
	if err != nil {
		return err
	}
	defer c.nc.Close()
	before, err := srv.rss()
	if err != nil {
		return err
	}
	const each = 100
	for i := 0; i < n; i += each {
		var fs []string
		for k := i; k < i+each; k++ {
			fs = append(fs, fmt.Sprintf("plant/line-%03d/device-%05d/+/value", k%500, k))
		}
		if err := c.subscribe(mqtt.AtLeastOnce, fs...); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	time.Sleep(settle)
	after, err := srv.rss()
	if err != nil {
		return err
	}
	b.add(name, "bytes per stored filter", (after-before)/float64(n))
	return nil
}

// A target is what a ratio, or a figure itself where other is empty, must reach.
type target struct {
	what, other string
	least, most float64 // 0: no bound
}

func targets() []target {
	var list []target
	for _, s := range scenarios {
		least := 2.8
		if s.receivers > 1 {
			least = 1.7
		}
		list = append(list,
			target{what: s.String() + " messages/s", other: "mosquitto", least: least},
			target{what: s.String() + " CPU µs/message", other: "mosquitto", most: 0.4},
			target{what: s.String() + " messages/s", other: "mochi", least: 1.2},
			target{what: s.String() + " CPU µs/message", other: "mochi", most: 0.7})
	}
	return append(list,
		target{what: "p99 µs at 1,000/s", other: "mosquitto", most: 1.5},
		target{what: "KiB per idle connection", most: 16},
		target{what: "bytes per stored filter", most: 1024})
}

// report prints the medians and the targets, and tells whether all were met.
func (b *bench) report(w io.Writer) (met bool) {
	names := []string{"gateway", "mosquitto", "mochi"}
	var whats []string
	for f := range b.figures {
		if !slices.Contains(whats, f.what) {
			whats = append(whats, f.what)
		}
	}
	slices.Sort(whats)
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	fmt.Fprintf(t, "median of the rounds\t%s\t%s\t%s\n", names[0], names[1], names[2])
	for _, what := range whats {
		fmt.Fprint(t, what)
		for _, name := range names {
			if v, ok := b.median(name, what); ok {
				fmt.Fprintf(t, "\t%.4g", v)
			} else {
				fmt.Fprint(t, "\t-")
			}
		}
		fmt.Fprintln(t)
	}
	fmt.Fprintln(t, "\nours\ttarget\tmeasured\t")
	met = true
	for _, g := range targets() {
		v, ok := b.median("gateway", g.what)
		if !ok {
			continue
		}
		against := ""
		if g.other != "" {
			o, ok := b.median(g.other, g.what)
			if !ok || o == 0 {
				continue
			}
			v /= o
			against = " of " + g.other + "'s"
		}
		bound, good := fmt.Sprintf("at least %.3g", g.least), v >= g.least
		if g.most > 0 {
			bound, good = fmt.Sprintf("at most %.3g", g.most), v <= g.most
		}
		verdict := "met"
		if !good {
			verdict, met = "MISSED", false
		}
		fmt.Fprintf(t, "%s\t%s%s\t%.3g\t%s\n", g.what, bound, against, v, verdict)
	}
	t.Flush()
	return met
}
