package client

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"sync"
	"time"

	"gateway/mqtt"
)

// A Client is made by New and lives while Run does. Its methods are safe for concurrent use.
type Client struct {
	opt  Options
	urls []*url.URL
	log  *slog.Logger

	slots chan struct{} // one for each message that Publish took and that is not done
	over  chan struct{} // closed when Run ends

	auth  auth
	inbox *inbox
	turn  chan struct{} // holds a value while a message is handled and acknowledged

	mu       sync.Mutex
	out      outbox
	in       map[uint16]*exchange
	link     *link // nil: not connected
	waiting  []*request
	subs     []mqtt.Subscription
	handlers []*handler
	id       string // the client identifier, once known
	started  bool
	ended    bool
	stats    Stats
}

type handler struct {
	filter string // without share prefix
	f      func(mqtt.Message)
}

// New checks the options. Nothing happens before Run, but Publish and Subscribe already queue.
func New(o Options) (*Client, error) {
	if err := o.defaults(); err != nil {
		return nil, err
	}
	c := &Client{
		opt: o, log: o.Logger, id: o.ClientID,
		slots: make(chan struct{}, o.MaxUnacked), over: make(chan struct{}),
		auth: newAuth(o.Auth), inbox: newInbox(), turn: make(chan struct{}, 1), out: newOutbox(), in: map[uint16]*exchange{},
	}
	for _, s := range o.URLs {
		u, err := parseURL(s)
		if err != nil {
			return nil, err
		}
		c.urls = append(c.urls, u)
	}
	return c, nil
}

// randomID makes a client identifier that every server must accept [MQTT-3.1.3-5].
func randomID() string {
	var b [8]byte
	rand.Read(b[:])
	return "gw" + hex.EncodeToString(b[:])
}

// Publish queues a message for sending, also while there is no connection, and returns. It blocks only while
// MaxUnacked messages are not done, until ctx ends. When it returns nil, done is called once: with nil
// when the server has taken the message (QoS 0: when it is written), with *mqtt.ReasonError when the
// server refused it or could not take it, with ErrWithdrawn, ErrClosed or, at QoS 0, ErrLost. done may be
// nil; it must neither block nor call Publish, and m must not be changed before.
//
// Messages of one QoS arrive in the order of Publish [MQTT-4.6.0-1]. A message that was on its way when
// the connection was lost may arrive twice; at QoS 2 only if the server lost the session.
func (c *Client) Publish(ctx context.Context, m *mqtt.Message, done func(error)) error {
	if err := check(m); err != nil {
		return err
	}
	select {
	case c.slots <- struct{}{}:
	default:
		select {
		case c.slots <- struct{}{}:
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-c.over:
			return ErrClosed
		}
	}
	c.mu.Lock()
	if c.ended {
		c.mu.Unlock()
		<-c.slots
		return ErrClosed
	}
	c.out.push(&outgoing{m: m, qos: m.QoS, done: done})
	l := c.link
	c.mu.Unlock()
	l.kick()
	return nil
}

// finish ends a message that was taken out of the outbox. Not to be called with c.mu held.
func (c *Client) finish(o *outgoing, err error) {
	if o.m == nil {
		return
	}
	if o.done != nil {
		o.done(err)
	}
	<-c.slots
}

// Withdraw gives all messages that are not acknowledged back, their done called with ErrWithdrawn. The
// server may have got some of them, or get them yet.
func (c *Client) Withdraw() {
	c.mu.Lock()
	all := c.out.withdraw()
	c.mu.Unlock()
	for _, o := range all {
		c.finish(o, ErrWithdrawn)
	}
}

// abandoned is why a connection ended that Reconnect ended.
type abandoned struct{ why error }

func (a *abandoned) Error() string { return a.why.Error() }
func (a *abandoned) Unwrap() error { return a.why }

// Reconnect ends the connection that there is for a reason of the caller's, such as a server that
// answers PINGREQ and acknowledges nothing, and makes a new one: with several URLs, at the next.
func (c *Client) Reconnect(why error) {
	c.mu.Lock()
	l := c.link
	c.mu.Unlock()
	if l != nil {
		l.end(&abandoned{why})
	}
}

// Handle calls f for each received message whose topic matches the filter, until remove is called. It
// does not subscribe. Where several match, all are called, in the order of Handle; where the server
// sends a message once for each of several subscriptions, so are they each time.
func (c *Client) Handle(filter string, f func(mqtt.Message)) (remove func(), err error) {
	if err := mqtt.CheckTopicFilter(filter); err != nil {
		return nil, err
	}
	_, filter = mqtt.SplitShare(filter)
	h := &handler{filter, f}
	c.mu.Lock()
	c.handlers = append(c.handlers, h)
	c.mu.Unlock()
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.handlers = slices.DeleteFunc(slices.Clone(c.handlers), func(x *handler) bool { return x == h })
	}, nil
}

// Stats returns the counters.
func (c *Client) Stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.stats
	if s.Unacked = c.out.n; c.link != nil {
		s.Inflight = c.out.inflight
	}
	return s
}

// Run keeps the client connected until ctx ends, then says DISCONNECT and returns nil; what is not
// acknowledged is done with ErrClosed. It returns an error only when it is called twice. Every
// goroutine of the client has ended when it returns; it waits for a handler that is at work.
func (c *Client) Run(ctx context.Context) error {
	c.mu.Lock()
	if c.started {
		c.mu.Unlock()
		return errRunning
	}
	c.started = true
	c.mu.Unlock()

	var handling sync.WaitGroup
	handling.Go(func() { c.handle(ctx) })
	c.connectForever(ctx)

	c.mu.Lock()
	c.ended = true
	left := c.out.withdraw()
	requests := c.waiting
	c.waiting = nil
	c.mu.Unlock()
	close(c.over)
	for _, o := range left {
		c.finish(o, ErrClosed)
	}
	for _, r := range requests {
		r.finish(nil, ErrClosed)
	}
	c.inbox.close()
	handling.Wait()
	return nil
}

// connectForever tries the URLs in order. Between rounds it pauses; after a connection that lasted it
// begins at the first again, at once. A server that lets us in and throws us out, or one that was left
// because it does not do its work, is no better than one that cannot be reached: the next has its turn.
func (c *Client) connectForever(ctx context.Context) {
	versions := make([]mqtt.Version, len(c.urls)) // what each server turned out to speak; 0: not known
	failures, evictions, at := 0, 0, 0
	gaveWay := time.Duration(0) // the last pause that was made for another client with our identifier
	for ctx.Err() == nil {
		u := c.urls[at]
		l, err := c.connect(ctx, u, &versions[at])
		established := err == nil
		began := time.Now()
		if established {
			c.attach(l)
			c.report(l.state)
			c.log.Info("mqtt client: connected", "url", shown(u), "version", l.v, "session", l.state.SessionPresent)
			err = l.serve(ctx)
		}
		if ctx.Err() != nil {
			if established {
				c.report(State{URL: shown(u), Since: time.Now(), Err: ErrClosed})
			}
			return
		}
		age := time.Since(began)
		lasted := established && age >= c.opt.Backoff.Healthy
		if lasted {
			failures = 0
			// The other one may be as patient as we are, and then it is its pause that was quiet.
			if age >= c.opt.Backoff.Healthy+2*gaveWay {
				evictions, gaveWay = 0, 0
			}
		}
		failures++
		st := State{URL: shown(u), Since: time.Now(), Err: err, Reason: reasonOf(err), Attempt: failures}
		// 3.1.1 has no word for it: thrown out soon after having been let in, time and again.
		thrown := st.Reason == mqtt.SessionTakenOver || established && !lasted && isClosed(err)
		switch {
		case thrown:
			evictions++
		case gaveWay == 0:
			evictions = 0
		}
		_, left := errors.AsType[*abandoned](err)
		if at++; at == len(c.urls) || lasted && !left {
			at = 0
		}
		if at == 0 {
			st.RetryIn = c.opt.Backoff.pause((failures-1)/len(c.urls) + 1)
		}
		if st.Reason == mqtt.SessionTakenOver || thrown && evictions >= suspicious {
			st.Evicted = evictions
			// Where the server has not said so it is a guess, and a link that breaks often looks the same:
			// the guess is told, but no pause is longer for it.
			if st.Reason == mqtt.SessionTakenOver {
				gaveWay = evicted.pause(evictions)
				st.RetryIn = max(st.RetryIn, gaveWay)
			}
			c.log.Warn("mqtt client: thrown out by the server again; probably another client uses the same client identifier",
				"url", st.URL, "client_id", c.clientID(), "times", evictions, "retry_in", st.RetryIn.Round(time.Millisecond))
		} else {
			c.log.Warn("mqtt client: not connected", "url", st.URL, "err", err, "retry_in", st.RetryIn.Round(time.Millisecond))
		}
		c.report(st)
		if st.RetryIn > 0 {
			t := time.NewTimer(st.RetryIn)
			select {
			case <-t.C:
			case <-ctx.Done():
				t.Stop()
			}
		}
	}
}

func (c *Client) report(s State) {
	if c.opt.OnState != nil {
		c.opt.OnState(s)
	}
}

func (c *Client) clientID() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.id
}

// handle calls the handlers until the inbox is closed or ctx ends: what has not been handled then is not
// acknowledged either.
func (c *Client) handle(ctx context.Context) {
	var batch []incoming
	for {
		var ok bool
		if batch, ok = c.inbox.take(batch); !ok {
			return
		}
		for i := range batch {
			if !c.handleOne(ctx, &batch[i]) {
				return
			}
			batch[i] = incoming{}
		}
	}
}

func (c *Client) handleOne(ctx context.Context, in *incoming) bool {
	c.turn <- struct{}{}
	defer func() { <-c.turn }()
	if ctx.Err() != nil {
		return false
	}
	c.dispatch(in.m)
	c.inbox.handled(&in.m)
	c.acknowledge(in)
	return true
}

func (c *Client) dispatch(m mqtt.Message) {
	c.mu.Lock()
	handlers := c.handlers
	c.mu.Unlock()
	taken := false
	for _, h := range handlers {
		if mqtt.Match(h.filter, m.Topic) {
			taken = true
			h.f(m)
		}
	}
	if !taken && c.opt.Handler != nil {
		c.opt.Handler(m)
	}
}

// reasonError wraps a refusal.
func refusal(op string, code mqtt.ReasonCode, detail string) error {
	return fmt.Errorf("mqtt client: %w", &mqtt.ReasonError{Op: op, Code: code, Detail: detail})
}
