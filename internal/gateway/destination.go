package gateway

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"gateway/adapters"
	"gateway/buffer"
	"gateway/config"
	"gateway/internal/delivery"
	"gateway/internal/format"
	"gateway/internal/ledger"
	"gateway/mqtt"
	"gateway/mqtt/client"
	"gateway/mqtt/packet"
)

// A destination is a broker, the publisher that reaches it, and the delivery to it.
type destination struct {
	*delivery.Destination
	name      string
	client    *client.Client // nil: the broker in this process
	pub       delivery.Publisher
	announcer *delivery.Announcer // of what is retained beside the samples; nil: nothing is
	devices   []string            // patterns: whose samples go there
}

// openDestinations makes the broker, the clients and the deliveries, and forgets the consumers of
// destinations that have left the configuration.
func (g *Gateway) openDestinations() error {
	cfg := g.o.Config
	known := map[string]bool{}
	if cfg.Broker.Enabled {
		var err error
		g.broker, g.brokerStore, err = NewBroker(&cfg.Broker, BrokerEnv{
			ConfigFile: g.o.ConfigFile, Data: cfg.Gateway.Data, Getenv: os.Getenv, Version: g.o.Version, Sockets: g.o.Sockets,
			Log: g.log.With("broker", config.LocalDestination),
		})
		if err != nil {
			return err
		}
		local := cfg.LocalDestination()
		d, err := g.newDestination(&local)
		if err != nil {
			return err
		}
		g.destinations = append(g.destinations, d)
		known[local.Name] = true
	}
	for i := range cfg.Destinations {
		d, err := g.newDestination(&cfg.Destinations[i])
		if err != nil {
			return err
		}
		g.destinations = append(g.destinations, d)
		known[d.name] = true
	}
	for _, c := range g.queue.Stats().Consumers {
		if !known[c.Name] {
			g.log.Info("the destination left the configuration; its place in the queue is forgotten", "destination", c.Name, "waiting", c.Live+c.Backfill)
			if waiting := c.Live + c.Backfill; waiting > 0 {
				g.lose(ledger.Loss{Destination: c.Name, Reason: ledger.Retired, Count: uint64(waiting)})
			}
			g.ledger.Forget(c.Name)
			if err := g.queue.Forget(c.Name); err != nil {
				return err
			}
		}
	}
	return nil
}

func (g *Gateway) newDestination(cfg *config.Destination) (*destination, error) {
	d := &destination{name: cfg.Name, devices: cfg.Devices}
	start := buffer.Oldest()
	if cfg.Start == "newest" {
		start = buffer.Newest()
	}
	consumer, err := g.queue.Consumer(cfg.Name, start)
	if err != nil {
		return nil, err
	}
	if len(cfg.Addresses()) == 0 {
		d.pub = g.broker
	} else {
		o, err := clientOptions(g.o.Config.Gateway.ID, cfg, g.o.ConfigFile)
		if err != nil {
			return nil, err // it names the table
		}
		o.Logger = g.log.With("destination", cfg.Name)
		if cfg.Announce {
			o.Will = &client.Will{Message: g.state(false)}
		}
		o.OnState = d.linkChanged
		if d.client, err = client.New(o); err != nil {
			return nil, fmt.Errorf("destination %q: %w", cfg.Name, err)
		}
		d.pub = d.client
	}
	formatter, err := format.New(formatOptions(g.o.Config.Gateway.ID, &cfg.Publishing))
	if err != nil {
		return nil, fmt.Errorf("destination %q: %w", cfg.Name, err)
	}
	letters, err := delivery.OpenLetters(delivery.LettersDir(g.o.Config.Gateway.Data, cfg.Name), 0)
	if err != nil {
		return nil, fmt.Errorf("destination %q: %w", cfg.Name, err)
	}
	lost := func(why string) func(buffer.ID, string) {
		return func(id buffer.ID, reason string) {
			g.note(ledger.Loss{Destination: d.name, Reason: why, Count: 1, First: id, Last: id})
		}
	}
	d.Destination, err = delivery.New(delivery.Options{
		Name: cfg.Name, Source: consumer, Publisher: d.pub, Formatter: formatter,
		Clock: g.clock, Decoder: &g.decoder, Window: cfg.Window, Order: delivery.Order(cfg.Order),
		MessageRate: cfg.MessageRate, ByteRate: float64(cfg.ByteRate), BackfillRate: cfg.BackfillRate,
		BatchSamples: cfg.Batch.Samples, BatchBytes: int(cfg.Batch.Bytes), BatchWait: cfg.Batch.Wait,
		Recent:  func(fn func(buffer.Record) error) error { return recent(g.queue, fn) },
		Letters: letters, Aside: lost(ledger.SetAside), Forgot: lost(ledger.Forgotten), Keep: g.ledger.Keep,
		Logger: g.log,
	})
	if err != nil {
		return nil, err
	}
	if d.client != nil {
		d.Link(delivery.Link{Connected: false})
	}
	if cfg.Announce {
		d.announcer = delivery.NewAnnouncer(d.pub, g.log.With("destination", cfg.Name))
		online := g.state(true)
		d.announcer.Set(online.Topic, string(online.Payload))
	}
	tally := consumer.Tally()
	g.ledger.Watch(cfg.Name, ledger.Tally{Delivered: tally[0], Messages: tally[1]}, func() ledger.Counts {
		s := d.Status()
		return ledger.Counts{Delivered: s.Delivered, Messages: s.Messages, Retransmitted: s.Retransmitted, Waiting: s.Waiting()}
	})
	return d, nil
}

// formatOptions says what the messages of a destination look like.
func formatOptions(gatewayID string, cfg *config.Publishing) format.Options {
	o := format.Options{
		Gateway: gatewayID, Kind: format.Kind(cfg.Format), Topic: cfg.Topic, Template: cfg.Template, ContentType: cfg.ContentType,
		Compression: format.Compression(cfg.Compression), Batch: cfg.Batch.Samples > 1,
		Select: format.Selector{Devices: cfg.Devices, Points: cfg.Points, Labels: labels(cfg.Labels)},
		QoS:    mqtt.QoS(cfg.QoS), Retain: cfg.Retain, Expiry: cfg.Expiry, NoProperties: !cfg.Properties,
		PassingSchemas: !cfg.RetainSchemas,
	}
	for i := range cfg.Rules {
		c := &cfg.Rules[i]
		r := format.Rule{
			Match: format.Selector{Devices: c.Devices, Points: c.Points, Labels: labels(c.Labels)},
			Skip:  c.Skip, Topic: c.Topic, Retain: c.Retain, Expiry: c.Expiry,
		}
		if c.QoS != nil {
			qos := mqtt.QoS(*c.QoS)
			r.QoS = &qos
		}
		o.Rules = append(o.Rules, r)
	}
	return o
}

func labels(m map[string]string) (list []adapters.Label) {
	for _, name := range slices.Sorted(maps.Keys(m)) {
		list = append(list, adapters.Label{Name: name, Value: m[name]})
	}
	return list
}

// checkPublishing reports formats, templates and topics that cannot be.
func checkPublishing(gatewayID string, at config.Place, cfg *config.Publishing) {
	_, err := format.New(formatOptions(gatewayID, cfg))
	for _, err := range adapters.Joined(err) {
		place, key := at, ""
		if s := (*format.Setting)(nil); errors.As(err, &s) {
			if key = s.Name; s.Rule >= 0 {
				place = cfg.Rules[s.Rule].At
			}
		}
		place.Errorf(key, "%s", strings.TrimPrefix(err.Error(), "format: "))
	}
}

// linkChanged is what the client calls when its connection is made, lost or not made. It must not
// block: who publishes from here waits for a client that waits for him.
func (d *destination) linkChanged(s client.State) {
	if d.announcer != nil {
		d.announcer.Link(s.Connected)
	}
	d.Link(delivery.Link{
		Connected: s.Connected, URL: s.URL, Window: int(s.ReceiveMaximum), Resumed: s.SessionPresent, Err: s.Err, RetryIn: s.RetryIn,
		RetainsNothing: s.Server.Has(packet.PropRetainAvailable) && !s.Server.RetainAvailable, // [MQTT-3.2.2-14]
	})
}

// state is the retained message that tells whether the gateway is there; as a will, that it is not.
func (g *Gateway) state(online bool) mqtt.Message {
	text := "offline"
	if online {
		text = "online"
	}
	return mqtt.Message{
		Topic:   g.ownTopic("state"),
		Payload: []byte(text), QoS: mqtt.AtLeastOnce, Retain: true,
	}
}

// links are the broker and the connections. They say goodbye before they end, where they announce.
func (g *Gateway) links() (parts []part) {
	for _, d := range g.destinations {
		name, run := "broker", g.broker.Run
		if d.client != nil {
			name, run = fmt.Sprintf("connection to %q", d.name), d.client.Run
		}
		if d.announcer != nil {
			publisher := run
			run = func(ctx context.Context) error { return g.withState(ctx, d.pub, publisher) }
		}
		parts = append(parts, part{name, run})
	}
	return parts
}

// goodbye bounds how long the farewell may take.
const goodbye = time.Second

// withState runs a publisher until ctx ends, and then publishes that the gateway is offline before
// it lets it end: a will would say so only when a connection breaks.
func (g *Gateway) withState(ctx context.Context, pub delivery.Publisher, run func(context.Context) error) error {
	running, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	farewell := make(chan struct{})
	go func() {
		defer close(farewell)
		defer end()
		select {
		case <-ctx.Done():
		case <-running.Done():
			return
		}
		limit, cancel := context.WithTimeout(running, goodbye)
		defer cancel()
		g.farewell(limit, pub)
	}()
	err := run(running)
	end()
	<-farewell
	if errors.Is(err, context.Canceled) && ctx.Err() != nil {
		return nil
	}
	return err
}

// farewell publishes the account as it ended, and that the gateway is offline.
func (g *Gateway) farewell(ctx context.Context, pub delivery.Publisher) {
	account, offline := g.account(), g.state(false)
	var sent sync.WaitGroup
	for _, m := range []*mqtt.Message{&account, &offline} {
		sent.Add(1)
		if pub.Publish(ctx, m, func(error) { sent.Done() }) != nil {
			sent.Done()
		}
	}
	all := make(chan struct{})
	go func() {
		sent.Wait() // the publisher gives back what it has when it ends
		close(all)
	}()
	select {
	case <-all:
	case <-ctx.Done():
	}
}

func (g *Gateway) deliveries() (parts []part) {
	for _, d := range g.destinations {
		parts = append(parts, part{fmt.Sprintf("delivery to %q", d.name), d.Run})
		if d.announcer != nil {
			parts = append(parts, part{fmt.Sprintf("announcements to %q", d.name), d.announcer.Run})
		}
	}
	return parts
}
