package broker

import (
	"cmp"
	"maps"
	"slices"
	"sync"
	"time"

	"gateway/mqtt"
	"gateway/mqtt/packet"
)

// A will is the message that a client leaves for the case that its connection breaks (3.1.2.5).
type will struct {
	m       *message
	seconds uint32 // until it expires, from its publication on; with m.HasExpiry
	delay   time.Duration
	client  *Client
	seq     uint64 // in the store; 0: it is not there
}

// wills are those in the store: of clients that are connected, and those whose delay runs.
type wills struct {
	mu  sync.Mutex
	all map[uint64]*storedWill
}

type storedWill struct {
	*will
	session uint64
}

func newWill(w *packet.Will, client *Client) *will {
	m := &message{Message: mqtt.Message{Topic: w.Topic, Payload: append([]byte{}, w.Payload...), QoS: w.QoS, Retain: w.Retain}}
	m.properties(&w.Properties, 0)
	out := &will{m: m, seconds: m.Expiry, client: client}
	if w.Properties.Has(packet.PropWillDelay) { // not forwarded to anybody
		out.delay = time.Duration(w.Properties.WillDelay) * time.Second
	}
	return out
}

// size is what a will counts for where bytes are bounded; nil is none.
func (w *will) size() int {
	if w == nil {
		return 0
	}
	return w.m.size()
}

// forgo ends a will that is not to be published, nil being none.
func (b *Broker) forgo(w *will) {
	b.keeps(-w.size())
	b.journal.executed(w)
}

// bequest puts a client's will into the store, nil being none: a broker that crashes has ended all connections
// without a DISCONNECT, and publishes the wills when it is back (3.1.2.5).
func (j *journal) bequest(s *session, w *will) {
	if j == nil || w == nil {
		return
	}
	w.seq = j.number()
	// First in memory: a snapshot that is taken meanwhile has it, or it comes behind.
	j.wills.mu.Lock()
	if j.wills.all == nil {
		j.wills.all = make(map[uint64]*storedWill)
	}
	j.wills.all[w.seq] = &storedWill{w, s.num}
	j.wills.mu.Unlock()
	j.record(func(b []byte) []byte { return appendWill(b, s.num, w) })
}

// take takes a will out of those in the store, and tells whether it was there; nil is not.
func (ws *wills) take(w *will) bool {
	if w == nil || w.seq == 0 {
		return false
	}
	ws.mu.Lock()
	defer ws.mu.Unlock()
	_, there := ws.all[w.seq]
	delete(ws.all, w.seq)
	return there
}

// executed takes a will out of the store that will not be published. For one that is, message does.
func (j *journal) executed(w *will) {
	if j != nil && j.wills.take(w) {
		j.record(func(b []byte) []byte { return appendNum(b, opExecuted, w.seq) })
	}
}

// list returns them in the order in which they came.
func (ws *wills) list() []*storedWill {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	return slices.SortedFunc(maps.Values(ws.all), func(a, b *storedWill) int { return cmp.Compare(a.seq, b.seq) })
}

// publishWill publishes a will, nil being none. No lock may be held.
func (b *Broker) publishWill(will *will, s *session) {
	if will == nil {
		return
	}
	b.keeps(-will.size())
	m := *will.m
	m.expires, m.seq = 0, 0
	if m.HasExpiry {
		m.expires = b.now() + int64(will.seconds)*1e9
	}
	w := b.worker()
	defer w.done()
	r := b.route(m.Topic, s, will.client)
	if r.refused != mqtt.Success {
		b.stats.refused.Add(1)
		b.refused("will refused", "client", will.client.ID, "topic", m.Topic, "reason", r.refused)
		b.journal.executed(will)
		return
	}
	w.pub.load(&m, b.now())
	w.pub.will = will
	w.published++
	b.publish(w, r, receipt{})
}
