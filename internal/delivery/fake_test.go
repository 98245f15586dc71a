package delivery

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gateway/adapters"
	"gateway/buffer"
	"gateway/internal/clock"
	"gateway/internal/format"
	"gateway/internal/sample"
	"gateway/mqtt"
)

// fakeQueue is a consumer over a slice: what was acked survives a restart, where reading was does not.
type fakeQueue struct {
	mu       sync.Mutex
	records  []buffer.Record
	acked    []bool
	deferred []bool
	next     [2]int
	ready    chan struct{}
	tally    buffer.Tally
	fails    error // what TryNext returns
}

func newFakeQueue() *fakeQueue { return &fakeQueue{ready: make(chan struct{}, 1)} }

var schemas = map[string]*adapters.Schema{}

func schemaOf(device string) *adapters.Schema {
	if schemas[device] == nil {
		schemas[device] = &adapters.Schema{Device: device, Points: []adapters.Point{{Name: "n"}, {Name: "m"}}}
	}
	return schemas[device]
}

func (q *fakeQueue) wake() {
	select {
	case q.ready <- struct{}{}:
	default:
	}
}

func (q *fakeQueue) append(device string, n int) {
	r := sample.Record{Boot: 1, Sample: adapters.Sample{Schema: schemaOf(device), Time: adapters.Instant(n), Readings: []adapters.Reading{
		{Point: 0, Value: adapters.IntValue(int64(n))}, {Point: 1, Value: adapters.BoolValue(true)}}}}
	q.appendRaw(sample.Append(nil, &r), sample.EncodeSchema(r.Sample.Schema).Data)
}

func (q *fakeQueue) appendRaw(data, dict []byte) {
	q.mu.Lock()
	q.records = append(q.records, buffer.Record{ID: ID{Epoch: 7, Seq: uint64(len(q.records) + 1)}, Data: data, Dict: dict, Durable: true})
	q.acked = append(q.acked, false)
	q.deferred = append(q.deferred, false)
	q.mu.Unlock()
	q.wake()
}

func (q *fakeQueue) TryNext(l buffer.Lane) (buffer.Record, bool, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.fails != nil {
		return buffer.Record{}, false, q.fails
	}
	for i := q.next[l]; i < len(q.records); i++ {
		if !q.acked[i] && q.deferred[i] == (l == buffer.Backfill) {
			q.next[l] = i + 1
			return q.records[i], true, nil
		}
	}
	return buffer.Record{}, false, nil
}

func (q *fakeQueue) Ready() <-chan struct{} { return q.ready }

func (q *fakeQueue) Ack(id ID) { q.AckAll(buffer.Tally{}, id) }

func (q *fakeQueue) AckAll(add buffer.Tally, ids ...ID) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for i, n := range add {
		q.tally[i] += n
	}
	for _, id := range ids {
		q.acked[id.Seq-1] = true
	}
}

func (q *fakeQueue) Defer() {
	q.mu.Lock()
	for i := q.next[buffer.Live]; i < len(q.records); i++ {
		q.deferred[i] = true
	}
	q.next[buffer.Live] = len(q.records)
	q.mu.Unlock()
	q.wake()
}

func (q *fakeQueue) Depth() (live, backfill int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for i, a := range q.acked {
		if !a && q.deferred[i] {
			backfill++
		} else if !a {
			live++
		}
	}
	return live, backfill
}

// recent gives fn all records, as Options.Recent does.
func (q *fakeQueue) recent(fn func(buffer.Record) error) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, r := range q.records {
		if err := fn(r); err != nil {
			return err
		}
	}
	return nil
}

// fakeBroker answers each message after a delay, as verdict says.
type fakeBroker struct {
	mu       sync.Mutex
	delay    time.Duration
	each     time.Duration // how long the link is busy with a message
	busy     time.Time     // until when it is
	sync     time.Duration // acknowledgements come at whole multiples of it
	up       bool
	verdict  func(m *mqtt.Message) error // nil: taken
	got      []got
	unacked  map[int]func(error)
	n, most  int
	attempts int
}

type got struct {
	topic, payload string
	at             time.Time
	retain         bool
}

func newFakeBroker(delay time.Duration) *fakeBroker {
	return &fakeBroker{delay: delay, up: true, unacked: map[int]func(error){}}
}

func (b *fakeBroker) Publish(ctx context.Context, m *mqtt.Message, done func(error)) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.attempts++
	if !b.up {
		return errors.New("nobody should publish while there is no connection")
	}
	b.n++
	key := b.n
	b.unacked[key] = done
	b.most = max(b.most, len(b.unacked))
	var err error
	if b.verdict != nil {
		err = b.verdict(m)
	}
	if err == nil {
		b.got = append(b.got, got{m.Topic, string(m.Payload), time.Now(), m.Retain})
	}
	delay := b.delay
	if b.each > 0 {
		if now := time.Now(); b.busy.Before(now) {
			b.busy = now
		}
		b.busy = b.busy.Add(b.each)
		delay += time.Until(b.busy)
		if n := len(b.got); err == nil {
			b.got[n-1].at = b.busy
		}
	}
	if b.sync > 0 {
		now := time.Now()
		delay = now.Truncate(b.sync).Add(b.sync).Sub(now)
	}
	time.AfterFunc(delay, func() {
		b.mu.Lock()
		_, there := b.unacked[key]
		delete(b.unacked, key)
		b.mu.Unlock()
		if there {
			done(err)
		}
	})
	return nil
}

func (b *fakeBroker) Withdraw() {
	b.mu.Lock()
	all := b.unacked
	b.unacked = map[int]func(error){}
	b.mu.Unlock()
	for _, done := range all {
		done(errors.New("withdrawn"))
	}
}

func (b *fakeBroker) set(verdict func(m *mqtt.Message) error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.verdict = verdict
}

// numbers returns the readings n that arrived from a device, in order.
func (b *fakeBroker) numbers(t *testing.T, device string) (list []int) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, g := range b.got {
		if g.topic != "g/"+device {
			continue
		}
		var objects []struct{ Values struct{ N int } }
		payload := g.payload
		if !strings.HasPrefix(payload, "[") {
			payload = "[" + payload + "]"
		}
		if err := json.Unmarshal([]byte(payload), &objects); err != nil {
			t.Fatalf("%q: %v", g.payload, err)
		}
		for _, o := range objects {
			list = append(list, o.Values.N)
		}
	}
	return list
}

type fakeClock struct{}

func (fakeClock) Wall(_ uint32, at adapters.Instant) (int64, clock.State) {
	return int64(at), clock.Synced
}

// run starts a Destination in a bubble and stops it at its end.
func run(t *testing.T, o Options, q *fakeQueue, b Publisher, f format.Options) *Destination {
	t.Helper()
	f.Gateway = "g"
	formatter, err := format.New(f)
	if err != nil {
		t.Fatal(err)
	}
	o.Name, o.Source, o.Publisher, o.Formatter, o.Clock = "cloud", q, b, formatter, fakeClock{}
	d, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- d.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return d
}

func drain(t *testing.T, d *Destination, limit time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	if err := d.Drain(ctx); err != nil {
		t.Fatalf("not drained within %v: %+v", limit, d.Status())
	}
}

func wantInOrder(t *testing.T, list []int, n int) {
	t.Helper()
	if len(list) != n {
		t.Fatalf("%d arrived, want %d: %v", len(list), n, list)
	}
	for i, v := range list {
		if v != i+1 {
			t.Fatalf("place %d holds %d: %v", i, v, list)
		}
	}
}

func bubble(t *testing.T, name string, f func(t *testing.T)) {
	t.Run(name, func(t *testing.T) { synctest.Test(t, f) })
}

func deviceNo(i int) string { return "d" + strconv.Itoa(i) }

func idOf(n int) string { return fmt.Sprintf("%016x/%d", 7, n) }

type publisherFunc func(m *mqtt.Message, done func(error))

func (f publisherFunc) Publish(_ context.Context, m *mqtt.Message, done func(error)) error {
	f(m, done)
	return nil
}

func (b *fakeBroker) all() []got {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.got)
}

func (b *fakeBroker) counts() (attempts, most int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.attempts, b.most
}
