package serial

import (
	"fmt"
	"time"

	"gateway/adapters"
	"gateway/adapters/serial/frame"
	"gateway/adapters/serial/parse"
)

// hear gives a frame that came by itself to the devices that take it.
func (s *session) hear(f frame.Frame) {
	if f.Fault != frame.None {
		return
	}
	claimed := false
	for _, d := range s.devices {
		if d.polled {
			continue
		}
		for _, m := range d.messages {
			if m.parser.Parse(f.Data, m.out) {
				claimed = true
				s.heardFrom(d, m)
			}
		}
	}
	if !claimed {
		s.mu.Lock()
		s.stats.Unclaimed++
		s.mu.Unlock()
	}
}

// heardFrom notes a message of a device that talks by itself.
func (s *session) heardFrom(d *device, m *message) {
	d.collect(m, s.arrived)
	d.heard, d.before = time.Now(), s.stats
	s.mu.Lock()
	s.status.Devices[d.index].Polls++
	s.mu.Unlock()
	s.online(d)
	if d.Interval == 0 {
		s.publish(d, false)
	}
}

// collect notes what a message says, for the next sample.
func (d *device) collect(m *message, at adapters.Instant) {
	for i, r := range m.out {
		if !r.Said() {
			continue
		}
		p := m.Points[i]
		if !d.anyFresh() {
			d.first = at
		}
		d.results[p], d.fresh[p] = r, true
	}
}

func (d *device) anyFresh() bool {
	for _, f := range d.fresh {
		if f {
			return true
		}
	}
	return false
}

// publish offers a sample of what was collected. With all, it has a reading of every point: those that
// nothing new was heard of are stale, or bad if nothing ever was.
func (s *session) publish(d *device, all bool) {
	if !d.anyFresh() {
		return
	}
	now := time.Now()
	readings := make([]adapters.Reading, 0, len(d.results))
	for i, r := range d.results {
		if !d.fresh[i] && !all || !d.take(i, now) {
			continue
		}
		readings = append(readings, d.reading(i, r))
	}
	clear(d.fresh)
	if len(readings) > 0 {
		s.offer(d, adapters.Sample{Schema: d.schema, Time: d.first, Readings: readings})
	}
}

func (d *device) reading(i int, r parse.Result) adapters.Reading {
	switch {
	case d.fresh[i] && r.Reason != "":
		return adapters.Reading{Point: i, Quality: adapters.Bad, Reason: r.Reason}
	case d.fresh[i]:
		return adapters.Reading{Point: i, Value: r.Value}
	case r.Value.Kind() != adapters.None:
		return adapters.Reading{Point: i, Quality: adapters.Stale, Reason: adapters.ReasonTimeout, Value: r.Value}
	}
	return adapters.Reading{Point: i, Quality: adapters.Bad, Reason: adapters.ReasonTimeout}
}

// due tells whether a point is due. A tenth of its interval is allowed for what comes a little early.
func (d *device) due(i int, now time.Time) bool {
	return !now.Add(d.Points[i].Interval / 10).Before(d.next[i])
}

// take tells whether a point is due, and notes when it is next.
func (d *device) take(i int, now time.Time) bool {
	interval := d.Points[i].Interval
	if interval == 0 {
		return true
	}
	if !d.due(i, now) {
		return false
	}
	d.next[i] = d.next[i].Add(interval)
	if !d.next[i].After(now) {
		d.next[i] = now.Add(interval)
	}
	return true
}

// publishInterval ends an interval of a device that talks by itself. An interval in which nothing came
// gives nothing: its silence is told when the timeout has passed.
func (s *session) publishInterval(d *device) { s.publish(d, true) }

// timeouts tells of devices that have been silent for too long.
func (s *session) timeouts() {
	now := time.Now()
	for _, d := range s.devices {
		if !d.polled && d.Timeout > 0 && !d.told && now.Sub(d.heard) >= d.Timeout {
			s.fail(d, adapters.ReasonTimeout, fmt.Errorf("nothing heard for %v: %s", d.Timeout, s.stats.since(d.before).silence()))
		}
	}
}

// silence says what came instead of a device's message.
func (s Stats) silence() string {
	switch {
	case s.Bytes == 0:
		return "no byte came; check wiring, and whether the device must be asked"
	case s.Checksum > 0:
		return fmt.Sprintf("%d frames came with a wrong checksum; check frame and checksum", s.Checksum)
	case s.Frames > 0:
		return fmt.Sprintf("%d frames came, none of which it takes; check match and where", s.Frames)
	}
	return fmt.Sprintf("%d bytes came and made no frame; check baud rate, parity and frame", s.Bytes)
}

// online notes that a device answers or talks.
func (b *Bus) online(d *device) {
	b.mu.Lock()
	st := &b.status.Devices[d.index]
	was := st.State
	if was != adapters.Online {
		st.State, st.Since, st.Err = adapters.Online, b.o.Clock(), ""
	}
	b.mu.Unlock()
	d.told = false
	if was != adapters.Online {
		b.o.Logger.Info("device online", "bus", b.o.Name, "device", d.Name)
	}
}

// fail notes that a device gave nothing, and tells so with a sample: all its points are bad. For a
// device that talks by itself, and for a port that is not there, that is told once.
func (b *Bus) fail(d *device, reason adapters.Reason, err error) {
	b.mu.Lock()
	st := &b.status.Devices[d.index]
	was := st.State
	if was != adapters.Offline {
		st.State, st.Since = adapters.Offline, b.o.Clock()
	}
	st.Err = err.Error()
	st.Failures++
	b.mu.Unlock()
	if was != adapters.Offline && reason != adapters.ReasonAbsent {
		b.o.Logger.Warn("device offline", "bus", b.o.Name, "device", d.Name, "err", err)
	}
	d.told = true
	clear(d.fresh)
	clear(d.results)
	clear(d.next)
	readings := make([]adapters.Reading, len(d.results))
	for i := range readings {
		readings[i] = adapters.Reading{Point: i, Quality: adapters.Bad, Reason: reason}
	}
	b.offer(d, adapters.Sample{Schema: d.schema, Time: b.o.Clock(), Readings: readings})
}

func (b *Bus) offer(d *device, s adapters.Sample) {
	if b.o.Trace != nil {
		seen := s
		b.trace(Event{Device: d.Name, Sample: &seen})
	}
	if !b.o.Sink.Offer(s) {
		b.mu.Lock()
		b.status.Refused++
		b.mu.Unlock()
	}
}
