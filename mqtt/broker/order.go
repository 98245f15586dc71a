package broker

import (
	"runtime"
	"time"
)

// The order of what different connections say is nobody's promise, but people count on it: one client subscribes,
// and another that was told so publishes. The two lie microseconds apart, and which goroutine comes first is
// chance, so a connection that was quiet, and loses nothing by it, gives way for a moment.

// quietTime is how long a connection has said nothing when it is worth a moment to find out who spoke first: longer
// than any that is at work.
const quietTime = int64(20 * time.Millisecond)

// stepBack lets one go first that was ready to run just before. Of connections that became readable together the
// runtime wakes the last one first, so that the first to wake gives way, once, and the others do not.
func (b *Broker) stepBack() {
	if b.steppedBack.CompareAndSwap(false, true) {
		runtime.Gosched()
		b.steppedBack.Store(false)
	}
}

// lookAgain returns the route of w.pub, whose route had no targets, after a moment: where another processor has woken
// the connection of somebody whose SUBSCRIBE is under way, stepBack is not enough. A retained message need not wait,
// for who comes later finds it.
func (c *conn) lookAgain(w *worker, r *route) *route {
	if !w.quiet || w.pub.retain {
		return r
	}
	w.quiet = false
	runtime.Gosched()
	if c.b.fresh(r) {
		pause()
		runtime.Gosched()
	}
	return c.route(r.topic)
}
