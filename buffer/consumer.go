package buffer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
)

// A Lane is one of the two ways in which a consumer reads.
type Lane uint8

const (
	Live     Lane = iota // what is appended, from the consumer's cursor on
	Backfill             // what Defer put off, oldest first
)

// A Record is one record as a consumer gets it.
type Record struct {
	ID   ID
	Data []byte // valid, like Dict, until the next call on the same lane
	Dict []byte // nil: it has none
	// DictHash is the hash of the Dict.
	DictHash uint64
	// Durable is false while only memory has the record, because the disk fails.
	Durable bool
}

// ErrForgotten is returned to whoever reads from a consumer that Forget removed.
var ErrForgotten = errors.New("buffer: the consumer was forgotten")

// A Consumer reads the queue's records at its own pace and says which are done with. What of that
// survives a restart is a cursor, up to which all is done, and ranges before it that Defer put off.
//
// Each lane is for one goroutine at a time; all else may be called concurrently.
type Consumer struct {
	q     *Queue
	name  string
	lanes [2]lane
	ready chan struct{}

	// Guarded by Queue.mu.
	w       uint64 // all up to here is done with, but for pending
	done    spans  // beyond w: acked, deferred or lost
	pending spans  // up to w or within done: to be backfilled
	lost    int64
	tally   Tally
	late    map[uint64]LossReason // told as lost while they were handed out: they may be acked all the same
	gone    bool
}

type lane struct {
	mu sync.Mutex // held over a read; guards the reader
	reader
	wakeup chan struct{}

	// Guarded by Queue.mu.
	next    uint64 // the next to read
	high    uint64 // the highest that was handed out
	waiting bool
}

// Name returns the consumer's name.
func (c *Consumer) Name() string { return c.name }

// Next returns the next record of the lane, waiting for one if need be. When the disk does not give
// it, the error says so and the next call tries again; leave it a second or so.
func (c *Consumer) Next(ctx context.Context, which Lane) (Record, error) {
	for {
		r, ok, err := c.next(which, true)
		if ok || err != nil {
			return r, err
		}
		select {
		case <-ctx.Done():
			return Record{}, ctx.Err()
		case <-c.q.done:
			return Record{}, ErrClosed
		case <-c.lanes[which].wakeup:
		}
	}
}

// Ready returns a channel that gets a token after whatever may make TryNext succeed on either lane.
// It holds one token; there may be one for nothing, never none for something.
func (c *Consumer) Ready() <-chan struct{} { return c.ready }

// TryNext returns the next record of the lane if there is one.
func (c *Consumer) TryNext(which Lane) (Record, bool, error) { return c.next(which, false) }

func (c *Consumer) next(which Lane, wait bool) (Record, bool, error) {
	q, l := c.q, &c.lanes[which]
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		q.mu.Lock()
		seq, ok := c.pick(which)
		switch {
		case c.gone, q.shut:
			err := ErrForgotten
			if q.shut {
				err = ErrClosed
			}
			q.mu.Unlock()
			l.reader.close()
			return Record{}, false, err
		case !ok:
			l.waiting = wait
			q.mu.Unlock()
			return Record{}, false, nil
		}
		q.mu.Unlock()
		r, gap, err := q.fetch(&l.reader, seq)
		if errors.Is(err, errMoved) {
			continue
		} else if err != nil {
			return Record{}, false, err
		}
		q.mu.Lock()
		if gap.last > 0 {
			q.lose(gap.first, gap.last, gap.why)
			q.mu.Unlock()
			if gap.why == LostDamaged && gap.s != nil {
				q.setAside(gap.s)
			}
			continue
		}
		// Whoever deferred, rewound or dropped meanwhile has moved the place.
		if again, ok := c.pick(which); !ok || again != seq {
			q.mu.Unlock()
			continue
		}
		l.next, l.high = seq+1, max(l.high, seq)
		q.mu.Unlock()
		return r, true, nil
	}
}

// pick returns what the lane reads next.
func (c *Consumer) pick(which Lane) (uint64, bool) {
	l := &c.lanes[which]
	if which == Backfill {
		return c.pending.from(l.next)
	}
	seq := max(l.next, c.w+1)
	if i := c.done.at(seq); i < len(c.done) && c.done[i].first <= seq {
		seq = c.done[i].last + 1
	}
	return seq, seq <= c.q.head
}

// A Tally is what a consumer counts while it acks. It is kept with the cursor, so that after a crash the
// one is as old as the other.
type Tally [2]uint64

// Ack says that the record is done with. Records may be acked in any order; one that was not handed
// out, or was acked before, is ignored.
func (c *Consumer) Ack(id ID) { c.AckAll(Tally{}, id) }

// AckAll says that the records are done with, and adds to the tally.
func (c *Consumer) AckAll(add Tally, ids ...ID) {
	c.q.mu.Lock()
	defer c.q.mu.Unlock()
	if add != (Tally{}) {
		for i, n := range add {
			c.tally[i] += n
		}
		c.q.cursorsMoved()
	}
	for _, id := range ids {
		c.ack(id)
	}
}

// Tally returns what was added up so far, by earlier openings of the queue, too.
func (c *Consumer) Tally() Tally {
	c.q.mu.Lock()
	defer c.q.mu.Unlock()
	return c.tally
}

func (c *Consumer) ack(id ID) {
	q := c.q
	low := c.low()
	switch seq := id.Seq; {
	case q.id(seq).Epoch != id.Epoch:
		return
	case c.pending.contains(seq):
		if seq <= c.lanes[Backfill].high {
			c.pending.remove(seq, seq)
		}
	case seq > c.w && seq <= c.lanes[Live].high:
		c.done.add(seq, seq)
		c.advance()
	default:
		q.tookLate(c, seq)
		return
	}
	q.cursorsMoved()
	if len(q.segs) > 1 && low <= q.segs[0].last && c.low() > q.segs[0].last {
		q.wakeRun()
	}
}

// advance moves the cursor over what is done.
func (c *Consumer) advance() {
	for len(c.done) > 0 && c.done[0].first <= c.w+1 {
		c.w = max(c.w, c.done[0].last)
		c.done = slices.Delete(c.done, 0, 1)
	}
}

// top returns the highest sequence that is done with.
func (c *Consumer) top() uint64 {
	if n := len(c.done); n > 0 {
		return c.done[n-1].last
	}
	return c.w
}

// low returns the lowest sequence that the consumer still needs.
func (c *Consumer) low() uint64 {
	if len(c.pending) > 0 {
		return min(c.pending[0].first, c.w+1)
	}
	return c.w + 1
}

// Defer puts off what the live lane has not read yet: it becomes the backfill lane's, and the live
// lane goes on with what is appended from now on.
func (c *Consumer) Defer() {
	q := c.q
	q.mu.Lock()
	defer q.mu.Unlock()
	l := &c.lanes[Live]
	from := max(l.next, c.w+1)
	if from > q.head {
		return
	}
	for _, r := range c.done.missing(from, q.head) {
		c.pending.add(r.first, r.last)
	}
	c.done.add(from, q.head)
	l.next = q.head + 1
	c.advance()
	q.cursorsMoved()
	c.wake(Backfill)
}

// Rewind moves both lanes back to the first record that is not acked; what was acked after it is
// skipped.
func (c *Consumer) Rewind() {
	c.q.mu.Lock()
	defer c.q.mu.Unlock()
	c.lanes[Live].next = c.w + 1
	c.lanes[Backfill].next = 0
	c.wake(Live)
	c.wake(Backfill)
}

// Depth returns how many records the consumer has not acked.
func (c *Consumer) Depth() (live, backfill int64) {
	c.q.mu.Lock()
	defer c.q.mu.Unlock()
	return c.depth()
}

func (c *Consumer) depth() (live, backfill int64) {
	return int64(c.q.head-c.w) - c.done.count(), c.pending.count()
}

// wake tells of something new on a lane.
func (c *Consumer) wake(which Lane) {
	c.lanes[which].wake()
	select {
	case c.ready <- struct{}{}:
	default:
	}
}

func (l *lane) wake() {
	if l.waiting {
		l.waiting = false
		select {
		case l.wakeup <- struct{}{}:
		default:
		}
	}
}

// A Start says where a consumer with a new name begins.
type Start struct{ oldest bool }

// Newest starts with what is appended after the consumer was made.
func Newest() Start { return Start{} }

// Oldest starts with the oldest record that the queue has.
func Oldest() Start { return Start{oldest: true} }

// Consumer returns the consumer of that name. One that the queue knows goes on where it was; start
// counts only for a new one. A consumer lives until Forget, in use or not: what it has not acked is
// kept for it, up to the queue's bound.
func (q *Queue) Consumer(name string, start Start) (*Consumer, error) {
	if name == "" || len(name) > maxName {
		return nil, fmt.Errorf("buffer: a consumer's name has 1 to %d bytes, this one has %d", maxName, len(name))
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if c := q.consumer(name); c != nil {
		return c, nil
	}
	if len(q.consumers) >= maxConsumers {
		return nil, fmt.Errorf("buffer: a queue has at most %d consumers; forget one that is not needed any more", maxConsumers)
	}
	c := &Consumer{q: q, name: name, w: q.head}
	if start.oldest || q.recovery.CursorsLost {
		// Without its cursors nobody knows what it had: rather twice than never.
		c.w = q.oldest() - 1
	}
	c.init()
	q.consumers = append(q.consumers, c)
	q.cursorsMoved()
	return c, nil
}

func (c *Consumer) init() {
	c.ready = make(chan struct{}, 1)
	c.ready <- struct{}{} // there may be something from before
	for i := range c.lanes {
		c.lanes[i].wakeup = make(chan struct{}, 1)
	}
}

func (q *Queue) consumer(name string) *Consumer {
	for _, c := range q.consumers {
		if c.name == name {
			return c
		}
	}
	return nil
}

// Forget removes a consumer: nothing is kept for it any longer. An unknown name is no error.
func (q *Queue) Forget(name string) error {
	q.mu.Lock()
	i := slices.IndexFunc(q.consumers, func(c *Consumer) bool { return c.name == name })
	if i >= 0 {
		c := q.consumers[i]
		q.consumers = slices.Delete(q.consumers, i, i+1)
		q.cursorsMoved()
		c.gone = true
		c.wake(Live)
		c.wake(Backfill)
	}
	q.mu.Unlock()
	if i < 0 {
		return nil
	}
	return q.saveCursors(false)
}

// oldest returns the sequence of the oldest record, or of the next one when there is none.
func (q *Queue) oldest() uint64 {
	seq := q.head + 1
	if q.ring.n > 0 {
		seq = q.ring.first
	}
	if len(q.segs) > 0 {
		seq = min(seq, q.segs[0].base)
	}
	return seq
}
