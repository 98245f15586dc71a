package buffer_test

import (
	"testing"
	"time"

	"gateway/buffer"
)

// The marks by which a reader finds its way into the open segment once named the segment's first
// sequence for every place: whoever began to read from the disk found the beginning "damaged".
func TestABacklogInTheOpenSegmentIsReadFromItsBeginning(t *testing.T) {
	q, err := buffer.Open(buffer.Options{
		Dir: t.TempDir(), MaxBytes: 64 << 20, SyncWindow: time.Hour,
		OnLoss: func(l buffer.Loss) { t.Errorf("lost: %+v", l) },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	c, err := q.Consumer("c", buffer.Oldest())
	if err != nil {
		t.Fatal(err)
	}
	const n = 20_000 // far more than memory keeps
	data := make([]byte, 75)
	for i := range n {
		data[0] = byte(i)
		if _, err := q.Append(data, &buffer.Dict{Hash: 5, Data: []byte("schema")}); err != nil {
			t.Fatal(err)
		}
	}
	c.Defer()
	for i := range n {
		r, ok, err := c.TryNext(buffer.Backfill)
		if err != nil || !ok {
			t.Fatalf("record %d: %t, %v; %+v", i+1, ok, err, q.Stats())
		}
		if r.ID.Seq != uint64(i+1) || r.Data[0] != byte(i) || string(r.Dict) != "schema" {
			t.Fatalf("record %d is %d", i+1, r.ID.Seq)
		}
	}
}
