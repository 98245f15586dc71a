package buffer_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"

	"gateway/buffer"
	"gateway/buffer/buffertest"
)

// A world knows what was asked of a queue through any number of crashes and failures, and what the
// queue promised; check holds the queue to it.
type world struct {
	t    tb
	opt  buffer.Options
	disk *buffertest.Disk
	q    *buffer.Queue
	rng  *rand.Rand

	next    int               // number of the next record
	first   int               // number of the first one of this opening
	named   map[buffer.ID]int // every name that was ever seen, and the number of its record
	found   []int             // what the opening found
	durable map[int]bool      // said to be durable
	users   []*user
}

// tb is what a world needs of a test; a rapid one has it, too.
type tb interface {
	Helper()
	Fatal(...any)
	Fatalf(string, ...any)
	Context() context.Context
}

// A user is a consumer as the world sees it.
type user struct {
	name   string
	c      *buffer.Consumer
	acked  map[int]bool // by number
	given  map[int]bool
	acks   uint64 // since the queue was made, those of the same record, too
	losses []buffer.Loss
	flight [2][]buffer.ID // handed out and not acked
	nums   map[buffer.ID]int
}

const worldDir = "/queue"

func newWorld(t tb, disk *buffertest.Disk, seed uint64, opt buffer.Options, users ...string) *world {
	opt.Dir = worldDir
	w := &world{t: t, opt: opt, disk: disk, rng: rand.New(rand.NewPCG(seed, 3)), named: map[buffer.ID]int{}, durable: map[int]bool{}}
	w.opt.OnLoss = func(l buffer.Loss) {
		for _, u := range w.users {
			if u.name == l.Consumer {
				u.losses = append(u.losses, l)
			}
		}
	}
	for _, name := range users {
		w.users = append(w.users, &user{name: name, acked: map[int]bool{}, given: map[int]bool{}, nums: map[buffer.ID]int{}})
	}
	return w
}

// after returns what the world looks like on another disk, to which this one's may have come.
func (w *world) after(t tb, disk *buffertest.Disk) *world {
	n := newWorld(t, disk, uint64(w.next), w.opt)
	n.next = w.next
	for k, v := range w.named {
		n.named[k] = v
	}
	for k, v := range w.durable {
		n.durable[k] = v
	}
	for _, u := range w.users {
		c := &user{name: u.name, acked: map[int]bool{}, given: map[int]bool{}, nums: map[buffer.ID]int{}, acks: u.acks, losses: append([]buffer.Loss(nil), u.losses...)}
		for k := range u.acked {
			c.acked[k] = true
		}
		n.users = append(n.users, c)
	}
	return n
}

func (w *world) open() error {
	o := w.opt
	o.FS = w.disk
	if o.SyncWindow == 0 {
		o.SyncWindow = 1e9
	}
	q, err := buffer.Open(o)
	if err != nil {
		return err
	}
	w.q, w.first = q, w.next
	if q.Recovery().CursorsLost {
		w.t.Fatal("a power cut took both slots of the cursors")
	}
	// What the opening found will stay: it says so when it lets syncs succeed.
	w.found = nil
	err = q.Records(buffer.ID{}, func(r buffer.Record) error {
		w.found = append(w.found, w.identify(r))
		return nil
	})
	if err != nil {
		return err
	}
	for _, u := range w.users {
		u.flight = [2][]buffer.ID{}
		if u.c, err = q.Consumer(u.name, buffer.Oldest()); err != nil {
			return err
		}
	}
	return nil
}

// record makes the record of a number: 12 to 200 bytes, some with a dictionary.
func worldRecord(n int) ([]byte, *buffer.Dict) {
	b := make([]byte, 12+n*37%189)
	binary.LittleEndian.PutUint32(b, uint32(n))
	for i := 4; i < len(b); i++ {
		b[i] = byte(n*7 + i)
	}
	if k := n % 3; k > 0 {
		return b, &buffer.Dict{Hash: uint64(k), Data: []byte(strings.Repeat(string(rune('a'+k)), 20*k))}
	}
	return b, nil
}

// identify returns the number of a record that was delivered, after checking that it is what was
// appended under that name.
func (w *world) identify(r buffer.Record) int {
	w.t.Helper()
	if len(r.Data) < 12 {
		w.t.Fatalf("record %v of %d bytes was never appended", r.ID, len(r.Data))
	}
	n := int(binary.LittleEndian.Uint32(r.Data))
	data, d := worldRecord(n)
	if n >= w.next || string(data) != string(r.Data) {
		w.t.Fatalf("record %v was never appended like this", r.ID)
	}
	if d == nil && r.Dict != nil || d != nil && string(d.Data) != string(r.Dict) {
		w.t.Fatalf("record %v came with the dictionary %q", r.ID, r.Dict)
	}
	w.name(r.ID, n)
	return n
}

func (w *world) name(id buffer.ID, n int) {
	w.t.Helper()
	if was, ok := w.named[id]; ok && was != n {
		w.t.Fatalf("the name %v was used for record %d and for %d", id, was, n)
	}
	w.named[id] = n
}

func (w *world) append(n int) error {
	for range n {
		data, d := worldRecord(w.next)
		w.next++
		id, err := w.q.Append(data, d)
		if errors.Is(err, buffer.ErrFull) {
			w.next--
			return nil
		}
		if err != nil {
			return err
		}
		w.name(id, w.next-1)
	}
	return nil
}

func (w *world) appendBatch(n int) error {
	first := w.next
	entries := make([]buffer.Entry, n)
	for i := range entries {
		entries[i].Data, entries[i].Dict = worldRecord(w.next)
		w.next++
	}
	id, err := w.q.AppendBatch(entries)
	if err != nil {
		return err
	}
	for i := range n {
		w.name(buffer.ID{Epoch: id.Epoch, Seq: id.Seq + uint64(i)}, first+i)
	}
	return nil
}

// sync notes as durable what the queue says is.
func (w *world) sync() {
	upTo := w.next
	if w.q.Sync(w.t.Context()) == nil {
		for n := w.first; n < upTo; n++ {
			w.durable[n] = true
		}
		for _, n := range w.found {
			w.durable[n] = true
		}
	}
}

// read takes up to n records off a lane.
func (w *world) read(u *user, lane buffer.Lane, n int) error {
	w.t.Helper()
	last := uint64(0)
	for range n {
		r, ok, err := u.c.TryNext(lane)
		if err != nil || !ok {
			return err
		}
		if r.ID.Seq <= last {
			w.t.Fatalf("consumer %s got %v after sequence %d", u.name, r.ID, last)
		}
		last = r.ID.Seq
		num := w.identify(r)
		u.given[num] = true
		u.nums[r.ID] = num
		u.flight[lane] = append(u.flight[lane], r.ID)
	}
	return nil
}

// ack acks some of what is in flight, in any order.
func (w *world) ack(u *user, lane buffer.Lane, n int) {
	for range n {
		f := u.flight[lane]
		if len(f) == 0 {
			return
		}
		i := w.rng.IntN(len(f))
		u.c.AckAll(buffer.Tally{1, 2}, f[i])
		u.acks++
		u.acked[u.nums[f[i]]] = true
		u.flight[lane] = append(f[:i], f[i+1:]...)
	}
}

func (w *world) close() error {
	upTo := w.next
	err := w.q.Close()
	if err == nil {
		for n := w.first; n < upTo; n++ {
			w.durable[n] = true
		}
	}
	return err
}

// check opens the queue, when it is not, and holds it to all that was promised.
func (w *world) check() {
	w.t.Helper()
	t := w.t
	if w.q == nil {
		if err := w.open(); err != nil {
			t.Fatalf("open: %v", err)
		}
	}
	q := w.q
	w.files()

	// The walk: nothing wrong, in order, no name used twice.
	last, lastNum := uint64(0), -1
	err := q.Records(buffer.ID{}, func(r buffer.Record) error {
		n := w.identify(r)
		if r.ID.Seq <= last || n <= lastNum {
			t.Fatalf("record %v (%d) after sequence %d (%d)", r.ID, n, last, lastNum)
		}
		last, lastNum = r.ID.Seq, n
		return nil
	})
	if err != nil {
		t.Fatalf("walk: %v", err)
	}

	// What is appended now reaches everybody, whatever their cursors said.
	fresh := w.next
	if err := w.append(3); err != nil {
		t.Fatalf("append after recovery: %v", err)
	}
	for _, u := range w.users {
		clear(u.given)
		tally := u.c.Tally()
		u.c.Rewind()
		for _, lane := range []buffer.Lane{buffer.Backfill, buffer.Live} {
			if err := w.read(u, lane, 1<<30); err != nil {
				t.Fatalf("consumer %s: %v", u.name, err)
			}
		}
		q.Report()
		numOf := map[uint64]map[int]bool{}
		for id, n := range w.named {
			if numOf[id.Seq] == nil {
				numOf[id.Seq] = map[int]bool{}
			}
			numOf[id.Seq][n] = true
		}
		lost := map[int]bool{} // with a reason that may strike what was durable
		for _, l := range u.losses {
			if l.Open {
				continue
			}
			if l.Count != int64(l.Last.Seq-l.First.Seq)+1 {
				t.Fatalf("consumer %s: loss %+v counts wrong", u.name, l)
			}
			switch l.Reason {
			case buffer.LostDropped, buffer.LostAged, buffer.LostDiskFailed:
				for seq := l.First.Seq; seq <= l.Last.Seq; seq++ {
					for n := range numOf[seq] {
						lost[n] = true
					}
				}
			case buffer.LostTorn, buffer.LostDamaged:
				// Only what was not durable may go like this.
				for seq := l.First.Seq; seq <= l.Last.Seq; seq++ {
					was := numOf[seq]
					if n, ok := w.named[buffer.ID{Epoch: l.First.Epoch, Seq: seq}]; ok {
						was = map[int]bool{n: true}
					}
					all := len(was) > 0
					for n := range was {
						all = all && w.durable[n]
					}
					if all {
						t.Fatalf("consumer %s was told that sequence %d is lost, which was durable: %+v", u.name, seq, l)
					}
				}
			default:
				t.Fatalf("consumer %s was told of a loss that cannot be: %+v", u.name, l)
			}
		}
		for n := range w.durable {
			if !u.given[n] && !u.acked[n] && !lost[n] {
				t.Fatalf("consumer %s does not get record %d, which was durable; losses %+v", u.name, n, u.losses)
			}
		}
		kept := uint64(0) // acks that it still knows of
		for n := range u.acked {
			if w.durable[n] && !u.given[n] && !lost[n] {
				kept++
			}
		}
		if tally[1] != 2*tally[0] || tally[0] < kept || tally[0] > u.acks {
			t.Fatalf("consumer %s does not get %d records again that it acked, made %d acks, and its tally is %v", u.name, kept, u.acks, tally)
		}
		for n := fresh; n < w.next; n++ {
			if !u.given[n] {
				t.Fatalf("consumer %s does not get record %d, appended after recovery", u.name, n)
			}
		}
		for lane := range u.flight {
			w.ack(u, buffer.Lane(lane), 1<<30)
		}
		if live, back := u.c.Depth(); live != 0 || back != 0 {
			t.Fatalf("consumer %s has acked all and is owed %d and %d", u.name, live, back)
		}
	}
	if err := w.close(); err != nil {
		t.Fatalf("close: %v", err)
	}
	w.q = nil
	w.files()
}

// files checks that the directory holds nothing but what it should, within the bound.
func (w *world) files() {
	w.t.Helper()
	var total int64
	for name, size := range w.disk.Files(worldDir) {
		total += size
		if name != "cursors" && name != "lock" && !strings.HasSuffix(name, ".seg") && !strings.HasPrefix(name, "spare-") {
			w.t.Fatalf("litter: %s", name)
		}
	}
	if total > w.opt.MaxBytes {
		w.t.Fatalf("%d bytes with a bound of %d: %v", total, w.opt.MaxBytes, w.disk.Files(worldDir))
	}
}

// workload is a short life with rolls, recycling, acks in any order, a deferral and a restart. It
// goes on after errors: the power may be gone.
func (w *world) workload() {
	defer func() { w.q = nil }()
	for life := range 3 {
		if w.open() != nil {
			return
		}
		a, b := w.users[0], w.users[1]
		_ = w.append(7)
		w.sync()
		_ = w.read(a, buffer.Live, 5)
		w.ack(a, buffer.Live, 3)
		w.q.Note()
		_ = w.append(12)
		w.q.PrepareSpares()
		a.c.Defer()
		_ = w.appendBatch(9)
		w.sync()
		_ = w.read(a, buffer.Backfill, 6)
		w.ack(a, buffer.Backfill, 4)
		_ = w.read(a, buffer.Live, 4)
		w.ack(a, buffer.Live, 4)
		w.q.Note()
		_ = w.read(b, buffer.Live, 1000)
		w.ack(b, buffer.Live, 1000)
		w.q.Maintain()
		_ = w.append(10)
		_ = w.read(a, buffer.Backfill, 1000)
		w.ack(a, buffer.Backfill, 1000)
		w.q.Note()
		_ = w.read(a, buffer.Live, 1000)
		w.ack(a, buffer.Live, 1000)
		w.q.Maintain()
		w.q.PrepareSpares()
		_ = w.append(6)
		w.sync()
		_ = w.append(2)
		w.q.Maintain()
		_ = w.read(b, buffer.Live, 1)
		w.ack(b, buffer.Live, 1)
		w.q.Note()
		if life == 0 {
			_ = w.close()
		} else {
			w.disk.Kill()
		}
	}
}

func smallOptions() buffer.Options {
	return buffer.Options{MaxBytes: 128<<10 + 6*4096, SegmentBytes: 4096, RAMBytes: 64 << 10}
}

func zeroedOptions() buffer.Options {
	o := smallOptions()
	o.SegmentBytes *= 3
	o.MaxBytes *= 2
	return o
}

func (w *world) String() string {
	return fmt.Sprintf("%d records, %d durable", w.next, len(w.durable))
}
