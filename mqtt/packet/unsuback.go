package packet

import (
	"encoding/binary"

	"gateway/mqtt"
)

// Unsuback answers UNSUBSCRIBE (3.11), in 5.0 with one code for each filter, in its order.
type Unsuback struct {
	ID         uint16
	Codes      []mqtt.ReasonCode // 5.0 only
	Properties Properties
}

func (*Unsuback) Type() Type { return UNSUBACK }

func (p *Unsuback) Append(dst []byte, v mqtt.Version) ([]byte, error) {
	if p.ID == 0 {
		return dst, ErrNoID
	}
	if v != mqtt.V5 {
		return append(dst, byte(UNSUBACK)<<4, 2, byte(p.ID>>8), byte(p.ID)), nil
	}
	set := p.Properties.allowed(UNSUBACK)
	n, err := p.Properties.size(set)
	if err != nil {
		return dst, err
	}
	out, err := header(dst, byte(UNSUBACK)<<4, 2+sizeVarint(n)+n+len(p.Codes))
	if err != nil {
		return dst, err
	}
	out = p.Properties.append(binary.BigEndian.AppendUint16(out, p.ID), set, n)
	for _, c := range p.Codes {
		out = append(out, byte(c))
	}
	return out, nil
}

func (p *Unsuback) Decode(f Frame, v mqtt.Version) error {
	p.Codes = p.Codes[:0]
	p.Properties.reset()
	if err := fixedFlags(f, v, "MQTT-2.1.3-1"); err != nil {
		return err
	}
	c := cursor{b: f.Body, typ: UNSUBACK}
	p.ID = c.id()
	if v == mqtt.V5 {
		p.Properties.decode(&c, UNSUBACK)
		if c.err == nil && c.left() == 0 {
			c.protocol("", "no reason code")
		}
		for c.left() > 0 {
			code := mqtt.ReasonCode(c.byte())
			if !validCode(UNSUBACK, code) {
				c.protocol("MQTT-3.11.3-2", "reason code is not one of UNSUBACK's")
			}
			p.Codes = append(p.Codes, code)
		}
	}
	return c.done()
}
