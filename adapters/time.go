package adapters

import "time"

// An Instant is a moment of the machine's running time: nanoseconds of CLOCK_BOOTTIME, which never
// steps and counts suspend. A Raspberry Pi has no real-time clock, so adapters never look at the
// wall clock; it is joined to an Instant when a sample leaves.
type Instant int64

// Sub returns i-j.
func (i Instant) Sub(j Instant) time.Duration { return time.Duration(i - j) }

// Add returns i+d.
func (i Instant) Add(d time.Duration) Instant { return i + Instant(d) }

// A Clock tells the present Instant.
type Clock func() Instant
