package buffer

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
)

const keepSpares = 2 // of those that were segments

// makeRoom drops the oldest segment, so that its file or its bytes can be used again.
func (q *Queue) makeRoom() error {
	if q.opt.Full == RefuseNewest {
		return ErrFull
	}
	q.mu.Lock()
	if len(q.segs) == 0 || q.segs[0] == q.active {
		q.mu.Unlock()
		return errors.New("buffer: the bound leaves no room for a second segment")
	}
	s := q.segs[0]
	q.lose(s.base, s.last, LostDropped)
	q.mu.Unlock()
	return q.release(s)
}

// release gives up the oldest segment. The cursors go first: were the file used again before they
// are durable, a crash would leave cursors that point at records that are gone, and records that
// were delivered would be reported as lost.
func (q *Queue) release(s *segment) error {
	if err := q.saveCursors(false); err != nil {
		return err
	}
	q.mu.Lock()
	if s.dropped || len(q.segs) == 0 || q.segs[0] != s || s == q.active {
		q.mu.Unlock()
		return nil
	}
	s.dropped = true
	q.segs = q.segs[1:]
	f := s.f
	s.f = nil
	q.dirty = deleteSegment(q.dirty, s)
	q.nextSpare++
	path := q.spareName(q.nextSpare)
	keep := len(q.spares) < keepSpares && s.fileSize == int64(q.opt.SegmentBytes)
	if q.opt.Preallocate {
		keep = s.fileSize == int64(q.opt.SegmentBytes)
	}
	keep = keep && q.roomFor(s.fileSize)
	size := s.fileSize
	q.making += size // until it is a spare, or gone
	q.mu.Unlock()
	if f != nil {
		f.Close()
	}
	q.cutMu.Lock()
	defer q.cutMu.Unlock()
	q.mu.Lock()
	keep = keep && s.fileSize == size // a cut may have been under way
	q.mu.Unlock()
	if !keep || q.fs.Rename(s.path, path) != nil {
		q.discardMade(s.path, size)
		return nil
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.making -= size
	q.spares = append(q.spares, spare{path, size, s.zeroed})
	q.dirDirty = true
	return nil
}

// remove removes a file. When the disk refuses, the file goes on counting and is tried again.
func (q *Queue) remove(path string, size int64) {
	err := q.fs.Remove(path)
	q.mu.Lock()
	defer q.mu.Unlock()
	q.dirDirty = true
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		q.litter = append(q.litter, spare{path: path, size: size})
	}
}

// sweep tries again to remove what could not be removed.
func (q *Queue) sweep() {
	q.mu.Lock()
	litter := q.litter
	q.litter = nil
	q.mu.Unlock()
	for _, f := range litter {
		q.remove(f.path, f.size)
	}
}

// releasable tells whether a segment waits for its release.
func (q *Queue) releasable() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.failing == nil && q.firstNeeded() > 0
}

// firstNeeded returns the number of segments at the front that nobody needs any more. Without
// consumers everything is needed: the one that is to come may start at the oldest. The newest stays,
// for it says where the sequence goes on.
func (q *Queue) firstNeeded() int {
	if len(q.consumers) == 0 {
		return 0
	}
	low := q.head + 1
	for _, c := range q.consumers {
		low = min(low, c.low())
	}
	n := 0
	for n < len(q.segs)-1 && q.segs[n] != q.active && q.segs[n].last < low {
		n++
	}
	return n
}

// maintain saves the cursors and gives up what is no longer needed or too old.
func (q *Queue) maintain() {
	if q.isFailing() {
		return
	}
	q.sweep()
	q.dropAged()
	if err := q.saveCursors(false); err != nil {
		return // kept in q.failing
	}
	q.releaseDone()
}

// releaseDone gives up the segments that nobody needs any more.
func (q *Queue) releaseDone() {
	for {
		q.mu.Lock()
		if q.firstNeeded() == 0 {
			q.mu.Unlock()
			return
		}
		s := q.segs[0]
		q.mu.Unlock()
		if err := q.release(s); err != nil {
			return
		}
	}
}

// cut gives back what a segment that takes no more records did not use of its file.
func (q *Queue) cut(s *segment, f File, end int64) {
	size := end + segHeaderLen
	if q.opt.Preallocate || pages(size) >= pages(s.fileSize) {
		return // others could take the space for good
	}
	q.cutMu.Lock()
	defer q.cutMu.Unlock()
	q.mu.Lock()
	dropped := s.dropped
	q.mu.Unlock()
	if dropped {
		return // the file may be another segment
	}
	if _, err := f.WriteAt(s.encode(), end); err != nil || f.Truncate(size) != nil {
		return
	}
	q.mu.Lock()
	s.fileSize = size
	q.mu.Unlock()
}

// dropAged drops segments whose last record is older than MaxAge, and ends the active one early
// enough that its records do not grow much older than that.
func (q *Queue) dropAged() {
	if q.opt.MaxAge == 0 {
		return
	}
	now, age := q.running(), int64(q.opt.MaxAge)
	q.appendMu.Lock()
	q.mu.Lock()
	if a := q.active; a != nil && a.end > segHeaderLen && a.over(now) {
		a.last = q.head
		q.active, q.w.seg = nil, nil
		if !slices.Contains(q.dirty, a) {
			q.dirty = append(q.dirty, a) // the next sync closes it
		}
	}
	q.mu.Unlock()
	q.appendMu.Unlock()
	for {
		q.mu.Lock()
		if len(q.segs) == 0 || q.segs[0] == q.active || now-q.segs[0].ended <= age {
			q.mu.Unlock()
			return
		}
		s := q.segs[0]
		if s.last >= s.base {
			q.lose(s.base, s.last, LostAged)
		}
		q.mu.Unlock()
		if err := q.release(s); err != nil {
			return
		}
	}
}

// prepare sees to it that the next records overwrite something.
func (q *Queue) prepare(stop func() bool) {
	q.zeroAhead(stop)
	q.prepareSpares(stop)
}

// prepareSpares makes files that will be segments: as many as the bound has room for when its space is
// to be taken at once, else one where records fill a segment within seconds. At the bound it drops the
// oldest segment when the active one is nearly full.
func (q *Queue) prepareSpares(stop func() bool) {
	for !stop() {
		size := int64(q.opt.SegmentBytes)
		q.mu.Lock()
		room := q.roomFor(size)
		full := q.active != nil && q.active.end > q.active.size/4*3
		fast := q.pace.reach() >= size
		switch {
		case q.failing != nil:
			q.mu.Unlock()
			return
		case room && (q.opt.Preallocate || fast && len(q.spares) == 0):
			q.making += size
			q.nextSpare++
			sp := spare{q.spareName(q.nextSpare), size, size}
			q.sparing = true
			q.mu.Unlock()
			err := q.makeSpare(sp, stop)
			q.mu.Lock()
			q.sparing = false
			q.spared.Broadcast()
			if err == nil {
				q.making -= size
				q.spares = append(q.spares, sp)
				q.dirDirty = true
			}
			q.mu.Unlock()
			if err != nil {
				q.log.Debug("no spare segment could be prepared", "err", err)
				return
			}
		case !room && full && len(q.spares) == 0 && q.opt.Full == DropOldest:
			q.mu.Unlock()
			if err := q.makeRoom(); err != nil {
				return
			}
		default:
			q.mu.Unlock()
			return
		}
	}
}

func (q *Queue) makeSpare(sp spare, stop func() bool) error {
	f, err := q.create(sp.path, sp.size, func(f File) error {
		if err := zeroFill(f, 0, sp.size, stop); err != nil {
			return err
		}
		return f.Sync()
	})
	if err == nil {
		_ = f.Close() // it is synced
	}
	return err
}

const quarantinePrefix = "quarantine-"

// setAside copies a damaged segment for whoever wants to look into it, at most as many as the
// bound has room reserved for.
func (q *Queue) setAside(s *segment) {
	q.mu.Lock()
	if s.quarantined || q.quarantined >= q.maxQuarantine || s.fileSize > int64(q.opt.SegmentBytes) {
		q.mu.Unlock()
		return
	}
	s.quarantined = true
	q.quarantined++
	q.mu.Unlock()
	to := filepath.Join(q.opt.Dir, quarantinePrefix+segName(s.number))
	if err := q.copyFile(s.path, to); err != nil {
		q.log.Warn("a damaged queue segment could not be copied", "path", s.path, "err", err)
		q.remove(to, s.fileSize)
		q.mu.Lock()
		q.quarantined--
		q.mu.Unlock()
		return
	}
	q.log.Warn("a queue segment is damaged; its intact records are delivered, a copy is kept", "path", to)
}

func (q *Queue) copyFile(from, to string) error {
	in, err := q.fs.Open(from, false)
	if err != nil {
		return err
	}
	defer in.Close()
	size, err := in.Size()
	if err != nil {
		return err
	}
	out, err := q.fs.Create(to)
	if err != nil {
		return err
	}
	defer out.Close()
	buf := make([]byte, window)
	for off := int64(0); off < size; off += window {
		n := min(window, size-off)
		_, rerr := in.ReadAt(buf[:n], off)
		if rerr != nil {
			clear(buf[:n])
		}
		if _, err := out.WriteAt(buf[:n], off); err != nil {
			return err
		}
	}
	if err := out.Sync(); err != nil {
		return fmt.Errorf("buffer: %w", err)
	}
	return q.fs.SyncDir(q.opt.Dir)
}
