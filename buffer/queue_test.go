package buffer_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"gateway/buffer"
	"gateway/buffer/buffertest"
)

func open(t testing.TB, o buffer.Options) *buffer.Queue {
	t.Helper()
	if o.SyncWindow == 0 {
		o.SyncWindow = 1e9
	}
	if o.MaxBytes == 0 {
		o.MaxBytes = 16 << 20
	}
	q, err := buffer.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	return q
}

func closeQueue(t testing.TB, q *buffer.Queue) {
	t.Helper()
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
}

func consumer(t testing.TB, q *buffer.Queue, name string, s buffer.Start) *buffer.Consumer {
	t.Helper()
	c, err := q.Consumer(name, s)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func appendN(t testing.TB, q *buffer.Queue, from, n int) (ids []buffer.ID) {
	t.Helper()
	for i := range n {
		id, err := q.Append(payload(from+i), nil)
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	return ids
}

// payload makes a record of 100 to 199 bytes that tells its number.
func payload(n int) []byte {
	b := make([]byte, 100+n%100)
	binary.LittleEndian.PutUint64(b, uint64(n))
	for i := 8; i < len(b); i++ {
		b[i] = byte(n + i)
	}
	return b
}

func number(t testing.TB, data []byte) int {
	t.Helper()
	n := int(binary.LittleEndian.Uint64(data))
	if string(data) != string(payload(n)) {
		t.Fatalf("record %d is not what was appended", n)
	}
	return n
}

// drain reads all that the lane has.
func drain(t testing.TB, c *buffer.Consumer, lane buffer.Lane) (ids []buffer.ID, numbers []int) {
	t.Helper()
	for {
		r, ok, err := c.TryNext(lane)
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			return ids, numbers
		}
		ids = append(ids, r.ID)
		numbers = append(numbers, number(t, r.Data))
	}
}

func wantRun(t testing.TB, got []int, from, n int) {
	t.Helper()
	if len(got) != n {
		t.Fatalf("%d records, want %d", len(got), n)
	}
	for i, v := range got {
		if v != from+i {
			t.Fatalf("record %d is number %d, want %d", i, v, from+i)
		}
	}
}

func TestWhatIsAppendedIsReadInOrder(t *testing.T) {
	q := open(t, buffer.Options{Dir: t.TempDir()})
	c := consumer(t, q, "a", buffer.Oldest())
	ids := appendN(t, q, 0, 1000)
	got, numbers := drain(t, c, buffer.Live)
	wantRun(t, numbers, 0, 1000)
	for i := range ids {
		if got[i] != ids[i] {
			t.Fatalf("record %d has the name %v, Append said %v", i, got[i], ids[i])
		}
	}
	closeQueue(t, q)
}

func TestReopenedQueueGoesOnWhereItWas(t *testing.T) {
	dir := t.TempDir()
	n := 0
	epochs := map[uint64]bool{}
	for range 5 {
		q := open(t, buffer.Options{Dir: dir, SegmentBytes: 64 << 10})
		epochs[q.Epoch()] = true
		c := consumer(t, q, "a", buffer.Oldest())
		appendN(t, q, n, 1000)
		ids, numbers := drain(t, c, buffer.Live)
		left := min(n, 500) // what was not acked before
		wantRun(t, numbers, n-left, 1000+left)
		n += 1000
		for _, id := range ids[:len(ids)-500] {
			c.Ack(id)
		}
		closeQueue(t, q)
	}
	if len(epochs) != 5 {
		t.Errorf("%d epochs in 5 openings", len(epochs))
	}
}

func TestDictIsGivenWithEachRecord(t *testing.T) {
	dir := t.TempDir()
	q := open(t, buffer.Options{Dir: dir, SegmentBytes: 64 << 10})
	for i := range 2000 {
		var d *buffer.Dict
		if k := i % 4; k > 0 {
			d = &buffer.Dict{Hash: uint64(k), Data: []byte(fmt.Sprint("schema ", k))}
		}
		if _, err := q.Append(payload(i), d); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		i := 0
		err := q.Records(buffer.ID{}, func(r buffer.Record) error {
			want := ""
			if k := i % 4; k > 0 {
				want = fmt.Sprint("schema ", k)
			}
			if string(r.Dict) != want || number(t, r.Data) != i {
				return fmt.Errorf("record %d has the dict %q", i, r.Dict)
			}
			i++
			return nil
		})
		if err != nil || i != 2000 {
			t.Fatal(i, err)
		}
		closeQueue(t, q)
		q = open(t, buffer.Options{Dir: dir, SegmentBytes: 64 << 10})
	}
	closeQueue(t, q)
}

func TestDeferredRecordsAreTheBackfillLanes(t *testing.T) {
	dir := t.TempDir()
	q := open(t, buffer.Options{Dir: dir})
	c := consumer(t, q, "a", buffer.Oldest())
	appendN(t, q, 0, 10)
	var inFlight buffer.ID
	for range 3 {
		r, _, err := c.TryNext(buffer.Live)
		if err != nil {
			t.Fatal(err)
		}
		inFlight = r.ID
	}
	c.Defer()
	appendN(t, q, 10, 5)
	_, live := drain(t, c, buffer.Live)
	wantRun(t, live, 10, 5)
	ids, back := drain(t, c, buffer.Backfill)
	wantRun(t, back, 3, 7)
	if l, b := c.Depth(); l != 8 || b != 7 {
		t.Errorf("depth %d and %d, want 8 and 7", l, b)
	}
	c.Ack(inFlight)
	c.Ack(ids[0])
	c.Ack(ids[3])
	closeQueue(t, q)

	q = open(t, buffer.Options{Dir: dir})
	c = consumer(t, q, "a", buffer.Newest())
	_, live = drain(t, c, buffer.Live)
	if want := "[0 1 10 11 12 13 14]"; fmt.Sprint(live) != want {
		t.Errorf("live after the restart %v, want %s", live, want)
	}
	_, back = drain(t, c, buffer.Backfill)
	if want := "[4 5 7 8 9]"; fmt.Sprint(back) != want {
		t.Errorf("backfill after the restart %v, want %s", back, want)
	}
	c.Rewind()
	_, live = drain(t, c, buffer.Live)
	_, back = drain(t, c, buffer.Backfill)
	if len(live) != 7 || len(back) != 5 {
		t.Errorf("after Rewind %d and %d records, want 7 and 5", len(live), len(back))
	}
	closeQueue(t, q)
}

func TestOldestAreDroppedAtTheBoundAndTheRangeTold(t *testing.T) {
	var losses []buffer.Loss
	q := open(t, buffer.Options{Dir: t.TempDir(), MaxBytes: 1 << 20, SegmentBytes: 64 << 10, OnLoss: func(l buffer.Loss) { losses = append(losses, l) }})
	slow := consumer(t, q, "slow", buffer.Oldest())
	fast := consumer(t, q, "fast", buffer.Oldest())
	for i := range 10000 {
		appendN(t, q, i, 1)
		ids, _ := drain(t, fast, buffer.Live)
		for _, id := range ids {
			fast.Ack(id)
		}
	}
	if st := q.Stats(); st.Bytes > 1<<20 {
		t.Errorf("%d bytes", st.Bytes)
	}
	ids, _ := drain(t, slow, buffer.Live)
	closeQueue(t, q)
	var lost int64
	for _, l := range losses {
		if l.Consumer != "slow" || l.Reason != buffer.LostDropped || l.Count != int64(l.Last.Seq-l.First.Seq)+1 {
			t.Errorf("unexpected loss %+v", l)
		}
		lost += l.Count
	}
	if lost == 0 || lost+int64(len(ids)) != 10000 {
		t.Errorf("%d lost and %d read of 10000", lost, len(ids))
	}
}

// What is in flight has been copied: the queue gives it up, and it arrives all the same.
func TestARecordThatWasDroppedInFlightAndIsAckedIsNoLoss(t *testing.T) {
	lost, late := map[string]int64{}, map[string]int64{}
	q := open(t, buffer.Options{Dir: t.TempDir(), MaxBytes: 1 << 20, SegmentBytes: 64 << 10,
		OnLoss: func(l buffer.Loss) { lost[l.Consumer+" "+string(l.Reason)] += l.Count },
		OnLate: func(consumer string, why buffer.LossReason, n int64) { late[consumer+" "+string(why)] += n }})
	c := consumer(t, q, "slow", buffer.Oldest())
	appendN(t, q, 0, 10)
	back, _ := drain(t, c, buffer.Live)
	c.Ack(back[9])
	appendN(t, q, 10, 10)
	c.Defer()
	deferred, _ := drain(t, c, buffer.Backfill)
	appendN(t, q, 20, 10_000)
	q.Report()
	all := lost["slow queue full"]
	if all < 1000 || len(late) > 0 {
		t.Fatalf("lost %v, late %v", lost, late)
	}
	for range 2 { // the second time says nothing new
		c.AckAll(buffer.Tally{}, back[2:]...)
		c.AckAll(buffer.Tally{}, deferred[:4]...)
		q.Report()
		if late["slow queue full"] != 7+4 || lost["slow queue full"] != all {
			t.Errorf("lost %v, late %v", lost, late)
		}
		if n := q.Stats().Consumers[0].Lost; n != all-11 {
			t.Errorf("%d of %d lost in the end", n, all)
		}
	}
	closeQueue(t, q)
}

func TestNewestAreRefusedAtTheBound(t *testing.T) {
	q := open(t, buffer.Options{Dir: t.TempDir(), MaxBytes: 1 << 20, SegmentBytes: 64 << 10, Full: buffer.RefuseNewest})
	c := consumer(t, q, "a", buffer.Oldest())
	n := 0
	for {
		if _, err := q.Append(payload(n), nil); errors.Is(err, buffer.ErrFull) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		n++
	}
	ids, numbers := drain(t, c, buffer.Live)
	wantRun(t, numbers, 0, n)
	if !q.Durable() {
		t.Error("a full queue is no failing disk")
	}
	for _, id := range ids {
		c.Ack(id)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := q.Run(ctx); err != nil { // its last round releases what was acked
		t.Fatal(err)
	}
	appendN(t, q, n, 100)
	closeQueue(t, q)
}

func TestOneProcessAtATime(t *testing.T) {
	dir := t.TempDir()
	q := open(t, buffer.Options{Dir: dir})
	_, err := buffer.Open(buffer.Options{Dir: dir})
	var locked *buffer.ErrLocked
	if !errors.As(err, &locked) || locked.Pid != os.Getpid() {
		t.Errorf("opened twice: %v", err)
	}
	if want := fmt.Sprintf("buffer: %s is held by process %d: stop it first", filepath.Join(dir, "lock"), os.Getpid()); err.Error() != want {
		t.Errorf("the message is %q, want %q", err, want)
	}
	closeQueue(t, q)
}

func TestRecordsGrowOldInRunningTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var losses []buffer.Loss
		disk := buffertest.NewDisk(1)
		o := buffer.Options{Dir: "/q", FS: disk, MaxAge: time.Hour, OnLoss: func(l buffer.Loss) { losses = append(losses, l) }}
		q := open(t, o)
		ctx, stop := context.WithCancel(t.Context())
		ran := make(chan error, 1)
		go func() { ran <- q.Run(ctx) }()
		consumer(t, q, "a", buffer.Oldest())
		appendN(t, q, 0, 10)
		time.Sleep(50 * time.Minute)
		appendN(t, q, 10, 10)
		stop()
		<-ran
		closeQueue(t, q)
		if len(losses) > 0 {
			t.Fatalf("lost after 50 minutes: %+v", losses)
		}

		// A week without power is no running time.
		time.Sleep(7 * 24 * time.Hour)
		q = open(t, o)
		ctx, stop = context.WithCancel(t.Context())
		go func() { ran <- q.Run(ctx) }()
		c := consumer(t, q, "a", buffer.Oldest())
		time.Sleep(20 * time.Minute)
		_, got := drain(t, c, buffer.Live)
		wantRun(t, got, 10, 10)
		// In how many ranges depends on how the appends fell into segments' marks.
		var lost int64
		for _, l := range losses {
			if lost += l.Count; l.Reason != buffer.LostAged {
				t.Errorf("loss %+v", l)
			}
		}
		if lost != 10 {
			t.Errorf("%d lost: %+v", lost, losses)
		}
		stop()
		<-ran
		closeQueue(t, q)
	})
}

func TestPreallocatedQueueNeedsNoMoreSpace(t *testing.T) {
	disk := buffertest.NewDisk(1)
	q := open(t, buffer.Options{Dir: "/q", FS: disk, MaxBytes: 1 << 20, SegmentBytes: 64 << 10, Preallocate: true})
	q.PrepareSpares()
	// From here on the disk is full for everybody: no file can be made or grow.
	disk.Fault(func(_ int, op buffertest.Op, _ string) error {
		if op == buffertest.Create {
			return syscall.ENOSPC
		}
		return nil
	})
	for i := range 20000 { // three times the bound
		appendN(t, q, i, 1)
		if i%500 == 0 {
			q.PrepareSpares()
		}
	}
	if !q.Durable() {
		t.Error("a disk filled by others stopped a preallocated queue")
	}
	closeQueue(t, q)
}
