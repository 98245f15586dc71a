package modbus

import (
	"slices"
	"time"

	gb "github.com/goburrow/modbus"

	"gateway/adapters"
)

// learned is what a device has taught about itself by its refusals: which items it does not have,
// which it does not answer for, which holes must not be read across, and how much it gives at once.
// All of it is doubted again now and then.
type learned struct {
	device   *Device
	items    []item
	troubles map[int]*trouble
	holes    map[Register]time.Time // the first address of a gap, and until when it is not crossed
	size     [2]sizeLimit           // registers, bits
	cells    int
	touched  bool // something changed since the plans were made
	wake     time.Time
}

// A trouble is why an item is left out for a while.
type trouble struct {
	reason adapters.Reason
	until  time.Time
	wait   time.Duration
	told   bool // it is in the log
}

// How long what was learned is believed: a refused address is tried again after patience that
// doubles, for a device may refuse everything while it starts; sooner where it called it a failure of
// its own; a device that was mute for one block after seconds that double.
const (
	refusedWait = time.Minute
	failureWait = 10 * time.Second
	maxWait     = 24 * time.Hour
	sizeBelief  = 24 * time.Hour
	maxDoubts   = 8 // refused addresses that are tried again in one cycle
)

// A sizeLimit is what is known of the most elements that a request may ask for: lo have been given,
// hi have been refused; between them is not known.
type sizeLimit struct {
	most  int // by configuration
	lo    int
	hi    int // 0: nothing has been refused
	until time.Time
}

func (s *sizeLimit) limit() int {
	switch {
	case s.hi == 0:
		return s.most
	case s.hi-s.lo <= 1:
		return max(1, s.lo)
	}
	return (s.lo + s.hi) / 2
}

func newLearned(d *Device, items []item) learned {
	return learned{
		device: d, items: items, troubles: map[int]*trouble{}, holes: map[Register]time.Time{},
		size: [2]sizeLimit{{most: d.MaxRegisters}, {most: d.MaxBits}},
	}
}

func (l *learned) of(k Kind) *sizeLimit {
	if k.Bits() {
		return &l.size[1]
	}
	return &l.size[0]
}

// limits returns what the planner has to keep.
func (l *learned) limits() limits {
	return limits{registers: l.size[0].limit(), bits: l.size[1].limit(), hole: l.device.Hole, avoid: l.avoid}
}

// changed tells whether plans that were made before do not hold any more.
func (l *learned) changed(now time.Time) bool {
	if l.touched || !l.wake.IsZero() && !now.Before(l.wake) {
		l.touched, l.wake = false, time.Time{}
		for hole, until := range l.holes {
			if !until.After(now) {
				delete(l.holes, hole)
			} else {
				l.wakeAt(until)
			}
		}
		for i := range l.size {
			if s := &l.size[i]; s.hi != 0 {
				if !s.until.After(now) {
					s.hi = 0
				} else {
					l.wakeAt(s.until)
				}
			}
		}
		for _, t := range l.troubles {
			if t.until.After(now) {
				l.wakeAt(t.until)
			}
		}
		return true
	}
	return false
}

func (l *learned) wakeAt(t time.Time) {
	if l.wake.IsZero() || t.Before(l.wake) {
		l.wake = t
	}
}

// ask tells whether an item is to be asked for. One that is in trouble, and whose time to be tried
// again has come, is asked for apart from those that are not; doubts are the cells of those that the
// plan has already, for a device that refuses everything must not be asked for all of it at once.
func (l *learned) ask(n int, now time.Time, doubts map[int]bool) bool {
	t := l.troubles[n]
	if t == nil {
		return true
	}
	if t.until.After(now) {
		return false
	}
	cell := l.items[n].cell
	if len(doubts) >= maxDoubts && !doubts[cell] {
		l.wakeAt(now) // in the next cycle
		return false
	}
	doubts[cell] = true
	return true
}

// avoid tells whether reading along the addresses from..to of a table would touch trouble.
func (l *learned) avoid(k Kind, from, to int) bool {
	for n := range l.troubles {
		it := &l.items[n]
		if it.kind == k && int(it.address) < to && it.end() > from {
			return true
		}
	}
	for h := range l.holes {
		if h.Kind == k && int(h.Address) >= from && int(h.Address) < to {
			return true
		}
	}
	return false
}

// good notes that a block was answered.
func (l *learned) good(b *block) {
	s := l.of(b.kind)
	if b.count > s.lo {
		s.lo = b.count
	}
	if s.hi != 0 && b.count >= s.hi {
		s.hi = 0
	}
	if len(l.troubles) == 0 {
		return
	}
	for _, n := range b.items {
		if l.troubles[n] != nil {
			delete(l.troubles, n)
			l.items[n].cell = 0
			l.touched = true
		}
	}
}

// refuse notes that a block is refused, and that parting it is of no use.
func (l *learned) refuse(b *block, refusal error, now time.Time) {
	wait := refusedWait
	if exception(refusal) == gb.ExceptionCodeServerDeviceFailure {
		wait = failureWait
	}
	l.cells++
	for _, n := range b.items {
		l.trouble(n, reasonOf(refusal), wait, now)
		l.items[n].cell = l.cells
	}
}

// mute notes that the device, which answers otherwise, does not answer for a block. The second time
// the block is parted, so that in the end only what is mute is left out.
func (l *learned) mute(b *block, now time.Time) {
	again := l.troubles[b.items[0]] != nil
	for i, n := range b.items {
		l.trouble(n, adapters.ReasonTimeout, l.device.Backoff.Min, now)
		if i == 0 || again && i == (len(b.items)+1)/2 {
			l.cells++
		}
		l.items[n].cell = l.cells
	}
}

func (l *learned) trouble(n int, r adapters.Reason, wait time.Duration, now time.Time) {
	t := l.troubles[n]
	if t == nil {
		t = &trouble{wait: wait}
		l.troubles[n] = t
	} else {
		t.wait = min(2*t.wait, maxWait)
	}
	t.reason, t.until = r, now.Add(t.wait)
	l.touched = true
}

// news returns the items that are in trouble and of which that was not told yet. One that was mute only once
// may have been unlucky.
func (l *learned) news() (items []int) {
	for n, t := range l.troubles {
		if !t.told && (t.reason != adapters.ReasonTimeout || t.wait > l.device.Backoff.Min) {
			t.told = true
			items = append(items, n)
		}
	}
	slices.Sort(items)
	return items
}

// parted notes that a block was refused, while its two halves, a up to b, are not: it was too much
// at once, or nobody may read what lies between them.
func (l *learned) parted(whole, a, b *block, now time.Time) {
	l.touched = true
	if end := int(a.address) + a.count; end < int(b.address) {
		l.holes[Register{a.kind, uint16(end)}] = now.Add(sizeBelief)
		return
	}
	s := l.of(whole.kind)
	if s.hi == 0 || whole.count < s.hi {
		s.hi, s.until = whole.count, now.Add(sizeBelief)
	}
	if s.lo >= s.hi {
		s.lo = max(a.count, b.count)
	}
}
