package broker

import (
	"gateway/mqtt"
	"gateway/mqtt/packet"
)

// A message is an application message that outlives the packet that brought it: queued, awaiting its
// acknowledgement, retained, or a will. It is shared by all who hold it and never changed.
type message struct {
	mqtt.Message
	expires int64  // broker time in nanoseconds at which it is of no use; 0: never
	seq     uint64 // its number in the store; 0: it is not there

	// Properties that were there with the value that they have when they are not.
	saysBytes  bool // payload format indicator 0
	saysNoType bool // an empty content type
}

// overhead is what a message costs beside its bytes, roughly.
const overhead = 256

// size is what a message counts for where bytes are bounded.
func (m *message) size() int {
	n := overhead + len(m.Topic) + len(m.Payload) + len(m.ContentType) + len(m.ResponseTopic) + len(m.CorrelationData)
	for i := range m.User {
		n += 32 + len(m.User[i].Name) + len(m.User[i].Value)
	}
	return n
}

func (m *message) expired(now int64) bool { return m.expires != 0 && now >= m.expires }

// remaining is the expiry interval to forward a message with [MQTT-3.3.2-6].
func (m *message) remaining(now int64) uint32 {
	if left := m.expires - now; left > 0 {
		return uint32((left + 1e9 - 1) / 1e9)
	}
	return 0
}

// fillPublish sets p to the PUBLISH that forwards m, without packet identifier.
func (m *message) fillPublish(p *packet.Publish, now int64) {
	*p = packet.Publish{Topic: m.Topic, QoS: m.QoS, Retain: m.Retain, Payload: m.Payload}
	ps := &p.Properties
	switch { // unaltered [MQTT-3.3.2-4]
	case m.PayloadUTF8:
		ps.SetPayloadFormat(1)
	case m.saysBytes:
		ps.SetPayloadFormat(0)
	}
	if m.expires != 0 {
		ps.SetMessageExpiry(m.remaining(now))
	}
	if m.ContentType != "" || m.saysNoType { // [MQTT-3.3.2-20]
		ps.SetContentType(m.ContentType)
	}
	if m.ResponseTopic != "" {
		ps.SetResponseTopic(m.ResponseTopic)
	}
	if m.CorrelationData != nil {
		ps.SetCorrelationData(m.CorrelationData)
	}
	if len(m.User) > 0 {
		ps.SetUser(m.User)
	}
}

// fromPublish copies what a PUBLISH carries; the topic is shared.
func fromPublish(p *packet.Publish, now int64) *message {
	m := &message{Message: mqtt.Message{
		Topic:   p.Topic,
		Payload: append([]byte(nil), p.Payload...),
		QoS:     p.QoS,
		Retain:  p.Retain,
	}}
	ps := &p.Properties
	if ps.None() {
		return m
	}
	m.properties(ps, now)
	return m
}

// properties copies those that belong to the message.
func (m *message) properties(ps *packet.Properties, now int64) {
	m.aliasing(ps, now)
	if m.CorrelationData != nil {
		m.CorrelationData = append([]byte{}, m.CorrelationData...)
	}
	m.User = append([]mqtt.UserProperty(nil), m.User...)
}

// aliasing takes them without copying.
func (m *message) aliasing(ps *packet.Properties, now int64) {
	if ps.None() {
		return
	}
	if ps.Has(packet.PropPayloadFormat) {
		m.PayloadUTF8 = ps.PayloadFormat == 1
		m.saysBytes = !m.PayloadUTF8
	}
	if ps.Has(packet.PropMessageExpiry) {
		m.HasExpiry, m.Expiry = true, ps.MessageExpiry
		m.expires = now + int64(ps.MessageExpiry)*1e9
	}
	if ps.Has(packet.PropContentType) {
		m.ContentType = ps.ContentType
		m.saysNoType = m.ContentType == ""
	}
	if ps.Has(packet.PropResponseTopic) {
		m.ResponseTopic = ps.ResponseTopic
	}
	if ps.Has(packet.PropCorrelationData) {
		m.CorrelationData = ps.CorrelationData
	}
	if ps.Has(packet.PropUser) {
		m.User = ps.User
	}
}
