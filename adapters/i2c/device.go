package i2c

import (
	"errors"
	"fmt"
	"iter"
	"math"
	"time"

	"periph.io/x/conn/v3/physic"

	"gateway/adapters"
)

// A Device is one chip on the bus.
type Device struct {
	Name     string
	Labels   []adapters.Label
	Chip     string // a name of the catalogue, or GenericChip
	Address  uint16 // 0: the chip's usual one
	Mux      *Mux   // nil: on the bus itself
	PEC      bool   // SMBus packet error checking
	Interval time.Duration
	Settings map[string]any // of the chip; see Chip.Settings
	Points   []Point        // nil: all that the chip gives
	// Registers describes a chip that the catalogue does not have; Chip is GenericChip.
	Registers *Registers
}

// A Point is one quantity of a device, as it is to be published.
type Point struct {
	Name     string
	From     string // the chip's name for it; empty: Name
	Unit     string // empty: the chip's
	Decimals *int8
	Labels   []adapters.Label
	Scale    float64       // 0: 1
	Offset   float64       // added after the scale
	Min, Max *float64      // valid range, after scale and offset
	Interval time.Duration // 0: the device's
}

func (d *Device) address() uint16 {
	if d.Address != 0 {
		return d.Address
	}
	if chip, err := d.chip(); err == nil && len(chip.Addresses) > 0 {
		return chip.Addresses[0]
	}
	return 0
}

func (d *Device) chip() (Chip, error) {
	if d.Registers != nil || normal(d.Chip) == GenericChip {
		if d.Registers == nil {
			return Chip{}, fmt.Errorf("chip %q needs its registers described: read and fields", GenericChip)
		}
		if d.Chip != "" && normal(d.Chip) != GenericChip {
			return Chip{}, fmt.Errorf("chip %q is known, and its registers are described too: remove one of the two", d.Chip)
		}
		return d.Registers.chip() // its errors are FieldErrors where that helps
	}
	if d.Chip == "" {
		return Chip{}, errors.New("no chip; add chip = \"bme280\" or another")
	}
	return Lookup(d.Chip)
}

// point is a Point joined to its quantity.
type point struct {
	from          int
	scale, offset float64
	plain         bool // neither scale nor offset
	min, max      float64
	interval      time.Duration
	due           time.Time
	last          adapters.Value // of the last good reading
}

// device is a Device at work. All of it belongs to the bus's goroutine.
type device struct {
	bus     *Bus
	index   int // in bus.devices
	cfg     Device
	chip    Chip
	driver  driver
	conn    conn
	schema  *adapters.Schema
	points  []point
	results *results
	pace    time.Duration
	job     int

	ready   bool      // setup has been done
	quiet   time.Time // since when the chip has had nothing new; zero: it had
	backoff adapters.Backoff
	due     time.Time // of the cycle under way

	step   func() (time.Duration, bool) // nil: no cycle under way
	stop   func()
	resume time.Time
	err    error // of the cycle that ended
}

func newDevice(b *Bus, cfg Device) (*device, error) {
	chip, err := cfg.chip()
	if err != nil {
		var errs []error
		for _, err := range adapters.Joined(err) {
			var f *FieldError
			if !errors.As(err, &f) {
				err = ofDevice("chip", err)
			}
			errs = append(errs, err)
		}
		return nil, errors.Join(errs...)
	}
	var errs []error
	if cfg.Interval <= 0 {
		errs = append(errs, ofDevice("interval", fmt.Errorf("interval %v: must be positive", cfg.Interval)))
	}
	if err := chip.checkAddress(cfg.Address); err != nil {
		errs = append(errs, ofDevice("address", err))
	}
	if cfg.Mux != nil {
		if err := cfg.Mux.check(); err != nil {
			errs = append(errs, ofDevice("mux", err))
		}
	}
	set, err := chip.complete(cfg.Settings)
	for _, err := range adapters.Joined(err) {
		errs = append(errs, ofDevice("settings", err))
	}
	d := &device{
		bus: b, index: len(b.devices), cfg: cfg, chip: chip,
		schema:  &adapters.Schema{Bus: b.o.Name, Device: cfg.Name, Labels: cfg.Labels},
		results: newResults(len(chip.Quantities)),
		pace:    cfg.Interval,
	}
	d.conn = conn{bus: busOf{bus: b, mux: cfg.Mux}, addr: d.cfg.address(), pec: cfg.PEC || chip.pec, clock: b.o.Clock}
	points := cfg.Points
	if points == nil {
		for _, q := range chip.Quantities {
			if !q.Extra {
				points = append(points, Point{Name: q.Name})
			}
		}
	}
	for i, p := range points {
		if key, err := d.add(p); err != nil {
			errs = append(errs, &FieldError{i, key, err})
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	d.driver = chip.make(set)
	if chip.Pace > 0 {
		d.pace = min(d.pace, chip.Pace)
	}
	d.backoff = adapters.Backoff{Min: max(d.pace, time.Second), Max: max(b.o.MaxBackoff, d.pace)}
	return d, nil
}

// add adds a point to the device's schema. With an error it names the field that is wrong.
func (d *device) add(p Point) (key string, err error) {
	from, key := p.From, "from"
	if from == "" {
		from, key = p.Name, "name"
	}
	i, err := d.chip.quantity(from)
	if err != nil {
		return key, err
	}
	q := d.chip.Quantities[i]
	pt := point{from: i, scale: p.Scale, offset: p.Offset, min: math.Inf(-1), max: math.Inf(1), interval: p.Interval}
	if pt.scale == 0 {
		pt.scale = 1
	}
	pt.plain = pt.scale == 1 && pt.offset == 0
	if p.Min != nil {
		pt.min = *p.Min
	}
	if p.Max != nil {
		pt.max = *p.Max
	}
	if pt.min > pt.max {
		return "min", fmt.Errorf("valid range %v to %v is empty", pt.min, pt.max)
	}
	if pt.interval == 0 {
		pt.interval = d.cfg.Interval
	}
	d.pace = min(d.pace, pt.interval)
	unit, decimals := p.Unit, q.Decimals
	if unit == "" {
		unit = q.Unit
	}
	if p.Decimals != nil {
		decimals = *p.Decimals
	} else if decimals >= 0 && pt.scale != 1 {
		// As many significant digits as the chip has.
		decimals = int8(min(max(float64(decimals)-math.Floor(math.Log10(math.Abs(pt.scale))), 0), 12))
	}
	d.points = append(d.points, pt)
	d.schema.Points = append(d.schema.Points, adapters.Point{Name: p.Name, Unit: unit, Decimals: decimals, Labels: p.Labels})
	return "", nil
}

// start makes all points fall due at now.
func (d *device) start(now time.Time) {
	for i := range d.points {
		d.points[i].due = now
	}
}

func (d *device) running() bool { return d.step != nil }

// turn begins a cycle or goes on with the one under way. It returns an error where the bus must be
// opened anew.
func (d *device) turn() error {
	if d.step == nil {
		d.begin()
	}
	wait, more := d.step()
	if more {
		d.resume = time.Now().Add(wait)
		return nil
	}
	d.step, d.stop = nil, nil
	return d.finish()
}

// begin starts a cycle as a coroutine, which hands over whenever the driver waits.
func (d *device) begin() {
	_, d.due, _ = d.bus.schedule.Next()
	d.overrun(d.bus.schedule.Done(d.job, time.Now()))
	d.results.clear()
	clear(d.results.wanted)
	for i := range d.points {
		if p := &d.points[i]; !p.due.After(d.due) {
			d.results.wanted[p.from] = true
		}
	}
	d.conn.seen = 0
	d.step, d.stop = iter.Pull(func(yield func(time.Duration) bool) {
		d.conn.pause = func(t time.Duration) error {
			if !yield(t) {
				return errStopped
			}
			return nil
		}
		d.err = d.cycle()
	})
}

// cycle is one cycle as the driver sees it. An answer that came damaged is asked for once more.
func (d *device) cycle() error {
	if !d.ready {
		if err := d.driver.setup(&d.conn); err != nil {
			return err
		}
		d.ready = true
		d.conn.seen = 0
	}
	err := d.driver.measure(&d.conn, d.results)
	if reasonOf(err) == adapters.ReasonChecksum {
		d.bus.update(func(s *adapters.BusStatus) { s.Traffic.Damaged++ })
		d.results.clear()
		err = d.driver.measure(&d.conn, d.results)
	}
	return err
}

// abandon ends the cycle under way, if any, without a sample.
func (d *device) abandon() {
	if d.stop != nil {
		d.stop()
		d.step, d.stop = nil, nil
	}
	d.ready = false
}

// patience is how long a chip may have nothing new before it is set up again: three times the
// slowest of them, the SCD41 in low power mode.
const patience = 90 * time.Second

// finish publishes what the cycle gave and decides when the chip is asked again.
func (d *device) finish() error {
	now := time.Now()
	notReady := errors.Is(d.err, errNotReady)
	failed := d.err != nil && !notReady
	good := d.publish(d.due, reasonOf(d.err), failed)
	d.report(d.err, failed, good)
	if !failed {
		d.backoff.Reset()
		switch {
		case !notReady:
			d.quiet = time.Time{}
		case d.quiet.IsZero():
			d.quiet = now
		case now.Sub(d.quiet) > patience:
			// It answers and does not measure: it may have lost its power and forgotten to.
			d.quiet, d.ready = time.Time{}, false
		}
		return nil
	}
	d.quiet = time.Time{}
	d.ready = false
	if pause := d.backoff.Fail(); d.backoff.Failures() > 1 {
		d.bus.schedule.Postpone(d.job, now.Add(pause))
	}
	return d.bus.lost(d.err)
}

// missed publishes that a cycle could not even begin.
func (d *device) missed(now time.Time, why adapters.Reason, err error) {
	d.results.clear()
	d.conn.seen = 0
	d.publish(now, why, true)
	d.report(err, true, false)
	d.bus.schedule.Postpone(d.job, now)
}

// again makes up for the turn that came last, now that the bus is open: at the start it is the first, and
// a slow chip's next one may be far. Where that is near it is waited for, lest the two collide. The turns
// before are left out.
func (d *device) again(now time.Time) {
	d.bus.schedule.Set(d.job, now)
	if d.bus.schedule.Due(d.job).Sub(now) <= min(d.pace/2, time.Second) {
		return
	}
	d.bus.schedule.Set(d.job, now.Add(1-d.pace))
	for i := range d.points {
		if p := &d.points[i]; p.due.After(now) {
			p.due = p.due.Add(-p.interval)
		}
	}
}

// publish offers the sample of one cycle: a reading for each point that is due. It reports whether
// one of them was good.
func (d *device) publish(due time.Time, why adapters.Reason, failed bool) (good bool) {
	readings := make([]adapters.Reading, 0, len(d.points))
	for i := range d.points {
		p := &d.points[i]
		if p.due.After(due) {
			continue
		}
		p.due = p.due.Add((due.Sub(p.due)/p.interval + 1) * p.interval)
		r := d.reading(i, why, failed)
		good = good || r.Quality == adapters.Good
		readings = append(readings, r)
	}
	if len(readings) == 0 {
		return !failed
	}
	at := d.conn.seen
	if at == 0 {
		at = d.bus.o.Clock()
	}
	if !d.bus.o.Sink.Offer(adapters.Sample{Schema: d.schema, Time: at, Readings: readings}) {
		d.bus.update(func(s *adapters.BusStatus) { s.Refused++ })
	}
	return good
}

// reading makes the reading of point i from its slot.
func (d *device) reading(i int, why adapters.Reason, failed bool) adapters.Reading {
	p := &d.points[i]
	slot := d.results.slots[p.from]
	switch {
	case !slot.set && failed:
		return adapters.Reading{Point: i, Quality: adapters.Bad, Reason: why}
	case !slot.set:
		slot.reason = adapters.ReasonNotReady
	case slot.reason == "":
		slot.value, slot.reason = p.convert(slot.value, d.chip.Quantities[p.from])
	}
	switch {
	case slot.reason == "":
		p.last = slot.value
		return adapters.Reading{Point: i, Value: slot.value}
	case slot.reason == adapters.ReasonNotReady && p.last.Kind() != adapters.None:
		return adapters.Reading{Point: i, Quality: adapters.Stale, Reason: slot.reason, Value: p.last}
	}
	return adapters.Reading{Point: i, Quality: adapters.Bad, Reason: slot.reason}
}

// convert applies scale, offset and the valid ranges, the chip's and the user's.
func (p *point) convert(v adapters.Value, q Quantity) (adapters.Value, adapters.Reason) {
	if v.Kind() == adapters.None {
		return v, adapters.ReasonNotFinite
	}
	f, ok := v.Number()
	if !ok {
		return v, ""
	}
	if q.Min < q.Max && (f < q.Min || f > q.Max) {
		return adapters.Value{}, adapters.ReasonRange
	}
	if !p.plain {
		f = f*p.scale + p.offset
		if v = adapters.FloatValue(f); v.Kind() == adapters.None {
			return v, adapters.ReasonNotFinite
		}
	}
	if f < p.min || f > p.max {
		return adapters.Value{}, adapters.ReasonRange
	}
	return v, ""
}

// report keeps the device's status, and logs when it changes.
func (d *device) report(err error, failed, good bool) {
	state := adapters.Online
	text := ""
	if failed {
		state, text = adapters.Offline, err.Error()
	}
	var before adapters.DeviceState
	d.bus.update(func(s *adapters.BusStatus) {
		st := &s.Devices[d.index]
		before = st.State
		st.Polls++
		if !good {
			st.Failures++
		}
		if st.State != state {
			st.State, st.Since = state, d.bus.o.Clock()
		}
		st.Err = text
	})
	log := d.bus.log.With("device", d.cfg.Name)
	switch {
	case failed && before != adapters.Offline && d.bus.port != nil:
		log.Warn("device offline", "chip", d.chip.Name, "err", err)
	case !failed && before != adapters.Online:
		log.Info("device online", "chip", d.chip.Name)
	}
}

func (d *device) overrun(n int) {
	if n > 0 {
		d.bus.update(func(s *adapters.BusStatus) { s.Devices[d.index].Overruns += uint64(n) })
	}
}

// busOf is the bus as one device sees it: with its multiplexer's channel open.
type busOf struct {
	bus *Bus
	mux *Mux
}

func (b busOf) String() string                    { return b.bus.o.Name }
func (b busOf) Tx(addr uint16, w, r []byte) error { return b.bus.tx(b.mux, addr, w, r) }
func (b busOf) SetSpeed(physic.Frequency) error {
	return errors.New("i2c: the speed of a bus is set in the device tree")
}
