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
	// cut, while the counting subscriber beside it cannot be cut off. All ports are held from here on: of
	// two demos at once each has its own.
	upstream, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return account, fmt.Errorf("the upstream broker: %w", err)
	}
	farAddr := upstream.Addr().String()
	far, err := broker.New(broker.Options{Listen: []broker.Listener{{Socket: upstream}}, Logger: o.Log.With("broker", "upstream")})
	if err != nil {
		upstream.Close()
		return account, err
	}
	var background sync.WaitGroup
	defer background.Wait()
	running, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	background.Go(func() { _ = far.Run(running) })
	background.Go(func() { sensors.run(running) })
	uplink, err := o.listen(1884, "the upstream broker")
	if err != nil {
		return account, err
	}
	way := newLine(uplink, farAddr)
	defer way.close()
	local, err := o.listen(1883, "the local broker")
	if err != nil {
		return account, err
	}
	defer local.Close() // as the broker does, if it comes to that
	localAddr, upAddr := local.Addr().String(), uplink.Addr().String()
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
		o: o, way: way, started: make(chan struct{}), latest: map[string]adapters.Sample{}, local: newTally(), up: newTally(),
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
		Config: cfg, Log: o.Log, OpenI2C: sensors.openI2C, Sockets: []net.Listener{local}, Queued: s.queued,
		Linked: func(ctx context.Context) error {
			for _, sub := range subscribers {
				if err := subscribe(ctx, sub); err != nil {
					return err
				}
			}
			return nil
		},
		Started: func() { close(s.started) },
		Drain:   patience, StopTimeout: 2 * patience,
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

// patience bounds each of the waits for something that is sure to come: a connection to this machine, and
// what is on its way to arrive. A machine with too much to do may take long for it.
const patience = 30 * time.Second

// listen listens on the first loopback port from port on that nobody holds, and says which it is where it is
// another one.
func (o *Options) listen(port int, what string) (net.Listener, error) {
	for p := port; p < port+100; p++ {
		if l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", p)); err == nil {
			if p != port {
				fmt.Fprintf(o.Out, "port %d is taken: %s is on port %d\n", port, what, p)
			}
			return l, nil
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	fmt.Fprintf(o.Out, "ports %d to %d are taken: %s is on %s\n", port, port+99, what, l.Addr())
	return l, nil
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
	ctx, cancel := context.WithTimeout(ctx, patience)
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
