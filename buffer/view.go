package buffer

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
)

// A View reads a queue without opening it: nothing is changed and nothing is locked, so the queue
// may be in use by another process.
type View struct {
	fs     FS
	dir    string
	segs   []found
	state  cursorState
	known  bool
	spares int
	aside  int
	bytes  int64
}

// Look returns a view of the queue in dir, as it is now. A nil FS is OS. A directory that is not
// there is an error; an empty one is an empty queue.
func Look(dir string, fs FS) (*View, error) {
	if fs == nil {
		fs = OS
	}
	v := &View{fs: fs, dir: dir}
	var err error
	// The cursors first: what they know of is in the segments that are found after.
	if v.state, _, v.known, _, err = loadCursors(fs, filepath.Join(dir, cursorsName)); err != nil {
		return nil, err
	}
	names, err := fs.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("buffer: %w", err)
	}
	in, err := survey(fs, dir, names)
	if err != nil {
		return nil, err
	}
	v.segs, v.spares, v.aside = in.segs, len(in.spares), len(in.aside)
	slices.SortStableFunc(v.segs, byNumber)
	for _, s := range in.segs {
		v.bytes += s.size
	}
	for _, s := range in.spares {
		v.bytes += s.size
	}
	return v, nil
}

// ViewStats is what a view tells without reading records.
type ViewStats struct {
	Bytes       int64 // of segments and spares
	Segments    int
	Spares      int
	Quarantined int
	Closed      bool // in good order
	CursorsRead bool // the cursors file is intact
	Consumers   []ConsumerStats
	Unreported  []Loss
}

// Stats returns what is known without reading records. Depths count from the last record that the
// cursors file knows of, which is up to a few seconds old while the queue is in use.
func (v *View) Stats() ViewStats {
	st := ViewStats{Bytes: v.bytes, Segments: len(v.segs), Spares: v.spares, Quarantined: v.aside, Closed: v.known && v.state.clean, CursorsRead: v.known, Unreported: v.state.losses}
	for _, c := range v.state.consumers {
		st.Consumers = append(st.Consumers, ConsumerStats{
			Name: c.name, Cursor: ID{c.top.Epoch, c.w}, Lost: c.lost,
			Live: int64(v.state.head.Seq-min(c.w, v.state.head.Seq)) - c.done.count(), Backfill: c.pending.count(),
		})
	}
	return st
}

// A SegmentReport is what reading one segment found.
type SegmentReport struct {
	File        string // its name
	Unreadable  bool   // no intact header; nothing else is known
	Number      uint64
	First, Last ID // Last is zero for an empty segment
	Size        int64
	Records     int
	Bytes       int64 // of the records
	// Missing counts sequences that are not there, or whose dictionary is not; Damaged, those of them
	// that had been synced, or that memory was too small for while the disk failed.
	Missing, Damaged int64
}

// extent is up to where a segment's sequences go.
type extent struct {
	last   uint64 // no further
	known  bool   // and that far
	synced uint64 // all up to here had been synced
}

// extents tells where each segment ends: where the next one begins, and for the newest what the
// cursors say, which are written after a sync.
func (v *View) extents() []extent {
	out := make([]extent, len(v.segs))
	next := extent{last: ^uint64(0) - 1}
	var epoch uint64
	after := 0 // segments of the same epoch that follow
	for i := len(v.segs) - 1; i >= 0; i-- {
		s := &v.segs[i]
		out[i] = next
		if !s.ok {
			continue
		}
		if s.h.epoch != epoch {
			epoch, after = s.h.epoch, 0
		}
		if v.known && v.state.head.Epoch == epoch {
			out[i].synced = v.state.head.Seq
			if !next.known {
				out[i].last, out[i].known = v.state.head.Seq, true
			}
		}
		if after >= unsettled {
			out[i].synced = out[i].last
		}
		after++
		next = extent{last: min(next.last, s.h.base-1), known: true}
	}
	return out
}

// Segments tells of each segment what its header and those of the others say. Only the newest is
// read, so that it takes no longer with a long backlog: damage elsewhere is not seen.
func (v *View) Segments() ([]SegmentReport, error) {
	var reports []SegmentReport
	ends := v.extents()
	for i, s := range v.segs {
		rep := SegmentReport{File: s.name, Number: s.h.number, Size: s.size, Unreadable: !s.ok, First: ID{s.h.epoch, s.h.base}}
		switch {
		case !s.ok:
		case ends[i].known && i < len(v.segs)-1:
			if n := ends[i].last + 1 - s.h.base; ends[i].last >= s.h.base {
				rep.Last, rep.Records = ID{s.h.epoch, ends[i].last}, int(n)
			}
		default:
			if err := v.walk(s, ends[i], nil, &rep); errors.Is(err, errMoved) || errors.Is(err, fs.ErrNotExist) {
				continue
			} else if err != nil {
				return nil, err
			}
		}
		reports = append(reports, rep)
	}
	return reports, nil
}

// Walk reads all segments in order, calls record with each intact record and segment after each
// segment; either may be nil. A segment that is recycled meanwhile is left out.
func (v *View) Walk(record func(Record) error, segment func(SegmentReport) error) error {
	ends := v.extents()
	for i, s := range v.segs {
		rep := SegmentReport{File: s.name, Number: s.h.number, Size: s.size, Unreadable: !s.ok}
		if s.ok {
			err := v.walk(s, ends[i], record, &rep)
			if errors.Is(err, errMoved) || errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return err
			}
		}
		if segment != nil {
			if err := segment(rep); err != nil {
				return err
			}
		}
	}
	return nil
}

func (v *View) walk(s found, end extent, record func(Record) error, rep *SegmentReport) error {
	f, err := v.fs.Open(filepath.Join(v.dir, s.name), false)
	if err != nil {
		return err
	}
	defer f.Close()
	moved := func() bool {
		h, _, ok := readSegHeader(f)
		return !ok || h != s.h
	}
	rep.First = ID{s.h.epoch, s.h.base}
	last := end.last
	if i := len(v.segs) - 1; s.name == v.segs[i].name {
		last = ^uint64(0) - 1 // it may have grown since
	}
	sc := scanner{f: f, shared: true, seed: s.h.seed(), base: s.h.base, off: segHeaderLen, end: s.size - segHeaderLen, expect: s.h.base}
	dicts := map[uint64]*dictionary{}
	for {
		fr, ok := sc.next()
		if !ok {
			break
		}
		first := s.h.base + uint64(fr.delta)
		if gap := int64(first - sc.expect); gap > 0 && first <= last {
			rep.Missing += gap
			if !sc.synced {
				gap = int64(max(sc.expect, min(first, end.synced+1)) - sc.expect)
			}
			rep.Damaged += gap
		}
		sc.expect = first
		if no, hash, data, ok := cutDict(fr.payload); fr.kind == kindDict && ok {
			dicts[uint64(no)] = &dictionary{hash, slices.Clone(data)}
		}
		if fr.kind != kindRecords {
			continue
		}
		for p := fr.payload; ; sc.expect++ {
			no, data, rest, ok := cutRecord(p)
			if !ok || sc.expect > last {
				break
			}
			p = rest
			r := Record{ID: ID{s.h.epoch, sc.expect}, Data: data, Durable: true}
			if no > 0 {
				d := dicts[uint64(no)]
				if d == nil {
					rep.Missing++
					continue
				}
				r.Dict, r.DictHash = d.data, d.hash
			}
			rep.Last = r.ID
			rep.Records++
			rep.Bytes += int64(len(data))
			if record != nil {
				if err := record(r); err != nil {
					return err
				}
			}
		}
	}
	if gap := int64(end.last - sc.expect + 1); end.known && gap > 0 {
		rep.Missing += gap
		rep.Damaged += gap
	}
	if sc.ioErr != nil {
		return fmt.Errorf("buffer: %s: %w", s.name, sc.ioErr)
	}
	if moved() {
		return errMoved
	}
	return nil
}
