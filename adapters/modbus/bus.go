package modbus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"gateway/adapters"
)

// A Bus owns one serial port or network address and reads the devices on it. Make it with New; Run
// does the work in the goroutine that calls it.
type Bus struct {
	Options
	link    link
	devices []*device
	byName  map[string]*device
	writes  chan *write
	running chan struct{} // closed when Run has ended
	backoff adapters.Backoff
	state   adapters.DeviceState // of the bus itself, as the log has it

	mu     sync.Mutex
	status adapters.BusStatus
}

// beatEvery is how long the loop sleeps at most, so that a watchdog sees it alive.
const beatEvery = 5 * time.Second

// New returns a bus that is not running yet. It opens nothing. It fails for what can never work.
func New(o Options) (*Bus, error) {
	o = o.withDefaults()
	if err := o.check(); err != nil {
		return nil, err
	}
	b := &Bus{
		Options: o, byName: map[string]*device{}, writes: make(chan *write), running: make(chan struct{}),
		backoff: o.Backoff, status: adapters.BusStatus{Bus: o.Name},
	}
	b.link.linkConfig = o.linkConfig()
	b.link.beat = b.beat
	for _, d := range o.Devices {
		dev, err := newDevice(d, o.Name, o.Framing, &b.link)
		if err != nil {
			return nil, err
		}
		b.devices = append(b.devices, dev)
		b.byName[d.Name] = dev
		b.status.Devices = append(b.status.Devices, dev.status)
	}
	b.Devices = nil // they are b.devices now, and there may be tens of thousands of points
	return b, nil
}

// linkConfig returns what the link needs to know.
func (o *Options) linkConfig() linkConfig {
	c := linkConfig{framing: o.Framing, pauses: o.Pauses, rts: o.RTS}
	switch {
	case o.Framing.serial():
		p := o.Port
		c.open = openSerial(o.Open, p)
		if c.baud = p.Baud; c.baud == 0 {
			c.baud = 9600
		}
		c.charBits = charBits(p.DataBits, p.Parity != "" && p.Parity != "none", p.StopBits)
	default:
		c.open = openNetwork(o.Dial, o.Framing, o.Address, o.Connect)
		c.baud, c.charBits = o.Baud, 11
	}
	return c
}

// charBits is how many bits a character takes on a serial line: start, data, parity, stop.
func charBits(data int, parity bool, stop float64) int {
	if data == 0 {
		data = 8
	}
	if stop == 0 {
		stop = 1
	}
	n := 1 + data + int(stop+0.5)
	if parity {
		n++
	}
	return n
}

// Run reads the devices, each by its interval, until ctx ends and the turn under way is over. It returns
// nil then, and never before: whatever is wrong with the bus is waited out.
func (b *Bus) Run(ctx context.Context) error {
	defer close(b.running)
	defer b.link.close()
	work, cancel := adapters.Outlive(ctx)
	defer cancel()
	start := time.Now()
	schedule := adapters.NewSchedule(start)
	for _, d := range b.devices {
		if d.tick == 0 {
			d.tick = d.Interval // a device without points, kept for its writes
		}
		schedule.Add(d.tick, 0)
		d.start(start)
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil {
		b.beat()
		id, due, ok := schedule.Next()
		wait := beatEvery
		if ok {
			wait = min(wait, time.Until(due))
		}
		timer.Reset(max(0, wait))
		select {
		case <-ctx.Done():
		case w := <-b.writes:
			b.write(work, w)
			continue
		case <-timer.C:
		}
		if ok && ctx.Err() == nil && !time.Now().Before(due) {
			b.turn(work, schedule, id, due)
		}
	}
	return nil
}

// turn carries out what is due of one device.
func (b *Bus) turn(ctx context.Context, schedule *adapters.Schedule, id int, due time.Time) {
	d := b.devices[id]
	set := d.due(due)
	if set == 0 || len(d.items) == 0 {
		b.rest(schedule, id)
		return
	}
	c := cycle{bus: b, dev: d, ctx: ctx}
	err := c.run(set)
	if ctx.Err() != nil {
		return // a cycle that was cut off says nothing about the device
	}
	if !c.answered {
		c.time = b.Clock()
	}
	now := time.Now()
	d.status.Polls++
	d.status.Overruns += d.done(set, now)
	b.rest(schedule, id)
	switch {
	case errors.Is(err, ErrAbsent):
		b.lost(schedule, d, err, c.time)
	case c.err != nil && !c.answered:
		b.stands(err)
		b.offline(schedule, id, c.err, c.time)
	default:
		if c.asked {
			b.stands(err)
		}
		b.deliver(d, set, &c)
		if c.lost {
			// Looking for the model takes many requests.
			b.putOff(schedule, id, time.Now().Add(d.Backoff.Fail()))
		}
	}
	b.publish(d)
}

// rest lets a device sleep until a group of it has a turn: the ticks between may be many.
func (b *Bus) rest(schedule *adapters.Schedule, id int) {
	schedule.Done(id, time.Now())
	if next, ok := b.devices[id].next(); ok {
		schedule.Set(id, next)
	}
}

// everything is the set of all groups of a device.
const everything = ^uint64(0)

// deliver offers the sample of a cycle in which the device answered, or in which there was nothing
// that it could be asked for.
func (b *Bus) deliver(d *device, set uint64, c *cycle) {
	good := b.offer(d, set, c.time)
	if !good {
		d.status.Failures++
	}
	if !c.answered {
		return
	}
	if !c.lost {
		d.Backoff.Reset()
	}
	if d.status.State != adapters.Online {
		b.Logger.LogAttrs(c.ctx, slog.LevelInfo, "device online", slog.String("device", d.Name))
		d.status.State, d.status.Since = adapters.Online, c.time
	}
	if news := d.learned.news(); len(news) > 0 {
		b.Logger.LogAttrs(c.ctx, slog.LevelWarn, "device does not give all points; they are tried again now and then",
			slog.String("device", d.Name), slog.Int("points", len(news)), slog.String("without", d.listed(news)))
	}
	d.status.Err = ""
	if c.err != nil && !good {
		d.status.Err = c.err.Error()
	}
}

// offline notes that a device did not answer, and puts it off.
func (b *Bus) offline(schedule *adapters.Schedule, id int, err error, at adapters.Instant) {
	d := b.devices[id]
	b.putOff(schedule, id, time.Now().Add(d.Backoff.Fail()))
	b.fell(d, err, at)
	d.located = false
	for n := range d.reason {
		if d.reason[n] == adapters.ReasonNotReady {
			d.reason[n] = reasonOf(err)
		}
	}
	b.offer(d, everything, at)
}

// fell notes that a device is offline. Where that is because the bus is, the bus has said so for all.
func (b *Bus) fell(d *device, err error, at adapters.Instant) {
	d.status.Failures++
	if d.status.State != adapters.Offline && !errors.Is(err, ErrAbsent) {
		b.Logger.LogAttrs(context.Background(), slog.LevelWarn, "device offline", slog.String("device", d.Name), slog.Any("err", err))
	}
	if d.status.State != adapters.Offline {
		d.status.State, d.status.Since = adapters.Offline, at
	}
	d.status.Err = err.Error()
}

// stands notes whether the bus is there after a cycle that could begin. A connection that ended while
// a device was asked is that device's affair, for some gateways close it over one unit: whether the bus
// is gone for all, the next device's turn tells.
func (b *Bus) stands(err error) {
	if !errors.Is(err, ErrLost) {
		b.found()
		return
	}
	b.mu.Lock()
	b.status.Open, b.status.Err = false, err.Error()
	b.mu.Unlock()
}

// lost notes that there is no connection or port: all devices wait for it. What the device whose turn
// it was has answered before is still good.
func (b *Bus) lost(schedule *adapters.Schedule, current *device, err error, at adapters.Instant) {
	retry := time.Now().Add(b.backoff.Fail())
	if b.state != adapters.Offline {
		b.state = adapters.Offline
		b.Logger.LogAttrs(context.Background(), slog.LevelWarn, "bus not usable; waiting for it", slog.Any("err", err))
	}
	b.mu.Lock()
	b.status.Open, b.status.Err = false, err.Error()
	b.mu.Unlock()
	reason := reasonOf(err)
	for id, d := range b.devices {
		for n := range d.reason {
			if d != current || d.reason[n] == adapters.ReasonNotReady {
				d.reason[n] = reason
			}
		}
		d.located = false
		b.fell(d, err, at)
		b.putOff(schedule, id, retry)
		b.publish(d)
		b.offer(d, everything, at)
	}
}

// found notes that the bus is there.
func (b *Bus) found() {
	if b.state != adapters.Online {
		b.state = adapters.Online
		b.Logger.LogAttrs(context.Background(), slog.LevelInfo, "bus open")
	}
	b.backoff.Reset()
	b.mu.Lock()
	b.status.Open, b.status.Err = true, ""
	b.mu.Unlock()
}

// putOff lets a device rest until t.
func (b *Bus) putOff(schedule *adapters.Schedule, id int, t time.Time) {
	b.devices[id].postpone(t)
	schedule.Set(id, t)
}

// offer makes the sample of the points in the groups of set and hands it on. It tells whether any of
// them is good.
func (b *Bus) offer(d *device, set uint64, at adapters.Instant) (good bool) {
	n := 0
	for i := range d.groups {
		if set>>i&1 != 0 {
			n += d.groups[i].points
		}
	}
	if n == 0 {
		return false
	}
	readings := make([]adapters.Reading, 0, n)
	for p := range d.groupOf {
		if set>>d.groupOf[p]&1 != 0 {
			r := d.reading(p)
			good = good || r.Quality == adapters.Good
			readings = append(readings, r)
		}
	}
	if !b.Sink.Offer(adapters.Sample{Schema: &d.schema, Time: at, Readings: readings}) {
		b.mu.Lock()
		b.status.Refused++
		b.mu.Unlock()
	}
	return good
}

func (b *Bus) beat() {
	b.mu.Lock()
	b.status.Beat++
	b.status.Traffic = b.link.traffic
	b.mu.Unlock()
}

// publish makes a device's status visible.
func (b *Bus) publish(d *device) {
	b.mu.Lock()
	for i, other := range b.devices {
		if other == d {
			b.status.Devices[i] = d.status
		}
	}
	b.mu.Unlock()
}

// Status returns how the bus and its devices fare. It may be called at any time.
func (b *Bus) Status() adapters.BusStatus {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.status
	s.Devices = append([]adapters.DeviceStatus(nil), s.Devices...)
	return s
}

// String names the bus and where it is.
func (b *Bus) String() string {
	if b.Framing.serial() {
		return fmt.Sprintf("%s (%v on %v)", b.Name, b.Framing, b.Port.String())
	}
	return fmt.Sprintf("%s (%v at %s)", b.Name, b.Framing, b.Address)
}
