package modbus

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	gb "github.com/goburrow/modbus"

	"gateway/adapters"
	"gateway/adapters/decode"
)

// A device is one unit at work: what it is to be asked, what was learned about it, how it fares.
type device struct {
	Device   // without its points: what there is to know of those is in the slices below
	schema   adapters.Schema
	client   gb.Client
	packager gb.Packager
	access   []access          // of each point in their order
	items    []item            // of each point in their order, then the scale factors
	raw      []byte            // of all items: what was read in this cycle
	rawAt    []int32           // per item: where its bytes begin
	reason   []adapters.Reason // per item: why it was not; "" where raw is of this cycle
	factorOf []int32           // per point: the item of its scale factor, -1: none; nil: no point has one
	groupOf  []uint8           // per point
	groups   []group
	tick     time.Duration // divides all intervals; how often the schedule looks at the device

	learned learned
	plans   map[uint64][]block // by the set of groups that are due
	first   int                // the block that a cycle begins with, turned on after a failure
	noMask  bool               // the device does not know function 22
	// impatient: the device was busy for as long as it may be, and has not answered everything since.
	impatient bool
	chain     int    // SunSpec: which of the bases is tried first
	base      uint16 // SunSpec: the model's first register, from which addresses count
	located   bool   // SunSpec: base is known

	status adapters.DeviceStatus
}

// An access is how the value of a point is made, and written. It is kept small: there may be tens of
// thousands.
type access struct {
	field    *decode.Field
	writable bool
	function byte
}

// A group is the points of a device that share an interval.
type group struct {
	interval time.Duration
	start    time.Time // turns are at whole multiples of the interval after it
	next     time.Time // the next turn
	off      bool      // next is out of the rhythm: an attempt after a failure
	points   int       // how many
}

// maxTick is how long a device that failed waits at most beyond its backoff, however long its
// interval is.
const maxTick = 10 * time.Second

// maxGroups is how many different intervals a device may have.
const maxGroups = 64

func newDevice(d Device, bus string, f Framing, l *link) (*device, error) {
	dev := &device{Device: d, status: adapters.DeviceStatus{Device: d.Name}}
	dev.packager = packager(f, d.Unit)
	dev.client = gb.NewClient2(dev.packager, l)
	dev.schema = adapters.Schema{Bus: bus, Device: d.Name, Labels: d.Labels}
	groupOf := map[time.Duration]int{}
	factors := map[Register]int{}
	// There may be tens of thousands of points: what there is of each is allocated once and whole.
	dev.schema.Points = make([]adapters.Point, 0, len(d.Points))
	dev.access = make([]access, 0, len(d.Points))
	dev.groupOf = make([]uint8, 0, len(d.Points))
	dev.items = make([]item, 0, len(d.Points))
	for i := range d.Points {
		p := &d.Points[i]
		dev.schema.Points = append(dev.schema.Points, p.Point)
		dev.access = append(dev.access, access{p.Field, p.Writable, p.Function})
		dev.items = append(dev.items, item{kind: p.Kind, address: p.Address, count: p.registers()})
		interval := p.Interval
		if interval == 0 {
			interval = d.Interval
		}
		g, ok := groupOf[interval]
		if !ok {
			if g = len(dev.groups); g == maxGroups {
				return nil, fmt.Errorf("modbus: bus %q, device %q: more than %d different intervals", bus, d.Name, maxGroups)
			}
			groupOf[interval] = g
			dev.groups = append(dev.groups, group{interval: interval})
		}
		dev.groupOf = append(dev.groupOf, uint8(g))
		dev.groups[g].points++
	}
	for i := range d.Points {
		f := d.Points[i].Factor
		if f == nil {
			continue
		}
		if dev.factorOf == nil {
			dev.factorOf = slices.Repeat([]int32{-1}, len(d.Points))
		}
		n, ok := factors[*f]
		if !ok {
			n = len(dev.items)
			factors[*f] = n
			dev.items = append(dev.items, item{kind: f.Kind, address: f.Address, count: 1})
		}
		dev.factorOf[i] = int32(n)
	}
	dev.reason = make([]adapters.Reason, len(dev.items))
	dev.rawAt = make([]int32, len(dev.items))
	size := 0
	for i := range dev.items {
		dev.rawAt[i] = int32(size)
		size += dev.items[i].bytes()
	}
	dev.raw = make([]byte, size)
	for _, g := range dev.groups {
		dev.tick = gcd(dev.tick, g.interval)
	}
	dev.tick = fraction(dev.tick, maxTick)
	dev.Points = nil
	dev.learned = newLearned(&dev.Device, dev.items)
	return dev, nil
}

// packager returns goburrow's packing for a framing, with the unit id set. The handlers are used for
// that alone: they open nothing.
func packager(f Framing, unit byte) gb.Packager {
	switch f {
	case TCP, UDP:
		h := gb.NewTCPClientHandler("")
		h.SlaveId = unit
		return h
	case ASCII:
		h := gb.NewASCIIClientHandler("")
		h.SlaveId = unit
		return h
	}
	h := gb.NewRTUClientHandler("")
	h.SlaveId = unit
	return h
}

// fraction returns the longest whole fraction of d that is at most most, d where none is near that.
func fraction(d, most time.Duration) time.Duration {
	least := (d + most - 1) / most
	for n := least; n > 1 && n < d && n < 1000*least; n++ {
		if d%n == 0 {
			return d / n
		}
	}
	return d // next to no odd interval has none
}

func gcd(a, b time.Duration) time.Duration {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// start sets the groups' first turn.
func (d *device) start(at time.Time) {
	for i := range d.groups {
		d.groups[i].start, d.groups[i].next = at, at
	}
}

// due returns the set of groups whose turn has come by the time that the schedule says.
func (d *device) due(at time.Time) uint64 {
	var set uint64
	for i := range d.groups {
		if !d.groups[i].next.After(at) {
			set |= 1 << i
		}
	}
	return set
}

// next returns when the first group has its turn.
func (d *device) next() (at time.Time, ok bool) {
	for i := range d.groups {
		if g := &d.groups[i]; !ok || g.next.Before(at) {
			at, ok = g.next, true
		}
	}
	return at, ok
}

// done moves the groups in set on to their next turn, and counts those that were missed because the
// bus was busy.
func (d *device) done(set uint64, now time.Time) (overruns uint64) {
	for i := range d.groups {
		g := &d.groups[i]
		if set>>i&1 == 0 {
			continue
		}
		if g.off {
			g.next, g.off = g.turn(now), false
			continue
		}
		g.next = g.next.Add(g.interval)
		if late := now.Sub(g.next); late > 0 {
			missed := late / g.interval
			overruns += uint64(missed)
			g.next = g.next.Add(missed * g.interval)
		}
	}
	return overruns
}

// turn returns the first turn of the rhythm that is not before t.
func (g *group) turn(t time.Time) time.Time {
	turns := (t.Sub(g.start) + g.interval - 1) / g.interval
	return g.start.Add(turns * g.interval)
}

// postpone lets the device rest until t. Then all of its groups have a turn, for all were said to be
// bad; in their rhythm where that is soon.
func (d *device) postpone(t time.Time) {
	for i := range d.groups {
		g := &d.groups[i]
		g.next, g.off = g.turn(t), false
		if g.next.Sub(t) >= d.tick {
			g.next, g.off = t, true
		}
	}
}

// blocks returns the requests that give the groups in set.
func (d *device) blocks(set uint64, now time.Time) []block {
	if d.learned.changed(now) {
		d.plans = nil
	}
	if b, ok := d.plans[set]; ok {
		return b
	}
	var want []int
	seen := make([]bool, len(d.items))
	doubts := map[int]bool{}
	add := func(n int) {
		if n >= 0 && !seen[n] {
			seen[n] = true
			if d.learned.ask(n, now, doubts) {
				want = append(want, n)
			}
		}
	}
	for p, g := range d.groupOf {
		if set>>g&1 != 0 {
			add(p)
			add(d.factor(p))
		}
	}
	b := plan(d.items, want, d.learned.limits())
	if d.plans == nil {
		d.plans = map[uint64][]block{}
	}
	d.plans[set] = b
	return b
}

// read carries out one read request. The result is valid until the next exchange.
func (d *device) read(k Kind, address uint16, count int) ([]byte, error) {
	switch k {
	case Coil:
		return d.client.ReadCoils(address, uint16(count))
	case Discrete:
		return d.client.ReadDiscreteInputs(address, uint16(count))
	case Input:
		return d.client.ReadInputRegisters(address, uint16(count))
	}
	return d.client.ReadHoldingRegisters(address, uint16(count))
}

// listed names items for people: what they are, where, and why they are not had.
func (d *device) listed(items []int) string {
	const most = 8
	var b strings.Builder
	for i, n := range items[:min(most, len(items))] {
		if i > 0 {
			b.WriteString(", ")
		}
		name := "a scale factor"
		if n < len(d.access) {
			name = d.schema.Points[n].Name
		}
		fmt.Fprintf(&b, "%s (%v %d: %s)", name, d.items[n].kind, d.items[n].address, d.learned.troubles[n].reason)
	}
	if len(items) > most {
		fmt.Fprintf(&b, " and %d more", len(items)-most)
	}
	return b.String()
}

// take hands the answer to a block's request to its items.
func (d *device) take(b *block, data []byte) {
	for _, n := range b.items {
		it := &d.items[n]
		at := int(it.address) - int(b.address)
		if b.kind.Bits() {
			d.rawOf(n)[0] = data[at/8] >> (at % 8) & 1
		} else {
			copy(d.rawOf(n), data[2*at:])
		}
		d.reason[n] = ""
	}
}

// reading decodes a point from what the cycle read.
func (d *device) reading(p int) adapters.Reading {
	r := adapters.Reading{Point: p, Quality: adapters.Bad}
	if r.Reason = d.reason[p]; r.Reason != "" {
		return r
	}
	exp, f := 0, d.factor(p)
	if f >= 0 {
		if r.Reason = d.reason[f]; r.Reason != "" {
			return r
		}
		var err error
		if exp, err = exponent(d.rawOf(f)); err != nil {
			r.Reason = adapters.ReasonSentinel
			return r
		}
	}
	if r.Value, r.Reason = decodeScaled(d.access[p].field, f >= 0, d.rawOf(p), exp); r.Reason == "" {
		r.Quality = adapters.Good
	}
	return r
}

// factor returns the item of a point's scale factor, -1 where it has none.
func (d *device) factor(p int) int {
	if d.factorOf == nil {
		return -1
	}
	return int(d.factorOf[p])
}

// exponent reads the register that a scale factor is in: the exponent of ten.
func exponent(raw []byte) (int, error) {
	exp := int(int16(binary.BigEndian.Uint16(raw)))
	if exp < -10 || exp > 10 { // SunSpec's range; 0x8000 says that there is none
		return 0, errNoFactor
	}
	return exp, nil
}

var errNoFactor = errors.New("modbus: the device has no scale factor for this point")

// rawOf is what was read of an item.
func (d *device) rawOf(n int) []byte {
	at := int(d.rawAt[n])
	return d.raw[at : at+d.items[n].bytes()]
}

// decode decodes a point. With a scale factor the value is always a float, for the factor may change.
func (p *Point) decode(raw []byte, exp int) (adapters.Value, adapters.Reason) {
	return decodeScaled(p.Field, p.Factor != nil, raw, exp)
}

func decodeScaled(f *decode.Field, scaled bool, raw []byte, exp int) (adapters.Value, adapters.Reason) {
	v, reason := f.DecodeExp(raw, exp)
	if x, ok := v.Number(); ok && scaled {
		v = adapters.FloatValue(x)
	}
	return v, reason
}

// patience is how long the device is asked again in a cycle while it is busy.
func (d *device) patience() time.Duration {
	if d.impatient {
		return 0
	}
	return d.Patience
}

// patiently asks again while the device is busy, for a limited time.
func (d *device) patiently(ctx context.Context, limit time.Duration, ask func() ([]byte, error)) ([]byte, error) {
	data, err := ask()
	if !busy(err) {
		return data, err
	}
	end := time.Now().Add(limit)
	for pause := 50 * time.Millisecond; busy(err); pause = min(2*pause, 5*time.Second) {
		if time.Now().Add(pause).After(end) {
			return nil, err
		}
		if err := sleep(ctx, pause); err != nil {
			return nil, err
		}
		data, err = ask()
	}
	return data, err
}
