package serial

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"gateway/adapters"
	"gateway/adapters/serial/frame"
	"gateway/adapters/serial/parse"
)

// A failure is why a request gave nothing.
type failure struct {
	reason adapters.Reason
	err    error
}

// wanted tells whether a message has a point that is due.
func (d *device) wanted(m *message, now time.Time) bool {
	return slices.ContainsFunc(m.Points, func(i int) bool { return d.due(i, now) })
}

// poll carries out a cycle of a polled device: its messages, one after the other, but for those whose
// points are not due. A device that does not answer is not asked further in this cycle; so is one whose
// message without points failed, since what follows builds on that. The error is the end of the session.
func (s *session) poll(d *device) error {
	now := time.Now()
	if !slices.ContainsFunc(d.messages, func(m *message) bool { return d.wanted(m, now) }) {
		return nil
	}
	s.mu.Lock()
	s.status.Devices[d.index].Polls++
	s.mu.Unlock()
	var why failure // of the cycle
	good := false
	for i, m := range d.messages {
		if len(m.Points) > 0 && !d.wanted(m, now) {
			continue
		}
		f, err := s.ask(d, m)
		if err != nil {
			return err
		}
		if f.reason == "" {
			good = good || m.hasValue()
			continue
		}
		if why.reason == "" {
			why = f
		}
		d.markBad(m, f.reason, s.o.Clock())
		if f.reason == adapters.ReasonTimeout || len(m.Points) == 0 {
			for _, rest := range d.messages[i+1:] {
				d.markBad(rest, f.reason, s.o.Clock())
			}
			break
		}
	}
	switch {
	case why.reason == "" || good:
		s.online(d)
		if !good {
			s.mu.Lock()
			s.status.Devices[d.index].Failures++
			s.mu.Unlock()
		}
		s.publish(d, false)
	default:
		// Something may have answered, but no value came of it.
		s.failCycle(d, why)
	}
	return s.setBaud(s.baud) // a message may have changed it, for its device alone
}

func (m *message) hasValue() bool {
	for _, r := range m.out {
		if r.Said() && r.Reason == "" {
			return true
		}
	}
	return false
}

// markBad notes that nothing is known of a message's points.
func (d *device) markBad(m *message, reason adapters.Reason, at adapters.Instant) {
	for i := range m.out {
		m.out[i] = parse.Result{Reason: reason}
	}
	d.collect(m, at)
}

// failCycle tells of a cycle without a value, each point with its own reason.
func (s *session) failCycle(d *device, why failure) {
	s.mu.Lock()
	st := &s.status.Devices[d.index]
	was := st.State
	if was != adapters.Offline {
		st.State, st.Since = adapters.Offline, s.o.Clock()
	}
	st.Err = why.err.Error()
	st.Failures++
	s.mu.Unlock()
	if was != adapters.Offline {
		s.o.Logger.Warn("device offline", "bus", s.o.Name, "device", d.Name, "err", why.err)
	}
	clear(d.next)
	s.publish(d, false)
}

// ask sends a request and waits for the frame that answers it. Frames that do not are heard as if they
// had come by themselves: another device's.
func (s *session) ask(d *device, m *message) (failure, error) {
	defer func() { s.cutter = s.Bus.cutter }()
	f, err := s.request(m)
	sent := f.reason == ""
	if err == nil && sent && !m.NoAnswer {
		f, err = s.answer(d, m)
	}
	if err == nil && f.reason == adapters.ReasonTimeout {
		s.mu.Lock()
		s.stats.Unanswered++
		s.mu.Unlock()
		err = s.unsend()
	}
	if err == nil && sent && m.Wait > 0 {
		err = s.pause(m.Wait)
	}
	return f, err
}

// unsend throws away a request that flow control may still hold back.
func (s *session) unsend() error {
	if c, ok := s.conn.(interface{ Unsend() error }); ok {
		return c.Unsend()
	}
	return nil
}

// request puts the line into the state that the request wants, and sends it.
func (s *session) request(m *message) (failure, error) {
	if wait := s.o.Pause - time.Since(s.last); wait > 0 {
		if err := s.pause(wait); err != nil {
			return failure{}, err
		}
	}
	if err := s.setBaud(m.Baud); err != nil {
		return failure{adapters.ReasonUnsupported, err}, nil
	}
	if m.Break > 0 {
		breaker, ok := s.conn.(interface{ Break(time.Duration) error })
		if !ok {
			return failure{adapters.ReasonUnsupported, errors.New("this connection cannot send a break")}, nil
		}
		if err := breaker.Break(m.Break); err != nil {
			return failure{adapters.ReasonUnsupported, err}, nil
		}
		// The line must be marking for the time of a character before the first start bit: SDI-12 1.4,
		// 4.2.1, wants 8.33 ms at 1200 baud.
		if err := s.pause(s.wireTime(1)); err != nil {
			return failure{}, err
		}
	}
	if err := s.discard(); err != nil {
		return failure{}, err
	}
	s.cutter.Reset()
	if m.cutter != nil {
		s.cutter = m.cutter
		s.cutter.Reset()
	}
	s.joined = true // what comes now is an answer
	if err := s.conn.SetWriteDeadline(time.Now().Add(max(time.Second, min(m.Timeout, heartbeat)) + s.wireTime(len(m.Send)))); err != nil {
		return failure{}, err
	}
	s.trace(Event{Sent: m.Send})
	if _, err := s.conn.Write(m.Send); err != nil {
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return failure{adapters.ReasonTimeout, errors.New("the request could not be sent: flow control holds the line")}, nil
		}
		return failure{}, err
	}
	s.last = time.Now()
	s.mu.Lock()
	s.stats.Requests++
	s.stats.Sent += uint64(len(m.Send))
	s.mu.Unlock()
	if m.ThenBaud != 0 {
		if err := s.pause(s.wireTime(len(m.Send))); err != nil {
			return failure{}, err
		}
		if err := s.setBaud(m.ThenBaud); err != nil {
			return failure{adapters.ReasonUnsupported, err}, nil
		}
	}
	return failure{}, nil
}

// answer waits for the frame that answers m.
func (s *session) answer(d *device, m *message) (failure, error) {
	until := time.Now().Add(m.Timeout + s.wireTime(len(m.Send)))
	silent := failure{adapters.ReasonTimeout, fmt.Errorf("no answer within %v", m.Timeout)}
	var echo []byte
	for {
		f, err := s.frame(until)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded) && echo != nil && !s.echoes && m.takes(echo):
			d.collect(m, s.arrived)
			return failure{}, nil
		case errors.Is(err, os.ErrDeadlineExceeded):
			return silent, nil
		case err != nil:
			return failure{}, err
		case f.Fault == frame.Checksum:
			// It may have been the answer; a good one may still come.
			silent = failure{adapters.ReasonChecksum, errors.New("the answer came damaged: its checksum is wrong")}
		case f.Fault != frame.None:
			silent = failure{adapters.ReasonProtocol, fmt.Errorf("what came is no frame: %v", f.Fault)}
		case m.Refused != nil && m.Refused.Match(f.Data):
			return failure{adapters.ReasonRefused, fmt.Errorf("the device refused: %q", f.Data)}, nil
		case bytes.Equal(bytes.TrimSpace(f.Raw), bytes.TrimSpace(m.Send)):
			// Optical heads and many RS-485 adapters hear what they send. A device that acknowledges by
			// repeating the request looks the same, so if nothing else comes this was the answer.
			echo = bytes.Clone(f.Data)
		case m.takes(f.Data):
			s.echoes = s.echoes || echo != nil
			d.collect(m, s.arrived)
			return failure{}, nil
		default:
			silent = failure{adapters.ReasonParse, fmt.Errorf("the answer is not of the expected form: %.60q", f.Data)}
			s.hear(f)
		}
	}
}

// takes tells whether the frame is the answer, and notes what it says.
func (m *message) takes(frame []byte) bool { return m.parser == nil || m.parser.Parse(frame, m.out) }

// discardFor bounds how long a connection on which bytes keep coming is emptied.
const discardFor = 200 * time.Millisecond

// discard throws away what came before the request: a late answer must not pass for this one's.
func (s *session) discard() error {
	if d, ok := s.conn.(interface{ Discard() error }); ok {
		return d.Discard()
	}
	for end := time.Now().Add(discardFor); time.Now().Before(end); {
		err := s.read(time.Now().Add(time.Millisecond))
		s.cutter.Reset()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// pause waits for d while what comes is heard.
func (s *session) pause(d time.Duration) error {
	until := time.Now().Add(d)
	for {
		f, err := s.frame(until)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		}
		if err != nil {
			return err
		}
		s.hear(f)
	}
}

func (s *session) setBaud(baud int) error {
	if baud == 0 {
		return nil
	}
	b, ok := s.conn.(interface {
		SetBaud(int) error
		Baud() int
	})
	if !ok {
		return errors.New("this connection cannot change the baud rate")
	}
	if b.Baud() == baud {
		return nil
	}
	return b.SetBaud(baud)
}

// wireTime is how long n characters take on the line, at eleven bits each; 0 where there is no rate.
func (s *session) wireTime(n int) time.Duration {
	b, ok := s.conn.(interface{ Baud() int })
	if !ok || b.Baud() <= 0 {
		return 0
	}
	return time.Duration(n) * 11 * time.Second / time.Duration(b.Baud())
}
