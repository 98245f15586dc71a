package client

import "gateway/mqtt"

// An outgoing is a message on its way to the server.
type outgoing struct {
	m    *mqtt.Message // nil: withdrawn, only its identifier is still in use
	done func(error)

	sentAt   uint32 // seconds since the connection's start
	id       uint16 // 0: none yet
	qos      mqtt.QoS
	released bool // QoS 2: PUBREC came, PUBREL is due or sent
	tried    bool // sent on any
	sent     bool // on this connection
	counted  bool // against this connection's receive maximum

	prev, next *outgoing
}

// An outbox is the list of outgoing messages in the order of Publish, and who has which packet
// identifier. Messages that were sent on this connection come before those that were not.
type outbox struct {
	head, tail *outgoing
	unsent     *outgoing // the first that is to be sent on this connection
	byID       map[uint16]*outgoing
	requests   map[uint16]*request
	lastID     uint16
	n          int // messages, withdrawn ones not counted
	inflight   int // counted ones
	inflight2  int // of these, QoS 2

	// free is there while the server's session is one that an earlier process of ours may have left. Under any
	// identifier that is not in it the server may hold half of an exchange of QoS 2, and would take a new message
	// for that one again: its PUBLISH follows a PUBREL, which ends the old exchange.
	free map[uint16]bool
}

// inherit notes whose session the server has, at the first connection or a later one.
func (b *outbox) inherit(present, first bool) {
	switch {
	case !present:
		b.free = nil
	case first:
		b.free = map[uint16]bool{}
	}
}

// doubtful tells whether the server may know an identifier from an earlier process.
func (b *outbox) doubtful(id uint16) bool { return b.free != nil && !b.free[id] }

// settle notes that the server knows no more of an identifier than we do.
func (b *outbox) settle(id uint16) {
	if b.free != nil {
		b.free[id] = true
	}
}

func newOutbox() outbox {
	return outbox{byID: map[uint16]*outgoing{}, requests: map[uint16]*request{}}
}

func (b *outbox) push(o *outgoing) {
	o.prev = b.tail
	if b.tail != nil {
		b.tail.next = o
	} else {
		b.head = o
	}
	b.tail = o
	if b.unsent == nil {
		b.unsent = o
	}
	b.n++
}

// sending notes that the first unsent one goes out now, at a second of the connection, and tells whether it is the only one
// that the server owes an answer.
func (b *outbox) sending(at uint32) (only bool) {
	o := b.unsent
	o.sent, o.sentAt = true, at
	b.unsent = o.next
	return o == b.head
}

// owed tells whether the server owes an answer.
func (b *outbox) owed() bool { return b.head != b.unsent }

// remove takes a message out and frees its identifier.
func (b *outbox) remove(o *outgoing) {
	if b.unsent == o {
		b.unsent = o.next
	}
	if o.prev != nil {
		o.prev.next = o.next
	} else {
		b.head = o.next
	}
	if o.next != nil {
		o.next.prev = o.prev
	} else {
		b.tail = o.prev
	}
	o.prev, o.next = nil, nil
	if o.id != 0 {
		delete(b.byID, o.id)
	}
	if o.counted {
		b.inflight--
		if o.qos == mqtt.ExactlyOnce {
			b.inflight2--
		}
	}
	if o.m != nil {
		b.n--
	}
}

// newID finds a free packet identifier [MQTT-2.2.1-3], the next after the one used last, so that one is
// used again as late as can be; 0: all 65,535 are in use.
func (b *outbox) newID() uint16 {
	for range 65535 {
		if b.lastID++; b.lastID == 0 {
			b.lastID = 1
		}
		if b.byID[b.lastID] == nil && b.requests[b.lastID] == nil {
			return b.lastID
		}
	}
	return 0
}

// restart prepares for a new connection: with the session kept, what was sent goes again under its
// identifier [MQTT-4.4.0-1]; otherwise all of it is new.
func (b *outbox) restart(present bool) {
	b.inflight, b.inflight2 = 0, 0
	for o := b.head; o != nil; {
		next := o.next
		o.sent, o.counted = false, false
		switch {
		case present:
		case o.m == nil:
			b.remove(o) // withdrawn, and nobody knows of it
		case o.id != 0:
			delete(b.byID, o.id)
			o.id, o.released = 0, false
		}
		o = next
	}
	b.unsent = b.head
}

// withdraw takes all messages out and returns them.
func (b *outbox) withdraw() []*outgoing {
	all := make([]*outgoing, 0, b.n)
	for o := b.head; o != nil; {
		next := o.next
		if o.m != nil {
			all = append(all, b.giveBack(o))
		}
		o = next
	}
	return all
}

// giveBack takes a message out and returns it. An identifier that the server may still answer stays in use until it has or
// the connection ends, and one under which it may hold half an exchange until PUBREL has ended that.
func (b *outbox) giveBack(o *outgoing) *outgoing {
	back := &outgoing{m: o.m, done: o.done}
	if o.id == 0 {
		b.remove(o)
	} else {
		o.m, o.done = nil, nil
		b.n--
	}
	return back
}
