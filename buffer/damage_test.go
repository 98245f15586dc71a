package buffer_test

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"gateway/buffer"
	"gateway/buffer/buffertest"
)

// A queue of three segments, mostly of batches, closed in good order.
func intact(t *testing.T) (*world, int) {
	opt := smallOptions()
	opt.MaxBytes += 20 * 4096
	w := newWorld(t, buffertest.NewDisk(1), 1, opt, "a")
	if err := w.open(); err != nil {
		t.Fatal(err)
	}
	for range 12 {
		_ = w.appendBatch(6)
		_ = w.append(1)
	}
	if err := w.close(); err != nil {
		t.Fatal(err)
	}
	return w, 6
}

func TestOneFlippedBitAnywhere(t *testing.T) {
	w, frame := intact(t)
	rng := rand.New(rand.NewPCG(1, 1))
	segments := 0
	for name, size := range w.disk.Files(worldDir) {
		if strings.HasSuffix(name, ".seg") {
			segments++
		}
		for off := int64(0); off < min(size, 6000); off++ {
			if off > 200 && off%13 != 0 && off < size-64 {
				continue
			}
			bit := off*8 + rng.Int64N(8)
			disk := w.disk.Clone()
			disk.Flip(filepath.Join(worldDir, name), bit)
			flipped := w.after(t, disk)
			flipped.durable = nil // one frame may go; that is counted here
			if err := flipped.open(); err != nil {
				t.Fatalf("%s bit %d: %v", name, bit, err)
			}
			u := flipped.users[0]
			if err := flipped.read(u, buffer.Live, 1000); err != nil {
				t.Fatalf("%s bit %d: %v", name, bit, err)
			}
			flipped.q.Report()
			told, open := 0, false
			for _, l := range u.losses {
				told += int(l.Count)
				open = open || l.Open
			}
			missing := w.next - len(u.given)
			if missing > frame || missing != told && !open {
				t.Fatalf("%s bit %d: %d records missing, %d counted, open: %t", name, bit, missing, told, open)
			}
			if err := flipped.q.Close(); err != nil {
				t.Fatalf("%s bit %d: %v", name, bit, err)
			}
		}
	}
	if segments < 3 {
		t.Fatalf("only %d segments", segments)
	}
}

// harm changes something in a copy of a closed queue, opens that, and tells how many records a consumer
// does not get and of how many it is told. It gets nothing wrong, and what is appended after.
func (w *world) harm(t *testing.T, what string, change func(*buffertest.Disk)) (missing, told int, open bool) {
	t.Helper()
	disk := w.disk.Clone()
	change(disk)
	h := w.after(t, disk)
	o := h.opt
	o.FS, o.SyncWindow = disk, 1e9
	var err error
	if h.q, err = buffer.Open(o); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	u := h.users[0]
	u.c = consumer(t, h.q, u.name, buffer.Oldest())
	fresh := h.next
	if err := h.append(1); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	if err := h.read(u, buffer.Live, 1000); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	if !u.given[fresh] {
		t.Fatalf("%s: what was appended after is not delivered", what)
	}
	closeQueue(t, h.q) // reports
	for _, l := range u.losses {
		told += int(l.Count)
		open = open || l.Open
	}
	return h.next - len(u.given), told, open
}

func TestDamagedBlocksAndEndsAreCounted(t *testing.T) {
	w, _ := intact(t)
	for name := range w.disk.Files(worldDir) {
		path := filepath.Join(worldDir, name)
		whole := w.disk.Contents(path)
		size := min(len(whole), 8192)
		hurt := func(what string, b []byte) {
			missing, told, open := w.harm(t, what, func(d *buffertest.Disk) { d.Put(path, b) })
			if missing != told && !open {
				t.Fatalf("%s: %d records missing, %d counted", what, missing, told)
			}
		}
		for off := 0; off < size; off += 61 {
			hurt(fmt.Sprintf("%s cut off at %d", name, off), whole[:off])
		}
		for _, n := range []int{16, 512, 4096} {
			for off := 0; off < size; off += max(n, 128) {
				for _, fill := range []byte{0, 0xFF, 0xA1} {
					b := slices.Clone(whole)
					for i := off; i < min(off+n, size); i++ {
						b[i] = fill
					}
					hurt(fmt.Sprintf("%d bytes %x at %d of %s", n, fill, off, name), b)
				}
			}
		}
	}
}

func TestMissingSegmentsAreCountedAndSwappedOnesPutInOrder(t *testing.T) {
	w, _ := intact(t)
	var names []string
	for name := range w.disk.Files(worldDir) {
		if strings.HasSuffix(name, ".seg") {
			names = append(names, name)
		}
	}
	put := func(d *buffertest.Disk, name, from string) {
		d.Put(filepath.Join(worldDir, name), w.disk.Contents(filepath.Join(worldDir, from)))
	}
	for _, a := range names {
		missing, told, _ := w.harm(t, "without "+a, func(d *buffertest.Disk) {
			if err := d.Remove(filepath.Join(worldDir, a)); err != nil {
				t.Fatal(err)
			}
		})
		if missing == 0 || missing != told {
			t.Errorf("without %s: %d records missing, %d counted", a, missing, told)
		}
		for _, b := range names {
			if a == b {
				continue
			}
			if missing, told, _ := w.harm(t, "swapped", func(d *buffertest.Disk) { put(d, a, b); put(d, b, a) }); missing+told > 0 {
				t.Errorf("%s and %s swapped: %d records missing, %d counted", a, b, missing, told)
			}
			if missing, told, _ := w.harm(t, "copied", func(d *buffertest.Disk) { put(d, a, b) }); missing == 0 || missing != told {
				t.Errorf("%s in place of %s: %d records missing, %d counted", b, a, missing, told)
			}
		}
	}
	if len(names) < 3 {
		t.Fatalf("only %d segments", len(names))
	}
}

func TestDamagedSegmentIsKeptInABoundedQuarantine(t *testing.T) {
	w, _ := intact(t)
	for name, size := range w.disk.Files(worldDir) {
		if strings.HasSuffix(name, ".seg") && size > 1000 {
			w.disk.Flip(filepath.Join(worldDir, name), 700*8)
		}
	}
	for range 3 {
		if err := w.open(); err != nil {
			t.Fatal(err)
		}
		_ = w.read(w.users[0], buffer.Live, 1000)
		if err := w.q.Close(); err != nil {
			t.Fatal(err)
		}
		w.disk.Kill()
	}
	kept := 0
	for name := range w.disk.Files(worldDir) {
		if strings.HasPrefix(name, "quarantine-") {
			kept++
		}
	}
	if kept != 2 {
		t.Errorf("%d segments in quarantine, want 2", kept)
	}
}

func TestANewerVersionIsRefusedAndLeftUntouched(t *testing.T) {
	for _, suffix := range []string{".seg", "cursors"} {
		w, _ := intact(t)
		var name string
		for n := range w.disk.Files(worldDir) {
			if strings.HasSuffix(n, suffix) {
				name = n
			}
		}
		buffer.MakeNewer(t, w.disk, filepath.Join(worldDir, name))
		ops := w.disk.Ops()
		err := w.open()
		if err == nil || !strings.Contains(err.Error(), "format version 2") {
			t.Errorf("%s of version 2: %v", suffix, err)
		}
		if w.disk.Ops() != ops {
			t.Errorf("%s of version 2: the directory was touched", suffix)
		}
	}
}

// FuzzOpen opens a directory with one arbitrary segment and arbitrary cursors.
func FuzzOpen(f *testing.F) {
	opt := smallOptions()
	opt.MaxBytes += 20 * 4096
	disk := buffertest.NewDisk(1)
	q, err := buffer.Open(buffer.Options{Dir: worldDir, FS: disk, MaxBytes: opt.MaxBytes, SegmentBytes: 4096, SyncWindow: 1e9})
	if err != nil {
		f.Fatal(err)
	}
	c, _ := q.Consumer("a", buffer.Oldest())
	for i := range 30 {
		b, d := worldRecord(i)
		if _, err := q.Append(b, d); err != nil {
			f.Fatal(err)
		}
	}
	c.Defer()
	if err := q.Close(); err != nil {
		f.Fatal(err)
	}
	cursors := disk.Contents(filepath.Join(worldDir, "cursors"))
	f.Add(disk.Contents(filepath.Join(worldDir, "0000000000000001.seg")), cursors[:100], false)
	f.Add(disk.Contents(filepath.Join(worldDir, "0000000000000001.seg")), cursors[32<<10:32<<10+100], true)
	f.Fuzz(func(t *testing.T, seg, cur []byte, mend bool) {
		disk := buffertest.NewDisk(1)
		if mend { // let the fuzzer get behind the checksums
			seg, cur = buffer.Mend(seg, cur)
		}
		disk.Put(filepath.Join(worldDir, "0000000000000001.seg"), seg)
		disk.Put(filepath.Join(worldDir, "cursors"), cur)
		q, err := buffer.Open(buffer.Options{Dir: worldDir, FS: disk, MaxBytes: opt.MaxBytes, SegmentBytes: 4096, SyncWindow: 1e9})
		if err != nil {
			if strings.Contains(err.Error(), "format version") {
				return
			}
			t.Fatal(err)
		}
		c, err := q.Consumer("a", buffer.Oldest())
		if err != nil {
			return // a hundred others
		}
		id, err := q.Append([]byte("new"), nil)
		if err != nil {
			t.Fatal(err)
		}
		c.Rewind()
		for _, lane := range []buffer.Lane{buffer.Backfill, buffer.Live} {
			last := buffer.ID{}
			for range 1 << 16 {
				r, ok, err := c.TryNext(lane)
				if err != nil {
					t.Fatal(err)
				}
				if !ok {
					if lane == buffer.Live && last != id {
						t.Fatalf("the new record %v was not delivered; the last was %v", id, last)
					}
					break
				}
				last = r.ID
				c.Ack(r.ID)
			}
		}
		if err := q.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

const killedEnv = "BUFFER_TEST_KILLED"

func TestMain(m *testing.M) {
	if dir := os.Getenv(killedEnv); dir != "" {
		appendUntilKilled(dir)
	}
	os.Exit(m.Run())
}

// appendUntilKilled tells on its standard output each name that Append returned.
func appendUntilKilled(dir string) {
	q, err := buffer.Open(buffer.Options{Dir: dir, MaxBytes: 64 << 20, SegmentBytes: 64 << 10, SyncWindow: 1e9})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	var b [16]byte
	for n := 0; ; n++ {
		id, err := q.Append(payload(n), nil)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		binary.LittleEndian.PutUint64(b[:], id.Epoch)
		binary.LittleEndian.PutUint64(b[8:], id.Seq)
		if _, err := os.Stdout.Write(b[:]); err != nil {
			os.Exit(1)
		}
	}
}

func TestKilledAnywhereLosesNothingThatAppendReturned(t *testing.T) {
	dir := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, 5))
	var told []buffer.ID
	for range 200 {
		cmd := exec.Command(self)
		cmd.Env = append(os.Environ(), killedEnv+"="+dir)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		in := bufio.NewReader(out)
		for left := rng.IntN(60); ; left-- {
			if left == 0 {
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
			var b [16]byte
			if _, err := io.ReadFull(in, b[:]); err != nil {
				break
			}
			told = append(told, buffer.ID{Epoch: binary.LittleEndian.Uint64(b[:]), Seq: binary.LittleEndian.Uint64(b[8:])})
		}
		_ = cmd.Wait()
	}
	if len(told) < 1000 {
		t.Fatalf("only %d records in 200 lives", len(told))
	}
	have := map[buffer.ID]bool{}
	q := open(t, buffer.Options{Dir: dir, MaxBytes: 64 << 20, SegmentBytes: 64 << 10})
	defer closeQueue(t, q)
	if err := q.Records(buffer.ID{}, func(r buffer.Record) error {
		number(t, r.Data)
		have[r.ID] = true
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	for _, id := range told {
		if !have[id] {
			t.Fatalf("record %v was appended and is gone", id)
		}
	}
}

// What the cursors know to have been there is counted, not guessed, when the end of the newest segment
// is damaged; and its name is not given to another record.
func TestDamageAtTheTailOfAClosedQueueIsCountedExactly(t *testing.T) {
	disk := buffertest.NewDisk(1)
	var losses []buffer.Loss
	o := buffer.Options{Dir: "q", FS: disk, OnLoss: func(l buffer.Loss) { losses = append(losses, l) }}
	q := open(t, o)
	consumer(t, q, "a", buffer.Oldest())
	ids := appendN(t, q, 0, 10)
	closeQueue(t, q)
	b := disk.Contents("q/0000000000000001.seg")
	end := len(b)
	for b[end-1] == 0 || end > len(b)-64 { // the last record is before the zeroes and the header
		end--
	}
	disk.Flip("q/0000000000000001.seg", int64(end-50)*8)

	q = open(t, o)
	next := appendN(t, q, 10, 1)
	_, got := drain(t, consumer(t, q, "a", buffer.Oldest()), buffer.Live)
	closeQueue(t, q)
	if want := append(run(0, 9), 10); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("delivered %v, want %v", got, want)
	}
	want := buffer.Loss{Consumer: "a", First: ids[9], Last: ids[9], Count: 1, Reason: buffer.LostDamaged}
	if len(losses) != 1 || losses[0] != want {
		t.Errorf("losses %+v, want %+v", losses, want)
	}
	if next[0].Seq != 11 {
		t.Errorf("the next record is %v", next[0])
	}
	kept := 0
	for name := range disk.Files("q") {
		if strings.HasPrefix(name, "quarantine-") {
			kept++
		}
	}
	if kept != 1 {
		t.Errorf("%d segments in quarantine", kept)
	}
}

func run(from, n int) (numbers []int) {
	for i := range n {
		numbers = append(numbers, from+i)
	}
	return numbers
}

// A copy of a segment beside it, perhaps from when it was shorter, does not take its place.
func TestACopyOfASegmentDoesNotReplaceIt(t *testing.T) {
	disk := buffertest.NewDisk(1)
	q := open(t, buffer.Options{Dir: "q", FS: disk})
	appendN(t, q, 0, 10)
	early := disk.Contents("q/0000000000000001.seg")
	appendN(t, q, 10, 10)
	closeQueue(t, q)
	for _, name := range []string{"0 copy.seg", "zz.seg"} {
		disk.Put("q/"+name, early)
	}
	q = open(t, buffer.Options{Dir: "q", FS: disk})
	_, got := drain(t, consumer(t, q, "a", buffer.Oldest()), buffer.Live)
	wantRun(t, got, 0, 20)
	closeQueue(t, q)
}

// A cursor may stand on the last record of a segment that is gone. When a crash brings the segment
// back, what was acked stays acked: the cursor had forgotten the epoch, and the consumer was told of
// the loss of what it had.
func TestASegmentThatACrashBringsBackIsNotDeliveredAgain(t *testing.T) {
	disk := buffertest.NewDisk(1)
	o := small(disk, 0)
	o.OnLoss = func(l buffer.Loss) { t.Errorf("lost: %+v", l) }
	q := open(t, o)
	c := consumer(t, q, "a", buffer.Oldest())
	appendN(t, q, 0, 40)
	first := disk.Contents("q/0000000000000001.seg")
	n := 0
	for {
		r, ok, err := c.TryNext(buffer.Live)
		if err != nil || !ok {
			t.Fatal(ok, err)
		}
		c.Ack(r.ID)
		n++
		q.Maintain()
		if disk.Contents("q/0000000000000001.seg") == nil {
			break // n is the last record of the first segment
		}
	}
	closeQueue(t, q)
	for range 2 { // each opening knows less of what was before it
		q = open(t, o)
		closeQueue(t, q)
	}
	disk.Put("q/0000000000000001.seg", first)
	q = open(t, o)
	_, got := drain(t, consumer(t, q, "a", buffer.Oldest()), buffer.Live)
	wantRun(t, got, n, 40-n)
	closeQueue(t, q)
}

// The cursors of another queue, however long that ran, do not make records old.
func TestCursorsOfAnotherQueueDoNotAgeRecords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		life := func(lasts time.Duration) *buffertest.Disk {
			disk := buffertest.NewDisk(1)
			q := open(t, buffer.Options{Dir: "q", FS: disk, MaxAge: 24 * time.Hour})
			time.Sleep(lasts)
			appendN(t, q, 0, 10)
			closeQueue(t, q)
			return disk
		}
		old, disk := life(1000*time.Hour), life(time.Hour)
		disk.Put("q/cursors", old.Contents("q/cursors"))
		q := open(t, buffer.Options{Dir: "q", FS: disk, MaxAge: 24 * time.Hour})
		q.Maintain()
		_, got := drain(t, consumer(t, q, "a", buffer.Oldest()), buffer.Live)
		wantRun(t, got, 0, 10)
		closeQueue(t, q)
	})
}

// Not one byte of a newer queue is changed, the lock file's included.
func TestANewerQueueOnARealDiskIsLeftUntouched(t *testing.T) {
	dir := t.TempDir()
	q := open(t, buffer.Options{Dir: dir})
	appendN(t, q, 0, 10)
	closeQueue(t, q)
	lock := filepath.Join(dir, "lock")
	if err := os.WriteFile(lock, []byte("4711\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	files := realFiles(dir)
	buffer.MakeNewer(t, files, "cursors")
	before := files.all(t)
	if _, err := buffer.Open(buffer.Options{Dir: dir}); err == nil || !strings.Contains(err.Error(), "format version 2") {
		t.Errorf("opened: %v", err)
	}
	if after := files.all(t); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Error("the directory was touched")
	}
}

// realFiles are the files of a real directory.
type realFiles string

func (d realFiles) Contents(name string) []byte {
	b, err := os.ReadFile(filepath.Join(string(d), name))
	if err != nil {
		panic(err)
	}
	return b
}

func (d realFiles) Put(name string, b []byte) {
	if err := os.WriteFile(filepath.Join(string(d), name), b, 0o600); err != nil {
		panic(err)
	}
}

func (d realFiles) all(t *testing.T) map[string][sha256.Size]byte {
	t.Helper()
	entries, err := os.ReadDir(string(d))
	if err != nil {
		t.Fatal(err)
	}
	sums := map[string][sha256.Size]byte{}
	for _, e := range entries {
		sums[e.Name()] = sha256.Sum256(d.Contents(e.Name()))
	}
	return sums
}

// A segment that somebody copied from another queue, and that looks like the newest, was once believed:
// what began after it had to go.
func TestASegmentOfAnotherQueueEndsNone(t *testing.T) {
	w, _ := intact(t)
	disk := buffertest.NewDisk(2)
	for i := range 10 { // a segment and a record in each life
		q := open(t, small(disk, 0))
		appendN(t, q, i, 1)
		closeQueue(t, q)
	}
	name := filepath.Join(worldDir, "000000000000000a.seg")
	foreign := disk.Contents("q/000000000000000a.seg")
	missing, told, _ := w.harm(t, "foreign", func(d *buffertest.Disk) {
		d.Put(name, foreign)
	})
	if missing > 0 || told > 0 {
		t.Errorf("%d records missing, %d told", missing, told)
	}
}
