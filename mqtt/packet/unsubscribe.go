package packet

import (
	"encoding/binary"

	"gateway/mqtt"
)

// Unsubscribe ends subscriptions (3.10).
type Unsubscribe struct {
	ID         uint16
	Filters    []string
	Properties Properties
}

func (*Unsubscribe) Type() Type { return UNSUBSCRIBE }

func (p *Unsubscribe) Append(dst []byte, v mqtt.Version) ([]byte, error) {
	switch {
	case p.ID == 0:
		return dst, ErrNoID
	case len(p.Filters) == 0:
		return dst, ErrEmpty // [MQTT-3.10.3-2]
	}
	n := 2
	for _, f := range p.Filters {
		if len(f) > mqtt.MaxString {
			return dst, ErrTooLong
		}
		n += 2 + len(f)
	}
	set := p.Properties.allowed(UNSUBSCRIBE)
	props, err := p.Properties.size(set)
	if err != nil {
		return dst, err
	}
	if v == mqtt.V5 {
		n += sizeVarint(props) + props
	}
	out, err := header(dst, byte(UNSUBSCRIBE)<<4|2, n)
	if err != nil {
		return dst, err
	}
	out = binary.BigEndian.AppendUint16(out, p.ID)
	if v == mqtt.V5 {
		out = p.Properties.append(out, set, props)
	}
	for _, f := range p.Filters {
		out = appendString(out, f)
	}
	return out, nil
}

func (p *Unsubscribe) Decode(f Frame, v mqtt.Version) error {
	p.Filters = p.Filters[:0]
	p.Properties.reset()
	if err := fixedFlags(f, v, "MQTT-3.10.1-1"); err != nil {
		return err
	}
	c := cursor{b: f.Body, typ: UNSUBSCRIBE}
	p.ID = c.id()
	if v == mqtt.V5 {
		p.Properties.decode(&c, UNSUBSCRIBE)
	}
	if c.err == nil && c.left() == 0 {
		c.protocol("MQTT-3.10.3-2", "no topic filter")
	}
	for c.left() > 0 {
		p.Filters = append(p.Filters, c.topicFilter())
	}
	return c.done()
}
