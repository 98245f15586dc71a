package buffer_test

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

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
