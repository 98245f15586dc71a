package modbus

import (
	"time"
)

// A Request is one that the planner makes, with what it costs.
type Request struct {
	Device   string
	Unit     byte
	Function byte
	Kind     Kind
	Address  uint16 // 0-based
	Count    int    // registers or bits
	Points   []string
	Unused   int           // elements that are read along
	Bytes    int           // of request and answer, both frames whole
	Wire     time.Duration // request, answer and the silences after them; 0 where the speed is not known
	// Interval is the shortest of those of its points.
	Interval time.Duration
}

// A Forecast is what a bus will be asked for, as long as nothing has been learned about its devices.
type Forecast struct {
	// Requests are those of a cycle in which all points are due, device by device, in order.
	Requests []Request
	// Exchanges and Bytes are averages per second, Wire the share of the time that the line is taken:
	// above 1 it is asked for more than it can carry. The devices' own time to answer is not in it.
	Exchanges, Bytes, Wire float64
}

// Plan tells what a bus with these options will do, without opening it.
func Plan(o Options) (*Forecast, error) {
	o = o.withDefaults()
	if err := o.check(); err != nil {
		return nil, err
	}
	l := link{linkConfig: o.linkConfig()}
	f := &Forecast{}
	for _, cfg := range o.Devices {
		d, err := newDevice(cfg, o.Name, o.Framing, &l)
		if err != nil {
			return nil, err
		}
		for _, b := range d.blocks(everything, time.Time{}) {
			f.Requests = append(f.Requests, d.request(&l, &b, len(o.Devices) > 1))
		}
		f.average(d, &l, len(o.Devices) > 1)
	}
	return f, nil
}

// request says what a block costs.
func (d *device) request(l *link, b *block, others bool) Request {
	r := Request{
		Device: d.Name, Unit: d.Unit, Function: kinds[b.kind].read, Kind: b.kind, Address: b.address, Count: b.count,
		Points: d.pointsOf(b), Interval: d.Interval,
	}
	used := make([]bool, b.count)
	for _, n := range b.items {
		it := &d.items[n]
		for i := range it.count {
			used[int(it.address)-int(b.address)+i] = true
		}
	}
	for _, u := range used {
		if !u {
			r.Unused++
		}
	}
	first := true
	for _, n := range b.items {
		if n >= len(d.access) {
			continue // a scale factor
		}
		if i := d.groups[d.groupOf[n]].interval; first || i < r.Interval {
			r.Interval, first = i, false
		}
	}
	req, answer := l.frameSizes(b)
	r.Bytes = req + answer
	if l.baud > 0 {
		r.Wire = l.chars(r.Bytes) + l.gap() + max(l.gap(), l.pauses.Request)
		if others {
			r.Wire += max(0, l.pauses.Unit-max(l.gap(), l.pauses.Request))
		}
	}
	return r
}

// pointsOf names what a block gives.
func (d *device) pointsOf(b *block) []string {
	var names []string
	for _, n := range b.items {
		if n < len(d.access) {
			names = append(names, d.schema.Points[n].Name)
			continue
		}
		for p, it := range d.factorOf {
			if int(it) == n {
				names = append(names, "scale of "+d.schema.Points[p].Name)
				break
			}
		}
	}
	return names
}

// frameSizes returns how long the request for a block and its answer are, as they go over the line.
func (l *link) frameSizes(b *block) (req, answer int) {
	pdu, resp := 5, 2+2*b.count
	if b.kind.Bits() {
		resp = 2 + (b.count+7)/8
	}
	switch l.framing {
	case TCP, UDP:
		return pdu + mbapSize, resp + mbapSize
	case ASCII: // colon, unit, PDU and LRC in two digits each, CR, LF
		return 2*(pdu+2) + 3, 2*(resp+2) + 3
	}
	return pdu + 3, resp + 3
}

// maxTicks bounds how far average looks ahead.
const maxTicks = 2000

// average adds what a device costs in a second, on average over its intervals.
func (f *Forecast) average(d *device, l *link, others bool) {
	if d.tick == 0 {
		return
	}
	// What is due together may share requests, so turns are costed as sets of groups.
	turns := map[uint64]int{}
	period := d.tick
	for _, g := range d.groups {
		if period = period / gcd(period, g.interval) * g.interval; period/d.tick > maxTicks || period <= 0 {
			// They hardly ever fall together: each group for itself.
			for i, g := range d.groups {
				f.add(d, l, others, map[uint64]int{1 << i: 1}, g.interval)
			}
			return
		}
	}
	for at := time.Duration(0); at < period; at += d.tick {
		var set uint64
		for i, g := range d.groups {
			if at%g.interval == 0 {
				set |= 1 << i
			}
		}
		turns[set]++
	}
	f.add(d, l, others, turns, period)
}

// add adds what a number of turns of each set of groups costs in a period.
func (f *Forecast) add(d *device, l *link, others bool, turns map[uint64]int, period time.Duration) {
	var exchanges, bytes int
	var wire time.Duration
	for set, n := range turns {
		for _, b := range d.blocks(set, time.Time{}) {
			r := d.request(l, &b, others)
			exchanges += n
			bytes += n * r.Bytes
			wire += time.Duration(n) * r.Wire
		}
	}
	f.Exchanges += float64(exchanges) / period.Seconds()
	f.Bytes += float64(bytes) / period.Seconds()
	f.Wire += wire.Seconds() / period.Seconds()
}
