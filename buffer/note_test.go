package buffer_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"gateway/buffer"
	"gateway/buffer/buffertest"
)

// acked is a queue of 200 records in several segments, all of them acked and none of it synced but the records.
func acked(t *testing.T, disk *buffertest.Disk) *buffer.Queue {
	t.Helper()
	q := open(t, small(disk, 0))
	c := consumer(t, q, "a", buffer.Oldest())
	appendN(t, q, 0, 200)
	q.Maintain()
	ids, _ := drain(t, c, buffer.Live)
	c.AckAll(buffer.Tally{uint64(len(ids)), 7}, ids...)
	return q
}

// found returns how many records a consumer is given after a crash, and its tally.
func found(t *testing.T, disk *buffertest.Disk) (int, buffer.Tally) {
	t.Helper()
	o := small(disk, 0)
	o.OnLoss = func(l buffer.Loss) { t.Errorf("lost: %+v", l) }
	q := open(t, o)
	c := consumer(t, q, "a", buffer.Oldest())
	_, numbers := drain(t, c, buffer.Live)
	q.Report()
	tally := c.Tally()
	closeQueue(t, q)
	return len(numbers), tally
}

func TestANoteOutlivesACrashOfTheProcess(t *testing.T) {
	disk := buffertest.NewDisk(1)
	acked(t, disk).Note()
	disk.Kill()
	if n, tally := found(t, disk); n != 0 || tally != (buffer.Tally{200, 7}) {
		t.Errorf("%d records are given again, the tally is %v", n, tally)
	}
}

func TestWithoutANoteACrashSetsCursorAndTallyBackTogether(t *testing.T) {
	disk := buffertest.NewDisk(1)
	acked(t, disk)
	disk.Kill()
	if n, tally := found(t, disk); n != 200 || tally != (buffer.Tally{}) {
		t.Errorf("%d records are given again, the tally is %v", n, tally)
	}
}

func TestAPowerCutTakesANoteBackAndWhatWasSyncedCounts(t *testing.T) {
	disk := buffertest.NewDisk(1)
	acked(t, disk).Note()
	if n, tally := found(t, disk.Crash(buffertest.Lost, 1)); n != 200 || tally != (buffer.Tally{}) {
		t.Errorf("%d records are given again, the tally is %v", n, tally)
	}
}

func TestNoSegmentIsGivenUpForANote(t *testing.T) {
	disk := buffertest.NewDisk(1)
	q := acked(t, disk)
	q.Note()
	q.Maintain() // gives up all segments but one
	if n, tally := found(t, disk.Crash(buffertest.Lost, 1)); n != 0 || tally != (buffer.Tally{200, 7}) {
		t.Errorf("%d records are given again, the tally is %v", n, tally)
	}
}

func TestCursorsThatMovedAreNotedSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := buffertest.NewDisk(1)
		q := open(t, small(disk, 0))
		c := consumer(t, q, "a", buffer.Oldest())
		ctx, stop := context.WithCancel(t.Context())
		ran := make(chan error, 1)
		go func() { ran <- q.Run(ctx) }()
		time.Sleep(6 * time.Second) // what opening and the new consumer changed is synced
		appendN(t, q, 0, 20)
		ids, _ := drain(t, c, buffer.Live)
		c.AckAll(buffer.Tally{20}, ids...)
		time.Sleep(100 * time.Millisecond)
		synctest.Wait()
		before := disk.Ops()
		time.Sleep(300 * time.Millisecond)
		synctest.Wait()
		if n := disk.Ops() - before; n > 0 {
			t.Errorf("%d operations while nothing moves", n)
		}
		crashed := disk.Clone()
		stop()
		<-ran
		if n, tally := found(t, crashed); n != 0 || tally != (buffer.Tally{20}) {
			t.Errorf("%d records are given again, the tally is %v", n, tally)
		}
	})
}
