package delivery

import (
	"errors"
	"slices"
	"time"

	"gateway/adapters"
	"gateway/buffer"
	"gateway/internal/format"
	"gateway/mqtt"
)

// What the window counts before it draws conclusions.
const (
	breaksToProbe = 3 // connections in a row that broke without any acknowledgement
	breaksToBlame = 3 // such connections on which one parcel was alone in flight
	breaksToJudge = 2 // the same on its second trial, after another was acknowledged
	manyRefused   = 8 // refused parcels, without any acknowledgement: it is the destination
	manyBreakers  = 3 // parcels that break connections, likewise
	strikesToOut  = 2 // how often a parcel stands accused while others are taken
)

type messageState uint8

const (
	waiting messageState = iota // to be handed to the publisher
	flying
	acked
	refused
)

// A parcel is what is acknowledged to the queue together: the one message of one or several samples,
// or the several messages of one sample.
type parcel struct {
	items []item
	out   format.Out
	needs []*telling    // what a broker has to be told before it gets the messages
	done  []func(error) // by message; kept when the parcel is used anew

	order   uint64 // of its first transmission
	state   []messageState
	flying  int
	left    int // messages not acknowledged
	bytes   int
	sent    time.Time
	sentNow bool  // has been handed to the publisher at least once
	accused bool  // broke connections; being taken back for it
	trial   bool  // finds out whether a barred topic is taken again
	breaks  int   // connections that broke while it was alone in flight
	strikes int   // times it was a suspect
	why     error // of its last refusal
}

// An item is a sample in a parcel: what it takes to acknowledge it and to set it aside.
type item struct {
	id         ID
	lane       buffer.Lane
	durable    bool
	letter     uint64 // number of the dead letter that it is sent again from; 0: from the queue
	data, dict []byte
}

// begin readies a parcel whose messages have been made.
func (p *parcel) begin() {
	p.state = p.state[:0]
	p.bytes = 0
	for i := range p.out.Messages {
		p.state = append(p.state, waiting)
		p.bytes += len(p.out.Messages[i].Topic) + len(p.out.Messages[i].Payload)
	}
	p.left, p.flying = len(p.state), 0
}

// A window decides what may be in flight: how many messages, whether to wait, and whom to blame
// when a broker refuses messages or drops connections. It is the state of a Destination without
// its input and output. It is not safe for concurrent use.
//
// It starts from this: a broker that takes some messages and refuses one has a reason that lies in
// that one; a broker that refuses one after the other has a reason that lies elsewhere, and what it
// refuses must not be thrown away. So a refused parcel is first a suspect. When any message is
// acknowledged, suspects are tried again; who is refused a second time, and then another is
// acknowledged, is set aside. Where many are refused and none is taken the destination is held:
// after a pause one suspect is tried, alone.
//
// MQTT 3.1.1 knows no refusal but the end of the connection. So when connections break again and
// again with messages in flight and none acknowledged, parcels are sent one at a time; one during
// which several connections break is a suspect like the refused.
type window struct {
	size  int // messages in flight, as configured
	max   int // as the broker allows: at most size
	limit int // now: 1 while probing, then doubling with each acknowledgement

	messages int // in flight
	inFlight []*parcel
	again    []*parcel // to be sent again, in the order of their first transmission
	suspects []*parcel
	orders   uint64

	connected bool
	progress  bool // something was acknowledged on this connection
	excused   bool // it is we who end this connection
	breaks    int  // connections in a row without

	heldUntil time.Time
	held      error // why; nil when not held
	refusal   adapters.Backoff
	busy      adapters.Backoff

	repeated uint64 // messages whose acknowledgement a break may have swallowed, or that we sent again
}

func newWindow(size int) *window {
	return &window{
		size: size, max: size, limit: size, connected: true,
		refusal: adapters.Backoff{Min: 10 * time.Second, Max: 5 * time.Minute},
		busy:    adapters.Backoff{Min: time.Second, Max: 5 * time.Second}, // one message each is no burden
	}
}

// verdict is what an event leads to.
type verdict struct {
	delivered *parcel   // acknowledge its samples
	aside     []*parcel // set these aside
	withdraw  bool      // take back all that is in flight
}

// room tells whether a new parcel may be sent.
func (w *window) room(now time.Time) bool { return len(w.suspects) < w.many() && w.free(now) }

// free tells whether a parcel may be sent: whether there is room for one message. Where it has several, those
// beyond the limit wait in the client, which knows what the broker takes; waiting here for room for all
// of them would leave the line idle between any two parcels.
func (w *window) free(now time.Time) bool {
	return w.connected && !now.Before(w.heldUntil) && w.messages < w.limit
}

// many is the number of suspects at which nothing new is sent.
func (w *window) many() int {
	if slices.ContainsFunc(w.suspects, func(p *parcel) bool { return p.why == nil }) {
		return manyBreakers
	}
	return manyRefused
}

// next returns a parcel that is to be sent again and takes it from the list; nil if there is none,
// or no room for it. Those go before new ones.
func (w *window) next(now time.Time) *parcel {
	if len(w.again) == 0 || !w.free(now) {
		return nil
	}
	p := w.again[0]
	w.again = slices.Delete(w.again, 0, 1)
	return p
}

// launch notes that p is being sent and returns the messages to send, by index.
func (w *window) launch(p *parcel) (messages []int) {
	if !p.sentNow {
		w.orders++
		p.order, p.sentNow = w.orders, true
	} else {
		w.repeated += uint64(p.left)
	}
	for i, s := range p.state {
		if s != acked {
			p.state[i] = flying
			p.flying++
			messages = append(messages, i)
		}
	}
	w.messages += p.flying
	w.inFlight = append(w.inFlight, p)
	return messages
}

// answer notes what became of message i of p.
func (w *window) answer(p *parcel, i int, err error, now time.Time) (v verdict) {
	p.flying--
	w.messages--
	var reason *mqtt.ReasonError
	switch {
	case err == nil:
		p.state[i] = acked
		p.left--
		v.aside = w.taken(now)
	case errors.As(err, &reason) && patience(reason.Code):
		p.state[i] = waiting
		if !now.Before(w.heldUntil) { // else it was sent with those that are waited for
			w.limit = 1
			w.hold(err, w.busy.Fail(), now)
		}
	case errors.As(err, &reason):
		p.state[i] = refused
		p.why = err
	default: // given back
		p.state[i] = waiting
	}
	if p.flying > 0 {
		return v
	}
	if k := slices.Index(w.inFlight, p); k >= 0 {
		w.inFlight = slices.Delete(w.inFlight, k, k+1)
	}
	switch {
	case p.left == 0:
		v.delivered = p
	case p.accused || slices.Contains(p.state, refused):
		p.strikes++
		p.accused, p.breaks = false, 0
		w.suspects = append(w.suspects, p)
	default:
		w.sendAgain(p)
	}
	w.judge(now)
	return v
}

// patience tells codes by which a broker asks to wait from those that refuse the message.
func patience(c mqtt.ReasonCode) bool {
	switch c {
	case mqtt.QuotaExceeded, mqtt.ServerBusy, mqtt.MessageRateTooHigh, mqtt.ReceiveMaximumExceeded,
		mqtt.ServerUnavailable, mqtt.ServerShuttingDown, mqtt.PacketIDInUse:
		return true
	}
	return false
}

// taken notes an acknowledgement: the destination is sound. It returns who is guilty then. That of a message
// that was sent before the broker asked to wait does not end the waiting.
func (w *window) taken(now time.Time) (guilty []*parcel) {
	w.progress, w.breaks = true, 0
	w.refusal.Reset()
	if !now.Before(w.heldUntil) {
		w.busy.Reset()
		w.held, w.heldUntil = nil, time.Time{}
	}
	if w.limit < w.max {
		w.limit = min(2*w.limit, w.max)
	}
	for _, p := range w.suspects {
		if p.strikes >= strikesToOut {
			guilty = append(guilty, p)
		} else {
			w.sendAgain(p)
		}
	}
	w.suspects = w.suspects[:0]
	return guilty
}

// judge holds the destination when all that is left are suspects, and too many of them.
func (w *window) judge(now time.Time) {
	if w.messages > 0 || len(w.suspects) < w.many() {
		return
	}
	probe := w.suspects[0]
	why := probe.why
	if why == nil {
		why = errBreaks
	}
	for _, p := range w.suspects {
		p.strikes = 0 // it was not their fault
	}
	w.suspects = slices.Delete(w.suspects, 0, 1)
	w.again = slices.Insert(w.again, 0, probe)
	w.limit = 1
	w.hold(why, w.refusal.Fail(), now)
}

func (w *window) hold(why error, pause time.Duration, now time.Time) {
	if until := now.Add(pause); until.After(w.heldUntil) {
		w.held, w.heldUntil = why, until
	}
}

// sendAgain puts p back in the order of first transmissions.
func (w *window) sendAgain(p *parcel) {
	i := len(w.again)
	for i > 0 && w.again[i-1].order > p.order {
		i--
	}
	w.again = slices.Insert(w.again, i, p)
}

// link notes that a connection was made, to a broker that takes so many messages at once (0: it has
// not said), or broke. Only connections on which the broker had accepted us count.
func (w *window) link(up bool, atOnce int) (v verdict) {
	if up {
		w.connected, w.progress, w.excused = true, false, false
		open := w.limit == w.max
		// More than the broker takes would wait in the client, and new samples behind it [MQTT-3.3.4-9].
		if w.max = w.size; atOnce > 0 {
			w.max = min(w.size, atOnce)
		}
		if w.limit = min(w.limit, w.max); open {
			w.limit = w.max
		}
		return v
	}
	if !w.connected {
		return v
	}
	w.connected = false
	w.repeated += uint64(w.messages)
	if w.messages == 0 || w.progress || w.excused {
		return v
	}
	w.breaks++
	switch {
	case len(w.inFlight) == 1 && w.limit == 1:
		p := w.inFlight[0]
		p.breaks++
		if p.strikes == 0 && p.breaks >= breaksToBlame || p.strikes > 0 && p.breaks >= breaksToJudge {
			p.accused, v.withdraw = true, true
		}
	case w.limit < w.max || w.breaks >= breaksToProbe:
		w.limit, v.withdraw = 1, true
	}
	return v
}

// excuse says that the connection is going to break, and that no message is to blame.
func (w *window) excuse() { w.excused = true }

// idle tells whether nothing is in flight, to be sent again, or under suspicion.
func (w *window) idle() bool {
	return len(w.inFlight) == 0 && len(w.again) == 0 && len(w.suspects) == 0
}
