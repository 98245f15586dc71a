package buffer_test

import (
	"fmt"
	"testing"

	"gateway/buffer"
)

// BenchmarkAppend hands records of 100 bytes to the kernel, in batches; nothing is synced. An
// operation is one record.
func BenchmarkAppend(b *testing.B) {
	for _, n := range []int{1, 16, 256} {
		b.Run(fmt.Sprint("batch", n), func(b *testing.B) {
			q, err := buffer.Open(buffer.Options{Dir: b.TempDir(), MaxBytes: 256 << 20, SyncWindow: 1 << 60, SyncBytes: 1 << 30})
			if err != nil {
				b.Fatal(err)
			}
			defer q.Close()
			dict := &buffer.Dict{Hash: 1, Data: make([]byte, 300)}
			entries := make([]buffer.Entry, n)
			for i := range entries {
				entries[i] = buffer.Entry{Data: make([]byte, 100), Dict: dict}
			}
			b.ReportAllocs()
			b.SetBytes(100)
			for i := 0; i < b.N; i += n {
				if n == 1 {
					_, err = q.Append(entries[0].Data, dict)
				} else {
					_, err = q.AppendBatch(entries)
				}
				if err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkNext reads records of 100 bytes from disk, each frame checked.
func BenchmarkNext(b *testing.B) {
	q, err := buffer.Open(buffer.Options{Dir: b.TempDir(), MaxBytes: 1 << 30, SyncWindow: 1 << 60, SyncBytes: 1 << 30})
	if err != nil {
		b.Fatal(err)
	}
	defer q.Close()
	entries := make([]buffer.Entry, 100)
	for i := range entries {
		entries[i].Data = make([]byte, 100)
	}
	for range 2000 {
		if _, err := q.AppendBatch(entries); err != nil {
			b.Fatal(err)
		}
	}
	if err := q.Sync(b.Context()); err != nil {
		b.Fatal(err)
	}
	c, err := q.Consumer("a", buffer.Oldest())
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.SetBytes(100)
	b.ResetTimer()
	for i := range b.N {
		if i%200_000 == 0 && i > 0 {
			c.Rewind()
		}
		if _, ok, err := c.TryNext(buffer.Live); err != nil || !ok {
			b.Fatal(i, ok, err)
		}
	}
}

// BenchmarkTail is what a record costs on its way through: appended, read by one consumer, acked.
func BenchmarkTail(b *testing.B) {
	q, err := buffer.Open(buffer.Options{Dir: b.TempDir(), MaxBytes: 256 << 20, SyncWindow: 1 << 60, SyncBytes: 1 << 30})
	if err != nil {
		b.Fatal(err)
	}
	defer q.Close()
	c, err := q.Consumer("a", buffer.Newest())
	if err != nil {
		b.Fatal(err)
	}
	data := make([]byte, 100)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := q.Append(data, nil); err != nil {
			b.Fatal(err)
		}
		r, ok, err := c.TryNext(buffer.Live)
		if err != nil || !ok {
			b.Fatal(ok, err)
		}
		c.Ack(r.ID)
	}
}
