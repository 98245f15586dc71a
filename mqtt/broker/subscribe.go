package broker

import (
	"strings"

	"gateway/mqtt"
	"gateway/mqtt/packet"
)

// onSubscribe answers SUBSCRIBE with one reason code for each filter [MQTT-3.8.4-5] [MQTT-3.8.4-6]
// and sends the retained messages.
func (c *conn) onSubscribe(w *worker, f packet.Frame) error {
	var p packet.Subscribe
	if err := p.Decode(f, c.version); err != nil {
		return err
	}
	var id uint32
	if p.Properties.Has(packet.PropSubscriptionID) {
		id = p.Properties.SubscriptionID[0]
	}
	s := c.sess
	ack := packet.Suback{ID: p.ID, Codes: make([]mqtt.ReasonCode, len(p.Subscriptions))}
	var after uint64
	fresh := make([]bool, len(p.Subscriptions))
	c.b.journal.enter()
	for i := range p.Subscriptions {
		sub := &p.Subscriptions[i]
		if ack.Codes[i] = c.mayTake(sub); ack.Codes[i].IsError() {
			c.b.stats.refused.Add(1)
			c.b.refused("subscription refused", "client", c.id(), "filter", sub.Filter, "reason", ack.Codes[i])
			continue
		}
		sub.QoS = min(sub.QoS, *c.b.opt.MaxQoS)
		if c.bridge {
			asBridge(sub)
		}
		var lsn uint64
		ack.Codes[i], fresh[i], lsn = s.subscribe(c, sub, id)
		after = max(after, lsn)
	}
	c.b.journal.leave()
	if err := c.packet(w, &ack, after); err != nil {
		return err
	}
	var wanted []mqtt.Subscription // whose retained messages are to be sent
	for i, sub := range p.Subscriptions {
		if group, _ := mqtt.SplitShare(sub.Filter); ack.Codes[i].IsError() || group != "" {
			continue // (3.8.4: nothing retained for shared subscriptions)
		}
		if sub.RetainHandling == mqtt.RetainSend || sub.RetainHandling == mqtt.RetainSendIfNew && fresh[i] {
			wanted = append(wanted, sub)
		}
	}
	if len(wanted) == 0 {
		return nil
	}
	send := func(w *worker) {
		for i := range wanted {
			s.sendRetained(w, c, &wanted[i], id)
		}
	}
	if !c.postpone(send) {
		send(w)
	}
	return nil
}

// asBridge gives a bridge's subscription the options that it could not ask for before 5.0: what it brings does
// not go back the way that it came, and what was published to be retained is so on the other side, too.
func asBridge(sub *mqtt.Subscription) {
	group, _ := mqtt.SplitShare(sub.Filter)
	sub.NoLocal, sub.RetainAsPublished = group == "", true // [MQTT-3.8.3-4]
}

// mayTake judges a filter.
func (c *conn) mayTake(sub *mqtt.Subscription) mqtt.ReasonCode {
	o := &c.b.opt
	group, filter := mqtt.SplitShare(sub.Filter)
	switch {
	case group != "" && o.NoShared:
		return mqtt.SharedNotSupported
	case o.NoWildcards && mqtt.HasWildcard(filter):
		return mqtt.WildcardsNotSupported
	case strings.Count(filter, "/") >= o.Limits.TopicLevels:
		return mqtt.TopicFilterInvalid
	case !c.b.allow(c.client, Subscribe, filter):
		return mqtt.NotAuthorized
	}
	return mqtt.Success
}

// subscribe adds a subscription or puts it in the place of that with the same filter [MQTT-3.8.4-3].
// It returns the QoS granted, or why there is none, and whether it is new.
func (s *session) subscribe(c *conn, q *mqtt.Subscription, id uint32) (code mqtt.ReasonCode, fresh bool, lsn uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended || s.conn != c {
		return mqtt.UnspecifiedError, false, 0
	}
	old := s.subs[q.Filter]
	l := &s.b.opt.Limits
	if n := cost(q.Filter); old == nil && (s.cost+n > l.Subscriptions || s.b.subs.cost.Load()+int64(n) > int64(l.SubscriptionsAll)) {
		return mqtt.QuotaExceeded, false, 0
	}
	s.add(q, id)
	return mqtt.ReasonCode(q.QoS), old == nil, s.b.journal.subscribed(s, q, id)
}

// add puts a subscription into the session and the tree. It needs mu.
func (s *session) add(q *mqtt.Subscription, id uint32) {
	sub := &subscription{sess: s, id: id, qos: q.QoS, local: q.NoLocal, rap: q.RetainAsPublished}
	if old := s.subs[q.Filter]; old != nil {
		sub.filter = old.filter
		s.b.subs.replace(old, sub)
	} else {
		sub.filter = strings.Clone(q.Filter) // the rest of the packet goes
		s.b.subs.add(sub)
	}
	s.keep(sub)
}

// keep notes a subscription of the session. It needs mu.
func (s *session) keep(sub *subscription) {
	if s.subs == nil {
		s.subs = make(map[string]*subscription)
	}
	if s.subs[sub.filter] == nil {
		s.cost += cost(sub.filter)
	}
	s.subs[sub.filter] = sub
}

// dropSub forgets a subscription of the session. It needs mu.
func (s *session) dropSub(filter string) {
	if s.subs[filter] != nil {
		s.cost -= cost(filter)
		delete(s.subs, filter)
	}
}

// sendRetained queues the retained messages that a filter matches, with the retain flag
// [MQTT-3.3.1-8] and the subscription's identifier.
func (s *session) sendRetained(w *worker, c *conn, q *mqtt.Subscription, id uint32) {
	b := s.b
	ms := b.retained.matching(q.Filter, b.now())
	if len(ms) == 0 {
		return
	}
	var ids []uint32
	if id != 0 {
		ids = []uint32{id}
	}
	b.journal.enter()
	defer b.journal.leave()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended || s.conn != c {
		return
	}
	bound := b.opt.Limits.QueuedMessages + b.opt.Limits.Retained
	for _, m := range ms {
		if !b.allow(c.client, Receive, m.Topic) {
			continue
		}
		if s.queue.n >= bound || !b.roomFor(overhead) {
			b.stats.dropped.Add(1)
			b.refused("queue full, retained message dropped", "client", s.id, "topic", m.Topic)
			continue
		}
		// A stored message may wait for several sessions at once under several numbers: each
		// hand-over of a retained one is a message of its own.
		d := s.newDelivery()
		d.qos, d.retain, d.ids, d.exempt = min(m.QoS, q.QoS), true, ids, true
		d.msg = b.journal.queued(s, m, d)
		s.queue.push(d)
		s.wait(d, 1)
	}
	s.pump(w)
}

// onUnsubscribe ends subscriptions (3.10). What is in flight or queued already still comes
// [MQTT-3.10.4-3].
func (c *conn) onUnsubscribe(w *worker, f packet.Frame) error {
	var p packet.Unsubscribe
	if err := p.Decode(f, c.version); err != nil {
		return err
	}
	s := c.sess
	ack := packet.Unsuback{ID: p.ID, Codes: make([]mqtt.ReasonCode, len(p.Filters))}
	var after uint64
	c.b.journal.enter()
	s.mu.Lock()
	for i, filter := range p.Filters {
		sub := s.subs[filter]
		if sub == nil || s.conn != c {
			ack.Codes[i] = mqtt.NoSubscriptionExisted
			after = max(after, s.b.journal.last(s)) // a former connection may have ended it just now
			continue
		}
		sub.gone = true
		s.dropSub(filter)
		s.b.subs.remove(sub)
		after = max(after, s.b.journal.unsubscribed(s, filter))
	}
	s.mu.Unlock()
	c.b.journal.leave()
	return c.packet(w, &ack, after)
}
