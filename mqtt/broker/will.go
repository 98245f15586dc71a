package broker

import (
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

// publishWill publishes a will, nil being none. No lock may be held.
func (b *Broker) publishWill(w *will, s *session) {
	if w == nil {
		return
	}
	m := *w.m
	m.expires = 0
	if m.HasExpiry {
		m.expires = b.now() + int64(w.seconds)*1e9
	}
	b.publishKept(&m, s, w.client)
}
