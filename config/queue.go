package config

import "time"

// Queue is the table [queue].
type Queue struct {
	At          Place
	MaxBytes    Size          `toml:"max_bytes"`   // bound of the whole queue on disk
	MaxAge      time.Duration `toml:"max_age"`     // of running time; what is older goes; 0: no bound
	WhenFull    string        `toml:"when_full"`   // drop-oldest, or refuse-newest
	Preallocate bool          `toml:"preallocate"` // take all of max_bytes at once
	Sync        Sync          `toml:"sync"`        // at most this much is lost to a power cut
}

// What happens when the queue is full.
const (
	DropOldest   = "drop-oldest"
	RefuseNewest = "refuse-newest"
)

func (q *Queue) setDefaults() {
	q.MaxBytes = 1 << 30
	q.WhenFull = DropOldest
	q.Sync.Window = time.Second
}

func (q *Queue) check() {
	if q.MaxBytes < 2<<20 {
		q.At.Errorf("max_bytes", "max_bytes = %v is too small for a queue; give it at least 2 MiB", q.MaxBytes)
	}
	if q.MaxAge < 0 || q.MaxAge > 0 && q.MaxAge < time.Minute {
		q.At.Errorf("max_age", "max_age = %v is no age that samples can reach; give a minute or more, or leave it out", q.MaxAge)
	}
	switch q.WhenFull {
	case DropOldest, RefuseNewest:
	default:
		q.At.Errorf("when_full", "when_full = %q is neither %q nor %q", q.WhenFull, DropOldest, RefuseNewest)
	}
	if q.Sync.Window > time.Minute {
		q.At.Warnf("sync", "a power cut may lose the last %v", q.Sync.Window)
	}
}
