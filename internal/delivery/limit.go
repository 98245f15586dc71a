package delivery

import "time"

// A bucket is a token bucket: rate a second, with a second's worth saved up at most. What is taken
// may exceed what is there, for a message's size is known only when it is made; the next one waits
// for the debt to be paid. The zero rate is no limit.
type bucket struct {
	rate  float64
	level float64
	last  time.Time
}

func newBucket(rate float64, now time.Time) bucket { return bucket{rate: rate, level: rate, last: now} }

// wait returns how long nothing may be taken.
func (b *bucket) wait(now time.Time) time.Duration {
	if b.rate <= 0 {
		return 0
	}
	b.level = min(b.rate, b.level+now.Sub(b.last).Seconds()*b.rate)
	b.last = now
	if b.level > 0 {
		return 0
	}
	// At least a little more than to zero, so that the wait makes progress.
	return time.Duration(-b.level/b.rate*float64(time.Second)) + time.Millisecond
}

func (b *bucket) take(n int) {
	if b.rate > 0 {
		b.level -= float64(n)
	}
}
