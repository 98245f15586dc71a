package buffer_test

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"gateway/buffer"
	"gateway/buffer/buffertest"
)

// failing makes every operation of the given kinds on files whose name contains part fail.
func failing(part string, err error, ops ...buffertest.Op) func(int, buffertest.Op, string) error {
	return func(_ int, op buffertest.Op, name string) error {
		if slices.Contains(ops, op) && strings.Contains(name, part) {
			return err
		}
		return nil
	}
}

// small is a queue on a disk in memory with room for 16 segments of 4 KiB besides its other files.
func small(disk buffer.FS, more int64) buffer.Options {
	return buffer.Options{Dir: "q", FS: disk, SegmentBytes: 4096, MaxBytes: 33*4096 + 4096*(16+more), RAMBytes: 64 << 10, SyncWindow: 1e9}
}

func ackAll(t *testing.T, c *buffer.Consumer) (numbers []int) {
	t.Helper()
	ids, numbers := drain(t, c, buffer.Live)
	for _, id := range ids {
		c.Ack(id)
	}
	return numbers
}

// What was refused while the queue was full is taken again once consumers have caught up, also when
// the disk failed in between: a queue on its memory once gave nothing up, so it had no room to go back
// to the disk, for ever.
func TestARefusingQueueThatWasFullWhenItsDiskFailedWritesAgain(t *testing.T) {
	disk := buffertest.NewDisk(1)
	o := small(disk, 0)
	o.Full = buffer.RefuseNewest
	q := open(t, o)
	c := consumer(t, q, "a", buffer.Oldest())
	n := 0
	for ; ; n++ {
		if _, err := q.Append(payload(n), nil); errors.Is(err, buffer.ErrFull) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if n%10 == 0 {
			if err := q.Sync(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	disk.Fault(failing("", syscall.EIO, buffertest.Sync))
	if err := q.Sync(t.Context()); err == nil {
		t.Fatal("a sync that failed was not told of")
	}
	disk.Fault(nil)
	wantRun(t, ackAll(t, c), 0, n)
	if err := q.Retry(); err != nil {
		t.Fatal(err)
	}
	appendN(t, q, n, 20)
	wantRun(t, ackAll(t, c), n, 20)
	closeQueue(t, q)
}

// A sync that failed proves nothing for the records that memory had let go of by then.
func TestNothingIsCalledDurableThatASyncFailedForAndMemoryLetGo(t *testing.T) {
	disk := buffertest.NewDisk(1)
	o := small(disk, 0)
	o.RAMBytes = 4096
	q := open(t, o)
	appendN(t, q, 0, 60) // 9 KB, and none synced
	disk.Fault(failing("", syscall.EIO, buffertest.Sync))
	if err := q.Sync(t.Context()); err == nil {
		t.Fatal("a sync that failed was not told of")
	}
	disk.Fault(nil)
	if err := q.Retry(); err != nil {
		t.Fatal(err)
	}
	var failed *buffer.DiskError
	if err := q.WaitDurable(t.Context(), 1); !errors.As(err, &failed) {
		t.Errorf("the first record is called durable: %v", err)
	}
	if err := q.WaitDurable(t.Context(), 60); err != nil {
		t.Errorf("the last record was written anew: %v", err)
	}
	// Whatever is called durable survives.
	after := open(t, small(disk.Crash(buffertest.Lost, 1), 0))
	have := map[uint64]bool{}
	if err := after.Records(buffer.ID{}, func(r buffer.Record) error { have[r.ID.Seq] = true; return nil }); err != nil {
		t.Fatal(err)
	}
	for seq := uint64(1); seq <= 60; seq++ {
		if q.WaitDurable(t.Context(), seq) == nil && !have[seq] {
			t.Errorf("record %d was called durable and is gone", seq)
		}
	}
	closeQueue(t, after)
}

// One page that cannot be written must not cost the queue its disk: the cursors move elsewhere, and
// until they have, records are written and no segment is given up.
func TestCursorsThatCannotBeWrittenMoveToAnotherFile(t *testing.T) {
	disk := buffertest.NewDisk(1)
	q := open(t, small(disk, 0))
	consumer(t, q, "a", buffer.Oldest())
	bad := func(_ int, op buffertest.Op, name string) error {
		if op == buffertest.Write && name == "cursors" {
			return syscall.EIO
		}
		return nil
	}
	q.Maintain()
	closeQueue(t, q)
	disk.Fault(bad) // the file's pages, but no others
	q, err := buffer.Open(small(disk, 0))
	if err != nil {
		t.Fatal(err)
	}
	if q.Durable() {
		t.Error("records may not be written before the cursors that Open made of what it found")
	}
	if err := q.Retry(); err != nil {
		t.Fatalf("the cursors did not move: %v", err)
	}
	c := consumer(t, q, "a", buffer.Oldest())
	appendN(t, q, 0, 100)
	wantRun(t, ackAll(t, c), 0, 100)
	q.Maintain()
	if !q.Durable() {
		t.Error("the queue is not on its disk")
	}
	closeQueue(t, q)
	q = open(t, small(disk.Crash(buffertest.Lost, 1), 0))
	c = consumer(t, q, "a", buffer.Oldest())
	wantRun(t, ackAll(t, c), 0, 0)
	closeQueue(t, q)
}

func TestNoSegmentIsGivenUpBeforeTheCursorsAreWritten(t *testing.T) {
	disk := buffertest.NewDisk(1)
	q := open(t, small(disk, 0))
	c := consumer(t, q, "a", buffer.Oldest())
	disk.Fault(failing("cursors", syscall.EIO, buffertest.Write, buffertest.Create))
	appendN(t, q, 0, 100) // four segments
	wantRun(t, ackAll(t, c), 0, 100)
	before := q.Stats().Segments
	q.Maintain()
	if st := q.Stats(); !q.Durable() || st.Segments != before {
		t.Errorf("%d of %d segments are left, durable %t", st.Segments, before, q.Durable())
	}
	appendN(t, q, 100, 10)
	disk.Fault(nil)
	q.Maintain()
	if st := q.Stats(); st.Segments != 1 {
		t.Errorf("%d segments are left", st.Segments)
	}
	closeQueue(t, q)
}

// A disk that is full now and then fills the bound with records, not with segments that a failure
// ended early.
func TestFailuresDoNotEatTheBound(t *testing.T) {
	disk := buffertest.NewDisk(1)
	o := small(disk, 0)
	o.SegmentBytes, o.MaxBytes = 64<<10, 33*4096+16*64<<10
	q := open(t, o)
	consumer(t, q, "absent", buffer.Oldest())
	n := 0
	for range 40 { // with a whole segment each, three times the bound
		appendN(t, q, n, 2)
		if err := q.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
		disk.Fault(failing("", syscall.ENOSPC, buffertest.Sync))
		appendN(t, q, n+2, 1)
		_ = q.Sync(t.Context())
		disk.Fault(nil)
		if err := q.Retry(); err != nil {
			t.Fatal(err)
		}
		n += 3
	}
	if lost := q.Stats().Consumers[0].Lost; lost > 0 {
		t.Errorf("%d of %d records were dropped", lost, n)
	}
	closeQueue(t, q)
}

// rolling is an FS that calls roll when a file is renamed, the moment in which a spare is a segment and
// neither counted as one nor as the other.
type rolling struct {
	*buffertest.Disk
	roll func()
}

func (r *rolling) Rename(from, to string) error {
	if r.roll != nil {
		r.roll()
	}
	return r.Disk.Rename(from, to)
}

func TestTheBoundHoldsWhileSparesAreMadeDuringARoll(t *testing.T) {
	disk := &rolling{Disk: buffertest.NewDisk(1)}
	o := small(disk, 0)
	q := open(t, o)
	defer closeQueue(t, q)
	var once sync.Mutex
	disk.roll = func() {
		if once.TryLock() { // not for the renames of what it does itself
			defer once.Unlock()
			q.PrepareSpares()
			var total int64
			for _, size := range disk.Files("q") {
				total += (size + 4095) &^ 4095
			}
			if total > o.MaxBytes {
				t.Errorf("%d bytes with a bound of %d", total, o.MaxBytes)
			}
		}
	}
	appendN(t, q, 0, 1000)
}

func TestALoweredBoundHoldsForTheQuarantineToo(t *testing.T) {
	disk := buffertest.NewDisk(1)
	o := small(disk, 0)
	o.SegmentBytes, o.MaxBytes = 64<<10, 4<<20
	q := open(t, o)
	appendN(t, q, 0, 2000)
	closeQueue(t, q)
	for name := range disk.Files("q") {
		if strings.HasSuffix(name, ".seg") {
			disk.Flip(filepath.Join("q", name), 800*8)
		}
	}
	q = open(t, o)
	drain(t, consumer(t, q, "a", buffer.Oldest()), buffer.Live)
	closeQueue(t, q)
	o = small(disk, 0)
	q = open(t, o)
	closeQueue(t, q)
	var total int64
	for _, size := range disk.Files("q") {
		total += (size + 4095) &^ 4095
	}
	if total > o.MaxBytes {
		t.Errorf("%d bytes with a bound of %d: %v", total, o.MaxBytes, disk.Files("q"))
	}
}

// Many openings with a record each take a page each, not less.
func TestTheBoundCountsWholePages(t *testing.T) {
	disk := buffertest.NewDisk(1)
	o := small(disk, 0)
	for i := range 60 {
		q := open(t, o)
		consumer(t, q, "absent", buffer.Oldest())
		appendN(t, q, i, 1)
		closeQueue(t, q)
	}
	var total int64
	for _, size := range disk.Files("q") {
		total += (size + 4095) &^ 4095
	}
	if total > o.MaxBytes {
		t.Errorf("%d bytes with a bound of %d", total, o.MaxBytes)
	}
}

func TestAPreallocatedQueueKeepsItsSpaceOverARestart(t *testing.T) {
	disk := buffertest.NewDisk(1)
	o := small(disk, 0)
	o.Preallocate = true
	q := open(t, o)
	q.PrepareSpares()
	size := func() (total int64) {
		for _, n := range disk.Files("q") {
			total += n
		}
		return total
	}
	before := size()
	for i := range 10 {
		appendN(t, q, i, 1)
		closeQueue(t, q)
		q = open(t, o)
	}
	if got := size(); got < before {
		t.Errorf("%d bytes of %d are left to the queue", got, before)
	}
	closeQueue(t, q)
}

func TestMemoryIsBoundedForEmptyRecordsToo(t *testing.T) {
	disk := buffertest.NewDisk(1)
	o := small(disk, 0)
	q := open(t, o)
	disk.Fault(failing("", syscall.EIO, buffertest.Write))
	for range 100_000 {
		if _, err := q.Append(nil, nil); err != nil {
			t.Fatal(err)
		}
	}
	if n := q.Stats().Memory; n > o.RAMBytes/16 {
		t.Errorf("memory holds %d records in %d bytes", n, o.RAMBytes)
	}
	disk.Fault(nil)
	closeQueue(t, q)
}

func TestARefusingQueueOnItsMemoryDropsNothing(t *testing.T) {
	disk := buffertest.NewDisk(1)
	o := small(disk, 0)
	o.Full, o.RAMBytes = buffer.RefuseNewest, 4096
	o.OnLoss = func(l buffer.Loss) { t.Errorf("lost: %+v", l) }
	q := open(t, o)
	c := consumer(t, q, "a", buffer.Oldest())
	disk.Fault(failing("", syscall.EIO, buffertest.Write))
	taken := 0
	for i := range 200 {
		batch := []buffer.Entry{{Data: payload(taken)}, {Data: payload(taken + 1)}}
		switch _, err := q.AppendBatch(batch); {
		case err == nil:
			taken += 2
		case !errors.Is(err, buffer.ErrFull):
			t.Fatal(i, err)
		}
	}
	wantRun(t, ackAll(t, c), 0, taken)
	disk.Fault(nil)
	if err := q.Retry(); err != nil {
		t.Fatal(err)
	}
	closeQueue(t, q)
}

// A disk that stays full costs a report a second, not one a record.
func TestLossesWhileTheDiskFailsAreReportedTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := buffertest.NewDisk(1)
		o := small(disk, 0)
		o.RAMBytes = 4096
		reports, lost := 0, int64(0)
		o.OnLoss = func(l buffer.Loss) {
			reports++
			lost += l.Count
		}
		q := open(t, o)
		consumer(t, q, "absent", buffer.Oldest())
		ctx, stop := context.WithCancel(t.Context())
		ran := make(chan error, 1)
		go func() { ran <- q.Run(ctx) }()
		disk.Fault(failing("", syscall.ENOSPC, buffertest.Write))
		for i := range 1000 {
			appendN(t, q, i, 1)
			time.Sleep(10 * time.Millisecond)
		}
		disk.Fault(nil)
		time.Sleep(10 * time.Second)
		stop()
		<-ran
		if st := q.Stats(); lost == 0 || lost != st.Consumers[0].Lost || !q.Durable() {
			t.Errorf("%d records are reported lost of %d", lost, st.Consumers[0].Lost)
		}
		if reports > 15 {
			t.Errorf("%d reports in ten seconds", reports)
		}
		closeQueue(t, q)
	})
}

func TestAQueueHasRoomForTheCursorsOfAllItsConsumers(t *testing.T) {
	disk := buffertest.NewDisk(1)
	q := open(t, small(disk, 0))
	name := func(i int) string { return strings.Repeat(string(rune('0'+i%10)), 190) + string(rune('a'+i/10)) }
	for i := range 100 {
		consumer(t, q, name(i), buffer.Oldest())
	}
	if _, err := q.Consumer("one too many", buffer.Oldest()); err == nil {
		t.Error("a consumer was made whose cursor cannot be kept")
	}
	appendN(t, q, 0, 1000)
	for i := range 100 {
		ids, _ := drain(t, consumer(t, q, name(i), buffer.Oldest()), buffer.Live)
		for k := 0; k < len(ids); k += 2 {
			consumer(t, q, name(i), buffer.Oldest()).Ack(ids[k])
		}
	}
	q.Maintain()
	if !q.Durable() {
		t.Error(q.Stats().Failing)
	}
	closeQueue(t, q)
	q = open(t, small(disk, 0))
	if got := len(q.Stats().Consumers); got != 100 {
		t.Errorf("%d consumers are known after a restart", got)
	}
	closeQueue(t, q)
}
