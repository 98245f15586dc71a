package client

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"gateway/mqtt"
	"gateway/mqtt/packet"
)

// A request is a SUBSCRIBE or UNSUBSCRIBE that waits to be sent or answered.
type request struct {
	id     uint16 // under which it was sent last
	subs   []mqtt.Subscription
	unsubs []string
	again  bool // the client's own, after the server lost the session
	// Nobody waits for the answer any more: when the connection is lost before it, it is not asked for again.
	abandoned bool
	answer    chan answer
}

type answer struct {
	codes []mqtt.ReasonCode
	err   error
}

func (r *request) finish(codes []mqtt.ReasonCode, err error) {
	select {
	case r.answer <- answer{codes, err}:
	default: // nobody waits for an own one
	}
}

func sortRequests(r []*request) []*request {
	slices.SortFunc(r, func(a, b *request) int { return cmp.Compare(a.id, b.id) })
	return r
}

// Subscribe asks for subscriptions and returns the server's code for each; it waits for a connection
// and for the answer until ctx ends. A code of 0x80 or more is a refusal, and no error. What was
// granted is asked for again by the client whenever the server lost the session.
func (c *Client) Subscribe(ctx context.Context, subs ...mqtt.Subscription) ([]mqtt.ReasonCode, error) {
	if len(subs) == 0 {
		return nil, errors.New("mqtt client: no subscription")
	}
	for _, s := range subs {
		if err := mqtt.CheckTopicFilter(s.Filter); err != nil {
			return nil, err
		}
		if s.QoS > mqtt.ExactlyOnce || s.RetainHandling > mqtt.RetainDoNotSend {
			return nil, fmt.Errorf("mqtt client: subscription to %q: qos or retain handling is greater than 2", s.Filter)
		}
		if group, _ := mqtt.SplitShare(s.Filter); group != "" && s.NoLocal {
			return nil, fmt.Errorf("mqtt client: subscription to %q: no local on a shared subscription [MQTT-3.8.3-4]", s.Filter)
		}
	}
	return c.request(ctx, &request{subs: slices.Clone(subs)})
}

// Unsubscribe ends subscriptions and returns the server's code for each, success throughout before 5.0.
func (c *Client) Unsubscribe(ctx context.Context, filters ...string) ([]mqtt.ReasonCode, error) {
	if len(filters) == 0 {
		return nil, errors.New("mqtt client: no filter")
	}
	for _, f := range filters {
		if err := mqtt.CheckTopicFilter(f); err != nil {
			return nil, err
		}
	}
	return c.request(ctx, &request{unsubs: slices.Clone(filters)})
}

func (c *Client) request(ctx context.Context, r *request) ([]mqtt.ReasonCode, error) {
	r.answer = make(chan answer, 1)
	c.mu.Lock()
	if c.ended {
		c.mu.Unlock()
		return nil, ErrClosed
	}
	c.waiting = append(c.waiting, r)
	l := c.link
	c.mu.Unlock()
	l.kick()
	select {
	case a := <-r.answer:
		return a.codes, a.err
	case <-ctx.Done():
		c.mu.Lock()
		r.abandoned = true
		c.waiting = slices.DeleteFunc(c.waiting, func(x *request) bool { return x == r })
		c.mu.Unlock()
		return nil, context.Cause(ctx)
	}
}

// resubscribe asks again for all that was granted. Called with c.mu held.
func (c *Client) resubscribe() {
	c.waiting = slices.DeleteFunc(c.waiting, func(r *request) bool { return r.again })
	if len(c.subs) > 0 {
		// A few at a time, so that no server finds the packet too large.
		var own []*request
		for subs := range slices.Chunk(slices.Clone(c.subs), 32) {
			own = append(own, &request{subs: subs, again: true, answer: make(chan answer, 1)})
		}
		c.waiting = append(own, c.waiting...)
	}
}

// fillRequests appends the waiting requests. Called with c.mu held.
func (l *link) fillRequests(buf []byte) []byte {
	c := l.c
	for len(c.waiting) > 0 && len(buf) < batchBytes {
		r := c.waiting[0]
		if err := l.unsupported(r); err != nil {
			c.waiting = slices.Delete(c.waiting, 0, 1)
			r.finish(nil, err)
			continue
		}
		id := c.out.newID()
		if id == 0 {
			break
		}
		var p packet.Packet = &packet.Subscribe{ID: id, Subscriptions: r.subs}
		if r.unsubs != nil {
			p = &packet.Unsubscribe{ID: id, Filters: r.unsubs}
		}
		before := len(buf)
		var err error
		buf, err = p.Append(buf, l.v)
		if err == nil && len(buf)-before > l.maxPacket {
			buf, err = buf[:before], refusal("subscribe", mqtt.PacketTooLarge, "")
		}
		c.waiting = slices.Delete(c.waiting, 0, 1)
		if err != nil {
			r.finish(nil, err)
			continue
		}
		r.id = id
		c.out.requests[id] = r
	}
	return buf
}

// unsupported says what of a request the server has said it does not do: to ask for it would end the connection, and
// the next as well (3.2.2.3.11, 3.2.2.3.13). Of the client's own it is left out; that is an error only when nothing
// stays.
func (l *link) unsupported(r *request) error {
	var err error
	can := slices.DeleteFunc(slices.Clone(r.subs), func(s mqtt.Subscription) bool {
		group, _ := mqtt.SplitShare(s.Filter)
		switch {
		case l.noWildcard && mqtt.HasWildcard(s.Filter):
			err = refusal("subscribe", mqtt.WildcardsNotSupported, s.Filter)
		case l.noShared && group != "":
			err = refusal("subscribe", mqtt.SharedNotSupported, s.Filter)
		default:
			return false
		}
		return true
	})
	if err != nil && r.again {
		l.c.log.Error("mqtt client: server does not take a subscription that it had granted", "url", l.state.URL, "err", err)
		if r.subs = can; len(can) > 0 {
			return nil
		}
	}
	return err
}

// answered returns the request that a packet answers, nil if none. Called with c.mu held.
func (l *link) answered(t packet.Type, id uint16) *request {
	r := l.c.out.requests[id]
	if r == nil || (t == packet.UNSUBACK) != (r.unsubs != nil) {
		return nil
	}
	delete(l.c.out.requests, id)
	return r
}

func (l *link) suback(f packet.Frame) error {
	var p packet.Suback
	if err := p.Decode(f, l.v); err != nil {
		return err
	}
	c := l.c
	c.mu.Lock()
	defer c.mu.Unlock()
	r := l.answered(f.Type, p.ID)
	if r == nil {
		return nil
	}
	if len(p.Codes) != len(r.subs) {
		r.finish(nil, errors.New("mqtt client: server answered another number of subscriptions than was asked for"))
		return wrong(f.Type, "MQTT-3.9.3-1", "number of reason codes is not that of the filters")
	}
	for i, s := range r.subs {
		refused := p.Codes[i].IsError()
		if r.again {
			if refused { // perhaps it, or another of the URLs, grants it the next time
				c.log.Error("mqtt client: server refuses a subscription that it had granted", "url", l.state.URL, "filter", s.Filter, "reason", p.Codes[i].String())
			}
			continue
		}
		c.subs = slices.DeleteFunc(c.subs, func(x mqtt.Subscription) bool { return x.Filter == s.Filter })
		if !refused {
			c.subs = append(c.subs, s)
		}
	}
	r.finish(p.Codes, nil)
	l.kick()
	return nil
}

func (l *link) unsuback(f packet.Frame) error {
	var p packet.Unsuback
	if err := p.Decode(f, l.v); err != nil {
		return err
	}
	c := l.c
	c.mu.Lock()
	defer c.mu.Unlock()
	r := l.answered(f.Type, p.ID)
	if r == nil {
		return nil
	}
	if l.v != mqtt.V5 {
		p.Codes = make([]mqtt.ReasonCode, len(r.unsubs))
	}
	if len(p.Codes) != len(r.unsubs) {
		r.finish(nil, errors.New("mqtt client: server answered another number of filters than was asked for"))
		return wrong(f.Type, "MQTT-3.11.3-1", "number of reason codes is not that of the filters")
	}
	for i, filter := range r.unsubs {
		if !p.Codes[i].IsError() {
			c.subs = slices.DeleteFunc(c.subs, func(x mqtt.Subscription) bool { return x.Filter == filter })
		}
	}
	r.finish(p.Codes, nil)
	l.kick()
	return nil
}
