package buffer_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"gateway/buffer"
	"gateway/buffer/buffertest"
)

func openJournal(t testing.TB, o buffer.JournalOptions) (*buffer.Journal, []string, buffer.Replayed) {
	t.Helper()
	var got []string
	j, done, err := buffer.OpenJournal(o, func(r []byte) error {
		got = append(got, string(r))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return j, got, done
}

func TestJournalReplaysSnapshotAndWhatFollowed(t *testing.T) {
	o := buffer.JournalOptions{Dir: t.TempDir()}
	var want []string
	for round := range 6 {
		j, got, done := openJournal(t, o)
		if !slices.Equal(got, want) || done.Lost != 0 {
			t.Fatalf("round %d: replayed %q, want %q", round, got, want)
		}
		for i := range 5 {
			r := fmt.Sprint("record ", round, " ", i)
			if err := j.Append([]byte(r), []byte("second half")); err != nil {
				t.Fatal(err)
			}
			want = append(want, r, "second half")
			if round%2 == 1 && i == 2 {
				want = []string{fmt.Sprint("state ", round), ""}
				if err := j.Snapshot(func(emit func([]byte) error) error {
					for _, r := range want {
						if err := emit([]byte(r)); err != nil {
							return err
						}
					}
					return nil
				}); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := j.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// A ledgerWorld keeps a set of numbers in a journal and knows which of them are durable.
type ledgerWorld struct {
	next    int
	durable int // all below
	state   map[int]bool
}

// live appends, syncs and takes snapshots until the disk lets it do no more.
func (w *ledgerWorld) live(t *testing.T, disk *buffertest.Disk) {
	j, err := w.open(t, disk)
	if err != nil {
		return
	}
	add := func(n int) {
		for range n {
			if j.Append(fmt.Append(nil, w.next), fmt.Append(nil, w.next+1)) == nil {
				w.state[w.next], w.state[w.next+1] = true, true
			}
			w.next += 2
		}
	}
	sync := func() {
		upTo := w.next
		if j.Sync(t.Context()) == nil {
			w.durable = upTo
		}
	}
	snapshot := func() {
		// After a failure only a snapshot helps, and the owner has what the journal refused.
		for n := range w.next {
			w.state[n] = true
		}
		upTo := w.next
		if err := j.Snapshot(func(emit func([]byte) error) error {
			for n := range w.state {
				if err := emit(fmt.Append(nil, n)); err != nil {
					return err
				}
			}
			return nil
		}); err == nil {
			w.durable = max(w.durable, upTo)
		}
	}
	add(3)
	sync()
	add(2)
	snapshot()
	add(2)
	sync()
	snapshot()
	add(1)
	sync()
	snapshot()
	add(2)
	if j.Failing() == nil && j.Close() == nil {
		w.durable = w.next
	}
}

// open replays, and checks what comes back: all that was durable, nothing that was never appended,
// pairs whole.
func (w *ledgerWorld) open(t *testing.T, disk *buffertest.Disk) (*buffer.Journal, error) {
	t.Helper()
	state := map[int]bool{}
	j, _, err := buffer.OpenJournal(buffer.JournalOptions{Dir: worldDir, FS: disk}, func(r []byte) error {
		n, err := strconv.Atoi(string(r))
		if err != nil || n >= w.next {
			t.Fatalf("replayed %q, which was never appended", r)
		}
		state[n] = true
		return nil
	})
	if err != nil {
		return nil, err
	}
	for n := range w.durable {
		if !state[n] {
			t.Fatalf("%d was durable and is not replayed; %d were", n, w.durable)
		}
	}
	for n := range state {
		if !state[n^1] {
			t.Fatalf("%d is replayed without the record of the same call", n)
		}
	}
	w.state = state
	return j, nil
}

func TestJournalSurvivesPowerCutAndFailureAtEveryOperation(t *testing.T) {
	count := buffertest.NewDisk(1)
	(&ledgerWorld{}).live(t, count)
	for at := range count.Ops() + 20 {
		for kind := range 4 {
			if kind > 0 && at%3 != kind-1 {
				continue // the failures take turns
			}
			disk := buffertest.NewDisk(uint64(at))
			switch kind {
			case 0:
				disk.CutAt(at)
			default:
				f := faults[kind-1]
				disk.Fault(func(n int, _ buffertest.Op, _ string) error {
					if n < at || n-at >= f.ops {
						return nil
					}
					return f.err
				})
			}
			var w ledgerWorld
			w.live(t, disk)
			disk.Kill()
			w.live(t, disk) // where it was only a failure, a second life
			for i, fate := range fates {
				found := disk.Crash(fate, uint64(at*10+i))
				after := ledgerWorld{next: w.next, durable: w.durable}
				j, err := after.open(t, found)
				if err != nil {
					t.Fatalf("cut at %d: %v", at, err)
				}
				if err := j.Close(); err != nil {
					t.Fatal(err)
				}
				for name := range found.Files(worldDir) {
					if strings.HasPrefix(name, "new-") {
						t.Fatalf("litter: %s", name)
					}
				}
			}
		}
	}
}

// What was appended before a snapshot's first record is replaced by it, what comes later is replayed behind it: a log
// that overlaps with the snapshot would, torn, take back what the snapshot has.
func TestJournalSnapshotBeginsWithItsFirstRecord(t *testing.T) {
	o := buffer.JournalOptions{Dir: t.TempDir()}
	j, _, _ := openJournal(t, o)
	add := func(record string) {
		t.Helper()
		if err := j.Append([]byte(record)); err != nil {
			t.Fatal(err)
		}
	}
	add("before")
	if err := j.Snapshot(func(emit func([]byte) error) error {
		add("before the first")
		if err := emit([]byte("state")); err != nil {
			return err
		}
		add("meanwhile")
		return emit([]byte("more state"))
	}); err != nil {
		t.Fatal(err)
	}
	add("after")
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	_, got, done := openJournal(t, o)
	if want := []string{"state", "more state", "meanwhile", "after"}; !slices.Equal(got, want) || done.Lost != 0 {
		t.Errorf("replayed %q, want %q; %+v", got, want, done)
	}
}

// A log that is used again has the name of the next before its header is on the disk: what it held in its former life,
// which the snapshot has long since, does not come again.
func TestJournalDoesNotReplayTheFormerLifeOfALog(t *testing.T) {
	disk := buffertest.NewDisk(1)
	o := buffer.JournalOptions{Dir: worldDir, FS: disk}
	j, _, _ := openJournal(t, o)
	for _, state := range []string{"first state", "second state"} {
		if err := j.Append([]byte("older than the " + state)); err != nil {
			t.Fatal(err)
		}
		if err := j.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := j.Snapshot(func(emit func([]byte) error) error { return emit([]byte(state)) }); err != nil {
			t.Fatal(err)
		}
	}
	for _, fate := range fates {
		_, got, done := openJournal(t, buffer.JournalOptions{Dir: worldDir, FS: disk.Crash(fate, 1)})
		if !slices.Equal(got, []string{"second state"}) || done.Unreadable != 0 || done.Lost != 0 {
			t.Errorf("replayed %q, %+v", got, done)
		}
	}
}

// A smallFS has so much space in a directory and no more.
type smallFS struct {
	*buffertest.Disk
	space int64
}

func (s smallFS) Create(name string) (buffer.File, error) {
	f, err := s.Disk.Create(name)
	return smallFile{f, s}, err
}

func (s smallFS) Open(name string, write bool) (buffer.File, error) {
	f, err := s.Disk.Open(name, write)
	return smallFile{f, s}, err
}

type smallFile struct {
	buffer.File
	fs smallFS
}

// grow tells whether there is room for a file to be so long.
func (f smallFile) grow(to int64) error {
	size, err := f.Size()
	for _, n := range f.fs.Files(worldDir) {
		size -= n // of the others, below 0
	}
	if to-size > f.fs.space {
		return syscall.ENOSPC
	}
	return err
}

func (f smallFile) WriteAt(b []byte, off int64) (int, error) {
	if size, err := f.Size(); err != nil || off+int64(len(b)) > size {
		if err := f.grow(off + int64(len(b))); err != nil {
			return 0, err
		}
	}
	return f.File.WriteAt(b, off)
}

func (f smallFile) Reserve(size int64) error {
	if err := f.grow(size); err != nil {
		return err
	}
	return f.File.Reserve(size)
}

// A log that has filled the disk by itself makes room for the snapshot that replaces it, once there is little to keep:
// nobody else would, on a partition of its own.
func TestJournalThatFilledItsDiskGoesOn(t *testing.T) {
	disk := smallFS{buffertest.NewDisk(1), 2 << 20}
	o := buffer.JournalOptions{Dir: worldDir, FS: disk}
	j, _, _ := openJournal(t, o)
	snapshot := func(size int) error {
		return j.Snapshot(func(emit func([]byte) error) error { return emit(make([]byte, size)) })
	}
	for round := range 4 {
		fill := func() {
			for j.Append(make([]byte, 10<<10)) == nil {
			}
		}
		fill()
		if round%2 == 1 { // also for who finds it full
			if err := j.Close(); err == nil {
				t.Fatal("closed without an error")
			}
			j, _, _ = openJournal(t, o)
			fill()
		}
		if snapshot(1<<20) == nil {
			t.Fatal("a large snapshot had room")
		}
		if err := snapshot(100 << 10); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		if err := errors.Join(j.Append([]byte("x")), j.Sync(t.Context())); err != nil {
			t.Fatal(err)
		}
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if _, got, _ := openJournal(t, o); len(got) != 2 || len(got[0]) != 100<<10 || got[1] != "x" {
		t.Errorf("%d records", len(got))
	}
}

// A syncFS has something happen before a log is synced.
type syncFS struct {
	buffer.FS
	before func(name string)
}

func (s syncFS) Create(name string) (buffer.File, error) {
	f, err := s.FS.Create(name)
	return syncFile{f, filepath.Base(name), s.before}, err
}

type syncFile struct {
	buffer.File
	name   string
	before func(name string)
}

func (f syncFile) Sync() error {
	f.before(f.name)
	return f.File.Sync()
}

// A snapshot that is complete while the log before it is about to be synced has closed that: it need not be any more, and
// the disk is none that fails.
func TestJournalSnapshotEndsDuringASync(t *testing.T) {
	begun, finish, ended := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	o := buffer.JournalOptions{Dir: t.TempDir(), FS: syncFS{buffer.OS, func(name string) {
		if name == "log-0000000000000001" {
			close(finish)
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
	}}}
	j, _, _ := openJournal(t, o)
	if err := j.Append([]byte("before")); err != nil {
		t.Fatal(err)
	}
	go func() {
		ended <- j.Snapshot(func(emit func([]byte) error) error {
			err := emit([]byte("state"))
			close(begun)
			<-finish
			return err
		})
	}()
	<-begun
	if err := j.Append([]byte("after")); err != nil {
		t.Fatal(err)
	}
	if err := j.Sync(t.Context()); err != nil || j.Failing() != nil {
		t.Errorf("Sync: %v; failing: %v", err, j.Failing())
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if _, got, _ := openJournal(t, buffer.JournalOptions{Dir: o.Dir}); !slices.Equal(got, []string{"state", "after"}) {
		t.Errorf("replayed %q", got)
	}
}

// Each opening begins a log, and what that takes of the disk counts, however little is in it: an owner that starts again
// and again must come to a snapshot, too.
func TestJournalSizeCountsWhatLogsTake(t *testing.T) {
	disk := buffertest.NewDisk(1)
	o := buffer.JournalOptions{Dir: worldDir, FS: disk}
	for range 50 {
		j, _, _ := openJournal(t, o)
		if err := j.Append([]byte("a start")); err != nil {
			t.Fatal(err)
		}
		var want int64
		for name, size := range disk.Files(worldDir) {
			if strings.HasPrefix(name, "log-") {
				want += size
			}
		}
		if _, got := j.Size(); got > want || got < want-20<<10 { // of the newest one only what is used counts
			t.Fatalf("the logs take %d bytes, Size says %d", want, got)
		}
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// A disk on which no snapshot succeeds keeps what was durable and does not fill up with the attempts, whose logs the
// journal begins and gives up.
func TestJournalThatCannotBeMendedDoesNotGrow(t *testing.T) {
	for name, fails := range map[string]func(op buffertest.Op, file string) bool{
		"snapshot": func(op buffertest.Op, file string) bool { return op == buffertest.Write && file == "new-snapshot" },
		"rename":   func(op buffertest.Op, file string) bool { return op == buffertest.Rename },
		"create":   func(op buffertest.Op, file string) bool { return op == buffertest.Create && file == "new-snapshot" },
	} {
		t.Run(name, func(t *testing.T) {
			disk := buffertest.NewDisk(1)
			o := buffer.JournalOptions{Dir: worldDir, FS: disk}
			j, _, _ := openJournal(t, o)
			if err := j.Append([]byte("durable")); err != nil {
				t.Fatal(err)
			}
			if err := j.Sync(t.Context()); err != nil {
				t.Fatal(err)
			}
			disk.Fault(func(_ int, op buffertest.Op, _ string) error {
				if op == buffertest.Sync {
					return syscall.EIO
				}
				return nil
			})
			if j.Append([]byte("in doubt")) == nil && j.Sync(t.Context()) == nil {
				t.Fatal("synced")
			}
			disk.Fault(func(_ int, op buffertest.Op, file string) error {
				if fails(op, file) {
					return syscall.ENOSPC
				}
				return nil
			})
			attempt := func() error {
				return j.Snapshot(func(emit func([]byte) error) error {
					if err := emit([]byte("state")); err != nil {
						return err
					}
					return j.Append([]byte("meanwhile"))
				})
			}
			before := disk.Files(worldDir)
			for range 20 {
				if attempt() == nil || j.Failing() == nil {
					t.Fatal("mended")
				}
				if j.Append([]byte("too early")) == nil {
					t.Fatal("what is not mended takes records")
				}
			}
			if after := disk.Files(worldDir); len(after) != len(before) {
				t.Errorf("files before %v, after %v", before, after)
			}
			_, got, _ := openJournal(t, buffer.JournalOptions{Dir: worldDir, FS: disk.Crash(buffertest.Lost, 1)})
			if !slices.Equal(got, []string{"durable"}) {
				t.Errorf("replayed %q", got)
			}
			disk.Fault(nil)
			if err := attempt(); err != nil {
				t.Fatal(err)
			}
			if err := j.Append([]byte("after")); err != nil {
				t.Fatal(err)
			}
			if err := j.Close(); err != nil {
				t.Fatal(err)
			}
			if _, got, _ := openJournal(t, o); !slices.Equal(got, []string{"state", "meanwhile", "after"}) {
				t.Errorf("replayed %q after the mend", got)
			}
		})
	}
}

// A snapshot without its end has lost nobody knows how much, and that is said.
func TestJournalSaysThatASnapshotHasNoEnd(t *testing.T) {
	disk := buffertest.NewDisk(1)
	o := buffer.JournalOptions{Dir: worldDir, FS: disk}
	j, _, _ := openJournal(t, o)
	if err := j.Snapshot(func(emit func([]byte) error) error {
		return errors.Join(emit(make([]byte, 20<<10)), emit([]byte("second")))
	}); err != nil {
		t.Fatal(err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	_, got, done := openJournal(t, buffer.JournalOptions{Dir: worldDir, FS: disk.Clone()})
	if len(got) != 2 || done.Unreadable != 0 || done.Lost != 0 {
		t.Fatalf("%d records, %+v", len(got), done)
	}
	for name, size := range disk.Files(worldDir) {
		if !strings.HasPrefix(name, "snapshot-") {
			continue
		}
		path := filepath.Join(worldDir, name)
		for _, cut := range []int64{1, 20, 50, size - 5000} {
			hit := disk.Clone()
			hit.Put(path, disk.Contents(path)[:size-cut])
			_, got, done := openJournal(t, buffer.JournalOptions{Dir: worldDir, FS: hit})
			if done.Unreadable != 1 {
				t.Errorf("%d bytes less: %d records and %+v", cut, len(got), done)
			}
		}
	}
}

// What is larger than a frame holds stands in several, and comes back whole or not at all.
func TestJournalTakesRecordsLargerThanAFrame(t *testing.T) {
	const mib = 1 << 20
	large := func(c byte, size int) []byte { return bytes.Repeat([]byte{c}, size) }
	records := [][]byte{[]byte("first"), large('a', 20*mib), large('b', 20*mib), large('c', 16*mib), []byte("last")}
	for _, snapshot := range []bool{false, true} {
		t.Run(fmt.Sprint("snapshot ", snapshot), func(t *testing.T) {
			o := buffer.JournalOptions{Dir: t.TempDir()}
			j, _, _ := openJournal(t, o)
			put := func(r []byte) error { return j.Append(r) }
			var err error
			if snapshot {
				err = j.Snapshot(func(emit func([]byte) error) error {
					for _, r := range records {
						if err := emit(r); err != nil {
							return err
						}
					}
					return nil
				})
			} else {
				for _, r := range records {
					err = errors.Join(err, put(r))
				}
			}
			if err = errors.Join(err, j.Close()); err != nil {
				t.Fatal(err)
			}
			replay := func() (got []string, done buffer.Replayed) {
				j, got, done := openJournal(t, o)
				if err := j.Close(); err != nil {
					t.Fatal(err)
				}
				return got, done
			}
			got, done := replay()
			if len(got) != len(records) || done.Lost != 0 {
				t.Fatalf("%d records, %+v", len(got), done)
			}
			for i := range records {
				if got[i] != string(records[i]) {
					t.Fatalf("record %d differs, %d bytes", i, len(got[i]))
				}
			}
			// Damage in one part costs the record, and nothing is put together of what is left.
			for _, at := range []int64{2 * mib, 10 * mib, 19 * mib, 22 * mib} {
				flip(t, o.Dir, at)
				got, done := replay()
				flip(t, o.Dir, at)
				if len(got) != len(records)-1 || done.Lost != 1 {
					t.Errorf("damage at %d: %d records, %+v", at, len(got), done)
				}
				for _, r := range got {
					if !slices.ContainsFunc(records, func(want []byte) bool { return r == string(want) }) {
						t.Errorf("damage at %d: a record of %d bytes that was never there", at, len(r))
					}
				}
			}
		})
	}
}

// flip inverts a bit of the largest file in a directory.
func flip(t *testing.T, dir string, at int64) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var largest fs.FileInfo
	for _, e := range entries {
		if st, err := e.Info(); err == nil && (largest == nil || st.Size() > largest.Size()) {
			largest = st
		}
	}
	f, err := os.OpenFile(filepath.Join(dir, largest.Name()), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], at); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 8
	if _, err := f.WriteAt(b[:], at); err != nil {
		t.Fatal(err)
	}
}

func TestJournalStepsOverAFlippedBit(t *testing.T) {
	disk := buffertest.NewDisk(1)
	w := ledgerWorld{}
	w.live(t, disk)
	disk.Kill()
	for name, size := range disk.Files(worldDir) {
		for off := int64(0); off < min(size, 6000); off += 1 + 12*(off/200%20) {
			hit := disk.Clone()
			hit.Flip(filepath.Join(worldDir, name), off*8+off%8)
			got := map[string]bool{}
			j, done, err := buffer.OpenJournal(buffer.JournalOptions{Dir: worldDir, FS: hit}, func(r []byte) error {
				got[string(r)] = true
				return nil
			})
			if err != nil {
				t.Fatalf("%s byte %d: %v", name, off, err)
			}
			// The snapshot's records share a frame here; the last of a log cannot be counted.
			if len(got) < w.next && done.Lost == 0 && len(got) < w.next-2 && strings.HasPrefix(name, "log") {
				t.Fatalf("%s byte %d: %d of %d records, none counted as lost", name, off, len(got), w.next)
			}
			if err := j.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// What a later version has written is refused, and left as it is.
func TestJournalOfALaterVersionIsLeftAlone(t *testing.T) {
	disk := buffertest.NewDisk(1)
	o := buffer.JournalOptions{Dir: worldDir, FS: disk}
	j, _, _ := openJournal(t, o)
	if err := errors.Join(j.Append([]byte("x")), j.Close()); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(worldDir, "log-0000000000000001")
	b := disk.Contents(path)
	for _, at := range []int{0, 2048} { // both headers
		h := b[at : at+64]
		binary.LittleEndian.PutUint32(h[8:], 99)
		table := crc32.MakeTable(crc32.Castagnoli)
		binary.LittleEndian.PutUint32(h[12:], crc32.Update(crc32.Checksum(h[:12], table), table, h[16:]))
	}
	disk.Put(path, b)
	before := disk.Files(worldDir)
	_, _, err := buffer.OpenJournal(o, func([]byte) error { return nil })
	if newer := new(buffer.ErrNewer); !errors.As(err, &newer) || newer.Version != 99 {
		t.Errorf("opened: %v", err)
	}
	if after := disk.Files(worldDir); !maps.Equal(before, after) || !bytes.Equal(disk.Contents(path), b) {
		t.Errorf("files before %v, after %v", before, after)
	}
}
