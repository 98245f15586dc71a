package powercut

import (
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"gateway/buffer"
)

var (
	images = flag.Int("images", 320, "crash images to check")
	seed   = flag.Uint64("seed", uint64(time.Now().UnixNano()), "decides workload and images")
)

// abandoned is the file system of a queue that is left as a killed process leaves it, when its files
// are closed by kill.
type abandoned struct {
	buffer.FS
	mu   sync.Mutex
	open []io.Closer
}

func (a *abandoned) Lock(string) (io.Closer, error) { return io.NopCloser(nil), nil }

func (a *abandoned) Open(name string, write bool) (buffer.File, error) {
	return a.keep(a.FS.Open(name, write))
}

func (a *abandoned) Create(name string) (buffer.File, error) { return a.keep(a.FS.Create(name)) }

func (a *abandoned) keep(f buffer.File, err error) (buffer.File, error) {
	if err == nil {
		a.mu.Lock()
		a.open = append(a.open, f)
		a.mu.Unlock()
	}
	return f, err
}

func (a *abandoned) kill() {
	for _, f := range a.open {
		f.Close() // most were closed before
	}
}

// A history is what the queue was asked and what it promised, by the number of disk events at that
// time.
type history struct {
	volume  *Volume
	named   map[buffer.ID]int
	durable []promise       // all records below number were durable
	acked   map[int]promise // by number
	next    int
}

type promise struct{ at, number int }

func record(n int) []byte {
	b := make([]byte, 60+n*31%400)
	binary.LittleEndian.PutUint64(b, uint64(n))
	for i := 8; i < len(b); i++ {
		b[i] = byte(n*5 + i)
	}
	return b
}

func numberOf(b []byte) (int, error) {
	if len(b) >= 8 {
		if n := int(binary.LittleEndian.Uint64(b)); n < 1<<30 && string(record(n)) == string(b) {
			return n, nil
		}
	}
	return 0, errors.New("a record that nobody appended")
}

func options(dir string) buffer.Options {
	return buffer.Options{Dir: dir, FS: &abandoned{FS: buffer.OS}, MaxBytes: 6 << 20, SegmentBytes: 64 << 10, SyncWindow: 20 * time.Millisecond, SyncBytes: 24 << 10}
}

// live is one life of the queue: rolls, recycling, acks, deferrals, group commits and, at the end, an
// orderly stop or none.
func (h *history) live(t *testing.T, dir string, rng *rand.Rand, records int, clean bool) {
	o := options(dir)
	q, err := buffer.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	c, err := q.Consumer("a", buffer.Oldest())
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- q.Run(ctx) }()
	var flight []buffer.Record
	for i := range records {
		b := record(h.next)
		var d *buffer.Dict
		if h.next%3 > 0 {
			d = &buffer.Dict{Hash: uint64(h.next % 3), Data: []byte(strings.Repeat("x", h.next%3*100))}
		}
		h.next++
		id, err := q.Append(b, d)
		if err != nil {
			t.Fatal(err)
		}
		h.named[id] = h.next - 1
		switch rng.IntN(40) {
		case 0:
			upTo := h.next
			if err := q.Sync(ctx); err != nil {
				t.Fatal(err)
			}
			at := h.volume.Mark()
			h.durable = append(h.durable, promise{at, upTo})
		case 1:
			c.Defer()
		case 2, 3, 4, 5:
			for _, lane := range []buffer.Lane{buffer.Live, buffer.Backfill} {
				for range rng.IntN(80) {
					r, ok, err := c.TryNext(lane)
					if err != nil {
						t.Fatal(err)
					}
					if !ok {
						break
					}
					r.Data = append([]byte(nil), r.Data...)
					flight = append(flight, r)
				}
			}
		case 6, 7:
			// Noted before it is done: from here on the record may be gone.
			rng.Shuffle(len(flight), func(i, k int) { flight[i], flight[k] = flight[k], flight[i] })
			n := len(flight) * 9 / 10
			at := h.volume.Mark()
			for _, r := range flight[:n] {
				num, err := numberOf(r.Data)
				if err != nil {
					t.Fatal(err)
				}
				if _, ok := h.acked[num]; !ok {
					h.acked[num] = promise{at, num}
				}
				c.Ack(r.ID)
			}
			flight = flight[n:]
		}
		if i%200 == 199 { // the disk is slower than this loop
			upTo := h.next
			if err := q.Sync(ctx); err != nil {
				t.Fatal(err)
			}
			h.durable = append(h.durable, promise{h.volume.Mark(), upTo})
		}
	}
	stop()
	if err := <-ran; err != nil {
		t.Fatal(err)
	}
	if clean {
		if err := q.Close(); err != nil {
			t.Fatal(err)
		}
		h.durable = append(h.durable, promise{h.volume.Mark(), h.next})
	}
	o.FS.(*abandoned).kill()
}

func TestPowerCuts(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("this test mounts file systems: run it as root")
	}
	t.Logf("-seed %d", *seed)
	rng := rand.New(rand.NewPCG(*seed, 1))
	tmp := t.TempDir()
	dirs := map[string]string{}
	for _, name := range []string{"fuse", "work", "check"} {
		dirs[name] = filepath.Join(tmp, name)
		if err := os.Mkdir(dirs[name], 0o700); err != nil {
			t.Fatal(err)
		}
	}
	fresh, err := Format(tmp, 16<<20)
	if err != nil {
		t.Fatal(err)
	}
	volume, err := ServeVolume(dirs["fuse"], fresh, Model{})
	if err != nil {
		t.Fatal(err)
	}
	open := true
	defer func() {
		if open {
			_ = volume.Close()
		}
	}()
	disk, err := Mount(volume.Path(), dirs["work"])
	if err != nil {
		t.Fatal(err)
	}
	h := &history{volume: volume, named: map[buffer.ID]int{}, acked: map[int]promise{}}
	func() {
		defer func() {
			if err := disk.Unmount(); err != nil {
				t.Error(err)
			}
		}()
		start := volume.Mark()
		for life := range 4 {
			h.live(t, filepath.Join(dirs["work"], "queue"), rng, 1500, life%2 == 0)
		}
		t.Logf("%d records, %d promises, %d writes and flushes", h.next, len(h.durable), volume.Mark()-start)
	}()
	end := volume.Mark()
	base, log := volume.Log()
	if err := volume.Close(); err != nil {
		t.Fatal(err)
	}
	open = false
	flushes := 0
	for _, e := range log {
		if e.Data == nil {
			flushes++
		}
	}
	if flushes < 100 {
		t.Fatalf("only %d flushes reached the disk: it is not told of syncs", flushes)
	}
	file := filepath.Join(tmp, "image")
	for i := range *images {
		cut := 1 + rng.IntN(end)
		if err := os.WriteFile(file, image(base, log, cut, rng), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := h.check(file, dirs["check"], cut); err != nil {
			t.Fatalf("image %d, cut after %d of %d events, -seed %d: %v", i, cut, end, *seed, err)
		}
	}
	t.Logf("%d crash images mounted, opened and checked", *images)
}

// check mounts an image and holds the queue on it to what had been promised at that moment.
func (h *history) check(file, dir string, cut int) (err error) {
	disk, err := Mount(file, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, disk.Unmount()) }()
	var losses []buffer.Loss
	o := options(filepath.Join(dir, "queue"))
	o.OnLoss = func(l buffer.Loss) { losses = append(losses, l) }
	q, err := buffer.Open(o)
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, q.Close())
		o.FS.(*abandoned).kill()
	}()

	last, lastNumber := uint64(0), -1
	if err := q.Records(buffer.ID{}, func(r buffer.Record) error {
		n, err := numberOf(r.Data)
		if err != nil {
			return fmt.Errorf("%v: %w", r.ID, err)
		}
		if want, ok := h.named[r.ID]; !ok || want != n {
			return fmt.Errorf("%v is record %d, and was appended as %d (%t)", r.ID, n, want, ok)
		}
		if len(r.Dict) != n%3*100 {
			return fmt.Errorf("%v has a dictionary of %d bytes", r.ID, len(r.Dict))
		}
		if r.ID.Seq <= last || n <= lastNumber {
			return fmt.Errorf("%v (%d) after %d (%d)", r.ID, n, last, lastNumber)
		}
		last, lastNumber = r.ID.Seq, n
		return nil
	}); err != nil {
		return err
	}
	c, err := q.Consumer("a", buffer.Oldest())
	if err != nil {
		return err
	}
	fresh, err := q.Append(record(h.next), nil)
	if err != nil {
		return err
	}
	if _, used := h.named[fresh]; used {
		return fmt.Errorf("the name %v is used again", fresh)
	}
	given := map[int]bool{}
	for _, lane := range []buffer.Lane{buffer.Backfill, buffer.Live} {
		for {
			r, ok, err := c.TryNext(lane)
			if err != nil {
				return err
			}
			if !ok {
				break
			}
			n, err := numberOf(r.Data)
			if err != nil {
				return err
			}
			given[n] = true
			c.Ack(r.ID)
		}
	}
	if !given[h.next] {
		return errors.New("what was appended after the cut is not delivered")
	}
	promised := 0
	for _, p := range h.durable {
		if p.at <= cut {
			promised = max(promised, p.number)
		}
	}
	for n := range promised {
		if a, ok := h.acked[n]; given[n] || ok && a.at <= cut {
			continue
		}
		return fmt.Errorf("record %d was durable and is not delivered; %d were, %d given; losses %+v", n, promised, len(given), losses)
	}
	return nil
}
