//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"gateway/buffer"
	"gateway/e2e/powercut"
)

// bytes measures what reaches the device, by the kernel's count of sectors, per byte of payload:
// each record is handed to the kernel at once, two consumers ack as they read. The cases run side by
// side, each on a loop device of its own. What a queue costs while it grows is in the last case only:
// space that is used for the first time is zeroed before. The other queues have been filled before, so
// that segments are used again.
func bytes(tmp string) error {
	const (
		seconds = 120     // the sync at the end, which writes metadata, is to weigh little
		filled  = 250_000 // three segments and more
	)
	cases := []struct {
		name    string
		rate    int
		window  time.Duration
		before  int // records that went through the queue
		backlog bool
	}{
		{"100/s, window 1 s", 100, time.Second, filled, false},
		{"100/s, window 100 ms", 100, 100 * time.Millisecond, filled, false},
		{"1000/s, window 1 s", 1000, time.Second, filled, false},
		{"100/s, window 1 s, backlog of 15 MB acked each second", 100, time.Second, filled, true},
		{"100/s, window 1 s, a new queue from its first record", 100, time.Second, 0, false},
	}
	lines := make([]string, len(cases))
	errs := make([]error, len(cases))
	var wg sync.WaitGroup
	for i, c := range cases {
		wg.Go(func() {
			factor, err := written(filepath.Join(tmp, strconv.Itoa(i)), c.rate, c.window, c.before, c.backlog, seconds)
			lines[i], errs[i] = fmt.Sprintf("%-56s %.2f times the payload", c.name, factor), err
		})
	}
	wg.Wait()
	for i := range cases {
		if errs[i] != nil {
			return fmt.Errorf("%s: %w", cases[i].name, errs[i])
		}
		fmt.Println(lines[i])
	}
	fmt.Println()
	return nil
}

func written(tmp string, rate int, window time.Duration, earlier int, backlog bool, seconds int) (factor float64, err error) {
	dir := filepath.Join(tmp, "mnt")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return 0, err
	}
	fresh, err := powercut.Format(tmp, 96<<20)
	if err != nil {
		return 0, err
	}
	file := filepath.Join(tmp, "image")
	if err := os.WriteFile(file, fresh, 0o600); err != nil {
		return 0, err
	}
	m, err := powercut.Mount(file, dir)
	if err != nil {
		return 0, err
	}
	defer func() {
		if e := m.Unmount(); err == nil {
			err = e
		}
	}()
	q, err := buffer.Open(buffer.Options{Dir: filepath.Join(dir, "queue"), MaxBytes: 64 << 20, SegmentBytes: 8 << 20, MaxAge: 0, SyncWindow: window})
	if err != nil {
		return 0, err
	}
	ctx, stop := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- q.Run(ctx) }()
	defer func() {
		stop()
		<-ran
		if e := q.Close(); err == nil {
			err = e
		}
	}()
	var consumers []*buffer.Consumer
	for _, name := range []string{"local", "cloud"} {
		c, err := q.Consumer(name, buffer.Oldest())
		if err != nil {
			return 0, err
		}
		consumers = append(consumers, c)
	}
	record := batchOf(1)[0]
	for range earlier {
		if _, err := q.Append(record, nil); err != nil {
			return 0, err
		}
		for _, c := range consumers {
			if _, err := takeOne(c); err != nil {
				return 0, err
			}
		}
	}
	if backlog {
		for range 15_000_000 / recordSize {
			if _, err := q.Append(record, nil); err != nil {
				return 0, err
			}
		}
	}
	settle := time.Now()
	if earlier > 0 {
		settle = settle.Add(8 * time.Second)
	}
	before, n := int64(0), 0
	tick := time.NewTicker(time.Second / time.Duration(rate))
	defer tick.Stop()
	for end := settle.Add(time.Duration(seconds) * time.Second); ; n++ {
		now := <-tick.C
		if before == 0 && now.After(settle) {
			syscall.Sync()
			if before, err = sectors(m.Loop); err != nil {
				return 0, err
			}
			n = 0
		}
		if now.After(end) {
			break
		}
		if _, err := q.Append(record, nil); err != nil {
			return 0, err
		}
		// With a backlog one consumer has it all before it, and takes a second's worth of it each second.
		for i, c := range consumers {
			take := 4
			if backlog && i == 1 && n%rate != 0 {
				continue
			} else if backlog && i == 1 {
				take = 2 * rate
			}
			for range take {
				if ok, err := takeOne(c); err != nil {
					return 0, err
				} else if !ok {
					break
				}
			}
		}
	}
	syscall.Sync()
	after, err := sectors(m.Loop)
	return float64(after-before) * 512 / float64(n*recordSize), err
}

// takeOne acks the next record, if there is one.
func takeOne(c *buffer.Consumer) (bool, error) {
	r, ok, err := c.TryNext(buffer.Live)
	if ok {
		c.Ack(r.ID)
	}
	return ok, err
}

// sectors returns how many sectors were written to a block device, field 7 of its stat file.
func sectors(dev string) (int64, error) {
	b, err := os.ReadFile(filepath.Join("/sys/block", filepath.Base(dev), "stat"))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(b))
	if len(fields) < 7 {
		return 0, fmt.Errorf("%s has no count of sectors", dev)
	}
	return strconv.ParseInt(fields[6], 10, 64)
}
