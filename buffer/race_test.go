package buffer_test

import (
	"context"
	"sync"
	"testing"

	"gateway/buffer"
	"gateway/buffer/buffertest"
)

// A segment that grew, and was succeeded by the next, while a sync of it ran was once taken for
// synced as a whole: the power-cut job found it.
func TestSegmentThatGrowsDuringItsSyncIsSyncedAgain(t *testing.T) {
	disk := buffertest.NewDisk(1)
	opt := smallOptions()
	opt.MaxBytes += 40 * 4096
	w := newWorld(t, disk, 1, opt, "a")
	if err := w.open(); err != nil {
		t.Fatal(err)
	}
	_ = w.append(1)
	var once sync.Once
	disk.DuringSync(func() {
		once.Do(func() { _ = w.append(60) }) // several segments' worth
	})
	w.sync()
	disk.DuringSync(nil)
	w.sync()
	w.after(t, disk.Crash(buffertest.Lost, 1)).check()
}

func TestAppendersConsumersAndRunTogether(t *testing.T) {
	disk := buffertest.NewDisk(1)
	opt := smallOptions()
	opt.Dir, opt.FS, opt.SyncWindow = worldDir, disk, 1
	opt.MaxBytes += 200 * 4096
	q, err := buffer.Open(opt)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- q.Run(ctx) }()
	const appenders, each = 4, 100
	var wg sync.WaitGroup
	for a := range appenders {
		wg.Go(func() {
			for i := range each {
				var err error
				if i%10 == 0 {
					_, err = q.AppendSync(ctx, payload(a*each+i), nil)
				} else {
					_, err = q.Append(payload(a*each+i), &buffer.Dict{Hash: uint64(a), Data: []byte("dict")})
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	for _, name := range []string{"a", "b"} {
		c := consumer(t, q, name, buffer.Oldest())
		wg.Go(func() {
			last := uint64(0)
			for range appenders * each {
				r, err := c.Next(ctx, buffer.Live)
				if err != nil {
					t.Error(err)
					return
				}
				if r.ID.Seq != last+1 {
					t.Errorf("%s got %v after sequence %d", name, r.ID, last)
				}
				last = r.ID.Seq
				number(t, r.Data)
				c.Ack(r.ID)
			}
		})
	}
	wg.Wait()
	stop()
	if err := <-ran; err != nil {
		t.Fatal(err)
	}
	for _, c := range q.Stats().Consumers {
		if c.Live != 0 || c.Backfill != 0 || c.Lost != 0 {
			t.Errorf("%+v", c)
		}
	}
	closeQueue(t, q)
}
