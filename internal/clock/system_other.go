//go:build !linux

package clock

import (
	"crypto/rand"
	"time"

	"gateway/adapters"
)

type system struct {
	id    BootID
	start time.Time
}

// System returns the clocks of this machine. Where there is no Linux a boot lasts as long as the
// process: its id is drawn at random and running time counts from here by Go's monotonic clock.
// Whether the wall clock is synchronised is not known; such machines have a battery and an operating
// system that sets it, so it is trusted.
func System() Source {
	s := &system{start: time.Now()}
	_, _ = rand.Read(s.id[:]) // never fails: crypto/rand ends the process instead
	return s
}

func (s *system) BootID() (BootID, error) { return s.id, nil }

// Now is never zero: the zero Instant is before all others.
func (s *system) Now() adapters.Instant { return adapters.Instant(time.Since(s.start)) + 1 }

func (s *system) Wall() (wall int64, at adapters.Instant, synced bool) {
	now := time.Now()
	return now.Round(0).UnixNano(), adapters.Instant(now.Sub(s.start)) + 1, true
}
