package delivery

import (
	"errors"
	"time"

	"gateway/buffer"
)

var errBreaks = errors.New("the broker ends the connection whenever this is published")

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
	it := &p.items[0]
	why := errBreaks
	if p.why != nil {
		why = p.why
	}
	if d.o.Letters == nil {
		d.log.Error("a sample is refused and there is no place to set it aside; it is kept and tried on", "sample", idText(it.id), "err", why)
		d.keep(p, why)
		return
	}
	var err error
	if it.letter != 0 {
		err = d.o.Letters.Returned(it.letter)
	} else {
		var forgotten []Letter
		forgotten, err = d.o.Letters.Put(Letter{ID: it.id, Reason: why.Error(), Data: it.data, Dict: it.dict})
		for _, l := range forgotten {
			if d.o.Forgot != nil {
				d.o.Forgot(l.ID, l.Reason)
			}
		}
	}
	if err != nil {
		d.log.Error("a refused sample cannot be set aside; it is kept and tried on", "sample", idText(it.id), "err", err)
		d.keep(p, why)
		return
	}
	d.log.Warn("a sample was set aside; 'gateway queue retry' sends it again", "sample", idText(it.id), "reason", why)
	if now := time.Now(); p.strikes >= strikesToOut { // it was tried
		if b := d.bars.refused(p, why, now); b != nil {
			d.log.Warn("the broker refuses whatever this topic gets; its samples are set aside unsent, but for one now and then",
				"topic", p.out.Messages[0].Topic, "next", b.until.Sub(now).Round(time.Second))
		}
	}
	d.mu.Lock()
	d.status.Aside++
	d.status.LastError = why.Error()
	d.mu.Unlock()
	if it.letter == 0 {
		if d.o.Aside != nil {
			d.o.Aside(it.id, why.Error())
		}
		d.o.Source.Ack(it.id)
	}
	d.recycle(p)
}

// keep puts a parcel that cannot be set aside back under suspicion.
func (d *Destination) keep(p *parcel, why error) {
	p.why, p.strikes = why, 1
	d.w.suspects = append(d.w.suspects, p)
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
