package packet

import (
	"sync"
	"sync/atomic"
	"time"
)

// A Budget bounds what the Readers that share it hold together beyond the buffers of 16 KiB that each may have:
// packets larger than that while they arrive, each with its copy while it grows. Where it does not suffice, the packet that
// arrives most slowly makes room, so that packets that are never finished keep nobody out. A nil Budget is no bound.
type Budget struct {
	mu    sync.Mutex
	left  int
	loans map[*loan]struct{}
}

// A loan is what one packet has of a Budget.
type loan struct {
	of    *Budget
	bytes int          // guarded by of.mu
	since time.Time    // when it began
	got   atomic.Int64 // bytes of the packet so far
	end   func()       // ends the Reader's stream
}

// NewBudget returns a Budget of so many bytes.
func NewBudget(bytes int) *Budget { return &Budget{left: bytes, loans: make(map[*loan]struct{})} }

// lend begins a loan for a packet of which some bytes have arrived; nil where there is no bound.
func (b *Budget) lend(got int, end func()) *loan {
	if b == nil {
		return nil
	}
	l := &loan{of: b, since: time.Now(), end: end}
	l.got.Store(int64(got))
	b.mu.Lock()
	defer b.mu.Unlock()
	b.loans[l] = struct{}{}
	return l
}

// take adds n bytes to a loan, where so many are left or slower loans hold them, which end with that. It fails where the
// loan is the slowest itself, or has ended.
func (l *loan) take(n int) bool {
	if l == nil {
		return true
	}
	ended, ok := l.of.take(l, n)
	for _, e := range ended {
		e.end()
	}
	return ok
}

func (b *Budget) take(l *loan, n int) (ended []*loan, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	for b.left < n {
		slowest := l
		for other := range b.loans {
			if other.bytes > 0 && other.rate(now) < slowest.rate(now) {
				slowest = other
			}
		}
		if slowest == l {
			return ended, false
		}
		b.back(slowest)
		ended = append(ended, slowest)
	}
	if _, lent := b.loans[l]; !lent {
		return ended, false
	}
	b.left -= n
	l.bytes += n
	return ended, true
}

// rate is how many bytes of the packet came in a second.
func (l *loan) rate(now time.Time) float64 {
	return float64(l.got.Load()) / now.Sub(l.since).Seconds()
}

// back ends a loan. It needs mu.
func (b *Budget) back(l *loan) {
	if _, lent := b.loans[l]; lent {
		delete(b.loans, l)
		b.left += l.bytes
	}
}

// give takes n bytes off a loan, unless it has ended.
func (l *loan) give(n int) {
	if l == nil {
		return
	}
	l.of.mu.Lock()
	defer l.of.mu.Unlock()
	if _, lent := l.of.loans[l]; lent {
		l.bytes -= n
		l.of.left += n
	}
}

// over ends a loan whose packet is whole, or will not be.
func (l *loan) over() {
	if l == nil {
		return
	}
	l.of.mu.Lock()
	defer l.of.mu.Unlock()
	l.of.back(l)
}
