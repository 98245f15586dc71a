package buffer

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"
)

// A writer builds frames and hands them to the kernel. Queue.appendMu guards it.
type writer struct {
	seg    *segment
	seed   uint32
	synced uint32
	buf    []byte // frames to write; the last one may be open
	off    int64  // where buf goes
	first  uint64 // the sequence at the beginning of buf
	open   int    // where the open frame begins in buf, -1 when none is
	delta  uint32 // of the open frame

	dict *dictionary // the last one used, nil: none
	no   uint32      // its number in this segment
}

// errSealed says that the segment was sealed under the writer's hands, because a sync failed.
var errSealed = errors.New("buffer: segment sealed after a failure")

const flushAt = 256 << 10

func (w *writer) start(s *segment) {
	*w = writer{seg: s, seed: s.seed(), synced: uint32(s.synced), buf: w.buf[:0], off: s.end, first: s.base, open: -1}
}

func (w *writer) close() {
	if w.open >= 0 {
		sealFrame(w.buf[w.open:], w.seed, kindRecords, w.delta, w.synced)
		w.open = -1
	}
}

// fits tells whether the next record, with the dictionary of the one before, goes into the open frame.
func (w *writer) fits(data []byte, d *dictionary) bool {
	if w.seg == nil || w.open < 0 || d != w.dict {
		return false
	}
	end := len(w.buf) + recordLen(w.no, len(data))
	return end-w.open <= frameTarget && w.off+int64(end) <= w.seg.limit()
}

// put adds one record; flush writes it.
func (q *Queue) put(seq uint64, data []byte, d *dictionary) error {
	w := &q.w
	if w.fits(data, d) {
		w.buf = appendRecord(w.buf, w.no, data)
		return nil
	}
	if w.seg == nil {
		if err := q.roll(seq); err != nil {
			return err
		}
	}
	no, known := w.number(d)
	if int64(len(w.buf))+w.off+int64(w.need(no, known, data, d)) > w.seg.limit() || w.seg.span > 0 && w.seg.over(q.running()) {
		if err := q.flush(); err != nil {
			return err
		}
		if err := q.roll(seq); err != nil {
			return err
		}
		no, known = w.number(d)
	}
	if len(w.buf) >= flushAt {
		if err := q.flush(); err != nil {
			return err
		}
	}
	if len(w.buf) == 0 {
		w.first = seq
	}
	w.dict, w.no = d, no
	if !known {
		w.close()
		// Twice, so that no single damaged frame costs more than its own records.
		for range 2 {
			at := len(w.buf)
			w.buf = appendDict(append(w.buf, make([]byte, frameHeaderLen)...), no, d)
			sealFrame(w.buf[at:], w.seed, kindDict, uint32(seq-w.seg.base), w.synced)
		}
		q.mu.Lock()
		q.pace.bytes -= int64(2 * dictFrameLen(no, d)) // they come once in a segment
		w.seg.numbers[d.hash], w.seg.dicts[no] = no, d
		q.mu.Unlock()
	}
	if w.open >= 0 && len(w.buf)-w.open+recordLen(no, len(data)) > frameTarget {
		w.close()
	}
	if w.open < 0 {
		w.open, w.delta = len(w.buf), uint32(seq-w.seg.base)
		w.buf = append(w.buf, emptyHeader[:]...)
	}
	w.buf = appendRecord(w.buf, no, data)
	return nil
}

var emptyHeader [frameHeaderLen]byte

// number returns the dictionary's number in this segment, the next free one when it has none.
func (w *writer) number(d *dictionary) (no uint32, known bool) {
	if d == nil {
		return 0, true
	}
	if no, known = w.seg.numbers[d.hash]; !known {
		no = uint32(len(w.seg.numbers)) + 1
	}
	return no, known
}

// need is the most room that the record may take.
func (w *writer) need(no uint32, known bool, data []byte, d *dictionary) int {
	n := frameHeaderLen + recordLen(no, len(data))
	if !known {
		n += 2 * dictFrameLen(no, d)
	}
	return n
}

// flush hands the frames built so far to the kernel.
func (q *Queue) flush() error {
	w := &q.w
	w.close()
	if len(w.buf) == 0 {
		return nil
	}
	q.mu.Lock()
	ok := q.active == w.seg
	q.mu.Unlock()
	if !ok {
		return errSealed
	}
	if _, err := w.seg.f.WriteAt(w.buf, w.off); err != nil {
		return err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.active != w.seg {
		return errSealed
	}
	s := w.seg
	s.mark(w.first, w.off)
	w.off += int64(len(w.buf))
	s.end, s.ended = w.off, q.running()
	q.unsynced += len(w.buf)
	q.pace.bytes += int64(len(w.buf))
	w.synced = uint32(s.synced)
	if n := len(q.dirty); n == 0 || q.dirty[n-1] != s {
		q.dirty = append(q.dirty, s)
		q.fresh = true
	}
	if w.buf = w.buf[:0]; cap(w.buf) > 2*flushAt {
		w.buf = nil
	}
	return nil
}

// roll makes a new segment the active one; its first record will be base.
func (q *Queue) roll(base uint64) error {
	if err := q.limitDirty(); err != nil {
		return err
	}
	s, err := q.newSegment(base)
	if err != nil {
		return err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.adopt(s)
	return nil
}

// limitDirty syncs when several segments wait for it: the next opening looks for unsynced records
// in the last few segments only.
func (q *Queue) limitDirty() error {
	q.mu.Lock()
	n, failing, active := len(q.dirty), q.failing, q.active
	q.mu.Unlock()
	switch {
	case failing != nil && active != nil: // rewriting
		return active.f.Sync()
	case n >= unsettled-1:
		return q.com.commit(context.Background())
	}
	return nil
}

// adopt appends a new segment, its header written, and makes it the active one.
func (q *Queue) adopt(s *segment) {
	if n := len(q.segs); n > 0 {
		// The next segment's base is where the one before ends, now and after a restart.
		for i := n - 1; i >= 0 && q.segs[i].last >= s.base; i-- {
			q.segs[i].last = s.base - 1
		}
		if a := q.active; a != nil {
			a.last = s.base - 1
			if a.f != nil && !slices.Contains(q.dirty, a) {
				a.f.Close()
				a.f = nil
			}
		}
	}
	if n := len(q.epochs); n == 0 || q.epochs[n-1].epoch != s.epoch {
		q.epochs = append(q.epochs, epochSpan{s.base, s.epoch})
	}
	q.making -= s.fileSize
	q.segs = append(q.segs, s)
	q.active = s
	q.dirty = append(q.dirty, s)
	q.dirDirty = true
	q.w.start(s)
	if !s.whole() {
		q.wakeRun()
	}
}

// newSegment takes a spare, or makes a file, and writes the header. Until it is adopted its bytes are
// spoken for in q.making.
func (q *Queue) newSegment(base uint64) (_ *segment, err error) {
	f, sp, err := q.takeFile()
	if err != nil {
		return nil, err
	}
	q.mu.Lock()
	q.nextNumber++
	s := &segment{
		segHeader: segHeader{version: formatVersion, number: q.nextNumber, epoch: q.epoch, base: base, salt: random64(), size: sp.size, span: int64(q.opt.MaxAge / 8 / time.Second), born: q.running()},
		f:         f,
		last:      base - 1,
		end:       segHeaderLen,
		fileSize:  sp.size,
		zeroed:    sp.zeroed,
		dicts:     map[uint32]*dictionary{},
		numbers:   map[uint64]uint32{},
	}
	q.mu.Unlock()
	s.seedv = s.seed()
	s.ended = s.born
	s.path = filepath.Join(q.opt.Dir, segName(s.number))
	if err = q.fs.Rename(sp.path, s.path); err == nil {
		err = s.writeHeader()
	} else {
		s.path = sp.path
	}
	if err != nil {
		f.Close()
		q.discardMade(s.path, sp.size)
		return nil, err
	}
	return s, nil
}

// discardMade removes a file that was to become part of the queue.
func (q *Queue) discardMade(path string, size int64) {
	q.remove(path, size)
	q.made(size)
}

// made says that bytes are no longer spoken for.
func (q *Queue) made(size int64) {
	q.mu.Lock()
	q.making -= size
	q.mu.Unlock()
}

// takeFile returns a file to become a segment: a spare, or a new one, of which nothing is zeroed yet.
func (q *Queue) takeFile() (f File, sp spare, err error) {
	size := int64(q.opt.SegmentBytes)
	q.mu.Lock()
	for len(q.spares) == 0 && !q.roomFor(size) {
		if q.sparing { // which has the room
			q.spared.Wait()
			continue
		}
		q.mu.Unlock()
		if err := q.makeRoom(); err != nil {
			return nil, spare{}, err
		}
		q.mu.Lock()
	}
	if n := len(q.spares); n > 0 {
		sp = q.spares[n-1]
		q.spares = q.spares[:n-1]
		q.making += sp.size
		q.mu.Unlock()
		if f, err = q.fs.Open(sp.path, true); err != nil {
			q.discardMade(sp.path, sp.size)
		}
		return f, sp, err
	}
	q.making += size
	q.nextSpare++
	sp = spare{path: q.spareName(q.nextSpare), size: size, zeroed: pageSize}
	q.mu.Unlock()
	f, err = q.create(sp.path, size, func(f File) error { return f.Reserve(size) })
	return f, sp, err
}

// create makes a file of size bytes, for which there is room in q.making. When that fails neither is
// left.
func (q *Queue) create(path string, size int64, fill func(File) error) (File, error) {
	f, err := q.fs.Create(path)
	if err != nil {
		q.made(size)
		return nil, err
	}
	if err := fill(f); err != nil {
		f.Close()
		q.discardMade(path, size)
		return nil, err
	}
	return f, nil
}

func (q *Queue) spareName(n uint64) string {
	return filepath.Join(q.opt.Dir, fmt.Sprintf("%s%016x", sparePrefix, n))
}

const sparePrefix = "spare-"

// used is what segments and spares take of the bound, in whole pages, as the disk has it.
func (q *Queue) used() (n int64) {
	for _, s := range q.segs {
		n += pages(s.fileSize)
	}
	for _, s := range q.spares {
		n += pages(s.size)
	}
	for _, s := range q.litter {
		n += pages(s.size)
	}
	return n + pages(q.making)
}

func pages(size int64) int64 { return (size + pageSize - 1) &^ (pageSize - 1) }

func (q *Queue) roomFor(size int64) bool { return q.used()+size <= q.bound }

// fits tells whether records of so many bytes can be taken without dropping others.
func (q *Queue) fits(total int) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.active != nil && int64(total) <= q.active.limit()-q.active.end {
		return true
	}
	size := int64(q.opt.SegmentBytes)
	n := int64(len(q.spares)) + max(0, q.bound-q.used())/size
	if q.sparing {
		n++
	}
	return int64(total) <= n*(size/2) || n > 0 && int64(total) <= size-2*segHeaderLen
}
