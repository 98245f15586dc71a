package delivery

import "time"

// State is what a Destination is doing, in a word.
type State string

const (
	Starting   State = "starting"
	Delivering State = "delivering"
	Offline    State = "offline"    // no connection
	Held       State = "held"       // connected, but the broker refuses or asks to wait
	Probing    State = "probing"    // one message at a time, to find which one breaks connections
	Unreadable State = "unreadable" // the disk does not give what the queue holds
)

// Status is how a Destination fares. Counts are since the start of the process.
type Status struct {
	Name      string
	State     State
	Connected bool
	URL       string
	LastError string        // of the connection, or of the last refusal; empty when all is well
	RetryIn   time.Duration // until the next attempt to connect, or to send when held

	Live, Backfill int64  // samples in the queue not yet delivered, by lane
	InFlight       int    // messages sent and not acknowledged
	Delivered      uint64 // samples
	Messages       uint64 // acknowledged
	Bytes          uint64 // of their topics and payloads
	Retransmitted  uint64 // messages that may have arrived twice
	Aside          uint64 // samples set aside
	Limit          int    // messages in flight at most, now
}

// Waiting is the number of samples not yet delivered.
func (s Status) Waiting() int64 { return s.Live + s.Backfill }

// Status returns how the Destination fares.
func (d *Destination) Status() Status {
	d.mu.Lock()
	s := d.status
	d.mu.Unlock()
	s.Live, s.Backfill = d.o.Source.Depth()
	return s
}

// report makes the loop's state visible to Status, and says in the log what changed.
func (d *Destination) report() {
	now := time.Now()
	state := Delivering
	switch {
	case d.unreadable != nil:
		state = Unreadable
	case !d.w.connected:
		state = Offline
	case now.Before(d.w.heldUntil):
		state = Held
	case d.w.limit < d.w.max:
		state = Probing
	}
	d.mu.Lock()
	before := d.status.State
	s := &d.status
	s.State, s.InFlight, s.Retransmitted, s.Limit = state, d.w.messages, d.w.repeated, d.w.limit
	if state == Held {
		s.RetryIn, s.LastError = d.w.heldUntil.Sub(now), d.w.held.Error()
	} else if state == Unreadable {
		s.LastError = d.unreadable.Error()
	} else if s.Connected {
		s.RetryIn = 0
		if d.w.held == nil && len(d.w.suspects) == 0 {
			s.LastError = ""
		}
	}
	d.mu.Unlock()
	if state == before {
		return
	}
	switch state {
	case Unreadable:
		d.log.Error("the disk does not give what the queue holds; trying on", "err", d.unreadable)
	case Held:
		d.log.Warn("the broker takes nothing for now; the queue keeps everything", "err", d.w.held, "retry_in", d.w.heldUntil.Sub(now).Round(time.Second))
	case Probing:
		if before != Held {
			d.log.Warn("connections break while messages are in flight; sending one at a time to find out which")
		}
	case Delivering:
		if before == Held || before == Probing {
			d.log.Info("the broker takes messages again")
		}
	}
}

func (d *Destination) noteLink(l *Link) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.status.Connected, d.status.URL, d.status.RetryIn, d.status.LastError = l.Connected, l.URL, l.RetryIn, ""
	if l.Err != nil {
		d.status.LastError = l.Err.Error()
	}
}

func (d *Destination) noteRefusal(err error) {
	d.mu.Lock()
	d.status.LastError = err.Error()
	d.mu.Unlock()
}
