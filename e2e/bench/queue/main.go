//go:build linux

// Command queue measures package buffer beside the bare limit and its peers, interleaved in one run.
// It is a module of its own, so that nobody else depends on the peers.
//
//	cd e2e/bench/queue && go run . [sd] [cpu] [read] [appenders] [bytes]
//
// sd, appenders and bytes make file systems on loop devices and need root.
package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"text/tabwriter"
	"time"

	"gateway/buffer"
	"gateway/e2e/powercut"

	"github.com/tidwall/wal"
)

const recordSize = 100

func main() {
	what := os.Args[1:]
	if len(what) == 0 {
		what = []string{"cpu", "read", "sd", "appenders", "bytes"}
	}
	all := map[string]func(dir string) error{"sd": sd, "cpu": cpu, "read": read, "appenders": appenders, "bytes": bytes}
	for _, name := range what {
		f := all[name]
		if f == nil {
			fmt.Fprintf(os.Stderr, "queue: there is no measurement %q\n", name)
			os.Exit(64)
		}
		if err := inTemp(f); err != nil {
			fmt.Fprintf(os.Stderr, "queue: %s: %v\n", name, err)
			os.Exit(1)
		}
	}
}

func inTemp(f func(string) error) error {
	dir, err := os.MkdirTemp("", "queue-bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	return f(dir)
}

func batchOf(n int) [][]byte {
	batch := make([][]byte, n)
	for i := range batch {
		batch[i] = make([]byte, recordSize)
		for k := range batch[i] {
			batch[i][k] = byte(i*31 + k*7)
		}
	}
	return batch
}

func median[T cmp.Ordered](v []T) T {
	slices.Sort(v)
	return v[len(v)/2]
}

// onSD runs f on an ext4 on a disk that takes 2 ms a write and a flush, and 10 MB/s.
func onSD(tmp string, size int64, f func(dir string) error) (err error) {
	fuse, dir := filepath.Join(tmp, "fuse"), filepath.Join(tmp, "sd")
	for _, d := range []string{fuse, dir} {
		if err := os.Mkdir(d, 0o700); err != nil {
			return err
		}
	}
	fresh, err := powercut.Format(tmp, size)
	if err != nil {
		return err
	}
	v, err := powercut.ServeVolume(fuse, fresh, powercut.Model{Write: 2 * time.Millisecond, Flush: 2 * time.Millisecond, BytesPerSec: 10e6, Forget: true})
	if err != nil {
		return err
	}
	defer func() {
		if e := v.Close(); err == nil {
			err = e
		}
	}()
	m, err := powercut.Mount(v.Path(), dir)
	if err != nil {
		return err
	}
	defer func() {
		if e := m.Unmount(); err == nil {
			err = e
		}
	}()
	return f(dir)
}

// sd measures syncs per batch on the modelled SD card, as a share of the bare limit.
func sd(tmp string) error {
	return onSD(tmp, 192<<20, func(dir string) error {
		return compare(dir, "synced records/s on a modelled SD card, and share of bare", []int{1, 16, 256}, 5, func(s store, batch [][]byte) (float64, error) {
			const syncs = 15
			start := time.Now()
			for range syncs {
				if err := s.append(batch, true); err != nil {
					return 0, err
				}
			}
			return float64(syncs*len(batch)) / time.Since(start).Seconds(), nil
		}, func(v, limit float64) string { return fmt.Sprintf("%8.0f %5.2f", v, v/limit) })
	})
}

// cpu measures the CPU time of a record that is appended without a sync.
func cpu(dir string) error {
	return compare(dir, "µs of CPU per record, not synced, and bare's share of it", []int{1, 16, 256}, 7, func(s store, batch [][]byte) (float64, error) {
		n := max(40, 8192/len(batch))
		before := cpuTime()
		for range n {
			if err := s.append(batch, false); err != nil {
				return 0, err
			}
		}
		return float64((cpuTime() - before).Nanoseconds()) / 1e3 / float64(n*len(batch)), nil
	}, func(v, limit float64) string { return fmt.Sprintf("%8.3f %5.2f", v, limit/v) })
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// compare opens all stores and measures them in turn, several rounds, and prints the medians.
func compare(dir, title string, batches []int, rounds int, measure func(store, [][]byte) (float64, error), show func(v, limit float64) string) error {
	open := make([]store, len(stores))
	for i, s := range stores {
		d := filepath.Join(dir, strings.ReplaceAll(s.name, "/", "-"))
		if err := os.Mkdir(d, 0o700); err != nil {
			return err
		}
		var err error
		if open[i], err = s.open(d); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(w, "%s\n\t", title)
	for _, n := range batches {
		fmt.Fprintf(w, "batch %d\t", n)
	}
	fmt.Fprintln(w)
	result := make([][]string, len(stores))
	for _, n := range batches {
		batch := batchOf(n)
		values := make([][]float64, len(stores))
		for round := range rounds + 1 {
			for i, s := range open {
				v, err := measure(s, batch)
				if err != nil {
					return fmt.Errorf("%s: %w", stores[i].name, err)
				}
				if round > 0 { // the first one warms up
					values[i] = append(values[i], v)
				}
			}
		}
		limit := median(values[0])
		for i := range stores {
			result[i] = append(result[i], show(median(values[i]), limit))
		}
	}
	for i, s := range stores {
		fmt.Fprintf(w, "%s\t%s\t\n", s.name, strings.Join(result[i], "\t"))
		if err := open[i].close(); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	fmt.Fprintln(w)
	return w.Flush()
}

// read measures reading back, everything checked, beside tidwall/wal, which checks nothing.
func read(dir string) error {
	const n = 400_000
	q, err := buffer.Open(buffer.Options{Dir: filepath.Join(dir, "queue"), SyncWindow: time.Hour})
	if err != nil {
		return err
	}
	defer q.Close()
	l, err := wal.Open(filepath.Join(dir, "wal"), &wal.Options{NoSync: true, NoCopy: true})
	if err != nil {
		return err
	}
	defer l.Close()
	batch := batchOf(200)
	var entries []buffer.Entry
	for _, r := range batch {
		entries = append(entries, buffer.Entry{Data: r})
	}
	seq := uint64(0)
	for range n / len(batch) {
		if _, err := q.AppendBatch(entries); err != nil {
			return err
		}
		var b wal.Batch
		for _, r := range batch {
			seq++
			b.Write(seq, r)
		}
		if err := l.WriteBatch(&b); err != nil {
			return err
		}
	}
	if err := q.Sync(context.Background()); err != nil {
		return err
	}
	var ours, theirs []float64
	for round := range 5 {
		start := time.Now()
		c, err := q.Consumer("c"+strconv.Itoa(round), buffer.Oldest())
		if err != nil {
			return err
		}
		for range n {
			r, err := c.Next(context.Background(), buffer.Live)
			if err != nil || len(r.Data) != recordSize {
				return fmt.Errorf("record %v: %w", r.ID, err)
			}
		}
		ours = append(ours, n/time.Since(start).Seconds())
		start = time.Now()
		for i := range uint64(n) {
			if _, err := l.Read(i + 1); err != nil {
				return err
			}
		}
		theirs = append(theirs, n/time.Since(start).Seconds())
	}
	fmt.Printf("records read back a second: buffer %.0f, tidwall/wal %.0f\n\n", median(ours), median(theirs))
	return nil
}

// appenders measures how concurrent callers of AppendSync share syncs on the SD card.
func appenders(tmp string) error {
	return onSD(tmp, 64<<20, func(dir string) error {
		s, err := openBuffer(dir)
		if err != nil {
			return err
		}
		q := s.(*ours).q
		record := batchOf(1)[0]
		rate := func(n int) (float64, error) {
			const each = 60
			var wg sync.WaitGroup
			errs := make(chan error, n)
			start := time.Now()
			for range n {
				wg.Go(func() {
					for range each {
						if _, err := q.AppendSync(context.Background(), record, nil); err != nil {
							errs <- err
							return
						}
					}
				})
			}
			wg.Wait()
			select {
			case err := <-errs:
				return 0, err
			default:
				return float64(n*each) / time.Since(start).Seconds(), nil
			}
		}
		for _, n := range []int{2, 4, 8, 16, 64} {
			var rates, shares []float64
			for range 5 {
				one, err := rate(1) // in turn, for the machine is not the same all the time
				if err != nil {
					return err
				}
				many, err := rate(n)
				if err != nil {
					return err
				}
				rates, shares = append(rates, many), append(shares, many/one/float64(n))
			}
			fmt.Printf("%2d synced appenders: %6.0f records/s, %.2f N of one\n", n, median(rates), median(shares))
		}
		fmt.Println()
		return s.close()
	})
}
