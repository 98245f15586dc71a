package buffer_test

import (
	"testing"

	"gateway/buffer"
	"gateway/buffer/buffertest"
)

// A cursor of an epoch that left no segment says nothing about the records that are there: a
// consumer gets them all once more, rather than missing those whose sequences it happens to cover.
func TestACursorOfAnUnknownEpochSkipsNothing(t *testing.T) {
	live := func(n int, ack bool) *buffertest.Disk {
		disk := buffertest.NewDisk(1)
		q := open(t, buffer.Options{Dir: "q", FS: disk})
		c := consumer(t, q, "a", buffer.Oldest())
		appendN(t, q, 0, n)
		ids, _ := drain(t, c, buffer.Live)
		if ack {
			for _, id := range ids {
				c.Ack(id)
			}
		}
		closeQueue(t, q)
		return disk
	}
	other, disk := live(10, true), live(20, false)
	disk.Put("q/cursors", other.Contents("q/cursors"))
	q := open(t, buffer.Options{Dir: "q", FS: disk})
	defer closeQueue(t, q)
	_, got := drain(t, consumer(t, q, "a", buffer.Newest()), buffer.Live)
	wantRun(t, got, 0, 20)
}

// A backup may bring back segments that are older than the cursors. What is appended then has sequences
// that a cursor had passed, in an epoch of its own: none is skipped.
func TestACursorBeyondARestoredTailSkipsNothingNew(t *testing.T) {
	disk := buffertest.NewDisk(1)
	q := open(t, buffer.Options{Dir: "q", FS: disk})
	c := consumer(t, q, "a", buffer.Oldest())
	appendN(t, q, 0, 10)
	backup := disk.Contents("q/0000000000000001.seg")
	appendN(t, q, 10, 10)
	ids, _ := drain(t, c, buffer.Live)
	for _, id := range ids {
		c.Ack(id)
	}
	closeQueue(t, q)
	q = open(t, buffer.Options{Dir: "q", FS: disk})
	appendN(t, q, 20, 10)
	closeQueue(t, q)

	restored := buffertest.NewDisk(2)
	restored.Put("q/0000000000000001.seg", backup)
	restored.Put("q/cursors", disk.Contents("q/cursors"))
	q = open(t, buffer.Options{Dir: "q", FS: restored})
	defer closeQueue(t, q)
	appendN(t, q, 100, 20)
	_, got := drain(t, consumer(t, q, "a", buffer.Oldest()), buffer.Live)
	wantRun(t, got, 100, 20)
}
