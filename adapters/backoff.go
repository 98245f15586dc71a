package adapters

import (
	"math/rand/v2"
	"time"
)

// A Backoff spaces out attempts at something that keeps failing: exponentially from Min, at most
// Max, each pause shortened by up to a quarter at random so that fifty boxes do not come back in
// step. The zero Backoff is not usable; it is not safe for concurrent use.
type Backoff struct {
	Min, Max time.Duration
	failures int
}

// Fail notes a failure and returns how long to wait before the next attempt.
func (b *Backoff) Fail() time.Duration {
	d := b.Max
	if b.failures < 32 {
		if grown := b.Min << b.failures; grown > 0 && grown < b.Max {
			d = grown
		}
	}
	b.failures++
	return d - time.Duration(rand.Int64N(int64(d)/4+1))
}

// Failures returns how many failures came in a row.
func (b *Backoff) Failures() int { return b.failures }

// Reset notes a success.
func (b *Backoff) Reset() { b.failures = 0 }
