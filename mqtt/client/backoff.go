package client

import (
	"math/rand/v2"
	"time"
)

// Backoff says how long to wait between attempts to connect: from Min, doubled each time, at most
// Max, which is at least Min, each pause shortened by up to a half at random so that a fleet does not come back in step.
// It starts over once a connection has lasted for Healthy, not before: a server that accepts and
// then throws out is not asked again at once for ever.
type Backoff struct {
	Min, Max time.Duration
	Healthy  time.Duration // default 10 s
}

// The pauses after the server said that another client took the session over.
var evicted = Backoff{Min: 5 * time.Second, Max: 2 * time.Minute}

func (b Backoff) pause(failures int) time.Duration {
	d := b.Max
	if n := failures - 1; n < 32 {
		if grown := b.Min << n; grown > 0 && grown < b.Max {
			d = grown
		}
	}
	return d - time.Duration(rand.Int64N(int64(d)/2+1))
}

// suspicious is how many short connections in a row, each ended by the server without a word, look like the
// work of another client with our identifier.
const suspicious = 5
