// Package clock joins the machine's running time to the wall clock.
//
// A Raspberry Pi has no real-time clock: it boots in 1970, or at the last shutdown, and steps when
// the network gives it the time. So samples are stamped with the running time of their boot
// (CLOCK_BOOTTIME, which never steps and counts suspend) and the number of that boot, and are
// joined to the wall clock only when they leave. The kernel disciplines both clocks alike, so for
// each boot one anchor, a pair of a running and a wall time, says it all: samples queued before the
// clock was set are put right by it, also those of earlier boots.
//
// The anchors are kept in a file, written anew as a whole whenever one changes by more than a
// threshold. All numbers are little endian:
//
//	file  = magic "GWBOOTS\n" version (4 bytes, now 1) length (4 bytes, of what follows without
//	        the CRC) boot... CRC-32C (4 bytes, of all before it)
//	boot  = number (4 bytes) flags (4 bytes, bit 0: the anchor is synchronised, bit 1: there is an
//	        anchor) id (16 bytes) running time (8 bytes, ns) wall time (8 bytes, ns since 1970)
package clock

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"gateway/adapters"
	"gateway/internal/atomicfile"
)

// A BootID names one boot of a machine.
type BootID [16]byte

// A Source is where times come from: the system, or a test.
type Source interface {
	BootID() (BootID, error)
	Now() adapters.Instant // running time, never stepping back
	// Wall returns the wall clock, in nanoseconds since 1970, with the running time at which it
	// was read, and whether the kernel says that it is synchronised.
	Wall() (wall int64, at adapters.Instant, synced bool)
}

// State tells how far a wall time can be trusted.
type State uint8

const (
	Synced   State = iota // from a synchronised clock, or one the user trusts
	Unsynced              // from a clock that nobody had set: the order is right, the time may not be
	Unknown               // of a boot without an anchor: there is no time
)

// Options configure a Clock.
type Options struct {
	Dir    string // where the anchors are kept; empty: nowhere
	Source Source // nil: the system's clocks
	Trust  bool   // the wall clock is right, whatever the kernel says of its synchronisation
	Logger *slog.Logger
}

// tolerance is how far the wall clock may stray from its anchor before a new one is taken. Reading
// two clocks one after the other is itself uncertain by microseconds, and times must not jitter.
const tolerance = 2 * time.Millisecond

// maxBoots bounds the table: a box that boots twice a day remembers four months.
const maxBoots = 256

// An anchor joins a running time to a wall time.
type anchor struct {
	at     adapters.Instant
	wall   int64
	synced bool
}

type boot struct {
	number uint32
	id     BootID
	known  bool
	anchor anchor
}

// A Clock knows the present boot and the anchors of the earlier ones. It is safe for concurrent use.
type Clock struct {
	src   Source
	trust bool
	log   *slog.Logger
	path  string

	mu    sync.RWMutex
	boots []boot // oldest first, the present one last
	dirty bool   // the file is behind
}

// Open reads the table of boots and adds the present one. A damaged table is set aside and begun
// anew: samples of earlier boots then have no time, and say so. The error that comes with a usable
// Clock says that the table could not be read or written, or the boot has no name; Run tries the
// writing again.
func Open(o Options) (*Clock, error) {
	c := &Clock{src: o.Source, trust: o.Trust, log: o.Logger}
	if c.src == nil {
		c.src = System()
	}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	id, unnamed := c.src.BootID()
	if unnamed != nil {
		// Where the kernel's files are hidden, as in some containers, each start counts as a boot.
		for i := range id {
			id[i] = byte(rand.Uint32())
		}
		unnamed = fmt.Errorf("clock: the boot of this machine has no name: %w", unnamed)
	}
	var err error
	if o.Dir != "" {
		c.path = tablePath(o.Dir)
		if c.boots, err = readTable(c.path); err != nil {
			err = setAside(c.path, err)
		}
	}
	if n := len(c.boots); n == 0 || c.boots[n-1].id != id {
		// A table begun anew starts at a random number, so that samples of boots that the old one
		// knew are not taken for samples of this one.
		number := 1 + rand.Uint32N(1<<21)
		if n > 0 {
			number = c.boots[n-1].number + 1
		}
		c.boots = append(c.boots, boot{number: number, id: id})
		if over := len(c.boots) - maxBoots; over > 0 {
			c.boots = append(c.boots[:0], c.boots[over:]...)
		}
		c.dirty = true
	}
	c.look()
	return c, errors.Join(unnamed, err, c.save())
}

// Now returns the running time of the present boot. It is an adapters.Clock.
func (c *Clock) Now() adapters.Instant { return c.src.Now() }

// Boot returns the number of the present boot.
func (c *Clock) Boot() uint32 {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.boots[len(c.boots)-1].number
}

// Wall returns the wall time of an instant of a boot, in nanoseconds since 1970 UTC. For Unknown it
// is 0.
func (c *Clock) Wall(bootNumber uint32, at adapters.Instant) (int64, State) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	// Boots are numbered without gaps, so the place follows from the number.
	i := int64(bootNumber) - int64(c.boots[0].number)
	if i < 0 || i >= int64(len(c.boots)) || c.boots[i].number != bootNumber || !c.boots[i].known {
		return 0, Unknown
	}
	a := &c.boots[i].anchor
	state := Unsynced
	if a.synced {
		state = Synced
	}
	return a.wall + int64(at.Sub(a.at)), state
}

// Synced tells whether the present boot's wall clock is trusted.
func (c *Clock) Synced() bool {
	_, s := c.Wall(c.Boot(), 0)
	return s == Synced
}

// Run watches the wall clock for synchronisation and steps until ctx ends.
func (c *Clock) Run(ctx context.Context) error {
	t := time.NewTicker(time.Second)
	defer t.Stop()
	failing := false
	if !c.Synced() {
		c.log.Info("clock: nothing has set this machine's clock yet; times are marked unsynced until it is set. Where it is right all the same, say clock = \"trust\"")
	}
	for {
		select {
		case <-ctx.Done():
			c.look()
			return c.save()
		case <-t.C:
			c.look()
			err := c.save()
			if err != nil && !failing {
				c.log.Warn("clock: the table of boots cannot be written; trying on", "err", err)
			}
			failing = err != nil
		}
	}
}

// look compares the wall clock with the present boot's anchor and takes a new one where the clock
// was set. Once a boot was synchronised, a clock that lost its synchronisation changes nothing: the
// old anchor is the better one.
func (c *Clock) look() {
	wall, at, synced := c.src.Wall()
	synced = synced || c.trust
	c.mu.Lock()
	defer c.mu.Unlock()
	b := &c.boots[len(c.boots)-1]
	if b.known && b.anchor.synced && !synced {
		return
	}
	moved := time.Duration(wall - b.anchor.wall - int64(at.Sub(b.anchor.at)))
	if b.known && b.anchor.synced == synced && moved.Abs() < tolerance {
		return
	}
	if b.known {
		c.log.Info("clock: the wall clock was set; samples still queued are put right", "by", moved, "synchronised", synced)
	}
	b.known, b.anchor, c.dirty = true, anchor{at: at, wall: wall, synced: synced}, true
}

func (c *Clock) save() error {
	c.mu.Lock()
	if !c.dirty || c.path == "" {
		c.mu.Unlock()
		return nil
	}
	data := appendTable(nil, c.boots)
	c.dirty = false
	c.mu.Unlock()
	if err := atomicfile.Write(c.path, data); err != nil {
		c.mu.Lock()
		c.dirty = true
		c.mu.Unlock()
		return fmt.Errorf("clock: %w", err)
	}
	return nil
}
