package broker

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"gateway/mqtt"
	"gateway/mqtt/packet"
)

// onPublish takes a message from a client (3.3, 4.3).
func (c *conn) onPublish(w *worker, f packet.Frame) error {
	p := &w.pub
	p.prepare(c.topic)
	if err := p.p.Decode(f, c.version); err != nil {
		return err
	}
	if err := c.resolveAlias(&p.p); err != nil {
		return err
	}
	c.topic = p.p.Topic
	o := &c.b.opt
	switch {
	case p.p.QoS > *o.MaxQoS: // [MQTT-3.2.2-11]
		return refuse(mqtt.QoSNotSupported, "qos %d is more than %d", p.p.QoS, *o.MaxQoS)
	case p.p.Retain && o.NoRetain: // [MQTT-3.2.2-14]
		return refuse(mqtt.RetainNotSupported, "retained messages are not available")
	}
	p.take(p.now)
	w.published++
	r := c.route(p.p.Topic)
	if len(r.targets) == 0 {
		r = c.lookAgain(w, r)
	}
	id := p.p.ID
	refused := r.refused
	if o.MaxPayload > 0 && len(p.p.Payload) > o.MaxPayload {
		refused = mqtt.QuotaExceeded
	}
	if refused != mqtt.Success {
		c.b.stats.refused.Add(1)
		c.b.refused("message refused", "client", c.id(), "topic", p.p.Topic, "reason", refused)
		if c.version != mqtt.V5 {
			refused = mqtt.Success // there is no way to tell; it is acknowledged [MQTT-3.3.5-2 of 3.1.1]
		}
	}
	switch p.qos {
	case mqtt.AtMostOnce:
		if c.accepts(r, p) {
			c.b.publish(w, r, receipt{})
		}
	case mqtt.AtLeastOnce:
		if c.version == mqtt.V5 && int(c.unacked.Load())+c.sess.incomingCount() >= int(o.ReceiveMaximum) { // [MQTT-3.3.4-7]
			return refuse(mqtt.ReceiveMaximumExceeded, "more than %d unacknowledged messages", o.ReceiveMaximum)
		}
		c.forward(w, r, receipt{c, packet.PUBACK, id, refused})
	case mqtt.ExactlyOnce:
		return c.onExactlyOnce(w, r, id, refused)
	}
	return nil
}

// accepts tells whether the publication is to be forwarded.
func (c *conn) accepts(r *route, p *publication) bool {
	return r.refused == mqtt.Success && (c.b.opt.MaxPayload <= 0 || len(p.p.Payload) <= c.b.opt.MaxPayload)
}

// onExactlyOnce takes a QoS 2 message: its identifier is noted and it is forwarded at once, and not
// again until PUBREL has come [MQTT-4.3.3-10].
func (c *conn) onExactlyOnce(w *worker, r *route, id uint16, refused mqtt.ReasonCode) error {
	s := c.sess
	s.mu.Lock()
	_, again := s.incoming[id]
	count := len(s.incoming)
	// One too many is not noted: the client will send it again, and then it must not be taken for known.
	tooMany := !again && c.version == mqtt.V5 && count+int(c.unacked.Load()) >= int(c.b.opt.ReceiveMaximum)
	if !again && !tooMany && !refused.IsError() {
		if s.incoming == nil {
			s.incoming = make(map[uint16]uint64)
		}
		s.incoming[id] = unrecorded
	}
	s.mu.Unlock()
	switch {
	case again:
		c.ack(w, packet.PUBREC, id, mqtt.Success, c.b.journal.last(s))
		return nil
	case tooMany: // [MQTT-3.3.4-7]
		return refuse(mqtt.ReceiveMaximumExceeded, "more than %d unacknowledged messages", c.b.opt.ReceiveMaximum)
	}
	c.forward(w, r, receipt{c, packet.PUBREC, id, refused})
	return nil
}

// forward publishes what is accepted, and answers it or what is not.
func (c *conn) forward(w *worker, r *route, rc receipt) {
	if !c.accepts(r, &w.pub) {
		rc.give(w, 0)
		return
	}
	if len(r.targets) == 0 && c.version == mqtt.V5 {
		rc.code = mqtt.NoMatchingSubscribers
	}
	c.b.publish(w, r, rc)
}

// A receipt is the answer to a client's message of QoS 1 or 2. The zero receipt is none.
type receipt struct {
	c      *conn
	answer packet.Type // PUBACK or PUBREC
	id     uint16
	code   mqtt.ReasonCode
}

// remembers is the session that has to know the message's identifier, nil for none.
func (rc receipt) remembers() *session {
	if rc.answer != packet.PUBREC {
		return nil
	}
	return rc.c.sess
}

// give answers, once the store has synced after.
func (rc receipt) give(w *worker, after uint64) {
	if rc.c == nil {
		return
	}
	if s := rc.remembers(); s != nil {
		s.mu.Lock()
		if _, known := s.incoming[rc.id]; known {
			s.incoming[rc.id] = after
		}
		s.mu.Unlock()
	}
	rc.c.ack(w, rc.answer, rc.id, rc.code, after)
}

// unrecorded is where an identifier stands in the store before its message does.
const unrecorded = math.MaxUint64

// onPubrel lets an identifier go [MQTT-4.3.3-11]. PUBCOMP waits for the store, or the identifier's next
// message could be taken for the old one after a power cut.
func (c *conn) onPubrel(w *worker, id uint16) {
	s := c.sess
	code := mqtt.Success
	var after uint64
	s.mu.Lock()
	if _, known := s.incoming[id]; known && s.conn == c {
		delete(s.incoming, id)
		after = c.b.journal.forgotten(s, id)
	} else if !known {
		code = mqtt.PacketIDNotFound
		after = c.b.journal.last(s) // a former connection may have let it go just now
	}
	s.mu.Unlock()
	c.ack(w, packet.PUBCOMP, id, code, after)
}

func (s *session) incomingCount() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.incoming)
}

// resolveAlias puts the topic in for a topic alias (3.3.2.3.4).
func (c *conn) resolveAlias(p *packet.Publish) error {
	ps := &p.Properties
	if ps.None() {
		return nil
	}
	if ps.Has(packet.PropSubscriptionID) {
		return refuse(mqtt.ProtocolError, "subscription identifier in a client's PUBLISH [MQTT-3.3.4-6]")
	}
	if !ps.Has(packet.PropTopicAlias) {
		return nil
	}
	alias := ps.TopicAlias
	if alias == 0 || alias > c.b.opt.TopicAliasMaximum { // [MQTT-3.3.2-8] [MQTT-3.2.2-17]
		return refuse(mqtt.TopicAliasInvalid, "topic alias %d is not in 1 to %d", alias, c.b.opt.TopicAliasMaximum)
	}
	if p.Topic == "" {
		topic, known := c.aliasIn[alias]
		if !known {
			return refuse(mqtt.ProtocolError, "topic alias %d is unknown", alias)
		}
		p.Topic = topic
	} else {
		if c.aliasIn == nil {
			c.aliasIn = make(map[uint16]string)
		}
		if c.aliasSize += len(p.Topic) - len(c.aliasIn[alias]); c.aliasSize > maxAliasBytes {
			return refuse(mqtt.QuotaExceeded, "topics of topic aliases are longer than %d bytes together", maxAliasBytes)
		}
		c.aliasIn[alias] = strings.Clone(p.Topic)
	}
	ps.Remove(packet.PropTopicAlias) // an alias is of one connection only
	return nil
}

// route returns who gets what this connection publishes to a topic, remembered as long as nothing
// changes about it.
func (c *conn) route(topic string) *route {
	r := c.routes[topic]
	if r == nil || !c.b.fresh(r) {
		r = c.b.route(topic, c.sess, c.client)
		if old := c.routes[r.topic]; old != nil {
			c.routed -= old.size()
		}
		if c.routes == nil || len(c.routes) >= maxRoutes || c.routed+r.size() > maxRouteBytes {
			c.routes, c.routed = make(map[string]*route), 0
		}
		c.routes[r.topic] = r
		c.routed += r.size()
	}
	return r
}

func (b *Broker) fresh(r *route) bool {
	return r.gen == b.subs.gen.Load() && r.acl == b.aclGen.Load()
}

// route makes a route. client is who publishes; nil is the broker's own process.
func (b *Broker) route(topic string, s *session, client *Client) *route {
	topic = strings.Clone(topic) // it may be part of a longer string
	r := &route{topic: topic, acl: b.aclGen.Load()}
	switch {
	case strings.Count(topic, "/") >= b.opt.Limits.TopicLevels:
		r.refused = mqtt.TopicNameInvalid
	case client != nil && !b.allow(client, Publish, topic):
		r.refused = mqtt.NotAuthorized
	}
	r.targets, r.gen = b.subs.route(topic, s, func(to *session) bool { return b.mayHave(to, topic) })
	return r
}

// mayHave asks the ACL whether a session's client may receive what is published to a topic.
func (b *Broker) mayHave(s *session, topic string) bool {
	return b.allow(s.ident.Load(), Receive, topic)
}

// allow asks the ACL. Nobody but the broker publishes to $SYS (4.7.2).
func (b *Broker) allow(c *Client, a Access, topic string) bool {
	if a == Publish && (topic == "$SYS" || strings.HasPrefix(topic, "$SYS/") || strings.HasPrefix(topic, "$share/")) {
		return false
	}
	return b.opt.ACL == nil || c == nil || b.opt.ACL.Allow(c, a, topic)
}

// publish hands w.pub to everybody who is to have it. It returns what the store must have synced
// before the publisher may be told, 0 for nothing. A receipt is given before anything is forwarded: a client that
// gets its own message has had the answer to it, if that need not wait, and may leave.
func (b *Broker) publish(w *worker, r *route, rc receipt) (after uint64) {
	p := &w.pub
	p.p.Topic = r.topic
	b.journal.enter()
	defer b.journal.leave()
	p.seq = b.journal.number()
	if p.kept != nil { // made for this publication, see publishWill
		p.kept.seq = p.seq
	}
	if p.retain {
		after = b.retain(p.keep())
	}
	targets := r.targets
	b.pick(w, targets)
	if lsn := b.journal.message(w, targets, w.picked, rc.remembers(), rc.id); lsn != 0 {
		after = lsn
	}
	rc.give(w, after)
	p.fan = len(targets) > 1
	for i := range targets {
		if targets[i].group == nil {
			targets[i].sess.deliver(w, &targets[i])
		}
	}
	for i := range w.picked {
		b.share(w, &w.picked[i])
	}
	for i := range w.again {
		m := *p.keep()
		m.Retain, m.seq = p.retain, b.journal.number()
		p.load(&m, p.now)
		p.seq = m.seq
		b.journal.message(w, nil, w.again[i:i+1], nil, 0)
		b.share(w, &w.again[i])
	}
	clear(w.picked)
	clear(w.again)
	return after
}

// pick finds whose turn it is in each shared subscription among the targets. A session that gets the message already gets
// it again, under a number of its own: in the store a number is one message to a session.
func (b *Broker) pick(w *worker, targets []target) {
	w.picked, w.again = w.picked[:0], w.again[:0]
	for i := range targets {
		g := targets[i].group
		if g == nil {
			continue
		}
		m := g.pick(func(s *session) bool { return b.mayHave(s, w.pub.p.Topic) })
		if m == nil {
			continue
		}
		same := func(t target) bool { return t.sess == m.sess }
		if b.journal != nil && (slices.ContainsFunc(targets, same) || slices.ContainsFunc(w.picked, same)) {
			w.again = append(w.again, ofMember(m))
		} else {
			w.picked = append(w.picked, ofMember(m))
		}
	}
}

// share delivers w.pub to a member of a shared subscription. One that has left it meanwhile is none any more, so it
// is another's turn (4.8.2).
func (b *Broker) share(w *worker, t *target) {
	for g := t.group; !t.sess.deliver(w, t); {
		m := g.pick(func(s *session) bool { return b.mayHave(s, w.pub.p.Topic) })
		if m == nil {
			return
		}
		*t = ofMember(m)
		b.journal.message(w, nil, []target{*t}, nil, 0)
	}
}

// retain keeps a message as its topic's retained one.
func (b *Broker) retain(m *message) (after uint64) {
	if !b.retained.set(m, &b.opt.Limits, func(m *message) { after = b.journal.retained(m) }) {
		b.stats.dropped.Add(1)
		b.refused("too many retained messages, not retained", "topic", m.Topic)
	}
	return after
}

// ErrClosed says that the broker does not run any more.
var ErrClosed = errors.New("broker: closed")

// Publish publishes a message from within the process: no socket, no acknowledgement to wait for.
// done is called exactly once, if and only if Publish returns nil, perhaps before it returns: when
// the message is with everybody who is to have it, and, where a Store keeps it for a persistent
// session or as a retained message, once it is synced. Publish does not trigger that sync; it comes
// with SyncWindow or somebody who waits. The message's bytes may be reused then. A message that
// cannot be published is reported by done as *mqtt.ReasonError.
func (b *Broker) Publish(ctx context.Context, m *mqtt.Message, done func(error)) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if b.closed.Load() {
		return ErrClosed
	}
	if err := mqtt.CheckTopicName(m.Topic); err != nil {
		done(&mqtt.ReasonError{Op: "publish", Code: mqtt.TopicNameInvalid, Detail: err.Error()})
		return nil
	}
	if m.QoS > mqtt.ExactlyOnce {
		done(&mqtt.ReasonError{Op: "publish", Code: mqtt.QoSNotSupported, Detail: fmt.Sprintf("qos %d", m.QoS)})
		return nil
	}
	w := b.worker()
	p := &w.pub
	now := b.now()
	p.p.SetMessage(m)
	p.borrowed = true
	p.take(now)
	p.now = now
	w.published++
	after := b.publish(w, b.ownRoute(m.Topic), receipt{})
	w.done()
	if after == 0 {
		done(nil)
	} else {
		b.journal.notify(after, done)
	}
	return nil
}

// ownRoute is conn.route for the process itself.
func (b *Broker) ownRoute(topic string) *route {
	b.own.mu.Lock()
	defer b.own.mu.Unlock()
	r := b.own.routes[topic]
	if r == nil || !b.fresh(r) {
		r = b.route(topic, nil, nil)
		if b.own.routes == nil || len(b.own.routes) >= 4*maxRoutes {
			b.own.routes = make(map[string]*route)
		}
		b.own.routes[r.topic] = r
	}
	return r
}
