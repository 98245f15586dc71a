package delivery

import (
	"errors"
	"time"

	"gateway/buffer"
)

var errBreaks = errors.New("the broker ends the connection whenever this is published")

// asideEvery is how far apart the writings of dead letters and of the account are at least, unless very many
// wait: each costs a flash card two syncs, and the loop waits for them.
const asideEvery = time.Second

// asideBytes bounds the memory of those that wait.
const asideBytes = 1 << 20

// A pile is the parcels, of one sample each, that are to be set aside. They leave the cursor when
// their letters and the account of them are on the disk, which they share.
type pile struct {
	parcels []*parcel
	bytes   int
	since   time.Time // of the last writing, or attempt
	written bool      // the letters are on the disk and the account knows; it may not be there yet
	failing bool
}

func (x *pile) full(letters *Letters) bool {
	return len(x.parcels) >= letters.together() || x.bytes >= asideBytes
}

// convict sets the samples of p aside: it was refused while others were taken, or nothing can be
// made of it. A parcel of several samples is sent again as single ones first, so that no sample
// suffers for its neighbours.
func (d *Destination) convict(p *parcel) {
	if len(p.items) > 1 {
		for _, it := range p.items {
			single := &parcel{items: []item{it}, order: p.order}
			if d.build(single) != nil {
				d.w.sendAgain(single)
			}
		}
		p.items = nil // the singles' now
		d.recycle(p)
		return
	}
	if p.why == nil {
		p.why = errBreaks
	}
	if d.o.Letters == nil {
		d.log.Error("a sample is refused and there is no place to set it aside; it is kept and tried on", "sample", idText(p.items[0].id), "err", p.why)
		d.keep(p)
		return
	}
	if d.pile.written || d.pile.full(d.o.Letters) { // the disk does not take them
		d.keep(p)
		return
	}
	now := time.Now()
	if p.strikes >= strikesToOut { // it was tried
		if b := d.bars.refused(p, p.why, now); b != nil {
			d.log.Warn("the broker refuses whatever this topic gets; its samples are set aside unsent, but for one now and then",
				"topic", p.out.Messages[0].Topic, "next", b.until.Sub(now).Round(time.Second))
		}
	}
	d.pile.parcels = append(d.pile.parcels, p)
	d.pile.bytes += len(p.items[0].data) + len(p.items[0].dict)
	d.setAside(now, d.pile.full(d.o.Letters) && !d.pile.failing)
}

// keep puts a parcel that cannot be set aside back under suspicion.
func (d *Destination) keep(p *parcel) {
	p.strikes = 1
	d.w.suspects = append(d.w.suspects, p)
}

// setAside writes the letters on the pile when it is time to, or when it must be now. What cannot be
// written stays there and is tried on.
func (d *Destination) setAside(now time.Time, must bool) {
	x := &d.pile
	if len(x.parcels) == 0 || !must && d.untilAside(now) > 0 {
		return
	}
	defer func() { x.since = time.Now() }()
	if err := d.writePile(); err != nil {
		if !x.failing {
			d.log.Error("refused samples cannot be set aside; they are kept, and it is tried on", "samples", len(x.parcels), "err", err)
		}
		x.failing = true
		return
	}
	if err := d.o.Letters.Discard(); err != nil {
		d.log.Warn("dead letters that made room cannot be removed; trying on", "err", err)
	}
	last := x.parcels[len(x.parcels)-1]
	if n := len(x.parcels); n == 1 {
		d.log.Warn("a sample was set aside; 'gateway queue retry' sends it again", "sample", idText(last.items[0].id), "reason", last.why)
	} else {
		d.log.Warn("samples were set aside; 'gateway queue retry' sends them again", "samples", n, "first", idText(x.parcels[0].items[0].id),
			"last", idText(last.items[0].id), "reason", last.why)
	}
	d.mu.Lock()
	d.status.Aside += uint64(len(x.parcels))
	d.status.LastError = last.why.Error()
	d.mu.Unlock()
	for _, p := range x.parcels {
		d.acknowledge(p, buffer.Tally{})
		d.recycle(p)
	}
	clear(x.parcels)
	*x = pile{parcels: x.parcels[:0]}
}

// untilAside is how long the pile may wait.
func (d *Destination) untilAside(now time.Time) time.Duration {
	if len(d.pile.parcels) == 0 {
		return maxPause
	}
	return d.pile.since.Add(asideEvery).Sub(now)
}

// writePile makes the letters on the pile durable, and then the account of them and of those that have
// to go for them.
func (d *Destination) writePile() error {
	if !d.pile.written {
		letters := make([]Letter, 0, len(d.pile.parcels))
		for _, p := range d.pile.parcels {
			it := &p.items[0]
			letters = append(letters, Letter{ID: it.id, Reason: p.why.Error(), Data: it.data, Dict: it.dict})
		}
		if err := d.o.Letters.Put(letters); err != nil {
			return err
		}
		d.pile.written = true
		if d.o.Aside != nil {
			for _, p := range d.pile.parcels {
				if it := &p.items[0]; it.letter == 0 { // else it was told when it was set aside first
					d.o.Aside(it.id, p.why.Error())
				}
			}
		}
		forgotten, err := d.o.Letters.Surplus()
		if err != nil {
			d.log.Warn("the oldest dead letters cannot make room; trying on", "err", err)
		}
		if d.o.Forgot != nil {
			for i := range forgotten {
				d.o.Forgot(forgotten[i].ID, forgotten[i].Reason)
			}
		}
	}
	if d.o.Keep == nil {
		return nil
	}
	return d.o.Keep()
}

func (d *Destination) retryLetters() {
	if d.o.Letters == nil {
		return
	}
	letters, err := d.o.Letters.Retries()
	if err != nil {
		d.log.Warn("dead letters to be sent again cannot be read", "err", err)
	}
	for _, l := range letters {
		p := d.parcel()
		p.items = append(p.items[:0], item{id: l.ID, lane: buffer.Backfill, durable: true, letter: l.Number, data: l.Data, dict: l.Dict})
		if d.build(p) != nil {
			d.bars.taken(p) // whoever asks for it says that the reason is mended
			d.w.orders++
			p.order = d.w.orders
			d.w.sendAgain(p)
		}
	}
}
