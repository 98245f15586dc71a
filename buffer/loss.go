package buffer

// LossReason says in a few words why records were lost; it is part of the interface to users.
type LossReason string

const (
	LostDropped    LossReason = "queue full"   // the bound: the oldest had to go
	LostAged       LossReason = "too old"      // MaxAge
	LostDamaged    LossReason = "damaged"      // had been synced, but does not read back intact
	LostTorn       LossReason = "power cut"    // was not synced
	LostDiskFailed LossReason = "disk failed"  // the disk failed for longer than memory lasts
	LostMissing    LossReason = "file missing" // the segment is not there
)

// A Loss is a range of records that a consumer has not acked and will not get.
type Loss struct {
	Consumer    string
	First, Last ID
	Count       int64 // Last.Seq-First.Seq+1; 0 when Open
	// Open says that nobody knows how many: records from First on, of First's epoch, that had not been
	// synced when the power went, if there were any. Last is not set.
	Open   bool
	Reason LossReason
}

// lose notes that the records first to last will reach nobody: each consumer that has not acked
// them steps over them, and is told.
func (q *Queue) lose(first, last uint64, why LossReason) {
	for _, c := range q.consumers {
		if last > c.w {
			for _, r := range c.done.missing(max(first, c.w+1), last) {
				c.done.add(r.first, r.last)
				q.lost(c, r, why)
				c.lostHandedOut(r, Live, why)
			}
		}
		for _, r := range c.pending.within(first, last) {
			c.pending.remove(r.first, r.last)
			q.lost(c, r, why)
			c.lostHandedOut(r, Backfill, why)
		}
		c.advance()
	}
}

// lostHandedOut remembers what of a lost range the consumer has: whoever is about to deliver it has a copy.
func (c *Consumer) lostHandedOut(r span, lane Lane, why LossReason) {
	for seq := r.first; seq <= min(r.last, c.lanes[lane].high); seq++ {
		if c.late == nil {
			c.late = map[uint64]LossReason{}
		}
		c.late[seq] = why
	}
}

// lateKind is what late records are counted by.
type lateKind struct {
	consumer string
	why      LossReason
}

// tookLate notes that a record was acked; if it was told as lost before, that is taken back.
func (q *Queue) tookLate(c *Consumer, seq uint64) {
	why, ok := c.late[seq]
	if !ok {
		return
	}
	delete(c.late, seq)
	c.lost--
	q.cur.changed()
	if q.late == nil {
		q.late = map[lateKind]int64{}
	}
	q.late[lateKind{c.name, why}]++
}

func (q *Queue) lost(c *Consumer, r span, why LossReason) {
	n := int64(r.last-r.first) + 1
	c.lost += n
	q.cur.changed() // nobody is woken for it
	l := Loss{Consumer: c.name, First: q.id(r.first), Last: q.id(r.last), Count: n, Reason: why}
	// A ring that overflows loses one record at a time; one report will do.
	for i := len(q.losses) - 1; i >= 0 && i >= len(q.losses)-2*len(q.consumers); i-- {
		if p := &q.losses[i]; p.Consumer == l.Consumer && p.Reason == why && !p.Open && p.Last.Seq+1 == r.first {
			p.Last, p.Count = l.Last, p.Count+n
			return
		}
	}
	q.losses = append(q.losses, l)
	if len(q.losses) == 1 && why != LostDiskFailed { // of those there is one an append: once a second
		q.wakeRun()
	}
}

// id names the record seq.
func (q *Queue) id(seq uint64) ID {
	for i := len(q.epochs) - 1; i >= 0; i-- {
		if q.epochs[i].base <= seq {
			return ID{q.epochs[i].epoch, seq}
		}
	}
	return ID{0, seq}
}

// report hands over the losses noted so far.
func (q *Queue) report() {
	q.reportMu.Lock()
	defer q.reportMu.Unlock()
	q.mu.Lock()
	losses, late := q.losses, q.late
	q.losses, q.late = nil, nil
	if len(losses) > 0 {
		q.cur.changed() // until they are reported they stand in the cursors file
	}
	q.mu.Unlock()
	for _, l := range losses {
		q.log.Warn("queued records are lost", "consumer", l.Consumer, "first", l.First.Seq, "last", l.Last.Seq, "open", l.Open, "reason", string(l.Reason))
		if q.opt.OnLoss != nil {
			q.opt.OnLoss(l)
		}
	}
	for kind, n := range late {
		if q.opt.OnLate != nil {
			q.opt.OnLate(kind.consumer, kind.why, n)
		}
	}
}
