package report

import (
	"math"
	"slices"
	"time"

	"gateway/adapters"
)

// A window gathers the readings of one point.
type window struct {
	open     bool
	end      adapters.Instant
	n        uint64 // good readings
	seen     bool   // any reading
	min, max float64
	sum, low float64 // the sum and what rounding took from it (Neumaier)
	numbers  bool
	last     adapters.Value
	worst    adapters.Reading // the last that was not good
}

func (w *window) add(r *adapters.Reading, now adapters.Instant, size time.Duration) {
	if !w.open {
		// Windows lie at whole multiples, so that those of all points and devices end together.
		*w = window{open: true, end: (now/adapters.Instant(size) + 1) * adapters.Instant(size), min: math.Inf(1), max: math.Inf(-1)}
	}
	w.seen = true
	if r.Quality != adapters.Good {
		w.worst = *r
		return
	}
	w.n++
	w.last = r.Value
	f, ok := r.Value.Number()
	if !ok {
		return
	}
	w.numbers = true
	w.min, w.max = min(w.min, f), max(w.max, f)
	t := w.sum + f
	if math.Abs(w.sum) >= math.Abs(f) {
		w.low += w.sum - t + f
	} else {
		w.low += f - t + w.sum
	}
	w.sum = t
}

// reading is what fn gives of the window; without a good reading it is as bad as the last one.
func (w *window) reading(fn Func) adapters.Reading {
	if fn == Count {
		return adapters.Reading{Value: adapters.UintValue(w.n)}
	}
	if w.n == 0 {
		return adapters.Reading{Quality: w.worst.Quality, Reason: w.worst.Reason, Value: w.worst.Value}
	}
	if fn == Last {
		return adapters.Reading{Value: w.last}
	}
	if !w.numbers {
		return adapters.Reading{Quality: adapters.Bad, Reason: adapters.ReasonParse}
	}
	switch fn {
	case Min:
		return adapters.Reading{Value: adapters.FloatValue(w.min)}
	case Max:
		return adapters.Reading{Value: adapters.FloatValue(w.max)}
	}
	return adapters.Reading{Value: adapters.FloatValue((w.sum + w.low) / float64(w.n))}
}

// closeWindows returns the samples of the windows that ended by now, the earliest first. Their time
// is the end of the window.
func (d *device) closeWindows(now adapters.Instant) (closed []adapters.Sample) {
	for {
		end := adapters.Instant(math.MaxInt64)
		for i := range d.points {
			if w := &d.points[i].win; w.open && w.end <= now {
				end = min(end, w.end)
			}
		}
		if end == math.MaxInt64 {
			return closed
		}
		s := adapters.Sample{Schema: d.out, Time: end}
		for i := range d.points {
			p := &d.points[i]
			if !p.win.open || p.win.end != end {
				continue
			}
			for k, fn := range p.rule.Aggregate {
				r := p.win.reading(fn)
				r.Point = d.place[i] + k
				s.Readings = append(s.Readings, r)
			}
			p.win.open = false
		}
		slices.SortFunc(s.Readings, func(a, b adapters.Reading) int { return a.Point - b.Point })
		closed = append(closed, s)
	}
}
