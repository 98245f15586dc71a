package buffer

import (
	"context"
	"sync"
	"time"
)

// A committer turns many requests for a sync into few syncs. Who asks first leads: it waits a
// moment for the company it expects, syncs, and answers for all who had asked before it began.
type committer struct {
	sync func() error

	token  chan struct{} // held by the leader
	mu     sync.Mutex
	next   *round
	expect int           // how many may come: those served last, and those who came meanwhile
	took   time.Duration // the last sync
}

type round struct {
	n     int
	want  int
	ready chan struct{} // closed when n reaches want
	done  chan struct{}
	err   error
}

func newCommitter(sync func() error) *committer {
	return &committer{sync: sync, token: make(chan struct{}, 1), next: newRound()}
}

func newRound() *round { return &round{done: make(chan struct{})} }

// commit returns when a sync that began after the call has ended, with its error.
func (c *committer) commit(ctx context.Context) error {
	c.mu.Lock()
	r := c.next
	if r.n++; r.ready != nil && r.n == r.want {
		close(r.ready)
	}
	c.mu.Unlock()
	select {
	case <-r.done:
		return r.err
	case <-ctx.Done():
		return ctx.Err()
	case c.token <- struct{}{}:
	}
	defer func() { <-c.token }()
	select {
	case <-r.done: // the leader before took this round along
		return r.err
	default:
	}
	c.gather(r)
	c.mu.Lock()
	c.next = newRound()
	c.mu.Unlock()
	start := time.Now()
	r.err = c.sync()
	c.took = time.Since(start)
	c.mu.Lock()
	c.expect = r.n + c.next.n
	c.mu.Unlock()
	close(r.done)
	return r.err
}

// gather waits until all have come who may, at most a quarter of what a sync takes. Without it N
// concurrent callers would fall into a rhythm of one and N-1.
func (c *committer) gather(r *round) {
	wait := min(c.took/4, 5*time.Millisecond)
	c.mu.Lock()
	if r.n >= c.expect || wait < 20*time.Microsecond {
		c.mu.Unlock()
		return
	}
	r.want, r.ready = c.expect, make(chan struct{})
	c.mu.Unlock()
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-r.ready:
	case <-t.C:
	}
}
