package buffer_test

import (
	"errors"
	"fmt"
	"io"
	"syscall"
	"testing"

	"gateway/buffer"
	"gateway/buffer/buffertest"

	"pgregory.net/rapid"
)

var fates = []buffertest.Fate{buffertest.Lost, buffertest.Kept, buffertest.Chance, buffertest.Chance}

// operations returns how many operations the workload makes.
func operations(t *testing.T, opt buffer.Options) int {
	disk := buffertest.NewDisk(1)
	w := newWorld(t, disk, 1, opt, "a", "b")
	w.workload()
	n := disk.Ops()
	if n < 40 {
		t.Fatalf("the workload makes only %d operations", n)
	}
	return n
}

// sizes are segments of one page, for many rolls, and of some, which are zeroed ahead of the records.
var sizes = []struct {
	name string
	opt  buffer.Options
}{
	{"rolls", smallOptions()},
	{"zeroes", zeroedOptions()},
}

func TestPowerCutAtEveryOperation(t *testing.T) {
	for _, size := range sizes {
		n := operations(t, size.opt)
		for cut := range n {
			disk := buffertest.NewDisk(uint64(cut))
			disk.CutAt(cut)
			w := newWorld(t, disk, 1, size.opt, "a", "b")
			w.workload()
			for i, fate := range fates {
				t.Run(fmt.Sprint(size.name, "/", cut, "/", i), func(t *testing.T) {
					after := w.after(t, disk.Crash(fate, uint64(cut*10+i)))
					after.check()
					after.check() // once more, after a proper close
				})
			}
		}
	}
}

func TestPowerCutDuringRecovery(t *testing.T) {
	n := operations(t, smallOptions())
	for cut := 0; cut < n; cut += 3 {
		disk := buffertest.NewDisk(uint64(cut))
		disk.CutAt(cut)
		w := newWorld(t, disk, 1, smallOptions(), "a", "b")
		w.workload()
		for again := range 12 {
			t.Run(fmt.Sprint(cut, "/", again), func(t *testing.T) {
				found := disk.Crash(buffertest.Chance, uint64(cut+again))
				second := w.after(t, found)
				found.CutAt(again)
				if second.open() == nil {
					_ = second.append(5)
					second.sync()
					second.q.Maintain()
				}
				for i, fate := range fates {
					third := second.after(t, found.Crash(fate, uint64(i)))
					third.check()
				}
			})
		}
	}
}

// faults are the ways in which one operation, or all from there on for a while, can fail.
var faults = []struct {
	name string
	err  error
	ops  int // how many operations in a row
}{
	{"EIO", syscall.EIO, 1},
	{"short", io.ErrShortWrite, 1},
	{"ENOSPC for long", syscall.ENOSPC, 25},
	{"EROFS for ever", syscall.EROFS, 1 << 30},
}

func TestEveryOperationFails(t *testing.T) {
	for _, size := range sizes {
		n := operations(t, size.opt)
		for _, f := range faults {
			for at := range n {
				t.Run(fmt.Sprint(size.name, "/", f.name, "/", at), func(t *testing.T) {
					disk := buffertest.NewDisk(uint64(at))
					disk.Fault(func(n int, op buffertest.Op, _ string) error {
						if n < at || n-at >= f.ops {
							return nil
						}
						if errors.Is(f.err, io.ErrShortWrite) && op != buffertest.Write {
							return syscall.EIO
						}
						return f.err
					})
					w := newWorld(t, disk, 1, size.opt, "a", "b")
					w.workload()
					// What was handed to a consumer, or said to be durable, stays; and with the disk mended a
					// queue that is still open writes on.
					crashed := disk.Crash(buffertest.Chance, uint64(at))
					disk.Fault(nil)
					w.after(t, crashed).check()
				})
			}
		}
	}
}

func TestDiskMendsAndWritingResumes(t *testing.T) {
	n := operations(t, smallOptions())
	for _, f := range faults {
		for at := range n {
			disk := buffertest.NewDisk(uint64(at))
			w := newWorld(t, disk, 1, smallOptions(), "a", "b")
			if err := w.open(); err != nil {
				t.Fatal(err)
			}
			disk.Fault(func(n int, op buffertest.Op, _ string) error {
				if n < at || n-at >= f.ops {
					return nil
				}
				return f.err
			})
			a, b := w.users[0], w.users[1]
			total := 0
			for range 6 {
				if err := w.append(8); err != nil {
					t.Fatal(err)
				}
				total += 8
				// Live delivery goes on, whatever the disk does.
				if err := w.read(a, buffer.Live, 100); err != nil {
					t.Fatal(err)
				}
				if len(a.given) != total {
					t.Fatalf("%s at %d: %d of %d records delivered live", f.name, at, len(a.given), total)
				}
				w.ack(a, buffer.Live, 5)
				w.sync()
				w.q.Maintain()
				if !w.q.Durable() {
					_ = w.q.Retry()
				}
			}
			disk.Fault(nil)
			if !w.q.Durable() {
				if err := w.q.Retry(); err != nil {
					t.Fatalf("%s at %d: the disk is mended: %v", f.name, at, err)
				}
			}
			w.sync()
			if len(w.durable) != w.next {
				t.Fatalf("%s at %d: %d of %d records durable", f.name, at, len(w.durable), w.next)
			}
			if err := w.read(b, buffer.Live, 1000); err != nil || len(b.given) != w.next {
				t.Fatalf("%s at %d: %d of %d records read, %v", f.name, at, len(b.given), w.next, err)
			}
			w.after(t, disk.Crash(buffertest.Lost, 1)).check()
		}
	}
}

func TestDiskTakesCursorsButNoRecords(t *testing.T) {
	disk := buffertest.NewDisk(1)
	w := newWorld(t, disk, 1, smallOptions(), "a")
	if err := w.open(); err != nil {
		t.Fatal(err)
	}
	_ = w.append(10)
	w.sync()
	disk.Fault(func(_ int, _ buffertest.Op, name string) error {
		if name == "cursors" {
			return nil
		}
		return syscall.EIO
	})
	_ = w.append(10)
	a := w.users[0]
	_ = w.read(a, buffer.Live, 100)
	w.ack(a, buffer.Live, 100)
	var failed *buffer.DiskError
	if err := w.close(); !errors.As(err, &failed) {
		t.Fatalf("closed with %v, though records were in memory only", err)
	}
	disk.Fault(nil)
	// The cursor is ahead of what survived: it must not skip what comes now.
	w.after(t, disk.Clone()).check()
}

// TestRandomLives runs long lives with crashes, kills, failures and restarts in any order.
func TestRandomLives(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		opt := rapid.SampledFrom(sizes).Draw(rt, "size").opt
		opt.MaxBytes += int64(rapid.IntRange(0, 20).Draw(rt, "segments")) * 4096
		if rapid.Bool().Draw(rt, "refuse") {
			opt.Full = buffer.RefuseNewest
		}
		opt.Preallocate = rapid.Bool().Draw(rt, "preallocate")
		w := newWorld(rt, buffertest.NewDisk(1), 1, opt, "a", "b", "c")
		for range rapid.IntRange(1, 6).Draw(rt, "lives") {
			if err := w.open(); err != nil {
				rt.Fatal(err)
			}
			for range rapid.IntRange(0, 40).Draw(rt, "steps") {
				w.step(rt)
			}
			fate := buffertest.Fate(rapid.IntRange(0, 2).Draw(rt, "fate"))
			switch rapid.IntRange(0, 3).Draw(rt, "end") {
			case 0:
				w.disk.Fault(nil)
				// A queue that may not drop anything can be too full for what it took while the disk failed.
				if err := w.close(); err != nil && opt.Full == buffer.DropOldest {
					rt.Fatal(err)
				}
			case 1:
				w.disk.Fault(nil)
				w.disk.Kill()
			case 2:
				w = w.after(rt, w.disk.Crash(fate, rapid.Uint64().Draw(rt, "seed")))
			case 3: // the power goes a few operations into whatever comes
				w.disk.CutAt(w.disk.Ops() + rapid.IntRange(0, 12).Draw(rt, "ops"))
				for range 5 {
					w.step(rt)
				}
				w = w.after(rt, w.disk.Crash(fate, rapid.Uint64().Draw(rt, "seed")))
			}
			w.q = nil
		}
		w.check()
	})
}

// step does one thing. Errors are the disk's.
func (w *world) step(rt *rapid.T) {
	u := w.users[rapid.IntRange(0, len(w.users)-1).Draw(rt, "user")]
	lane := buffer.Lane(rapid.IntRange(0, 1).Draw(rt, "lane"))
	n := rapid.IntRange(1, 30).Draw(rt, "n")
	switch rapid.IntRange(0, 11).Draw(rt, "step") {
	case 0, 1, 2:
		_ = w.append(n)
	case 3:
		if w.opt.Full == buffer.DropOldest {
			_ = w.appendBatch(n)
		}
	case 4:
		w.sync()
	case 5:
		_ = w.read(u, lane, n)
	case 6:
		_ = w.read(u, lane, 10*n)
		w.ack(u, lane, 10*n)
	case 7:
		w.ack(u, lane, n)
	case 8:
		u.c.Defer()
	case 9:
		w.q.Maintain()
		w.q.PrepareSpares()
		w.q.Report()
	case 10:
		u.c.Rewind()
		u.flight = [2][]buffer.ID{}
	case 11:
		if n > 20 {
			at, ops := w.disk.Ops()+n-20, rapid.IntRange(1, 10).Draw(rt, "fails")
			w.disk.Fault(func(n int, _ buffertest.Op, _ string) error {
				if n < at || n >= at+ops {
					return nil
				}
				return syscall.EIO
			})
		} else if !w.q.Durable() {
			_ = w.q.Retry()
		}
	}
}
