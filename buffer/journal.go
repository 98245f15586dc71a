package buffer

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// A Journal keeps the state of its owner: a snapshot, and a log of what changed since. Its files:
//
//	lock
//	snapshot-0000000000000003   the state when log 3 began
//	log-0000000000000003        what changed since; logs of higher numbers follow it
//	spare-0000000000000002      a log that will be used again
//	reserve                     room for a small snapshot on a disk that is full
//
// Each has a segment header at offset 0 and again at 2048, and frames from 4096 on. A log is zeroed
// ahead of its end, a retired one is used again as it is. A snapshot gets its name when it is
// complete and synced. Records that are larger than a frame holds stand in several of their own kind, each of
// which says how long all are together.
type Journal struct {
	fs   FS
	dir  string
	log  *slog.Logger
	home home // claimed under snapMu
	com  *committer

	snapMu sync.Mutex // one snapshot at a time

	mu       sync.Mutex // held over the write of an append
	cur      *journalFile
	dirty    []*journalFile // written to since their last sync
	dirDirty bool
	appended uint64 // counts the calls of Append
	synced   uint64 // this many of them are durable
	failing  error
	epochNo  int // counts failures and ends of them
	snapshot uint64
	snapSize int64
	logs     []uint64 // numbers of the logs that belong to the snapshot, cur not included
	oldBytes int64    // that those take
	spare    string
	number   uint64
	buf      []byte
	closed   bool
}

const (
	journalStart = 4096
	leastChunk   = 16 << 10
	mostChunk    = 256 << 10
	mostPart     = 8 << 20 // of records that stand in several frames
	logPrefix    = "log-"
	snapPrefix   = "snapshot-"
	snapTemp     = "new-snapshot"

	// reserveName is a file that holds nothing but space: a disk that the log itself has filled would have no room for the
	// snapshot that takes its place, however little there is to keep by then.
	reserveName  = "reserve"
	reserveBytes = 256 << 10
)

// JournalOptions are the options of OpenJournal. Only Dir is required.
type JournalOptions struct {
	Dir    string
	FS     FS           // nil: OS
	Logger *slog.Logger // nil: nothing is logged
}

// Replayed says what a replay found.
type Replayed struct {
	Records int   // handed over
	Lost    int   // known to be missing, because a frame was damaged or torn
	Bytes   int64 // of the records
	// Unreadable counts files without an intact header and snapshots without an end; how many records they held
	// nobody knows.
	Unreadable int
}

type journalFile struct {
	segHeader
	path   string
	f      File
	off    int64 // where the next frame goes
	zeroed int64 // the file's size
	synced int64
	count  uint32 // records
	seedv  uint32
}

// OpenJournal opens the journal in a directory, which it makes if need be, and calls replay with
// each record of the snapshot and then of the log, in order; a record is valid during the call. A
// damaged record is left out and counted. On a disk that takes nothing the journal fails from the
// start, until a Snapshot succeeds. The errors are those of Open, and replay's.
func OpenJournal(o JournalOptions, replay func(record []byte) error) (*Journal, Replayed, error) {
	j := &Journal{fs: o.FS, dir: o.Dir, log: o.Logger}
	if j.fs == nil {
		j.fs = OS
	}
	j.home = home{fs: j.fs, dir: o.Dir}
	if j.log == nil {
		j.log = slog.New(slog.DiscardHandler)
	}
	j.com = newCommitter(j.syncAll)
	claimed := j.home.claim()
	if claimed != nil && !unwritable(claimed) {
		return nil, Replayed{}, claimed
	}
	done, err := j.load(replay)
	if err == nil {
		if err = j.begin(); unwritable(err) {
			j.fail(err)
			err = nil
		}
	}
	if err != nil {
		_ = j.home.leave() // the error that keeps it from opening says more
		return nil, done, err
	}
	if j.failing == nil {
		j.reserve()
	}
	return j, done, nil
}

// reserve takes space for bad times, where there is any. It needs snapMu, but at the start.
func (j *Journal) reserve() {
	path := filepath.Join(j.dir, reserveName)
	f, err := j.fs.Create(path)
	if err != nil {
		return // it is there already, or the disk will say so when it matters
	}
	err = f.Reserve(reserveBytes)
	f.Close()
	if err != nil {
		_ = j.fs.Remove(path)
	}
}

func (j *Journal) path(prefix string, n uint64) string {
	return filepath.Join(j.dir, fmt.Sprintf("%s%016x", prefix, n))
}

// load replays what is there and removes what is not needed any more.
func (j *Journal) load(replay func([]byte) error) (done Replayed, err error) {
	names, err := j.home.list()
	if err != nil {
		return done, err
	}
	var snaps, logs []uint64
	var litter []string
	for _, name := range names {
		path := filepath.Join(j.dir, name)
		switch n, kind := journalName(name); kind {
		case logPrefix, snapPrefix:
			if v := j.version(path, n); v > formatVersion {
				return done, &ErrNewer{path, v}
			}
			if kind == logPrefix {
				logs = append(logs, n)
			} else {
				snaps = append(snaps, n)
			}
			j.number = max(j.number, n)
		case sparePrefix:
			litter = append(litter, path)
		default:
			if name == snapTemp {
				litter = append(litter, path)
			}
		}
	}
	slices.Sort(logs)
	if len(snaps) > 0 {
		j.snapshot = slices.Max(snaps)
		whole := false
		path := j.path(snapPrefix, j.snapshot)
		if j.snapSize, whole, err = j.replay(path, j.snapshot, replay, &done); err != nil {
			return done, err
		}
		if !whole {
			done.Unreadable++
			j.log.Warn("the journal's snapshot is damaged: its end is missing", "path", path)
		}
	}
	for _, n := range logs {
		if n < j.snapshot {
			litter = append(litter, j.path(logPrefix, n))
			continue
		}
		size, _, err := j.replay(j.path(logPrefix, n), n, replay, &done)
		if err != nil {
			return done, err
		}
		j.logs = append(j.logs, n)
		j.oldBytes += size
	}
	for _, n := range snaps {
		if n < j.snapshot {
			litter = append(litter, j.path(snapPrefix, n))
		}
	}
	for _, path := range litter {
		_ = j.fs.Remove(path)
	}
	return done, nil
}

func journalName(name string) (n uint64, kind string) {
	for _, p := range [...]string{logPrefix, snapPrefix, sparePrefix} {
		if rest, ok := strings.CutPrefix(name, p); ok && len(rest) == 16 {
			if _, err := fmt.Sscanf(rest, "%016x", &n); err == nil {
				return n, p
			}
		}
	}
	return 0, ""
}

// header reads the header of a file that bears a number. An intact one of another number is that of an earlier life: of
// a log that was used again, whose new header a power cut took.
func (j *Journal) header(f File, number uint64) (h segHeader, ok bool) {
	var b [segHeaderLen]byte
	for _, off := range [...]int64{0, journalStart / 2} {
		if n, _ := f.ReadAt(b[:], off); n < len(b) {
			continue
		}
		if found, intact := decodeSegHeader(b[:]); intact {
			if h, ok = found, true; h.number == number {
				break
			}
		}
	}
	return h, ok
}

func (j *Journal) version(path string, number uint64) uint32 {
	f, err := j.fs.Open(path, false)
	if err != nil {
		return 0
	}
	defer f.Close()
	h, _ := j.header(f, number)
	return h.version
}

// replay hands over the records of one file and returns how long the file is, and whether an end was found in it, which
// only a snapshot has.
func (j *Journal) replay(path string, number uint64, fn func([]byte) error, done *Replayed) (size int64, ended bool, err error) {
	f, err := j.fs.Open(path, false)
	if err != nil {
		return 0, false, fmt.Errorf("buffer: %w", err)
	}
	defer f.Close()
	if size, err = f.Size(); err != nil {
		return 0, false, fmt.Errorf("buffer: %w", err)
	}
	h, ok := j.header(f, number)
	if ok && h.number != number {
		return size, false, nil // nothing of its present life was ever synced
	}
	if !ok {
		if size > 0 {
			done.Unreadable++
			j.log.Warn("a journal file has no intact header", "path", path)
		}
		return size, true, nil // nothing more is to be said of it
	}
	sc := scanner{f: f, seed: h.seed(), base: 1, off: journalStart, end: size, expect: 1}
	var whole parts
	for {
		fr, ok := sc.next()
		if !ok {
			return size, ended, nil
		}
		if gap := 1 + uint64(fr.delta) - sc.expect; gap > 0 {
			done.Lost += int(gap)
			j.log.Warn("journal records are lost", "path", path, "records", gap, "synced", sc.synced)
		}
		sc.expect = 1 + uint64(fr.delta)
		payload := fr.payload
		switch fr.kind {
		case kindRecords:
		case kindPart:
			if payload = whole.add(fr); payload == nil {
				continue
			}
		case kindEnd:
			ended = true
			continue
		default:
			continue
		}
		for {
			_, data, rest, ok := cutRecord(payload)
			if !ok {
				break
			}
			payload = rest
			sc.expect++
			done.Records++
			done.Bytes += int64(len(data))
			if err := fn(data); err != nil {
				return 0, false, err
			}
		}
	}
}

// parts puts records together that stand in several frames.
type parts struct {
	b     []byte
	delta uint32 // of the first of them, which all their frames have
	total uint64 // how long they are together
}

// add takes a frame and returns the records once they are whole.
func (p *parts) add(fr frame) []byte {
	total, n := binary.Uvarint(fr.payload)
	if n <= 0 {
		return nil
	}
	if fr.delta != p.delta || total != p.total { // the next ones, whatever is missing of those before
		*p = parts{delta: fr.delta, total: total}
	}
	p.b = append(p.b, fr.payload[n:]...)
	if uint64(len(p.b)) != total {
		return nil
	}
	whole := p.b
	*p = parts{}
	return whole
}

// create starts a file: a spare, or a new one.
func (j *Journal) create(path, spare string, number uint64) (*journalFile, error) {
	var f File
	err := errors.New("no spare")
	if spare != "" {
		if err = j.fs.Rename(spare, path); err == nil {
			f, err = j.fs.Open(path, true)
		}
	}
	if err != nil {
		if f, err = j.fs.Create(path); err != nil {
			return nil, err
		}
	}
	jf := &journalFile{
		segHeader: segHeader{version: formatVersion, number: number, epoch: random64(), base: 1, salt: random64(), size: 1<<32 - 1},
		path:      path, f: f, off: journalStart,
	}
	jf.seedv = jf.seed()
	b := jf.encode()
	jf.zeroed, err = f.Size()
	if err == nil {
		_, err = f.WriteAt(b, journalStart/2)
	}
	if err == nil {
		_, err = f.WriteAt(b, 0)
	}
	if err != nil {
		f.Close()
		_ = j.fs.Remove(path)
		return nil, err
	}
	jf.zeroed = max(jf.zeroed, journalStart/2+segHeaderLen)
	return jf, nil
}

// chunk is how much of a log of some length is zeroed at once: as much again, for what a log will hold
// is not known, but some at least and not so much that a sync takes long.
func chunk(length int64) int64 { return min(max(length, leastChunk), mostChunk) }

// append writes the records: as one frame, or, where that would be too large, as several.
func (jf *journalFile) append(buf []byte, kind byte, records [][]byte, ahead bool) ([]byte, error) {
	buf = append(buf[:0], emptyHeader[:]...)
	for _, r := range records {
		buf = appendRecord(buf, 0, r)
	}
	total := len(buf) - frameHeaderLen
	if total <= maxPayload {
		if err := jf.write(buf, kind, ahead); err != nil {
			return buf, err
		}
	} else {
		start := jf.off
		var part []byte
		for rest := buf[frameHeaderLen:]; len(rest) > 0; {
			n := min(len(rest), mostPart)
			part = binary.AppendUvarint(append(part[:0], emptyHeader[:]...), uint64(total))
			part = append(part, rest[:n]...)
			if err := jf.write(part, kindPart, ahead); err != nil {
				jf.off = start // the next ones take its place
				return buf, err
			}
			rest = rest[n:]
		}
	}
	jf.count += uint32(len(records))
	return buf, nil
}

// write writes one frame, for which buf has room in front.
func (jf *journalFile) write(buf []byte, kind byte, ahead bool) error {
	end := jf.off + int64(len(buf))
	if end > 1<<32-1 {
		return ErrTooLarge
	}
	if ahead && end > jf.zeroed {
		to := end + chunk(end)
		to -= to % pageSize
		if err := zeroFill(jf.f, jf.zeroed, to, func() bool { return false }); err != nil {
			return err
		}
		jf.zeroed = to
	}
	sealFrame(buf, jf.seedv, kind, jf.count, uint32(jf.synced))
	if _, err := jf.f.WriteAt(buf, jf.off); err != nil {
		return err
	}
	jf.off = end
	return nil
}

// begin makes a new log the current one.
func (j *Journal) begin() error {
	jf, err := j.next()
	if err == nil {
		j.adopt(jf)
	}
	return err
}

// next makes a log that is to be the current one.
func (j *Journal) next() (*journalFile, error) {
	if err := j.home.claim(); err != nil {
		return nil, err
	}
	j.mu.Lock()
	spare := j.spare
	j.spare = ""
	n := j.number + 1
	j.mu.Unlock()
	jf, err := j.create(j.path(logPrefix, n), spare, n)
	if err == nil || errors.Is(err, fs.ErrExist) { // else the number is free still, and the error the same next time
		j.mu.Lock()
		j.number = n
		j.mu.Unlock()
	}
	if err != nil {
		return nil, fmt.Errorf("buffer: journal: %w", err)
	}
	return jf, nil
}

// adopt lets what is appended from now on go to jf. It returns the era in which it does, and whether the journal
// works in it already.
func (j *Journal) adopt(jf *journalFile) (era int, sound bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.cur != nil {
		j.logs = append(j.logs, j.cur.number)
		j.oldBytes += j.cur.zeroed
		if !slices.Contains(j.dirty, j.cur) {
			j.cur.f.Close()
		}
	}
	j.cur = jf
	j.dirty = append(j.dirty, jf)
	j.dirDirty = true
	return j.epochNo, j.failing == nil
}

// Append hands records to the kernel, so that a crash of the process does not lose them. Records of
// one call are replayed all or none. It returns a *DiskError while the disk fails: the journal then
// needs a Snapshot.
func (j *Journal) Append(records ...[]byte) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return ErrClosed
	}
	if j.cur == nil {
		return &DiskError{Refused: true, Err: j.failing}
	}
	var err error
	if j.buf, err = j.cur.append(j.buf, kindRecords, records, true); err != nil {
		if errors.Is(err, ErrTooLarge) {
			return err
		}
		j.fail(err)
		return &DiskError{Refused: true, Err: err}
	}
	if cap(j.buf) > 2*flushAt {
		j.buf = nil
	}
	j.appended++
	if n := len(j.dirty); n == 0 || j.dirty[n-1] != j.cur {
		j.dirty = append(j.dirty, j.cur)
	}
	return nil
}

// fail gives the current log up: what it holds since the last sync is in doubt. Only a snapshot of
// the owner's state mends that.
func (j *Journal) fail(err error) {
	if j.failing == nil {
		j.log.Error("the journal's disk fails", "dir", j.dir, "err", err)
	}
	j.failing = err
	j.epochNo++
	for _, d := range j.dirty {
		d.f.Close()
	}
	if j.cur != nil {
		j.cur.f.Close()
		j.logs = append(j.logs, j.cur.number)
		j.cur = nil
	}
	j.dirty = nil
}

// Sync waits until all that was appended before is durable. Concurrent callers share their syncs.
func (j *Journal) Sync(ctx context.Context) error {
	j.mu.Lock()
	upTo := j.appended
	j.mu.Unlock()
	for {
		j.mu.Lock()
		failing, done := j.failing, j.synced >= upTo
		j.mu.Unlock()
		switch {
		case failing != nil:
			return &DiskError{Refused: true, Err: failing}
		case done:
			return nil
		}
		if err := j.com.commit(ctx); err != nil && ctx.Err() != nil {
			return err
		}
	}
}

func (j *Journal) syncAll() error {
	j.mu.Lock()
	if j.failing != nil && j.cur == nil {
		j.mu.Unlock()
		return j.failing
	}
	dirty := slices.Clone(j.dirty)
	ends := make([]int64, len(dirty))
	for i, d := range dirty {
		ends[i] = d.off
	}
	dir, upTo, era := j.dirDirty, j.appended, j.epochNo
	j.dirDirty = false
	j.mu.Unlock()
	var err error
	for _, d := range dirty {
		if err = d.f.Sync(); err != nil && !j.replaced(d) {
			break
		}
		err = nil
	}
	if err == nil && dir {
		err = j.fs.SyncDir(j.dir)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.epochNo != era {
		return errSealed
	}
	if err != nil {
		j.fail(err)
		return err
	}
	for i, d := range dirty {
		d.synced = ends[i]
		if d.off > ends[i] {
			continue // it grew meanwhile, and may have been succeeded by another
		}
		j.dirty = slices.DeleteFunc(j.dirty, func(o *journalFile) bool { return o == d })
		if d != j.cur {
			d.f.Close()
		}
	}
	j.synced = upTo
	return nil
}

// replaced tells whether a snapshot holds what a log did, which is closed then and need not be synced.
func (j *Journal) replaced(log *journalFile) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.failing == nil && !slices.Contains(j.dirty, log)
}

// Size returns how long the snapshot and the logs since are, in bytes: when the logs have grown to a
// multiple of the snapshot it is time for a new one. Each opening of the journal begins a log.
func (j *Journal) Size() (snapshot, log int64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.cur != nil {
		log = j.cur.off
	}
	return j.snapSize, log + j.oldBytes
}

// Snapshot replaces snapshot and log by a new snapshot: what write emits must bring about, when
// replayed, the owner's state as of its first call of emit. Records appended from then on, also by others
// meanwhile, go to a new log and are replayed after it; where write may already have seen their effect, replaying
// them again must do no harm. After a failure of the disk a Snapshot that succeeds ends it. On an error
// everything is as before.
func (j *Journal) Snapshot(write func(emit func(record []byte) error) error) error {
	j.snapMu.Lock()
	defer j.snapMu.Unlock()
	j.mu.Lock()
	closed, failing := j.closed, j.failing != nil
	j.mu.Unlock()
	if closed {
		return ErrClosed
	}
	if failing {
		_ = j.fs.Remove(filepath.Join(j.dir, reserveName))
		defer j.reserve()
	}
	jf, err := j.next()
	if err != nil {
		return err
	}
	number, era, adopted := jf.number, 0, false
	sound := false // what is appended to the new log may count as durable before the snapshot is
	begin := func() {
		if !adopted {
			era, sound = j.adopt(jf)
			adopted = true
		}
	}
	size, err := j.writeSnapshot(number, write, begin)
	j.mu.Lock()
	if err == nil && j.epochNo != era {
		err = errSealed // the new log failed in the meantime
	}
	if err != nil {
		if j.failing != nil && j.cur != nil { // appends would go to a log without what it is based on
			j.fail(j.failing)
		}
		if !sound { // a disk that stays full must not fill up with logs
			j.logs = slices.DeleteFunc(j.logs, func(n uint64) bool { return n == number })
		}
		j.mu.Unlock()
		if !sound {
			jf.f.Close() // perhaps not for the first time
			_ = j.fs.Remove(jf.path)
		}
		return fmt.Errorf("buffer: snapshot: %w", err)
	}
	old, oldLogs, keep := j.snapshot, j.logs, j.oldBytes <= maxSegment && !failing // the space may be short
	j.snapshot, j.snapSize, j.logs, j.oldBytes = number, size, nil, 0
	// What the logs before held is in the snapshot.
	for _, d := range j.dirty {
		if d != j.cur {
			d.f.Close()
		}
	}
	j.dirty = slices.DeleteFunc(j.dirty, func(d *journalFile) bool { return d != j.cur })
	if j.failing != nil {
		j.failing = nil
		j.epochNo++
		j.log.Info("the journal's disk takes records again", "dir", j.dir)
	}
	j.dirDirty = true
	j.mu.Unlock()

	if old > 0 {
		_ = j.fs.Remove(j.path(snapPrefix, old))
	}
	for i, n := range oldLogs {
		path := j.path(logPrefix, n)
		if spare := j.path(sparePrefix, n); keep && i == len(oldLogs)-1 && j.fs.Rename(path, spare) == nil {
			j.mu.Lock()
			j.spare, spare = spare, j.spare
			j.mu.Unlock()
			path = spare
		}
		if path != "" {
			_ = j.fs.Remove(path)
		}
	}
	return nil
}

// writeSnapshot writes the snapshot under another name and gives it its own once it is durable. It calls begin
// when the state that it holds is that of now.
func (j *Journal) writeSnapshot(number uint64, write func(func([]byte) error) error, begin func()) (size int64, err error) {
	temp := filepath.Join(j.dir, snapTemp)
	_ = j.fs.Remove(temp)
	jf, err := j.create(temp, "", number)
	if err != nil {
		return 0, err
	}
	defer func() {
		if err != nil {
			_ = j.fs.Remove(temp)
		}
	}()
	defer jf.f.Close()
	var buf, batch []byte
	var ends []int
	var records [][]byte
	flush := func() (err error) {
		records = records[:0]
		start := 0
		for _, e := range ends {
			records = append(records, batch[start:e])
			start = e
		}
		if len(records) > 0 {
			buf, err = jf.append(buf, kindRecords, records, false)
		}
		batch, ends = batch[:0], ends[:0]
		return err
	}
	err = write(func(record []byte) error {
		begin()
		if len(batch) > 0 && len(batch)+len(record) > 16<<10 {
			if err := flush(); err != nil {
				return err
			}
		}
		batch = append(batch, record...)
		ends = append(ends, len(batch))
		return nil
	})
	if err == nil {
		begin()
		err = flush()
	}
	if err == nil {
		_, err = jf.append(buf, kindEnd, nil, false)
	}
	if err == nil {
		err = jf.f.Sync()
	}
	if err == nil {
		err = j.fs.Rename(temp, j.path(snapPrefix, number))
	}
	if err == nil {
		err = j.fs.SyncDir(j.dir)
	}
	return jf.off, err
}

// Close syncs the log and lets go of the directory.
func (j *Journal) Close() error {
	j.snapMu.Lock()
	defer j.snapMu.Unlock()
	j.mu.Lock()
	if j.closed {
		j.mu.Unlock()
		return ErrClosed
	}
	j.closed = true
	j.mu.Unlock()
	err := j.Sync(context.Background())
	j.mu.Lock()
	if j.cur != nil {
		j.cur.f.Close()
	}
	j.mu.Unlock()
	if lerr := j.home.leave(); err == nil {
		err = lerr
	}
	return err
}
