// Package demo runs the main job where there is no hardware, no broker and no configuration:
// simulated devices behind real transports, the same pipeline as `gateway run`, a local and an
// upstream broker, and an outage of the upstream. What it counts it counts from the outside, by a
// subscriber on each broker.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"time"

	"gateway/adapters"
	"gateway/buffer"
	"gateway/config"
	"gateway/internal/gateway"
	"gateway/mqtt"
	"gateway/mqtt/broker"
	"gateway/mqtt/client"
)

// Options say how the demo runs.
type Options struct {
	For  time.Duration // 0: until ctx ends
	Data string        // directory of the queue; empty: a temporary one, removed at the end
	Out  io.Writer
	// Size is asked for the columns and lines of the terminal that Out is, in raw mode; nil: Out is none
	// and gets plain lines.
	Size func() (width, height int)
	// Keys are what a person presses: u and q. May be nil.
	Keys <-chan byte
	Log  *slog.Logger
	// OnConfig, if not nil, is given the configuration before anything starts.
	OnConfig func(text string) error
}

// Account is how the demo ended.
type Account struct {
	Read                         int // samples that were queued
	Bad                          int // readings without a value
	Local, Upstream              count
	Outages                      int
	LocalName, LocalAddr, UpAddr string
	Waiting                      int64 // samples that no destination had acknowledged at the end
}

// Lost is how many samples did not arrive somewhere.
func (a Account) Lost() int { return a.Local.Lost + a.Upstream.Lost }

// String is the account for people.
func (a Account) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "samples read and queued   %6d    (%d readings bad)\n", a.Read, a.Bad)
	row := func(name, addr string, c count) {
		fmt.Fprintf(&b, "arrived %-17s %6d    duplicates %d   out of order %d   lost: %d   (%s)\n", name, c.Delivered, c.Duplicates, c.Disorder, c.Lost, addr)
	}
	row("local", a.LocalAddr, a.Local)
	row("upstream", a.UpAddr, a.Upstream)
	fmt.Fprintf(&b, "outages of the upstream   %6d\n", a.Outages)
	fmt.Fprintf(&b, "lost: %d\n", a.Lost())
	return b.String()
}

// ErrLost says that something did not arrive.
var ErrLost = errors.New("samples were lost")

// Run runs the demo and returns its account.
func Run(ctx context.Context, o Options) (account Account, err error) {
	dir, remove, err := tempDir()
	if err != nil {
		return account, err
	}
	defer remove()
	if o.Data == "" {
		o.Data = dir
	}
	sensors, err := openDevices(dir)
	if err != nil {
		return account, err
	}
	defer sensors.close()

	// The broker upstream stands on a port of its own; the gateway reaches it over a line that can be
	// cut, while the counting subscriber beside it cannot be cut off.
	far, err := broker.New(broker.Options{Listen: []broker.Listener{{Address: "127.0.0.1:0"}}, Logger: o.Log.With("broker", "upstream")})
	if err != nil {
		return account, err
	}
	var background sync.WaitGroup
	defer background.Wait()
	running, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	background.Go(func() { _ = far.Run(running) })
	background.Go(func() { sensors.run(running) })
	farAddr, err := address(running, far)
	if err != nil {
		return account, err
	}
	upAddr, note := freeAddr(1884, "the upstream broker")
	o.say(note)
	way, err := newLine(upAddr, farAddr)
	if err != nil {
		return account, err
	}
	defer way.cut()
	localAddr, note := freeAddr(1883, "the local broker")
	o.say(note)
	account.LocalAddr, account.UpAddr = localAddr, upAddr

	text := sensors.config(o.Data, localAddr, upAddr)
	if o.OnConfig != nil {
		if err := o.OnConfig(text); err != nil {
			return account, err
		}
	}
	cfg, problems := config.Parse("demo.toml", text)
	if cfg != nil {
		gateway.Check(cfg, "demo.toml")
	}
	if problems.Failed() {
		return account, fmt.Errorf("the demo's own configuration is wrong: %s", problems)
	}

	s := &stage{
		o: o, way: way, begun: time.Now(), latest: map[string]adapters.Sample{}, local: newTally(), up: newTally(),
		brokers: map[string]string{config.LocalDestination: localAddr, "upstream": upAddr},
	}
	subscribers := make([]*client.Client, 0, 2)
	for addr, t := range map[string]*tally{localAddr: s.local, farAddr: s.up} {
		sub, err := subscriber(addr, t, o.Log)
		if err != nil {
			return account, err
		}
		subscribers = append(subscribers, sub)
		background.Go(func() { _ = sub.Run(running) })
	}
	s.gw, err = gateway.Open(gateway.Options{
		Config: cfg, Log: o.Log, OpenI2C: sensors.openI2C, Queued: s.queued,
		Linked: func(ctx context.Context) error {
			for _, sub := range subscribers {
				if err := subscribe(ctx, sub); err != nil {
					return err
				}
			}
			return nil
		},
		Drain: 10 * time.Second, StopTimeout: 20 * time.Second,
	})
	if err != nil {
		return account, err
	}
	if err := s.play(ctx); err != nil {
		return account, err
	}
	// Everything is acknowledged; what the brokers still have on the way to the subscribers arrives.
	s.settle(running)
	account.Read, account.Bad, account.Outages = len(s.ids), s.bad, s.outages
	account.Local, account.Upstream = s.local.against(s.ids), s.up.against(s.ids)
	if account.Lost() > 0 {
		return account, ErrLost
	}
	return account, nil
}

func (o *Options) say(text string) {
	if text != "" {
		fmt.Fprintln(o.Out, text)
	}
}

// address waits for the first address that a broker listens on.
func address(ctx context.Context, b *broker.Broker) (string, error) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for range 1000 {
		if a := b.Addrs(); len(a) > 0 && a[0] != nil {
			return a[0].String(), nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
	return "", errors.New("the upstream broker got no port to listen on")
}

// freeAddr returns the loopback address with the first port from port on that nobody holds.
func freeAddr(port int, what string) (addr, note string) {
	for p := port; p < port+100; p++ {
		addr = fmt.Sprintf("127.0.0.1:%d", p)
		if l, err := net.Listen("tcp", addr); err == nil {
			l.Close()
			if p != port {
				note = fmt.Sprintf("port %d is taken: %s is on port %d", port, what, p)
			}
			return addr, note
		}
	}
	return "127.0.0.1:0", fmt.Sprintf("ports %d to %d are taken: %s gets any", port, port+99, what)
}

// subscriber is a client that counts what arrives at a broker.
func subscriber(addr string, t *tally, log *slog.Logger) (*client.Client, error) {
	return client.New(client.Options{
		URLs: []string{"mqtt://" + addr}, ClientID: "demo-account", Version: mqtt.V5,
		SessionExpiry: time.Hour, Logger: log,
		Handler: func(m mqtt.Message) { t.add(m.Topic, m.Payload) },
	})
}

// subscribe waits until the broker has the subscription: what came before it could not be counted.
// Samples are one level below the gateway; what the gateway says of itself and of its devices' state
// is deeper.
func subscribe(ctx context.Context, c *client.Client) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	codes, err := c.Subscribe(ctx, mqtt.Subscription{Filter: "demo/+", QoS: mqtt.AtLeastOnce})
	if err != nil {
		return fmt.Errorf("the subscriber that counts: %w", err)
	}
	if codes[0] >= 0x80 {
		return fmt.Errorf("the subscriber that counts was refused: %v", codes[0])
	}
	return nil
}

// queued is told of every sample that the pipeline queued.
func (s *stage) queued(id buffer.ID, sample *adapters.Sample) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ids = append(s.ids, identity{id.Epoch, id.Seq})
	kept := *sample
	kept.Readings = append([]adapters.Reading(nil), sample.Readings...)
	s.latest[sample.Schema.Device] = kept
	for _, r := range sample.Readings {
		if r.Quality == adapters.Bad {
			s.bad++
		}
	}
}
