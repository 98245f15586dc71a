package buffer

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"path/filepath"
	"slices"
)

// The cursors of all consumers stand in one file of two slots. A slot counts when its checksum is
// right; of two that count, the one with the higher generation. What is written goes over the slot that
// is not known to be durable, and the slots change places with each sync. Between two syncs notes are
// written: a crash of the process leaves the last of them, a power cut the slot that was synced.
const (
	cursorsName  = "cursors"
	cursorsTemp  = "new-cursors" // becomes cursors when it is complete and synced
	cursorMagic  = "gwq-cur\n"
	slotHeader   = 32
	slotSize     = 32 << 10
	maxConsumers = 100
	maxName      = 200 // bytes; with so many consumers of such names a slot still has room for their cursors
	maxRanges    = 64  // of one consumer; beyond that neighbours are joined, and delivered again
)

// What a slot holds.
type cursorState struct {
	clean     bool   // the queue was closed, all was synced
	boot      string // the boot of the machine in which this was written
	running   int64
	head      ID // the last record at that time
	consumers []savedConsumer
	losses    []Loss // not reported yet
}

type savedConsumer struct {
	name    string
	top     ID     // the last that is done with or put off
	w       uint64 // all up to here is done with, but for pending
	done    spans  // between w and top
	pending spans  // up to top
	lost    int64
	tally   Tally
}

func (st *cursorState) encode(gen uint64) ([]byte, error) {
	for most := maxRanges; most > 0; most /= 2 {
		b := st.encodeRanges(gen, most)
		if len(b) <= slotSize {
			return b, nil
		}
	}
	return nil, errors.New("buffer: too many consumers for the cursors file")
}

func (st *cursorState) encodeRanges(gen uint64, most int) []byte {
	b := make([]byte, slotHeader, pageSize)
	copy(b, cursorMagic)
	binary.LittleEndian.PutUint32(b[8:], formatVersion)
	binary.LittleEndian.PutUint64(b[16:], gen)
	var flags byte
	if st.clean {
		flags = 1
	}
	b = append(b, flags)
	b = appendString(b, st.boot)
	b = binary.AppendUvarint(b, uint64(st.running))
	b = binary.LittleEndian.AppendUint64(b, st.head.Epoch)
	b = binary.AppendUvarint(b, st.head.Seq)
	b = binary.AppendUvarint(b, uint64(len(st.consumers)))
	for _, c := range st.consumers {
		b = appendString(b, c.name)
		b = binary.LittleEndian.AppendUint64(b, c.top.Epoch)
		b = binary.AppendUvarint(b, c.top.Seq)
		b = binary.AppendUvarint(b, c.top.Seq-c.w)
		b = binary.AppendUvarint(b, uint64(c.lost))
		b = appendSpans(b, c.done.longest(most))
		b = appendSpans(b, c.pending.join(most))
	}
	losses := st.losses[:min(len(st.losses), 2*most)]
	b = binary.AppendUvarint(b, uint64(len(losses)))
	for _, l := range losses {
		b = appendString(b, l.Consumer)
		b = binary.LittleEndian.AppendUint64(b, l.First.Epoch)
		b = binary.AppendUvarint(b, l.First.Seq)
		b = binary.LittleEndian.AppendUint64(b, l.Last.Epoch)
		b = binary.AppendUvarint(b, uint64(l.Count))
		b = appendString(b, string(l.Reason))
	}
	for _, c := range st.consumers {
		for _, n := range c.tally {
			b = binary.AppendUvarint(b, n)
		}
	}
	binary.LittleEndian.PutUint32(b[24:], uint32(len(b)))
	binary.LittleEndian.PutUint32(b[12:], slotSum(b))
	return b
}

func slotSum(b []byte) uint32 {
	return crc32.Update(crc32.Checksum(b[:12], castagnoli), castagnoli, b[16:])
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendSpans(b []byte, s spans) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	prev := uint64(0)
	for _, r := range s {
		b = binary.AppendUvarint(b, r.first-prev)
		b = binary.AppendUvarint(b, r.last-r.first)
		prev = r.last
	}
	return b
}

// longest returns the n longest ranges of the set.
func (s spans) longest(n int) spans {
	if len(s) <= n {
		return s
	}
	out := slices.Clone(s)
	slices.SortFunc(out, func(a, b span) int { return cmp.Compare(b.last-b.first, a.last-a.first) })
	out = out[:n]
	slices.SortFunc(out, func(a, b span) int { return cmp.Compare(a.first, b.first) })
	return out
}

// join returns the set with at most n ranges, by filling the smallest gaps.
func (s spans) join(n int) spans {
	if len(s) <= n {
		return s
	}
	gaps := make([]uint64, 0, len(s)-1)
	for i := 1; i < len(s); i++ {
		gaps = append(gaps, s[i].first-s[i-1].last)
	}
	slices.Sort(gaps)
	fill := gaps[len(s)-n-1]
	left := len(s) - n
	out := spans{s[0]}
	for _, r := range s[1:] {
		if p := &out[len(out)-1]; left > 0 && r.first-p.last <= fill {
			p.last = r.last
			left--
		} else {
			out = append(out, r)
		}
	}
	return out
}

// decodeSlot returns false for anything but an intact slot of any version.
func decodeSlot(b []byte) (st cursorState, gen uint64, version uint32, ok bool) {
	if len(b) < slotHeader || string(b[:8]) != cursorMagic {
		return st, 0, 0, false
	}
	n := le32(b[24:])
	if n < slotHeader || int64(n) > int64(len(b)) {
		return st, 0, 0, false
	}
	b = b[:n]
	if binary.LittleEndian.Uint32(b[12:]) != slotSum(b) {
		return st, 0, 0, false
	}
	version, gen = le32(b[8:]), binary.LittleEndian.Uint64(b[16:])
	if version > formatVersion {
		return st, gen, version, true
	}
	d := decoder{b: b[slotHeader:]}
	st.clean = d.bytes(1)[0]&1 != 0
	st.boot = d.string()
	st.running = int64(d.uvarint())
	st.head = ID{d.uint64(), d.uvarint()}
	d.bad = d.bad || st.head.Seq > maxSeq
	for n := d.uvarint(); n > 0 && !d.bad; n-- {
		c := savedConsumer{name: d.string()}
		c.top = ID{d.uint64(), d.uvarint()}
		c.w = c.top.Seq - min(d.uvarint(), c.top.Seq)
		c.lost = int64(d.uvarint())
		c.done, c.pending = d.spans(), d.spans()
		st.consumers = append(st.consumers, c)
	}
	for n := d.uvarint(); n > 0 && !d.bad; n-- {
		l := Loss{Consumer: d.string(), First: ID{d.uint64(), d.uvarint()}}
		l.Last.Epoch = d.uint64()
		if l.Count = int64(d.uvarint()); l.Count > 0 {
			l.Last.Seq = l.First.Seq + uint64(l.Count) - 1
		} else {
			l.Last, l.Open = ID{}, true
		}
		l.Reason = LossReason(d.string())
		st.losses = append(st.losses, l)
	}
	if len(d.b) > 0 { // tallies came later than the rest
		for i := range st.consumers {
			for k := range st.consumers[i].tally {
				st.consumers[i].tally[k] = d.uvarint()
			}
		}
	}
	return st, gen, version, !d.bad
}

// A decoder takes values off bytes; what is not there is zero and bad.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) bytes(n int) []byte {
	if d.bad || n > len(d.b) {
		d.bad = true
		return make([]byte, min(n, 8))
	}
	v := d.b[:n]
	d.b = d.b[n:]
	return v
}

func (d *decoder) uint64() uint64 { return binary.LittleEndian.Uint64(d.bytes(8)) }

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.bad = true
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) spans() (s spans) {
	prev := uint64(0)
	for n := d.uvarint(); n > 0 && !d.bad; n-- {
		first := prev + d.uvarint()
		prev = first + d.uvarint()
		if first > prev || prev == 1<<64-1 {
			d.bad = true
			return nil
		}
		s.add(first, prev)
	}
	return s
}

func (d *decoder) string() string {
	n := d.uvarint()
	if n > uint64(len(d.b)) {
		d.bad = true
		return ""
	}
	return string(d.bytes(int(n)))
}

// cursorFile is the open file. Queue.cursorMu guards it, dirty and unwritten are guarded by Queue.mu.
type cursorFile struct {
	f         File
	gen       uint64
	slot      int64 // the one that is durable
	dirty     bool  // something changed since the last sync
	unwritten bool  // it is in no note either
	failing   error // of the last attempt to write
}

// changed says that what the file holds has changed; whoever looks next finds it. Queue.mu is held.
func (c *cursorFile) changed() { c.dirty, c.unwritten = true, true }

// cursorsMoved is changed, and sees to it that somebody looks.
func (q *Queue) cursorsMoved() {
	if !q.cur.unwritten {
		q.wakeRun()
	}
	q.cur.changed()
}

// loadCursors reads the better of the two slots, and tells which one that is. found is false when there
// is no file; lost when there is one without an intact slot.
func loadCursors(fs FS, path string) (st cursorState, at cursorFile, found, lost bool, err error) {
	f, err := fs.Open(path, false)
	if err != nil {
		return st, at, false, false, nil
	}
	defer f.Close()
	b := make([]byte, slotSize)
	written := false
	for i := range int64(2) {
		n, _ := f.ReadAt(b, i*slotSize)
		s, g, version, ok := decodeSlot(b[:n])
		if ok && version > formatVersion {
			return st, at, true, false, &ErrNewer{path, version}
		}
		if ok && (!found || g > at.gen) {
			st, at.gen, at.slot, found = s, g, i, true
		}
		written = written || slices.ContainsFunc(b[:n], func(c byte) bool { return c != 0 })
	}
	return st, at, found, !found && written, nil
}

// saveCursors writes the cursors when they have moved, after a sync of the records that they are
// about: a cursor that survived records it has passed would have to be set back.
func (q *Queue) saveCursors(clean bool) error {
	q.cursorMu.Lock()
	defer q.cursorMu.Unlock()
	q.mu.Lock()
	idle := !q.cur.dirty && !clean
	failing := q.failing
	q.mu.Unlock()
	if idle {
		return nil
	}
	if failing == nil {
		if err := q.com.commit(context.Background()); err != nil {
			return err
		}
	}
	return q.writeSlot(clean, true)
}

// noteCursors writes them as they are, where anything has changed, and leaves it to a later sync to make
// that durable: it costs the disk nothing, and a crash of the process takes back nothing that is noted.
func (q *Queue) noteCursors() {
	q.cursorMu.Lock()
	defer q.cursorMu.Unlock()
	if q.notable() {
		_ = q.writeSlot(false, false) // a failure is kept in q.cur.failing
	}
}

// notable tells whether there is something to note, and a disk that takes it.
func (q *Queue) notable() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.cur.unwritten && !q.owed && q.failing == nil
}

// writeCursors writes them now, in whatever state.
func (q *Queue) writeCursors(clean bool) error {
	q.cursorMu.Lock()
	defer q.cursorMu.Unlock()
	return q.writeSlot(clean, true)
}

func (q *Queue) writeSlot(clean, sync bool) error {
	q.mu.Lock()
	st := cursorState{clean: clean, boot: q.opt.BootID, running: q.running(), head: q.id(q.head)}
	for _, c := range q.consumers {
		st.consumers = append(st.consumers, savedConsumer{c.name, q.id(c.top()), c.w, slices.Clone(c.done), slices.Clone(c.pending), c.lost, c.tally})
	}
	st.losses = slices.Clone(q.losses)
	q.cur.unwritten = false
	q.cur.dirty = q.cur.dirty && !sync
	q.mu.Unlock()
	err := q.putSlot(&st, sync)
	if err != nil {
		err = fmt.Errorf("buffer: cursors: %w", err)
	}
	q.mu.Lock()
	owed := q.owed
	if err == nil {
		q.owed = q.owed && !sync
	} else {
		q.cur.dirty = true
	}
	q.mu.Unlock()
	switch was := q.cur.failing; {
	case err != nil && owed: // nothing may be written before what Open made of them
		q.fail(err)
	case err != nil && was == nil:
		q.log.Error("the queue's cursors cannot be written; no segment is given up until they can", "dir", q.opt.Dir, "err", err)
	case err == nil && was != nil:
		q.log.Info("the queue's cursors are written again")
	}
	q.cur.failing = err
	return err
}

func (q *Queue) putSlot(st *cursorState, sync bool) (err error) {
	gen := q.cur.gen + 1
	b, err := st.encode(gen)
	if err != nil {
		return err
	}
	if q.cur.f == nil && q.cur.failing == nil {
		q.cur.f = q.openCursors()
	}
	slot := 1 - q.cur.slot
	if q.cur.f == nil {
		q.cur.f, err = q.newCursors(b, slot)
		sync = true
	} else {
		err = putSlotIn(q.cur.f, b, slot, sync)
	}
	if err != nil {
		// The next attempt makes a new file, elsewhere on the disk: a page that cannot be written once
		// may never be. Until that is complete, the other slot of this one is what counts.
		if q.cur.f != nil {
			q.cur.f.Close()
			q.cur.f = nil
		}
		return err
	}
	if q.cur.gen = gen; sync {
		q.cur.slot = slot
	}
	return nil
}

func putSlotIn(f File, b []byte, slot int64, sync bool) error {
	_, err := f.WriteAt(b, slot*slotSize)
	if err != nil || !sync {
		return err
	}
	return f.Sync()
}

// openCursors returns the file that is there, nil when it is not as newCursors makes it. What it holds
// may be the note of a process that crashed: it is durable before the other slot, which was, is given up.
func (q *Queue) openCursors() File {
	f, err := q.fs.Open(filepath.Join(q.opt.Dir, cursorsName), true)
	if err != nil {
		return nil
	}
	size, err := f.Size()
	if err == nil && size == 2*slotSize {
		err = f.Sync()
	}
	if err != nil || size != 2*slotSize {
		f.Close()
		return nil
	}
	return f
}

// newCursors makes the file, with one slot written, in place of any before.
func (q *Queue) newCursors(b []byte, slot int64) (_ File, err error) {
	temp := filepath.Join(q.opt.Dir, cursorsTemp)
	_ = q.fs.Remove(temp)
	f, err := q.fs.Create(temp)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			f.Close()
			_ = q.fs.Remove(temp) // or the next attempt does, or the next opening
		}
	}()
	if err := f.Truncate(2 * slotSize); err != nil {
		return nil, err
	}
	// The first page of either slot exists from the beginning, so that writing it changes no metadata.
	for _, off := range [...]int64{0, slotSize} {
		if _, err := f.WriteAt(make([]byte, pageSize), off); err != nil {
			return nil, err
		}
	}
	if err := putSlotIn(f, b, slot, true); err != nil {
		return nil, err
	}
	if err := q.fs.Rename(temp, filepath.Join(q.opt.Dir, cursorsName)); err != nil {
		return nil, err
	}
	return f, q.fs.SyncDir(q.opt.Dir)
}
