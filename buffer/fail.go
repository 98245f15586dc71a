package buffer

import (
	"context"
	"errors"
)

// fail puts the queue on its memory. What was written since the last sync may or may not be on the
// disk: a sync that failed once and succeeds the next time proves nothing, so the segments are
// sealed and their unsynced records will be written anew, from memory.
func (q *Queue) fail(err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.failing == nil {
		q.log.Error("the queue's disk does not take records; they are kept in memory until it does", "dir", q.opt.Dir, "err", err)
	}
	if q.failing == nil || !errors.Is(err, errSealed) { // which only says that there was a failure
		q.failing = err
	}
	q.fails++
	cut := q.head
	if q.ring.n > 0 {
		cut = q.ring.first - 1
	}
	for _, s := range q.dirty {
		s.uncut = true
		if s.f != nil {
			s.f.Close()
			s.f = nil
		}
	}
	q.dirty, q.active = nil, nil
	q.unsynced, q.dirDirty = 0, false
	q.seal(cut)
}

// seal ends the sequence of the segments at cut. Those with nothing before it are given up.
func (q *Queue) seal(cut uint64) {
	for len(q.segs) > 0 {
		s := q.segs[len(q.segs)-1]
		s.last = min(s.last, cut)
		if s.base <= cut {
			return
		}
		s.dropped = true
		q.litter = append(q.litter, spare{path: s.path, size: s.fileSize})
		q.segs = q.segs[:len(q.segs)-1]
	}
}

// retry writes what memory holds into new segments and, when that and a sync succeed, ends the
// failure.
func (q *Queue) retry() error {
	q.appendMu.Lock()
	err := q.rewrite()
	q.appendMu.Unlock()
	if err == nil {
		err = q.com.commit(context.Background())
	}
	if err == nil {
		q.cutSealed()
	}
	return err
}

// cutSealed gives back what the segments that failures have sealed did not use: were they to keep
// it, a disk that is full now and then would fill the bound with nothing.
func (q *Queue) cutSealed() {
	q.mu.Lock()
	var sealed []*segment
	for _, s := range q.segs {
		if s.uncut {
			s.uncut = false
			sealed = append(sealed, s)
		}
	}
	q.mu.Unlock()
	for _, s := range sealed {
		if f, err := q.fs.Open(s.path, true); err == nil {
			q.cut(s, f, s.end)
			f.Close()
		}
	}
}

func (q *Queue) rewrite() error {
	if err := q.home.claim(); err != nil {
		return err
	}
	q.mu.Lock()
	base, n := q.head+1, q.ring.n
	if n > 0 {
		base = q.ring.first
	}
	owed := q.owed
	q.mu.Unlock()
	q.sweep() // a segment that was given up and stays is bounded by the next one's base
	if owed {
		if err := q.writeCursors(false); err != nil {
			return err
		}
	}
	q.releaseDone() // a queue that must not drop anything may need the room
	// A fresh segment even when there is nothing to write: it proves that the disk takes one.
	err := q.roll(base)
	if err == nil {
		err = q.w.seg.f.Sync()
	}
	for i := 0; i < n && err == nil; i++ {
		data, d, _ := q.ring.get(base + uint64(i))
		err = q.put(base+uint64(i), data, d)
	}
	if err == nil {
		err = q.flush()
	}
	if err != nil {
		q.fail(err)
		return err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.active.last = q.head
	q.failing = nil
	if base > q.durable+1 {
		if q.doubt.last == 0 {
			q.doubt.first = q.durable + 1
		}
		q.doubt.last = base - 1
	}
	q.log.Info("the queue's disk takes records again", "written", n)
	return nil
}
