package broker

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"gateway/mqtt"
)

// A journal writes what must survive into the Store: each change of a persistent session or of the
// retained messages as a record (record.go draws them), and decides when to sync. A nil journal keeps
// nothing and is ready for use.
//
// A change is recorded under the lock of what it changes, so the records of one session or topic
// stand in the order of the changes. A message is the exception: its one record names all sessions that
// get it and is written before they are locked. A snapshot waits between enter and leave, so that it
// has all that was recorded before it.
type journal struct {
	b     *Broker
	store Store
	gate  sync.RWMutex

	writing  sync.Mutex
	notes    []byte        // operations that are not handed to the store yet
	noted    atomic.Bool   // there are some
	broken   bool          // an Append failed: the store lacks something until the next snapshot
	clocked  int64         // broker time of the newest clock record
	appended atomic.Uint64 // how many records; a position in the store
	synced   atomic.Uint64 // of which are synced

	wills    wills
	messages atomic.Uint64 // the last message's number
	sessions atomic.Uint64 // the last session's

	mu      sync.Mutex
	waiters []waiter
	told    []notice
	wake    chan struct{}

	snapshots sync.WaitGroup
	snapping  atomic.Bool
	snapAt    atomic.Int64 // how long the log is when the next snapshot is due
}

type waiter struct {
	c     *conn
	after uint64
}

type notice struct {
	after uint64
	done  func(error)
}

const (
	// syncPause is the least time between two syncs: what comes meanwhile goes with the next.
	syncPause = 2 * time.Millisecond
	// retryPause is how long a failing store is left alone.
	retryPause = time.Second
	// notesBytes is how much may wait to be written.
	notesBytes = 4 << 10
	// clockEvery is how often the broker's time is recorded while other things are.
	clockEvery = time.Second
	// clockIdle is how often it is recorded while nothing is.
	clockIdle = 10 * time.Minute
	// snapshotBytes is the least size of a log that is worth a snapshot.
	snapshotBytes = 16 << 20
)

func newJournal(b *Broker, s Store) *journal {
	j := &journal{b: b, store: s, wake: make(chan struct{}, 1)}
	j.snapAt.Store(snapshotBytes)
	return j
}

func (j *journal) enter() {
	if j != nil {
		j.gate.RLock()
	}
}

func (j *journal) leave() {
	if j != nil {
		j.gate.RUnlock()
	}
}

// number returns a number for a message, 0 where none is needed.
func (j *journal) number() uint64 {
	if j == nil {
		return 0
	}
	return j.messages.Add(1)
}

func (j *journal) nextSession() uint64 {
	if j == nil {
		return 0
	}
	return j.sessions.Add(1)
}

// record hands what fill appends to the store, and all notes before it, and returns its position.
func (j *journal) record(fill func(b []byte) []byte) uint64 {
	at := j.note(fill)
	j.flush()
	return at
}

// write needs writing.
func (j *journal) write(rec []byte) {
	if err := j.store.Append(rec); err != nil {
		j.b.stats.storeErrors.Add(1)
		if !j.broken {
			j.b.log.Error("store: cannot write; acknowledgements for persistent sessions wait until it can", "err", err)
		}
		j.broken = true
	}
}

// note is record for what a batch does: it is handed over at the batch's end, before anything is sent
// (worker.done), so that many changes are one write.
func (j *journal) note(fill func(b []byte) []byte) uint64 {
	j.writing.Lock()
	defer j.writing.Unlock()
	j.notes = fill(j.notes)
	j.noted.Store(true)
	if len(j.notes) >= notesBytes {
		j.flushNotes()
	}
	if j.b.opt.SyncWindow < 0 {
		j.trigger()
	}
	return j.appended.Add(1)
}

// trigger has the store synced soon.
func (j *journal) trigger() {
	select {
	case j.wake <- struct{}{}:
	default:
	}
}

// flush hands over what was noted.
func (j *journal) flush() {
	if j == nil || !j.noted.Load() {
		return
	}
	j.writing.Lock()
	defer j.writing.Unlock()
	j.flushNotes()
}

// flushNotes needs writing.
func (j *journal) flushNotes() {
	if len(j.notes) == 0 {
		return
	}
	j.write(j.notes)
	if j.noted.Store(false); cap(j.notes) > 1<<20 {
		j.notes = nil
	}
	j.notes = j.notes[:0]
}

// isSynced tells whether a position is synced.
func (j *journal) isSynced(after uint64) bool { return j == nil || after <= j.synced.Load() }

// wait has c.synced called once a position is synced, and triggers that.
func (j *journal) wait(c *conn, after uint64) {
	if j == nil {
		return
	}
	j.mu.Lock()
	j.waiters = append(j.waiters, waiter{c, after})
	j.mu.Unlock()
	j.trigger()
}

// notify calls done once a position is synced, without triggering it.
func (j *journal) notify(after uint64, done func(error)) {
	j.mu.Lock()
	if j.isSynced(after) {
		j.mu.Unlock()
		done(nil)
		return
	}
	j.told = append(j.told, notice{after, done})
	j.mu.Unlock()
}

// run syncs: at once when somebody waits, but not more often than every syncPause, and otherwise
// once in a SyncWindow.
func (j *journal) run(ctx context.Context) {
	var window <-chan time.Time
	if d := j.b.opt.SyncWindow; d > 0 {
		ticker := time.NewTicker(d)
		defer ticker.Stop()
		window = ticker.C
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-j.wake:
		case <-window:
		}
		began := time.Now()
		pause := syncPause
		if j.sync() {
			j.maybeSnapshot()
		} else {
			pause = retryPause
		}
		if left := pause - time.Since(began); left > 0 {
			select {
			case <-ctx.Done():
				return
			case <-time.After(left):
			}
		}
		if pause == retryPause {
			j.trigger()
		}
	}
}

// sync syncs what was recorded and tells those who wait.
func (j *journal) sync() bool {
	j.writing.Lock()
	if now := j.b.now(); j.appended.Load() > j.synced.Load() && now-j.clocked >= int64(clockEvery) {
		j.noteClock(now)
	}
	j.flushNotes()
	broken := j.broken
	upto := j.appended.Load()
	j.writing.Unlock()
	if broken {
		// What could not be written stands in memory only: a snapshot has all of it.
		if err := j.snapshot(); err != nil {
			j.b.refused("store: still failing", "err", err)
			return false
		}
		j.b.log.Info("store: working again")
	} else if upto > j.synced.Load() {
		if err := j.store.Sync(); err != nil {
			j.b.stats.storeErrors.Add(1)
			j.b.refused("store: cannot sync", "err", err)
			j.writing.Lock()
			j.broken = true
			j.writing.Unlock()
			return false
		}
		j.b.stats.syncs.Add(1)
		j.advance(upto)
	}
	j.tell()
	return true
}

// advance moves the synced position forward.
func (j *journal) advance(upto uint64) {
	for {
		have := j.synced.Load()
		if have >= upto || j.synced.CompareAndSwap(have, upto) {
			return
		}
	}
}

// tell calls those who waited for what is synced.
func (j *journal) tell() {
	upto := j.synced.Load()
	j.mu.Lock()
	var conns []*conn
	kept := j.waiters[:0]
	for _, w := range j.waiters {
		if w.after <= upto {
			conns = append(conns, w.c)
		} else {
			kept = append(kept, w)
		}
	}
	clear(j.waiters[len(kept):])
	j.waiters = kept
	var due []notice
	n := 0
	for n < len(j.told) && j.told[n].after <= upto {
		n++
	}
	due = append(due, j.told[:n]...)
	j.told = append(j.told[:0], j.told[n:]...)
	clear(j.told[len(j.told):cap(j.told)])
	j.mu.Unlock()
	if len(conns) > 0 {
		w := j.b.worker()
		for _, c := range conns {
			c.synced(w, upto)
		}
		w.done()
	}
	for _, n := range due {
		n.done(nil)
	}
}

// maybeSnapshot starts a snapshot when the log has grown well beyond what one would hold. Where that fails, which
// harms nobody while the log takes records, the next try waits until the log has grown again.
func (j *journal) maybeSnapshot() {
	if j.store.Size() < j.snapAt.Load() || !j.snapping.CompareAndSwap(false, true) {
		return
	}
	j.snapshots.Go(func() {
		defer j.snapping.Store(false)
		if err := j.snapshot(); err != nil {
			j.snapAt.Store(j.store.Size() + snapshotBytes)
			j.b.stats.storeErrors.Add(1)
			j.b.log.Error("store: cannot write a snapshot; the log goes on without it", "err", err)
		}
	})
}

// close syncs a last time and tells the rest.
func (j *journal) close() error {
	j.snapshots.Wait()
	j.writing.Lock()
	j.noteClock(j.b.now())
	j.flushNotes()
	upto, broken := j.appended.Load(), j.broken
	j.writing.Unlock()
	var err error
	if broken {
		err = j.snapshot()
	} else if err = j.store.Sync(); err == nil {
		j.advance(upto)
	}
	j.tell()
	j.mu.Lock()
	rest := j.told
	j.told = nil
	j.mu.Unlock()
	for _, n := range rest {
		n.done(ErrClosed)
	}
	return err
}

// noteClock records what time it is for the broker. It needs writing.
func (j *journal) noteClock(now int64) {
	j.clocked = now
	j.notes = appendClock(j.notes, now, j.b.opt.Uptime)
	j.noted.Store(true)
	j.appended.Add(1)
}

// keepTime records the time now and then, also while nothing happens.
func (j *journal) keepTime() {
	if j == nil {
		return
	}
	j.writing.Lock()
	defer j.writing.Unlock()
	if now := j.b.now(); now-j.clocked >= int64(clockIdle) {
		j.noteClock(now)
		j.flushNotes()
	}
}

// The changes. Each needs the lock of what it is about.

// session records a session's identity and expiry.
func (j *journal) session(s *session) {
	if j != nil && s.durable.Load() {
		j.record(func(b []byte) []byte { return appendSession(b, s) })
	}
}

// left records when a session lost its connection.
func (j *journal) left(s *session) {
	if j != nil && s.durable.Load() {
		j.record(func(b []byte) []byte { return appendUint(appendNum(b, opLeft, s.num), uint64(s.left)) })
	}
}

// end records that a session is no more.
func (j *journal) end(s *session) {
	if j != nil {
		j.record(func(b []byte) []byte { return appendNum(b, opEnd, s.num) })
	}
}

func (j *journal) subscribed(s *session, q *mqtt.Subscription, id uint32) uint64 {
	if j == nil || !s.durable.Load() {
		return 0
	}
	return j.record(func(b []byte) []byte { return appendSubscription(b, s.num, q, id) })
}

func (j *journal) unsubscribed(s *session, filter string) uint64 {
	if j == nil || !s.durable.Load() {
		return 0
	}
	return j.record(func(b []byte) []byte { return appendString(appendNum(b, opUnsubscribe, s.num), filter) })
}

// message records w.pub for those of its targets, and of those picked of shared subscriptions, that are persistent,
// and the identifier that its QoS 2 publisher's session remembers with it. It returns 0 when there is nothing to record.
func (j *journal) message(w *worker, targets, picked []target, from *session, id uint16) uint64 {
	if j == nil {
		return 0
	}
	p := &w.pub
	// Each is asked once: a session may end at any moment.
	w.owed = w.owed[:0]
	owed := 0
	for _, ts := range [2][]target{targets, picked} {
		for i := range ts {
			if t := &ts[i]; t.owed(p) {
				w.owed = appendOwed(w.owed, t.sess.num, min(p.qos, t.qos), p.retain && t.rap, t.ids, t.group)
				owed++
			}
		}
	}
	remember := from != nil && from.durable.Load()
	ending := j.wills.take(p.will)
	if owed == 0 && !remember && !ending {
		return 0
	}
	return j.note(func(b []byte) []byte {
		if ending {
			b = appendNum(b, opExecuted, p.will.seq)
		}
		if remember {
			b = appendID(appendNum(b, opIncoming, from.num), id)
		}
		if owed > 0 {
			b = appendMessage(append(b, opMessage), p.view(), p.seq)
			b = append(appendUint(b, uint64(owed)), w.owed...)
		}
		return b
	})
}

// owed tells whether a persistent session is owed the publication.
func (t *target) owed(p *publication) bool {
	return t.sess != nil && t.sess.durable.Load() && p.qos > 0 && t.qos > 0
}

// queued records a message that one session is to get, a retained one, and returns it as that
// session's own.
func (j *journal) queued(s *session, m *message, d *delivery) *message {
	if j == nil || d.qos == 0 || !s.durable.Load() {
		return m
	}
	own := *m
	own.seq = j.number()
	j.note(func(b []byte) []byte {
		b = appendMessage(append(b, opMessage), &own, own.seq)
		b = appendUint(b, 1)
		return appendOwed(b, s.num, d.qos, d.retain, d.ids, nil)
	})
	return &own
}

// done records that a session is owed a message no more.
func (j *journal) done(s *session, m *message) {
	if j != nil && m != nil && m.seq != 0 && s.durable.Load() {
		j.note(func(b []byte) []byte { return appendUint(appendNum(b, opDone, s.num), m.seq) })
	}
}

// sent records the packet identifier that a message is sent with.
func (j *journal) sent(s *session, d *delivery) uint64 {
	if j == nil || !s.durable.Load() {
		return 0
	}
	fill := func(b []byte) []byte { return appendID(appendUint(appendNum(b, opSent, s.num), d.msg.seq), d.id) }
	at := j.note(fill)
	if d.qos == mqtt.ExactlyOnce {
		return at
	}
	return 0
}

// released records a PUBREC.
func (j *journal) released(s *session, d *delivery) uint64 {
	if j == nil || d.msg.seq == 0 || !s.durable.Load() {
		return 0
	}
	return j.note(func(b []byte) []byte { return appendUint(appendNum(b, opReleased, s.num), d.msg.seq) })
}

// forgotten records that a client's QoS 2 identifier is free again.
func (j *journal) forgotten(s *session, id uint16) uint64 {
	if j == nil || !s.durable.Load() {
		return 0
	}
	return j.note(func(b []byte) []byte { return appendID(appendNum(b, opForgotten, s.num), id) })
}

// last returns the position that includes everything recorded so far of a persistent session.
func (j *journal) last(s *session) uint64 {
	if j == nil || !s.durable.Load() {
		return 0
	}
	return j.appended.Load()
}

// retained records a topic's retained message; without payload there is none any more.
func (j *journal) retained(m *message) uint64 {
	if j == nil {
		return 0
	}
	return j.note(func(b []byte) []byte { return appendMessage(append(b, opRetained), m, m.seq) })
}
