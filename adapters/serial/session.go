package serial

import (
	"context"
	"errors"
	"io"
	"os"
	"time"

	"gateway/adapters"
	"gateway/adapters/port"
	"gateway/adapters/serial/frame"
)

// A session is the time between the opening of the port and its loss. The goroutine that runs it owns
// the port.
type session struct {
	*Bus
	ctx    context.Context // as long as there is to be listened
	work   context.Context // as long as an exchange that was begun may take
	asking bool            // there is an exchange under way
	conn   Conn
	cutter *frame.Cutter // the line's, or that of the message that is waited for
	buf    [4096]byte

	opened  time.Time
	last    time.Time // when the last byte came or went
	arrived adapters.Instant
	joined  bool // the first bytes have come
	echoes  bool // requests come back before their answers

	schedule *adapters.Schedule
	jobs     []*device // of the schedule

	baud       int         // the line's own rate; 0: it has none
	faults     Stats       // when last told
	counts     port.Counts // of the driver, when last looked
	counted    bool        // there are any
	nextCounts time.Time
}

// heartbeat bounds how long a session waits for anything.
const heartbeat = 5 * time.Second

// midstream is how soon after the opening a byte may come and still be the middle of something.
const midstream = 100 * time.Millisecond

func (b *Bus) session(ctx context.Context, conn Conn) error {
	now := time.Now()
	work, cancel := adapters.Outlive(ctx)
	defer cancel()
	s := &session{Bus: b, ctx: ctx, work: work, conn: conn, cutter: b.cutter, opened: now, last: now}
	// A Read that waits is woken; one that is about to wait looks at the context first. In an exchange it
	// waits on.
	wake := func() { conn.SetReadDeadline(time.Unix(1, 0)) }
	defer context.AfterFunc(ctx, wake)()
	defer context.AfterFunc(work, wake)()
	b.cutter.Reset()
	s.schedule = adapters.NewSchedule(now)
	if c, ok := conn.(interface{ Baud() int }); ok {
		s.baud = c.Baud()
	}
	for _, d := range b.devices {
		d.heard, d.told, d.before = now, false, b.stats
		d.backoff.Reset()
		if d.Interval > 0 {
			phase := d.Interval
			if d.polled {
				phase = b.o.Settle
			}
			s.schedule.Add(d.Interval, phase)
			s.jobs = append(s.jobs, d)
		}
	}
	s.lookAtCounts()
	defer s.lookAtCounts()
	for ctx.Err() == nil {
		if err := s.turn(); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// ended returns why the session is over, nil while it is not.
func (s *session) ended() error {
	if s.asking {
		return s.work.Err()
	}
	return s.ctx.Err()
}

// turn does what is due, or listens until something is.
func (s *session) turn() error {
	s.beat()
	s.timeouts()
	if now := time.Now(); now.After(s.nextCounts) {
		s.nextCounts = now.Add(heartbeat)
		s.lookAtCounts()
		s.tellFaults(now)
	}
	until := time.Now().Add(heartbeat)
	if id, due, ok := s.schedule.Next(); ok {
		if now := time.Now(); !due.After(now) {
			return s.job(id)
		}
		until = earlier(until, due)
	}
	for _, d := range s.devices {
		if !d.polled && d.Timeout > 0 && !d.told {
			until = earlier(until, d.heard.Add(d.Timeout))
		}
	}
	f, err := s.frame(until)
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil
	case err != nil:
		return err
	}
	s.hear(f)
	return nil
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// job carries out a job of the schedule: a cycle of a polled device, or the sample of an interval.
func (s *session) job(id int) error {
	d := s.jobs[id]
	var err error
	if d.polled {
		s.asking = true
		err = s.poll(d)
		s.asking = false
	} else {
		s.publishInterval(d)
	}
	now := time.Now()
	overruns := s.schedule.Done(id, now)
	if failures := s.failures(d, overruns); failures > 0 {
		s.schedule.Postpone(id, now.Add(d.backoff.Fail()))
	}
	return err
}

// failures notes overruns and returns how many cycles of a polled device failed in a row.
func (s *session) failures(d *device, overruns int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status.Devices[d.index].Overruns += uint64(overruns)
	if !d.polled || s.status.Devices[d.index].State != adapters.Offline {
		d.backoff.Reset()
		return 0
	}
	return d.backoff.Failures() + 1
}

// frame returns the next frame or fault by the time until, else os.ErrDeadlineExceeded. Any other
// error is the end of the session.
func (s *session) frame(until time.Time) (frame.Frame, error) {
	for {
		if f, ok := s.cutter.Next(); ok {
			s.count(f)
			if s.o.Trace != nil {
				seen := f
				s.trace(Event{Frame: &seen})
			}
			return f, nil
		}
		deadline, silence := earlier(until, time.Now().Add(heartbeat)), time.Time{}
		if quiet := s.cutter.SilenceAfter(); quiet > 0 {
			silence = s.last.Add(quiet)
			deadline = earlier(deadline, silence)
		}
		err := s.read(deadline)
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			if err != nil {
				return frame.Frame{}, err
			}
			continue
		}
		s.beat()
		if now := time.Now(); !silence.IsZero() && !now.Before(silence) {
			s.cutter.Silence()
		} else if !now.Before(until) {
			return frame.Frame{}, err
		}
	}
}

// read feeds the cutter with what comes by the deadline.
func (s *session) read(deadline time.Time) error {
	if err := s.conn.SetReadDeadline(deadline); err != nil {
		return err
	}
	if err := s.ended(); err != nil {
		return err
	}
	n, err := s.conn.Read(s.buf[:])
	if n > 0 {
		s.last, s.arrived = time.Now(), s.o.Clock()
		if !s.joined {
			s.joined = true
			if s.last.Sub(s.opened) < midstream {
				s.cutter.Join()
			}
		}
		s.trace(Event{Got: s.buf[:n]})
		s.cutter.Feed(s.buf[:n])
		s.mu.Lock()
		s.stats.Bytes += uint64(n)
		s.status.Beat++ // a line that never falls silent is no loop that hangs
		s.mu.Unlock()
		return nil
	}
	if ended := s.ended(); ended != nil {
		return ended
	}
	if err == io.EOF {
		err = errors.New("serial: the other end closed the connection")
	}
	return err
}

func (s *session) count(f frame.Frame) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch f.Fault {
	case frame.None:
		s.stats.Frames++
	case frame.Garbage:
		s.stats.Garbage++
	case frame.Checksum:
		s.stats.Checksum++
	default:
		s.stats.Other++
	}
}

// lookAtCounts asks the driver for its counters and tells when characters came damaged or were lost.
func (s *session) lookAtCounts() {
	counter, ok := s.conn.(interface{ Counts() (port.Counts, error) })
	if !ok {
		return
	}
	now, err := counter.Counts()
	if err != nil {
		return // a driver without counters
	}
	change := now.Sub(s.counts)
	was := s.counted
	s.counts, s.counted = now, true
	if !was {
		return
	}
	s.mu.Lock()
	l := &s.stats.Line
	l.Received += change.Received
	l.Sent += change.Sent
	l.Framing += change.Framing
	l.Parity += change.Parity
	l.Break += change.Break
	l.Overrun += change.Overrun
	l.BufferOverrun += change.BufferOverrun
	s.mu.Unlock()
	change.Received, change.Sent = 0, 0
	if change != (port.Counts{}) {
		s.o.Logger.Warn("errors on the serial line; check baud rate, parity and wiring", "bus", s.o.Name,
			"framing", change.Framing, "parity", change.Parity, "break", change.Break, "overrun", change.Overrun+change.BufferOverrun)
	}
}

// tellFaults tells of what was thrown away since it was last told. At the opening it is what came of a
// frame whose start was missed.
func (s *session) tellFaults(now time.Time) {
	since := s.stats.since(s.faults)
	s.faults = s.stats
	if now.Sub(s.opened) <= heartbeat || since.Checksum+since.Garbage+since.Other == 0 {
		return
	}
	s.o.Logger.Warn("bytes on the serial line that are no frame; 'gateway serial monitor' shows them", "bus", s.o.Name,
		"checksum", since.Checksum, "garbage", since.Garbage, "too_long_or_cut_off", since.Other, "frames", since.Frames)
}
