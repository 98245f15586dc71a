package packet

import (
	"encoding/binary"

	"gateway/mqtt"
)

// Publish carries an application message, either way (3.3).
type Publish struct {
	Dup        bool
	QoS        mqtt.QoS
	Retain     bool
	ID         uint16 // QoS 1 and 2 only
	Topic      string // may be empty when a topic alias is there
	Payload    []byte // after Decode: part of the frame's body
	Properties Properties
}

func (*Publish) Type() Type { return PUBLISH }

// The flags of PUBLISH's fixed header (3.3.1).
const (
	flagRetain = 0x01
	flagDup    = 0x08
)

func (p *Publish) Append(dst []byte, v mqtt.Version) ([]byte, error) {
	out, _, err := p.append(dst, v)
	return out, err
}

// append also returns where in the result the packet identifier stands.
func (p *Publish) append(dst []byte, v mqtt.Version) (out []byte, idAt int, err error) {
	switch {
	case len(p.Topic) > mqtt.MaxString:
		return dst, 0, ErrTooLong
	case p.QoS > mqtt.ExactlyOnce:
		return dst, 0, ErrQoS // [MQTT-3.3.1-4]
	}
	first := byte(PUBLISH)<<4 | byte(p.QoS)<<1
	if p.Retain {
		first |= flagRetain
	}
	n := 2 + len(p.Topic) + len(p.Payload)
	if p.QoS > 0 {
		if p.ID == 0 {
			return dst, 0, ErrNoID // [MQTT-2.2.1-3]
		}
		n += 2
		if p.Dup {
			first |= flagDup // never at QoS 0 [MQTT-3.3.1-2]
		}
	}
	var set uint64
	var props int
	if v == mqtt.V5 {
		if set = p.Properties.allowed(PUBLISH); set != 0 {
			if props, err = p.Properties.size(set); err != nil {
				return dst, 0, err
			}
		}
		n += sizeVarint(props) + props
	}
	if out, err = header(dst, first, n); err != nil {
		return dst, 0, err
	}
	out = appendString(out, p.Topic)
	idAt = len(out)
	if p.QoS > 0 {
		out = binary.BigEndian.AppendUint16(out, p.ID) // [MQTT-2.2.1-2]: none at QoS 0
	}
	if v == mqtt.V5 {
		out = p.Properties.append(out, set, props)
	}
	return append(out, p.Payload...), idAt, nil
}

// Decode keeps p.Topic where it is the same again. Payload and correlation data alias the frame's
// body; the lists of user properties and subscription identifiers are used again by the next Decode.
func (p *Publish) Decode(f Frame, v mqtt.Version) error {
	c := cursor{b: f.Body, typ: PUBLISH}
	p.Dup, p.Retain, p.QoS, p.ID = f.Flags&flagDup != 0, f.Flags&flagRetain != 0, mqtt.QoS(f.Flags>>1&3), 0
	p.Payload = nil
	p.Properties.reset()
	if p.QoS > mqtt.ExactlyOnce {
		c.malformed("MQTT-3.3.1-4", "qos is 3")
	}
	if p.QoS == 0 && p.Dup {
		if p.Dup = false; v != mqtt.V31 {
			c.malformed("MQTT-3.3.1-2", "duplicate flag at qos 0")
		}
	}
	if c.err == nil && v == mqtt.V5 {
		c.share = p.headEnd(f.Body)
	}
	p.Topic = c.topicName(p.Topic, "MQTT-3.3.2-2")
	if p.QoS > 0 {
		p.ID = c.id()
	}
	if v == mqtt.V5 {
		p.Properties.decode(&c, PUBLISH)
	}
	if p.Topic == "" && c.err == nil {
		switch {
		case v != mqtt.V5:
			c.malformed("MQTT-4.7.3-1", "topic name is empty")
		case !p.Properties.Has(PropTopicAlias):
			c.protocol("", "topic name is empty and there is no topic alias")
		}
	}
	if c.err != nil {
		return c.err
	}
	p.Payload = f.Body[c.off:]
	return nil
}

// headEnd returns where the properties end when there are any, so that topic and properties become
// one string in one allocation; otherwise 0. It checks nothing.
func (p *Publish) headEnd(b []byte) int {
	if len(b) < 2 {
		return 0
	}
	at := 2 + int(binary.BigEndian.Uint16(b))
	if p.QoS > 0 {
		at += 2
	}
	if at >= len(b) || b[at] == 0 {
		return 0
	}
	c := cursor{b: b, off: at}
	n := int(c.varint())
	if c.err != nil || n > c.left() {
		return 0
	}
	return c.off + n
}

// Message returns the application message. Its slices alias those of the packet.
func (p *Publish) Message() mqtt.Message {
	m := mqtt.Message{Topic: p.Topic, Payload: p.Payload, QoS: p.QoS, Retain: p.Retain}
	if q := &p.Properties; q.set != 0 {
		m.PayloadUTF8 = q.PayloadFormat == 1
		m.HasExpiry, m.Expiry = q.Has(PropMessageExpiry), q.MessageExpiry
		m.ContentType = q.ContentType
		m.ResponseTopic = q.ResponseTopic
		if q.Has(PropCorrelationData) {
			m.CorrelationData = q.CorrelationData
		}
		m.User = q.User
	}
	return m
}

// SetMessage makes p carry a message, whose slices it aliases. Dup and ID become zero.
func (p *Publish) SetMessage(m *mqtt.Message) {
	*p = Publish{Topic: m.Topic, Payload: m.Payload, QoS: m.QoS, Retain: m.Retain}
	p.Properties.SetMessage(m)
}

// SetMessage sets the properties that belong to an application message.
func (p *Properties) SetMessage(m *mqtt.Message) {
	if m.PayloadUTF8 {
		p.SetPayloadFormat(1)
	}
	if m.HasExpiry {
		p.SetMessageExpiry(m.Expiry)
	}
	if m.ContentType != "" {
		p.SetContentType(m.ContentType)
	}
	if m.ResponseTopic != "" {
		p.SetResponseTopic(m.ResponseTopic)
	}
	if m.CorrelationData != nil {
		p.SetCorrelationData(m.CorrelationData)
	}
	if len(m.User) > 0 {
		p.SetUser(m.User)
	}
}

// A Template is a PUBLISH encoded once and sent many times: to each receiver of the same version,
// QoS and retain flag, with a packet identifier of its own. It is not changed by use.
type Template struct {
	b    []byte
	idAt int // 0 at QoS 0
}

// MakeTemplate encodes p, whose ID and Dup do not matter, into buf, which the Template keeps.
func MakeTemplate(buf []byte, p *Publish, v mqtt.Version) (Template, error) {
	q := *p
	q.ID, q.Dup = 1, false
	out, at, err := q.append(buf[:0], v)
	if err != nil {
		return Template{}, err
	}
	if q.QoS == 0 {
		at = 0
	}
	return Template{out, at}, nil
}

// Size returns the size of the whole packet in bytes.
func (t Template) Size() int { return len(t.b) }

// Append appends the packet with a packet identifier and duplicate flag, which QoS 0 ignores.
func (t Template) Append(dst []byte, id uint16, dup bool) []byte {
	at := len(dst)
	dst = append(dst, t.b...)
	if t.idAt > 0 {
		binary.BigEndian.PutUint16(dst[at+t.idAt:], id)
		if dup {
			dst[at] |= flagDup
		}
	}
	return dst
}

// Bytes returns the packet itself, to be written as it is at QoS 0; it must not be changed.
func (t Template) Bytes() []byte { return t.b }
