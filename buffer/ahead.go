package buffer

import (
	"context"
	"slices"
	"time"
)

// A sync is cheapest where the file was written before: an overwrite changes no metadata. So the active
// segment is zeroed ahead of its end, as far as the records of the next seconds will reach and no
// further: what is zeroed is written twice. A file that is used again need not be.
const (
	aheadFor   = 20 * time.Second
	aheadLeast = 32 << 10  // however few come
	aheadPiece = 256 << 10 // between two syncs, none of which is to take long
)

// A pace is how fast records come. Queue.mu guards it.
type pace struct {
	since int64 // running time
	bytes int64 // handed to the kernel since then
	ahead int64 // what aheadFor brings, as of then
}

// measure ends a period of the measurement.
func (p *pace) measure(now int64) {
	rate := float64(p.bytes) / max(time.Duration(now-p.since).Seconds(), 1)
	p.ahead = int64(rate * aheadFor.Seconds())
	p.since, p.bytes = now, 0
}

// reach is how far ahead to zero.
func (p *pace) reach() int64 { return max(p.ahead, aheadLeast) }

// low tells whether what is zeroed comes to its end. q.mu is held.
func (q *Queue) low() bool {
	a := q.active
	return a != nil && q.failing == nil && !a.whole() && a.zeroed-a.end < q.pace.reach()/4
}

// runsLow is low for Run.
func (q *Queue) runsLow() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.low()
}

// zeroAhead zeroes what the next records need.
func (q *Queue) zeroAhead(stop func() bool) {
	q.mu.Lock()
	low := q.low() || q.opt.Preallocate
	if low {
		q.pace.measure(q.running())
	}
	q.mu.Unlock()
	for low && !stop() {
		more, err := q.zeroPiece()
		if err != nil {
			q.log.Debug("the segment could not be zeroed ahead of its records", "err", err)
		}
		// By the committer: did another sync fail here, the one that records wait for would not.
		if !more || q.com.commit(context.Background()) != nil {
			return
		}
	}
}

// zeroPiece writes some of the zeroes and tells whether more are to follow. Appends wait meanwhile: it
// must not write where they do.
func (q *Queue) zeroPiece() (more bool, err error) {
	q.appendMu.Lock()
	defer q.appendMu.Unlock()
	q.mu.Lock()
	s := q.active
	if s == nil || s != q.w.seg || s.whole() {
		q.mu.Unlock()
		return false, nil
	}
	from := max(s.zeroed, pages(s.end))
	to := min(pages(s.end+q.pace.reach()), s.size-pageSize) // the last page has a header
	if q.opt.Preallocate {
		to = s.size - pageSize
	}
	f := s.f
	q.mu.Unlock()
	end := min(to, from+aheadPiece)
	if err := zeroFill(f, from, end, func() bool { return false }); err != nil {
		return false, err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	s.zeroed = max(s.zeroed, end)
	if q.active == s && !slices.Contains(q.dirty, s) {
		q.dirty = append(q.dirty, s)
	}
	return end < to, nil
}
