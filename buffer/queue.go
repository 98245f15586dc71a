package buffer

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"log/slog"
	"sync"
	"time"
)

// An ID names a record and is never used twice. Sequences start at 1 and go on across openings;
// the epoch is drawn anew at each, so that a sequence that is used again, because a power cut took
// the tail, makes another name.
type ID struct{ Epoch, Seq uint64 }

// A Dict is side information that many records share, such as a schema. It is immutable: the same
// hash always stands for the same bytes. The queue writes it once into each segment that uses it.
type Dict struct {
	Hash uint64
	Data []byte
}

// Policy says what happens at the bound.
type Policy uint8

const (
	DropOldest   Policy = iota // the oldest records go, whether delivered or not
	RefuseNewest               // Append returns ErrFull
)

// Options are the options of Open. Only Dir is required.
type Options struct {
	Dir string
	FS  FS // nil: OS

	MaxBytes     int64         // bound of all files in Dir; 0: 1 GiB
	MaxAge       time.Duration // of running time; older records go, up to an eighth of it late; 0: no bound
	Full         Policy
	SegmentBytes int  // 0: a sixteenth of MaxBytes, from 64 KiB to 8 MiB
	Preallocate  bool // take all of MaxBytes at once, so that a disk filled by others cannot stop the queue

	SyncWindow time.Duration // how long a record may wait for its sync; 0: every append waits for its own
	SyncBytes  int           // sync earlier when this much waits; 0: 256 KiB
	RAMBytes   int           // bound of what is kept in memory for a failing disk; 0: 1 MiB

	// BootID names the boot of the machine. With it the queue can tell a crash of the process, which
	// loses nothing, from a power cut, which may have lost what was not synced.
	BootID string

	Logger *slog.Logger // nil: nothing is logged
	// OnLoss is told of every range of records that a consumer will not get. It is called by Run and
	// Close, one call at a time, without locks held: it may append.
	OnLoss func(Loss)
	// OnLate takes back n of the records that OnLoss told of: they had been handed out, and were acked after all.
	// It is called as OnLoss is, after it.
	OnLate func(consumer string, why LossReason, n int64)
}

// An Entry is one record to append. Both parts may be reused once the call has returned.
type Entry struct {
	Data []byte
	Dict *Dict // nil: none
}

// A Queue is an open queue. All its methods may be called concurrently.
type Queue struct {
	opt   Options
	fs    FS
	log   *slog.Logger
	home  home // claimed under appendMu
	epoch uint64
	bound int64 // for segments and spares
	began time.Time
	ran   int64 // running time of earlier openings, in nanoseconds

	com  *committer
	kick chan struct{} // wakes Run

	// appendMu makes appenders take turns; it is held over their writes.
	appendMu sync.Mutex
	w        writer
	one      [1]Entry
	interned []*dictionary
	lastDict *dictionary
	closed   bool

	// mu guards the rest and is never held over disk operations.
	mu         sync.Mutex
	segs       []*segment // ascending by number and by base
	active     *segment   // the last of segs, nil before the first append and while the disk fails
	dirty      []*segment // written to since their last sync, oldest first
	dirDirty   bool
	nextNumber uint64
	head       uint64 // the last sequence
	durable    uint64 // all up to here are synced, but for doubt
	doubt      span   // from the first to the last record that no sync covered and memory let go
	unsynced   int    // bytes since the last sync
	fresh      bool   // they are the first since, and Run has not been woken yet
	ring       ring
	failing    error
	fails      int  // counts the failures
	owed       bool // the cursors as clamped by Open are not on disk yet
	epochs     []epochSpan
	spares     []spare
	sparing    bool       // one is being made
	spared     *sync.Cond // on mu: it was, or was not
	pace       pace
	dicts      map[uint64]*dictionary
	consumers  []*Consumer
	losses     []Loss
	late       map[lateKind]int64 // not reported yet
	cur        cursorFile
	cursorMu   sync.Mutex
	cutMu      sync.Mutex // held while a file is shortened, and while one stops being a segment
	reportMu   sync.Mutex
	recovery   Recovery
	making     int64         // bytes of the bound spoken for by files on their way
	nextSpare  uint64        // number of the last spare
	litter     []spare       // files that are to be removed
	done       chan struct{} // closed by Close
	shut       bool

	quarantined, maxQuarantine int
}

type spare struct {
	path   string
	size   int64
	zeroed int64 // as of a segment
}

type epochSpan struct{ base, epoch uint64 }

// Run does what falls due: group commits, cursors, the release of segments, spares, another try
// when the disk failed, reports of losses. It returns when ctx ends, after a last sync.
func (q *Queue) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	prepare := make(chan struct{}, 1)
	wg.Go(func() {
		for {
			q.prepare(func() bool { return ctx.Err() != nil })
			select {
			case <-ctx.Done():
				return
			case <-prepare:
			}
		}
	})

	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	sync := time.NewTimer(time.Hour)
	sync.Stop()
	defer sync.Stop()
	armed := false
	note := time.NewTimer(time.Hour)
	note.Stop()
	defer note.Stop()
	noting := false
	var retryAt, cursorsAt time.Time
	backoff := time.Second
	for {
		now := time.Now()
		switch due, failing := q.due(); {
		case failing:
			armed = false
			if now.Before(retryAt) {
				break
			}
			if err := q.retry(); err != nil {
				q.log.Debug("the queue's disk still fails", "err", err)
				retryAt = now.Add(backoff)
				backoff = min(2*backoff, 5*time.Second)
			} else {
				backoff, retryAt = time.Second, time.Time{}
			}
		case due == dueNow:
			armed = false
			_ = q.com.commit(ctx) // a failure is kept in q.failing
		case due == dueLater && !armed:
			armed = true
			sync.Reset(q.opt.SyncWindow)
		}
		due := q.releasable() || now.Sub(cursorsAt) >= cursorEvery
		if due {
			cursorsAt = now
			q.maintain()
		}
		if due || q.runsLow() {
			select {
			case prepare <- struct{}{}:
			default:
			}
		}
		q.report()
		if !noting && q.notable() {
			noting = true
			note.Reset(noteEvery)
		}

		select {
		case <-ctx.Done():
			if err := q.com.commit(context.Background()); err != nil && q.isFailing() {
				_ = q.retry()
			}
			q.maintain()
			q.report()
			return nil
		case <-tick.C:
		case <-q.kick:
		case <-note.C:
			noting = false
			q.noteCursors()
		case <-sync.C:
			armed = false
			_ = q.com.commit(ctx)
		}
	}
}

// How often cursors that have moved are made durable, and how often they are noted at most.
const (
	cursorEvery = 5 * time.Second
	noteEvery   = 100 * time.Millisecond
)

type dueness int

const (
	dueNever dueness = iota
	dueLater         // something waits for its sync
	dueNow           // enough waits for it
)

func (q *Queue) due() (d dueness, failing bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.failing != nil:
		return dueNever, true
	case q.unsynced >= q.opt.SyncBytes:
		return dueNow, false
	case len(q.dirty) > 0:
		return dueLater, false
	}
	return dueNever, false
}

func (q *Queue) isFailing() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.failing != nil
}

func (q *Queue) wakeRun() {
	select {
	case q.kick <- struct{}{}:
	default:
	}
}

// running is how long this queue has been open in its life.
func (q *Queue) running() int64 { return q.ran + int64(time.Since(q.began)) }

// Epoch returns the epoch of this opening.
func (q *Queue) Epoch() uint64 { return q.epoch }

// Durable is false while records go to memory only, because the disk does not take them.
func (q *Queue) Durable() bool { return !q.isFailing() }

// Append appends one record and returns its name. When it returns, the kernel has the record: a
// crash of the process does not lose it, and consumers may see it. With a SyncWindow the sync
// follows later; without, Append is AppendSync. While the disk fails the record goes to memory and
// Durable is false.
func (q *Queue) Append(data []byte, dict *Dict) (ID, error) {
	id, err := q.append1(data, dict)
	if err == nil && q.opt.SyncWindow == 0 {
		err = q.waitDurable(context.Background(), id.Seq)
	}
	return id, err
}

// AppendSync appends one record and waits until it is durable. Concurrent callers share their syncs.
// On a *DiskError that is not Refused, and when ctx ends first, the record is in the queue, but not
// known to be durable.
func (q *Queue) AppendSync(ctx context.Context, data []byte, dict *Dict) (ID, error) {
	q.mu.Lock()
	err := q.failing
	q.mu.Unlock()
	if err != nil {
		return ID{}, &DiskError{Refused: true, Err: err}
	}
	id, err := q.append1(data, dict)
	if err != nil {
		return id, err
	}
	return id, q.waitDurable(ctx, id.Seq)
}

// AppendBatch appends records that follow each other and returns the name of the first; it costs
// far less than as many calls of Append. They are refused, or taken, all together.
func (q *Queue) AppendBatch(entries []Entry) (ID, error) {
	id, err := q.append(entries)
	if err == nil && q.opt.SyncWindow == 0 && len(entries) > 0 {
		err = q.waitDurable(context.Background(), id.Seq+uint64(len(entries))-1)
	}
	return id, err
}

// Sync waits until all that was appended before is durable.
func (q *Queue) Sync(ctx context.Context) error {
	q.mu.Lock()
	seq := q.head
	q.mu.Unlock()
	return q.waitDurable(ctx, seq)
}

func (q *Queue) append1(data []byte, dict *Dict) (ID, error) {
	q.appendMu.Lock()
	defer q.appendMu.Unlock()
	q.one[0] = Entry{data, dict}
	id, err := q.appendLocked(q.one[:])
	q.one[0] = Entry{}
	return id, err
}

func (q *Queue) append(entries []Entry) (ID, error) {
	q.appendMu.Lock()
	defer q.appendMu.Unlock()
	return q.appendLocked(entries)
}

func (q *Queue) appendLocked(entries []Entry) (ID, error) {
	if q.closed {
		return ID{}, ErrClosed
	}
	total, data := 0, 0
	q.interned = q.interned[:0]
	defer func() { clear(q.interned) }()
	for i := range entries {
		data += len(entries[i].Data)
		q.interned = append(q.interned, q.intern(entries[i].Dict))
		n := frameHeaderLen + recordLen(1<<32-1, len(entries[i].Data))
		if d := entries[i].Dict; d != nil {
			n += 2 * (frameHeaderLen + 13 + len(d.Data))
		}
		if n > q.opt.SegmentBytes-2*segHeaderLen || n > maxPayload {
			return ID{}, ErrTooLarge
		}
		total += n
	}
	q.mu.Lock()
	failing, first := q.failing, q.head+1
	full := failing != nil && !q.ring.takes(len(entries), data)
	q.mu.Unlock()
	if q.opt.Full == RefuseNewest && (full || failing == nil && !q.fits(total)) {
		return ID{}, ErrFull
	}
	if failing == nil {
		if err := q.write(first, entries); err != nil {
			q.fail(err)
		}
	}
	q.publish(entries)
	return ID{q.epoch, first}, nil
}

// write hands the records to the kernel.
func (q *Queue) write(first uint64, entries []Entry) error {
	for i := range entries {
		if err := q.put(first+uint64(i), entries[i].Data, q.interned[i]); err != nil {
			return err
		}
	}
	return q.flush()
}

// publish makes the records visible to consumers and keeps them for a failing disk.
func (q *Queue) publish(entries []Entry) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.active != nil {
		q.active.last = q.head + uint64(len(entries))
	}
	for i := range entries {
		q.head++
		gone := q.ring.push(q.head, entries[i].Data, q.interned[i])
		if gone > 0 && q.failing != nil {
			q.lose(q.ring.first-uint64(gone), q.ring.first-1, LostDiskFailed)
		}
	}
	for _, c := range q.consumers {
		c.wake(Live)
	}
	if q.fresh || q.unsynced >= q.opt.SyncBytes {
		q.fresh = false
		q.wakeRun() // the first of a window, or enough of it
	}
}

// intern returns the queue's own copy of a dictionary.
func (q *Queue) intern(d *Dict) *dictionary {
	if d == nil {
		return nil
	}
	if q.lastDict == nil || q.lastDict.hash != d.Hash { // records of one device come together
		q.mu.Lock()
		defer q.mu.Unlock()
		q.lastDict = q.internBytes(d.Hash, d.Data)
	}
	return q.lastDict
}

func (q *Queue) internBytes(hash uint64, data []byte) *dictionary {
	if e, ok := q.dicts[hash]; ok {
		return e
	}
	if len(q.dicts) >= 4096 {
		clear(q.dicts) // those in use stay alive where they are used
	}
	e := &dictionary{hash, append([]byte(nil), data...)}
	q.dicts[hash] = e
	return e
}

// waitDurable waits for the sync that covers seq.
func (q *Queue) waitDurable(ctx context.Context, seq uint64) error {
	for {
		q.mu.Lock()
		failing, done, doubt := q.failing, q.durable >= seq, q.doubt.last > 0 && seq >= q.doubt.first && seq <= q.doubt.last
		q.mu.Unlock()
		if done && doubt {
			return &DiskError{Err: errDoubt}
		}
		if done {
			return nil
		}
		if failing != nil {
			return &DiskError{Err: failing}
		}
		if err := q.com.commit(ctx); err != nil && (ctx.Err() != nil || q.isFailing()) {
			return err
		}
	}
}

// syncAll makes all that was written durable. Only the committer calls it.
func (q *Queue) syncAll() error {
	type part struct {
		s   *segment
		f   File
		end int64
	}
	q.mu.Lock()
	if q.failing != nil {
		q.mu.Unlock()
		return &DiskError{Err: q.failing}
	}
	var parts []part
	for _, s := range q.dirty {
		parts = append(parts, part{s, s.f, s.end})
	}
	dir, head, fails, unsynced := q.dirDirty, q.head, q.fails, q.unsynced
	q.dirDirty = false
	q.mu.Unlock()

	var err error
	for _, p := range parts {
		if err = p.f.Sync(); err != nil {
			break
		}
	}
	if err == nil && dir {
		err = q.fs.SyncDir(q.opt.Dir)
	}
	if err != nil {
		q.fail(err)
		return &DiskError{Err: err}
	}

	q.mu.Lock()
	defer q.mu.Unlock()
	if q.fails != fails {
		return errSealed
	}
	for _, p := range parts {
		p.s.synced = p.end
		if p.s.end > p.end {
			continue // it grew meanwhile, and may have been succeeded by another
		}
		q.dirty = deleteSegment(q.dirty, p.s)
		if p.s != q.active && p.s.f != nil {
			p.s.f.Close()
			p.s.f = nil
		}
	}
	q.unsynced -= unsynced
	q.durable = max(q.durable, head)
	q.ring.trim(head)
	return nil
}

func deleteSegment(list []*segment, s *segment) []*segment {
	for i := range list {
		if list[i] == s {
			return append(list[:i], list[i+1:]...)
		}
	}
	return list
}

// random64 returns 64 random bits that are not all zero.
func random64() uint64 {
	var b [8]byte
	for {
		_, _ = rand.Read(b[:]) // never fails
		if v := binary.LittleEndian.Uint64(b[:]); v != 0 {
			return v
		}
	}
}
