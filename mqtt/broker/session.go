package broker

import (
	"sync"
	"sync/atomic"
	"time"

	"gateway/mqtt"
	"gateway/mqtt/packet"
)

// A session is what the broker keeps for a client identifier (4.1), apart from the connection that
// serves it at the moment. A connection that is not session.conn any more can do nothing to it: that
// is what keeps an orphan from harming its heir.
//
// Packet identifiers of the two directions are two spaces: flight holds those that the broker gave
// to the messages it sends, incoming those of the client's own QoS 2 messages.
type session struct {
	b     *Broker
	id    string
	num   uint64                 // names it in the store
	ident atomic.Pointer[Client] // as whom the client was admitted last

	durable atomic.Bool // it outlives its connection, and there is a store to keep it
	online  atomic.Bool // has a connection; what shared subscriptions prefer

	mu       sync.Mutex
	conn     *conn // nil: none
	ended    bool
	expiry   uint32 // seconds it outlives its connection
	left     int64  // broker time when it lost its connection; 0: it has one
	subs     map[string]*subscription
	cost     int        // of subs
	queue    deliveries // not sent yet, in order
	bytes    int        // size of the messages in queue
	flight   map[uint16]*delivery
	order    deliveries // of what is in flight
	flying   int        // size of the messages in flight that are kept, to be sent again
	resend   *delivery  // the first in flight that this connection was not sent yet
	lastID   uint16
	gen      uint32            // counts the connections
	window   int               // messages that the client takes before it acknowledges
	used     int               // of the window, by this connection
	incoming map[uint16]uint64 // and where in the store each is recorded, with its message
	free     *delivery

	will      *will // waits for its delay; the connection's own is in conn
	willTimer *time.Timer
	endTimer  *time.Timer
}

// never is the session expiry interval that means that it does not expire (3.1.2.11.2).
const never = 0xFFFFFFFF

// A delivery is one message on its way to one session.
type delivery struct {
	next, prev *delivery
	msg        *message // nil once a resend is impossible, or never needed
	ids        []uint32 // subscription identifiers
	group      *shareGroup
	gen        uint32 // the connection in whose window it counts
	id         uint16 // packet identifier; 0: not assigned yet
	qos        mqtt.QoS
	retain     bool
	sent       bool // at least once, so DUP is set the next time
	released   bool // PUBREC came, PUBCOMP is awaited
	exempt     bool // a retained message, which does not count for the bounds of the queue
}

// deliveries is a list in order.
type deliveries struct {
	first, last *delivery
	n           int
}

func (l *deliveries) push(d *delivery)    { l.insert(d, nil) }
func (l *deliveries) unshift(d *delivery) { l.insert(d, l.first) }

// insert puts d in front of at, and where that is nil at the end.
func (l *deliveries) insert(d, at *delivery) {
	d.prev, d.next = l.last, at
	if at != nil {
		d.prev, at.prev = at.prev, d
	} else {
		l.last = d
	}
	if d.prev != nil {
		d.prev.next = d
	} else {
		l.first = d
	}
	l.n++
}

func (l *deliveries) remove(d *delivery) {
	if d.prev == nil {
		l.first = d.next
	} else {
		d.prev.next = d.next
	}
	if d.next == nil {
		l.last = d.prev
	} else {
		d.next.prev = d.prev
	}
	d.next, d.prev = nil, nil
	l.n--
}

func (s *session) newDelivery() *delivery {
	d := s.free
	if d == nil {
		return new(delivery)
	}
	s.free = d.next
	d.next = nil
	return d
}

// recycle keeps one delivery for the next message; idle sessions should hold little.
func (s *session) recycle(d *delivery) {
	*d = delivery{}
	if s.free == nil {
		s.free = d
	}
}

// nextID returns a packet identifier that is not in use, searched for from the last one on, so that
// one returns as late as possible [MQTT-2.2.1-4]. The window is smaller than the number space, so
// there is one.
func (s *session) nextID() uint16 {
	for {
		s.lastID++
		if s.lastID == 0 { // [MQTT-2.2.1-3]
			s.lastID = 1
		}
		if _, used := s.flight[s.lastID]; !used {
			return s.lastID
		}
	}
}

// deliver hands a message to the session: into the socket's buffer where there is room in it and in
// the window, into the queue otherwise. It returns false where the session has ended, or has unsubscribed,
// since the target was found.
func (s *session) deliver(w *worker, t *target) bool {
	p := &w.pub
	qos := min(p.qos, t.qos)
	retain := p.retain && t.rap
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return false
	}
	if t.gone() {
		if t.owed(p) { // as its record says
			s.b.journal.done(s, p.keep())
		}
		return false
	}
	c := s.conn
	if c == nil && (qos == 0 || s.expiry == 0) {
		return true // nobody is there, and QoS 0 is not kept (4.3.1)
	}
	if c != nil && s.queue.n == 0 && s.resend == nil {
		if qos == 0 {
			if c.publish(w, outgoing{retain: retain, ids: t.ids}) != sendFull {
				return true
			}
		} else if s.mayFly() {
			d := s.newDelivery()
			d.qos, d.retain, d.ids, d.group = qos, retain, t.ids, t.group
			if s.expiry != 0 || t.group != nil {
				d.msg = p.keep()
			}
			switch s.send(w, d) {
			case sendOK, sendDropped:
				return true
			}
			s.recycle(d)
		}
	}
	s.enqueue(p.keep(), qos, retain, t.ids, t.group)
	return true
}

// send gives d, whose message is w.pub, its packet identifier and puts it into the socket's buffer.
func (s *session) send(w *worker, d *delivery) sendResult {
	d.id = s.nextID()
	var after uint64
	if d.msg != nil && d.msg.seq != 0 {
		// After a power cut a QoS 2 identifier must still be known, or the message would come twice.
		after = s.b.journal.sent(s, d)
	}
	switch r := s.conn.publish(w, outgoing{qos: d.qos, retain: d.retain, id: d.id, ids: d.ids, after: after}); r {
	case sendOK:
		d.sent, d.gen = true, s.gen
		if s.flight == nil {
			s.flight = make(map[uint16]*delivery)
		}
		s.flight[d.id] = d
		s.order.push(d)
		s.used++
		s.fly(d, 1)
		return r
	case sendDropped: // too large for the client: done with as if it had been sent [MQTT-3.1.2-25]
		s.b.journal.done(s, d.msg)
		s.recycle(d)
		return r
	default:
		d.id = 0
		return r
	}
}

// mayFly tells whether another message may be sent before more is acknowledged: the window is the client's and
// counts messages, the bytes are ours. What may not waits in the queue, until an acknowledgement comes.
func (s *session) mayFly() bool {
	return s.used < s.window && (s.order.n == 0 || s.flying < s.b.opt.Limits.QueuedBytes && s.b.roomFor(0))
}

// fly counts the bytes of a message that is in flight, or, with sign -1, is not any more.
func (s *session) fly(d *delivery, sign int) {
	if d.msg != nil {
		size := sign * (d.msg.size() - overhead)
		s.flying += size
		s.b.flying.Add(int64(size))
	}
}

// enqueue lets a message wait, within the bounds.
func (s *session) enqueue(m *message, qos mqtt.QoS, retain bool, ids []uint32, group *shareGroup) {
	l := &s.b.opt.Limits
	size := m.size()
	if s.queue.n >= l.QueuedMessages || s.bytes+size > l.QueuedBytes || !s.b.roomFor(size) {
		s.b.stats.dropped.Add(1)
		s.b.refused("queue full, message dropped", "client", s.id, "topic", m.Topic)
		s.b.journal.done(s, m)
		return
	}
	d := s.newDelivery()
	d.msg, d.qos, d.retain, d.ids, d.group = m, qos, retain, ids, group
	s.queue.push(d)
	s.wait(d, 1)
}

// wait counts a message that waits, or, with sign -1, does not any more. A retained one counts for the bytes of all
// sessions only, with what its waiting costs: the message is kept anyway.
func (s *session) wait(d *delivery, sign int) {
	size := overhead
	if !d.exempt {
		size = d.msg.size()
		s.bytes += sign * size
	}
	s.b.queued.Add(int64(sign * size))
}

// unqueue takes d out of the queue.
func (s *session) unqueue(d *delivery) {
	s.queue.remove(d)
	s.wait(d, -1)
}

// requeue puts d back to the head of the queue.
func (s *session) requeue(d *delivery) {
	s.queue.unshift(d)
	s.wait(d, 1)
}

// pump sends what waits, as far as window and socket allow: first what a former connection was
// sent and did not acknowledge, with its identifiers and in its order [MQTT-4.4.0-1] [MQTT-4.6.0-1],
// then the queue.
func (s *session) pump(w *worker) {
	c := s.conn
	if c == nil || s.resend == nil && s.queue.n == 0 {
		return
	}
	now := s.b.now()
	for s.resend != nil {
		d := s.resend
		// What the former connection left unsaid, because it waited for the store, may still have to.
		var after uint64
		if d.qos == mqtt.ExactlyOnce {
			after = s.b.journal.last(s)
		}
		switch {
		case d.released:
			if c.release(w, d.id, mqtt.Success, after) == sendFull {
				return
			}
		case s.used >= s.window:
			return
		default:
			w.pub.load(d.msg, now)
			o := outgoing{qos: d.qos, retain: d.retain, dup: d.sent, id: d.id, ids: d.ids, after: after}
			switch c.publish(w, o) {
			case sendFull:
				return
			case sendDropped: // this connection takes less than the one before [MQTT-3.1.2-25]
				s.resend = d.next
				s.forget(d)
				continue
			}
			d.sent, d.gen = true, s.gen
			s.used++
		}
		s.resend = d.next
	}
	for d := s.queue.first; d != nil; d = s.queue.first {
		if d.msg.expired(now) { // [MQTT-3.3.2-5]
			s.unqueue(d)
			s.b.stats.expired.Add(1)
			s.b.journal.done(s, d.msg)
			s.recycle(d)
			continue
		}
		w.pub.load(d.msg, now)
		if d.qos == 0 {
			if c.publish(w, outgoing{retain: d.retain, ids: d.ids}) == sendFull {
				return
			}
			s.unqueue(d)
			s.recycle(d)
			continue
		}
		if !s.mayFly() || !c.room() {
			return
		}
		s.unqueue(d)
		if s.send(w, d) == sendFull { // acknowledgements filled the buffer, or the connection ends
			s.requeue(d)
			return
		}
	}
}

// awaits returns the delivery that an answer to a message of qos is about, nil where it is not, or no
// more, in flight: such an answer is of a former connection (4.4). One that does not belong to the
// message is against the protocol [MQTT-4.3.2-3] [MQTT-4.3.3-3]. It needs mu.
func (s *session) awaits(c *conn, answer packet.Type, id uint16, qos mqtt.QoS) (*delivery, error) {
	d := s.flight[id]
	switch {
	case d == nil || s.conn != c:
		return nil, nil
	case d.qos != qos, answer == packet.PUBCOMP && !d.released:
		return nil, refuse(mqtt.ProtocolError, "%v does not answer what was sent with identifier %d, a message of qos %d", answer, id, d.qos)
	}
	return d, nil
}

// acked ends a QoS 1 delivery (PUBACK), or a QoS 2 one that the client refused in its PUBREC.
func (s *session) acked(w *worker, c *conn, answer packet.Type, id uint16, qos mqtt.QoS) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	d, err := s.awaits(c, answer, id, qos)
	if d != nil && !d.released {
		s.finish(w, d)
	}
	return err
}

func (s *session) finish(w *worker, d *delivery) {
	if s.resend == d {
		s.resend = d.next
	}
	if d.gen == s.gen {
		s.used--
	}
	s.forget(d)
	s.pump(w)
}

// forget takes d out of what is in flight. It needs mu.
func (s *session) forget(d *delivery) {
	delete(s.flight, d.id)
	s.order.remove(d)
	s.fly(d, -1)
	s.b.journal.done(s, d.msg)
	s.recycle(d)
}

// received notes a PUBREC: from now on only the PUBREL is resent [MQTT-4.3.3-5] [MQTT-4.3.3-7].
func (s *session) received(w *worker, c *conn, id uint16) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn != c {
		return nil
	}
	d, err := s.awaits(c, packet.PUBREC, id, mqtt.ExactlyOnce)
	if err != nil {
		return err
	}
	if d == nil {
		c.release(w, id, mqtt.PacketIDNotFound, 0)
		return nil
	}
	var after uint64
	if !d.released {
		d.released = true
		if d.msg != nil {
			after = s.b.journal.released(s, d)
		}
	}
	if s.resend == d { // it was answered before it was sent again
		s.resend = d.next
	}
	if d.gen != s.gen {
		d.gen = s.gen
		s.used++
	}
	c.release(w, id, mqtt.Success, after)
	return nil
}

// completed notes a PUBCOMP.
func (s *session) completed(w *worker, c *conn, id uint16) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	d, err := s.awaits(c, packet.PUBCOMP, id, mqtt.ExactlyOnce)
	if d != nil {
		s.finish(w, d)
	}
	return err
}

// drop empties the session's lists when it ends, and returns what another member of a shared
// subscription may still get: everything that was not sent, and QoS 1 without acknowledgement
// (4.8.2).
func (s *session) drop() (shared []*delivery) {
	for d := s.queue.first; d != nil; d = s.queue.first {
		s.unqueue(d)
		if d.group != nil {
			shared = append(shared, d)
		}
	}
	for d := s.order.first; d != nil; d = s.order.first {
		s.order.remove(d)
		s.fly(d, -1)
		if d.group != nil && d.qos == mqtt.AtLeastOnce && d.msg != nil {
			shared = append(shared, d)
		}
	}
	s.flight, s.resend, s.used, s.incoming, s.free = nil, nil, 0, nil, nil
	return shared
}
