package modbus

import (
	"context"
	"errors"
	"time"

	"gateway/adapters"
)

// A cycle is one turn of a device.
type cycle struct {
	bus      *Bus
	dev      *device
	ctx      context.Context
	begin    time.Time
	time     adapters.Instant // arrival of the first answer
	asked    bool             // something was sent, or at least tried to
	answered bool
	lost     bool // the SunSpec model that the points are in was not found
	failures int  // blocks that were not had
	extra    int  // requests that parting blocks has cost
	err      error
}

// How much trouble a cycle may have.
const (
	maxFailures = 3  // blocks that are damaged or mute until the rest of the cycle is given up
	maxExtra    = 64 // requests to find bad addresses; what is left is found in the next cycles
	// maxSearch is how long more than that many may take: over a fast line all is found at once.
	maxSearch = 500 * time.Millisecond
	// gatewayPatience is how many timeouts a device has that is asked behind one that did not answer.
	gatewayPatience = 3
)

// run asks for all that the groups in set need. It returns nil if the device answered, whatever it said; else the error
// by which it is known to be offline.
func (c *cycle) run(set uint64) error {
	d := c.dev
	c.begin = time.Now()
	blocks := d.blocks(set, c.begin)
	for n := range d.items {
		d.reason[n] = adapters.ReasonNotReady
		if t := d.learned.troubles[n]; t != nil {
			d.reason[n] = t.reason
		}
	}
	if len(d.SunSpec) > 0 && !d.located {
		if err := c.locate(); err != nil {
			c.err, c.lost = err, true
			reason := reasonOf(err)
			if errors.Is(err, ErrNoModel) {
				reason = adapters.ReasonUnsupported
			}
			for n := range d.reason {
				d.reason[n] = reason
			}
			return err
		}
		blocks = d.blocks(set, time.Now())
	}
	first := d.first
	for i := range blocks {
		b := &blocks[(i+first)%len(blocks)]
		c.bus.serveWrites(c.ctx)
		if err := c.fetch(b); err != nil {
			// Nobody is there: the rest is not asked for.
			if len(blocks) > 1 {
				d.first = (first + i + 1) % len(blocks)
			}
			reason := reasonOf(err)
			for k := i; k < len(blocks); k++ {
				c.fail(&blocks[(k+first)%len(blocks)], reason)
			}
			return err
		}
	}
	d.impatient = false
	return nil
}

// fail says for all items of a block that are not had why.
func (c *cycle) fail(b *block, r adapters.Reason) {
	for _, n := range b.items {
		c.dev.reason[n] = r
	}
}

// fetch asks for one block and deals with what comes. An error means that asking on is in vain.
func (c *cycle) fetch(b *block) error {
	d := c.dev
	data, err := c.ask(b)
	if err == nil {
		d.take(b, data)
		d.learned.good(b)
		return nil
	}
	if c.ctx.Err() != nil {
		return c.ctx.Err()
	}
	if c.err == nil {
		c.err = err
	}
	code := exception(err)
	switch {
	case disconnected(err):
		return err
	case !c.answered:
		return err
	case silent(err):
		d.learned.mute(b, time.Now())
		c.fail(b, reasonOf(err))
	case busy(err):
		// It was asked long enough: from now on once in a cycle, until it has time again.
		d.impatient = true
		return err
	case illegal(err), code == 4:
		return c.part(b, err)
	case code == 1:
		d.learned.refuse(b, err, time.Now())
		c.fail(b, reasonOf(err))
		return nil
	default:
		c.fail(b, reasonOf(err))
	}
	if c.failures++; c.failures >= maxFailures {
		return err
	}
	return nil
}

// ask carries out the request of a block, again where that may help.
func (c *cycle) ask(b *block) ([]byte, error) {
	d, l := c.dev, &c.bus.link
	l.ctx, l.timeout, c.asked = c.ctx, d.Timeout, true
	if l.mute == 1 && !l.framing.serial() && d.status.State == adapters.Online {
		// The gateway may be busy yet with the device before, which did not answer: some wait for one
		// for seconds, and several times. That is not to be this one's fault.
		l.timeout = min(gatewayPatience*d.Timeout, max(d.Timeout, 20*time.Second))
	}
	timeouts, damaged := d.Retries, 1
	for {
		data, err := d.patiently(c.ctx, d.patience(), func() ([]byte, error) { return d.read(b.kind, b.address, b.count) })
		if err == nil || exception(err) != 0 && !silent(err) {
			if !c.answered {
				c.answered = true
				c.time = c.bus.Clock()
			}
			return data, err
		}
		switch {
		case c.ctx.Err() != nil:
			return nil, c.ctx.Err()
		case silent(err):
			if timeouts--; timeouts < 0 {
				return nil, err
			}
		case (errors.Is(err, ErrChecksum) || errors.Is(err, ErrProtocol)) && damaged > 0:
			damaged--
		default:
			return nil, err
		}
	}
}

// part asks for the halves of a block that was refused, down to the items that are.
func (c *cycle) part(b *block, refusal error) error {
	d := c.dev
	reason := reasonOf(refusal)
	if len(b.items) == 1 {
		d.learned.refuse(b, refusal, time.Now())
		c.fail(b, reason)
		return nil
	}
	if c.extra >= maxExtra && time.Since(c.begin) > min(maxSearch, d.Interval/2) {
		c.fail(b, reason)
		return nil
	}
	half := (len(b.items) + 1) / 2
	left, right := d.blockOf(b.items[:half]), d.blockOf(b.items[half:])
	before := len(d.learned.troubles)
	for _, h := range []*block{&left, &right} {
		c.extra++
		if err := c.fetch(h); err != nil {
			return err
		}
	}
	if len(d.learned.troubles) == before && c.had(b) {
		d.learned.parted(b, &left, &right, time.Now())
	}
	return nil
}

// had tells whether all items of a block have been read.
func (c *cycle) had(b *block) bool {
	for _, n := range b.items {
		if c.dev.reason[n] != "" {
			return false
		}
	}
	return true
}

// blockOf returns the request for some items of one block, which are in the order of addresses.
func (d *device) blockOf(items []int) block {
	b := block{d.items[items[0]].kind, d.items[items[0]].address, 0, items}
	for _, n := range items {
		b.count = max(b.count, d.items[n].end()-int(b.address))
	}
	return b
}
