package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"gateway/mqtt"
	"gateway/mqtt/packet"
)

const payloadSize = 64

// A scenario is a shape of load.
type scenario struct {
	qos        mqtt.QoS
	publishers int
	receivers  int
	window     int // messages of one publisher on their way
	batch      int
}

func (s scenario) String() string {
	return fmt.Sprintf("QoS %d, %d to %d", s.qos, s.publishers, s.receivers)
}

var scenarios = []scenario{
	{qos: 0, publishers: 1, receivers: 1, window: 200},
	{qos: 1, publishers: 1, receivers: 1, window: 200},
	{qos: 0, publishers: 50, receivers: 1, window: 20},
	{qos: 1, publishers: 50, receivers: 1, window: 20},
	{qos: 0, publishers: 1, receivers: 50, window: 20},
	{qos: 1, publishers: 1, receivers: 50, window: 20},
}

// A client is one connection of the load.
type client struct {
	nc net.Conn
	rd *packet.Reader
}

func dial(addr, id string) (*client, error) {
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	c := &client{nc, packet.NewReader(nc, 0, nil)}
	if err := c.send(&packet.Connect{Version: mqtt.V311, ClientID: id, CleanStart: true}); err != nil {
		return nil, err
	}
	f, err := c.rd.Next()
	if err != nil {
		return nil, err
	}
	var ack packet.Connack
	if err := ack.Decode(f, mqtt.V311); err != nil {
		return nil, err
	}
	if ack.Code != mqtt.Success {
		return nil, fmt.Errorf("CONNECT refused: %s", ack.Code)
	}
	return c, nil
}

func (c *client) send(p packet.Packet) error {
	b, err := p.Append(nil, mqtt.V311)
	if err != nil {
		return err
	}
	_, err = c.nc.Write(b)
	return err
}

func (c *client) subscribe(qos mqtt.QoS, filters ...string) error {
	s := &packet.Subscribe{ID: 1}
	for _, f := range filters {
		s.Subscriptions = append(s.Subscriptions, mqtt.Subscription{Filter: f, QoS: qos})
	}
	if err := c.send(s); err != nil {
		return err
	}
	f, err := c.rd.Next()
	if err != nil {
		return err
	}
	if f.Type != packet.SUBACK {
		return fmt.Errorf("got %s for SUBSCRIBE", f.Type)
	}
	return nil
}

// A load is a scenario at work.
type load struct {
	scenario
	clients   []*client
	delivered atomic.Int64
	tokens    *tokens
	stopping  chan struct{}
	failed    chan error
	wg        sync.WaitGroup
	tick      time.Duration // between messages, for latency; 0: as fast as it goes
	mu        sync.Mutex
	latencies []time.Duration
}

func startLoad(addr string, s scenario, tick time.Duration) (*load, error) {
	l := &load{
		scenario: s, tick: tick, tokens: newTokens(s.window * s.publishers),
		stopping: make(chan struct{}), failed: make(chan error, s.publishers+s.receivers),
	}
	for i := range s.receivers {
		c, err := dial(addr, fmt.Sprintf("sub-%d", i))
		if err == nil {
			err = c.subscribe(s.qos, "bench/+/value")
		}
		if err != nil {
			return nil, err
		}
		l.clients = append(l.clients, c)
		l.run(c, l.receive)
	}
	for i := range s.publishers {
		c, err := dial(addr, fmt.Sprintf("pub-%d", i))
		if err != nil {
			return nil, err
		}
		l.clients = append(l.clients, c)
		topic := fmt.Sprintf("bench/device-%02d/value", i)
		l.run(c, func(c *client) error { return l.publish(c, topic) })
	}
	return l, nil
}

func (l *load) run(c *client, f func(*client) error) {
	l.wg.Go(func() {
		if err := f(c); err != nil {
			select {
			case <-l.stopping:
			default:
				l.failed <- err
			}
		}
	})
}

func (l *load) stop() {
	close(l.stopping)
	l.tokens.close()
	for _, c := range l.clients {
		c.nc.Close()
	}
	l.wg.Wait()
}

// publish sends as fast as the windows allow, or one message each tick. It reads its acknowledgements
// itself, those that came together at once: a generator that switches between goroutines for each
// message measures itself.
func (l *load) publish(c *client, topic string) error {
	p := packet.Publish{QoS: l.qos, Topic: topic, Payload: make([]byte, payloadSize)}
	var out []byte
	var id uint16
	var ticks <-chan time.Time
	if l.tick > 0 {
		t := time.NewTicker(l.tick)
		defer t.Stop()
		ticks = t.C
	}
	free := l.window
	for {
		most := free
		if ticks != nil {
			select {
			case <-ticks:
			case <-l.stopping:
				return nil
			}
			most = 1
		}
		n := l.tokens.take(most)
		if n == 0 {
			return nil
		}
		for left := n; left > 0; {
			out = out[:0]
			for range min(left, max(1, l.batch)) {
				left--
				if l.qos > 0 {
					if id++; id == 0 {
						id = 1
					}
					p.ID = id
				}
				if l.tick > 0 {
					binary.BigEndian.PutUint64(p.Payload, uint64(time.Now().UnixNano()))
				}
				var err error
				if out, err = p.Append(out, mqtt.V311); err != nil {
					return err
				}
			}
			if _, err := c.nc.Write(out); err != nil {
				return err
			}
		}
		if l.qos == 0 {
			continue
		}
		free -= n
		for free == 0 || c.rd.Ready() {
			f, err := c.rd.Next()
			if err != nil {
				return err
			}
			if f.Type != packet.PUBACK {
				return fmt.Errorf("publisher got %s", f.Type)
			}
			free++
		}
	}
}

// tokens are the messages that may be on their way. Whoever takes some takes many, and wakes the
// next only where some are left.
type tokens struct {
	mu     sync.Mutex
	some   sync.Cond
	n      int
	closed bool
}

func newTokens(n int) *tokens {
	t := &tokens{n: n}
	t.some.L = &t.mu
	return t
}

// take waits for tokens and returns how many it took, at most most; 0 after close.
func (t *tokens) take(most int) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	for t.n == 0 && !t.closed {
		t.some.Wait()
	}
	if t.closed {
		return 0
	}
	n := min(t.n, most)
	if t.n -= n; t.n > 0 {
		t.some.Signal()
	}
	return n
}

func (t *tokens) give(n int) {
	t.mu.Lock()
	t.n += n
	t.mu.Unlock()
	t.some.Signal()
}

func (t *tokens) close() {
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	t.some.Broadcast()
}

// receive counts and acknowledges; what was read together is acknowledged together.
func (l *load) receive(c *client) error {
	var p packet.Publish
	var acks []byte
	var got int64
	for {
		f, err := c.rd.Next()
		if err != nil {
			return err
		}
		if f.Type != packet.PUBLISH {
			return fmt.Errorf("receiver got %s", f.Type)
		}
		if err := p.Decode(f, mqtt.V311); err != nil {
			return err
		}
		if len(p.Payload) != payloadSize {
			return errors.New("payload has another size")
		}
		if l.tick > 0 {
			d := time.Since(time.Unix(0, int64(binary.BigEndian.Uint64(p.Payload))))
			l.mu.Lock()
			l.latencies = append(l.latencies, d)
			l.mu.Unlock()
		}
		if p.QoS > 0 {
			acks = append(acks, 0x40, 2, byte(p.ID>>8), byte(p.ID))
		}
		got++
		if c.rd.Ready() {
			continue
		}
		total, each := l.delivered.Add(got), int64(l.receivers)
		if n := total/each - (total-got)/each; n > 0 {
			l.tokens.give(int(n))
		}
		got = 0
		if len(acks) > 0 {
			if _, err := c.nc.Write(acks); err != nil {
				return err
			}
			acks = acks[:0]
		}
	}
}

// wait lets the load run.
func (l *load) wait(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case err := <-l.failed:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func percentile(d []time.Duration, p float64) time.Duration {
	slices.Sort(d)
	return d[min(len(d)-1, int(p*float64(len(d))))]
}
