// Package delivery brings samples from the queue to brokers: one Destination for each, with a
// cursor, a window and a pace of its own.
//
// A sample leaves the queue's cursor only when every message that carries it was acknowledged.
// Nothing is dropped because it was tried often, or because the broker is away. First transmissions
// of a device's samples keep their order within a lane; what is sent again may arrive later.
package delivery

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"gateway/adapters"
	"gateway/buffer"
	"gateway/internal/clock"
	"gateway/internal/format"
	"gateway/internal/sample"
	"gateway/mqtt"
)

// Order is which samples go first when there is a backlog.
type Order string

const (
	LiveFirst   Order = "live-first"   // new samples at once, the backlog beside them, marked historical
	OldestFirst Order = "oldest-first" // in the order of the queue
)

// Clock joins a sample's running time to the wall clock; *clock.Clock is one.
type Clock interface {
	Wall(boot uint32, at adapters.Instant) (int64, clock.State)
}

// Options configure a Destination.
type Options struct {
	Name      string
	Source    Source
	Publisher Publisher
	Formatter *format.Formatter
	Clock     Clock
	Decoder   *sample.Decoder // of the queue's records; may be shared; nil: one of its own
	Window    int             // messages in flight at most; default 64
	Order     Order           // default OldestFirst

	MessageRate  float64 // messages a second at most; 0: no limit
	ByteRate     float64 // bytes of topics and payloads a second at most; 0: no limit
	BackfillRate float64 // messages of the backlog a second at most; 0: no limit of its own

	BatchSamples int           // samples of one topic to a message; 0 and 1: each its own
	BatchBytes   int           // of encoded samples, at which a batch is full; default 64 KiB
	BatchWait    time.Duration // how long a batch waits for more; default 1s

	// Recent gives fn the newest records of the queue, those that were delivered too; nil: there is no way
	// to read them again.
	Recent func(fn func(buffer.Record) error) error

	Letters *Letters                   // where refused samples are kept; nil: nothing is ever set aside
	Aside   func(id ID, reason string) // hears of each sample set aside; may be nil
	Forgot  func(id ID, reason string) // hears of each dead letter that made room for another; may be nil
	Keep    func() error               // makes durable what Aside and Forgot heard; may be nil
	Logger  *slog.Logger
}

// A Link tells whether there is a connection to the broker.
type Link struct {
	Connected bool
	URL       string
	Window    int           // messages that the broker takes at once; 0: it does not say
	Resumed   bool          // the broker kept the session: it is the one from before
	Err       error         // why not
	RetryIn   time.Duration // until the next attempt

	RetainsNothing bool // the broker keeps no retained messages
}

// event is what happened outside of the loop: an answer to message i of p, or to a schema that was told, or
// a change of the link.
type event struct {
	p    *parcel
	i    int
	told *telling
	err  error
	link *Link
}

// A Destination publishes what a consumer of the queue holds.
type Destination struct {
	o   Options
	log *slog.Logger

	mu     sync.Mutex
	events []event
	status Status
	wake   chan struct{}
	drains []chan struct{}

	// Owned by Run.
	w         *window
	teller    teller
	decoded   []sample.Record
	formatted []format.Item
	bars      bars
	pile      pile
	passed    map[chain]passed  // the last sample that was passed over
	before    map[uint64]passed // those that are not read here before their successors, by their sequence
	free      []*parcel
	batches   map[batchKey]*batch
	firstDue  time.Time // when the first of them is due, at the latest; may be of one that has left
	batched   int       // samples in batches
	total     bucket    // messages
	bytes     bucket
	backfill  bucket
	backlog   int // messages of the backfill lane in flight
	pace      pace
	heard     bool // something was acknowledged, and nothing has been sent since
	looked    time.Time
	drained   []event
	acked     []ID      // of one parcel
	answered  time.Time // when the broker last answered, or was last given something to answer
	// unreadable is why the queue did not give its next sample; nil: it did.
	unreadable error
}

// New checks o and returns a Destination that Run starts.
func New(o Options) (*Destination, error) {
	if o.Source == nil || o.Publisher == nil || o.Formatter == nil || o.Clock == nil {
		return nil, fmt.Errorf("delivery: destination %q: source, publisher, formatter and clock are needed", o.Name)
	}
	if o.Window == 0 {
		o.Window = 64
	}
	if o.Order == "" {
		o.Order = OldestFirst
	}
	if o.Window < 1 || o.Order != LiveFirst && o.Order != OldestFirst || o.MessageRate < 0 || o.ByteRate < 0 || o.BackfillRate < 0 {
		return nil, fmt.Errorf("delivery: destination %q: window %d, order %q or a rate is impossible", o.Name, o.Window, o.Order)
	}
	o.BatchSamples = max(o.BatchSamples, 1)
	if o.BatchBytes == 0 {
		o.BatchBytes = 64 << 10
	}
	if o.BatchWait == 0 {
		o.BatchWait = time.Second
	}
	if o.Decoder == nil {
		o.Decoder = &sample.Decoder{}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	d := &Destination{o: o, log: o.Logger.With("destination", o.Name), wake: make(chan struct{}, 1), w: newWindow(o.Window), teller: newTeller(),
		passed: make(map[chain]passed), bars: make(bars), batches: make(map[batchKey]*batch)}
	d.status.Name, d.status.State, d.status.Connected = o.Name, Starting, true
	return d, nil
}

// Link tells the Destination of a change of its connection. Before the first call it takes itself to
// be connected, as it always is to a broker in the same process. It may be called from anywhere and
// does not block.
func (d *Destination) Link(l Link) { d.post(event{link: &l}) }

func (d *Destination) post(e event) {
	d.mu.Lock()
	d.events = append(d.events, e)
	d.mu.Unlock()
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// Drain waits until all that is in the queue has been acknowledged, or ctx ends. Batches do not wait
// to become full meanwhile.
func (d *Destination) Drain(ctx context.Context) error {
	done := make(chan struct{})
	d.mu.Lock()
	d.drains = append(d.drains, done)
	d.mu.Unlock()
	d.poke()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		d.mu.Lock()
		d.drains = slices.DeleteFunc(d.drains, func(c chan struct{}) bool { return c == done })
		d.mu.Unlock()
		return ctx.Err()
	}
}

func (d *Destination) poke() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// Run delivers until ctx ends, and returns nil then, or the error of a queue that was closed. A disk
// that does not give what the queue holds is asked again every second. What is in flight when Run
// returns stays unacknowledged and will be sent again.
func (d *Destination) Run(ctx context.Context) error {
	now := time.Now()
	d.total, d.bytes = newBucket(d.o.MessageRate, now), newBucket(d.o.ByteRate, now)
	d.backfill = newBucket(d.o.BackfillRate, now)
	d.pace.reset(d.w.max)
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	d.catchUp()
	if d.before == nil {
		d.recall()
	}
	for {
		now = time.Now()
		d.digest(now)
		d.leaveTheSilent(now)
		pause, err := d.fill(ctx, now)
		switch {
		case ctx.Err() != nil:
			d.digest(time.Now())
			d.setAside(now, true)
			d.report()
			return nil
		case errors.Is(err, buffer.ErrClosed) || errors.Is(err, buffer.ErrForgotten):
			return fmt.Errorf("delivery: destination %q: %w", d.o.Name, err)
		}
		d.unreadable = err
		d.report()
		timer.Reset(pause)
		select {
		case <-ctx.Done():
		case <-d.wake:
		case <-d.o.Source.Ready():
		case <-timer.C:
		}
	}
}

// digest takes in what happened since it last did.
func (d *Destination) digest(now time.Time) {
	d.mu.Lock()
	d.drained, d.events = d.events, d.drained[:0]
	d.mu.Unlock()
	for _, e := range d.drained {
		var v verdict
		switch {
		case e.link != nil:
			broke := d.w.connected && !e.link.Connected
			v = d.w.link(e.link.Connected, e.link.Window)
			d.noteLink(e.link)
			if broke {
				d.broke(now)
			}
			if e.link.Connected {
				d.teller.link(e.link)
				d.pace.reset(d.w.max)
				d.answered = now
				d.catchUp()
			}
		case e.told != nil:
			d.answered = now
			d.told(e.told, e.err, now)
		default:
			if e.p.items[0].lane == buffer.Backfill {
				if d.backlog--; e.err == nil {
					d.pace.answered(max(0, now.Sub(e.p.sent)), now)
				}
			}
			d.answered = now
			d.heard = d.heard || e.err == nil
			v = d.w.answer(e.p, e.i, e.err, now)
			if e.err != nil {
				d.noteRefusal(e.err)
			}
		}
		d.execute(v)
	}
	clear(d.drained)
}

// silence is how long a broker may leave everything unacknowledged before it is left. A node of a
// cluster that lost its majority is like that: it takes messages, answers PINGREQ, and that is all.
const silence = time.Minute

func (d *Destination) leaveTheSilent(now time.Time) {
	r, ok := d.o.Publisher.(Reconnecter)
	if !ok || !d.w.connected || d.w.messages == 0 || now.Sub(d.answered) < silence {
		return
	}
	d.answered = now // once is enough
	d.w.excuse()
	why := fmt.Errorf("the broker has acknowledged nothing for %v", silence)
	d.log.Warn("connecting anew", "err", why, "in_flight", d.w.messages)
	r.Reconnect(why)
}

func (d *Destination) execute(v verdict) {
	if v.delivered != nil {
		d.taken(v.delivered)
	}
	for _, p := range v.aside {
		d.convict(p)
	}
	if wd, ok := d.o.Publisher.(Withdrawer); ok && v.withdraw {
		wd.Withdraw()
	}
}

func (d *Destination) taken(p *parcel) {
	d.mu.Lock()
	d.status.Delivered += uint64(len(p.items))
	d.status.Messages += uint64(len(p.out.Messages))
	d.status.Bytes += uint64(p.bytes)
	d.mu.Unlock()
	d.bars.taken(p)
	d.acknowledge(p, delivered(len(p.items), len(p.out.Messages)))
	d.recycle(p)
}

// acknowledge lets the queue forget the samples of p, and says what of them was delivered.
func (d *Destination) acknowledge(p *parcel, count buffer.Tally) {
	d.acked = d.acked[:0]
	for i := range p.items {
		if it := &p.items[i]; it.letter == 0 {
			d.acked = append(d.acked, it.id)
		}
	}
	d.o.Source.AckAll(count, d.acked...)
	for i := range p.items {
		if it := &p.items[i]; it.letter == 0 {
			continue
		} else if err := d.o.Letters.Settled(it.letter); err != nil {
			d.log.Warn("dead letters were sent again and their file cannot be removed; they may be sent once more", "err", err)
		}
	}
}

// catchUp turns a backlog into the backfill lane, so that new samples need not wait behind it.
func (d *Destination) catchUp() {
	d.looked = time.Now()
	if d.o.Order != LiveFirst {
		return
	}
	live, _ := d.o.Source.Depth()
	if live-int64(d.liveHeld()) > int64(max(2*d.o.Window, 100)) {
		d.o.Source.Defer()
		d.recall() // what comes now is sent before it is read what was passed over in the backlog
	}
}

// liveHeld is the number of samples read from the live lane and not acknowledged.
func (d *Destination) liveHeld() (n int) {
	for k, b := range d.batches {
		if k.lane == buffer.Live {
			n += len(b.items)
		}
	}
	for _, list := range [][]*parcel{d.w.inFlight, d.w.again, d.w.suspects, d.pile.parcels} {
		for _, p := range list {
			if p.items[0].lane == buffer.Live {
				n += len(p.items)
			}
		}
	}
	return n
}

// maxPause is how long the loop sleeps at most: dead letters to be sent again are looked for, and
// whether the live lane falls behind.
const maxPause = time.Second

// fill sends what may be sent and returns how long to wait where nothing happens before.
func (d *Destination) fill(ctx context.Context, now time.Time) (time.Duration, error) {
	if now.Sub(d.looked) >= maxPause {
		d.catchUp()
		d.retryLetters()
	}
	d.setAside(now, false)
	for ctx.Err() == nil {
		pause := max(0, d.untilAside(now))
		if wait := max(d.total.wait(now), d.bytes.wait(now)); wait > 0 {
			return min(pause, wait), nil
		}
		p, wait, err := d.pick(now)
		if err != nil {
			return pause, err
		}
		if p == nil {
			d.setAside(now, d.draining())
			d.finishDrains()
			return max(0, min(wait, d.untilAside(time.Now()))), nil
		}
		d.send(ctx, p)
		d.digest(now)
	}
	return 0, nil
}

// pick returns the parcel to send next: what was sent before, live, and only then the backlog. With
// none it returns how long at most until there may be one.
func (d *Destination) pick(now time.Time) (*parcel, time.Duration, error) {
	for p := d.w.next(now); p != nil; p = d.w.next(now) {
		if !d.bars.stops(p, now) {
			return p, 0, nil
		}
		d.convict(p)
	}
	if len(d.w.again) > 0 || !d.w.room(now) {
		return nil, d.untilRoom(now), nil
	}
	// Before more is read: of a topic that has little to say the batch would else wait for the end of the
	// backlog, and the cursor with it.
	if p := d.dueBatch(now, false); p != nil {
		return p, maxPause, nil
	}
	for {
		p, read, err := d.read(buffer.Live, now)
		if err != nil || p != nil {
			return p, maxPause, err
		}
		if !read {
			break
		}
	}
	wait := maxPause
	for d.pace.room(d.backlog, d.heard) {
		if wait = d.backfill.wait(now); wait > 0 {
			break
		}
		wait = maxPause
		p, read, err := d.read(buffer.Backfill, now)
		if err != nil || p != nil {
			return p, maxPause, err
		}
		if !read {
			break
		}
	}
	if d.draining() {
		if p := d.dueBatch(now, true); p != nil {
			return p, maxPause, nil
		}
	}
	return nil, min(wait, d.untilBatch(now)), nil
}

func (d *Destination) untilRoom(now time.Time) time.Duration {
	if wait := d.w.heldUntil.Sub(now); wait > 0 {
		return wait
	}
	return maxPause
}

// send hands the messages of p to the publisher.
func (d *Destination) send(ctx context.Context, p *parcel) {
	if d.w.messages == 0 {
		d.answered = time.Now()
	}
	d.tell(ctx, p)
	d.heard = false
	messages := d.w.launch(p)
	p.sent = time.Now()
	late := p.items[0].lane == buffer.Backfill
	for _, i := range messages {
		for len(p.done) <= i {
			k := len(p.done)
			p.done = append(p.done, func(err error) { d.post(event{p: p, i: k, err: err}) })
		}
		m := &p.out.Messages[i]
		n := len(m.Topic) + len(m.Payload)
		d.total.take(1)
		d.bytes.take(n)
		if late {
			d.backlog++
			d.backfill.take(1)
		}
		if err := d.o.Publisher.Publish(ctx, m, p.done[i]); err != nil {
			d.post(event{p: p, i: i, err: notTried(ctx, err)})
		}
	}
}

// notTried is the answer to what a publisher will not even try: it would not try it at once again either, so
// it is a refusal.
func notTried(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return err
	}
	return &mqtt.ReasonError{Op: "publish", Code: mqtt.UnspecifiedError, Detail: err.Error()}
}

func (d *Destination) parcel() *parcel {
	if n := len(d.free); n > 0 {
		p := d.free[n-1]
		d.free = d.free[:n-1]
		return p
	}
	return &parcel{}
}

// recycle keeps p for the next sample. What it had to do with the last one is forgotten, its memory
// is used again.
func (d *Destination) recycle(p *parcel) {
	if len(d.free) >= d.o.Window {
		return
	}
	p.order, p.sentNow, p.accused, p.trial, p.breaks, p.strikes, p.why = 0, false, false, false, 0, 0, nil
	p.out.Reset()
	p.needs = p.needs[:0]
	d.free = append(d.free, p)
}

// draining tells whether somebody waits for the end of the queue.
func (d *Destination) draining() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.drains) > 0
}

// finishDrains tells who waits for it that nothing is left.
func (d *Destination) finishDrains() {
	if !d.draining() || !d.w.idle() || d.batched > 0 {
		return
	}
	if live, backfill := d.o.Source.Depth(); live+backfill > 0 {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, c := range d.drains {
		close(c)
	}
	d.drains = nil
}

// idText writes an ID for logs.
func idText(id ID) string { return fmt.Sprintf("%016x/%d", id.Epoch, id.Seq) }
