package broker

import (
	"net"
	"sync"
	"time"
)

// rivals notices two clients that have one client identifier and throw each other out for ever.
type rivals struct {
	mu   sync.Mutex
	seen map[string]*rivalry
}

type rivalry struct {
	since, last int64
	times       int
	told        int64
}

const (
	rivalWindow = 30 * time.Second // take-overs closer together than this belong together
	rivalTimes  = 3                // so many of them are no accident
	maxRivals   = 1000
)

// note counts a take-over, and says who it is when they go on.
func (r *rivals) note(b *Broker, id string, old, heir net.Addr) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := b.now()
	v := r.seen[id]
	if v == nil || now-v.last > int64(rivalWindow) {
		if r.seen == nil || len(r.seen) >= maxRivals {
			r.seen = make(map[string]*rivalry)
		}
		v = &rivalry{since: now, told: -int64(rivalWindow)}
		r.seen[id] = v
	}
	v.last = now
	v.times++
	if v.times >= rivalTimes && now-v.told >= int64(rivalWindow) {
		v.told = now
		b.stats.rivals.Add(1)
		b.log.Warn("clients with the same identifier evict each other: give each its own", "client", id,
			"times", v.times, "within", time.Duration(now-v.since), "address", heir, "other", old)
	}
}
