package broker

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"gateway/mqtt"
	"gateway/mqtt/packet"
)

// A Broker is an MQTT broker. New makes one, Run runs it.
type Broker struct {
	opt   Options
	log   *slog.Logger
	start time.Time
	past  int64           // how long the broker ran before, in nanoseconds
	due   []*storedWill   // wills to be published at once, of clients that the last run lost
	ctx   context.Context // ends what waits for others when the broker stops
	stop  context.CancelFunc

	mu        sync.Mutex // before session.mu, which is before output.mu
	sessions  map[string]*session
	conns     map[*conn]struct{}
	listeners map[net.Listener]struct{}
	addrs     []net.Addr    // of Options.Listen; nil: not listening
	faults    []error       // of Options.Listen; nil: listening, or not tried yet
	tried     chan struct{} // closed when each of Options.Listen was tried once
	room      chan struct{} // there may be some again for a connection
	closed    atomic.Bool
	tasks     sync.WaitGroup // goroutines of connections and their outputs

	subs     subscriptions
	aclGen   atomic.Uint64
	retained retained
	journal  *journal // nil: without persistence
	own      struct {
		mu     sync.Mutex
		routes map[string]*route
	}

	queued    atomic.Int64 // bytes in all queues
	flying    atomic.Int64 // bytes kept to be sent again
	kept      atomic.Int64 // bytes of client identifiers and wills
	connected atomic.Int64
	pending   atomic.Int64
	stats     counters
	rivals    rivals
	quiet     limiter
	workers   sync.Pool
	readers   packet.Pool

	connecting *packet.Budget // of large CONNECT packets, of clients that nobody knows yet
	arriving   *packet.Budget // of other large packets

	steppedBack atomic.Bool // somebody has, and waits for the others
}

// New returns a broker with what its store holds. It listens from Listen on.
func New(o Options) (*Broker, error) {
	if err := o.fill(); err != nil {
		return nil, err
	}
	b := &Broker{
		opt:       o,
		log:       o.Logger,
		start:     time.Now(),
		sessions:  make(map[string]*session),
		conns:     make(map[*conn]struct{}),
		listeners: make(map[net.Listener]struct{}),
		addrs:     make([]net.Addr, len(o.Listen)),
		faults:    make([]error, len(o.Listen)),
		tried:     make(chan struct{}),
		room:      make(chan struct{}, 1),

		connecting: packet.NewBudget(o.Limits.ConnectBytes),
		arriving:   packet.NewBudget(max(o.Limits.QueuedBytesTotal, 2*int(o.MaxPacketSize))), // one must always fit, and its copy
	}
	b.ctx, b.stop = context.WithCancel(context.Background())
	if o.Store != nil {
		b.journal = newJournal(b, o.Store)
		if err := b.journal.load(); err != nil {
			return nil, fmt.Errorf("broker: reading the store: %w", err)
		}
	}
	return b, nil
}

// now is the broker's time in nanoseconds: running time, which no clock step changes and which goes on where
// the store left it. It is never 0.
func (b *Broker) now() int64 { return b.past + int64(time.Since(b.start)) + 1 }

// Run serves until ctx ends: it opens the listeners of the Options, and at the end closes them, tells
// every client that the server is shutting down, publishes the wills that are due and syncs the
// store. An address that cannot be listened on is logged and tried again; everything else works
// meanwhile. A broker runs once.
func (b *Broker) Run(ctx context.Context) error {
	for _, w := range b.due {
		b.publishWill(w.will, nil)
	}
	b.due = nil
	var own, tries sync.WaitGroup
	tries.Add(len(b.opt.Listen))
	for i := range b.opt.Listen {
		own.Go(func() {
			tried := sync.OnceFunc(tries.Done)
			defer tried()
			b.listen(ctx, i, tried)
		})
	}
	own.Go(func() {
		tries.Wait()
		close(b.tried)
	})
	housekeeping, end := context.WithCancel(context.Background())
	var keepers sync.WaitGroup
	keepers.Go(func() { b.housekeep(housekeeping) })
	if b.journal != nil {
		keepers.Go(func() { b.journal.run(housekeeping) })
	}
	<-ctx.Done()
	b.shutdown()
	own.Wait()
	b.tasks.Wait()
	end()
	keepers.Wait()
	b.endTimers()
	if b.journal != nil {
		return b.journal.close()
	}
	return nil
}

// Tried is closed when Run has tried each address of Options.Listen once: it listens, or Faults says why not.
func (b *Broker) Tried() <-chan struct{} { return b.tried }

// shutdown closes the listeners and all connections.
func (b *Broker) shutdown() {
	b.mu.Lock()
	b.closed.Store(true)
	b.stop()
	for ln := range b.listeners {
		ln.Close()
	}
	conns := make([]*conn, 0, len(b.conns))
	for c := range b.conns {
		conns = append(conns, c)
	}
	b.mu.Unlock()
	for _, c := range conns {
		c.stop(mqtt.ServerShuttingDown, ErrClosed)
		c.flush()
	}
}

// endTimers stops the timers of sessions that stay behind, and publishes the wills that wait and are not in the
// store: there will be nobody to do it later.
func (b *Broker) endTimers() {
	b.mu.Lock()
	var wills []*will
	for _, s := range b.sessions {
		s.mu.Lock()
		s.stopTimers()
		if s.will != nil && b.journal == nil {
			wills = append(wills, s.will)
			s.will = nil
		}
		s.mu.Unlock()
	}
	b.mu.Unlock()
	for _, w := range wills {
		b.publishWill(w, nil)
	}
}

// roomFor tells whether sessions may hold another n bytes.
func (b *Broker) roomFor(n int) bool {
	return b.queued.Load()+b.flying.Load()+int64(n) <= int64(b.opt.Limits.QueuedBytesTotal)
}

// keeps counts n bytes of a client's identity or will, fewer where n is negative, and tells whether they are within
// the bounds; if they are not, they are not counted.
func (b *Broker) keeps(n int) bool {
	if b.kept.Add(int64(n)) > int64(b.opt.Limits.QueuedBytesTotal) && n > 0 {
		b.kept.Add(int64(-n))
		return false
	}
	return true
}

// ReloadACL makes answers of the Authorizer that were remembered be asked for again.
func (b *Broker) ReloadACL() { b.aclGen.Add(1) }

// housekeep keeps the $SYS topics up to date and forgets what is expired.
func (b *Broker) housekeep(ctx context.Context) {
	sweep := time.NewTicker(time.Minute)
	defer sweep.Stop()
	var look <-chan time.Time
	acl, changes := b.opt.ACL.(interface{ Changed() bool })
	if changes {
		t := time.NewTicker(5 * time.Second)
		defer t.Stop()
		look = t.C
	}
	var sys <-chan time.Time
	if b.opt.SysInterval > 0 {
		t := time.NewTicker(b.opt.SysInterval)
		defer t.Stop()
		sys = t.C
		b.publishSys()
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-sys:
			b.publishSys()
		case <-look:
			if acl.Changed() {
				b.ReloadACL()
			}
		case <-sweep.C:
			b.journal.enter()
			b.retained.sweep(b.now(), func(m *message) { b.journal.retained(m) })
			b.journal.leave()
			b.journal.keepTime()
		}
	}
}

// refused logs what a client is to blame for, rate-limited.
func (b *Broker) refused(msg string, args ...any) {
	if skipped, ok := b.quiet.allow(b.now()); ok {
		if skipped > 0 {
			args = append(args, "unlogged", skipped)
		}
		b.log.Warn(msg, args...)
	}
}

// A limiter lets through a few a second and counts the rest.
type limiter struct {
	mu      sync.Mutex
	second  int64
	n       int
	skipped int
}

const logsPerSecond = 5

func (l *limiter) allow(now int64) (skipped int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s := now / 1e9; s != l.second {
		l.second, l.n = s, 0
	}
	if l.n++; l.n > logsPerSecond {
		l.skipped++
		return 0, false
	}
	skipped, l.skipped = l.skipped, 0
	return skipped, true
}
