package buffer

import (
	"errors"
	"fmt"
	"io/fs"
)

// A reader reads records of a queue by sequence, cheaply when they follow each other. It is for one
// goroutine.
type reader struct {
	s      *segment
	f      File
	sc     scanner
	rest   []byte // records of the current frame that were not looked at
	at     uint64 // sequence of the first of rest, or of the next frame
	buf    []byte // a record from memory
	marked int64  // offset of the last mark made
}

// A gap is a range of records that are not there.
type gap struct {
	span
	why LossReason
	s   *segment
}

// errMoved asks to look again: the segment went away while it was read.
var errMoved = errors.New("buffer: segment released")

func (r *reader) close() {
	if r.f != nil {
		r.f.Close()
	}
	*r = reader{buf: r.buf, sc: scanner{buf: r.sc.buf}}
}

// fetch returns the record seq, which must not be beyond the head, or the gap that begins with it.
func (q *Queue) fetch(r *reader, seq uint64) (Record, gap, error) {
	q.mu.Lock()
	if data, d, ok := q.ring.get(seq); ok {
		r.buf = append(r.buf[:0], data...)
		rec := Record{ID: q.id(seq), Data: r.buf, Durable: q.failing == nil}
		q.mu.Unlock()
		if d != nil {
			rec.Dict, rec.DictHash = d.data, d.hash
		}
		return rec, gap{}, nil
	}
	s, next := q.segmentOf(seq)
	if s == nil {
		q.mu.Unlock()
		return Record{}, gap{span: span{seq, next - 1}, why: LostMissing}, nil
	}
	end, last, epoch := s.end, s.last, s.epoch
	from := s.find(seq)
	q.mu.Unlock()

	rec, g, err := r.read(q, s, from, end, last, seq)
	if err != nil || g.last > 0 {
		q.mu.Lock()
		defer q.mu.Unlock()
		if s.dropped {
			return Record{}, gap{}, errMoved
		}
		return Record{}, g, err
	}
	rec.ID = ID{epoch, seq}
	rec.Durable = true
	return rec, gap{}, nil
}

// segmentOf returns the segment whose range contains seq or, with nil, where the next range begins.
func (q *Queue) segmentOf(seq uint64) (_ *segment, next uint64) {
	lo, hi := 0, len(q.segs)
	for lo < hi {
		if m := (lo + hi) / 2; q.segs[m].last < seq {
			lo = m + 1
		} else {
			hi = m
		}
	}
	if lo == len(q.segs) {
		if q.ring.n > 0 && q.ring.first > seq {
			return nil, q.ring.first
		}
		return nil, q.head + 1
	}
	if s := q.segs[lo]; s.base <= seq {
		return s, 0
	}
	return nil, q.segs[lo].base
}

func (r *reader) read(q *Queue, s *segment, from mark, end int64, last, seq uint64) (Record, gap, error) {
	if r.s != s {
		r.close()
		f, err := q.fs.Open(s.path, false)
		if err != nil {
			// It may have been released in this moment; fetch knows.
			if errors.Is(err, fs.ErrNotExist) {
				return Record{}, gap{span: span{seq, last}, why: LostMissing}, nil
			}
			return Record{}, gap{}, err
		}
		r.s, r.f = s, f
		r.place(from, end)
	} else if seq < r.at || from.off > r.sc.off {
		r.place(from, end)
	}
	r.sc.end = end
	for {
		for len(r.rest) > 0 {
			if r.at > seq {
				return Record{}, gap{span{seq, r.at - 1}, LostDamaged, s}, nil
			}
			no, data, rest, ok := cutRecord(r.rest)
			if !ok {
				r.rest = nil
				break
			}
			r.rest = rest
			r.at++
			if r.at <= seq {
				continue
			}
			if no == 0 {
				return Record{Data: data}, gap{}, nil
			}
			q.mu.Lock()
			d := s.dicts[no]
			q.mu.Unlock()
			if d == nil {
				return Record{}, gap{span{seq, seq}, LostDamaged, s}, nil
			}
			return Record{Data: data, Dict: d.data, DictHash: d.hash}, gap{}, nil
		}
		r.sc.expect = r.at
		fr, ok := r.sc.next()
		if !ok {
			// The active segment's end is known; that of another may be torn or cut.
			if err := r.sc.ioErr; err != nil && q.patience(s) {
				r.close()
				return Record{}, gap{}, err
			}
			why := LostDamaged
			if s.tail {
				why = LostTorn
			}
			return Record{}, gap{span{seq, last}, why, s}, nil
		}
		first := s.base + uint64(fr.delta)
		switch fr.kind {
		case kindDict:
			if no, hash, data, ok := cutDict(fr.payload); ok {
				q.mu.Lock()
				if s.dicts[no] == nil {
					s.dicts[no] = q.internBytes(hash, data)
				}
				q.mu.Unlock()
			}
		case kindRecords:
			if off := r.sc.off - int64(len(fr.payload)+frameHeaderLen); off-r.marked >= markEvery {
				r.marked = off
				q.mu.Lock()
				s.mark(first, off)
				q.mu.Unlock()
			}
			r.rest = fr.payload
			if first > r.at {
				r.at = first
				if first > seq {
					why := LostDamaged
					if s.tail && r.sc.skipped && !r.sc.synced {
						why = LostTorn
					}
					return Record{}, gap{span{seq, min(first-1, last)}, why, s}, nil
				}
			}
		}
	}
}

// patience tells whether a disk that gives nothing of the rest of a segment may yet come back: a
// cable may have slipped. In the end the rest counts as damaged.
func (q *Queue) patience(s *segment) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	s.unread++
	return s.unread < 100
}

// place moves the reader to a mark.
func (r *reader) place(m mark, end int64) {
	buf := r.sc.buf
	if r.sc.f != r.f {
		buf = buf[:0]
	}
	r.sc = scanner{f: r.f, seed: r.s.seedv, base: r.s.base, off: m.off, end: end, buf: buf, bufOff: r.sc.bufOff}
	r.rest, r.at, r.marked = nil, m.seq, m.off
}

// Records calls fn with each record from the sequence from.Seq on, as far as the queue has them now,
// until fn returns an error. Gaps are stepped over. The record is valid during the call.
func (q *Queue) Records(from ID, fn func(Record) error) error {
	var r reader
	defer r.close()
	q.mu.Lock()
	head, seq := q.head, max(from.Seq, q.oldest())
	q.mu.Unlock()
	for seq <= head {
		rec, g, err := q.fetch(&r, seq)
		switch {
		case errors.Is(err, errMoved):
			q.mu.Lock()
			seq = max(seq, q.oldest())
			q.mu.Unlock()
			continue
		case err != nil:
			return fmt.Errorf("buffer: record %d: %w", seq, err)
		case g.last > 0:
			seq = g.last + 1
			continue
		}
		if err := fn(rec); err != nil {
			return err
		}
		seq++
	}
	return nil
}
