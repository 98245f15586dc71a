package buffer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/bits"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// Recovery says what Open found.
type Recovery struct {
	Clean       bool // the queue had been closed
	CursorsLost bool // no intact cursors: consumers start at the oldest record
	Torn        bool // records that had not been synced may be lost
	Newest      ID   // the last record that survived
	Unreadable  int  // segments without an intact header
}

func (o *Options) fill() error {
	if o.Dir == "" {
		return fmt.Errorf("buffer: no directory given")
	}
	if o.FS == nil {
		o.FS = OS
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.MaxBytes <= 0 {
		o.MaxBytes = 1 << 30
	}
	if o.SegmentBytes == 0 {
		o.SegmentBytes = int(min(max(o.MaxBytes/16, minSegment), maxSegment))
		o.SegmentBytes = 1 << (bits.Len(uint(o.SegmentBytes)) - 1)
	}
	if o.SegmentBytes < pageSize || o.SegmentBytes%pageSize != 0 || o.SegmentBytes > 1<<28 {
		return fmt.Errorf("buffer: segments of %d bytes: from %d to %d, a multiple of %d", o.SegmentBytes, pageSize, 1<<28, pageSize)
	}
	if need := int64(4*o.SegmentBytes) + besides; o.MaxBytes < need {
		return fmt.Errorf("buffer: a bound of %d bytes is too small for segments of %d; at least %d", o.MaxBytes, o.SegmentBytes, need)
	}
	if o.MaxAge < 0 || o.MaxAge > 0 && o.MaxAge < 8*time.Second {
		return fmt.Errorf("buffer: a bound of %v for the age of records; at least 8s", o.MaxAge)
	}
	if o.SyncBytes <= 0 {
		o.SyncBytes = 256 << 10
	}
	if o.RAMBytes <= 0 {
		o.RAMBytes = 1 << 20
	}
	return nil
}

// besides is what the files that are neither segments nor spares may take of the bound: the lock, the
// cursors, and the file that takes their place.
const besides = pageSize + 4*slotSize

// Open opens the queue in a directory, which it makes if need be. It does not refuse for damage, nor
// for a disk that takes nothing: records are then kept in memory until it does. What it does refuse for
// is an *ErrLocked, an *ErrNewer, or a directory that cannot be used at all.
func Open(o Options) (*Queue, error) {
	if err := o.fill(); err != nil {
		return nil, err
	}
	var newer *ErrNewer
	if _, err := Look(o.Dir, o.FS); errors.As(err, &newer) {
		return nil, err // before the lock file is touched
	}
	h := home{fs: o.FS, dir: o.Dir}
	if err := h.claim(); err != nil && !unwritable(err) {
		return nil, err
	}
	q := &Queue{
		opt: o, fs: o.FS, log: o.Logger, home: h,
		epoch: random64(),
		began: time.Now(),
		kick:  make(chan struct{}, 1),
		done:  make(chan struct{}),
		dicts: map[uint64]*dictionary{},
		ring:  ring{limit: o.RAMBytes},
	}
	q.com = newCommitter(q.syncAll)
	q.spared = sync.NewCond(&q.mu)
	if q.maxQuarantine = 2; o.MaxBytes < 16*int64(o.SegmentBytes) {
		q.maxQuarantine = 0
	}
	q.bound = o.MaxBytes - besides - int64(q.maxQuarantine*o.SegmentBytes)
	if err := q.load(); err != nil {
		_ = q.home.leave() // the error that keeps it from opening says more
		return nil, err
	}
	return q, nil
}

func (q *Queue) load() error {
	dir := q.opt.Dir
	names, err := q.home.list()
	if err != nil {
		return err
	}
	in, err := survey(q.fs, dir, names)
	if err != nil {
		return err
	}
	st, at, known, lost, err := loadCursors(q.fs, filepath.Join(dir, cursorsName))
	if err != nil {
		return err
	}
	q.cur = at
	if slices.ContainsFunc(in.segs, func(s found) bool { return s.ok && s.h.epoch == st.head.Epoch }) {
		q.ran = st.running // otherwise the cursors may be those of another queue
	}
	q.recovery.Clean, q.recovery.CursorsLost = known && st.clean, (lost || !known) && len(in.segs) > 0

	if in.unfinished {
		q.remove(filepath.Join(dir, cursorsTemp), 0)
	}
	q.loadSpares(in.spares)
	q.loadQuarantine(in.aside)
	q.loadSegments(q.own(in.segs, st.head.Epoch))
	torn := false
	if n := len(q.segs); n > 0 {
		newest := q.segs[n-1]
		torn = q.scanNewest(newest, st.head)
		q.head = newest.last
	} else {
		q.ran = st.running
		q.head = st.head.Seq
		if q.head > 0 {
			q.epochs = []epochSpan{{1, st.head.Epoch}}
		}
	}
	q.durable = q.head
	q.rememberEpoch(st.consumers)
	switch {
	case q.recovery.Clean && st.head.Seq <= q.head:
	case q.opt.BootID != "" && st.boot != "":
		q.recovery.Torn = known && st.boot != q.opt.BootID
	default:
		q.recovery.Torn = torn
	}
	if known && st.head.Seq > q.head {
		q.recovery.Torn = true
	}
	q.losses = st.losses
	for _, s := range st.consumers {
		q.consumers = append(q.consumers, q.restore(s))
	}
	q.reckon()
	q.epochs = append(q.epochs, epochSpan{q.head + 1, q.epoch})
	q.settle()
	q.owed, q.cur.dirty = true, true
	if !q.isFailing() {
		_ = q.writeCursors(false) // a failure is kept in q.failing
	}
	q.releaseDone()                                       // a crash may have brought back what was released
	for n := len(q.spares); n > 0 && !q.roomFor(0); n-- { // rather a spare than a record
		sp := q.spares[n-1]
		q.spares = q.spares[:n-1]
		q.remove(sp.path, sp.size)
	}
	for q.opt.Full == DropOldest && !q.roomFor(0) && len(q.segs) > 0 { // the bound was lowered
		if err := q.makeRoom(); err != nil {
			break
		}
	}
	return nil
}

// loadSpares keeps the spares that fit and removes the others.
func (q *Queue) loadSpares(files []spare) {
	for _, f := range files {
		var n uint64
		if _, err := fmt.Sscanf(strings.TrimPrefix(filepath.Base(f.path), sparePrefix), "%x", &n); err == nil {
			q.nextSpare = max(q.nextSpare, n)
		}
		if f.size != int64(q.opt.SegmentBytes) || len(q.spares) >= keepSpares && !q.opt.Preallocate {
			q.remove(f.path, f.size)
			continue
		}
		f.zeroed = f.size // as good as ever; at worst some of its syncs cost more, once
		q.spares = append(q.spares, f)
	}
}

// loadQuarantine keeps what fits into the room for it, which may be less than it was, and removes the
// others.
func (q *Queue) loadQuarantine(files []spare) {
	for _, f := range files {
		if q.quarantined >= q.maxQuarantine || f.size > int64(q.opt.SegmentBytes) {
			q.remove(f.path, f.size)
			continue
		}
		q.quarantined++
	}
}

// loadSegments puts the segments in order. A header is believed before a name: a crash may have
// kept a file under the name it had before it was recycled.
func (q *Queue) loadSegments(files []found) {
	slices.SortStableFunc(files, byNumber)
	for _, f := range files {
		path := filepath.Join(q.opt.Dir, f.name)
		switch n := len(q.segs); {
		case !f.ok && f.size == 0:
			q.remove(path, 0)
			continue
		case !f.ok, n > 0 && q.segs[n-1].number == f.h.number:
			q.discard(path, f)
			continue
		}
		q.nextNumber = max(q.nextNumber, f.h.number)
		if want := segName(f.h.number); f.name != want {
			to := filepath.Join(q.opt.Dir, want)
			if slices.ContainsFunc(files, func(o found) bool { return o.name == want }) {
				q.log.Warn("a queue segment has the name of another", "path", path)
			} else if err := q.fs.Rename(path, to); err == nil {
				path = to
				q.dirDirty = true
			}
		}
		s := &segment{segHeader: f.h, path: path, fileSize: f.size, zeroed: f.size, end: f.size - segHeaderLen, ended: f.h.born, dicts: map[uint32]*dictionary{}}
		s.synced, s.seedv = s.end, s.seed()
		q.segs = append(q.segs, s)
	}
	// Each ends where the next begins; one that was abandoned after a failure may begin too late.
	next := ^uint64(0)
	born := q.ran
	var last *segment // of the epoch
	after := 0        // segments of the same epoch that follow
	for i := len(q.segs) - 1; i >= 0; i-- {
		s := q.segs[i]
		s.last = next - 1
		if i < len(q.segs)-1 {
			s.ended = q.segs[i+1].born
			if s.span > 0 {
				s.ended = min(s.ended, s.born+s.span*1e9)
			}
		}
		if last == nil || last.epoch != s.epoch {
			last, after = s, 0
		}
		s.tail = after < unsettled && !(q.recovery.Clean && i == len(q.segs)-1-after)
		after++
		born = max(born, s.born)
		if s.base >= next {
			q.segs = slices.Delete(q.segs, i, i+1)
			q.remove(s.path, s.fileSize)
			continue
		}
		next = s.base
	}
	q.ran = born
	for _, s := range q.segs {
		if n := len(q.epochs); n == 0 || q.epochs[n-1].epoch != s.epoch {
			q.epochs = append(q.epochs, epochSpan{s.base, s.epoch})
		}
	}
}

// own leaves out what somebody has copied here from another queue: a segment that is numbered after
// those of the epoch that the cursors know, begins before them, and is of another epoch. Taken for the
// newest it would end those.
func (q *Queue) own(files []found, epoch uint64) []found {
	var newest segHeader
	for _, f := range files {
		if f.ok && f.h.epoch == epoch && f.h.number > newest.number {
			newest = f.h
		}
	}
	return slices.DeleteFunc(files, func(f found) bool {
		foreign := f.ok && f.h.epoch != epoch && f.h.number > newest.number && f.h.base < newest.base
		if foreign {
			q.putAside(filepath.Join(q.opt.Dir, f.name), f, "a segment of another queue was put aside")
		}
		return foreign
	})
}

// discard removes a file without an intact header, keeping it in quarantine when there is room.
func (q *Queue) discard(path string, f found) {
	q.recovery.Unreadable++
	q.putAside(path, f, "a queue segment has no intact header and was put aside")
}

func (q *Queue) putAside(path string, f found, why string) {
	if q.quarantined < q.maxQuarantine && f.size <= int64(q.opt.SegmentBytes) {
		if q.fs.Rename(path, filepath.Join(q.opt.Dir, quarantinePrefix+f.name)) == nil {
			q.quarantined++
			q.dirDirty = true
			q.log.Warn(why, "path", path)
			return
		}
	}
	q.remove(path, f.size)
}

// scanNewest finds the last record, cuts the file behind it, and tells whether something that had
// begun to be written stands there. When the cursors know of later records, those are counted as
// lost, and the file is left as it is for the quarantine.
func (q *Queue) scanNewest(s *segment, head ID) (torn bool) {
	s.last = s.base - 1
	f, err := q.fs.Open(s.path, true)
	if err != nil {
		if f, err = q.fs.Open(s.path, false); err != nil {
			return false
		}
	}
	defer f.Close()
	sc := scanner{f: f, seed: s.seedv, base: s.base, off: segHeaderLen, end: s.end, expect: s.base}
	end, known := int64(segHeaderLen), int64(segHeaderLen)
	for {
		fr, ok := sc.next()
		if !ok {
			break
		}
		first := s.base + uint64(fr.delta)
		known = max(known, int64(fr.synced))
		switch fr.kind {
		case kindDict:
			if no, hash, data, ok := cutDict(fr.payload); ok && s.dicts[no] == nil {
				s.dicts[no] = q.internBytes(hash, data)
			}
		case kindRecords:
			s.mark(first, end)
			n := uint64(0)
			for p := fr.payload; ; n++ {
				_, _, rest, ok := cutRecord(p)
				if !ok {
					break
				}
				p = rest
			}
			if n > 0 {
				s.last = first + n - 1
				sc.expect = s.last + 1
			}
		}
		end = sc.off
	}
	if s.end-end >= frameHeaderLen {
		var h [frameHeaderLen]byte
		if n, _ := f.ReadAt(h[:], end); n == len(h) {
			torn = frameLen(h[:]) > 0 && s.base+uint64(le32(h[8:])) == s.last+1
		}
	}
	q.recovery.Newest = q.id(s.last)
	if head.Epoch == s.epoch && head.Seq > s.last {
		s.last = head.Seq
	} else if sc.ioErr == nil {
		q.cut(s, f, end)
	}
	s.end, s.synced, s.settled = end, known, known > segHeaderLen
	return torn
}

// unsettled is how many segments at the end of an epoch may not have been synced when it ended.
const unsettled = 4

// settle makes durable what an opening before wrote and, being killed, did not sync: from here on
// it counts as synced. It is written once more, byte for byte, for when a sync had failed before the
// kill, the kernel may hold as clean what the disk does not have.
func (q *Queue) settle() {
	if q.recovery.Clean || len(q.segs) == 0 {
		return
	}
	err := q.fs.SyncDir(q.opt.Dir)
	newest := q.segs[len(q.segs)-1]
	for i := len(q.segs) - 1; i >= 0 && err == nil && q.segs[i].tail; i-- {
		s := q.segs[i]
		if s.epoch != newest.epoch {
			break
		}
		if s == newest {
			err = q.rewriteFile(s.path, s.synced, s.end)
			s.synced = s.end
		} else {
			err = q.rewriteFile(s.path, segHeaderLen, s.fileSize)
		}
		if s == newest && s.settled {
			break // what came before it was synced first
		}
	}
	if err != nil {
		q.fail(err)
	}
}

// rewriteFile writes the header and the bytes from off to end once more, and syncs.
func (q *Queue) rewriteFile(path string, off, end int64) error {
	f, err := q.fs.Open(path, true)
	if err != nil {
		return err
	}
	defer f.Close()
	buf := make([]byte, window)
	for _, r := range [...][2]int64{{0, segHeaderLen}, {off, end}} {
		for at := r[0]; at < r[1]; {
			n := min(window, r[1]-at)
			if _, err := f.ReadAt(buf[:n], at); err != nil {
				return err
			}
			if _, err := f.WriteAt(buf[:n], at); err != nil {
				return err
			}
			at += n
		}
	}
	return f.Sync()
}

// rememberEpoch keeps the epoch of cursors that stand on the end of a segment that was released: were
// a crash to bring that segment back, they would say nothing about it without.
func (q *Queue) rememberEpoch(saved []savedConsumer) {
	if len(q.segs) == 0 {
		return
	}
	var at ID
	for _, c := range saved {
		if c.top.Seq < q.segs[0].base && c.top.Seq > at.Seq {
			at = c.top
		}
	}
	switch {
	case at.Epoch == 0:
	case at.Epoch == q.epochs[0].epoch:
		q.epochs[0].base = 1
	default:
		q.epochs = slices.Insert(q.epochs, 0, epochSpan{1, at.Epoch})
	}
}

// restore makes a consumer of what was saved, set back to what survived.
func (q *Queue) restore(s savedConsumer) *Consumer {
	c := &Consumer{q: q, name: s.name, w: s.w, done: s.done, pending: s.pending, lost: s.lost, tally: s.tally}
	top := q.clamp(s.top)
	c.w = min(c.w, top)
	c.pending.remove(0, 0) // sequences start at 1
	c.done.remove(top+1, ^uint64(0))
	c.pending.remove(top+1, ^uint64(0))
	c.init()
	if q.recovery.Torn {
		q.losses = append(q.losses, Loss{Consumer: c.name, First: ID{q.id(q.head).Epoch, q.head + 1}, Open: true, Reason: LostTorn})
	}
	return c
}

// clamp returns up to where a cursor holds. Within its own epoch it is set back to the last record
// of it that survived. A cursor of an epoch that left nothing is good for what is older than all
// that is left; otherwise it tells nothing, and the consumer gets everything once more.
func (q *Queue) clamp(at ID) uint64 {
	for i, e := range q.epochs {
		if e.epoch == at.Epoch {
			last := q.head
			if i+1 < len(q.epochs) {
				last = q.epochs[i+1].base - 1
			}
			return min(at.Seq, last)
		}
	}
	if oldest := q.oldest(); at.Seq >= oldest {
		return oldest - 1
	}
	return at.Seq
}

// reckon notes what consumers were owed and is older than the oldest segment.
func (q *Queue) reckon() {
	if oldest := q.oldest(); oldest > 1 {
		why := LostMissing
		if !q.recovery.Clean && len(q.segs) > 0 && q.segs[0].tail {
			why = LostTorn // so short a queue may have begun with segments that were never synced
		}
		q.lose(1, oldest-1, why)
	}
}

// Recovery returns what Open found.
func (q *Queue) Recovery() Recovery { return q.recovery }

// Close syncs, saves the cursors and lets go of the directory. Run must have returned. It returns a
// *DiskError when records that are in memory only are lost by it.
func (q *Queue) Close() error {
	q.appendMu.Lock()
	if q.closed {
		q.appendMu.Unlock()
		return ErrClosed
	}
	q.closed = true
	q.appendMu.Unlock()
	q.sweep()
	err := q.Sync(context.Background())
	if err != nil && q.retry() == nil {
		err = q.Sync(context.Background())
	}
	if serr := q.saveCursors(err == nil); err == nil {
		err = serr
	}
	close(q.done)
	q.mu.Lock()
	q.shut = true
	consumers := slices.Clone(q.consumers)
	for _, s := range q.dirty {
		s.f.Close()
	}
	if q.active != nil && q.active.f != nil {
		q.active.f.Close()
	}
	q.dirty, q.active = nil, nil
	q.mu.Unlock()
	for _, c := range consumers {
		for i := range c.lanes {
			l := &c.lanes[i]
			l.mu.Lock()
			l.reader.close()
			l.mu.Unlock()
		}
	}
	if q.cur.f != nil {
		q.cur.f.Close()
	}
	q.report()
	if lerr := q.home.leave(); err == nil {
		err = lerr
	}
	return err
}
