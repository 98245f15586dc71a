package buffer

import "time"

// Stats is the state of a queue.
type Stats struct {
	Epoch       uint64
	Bytes       int64 // of the bound that segments and spares take
	MaxBytes    int64
	Segments    int
	First, Last ID     // First is zero when the queue holds nothing
	Synced      uint64 // all up to here is durable
	Failing     error  // why the disk does not take records; nil: it does
	Memory      int    // records that memory holds
	Quarantined int
	Running     time.Duration
	Consumers   []ConsumerStats
}

// ConsumerStats is the state of one consumer.
type ConsumerStats struct {
	Name     string
	Cursor   ID // all up to here is done with, but for the backfill
	Live     int64
	Backfill int64
	Lost     int64 // over the consumer's life
}

// Stats returns the state of the queue.
func (q *Queue) Stats() Stats {
	q.mu.Lock()
	defer q.mu.Unlock()
	st := Stats{
		Epoch: q.epoch, Bytes: q.used(), MaxBytes: q.opt.MaxBytes, Segments: len(q.segs),
		Last: q.id(q.head), Synced: q.durable, Failing: q.failing, Memory: q.ring.n,
		Quarantined: q.quarantined, Running: time.Duration(q.running()),
	}
	if first := q.oldest(); first <= q.head {
		st.First = q.id(first)
	}
	for _, c := range q.consumers {
		live, backfill := c.depth()
		st.Consumers = append(st.Consumers, ConsumerStats{c.name, q.id(c.w), live, backfill, c.lost})
	}
	return st
}
