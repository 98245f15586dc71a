package packet

import (
	"encoding/binary"

	"gateway/mqtt"
)

// Subscribe asks for subscriptions (3.8).
type Subscribe struct {
	ID            uint16
	Subscriptions []mqtt.Subscription
	Properties    Properties
}

func (*Subscribe) Type() Type { return SUBSCRIBE }

// The subscription options (3.8.3.1).
const (
	optNoLocal           = 0x04
	optRetainAsPublished = 0x08
)

func (p *Subscribe) Append(dst []byte, v mqtt.Version) ([]byte, error) {
	switch {
	case p.ID == 0:
		return dst, ErrNoID
	case len(p.Subscriptions) == 0:
		return dst, ErrEmpty // [MQTT-3.8.3-2]
	}
	n := 2
	for i := range p.Subscriptions {
		l := len(p.Subscriptions[i].Filter)
		switch {
		case l > mqtt.MaxString:
			return dst, ErrTooLong
		case p.Subscriptions[i].QoS > mqtt.ExactlyOnce:
			return dst, ErrQoS
		}
		n += 3 + l
	}
	set := p.Properties.allowed(SUBSCRIBE)
	props, err := p.Properties.size(set)
	if err != nil {
		return dst, err
	}
	if v == mqtt.V5 {
		n += sizeVarint(props) + props
	}
	out, err := header(dst, byte(SUBSCRIBE)<<4|2, n)
	if err != nil {
		return dst, err
	}
	out = binary.BigEndian.AppendUint16(out, p.ID)
	if v == mqtt.V5 {
		out = p.Properties.append(out, set, props)
	}
	for i := range p.Subscriptions {
		s := &p.Subscriptions[i]
		opt := byte(s.QoS)
		if v == mqtt.V5 {
			if s.NoLocal {
				opt |= optNoLocal
			}
			if s.RetainAsPublished {
				opt |= optRetainAsPublished
			}
			opt |= byte(s.RetainHandling) << 4
		}
		out = append(appendString(out, s.Filter), opt)
	}
	return out, nil
}

func (p *Subscribe) Decode(f Frame, v mqtt.Version) error {
	p.Subscriptions = p.Subscriptions[:0]
	p.Properties.reset()
	if err := fixedFlags(f, v, "MQTT-3.8.1-1"); err != nil {
		return err
	}
	c := cursor{b: f.Body, typ: SUBSCRIBE}
	p.ID = c.id()
	if v == mqtt.V5 {
		p.Properties.decode(&c, SUBSCRIBE)
	}
	if c.err == nil && c.left() == 0 {
		c.protocol("MQTT-3.8.3-2", "no topic filter")
	}
	for c.left() > 0 {
		s := mqtt.Subscription{Filter: c.topicFilter()}
		opt := c.byte()
		s.QoS = mqtt.QoS(opt & 3)
		if v == mqtt.V5 {
			s.NoLocal = opt&optNoLocal != 0
			s.RetainAsPublished = opt&optRetainAsPublished != 0
			s.RetainHandling = mqtt.RetainHandling(opt >> 4 & 3)
		}
		group, _ := mqtt.SplitShare(s.Filter)
		switch {
		case c.err != nil:
		case v == mqtt.V5 && opt&0xC0 != 0 || v == mqtt.V311 && opt&0xFC != 0:
			c.malformed("MQTT-3.8.3-5", "reserved bits of the subscription options are set")
		case s.QoS > mqtt.ExactlyOnce:
			c.protocol("MQTT-3.8.3-4 of 3.1.1", "maximum qos is 3")
		case s.RetainHandling > mqtt.RetainDoNotSend:
			c.protocol("", "retain handling is 3")
		case s.NoLocal && group != "":
			c.protocol("MQTT-3.8.3-4", "no local on a shared subscription")
		}
		p.Subscriptions = append(p.Subscriptions, s)
	}
	return c.done()
}
