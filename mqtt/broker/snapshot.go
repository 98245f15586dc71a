package broker

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"gateway/mqtt"
)

// A loader builds the state from the records of the store.
type loader struct {
	b        *Broker
	sessions map[uint64]*loading
	messages map[uint64]*message // of the snapshot, which says later to whom they are owed
	wills    map[uint64]*storedWill
	shares   map[*delivery]string // filters of the shared subscriptions by which they are owed
	clock    clockRecord          // the newest
	latest   int64                // the latest time that a record shows to have been
	skipped  int
}

type clockRecord struct {
	now  int64
	boot string
	up   time.Duration
}

type loading struct {
	s    *session
	owed map[uint64]*delivery
}

// load reads the store. A record that cannot be read is counted and skipped: the others are good.
func (j *journal) load() error {
	l := &loader{b: j.b, sessions: make(map[uint64]*loading), messages: make(map[uint64]*message), wills: make(map[uint64]*storedWill), shares: make(map[*delivery]string)}
	err := j.store.Replay(func(rec []byte) error {
		r := recordReader{b: rec}
		for len(r.b) > 0 {
			l.apply(&r)
		}
		if r.err != nil {
			l.skipped++
		}
		return nil
	})
	if err != nil {
		return err
	}
	if l.skipped > 0 {
		j.b.log.Error("store: unreadable records were skipped", "count", l.skipped)
	}
	l.resume()
	l.finish()
	return nil
}

// resume lets the broker's time go on where the store left it; where the machine has not been booted since,
// what has passed meanwhile counts.
func (l *loader) resume() {
	b, c := l.b, &l.clock
	b.past = max(c.now, l.latest)
	if b.opt.Uptime != nil {
		if boot, up := b.opt.Uptime(); boot != "" && boot == c.boot && up > c.up {
			b.past = max(b.past, c.now+int64(up-c.up))
		}
	}
	b.journal.writing.Lock()
	defer b.journal.writing.Unlock()
	b.journal.noteClock(b.now())
}

func (l *loader) apply(r *recordReader) {
	op := r.op()
	switch op {
	case opRetained:
		if m := r.message(); r.err == nil {
			l.saw(m)
			l.b.journal.messages.Store(max(l.b.journal.messages.Load(), m.seq))
			l.b.retained.set(m, &l.b.opt.Limits, func(*message) {})
		}
		return
	case opMessage:
		m := r.message()
		n := r.count()
		if r.err != nil {
			return
		}
		l.saw(m)
		if n == 0 {
			l.messages[m.seq] = m
		}
		l.b.journal.messages.Store(max(l.b.journal.messages.Load(), m.seq))
		for range n {
			if num, d, share := r.owed(); r.err == nil {
				l.owe(num, m, d, share)
			}
		}
		return
	case opOwed:
		m := l.messages[r.uint()]
		num, d, share := r.owed()
		d.id = uint16(r.uint())
		state := r.uint()
		if r.err != nil || m == nil {
			return
		}
		d.sent, d.released = state > 0, state > 1
		l.owe(num, m, d, share)
		return
	case opSession:
		l.session(r)
		return
	case opWill:
		if num, w := r.will(); r.err == nil {
			l.b.journal.messages.Store(max(l.b.journal.messages.Load(), w.seq))
			l.wills[w.seq] = &storedWill{w, num}
		}
		return
	case opExecuted:
		delete(l.wills, r.uint())
		return
	case opClock:
		c := clockRecord{now: r.time(), boot: r.string(), up: time.Duration(r.time())}
		if r.err == nil {
			l.clock = c
		}
		return
	}
	num := r.uint()
	x := l.sessions[num]
	if x == nil { // it ended meanwhile
		x = &loading{s: &session{b: l.b}}
	}
	s := x.s
	switch op {
	case opEnd:
		if s.ended = true; l.b.sessions[s.id] == s {
			delete(l.b.sessions, s.id)
		}
		delete(l.sessions, num)
	case opSubscribe:
		q := mqtt.Subscription{Filter: r.string()}
		opt := r.uint()
		q.QoS, q.NoLocal, q.RetainAsPublished = mqtt.QoS(opt&3), opt&4 != 0, opt&8 != 0
		id := uint32(r.uint())
		if r.err != nil || !mqtt.ValidTopicFilter(q.Filter) {
			r.fail()
			return
		}
		// Into the tree at the end, when it is sure that the session is there.
		s.keep(&subscription{sess: s, filter: q.Filter, id: id, qos: q.QoS, local: q.NoLocal, rap: q.RetainAsPublished})
	case opUnsubscribe:
		s.dropSub(r.string())
	case opDone:
		seq := r.uint()
		if d := x.owed[seq]; d != nil {
			delete(x.owed, seq)
			delete(l.shares, d)
			s.list(d).remove(d)
		}
	case opIncoming:
		if s.incoming == nil {
			s.incoming = make(map[uint16]uint64)
		}
		s.incoming[uint16(r.uint())] = 0
	case opForgotten:
		delete(s.incoming, uint16(r.uint()))
	case opSent:
		d := x.owed[r.uint()]
		id := uint16(r.uint())
		if d != nil && r.err == nil && id != 0 {
			s.list(d).remove(d)
			d.id, d.sent = id, true
			s.order.push(d)
		}
	case opLeft:
		s.left = r.time()
		l.latest = max(l.latest, s.left)
	case opReleased:
		if d := x.owed[r.uint()]; d != nil {
			d.released = true
		}
	default:
		r.fail()
	}
}

// saw notes when a message was published, where it says so.
func (l *loader) saw(m *message) {
	if m.expires != 0 {
		l.latest = max(l.latest, m.expires-int64(m.Expiry)*1e9)
	}
}

// list is where a delivery that is being loaded stands: what has a packet identifier was sent.
func (s *session) list(d *delivery) *deliveries {
	if d.id != 0 {
		return &s.order
	}
	return &s.queue
}

func (l *loader) session(r *recordReader) {
	num, id, user, expiry := r.uint(), r.string(), r.string(), uint32(r.uint())
	if r.err != nil {
		return
	}
	l.b.journal.sessions.Store(max(l.b.journal.sessions.Load(), num))
	x := l.sessions[num]
	if x == nil {
		if s := l.b.sessions[id]; s != nil {
			if s.num > num {
				return // it ended before that one began
			}
			delete(l.sessions, s.num) // its end is among what was lost
		}
		x = &loading{s: &session{b: l.b, id: id, num: num}, owed: make(map[uint64]*delivery)}
		l.sessions[num] = x
	}
	x.s.expiry, x.s.left = expiry, 0
	x.s.ident.Store(&Client{ID: id, Username: user})
	l.b.sessions[id] = x.s
}

// owe adds a message to a session that does not have it yet.
func (l *loader) owe(num uint64, m *message, d *delivery, share string) {
	x := l.sessions[num]
	if x == nil || x.owed[m.seq] != nil {
		return
	}
	d.msg = m
	x.owed[m.seq] = d
	x.s.list(d).push(d)
	if share != "" {
		l.shares[d] = share
	}
}

// finish puts the sessions to work: as ones that have lost their connections, those that had one until the end
// just now.
func (l *loader) finish() {
	now := l.b.now()
	for _, x := range l.sessions {
		s := x.s
		if s.left == 0 || s.left > now {
			s.left = now
		}
		s.durable.Store(true)
		l.b.kept.Add(int64(len(s.id)))
		for _, sub := range s.subs {
			l.b.subs.add(sub)
		}
		for d := s.queue.first; d != nil; d = d.next {
			s.wait(d, 1)
		}
		for d := s.order.first; d != nil; d = d.next {
			if s.flight == nil {
				s.flight = make(map[uint16]*delivery)
			}
			s.flight[d.id] = d
			s.lastID = d.id
			s.fly(d, 1)
		}
		s.overtaken()
	}
	for d, filter := range l.shares {
		d.group = l.b.subs.group(filter)
	}
	for _, end := range l.expire(now) {
		defer end()
	}
	for _, w := range l.wills {
		l.b.kept.Add(int64(w.size()))
		if x := l.sessions[w.session]; x != nil && w.delay > time.Duration(now-x.s.left) {
			x.s.will = w.will
		} else {
			l.b.due = append(l.b.due, w)
		}
	}
	slices.SortFunc(l.b.due, func(a, b *storedWill) int { return cmp.Compare(a.seq, b.seq) })
	l.b.journal.wills.all = l.wills
	for _, x := range l.sessions {
		x.s.mu.Lock()
		x.s.startTimers()
		x.s.mu.Unlock()
	}
	if n := len(l.sessions); n > 0 || l.b.retained.count > 0 {
		l.b.log.Info("store: read", "sessions", n, "retained", l.b.retained.count, "queued_bytes", l.b.queued.Load())
	}
}

// expire ends the sessions whose time is over, and returns what is to be done when all are as they should be.
func (l *loader) expire(now int64) (after []func()) {
	l.b.mu.Lock()
	defer l.b.mu.Unlock()
	for num, x := range l.sessions {
		s := x.s
		if s.expiry == never || time.Duration(now-s.left) < s.lifetime() {
			continue
		}
		l.b.stats.expiredSessions.Add(1)
		s.mu.Lock()
		after = append(after, l.b.endLocked(s))
		s.mu.Unlock()
		delete(l.sessions, num)
	}
	return after
}

// overtaken puts messages that were not sent in front of later ones of the same QoS that were, or whose record at least
// survived a power cut that took theirs: they are to come in the order in which they were published [MQTT-4.6.0-6].
func (s *session) overtaken() {
	var newest [mqtt.ExactlyOnce + 1]uint64
	moved := false
	for d := s.order.first; d != nil; d = d.next {
		newest[d.qos] = max(newest[d.qos], d.msg.seq)
	}
	for d, next := s.queue.first, (*delivery)(nil); d != nil; d = next {
		if next = d.next; d.msg.seq > newest[d.qos] {
			continue
		}
		at := s.order.first
		for at.qos != d.qos || at.msg.seq < d.msg.seq {
			at = at.next
		}
		s.unqueue(d)
		s.order.insert(d, at)
		d.id = s.nextID()
		s.flight[d.id] = d
		s.fly(d, 1)
		moved = true
	}
	for d := s.order.first; moved && d != nil; d = d.next {
		s.b.journal.sent(s, d) // all of them, for their order
	}
}

// A frontier is where a snapshot begins in the records: what was published behind it is left to the log, both
// as what sessions are owed and as what a QoS 2 publisher's session remembers of it. Where a snapshot had
// one of the two without the other, a power cut that takes the log would lose the message or double it: the
// client's next try would be known already, or new.
type frontier struct {
	record  uint64 // the last record in front of it
	message uint64 // the last message
}

// snapshot writes the present state in the place of all records so far.
func (j *journal) snapshot() error {
	var size int64
	var at frontier
	broken := false // before
	err := j.store.Snapshot(func(put func([]byte) error) error {
		count := func(rec []byte) error {
			size += int64(len(rec))
			return put(rec)
		}
		at, broken = frontier{}, false
		wills, err := j.cut(&at, &broken, count)
		if err != nil {
			return err
		}
		written := make(map[uint64]bool)
		for _, s := range j.persistent() {
			if err := j.putSession(s, at, written, count); err != nil {
				return err
			}
		}
		for _, w := range wills {
			if err := count(appendWill(nil, w.session, w.will)); err != nil {
				return err
			}
		}
		return j.putRetained(count)
	})
	if err != nil {
		j.writing.Lock()
		j.broken = j.broken || broken // all is as before
		j.writing.Unlock()
		return fmt.Errorf("broker: writing a snapshot: %w", err)
	}
	j.snapAt.Store(max(snapshotBytes, 2*size))
	j.advance(at.record)
	return nil
}

// cut begins a snapshot: it finds the frontier and puts the first record, behind which the store's log begins. All that
// was recorded before is in memory once the gate was closed. It returns the wills, for one that is published from now
// on is in front of the frontier and its message behind.
func (j *journal) cut(at *frontier, broken *bool, put func([]byte) error) ([]*storedWill, error) {
	j.gate.Lock()
	defer j.gate.Unlock()
	j.writing.Lock()
	defer j.writing.Unlock()
	j.flushNotes()
	*at = frontier{j.appended.Load(), j.messages.Load()}
	*broken, j.broken = j.broken, false
	return j.wills.list(), put(appendClock(nil, j.b.now(), j.b.opt.Uptime))
}

// persistent returns the persistent sessions in the order of their numbers.
func (j *journal) persistent() []*session {
	j.b.mu.Lock()
	defer j.b.mu.Unlock()
	var list []*session
	for _, s := range j.b.sessions {
		if s.durable.Load() {
			list = append(list, s)
		}
	}
	slices.SortFunc(list, func(a, b *session) int { return cmp.Compare(a.num, b.num) })
	return list
}

// putSession writes one session and the messages that it is owed and that are not written yet, as far as
// they are in front of the frontier.
func (j *journal) putSession(s *session, at frontier, written map[uint64]bool, put func([]byte) error) error {
	s.mu.Lock()
	if s.ended || !s.durable.Load() {
		s.mu.Unlock()
		return nil
	}
	recs := [][]byte{appendSession(nil, s)}
	if s.conn == nil {
		recs = append(recs, appendUint(appendNum(nil, opLeft, s.num), uint64(s.left)))
	}
	for _, sub := range s.subs {
		q := mqtt.Subscription{Filter: sub.filter, QoS: sub.qos, NoLocal: sub.local, RetainAsPublished: sub.rap}
		recs = append(recs, appendSubscription(nil, s.num, &q, sub.id))
	}
	for id, record := range s.incoming {
		if record <= at.record {
			recs = append(recs, appendID(appendNum(nil, opIncoming, s.num), id))
		}
	}
	for _, list := range []*deliveries{&s.order, &s.queue} {
		for d := list.first; d != nil; d = d.next {
			if d.msg == nil || d.qos == 0 || d.msg.seq == 0 || d.msg.seq > at.message {
				continue
			}
			var rec []byte
			if !written[d.msg.seq] {
				written[d.msg.seq] = true
				rec = appendUint(appendMessage(append(rec, opMessage), d.msg, d.msg.seq), 0)
			}
			rec = appendOwed(appendNum(rec, opOwed, d.msg.seq), s.num, d.qos, d.retain, d.ids, d.group)
			rec = appendID(rec, d.id)
			state := uint64(0)
			switch {
			case d.released:
				state = 2
			case d.sent:
				state = 1
			}
			recs = append(recs, appendUint(rec, state))
		}
	}
	s.mu.Unlock()
	for _, rec := range recs {
		if err := put(rec); err != nil {
			return err
		}
	}
	return nil
}

// putRetained writes the retained messages, without holding up those who come meanwhile.
func (j *journal) putRetained(put func([]byte) error) error {
	for _, m := range j.b.retained.all(j.b.now()) {
		if err := put(appendMessage([]byte{opRetained}, m, m.seq)); err != nil {
			return err
		}
	}
	return nil
}
