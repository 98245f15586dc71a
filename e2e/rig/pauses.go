package rig

import (
	"sync"
	"testing"
	"time"
)

// Pauses are the times at which the machine stood still, or left this test none of its processor. A bound on how long
// something takes is a bound on the program and not on them.
type Pauses struct {
	mu   sync.Mutex
	last time.Time // when it was last looked
	all  []pause
}

type pause struct{ from, to time.Time }

// A pause is longer than this: a ticker is rarely late by as much where the machine runs.
const leastPause = 50 * time.Millisecond

// WatchPauses looks every 10 ms, until the test's end, whether the machine runs.
func WatchPauses(t testing.TB) *Pauses {
	p := &Pauses{last: time.Now()}
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				p.look(time.Now())
			case <-stop:
				return
			}
		}
	}()
	t.Cleanup(func() { close(stop); <-done })
	return p
}

func (p *Pauses) look(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if now.Sub(p.last) > leastPause {
		p.all = append(p.all, pause{p.last, now})
	}
	p.last = now
}

// Within returns how long the machine stood still between two times.
func (p *Pauses) Within(from, to time.Time) (sum time.Duration) {
	p.look(time.Now()) // the watcher itself may not have run yet since the last one
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, x := range p.all {
		if x.from.Before(from) {
			x.from = from
		}
		if x.to.After(to) {
			x.to = to
		}
		sum += max(0, x.to.Sub(x.from))
	}
	return sum
}

// Between returns how long the machine ran between two times.
func (p *Pauses) Between(from, to time.Time) time.Duration { return to.Sub(from) - p.Within(from, to) }
