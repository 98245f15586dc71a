package delivery

import (
	"slices"
	"time"

	"gateway/buffer"
	"gateway/internal/format"
	"gateway/internal/sample"
)

// read takes one record. It returns a parcel that is ready to be sent, or none where the record was
// put into a batch or is not for this destination; read is false at the lane's end.
func (d *Destination) read(lane buffer.Lane, now time.Time) (p *parcel, read bool, err error) {
	rec, ok, err := d.o.Source.TryNext(lane)
	if err != nil || !ok {
		return nil, false, err
	}
	schema, dict, err := d.o.Decoder.Intern(rec.Dict)
	it := item{id: rec.ID, lane: lane, durable: rec.Durable, dict: dict}
	if err == nil && d.o.Formatter.Skips(schema) {
		d.o.Source.Ack(rec.ID)
		return nil, true, nil
	}
	if topic, ok := "", false; err == nil && d.o.BatchSamples > 1 {
		if topic, ok = d.o.Formatter.Topic(schema); ok {
			it.data = slices.Clone(rec.Data)
			return d.gather(batchKey{topic, lane}, it, now), true, nil
		}
	}
	p = d.parcel()
	p.items = p.items[:cap(p.items)]
	if len(p.items) == 0 {
		p.items = append(p.items, item{})
	}
	it.data = append(p.items[0].data[:0], rec.Data...)
	p.items = append(p.items[:0], it)
	return d.build(p), true, nil
}

// build makes the messages of a parcel's items. Where there is nothing to send it acknowledges them,
// where they cannot be made it sets them aside; it returns nil then.
func (d *Destination) build(p *parcel) *parcel {
	for len(d.decoded) < len(p.items) {
		d.decoded = append(d.decoded, sample.Record{})
	}
	d.formatted, p.needs = d.formatted[:0], p.needs[:0]
	for i := range p.items {
		it := &p.items[i]
		r := &d.decoded[i]
		if err := d.o.Decoder.Decode(it.data, it.dict, r); err != nil {
			p.why = err
			d.convict(p)
			return nil
		}
		prev, hasPrev := d.predecessor(it, r)
		if !d.o.Formatter.Selects(&r.Sample) {
			d.passed[chain{r.Sample.Schema.Device, it.lane}] = passed{it.id.Seq, prev, hasPrev}
			continue
		}
		if m := d.o.Formatter.Schema(r.Sample.Schema); m != nil {
			p.need(d.teller.of(m))
		}
		wall, state := d.o.Clock.Wall(r.Boot, r.Sample.Time)
		d.formatted = append(d.formatted, format.Item{Sample: &r.Sample, Epoch: it.id.Epoch, Seq: it.id.Seq, Prev: prev, HasPrev: hasPrev,
			Wall: wall, Clock: state, Volatile: !it.durable, Historical: it.lane == buffer.Backfill})
	}
	p.out.Reset()
	if err := d.o.Formatter.Append(&p.out, d.formatted...); err != nil {
		p.why = err
		d.convict(p)
		return nil
	}
	if len(p.out.Messages) == 0 {
		d.acknowledge(p, buffer.Tally{})
		d.recycle(p)
		return nil
	}
	p.begin()
	if d.bars.stops(p, time.Now()) {
		d.convict(p)
		return nil
	}
	return p
}

// chain is where predecessors are named: a device's samples in one lane.
type chain struct {
	device string
	lane   buffer.Lane
}

// passed is a sample of which nothing goes to this destination.
type passed struct {
	seq, prev uint64
	hasPrev   bool
}

// predecessor returns the device's sample before that this destination gets: to name one that it does
// not get would look like a loss there.
func (d *Destination) predecessor(it *item, r *sample.Record) (prev uint64, has bool) {
	if !r.HasPrev {
		return 0, false
	}
	if over, ok := d.passed[chain{r.Sample.Schema.Device, it.lane}]; ok && r.Prev == over.seq {
		return over.prev, over.hasPrev
	}
	if over, ok := d.before[r.Prev]; ok {
		delete(d.before, r.Prev)
		return over.prev, over.hasPrev
	}
	return r.Prev, true
}

// recall finds out which of the newest samples are passed over: some may have been before the start, and
// others are in the backlog, beside which their successors go.
func (d *Destination) recall() {
	if d.o.Recent == nil || !d.o.Formatter.Partial() {
		return
	}
	d.before = make(map[uint64]passed)
	var r sample.Record
	err := d.o.Recent(func(rec buffer.Record) error {
		if d.o.Decoder.Decode(rec.Data, rec.Dict, &r) != nil || d.o.Formatter.Skips(r.Sample.Schema) || d.o.Formatter.Selects(&r.Sample) {
			return nil // of what cannot be decoded nobody knows whose predecessor it is
		}
		over := passed{rec.ID.Seq, r.Prev, r.HasPrev}
		if before, ok := d.before[r.Prev]; ok && r.HasPrev {
			over.prev, over.hasPrev = before.prev, before.hasPrev
		}
		d.before[rec.ID.Seq] = over
		return nil
	})
	if err != nil {
		d.log.Warn("what is passed over cannot be read anew; the first sample of a device may seem to follow a gap", "err", err)
	}
}
