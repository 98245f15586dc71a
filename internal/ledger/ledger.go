// Package ledger keeps account of what was delivered and, above all, of what was not. Losses are
// gathered for some seconds, written to the log, and travel through the queue as samples of the
// device "gateway" to every destination; totals are kept in a file across restarts.
package ledger

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"gateway/adapters"
	"gateway/buffer"
)

// Device is the name under which the gateway speaks of itself.
const Device = "gateway"

// Why samples are lost before they reach the queue. Those of the queue are buffer's.
const (
	Overflow  = "overflow"  // the writer could not keep up
	SetAside  = "set aside" // a broker refused it; it waits among the dead letters
	Forgotten = "forgotten" // a dead letter that made room for another
	Refused   = "refused"   // the queue is full and takes nothing
)

// A Loss is samples that a destination did not get.
type Loss struct {
	Destination string // empty: it reaches none, for it was never queued
	Device      string // where one device is concerned
	Reason      string
	Count       uint64
	First, Last buffer.ID        // of the range; zero where nothing was queued
	Open        bool             // First on, nobody knows how many: what a power cut took
	From, To    adapters.Instant // times of the samples; zero where not known
}

// Options configure a Ledger.
type Options struct {
	Path   string        // the file of the totals; empty: nowhere
	Sink   adapters.Sink // takes the records: the writer of the queue
	Now    adapters.Clock
	Time   func(adapters.Instant) string // a wall time for people and programs, RFC 3339; empty where unknown
	Gather time.Duration                 // how long losses are gathered into one record; default 10s
	Logger *slog.Logger
}

// schema is that of loss records. Values that are not known are left out.
var schema = &adapters.Schema{Device: Device, Points: []adapters.Point{
	{Name: "event"}, {Name: "destination"}, {Name: "device"}, {Name: "reason"}, {Name: "count"},
	{Name: "epoch"}, {Name: "first"}, {Name: "last"}, {Name: "open"}, {Name: "from"}, {Name: "to"},
}}

// key is what losses must share to be one record.
type key struct{ destination, device, reason string }

// A Ledger gathers losses. It is safe for concurrent use.
type Ledger struct {
	o Options

	mu       sync.Mutex
	gathered map[key][]Loss
	order    []key
	base     Totals // of earlier runs
	lost     Totals // of this one: the losses only
	sources  map[string]func() Counts
	urgent   chan struct{}
	unsaved  bool // a loss has been counted since the totals were written
	saved    string
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
		o.Time = func(adapters.Instant) string { return "" }
	}
	l := &Ledger{o: o, gathered: map[key][]Loss{}, base: newTotals(), lost: newTotals(),
		sources: map[string]func() Counts{}, urgent: make(chan struct{}, 1)}
	var err error
	if o.Path != "" {
		l.base, err = readTotals(o.Path)
	}
	return l, err
}

// Lost notes a loss. It does not block.
func (l *Ledger) Lost(x Loss) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lost.add(x)
	l.unsaved = true
	k := key{x.Destination, x.Device, x.Reason}
	list := l.gathered[k]
	if len(list) == 0 {
		l.order = append(l.order, k)
		if len(l.order) == 1 {
			select {
			case l.urgent <- struct{}{}:
			default:
			}
		}
	}
	if n := len(list); n > 0 && list[n-1].joins(x) {
		list[n-1].join(x)
		return
	}
	// Ranges that do not touch are records of their own, up to a bound: a storm of single losses must
	// not fill the queue that it came from. Beyond it they are one range with the count inside.
	if len(list) >= maxRanges {
		list[len(list)-1].join(x)
		return
	}
	l.gathered[k] = append(list, x)
}

// maxRanges is how many ranges of one kind are recorded apart in one gathering.
const maxRanges = 20

// joins tells whether x continues l without a gap that somebody could fall into.
func (l *Loss) joins(x Loss) bool {
	if l.Open || x.Open || l.First.Epoch != x.First.Epoch {
		return false
	}
	return l.First.Seq == 0 || x.First.Seq == l.Last.Seq+1
}

func (l *Loss) join(x Loss) {
	l.Count += x.Count
	l.Open = l.Open || x.Open
	if x.Last.Seq > 0 {
		l.Last = x.Last
	}
	if x.From != 0 && (l.From == 0 || x.From < l.From) {
		l.From = x.From
	}
	l.To = max(l.To, x.To)
}

// Run writes the records and the totals until ctx ends, and then once more.
func (l *Ledger) Run(ctx context.Context) error {
	ticker := time.NewTicker(l.o.Gather)
	defer ticker.Stop()
	saved := time.Now()
	for {
		select {
		case <-ctx.Done():
			l.flush()
			return l.save()
		case <-l.urgent:
			// The first of a storm is told after a second, the others with the next tick.
			select {
			case <-ctx.Done():
			case <-time.After(time.Second):
				l.flush()
			}
		case <-ticker.C:
			l.flush()
			if !l.hasNews() && time.Since(saved) < quietSave {
				continue
			}
			if err := l.save(); err != nil {
				l.o.Logger.Warn("the account cannot be written; trying on", "err", err)
				continue
			}
			saved = time.Now()
		}
	}
}

// hasNews tells whether a loss was counted that is not yet among the totals on disk.
func (l *Ledger) hasNews() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.unsaved
}

// flush offers a record for each range. What the writer does not take stays for the next time.
func (l *Ledger) flush() {
	l.mu.Lock()
	gathered, order := l.gathered, l.order
	l.gathered, l.order = map[key][]Loss{}, nil
	l.mu.Unlock()
	for n, k := range order {
		for i, x := range gathered[k] {
			if !l.o.Sink.Offer(l.record(&x)) {
				l.giveBack(order[n:], gathered, i)
				return
			}
			l.o.Logger.Warn("samples were lost", "destination", x.Destination, "device", x.Device, "reason", x.Reason, "count", x.Count,
				"first", x.First.Seq, "last", x.Last.Seq, "open", x.Open)
		}
	}
}

// giveBack puts what was not told before what was gathered meanwhile.
func (l *Ledger) giveBack(order []key, gathered map[key][]Loss, told int) {
	l.mu.Lock()
	newer, newOrder := l.gathered, l.order
	l.gathered, l.order = map[key][]Loss{}, nil
	for i, k := range order {
		list := gathered[k]
		if i == 0 {
			list = list[told:]
		}
		l.gathered[k], l.order = list, append(l.order, k)
	}
	for _, k := range newOrder {
		if _, ok := l.gathered[k]; !ok {
			l.order = append(l.order, k)
		}
		for _, x := range newer[k] {
			if list := l.gathered[k]; len(list) > 0 && list[len(list)-1].joins(x) {
				list[len(list)-1].join(x)
			} else {
				l.gathered[k] = append(list, x)
			}
		}
	}
	l.mu.Unlock()
}

func (l *Ledger) record(x *Loss) adapters.Sample {
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
	if x.From != 0 {
		text(9, l.o.Time(x.From))
		text(10, l.o.Time(x.To))
	}
	return s
}
