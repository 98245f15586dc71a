// Package report decides which readings are worth reporting: by deadband, heartbeat, minimum interval
// and aggregation, for all adapters alike. It stands between the adapters and the writer.
package report

import (
	"math"
	"slices"
	"sync"
	"time"

	"gateway/adapters"
)

// A Func is what an aggregation gives of a window.
type Func string

const (
	Min   Func = "min"
	Max   Func = "max"
	Mean  Func = "mean"
	Last  Func = "last"
	Count Func = "count" // how many good readings there were
)

// wholeMean is how many digits the mean of whole numbers has, or of states.
const wholeMean = 3

// A Rule is how one point is reported. The zero Rule reports every reading.
//
// A change of quality is always reported. With OnChange a reading is reported when it differs from
// the last one reported by at least Deadband and by at least Percent of that one; other values than
// numbers when they differ. Heartbeat reports it anyway when nothing was for so long. MinInterval
// reports it at most so often; the change that was too early is noticed afterwards.
//
// With Window readings are gathered over whole multiples of it in running time, and the point
// POINT becomes the points POINT_min and so on; Last alone keeps the name. The other settings do not
// apply then.
type Rule struct {
	OnChange    bool
	Deadband    float64
	Percent     float64
	Heartbeat   time.Duration
	MinInterval time.Duration
	Window      time.Duration
	Aggregate   []Func
}

func (r *Rule) every() bool {
	return !r.OnChange && r.MinInterval == 0 && r.Window == 0
}

// Stats count what a Filter held back.
type Stats struct {
	Readings uint64 // not reported, or gathered
	Samples  uint64 // of which no reading was left
}

// A Filter is a Sink that hands on what is worth reporting. It is safe for concurrent use.
type Filter struct {
	next adapters.Sink
	rule func(device, point string) Rule

	mu      sync.Mutex
	devices map[*adapters.Schema]*device
	stats   Stats
}

// New returns a Filter in front of next; rule gives each point's rule and is asked once for each
// schema.
func New(next adapters.Sink, rule func(device, point string) Rule) *Filter {
	return &Filter{next: next, rule: rule, devices: map[*adapters.Schema]*device{}}
}

// device is the state of one schema.
type device struct {
	pass    bool // no point has a rule
	points  []point
	place   []int            // of each point in out
	out     *adapters.Schema // what the samples handed on are of
	windows []time.Duration  // the different ones
}

type point struct {
	rule     Rule
	reported bool // something was
	at       adapters.Instant
	value    adapters.Value
	quality  adapters.Quality
	reason   adapters.Reason
	win      window
}

// Offer takes a sample and hands on what of it is to be reported. It reports false only when the
// next sink refused something.
func (f *Filter) Offer(s adapters.Sample) bool {
	f.mu.Lock()
	d := f.devices[s.Schema]
	if d == nil {
		d = f.newDevice(s.Schema)
		f.devices[s.Schema] = d
	}
	if d.pass {
		f.mu.Unlock()
		return f.next.Offer(s)
	}
	closed := d.closeWindows(s.Time)
	kept := s.Readings[:0]
	for i := range s.Readings {
		r := s.Readings[i]
		p := &d.points[r.Point]
		switch {
		case p.rule.Window > 0:
			p.win.add(&r, s.Time, p.rule.Window)
		case p.due(&r, s.Time):
			r.Point = d.place[r.Point]
			kept = append(kept, r)
			continue
		}
		f.stats.Readings++
	}
	if len(kept) == 0 {
		f.stats.Samples++
	}
	f.mu.Unlock()

	ok := true
	for _, c := range closed {
		ok = f.next.Offer(c) && ok
	}
	if len(kept) > 0 && !f.next.Offer(adapters.Sample{Schema: d.out, Time: s.Time, Readings: kept}) {
		f.forget(d, s.Time)
		return false
	}
	return ok
}

// forget undoes the report of an instant that the next sink refused: the same value is due again with
// the next reading.
func (f *Filter) forget(d *device, at adapters.Instant) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range d.points {
		if p := &d.points[i]; p.at == at {
			p.reported = false
		}
	}
}

// Flush hands on the windows that are still open, when the gateway stops.
func (f *Filter) Flush() {
	f.mu.Lock()
	var closed []adapters.Sample
	for _, d := range f.devices {
		closed = append(closed, d.closeWindows(math.MaxInt64)...)
	}
	f.mu.Unlock()
	for _, c := range closed {
		f.next.Offer(c)
	}
}

// Stats returns what was held back.
func (f *Filter) Stats() Stats {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.stats
}

func (f *Filter) newDevice(s *adapters.Schema) *device {
	d := &device{pass: true, points: make([]point, len(s.Points)), place: make([]int, len(s.Points))}
	out := &adapters.Schema{Bus: s.Bus, Device: s.Device, Labels: s.Labels}
	for i, p := range s.Points {
		r := f.rule(s.Device, p.Name)
		if r.Window > 0 && len(r.Aggregate) == 0 {
			r.Aggregate = []Func{Last}
		}
		d.points[i].rule, d.place[i] = r, len(out.Points)
		d.pass = d.pass && r.every()
		if r.Window == 0 {
			out.Points = append(out.Points, p)
			continue
		}
		if !slices.Contains(d.windows, r.Window) {
			d.windows = append(d.windows, r.Window)
		}
		for _, fn := range r.Aggregate {
			q := p
			if len(r.Aggregate) > 1 || fn != Last {
				q.Name += "_" + string(fn)
			}
			switch {
			case fn == Count:
				q.Unit, q.Decimals = "", 0
			case fn == Mean && q.Decimals == 0:
				q.Decimals = wholeMean
			case fn == Mean && q.Decimals > 0:
				q.Decimals++ // a mean is finer than what it is made of
			}
			out.Points = append(out.Points, q)
		}
	}
	if d.pass {
		return &device{pass: true}
	}
	d.out = out
	return d
}

// due tells whether a reading is reported, and notes it if so.
func (p *point) due(r *adapters.Reading, now adapters.Instant) bool {
	quiet := now.Sub(p.at)
	switch rule := &p.rule; {
	case rule.every(), !p.reported, r.Quality != p.quality, r.Reason != p.reason:
	case quiet < rule.MinInterval:
		return false
	case rule.Heartbeat > 0 && quiet >= rule.Heartbeat:
	case rule.OnChange && !rule.changed(p.value, r.Value):
		return false
	}
	p.reported, p.at, p.value, p.quality, p.reason = true, now, r.Value, r.Quality, r.Reason
	return true
}

func (r *Rule) changed(from, to adapters.Value) bool {
	a, numeric := from.Number()
	b, both := to.Number()
	if !numeric || !both {
		return from != to
	}
	if from.Kind() == to.Kind() && from.Kind() != adapters.Float && r.Deadband == 0 && r.Percent == 0 {
		return from != to // integers beyond 2^53
	}
	diff := math.Abs(b - a)
	return diff > 0 && diff >= r.Deadband && diff >= math.Abs(a)*r.Percent/100
}
