// Package ledger keeps account of what was delivered and, above all, of what was not. Losses are
// gathered for some seconds, written to the log, and travel through the queue as samples of the
// device "gateway" to every destination. A record is itself a sample and may be lost: it is told again
// then, with what was lost since. Totals, and what is still to be told, are kept in a file across
// restarts.
package ledger

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
)

// Device is the name under which the gateway speaks of itself.
const Device = "gateway"

// Why samples are lost before they reach the queue. Those of the queue are buffer's.
const (
	Overflow  = "overflow"            // the writer could not keep up
	SetAside  = "set aside"           // a broker refused it; it waits among the dead letters
	Forgotten = "forgotten"           // a dead letter that made room for another
	Refused   = "queue refused"       // the queue is full and takes nothing
	Retired   = "destination removed" // it waited for a destination that left the configuration
)

// Options configure a Ledger.
type Options struct {
	Path   string        // the file of the totals; empty: nowhere
	Sink   adapters.Sink // takes the records: the writer of the queue
	Now    adapters.Clock
	Time   func(Moment) string // a wall time for people and programs, RFC 3339; empty where unknown
	Gather time.Duration       // how long losses are gathered into one record; default 10s
	Logger *slog.Logger
}

// schema is that of loss records. Values that are not known are left out.
var schema = &adapters.Schema{Device: Device, Points: []adapters.Point{
	{Name: "event"}, {Name: "destination"}, {Name: "device"}, {Name: "reason"}, {Name: "count"},
	{Name: "epoch"}, {Name: "first"}, {Name: "last"}, {Name: "open"}, {Name: "from"}, {Name: "to"},
}}

// A Ledger gathers losses. It is safe for concurrent use.
type Ledger struct {
	o Options

	mu      sync.Mutex
	untold  losses           // no record tells them yet
	offered []Loss           // the sink has their records and has not said what became of them
	told    []record         // in the queue, where they may be lost
	base    Totals           // of earlier runs
	lost    Totals           // of this one: the losses only
	tallies map[string]Tally // those that base contains
	sources map[string]source
	urgent  chan struct{}
	unsaved bool // something changed that must not be forgotten

	saving sync.Mutex // held over a writing of the file; guards saved
	saved  string
}

// quietSave is how often totals that only count deliveries are written. A memory card wears by the
// write, not by the byte: each costs it two blocks and two flushes.
const quietSave = time.Minute

// New reads the totals and returns a Ledger. The error that comes with a usable one says that the
// totals could not be read and begin anew.
func New(o Options) (*Ledger, error) {
	if o.Sink == nil || o.Now == nil {
		return nil, errors.New("ledger: a sink and a clock are needed")
	}
	if o.Gather == 0 {
		o.Gather = 10 * time.Second
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Time == nil {
		o.Time = func(Moment) string { return "" }
	}
	l := &Ledger{o: o, base: newTotals(), lost: newTotals(), sources: map[string]source{}, urgent: make(chan struct{}, 1)}
	if o.Path == "" {
		return l, nil
	}
	kept, err := readFile(o.Path)
	l.base, l.tallies, l.untold, l.told = kept.Totals, kept.Tallies, kept.Untold, kept.Told
	if len(l.untold) > 0 {
		l.urgent <- struct{}{}
	}
	return l, err
}

// Lost notes a loss. It does not block; Keep makes it durable.
//
// The queue names a loss again where a crash came before it had noted that it did: such a one counts
// once.
func (l *Ledger) Lost(x Loss) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.knows(&x) {
		return
	}
	l.lost.add(x)
	l.unsaved = true
	retold, own := l.untell(&x)
	if own && (x.Reason == SetAside || x.Reason == Forgotten) {
		return // a destination that refuses our records would be told of that for ever
	}
	first := len(l.untold) == 0
	for _, x := range append(retold, x) {
		l.untold.add(x)
	}
	if first {
		l.urge()
	}
}

// urge has the untold told.
func (l *Ledger) urge() {
	select {
	case l.urgent <- struct{}{}:
	default:
	}
}

// Late takes n back of what a destination was said to have lost: it arrived all the same. Records that tell of
// it are not taken back.
func (l *Ledger) Late(destination, reason string, n uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lost.destination(destination).Lost[reason] -= n
	l.unsaved = true
}

// Queued says under which name the queue has the oldest record that was offered and not answered.
func (l *Ledger) Queued(id buffer.ID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.offered) == 0 {
		return
	}
	if x := l.offered[0]; x.Destination != "" {
		l.remember(record{x, id})
	}
	l.offered = l.offered[1:]
	l.unsaved = true
}

// NotQueued says that the queue did not take the oldest record that was offered: it is offered again.
func (l *Ledger) NotQueued() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.offered) > 0 {
		l.giveBack(l.offered[:1])
		l.offered = l.offered[1:]
	}
}

// Forget drops the account of a destination that left the configuration.
func (l *Ledger) Forget(destination string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.base.Destinations, destination)
	delete(l.lost.Destinations, destination)
	l.told = slices.DeleteFunc(l.told, func(r record) bool { return r.Destination == destination })
	l.unsaved = true
}

// Run writes the records and the totals until ctx ends, and then once more.
func (l *Ledger) Run(ctx context.Context) error {
	ticker := time.NewTicker(l.o.Gather)
	defer ticker.Stop()
	tell, save := time.NewTimer(time.Hour), time.NewTimer(time.Hour)
	tell.Stop()
	save.Stop()
	saved := time.Now()
	var told time.Time
	for {
		select {
		case <-ctx.Done():
			l.flush()
			return l.Keep()
		case <-l.urgent:
			// The first of a storm is told after a second, the others together.
			tell.Reset(max(time.Second, l.o.Gather-time.Since(told)))
			continue
		case <-tell.C:
			if l.flush() {
				told = time.Now()
			}
			save.Reset(time.Second) // the queue will have answered by then
			continue
		case <-save.C:
		case <-ticker.C:
		}
		if !l.hasNews() && time.Since(saved) < quietSave {
			continue
		}
		if err := l.Keep(); err != nil {
			l.o.Logger.Warn("the account cannot be written; trying on", "err", err)
			continue
		}
		saved = time.Now()
	}
}

// hasNews tells whether the file lacks something that must not be forgotten.
func (l *Ledger) hasNews() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.unsaved
}

// flush offers a record for each range and tells whether the sink took any. What it does not take
// stays for the next time.
func (l *Ledger) flush() (took bool) {
	l.mu.Lock()
	due := l.untold
	l.untold = nil
	l.mu.Unlock()
	for i := range due {
		x := &due[i]
		l.mu.Lock()
		l.offered = append(l.offered, *x) // before its fate can be known
		l.mu.Unlock()
		if !l.o.Sink.Offer(l.sample(x)) {
			l.mu.Lock()
			l.offered = l.offered[:len(l.offered)-1]
			l.giveBack(due[i:])
			l.mu.Unlock()
			return took
		}
		took = true
		l.o.Logger.Warn("samples were lost", "destination", x.Destination, "device", x.Device, "reason", x.Reason, "count", x.Count,
			"first", x.First.Seq, "last", x.Last.Seq, "open", x.Open)
	}
	return took
}

// giveBack puts what was not told before what was gathered meanwhile.
func (l *Ledger) giveBack(older losses) {
	newer := l.untold
	l.untold = slices.Clone(older)
	for _, x := range newer {
		l.untold.add(x)
	}
	l.unsaved = true
	l.urge()
}

// sample is the record of a loss.
func (l *Ledger) sample(x *Loss) adapters.Sample {
	s := adapters.Sample{Schema: schema, Time: l.o.Now()}
	add := func(point int, v adapters.Value) {
		s.Readings = append(s.Readings, adapters.Reading{Point: point, Value: v})
	}
	text := func(point int, t string) {
		if t != "" {
			add(point, adapters.StringValue(t))
		}
	}
	text(0, "loss")
	text(1, x.Destination)
	text(2, x.Device)
	text(3, x.Reason)
	if !x.Open || x.Count > 0 {
		add(4, adapters.UintValue(x.Count))
	}
	if x.First.Seq > 0 {
		text(5, fmt.Sprintf("%016x", x.First.Epoch))
		add(6, adapters.UintValue(x.First.Seq))
	}
	if x.Last.Seq > 0 {
		add(7, adapters.UintValue(x.Last.Seq))
	}
	if x.Open {
		add(8, adapters.BoolValue(true))
	}
	for i, m := range []Moment{x.From, x.To} {
		if (m != Moment{}) {
			text(9+i, l.o.Time(m))
		}
	}
	return s
}
