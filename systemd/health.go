package systemd

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"
)

// Health is the progress of the service's loops. Each loop that must never stand still is added with
// a counter that it moves; what a loop achieves, whether a link is up or a device answers, plays no
// part: restarting the service mends neither. The zero value is ready and healthy.
type Health struct {
	mu    sync.Mutex
	loops []*loop
}

type loop struct {
	name  string
	beat  func() uint64
	limit time.Duration
	last  uint64
	moved time.Time // when the counter was last seen to have moved
}

// Add puts a loop under watch: beat returns a counter that a loop that is alive moves at least once
// in every limit. It may be called from any goroutine and must not block.
func (h *Health) Add(name string, limit time.Duration, beat func() uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.loops = append(h.loops, &loop{name: name, beat: beat, limit: limit, last: beat(), moved: time.Now()})
}

// Check returns an error that names the loops that stand still, nil when there is none.
func (h *Health) Check() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	var stuck []string
	for _, l := range h.loops {
		if beat := l.beat(); beat != l.last {
			l.last, l.moved = beat, now
		} else if idle := now.Sub(l.moved); idle > l.limit {
			stuck = append(stuck, fmt.Sprintf("%s has not moved for %v", l.name, idle.Round(time.Second)))
		}
	}
	if stuck == nil {
		return nil
	}
	return fmt.Errorf("systemd: %s", strings.Join(stuck, "; "))
}

// Watch gives the service manager its signs of life for as long as healthy returns nil, and returns
// when ctx ends. Once healthy returns an error there are none, the journal says why, and the manager
// ends the service with SIGABRT, upon which the Go runtime prints what every goroutine was doing. A
// service that recovers in time lives on.
func (n *Notifier) Watch(ctx context.Context, healthy func() error, log *slog.Logger) error {
	if n.watchdog == 0 {
		<-ctx.Done()
		return nil
	}
	// Half of the interval is what sd_watchdog_enabled(3) recommends; a third leaves room for one that
	// comes late on a busy single core.
	tick := time.NewTicker(max(n.watchdog/3, time.Millisecond))
	defer tick.Stop()
	said, deaf := false, false
	for {
		err := healthy()
		switch {
		case err != nil && !said:
			said = true
			log.Error("the watchdog gets no more signs of life: a loop stands still", "err", err, "restart_within", n.watchdog)
			n.Status("standing still: " + err.Error()) // its failure is told below, at the next sign of life
		case err == nil && said:
			said = false
			log.Warn("all loops move again; the watchdog is served")
			n.Status("running again after a loop stood still")
		}
		if err == nil {
			if err := n.Alive(); err != nil && !deaf {
				deaf = true
				log.Warn("the service manager cannot be told that the service is alive", "err", err)
			} else if err == nil {
				deaf = false
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}
