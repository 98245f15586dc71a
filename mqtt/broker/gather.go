package broker

import "time"

// A gatherer decides when a connection is left unread for a moment, so that one wake-up brings many
// packets: where a client sends faster than a wake-up, a read and a write for each packet are worth, most of
// the time goes into those. It is what network cards do with their interrupts. Nobody waits who need
// not: a client that waits for each answer, or sends now and then, is read at once, and one whose
// window is too small to gain is let alone after a try.
type gatherer struct {
	last     int64 // broker time of the batch before
	gathered bool  // that batch was waited for
	rest     int   // batches before the next try
}

const (
	// gatherTime is how long a client is left unread; Linux makes some 70 µs of it.
	gatherTime = 20 * time.Microsecond
	// gatherBelow is the time between two batches below which it is worth a try.
	gatherBelow = int64(100 * time.Microsecond)
	// gatherYield is how many packets a wait must have brought to be followed by another.
	gatherYield = 8
	// gatherRest is how many batches follow a wait that brought fewer before the next try.
	gatherRest = 64
)

// after tells whether to wait before the next read, after a batch of n packets that came at the
// broker time at.
func (g *gatherer) after(n int64, at int64) bool {
	dense := n > 1 && at-g.last < gatherBelow
	g.last = at
	switch {
	case g.gathered:
		g.gathered = n >= gatherYield
		if !g.gathered {
			g.rest = gatherRest
		}
	case g.rest > 0:
		g.rest--
	default:
		g.gathered = dense
	}
	return g.gathered
}
