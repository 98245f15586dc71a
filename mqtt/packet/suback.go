package packet

import (
	"encoding/binary"

	"gateway/mqtt"
)

// Suback answers SUBSCRIBE with one code for each filter, in its order (3.9).
type Suback struct {
	ID         uint16
	Codes      []mqtt.ReasonCode
	Properties Properties
}

func (*Suback) Type() Type { return SUBACK }

func (p *Suback) Append(dst []byte, v mqtt.Version) ([]byte, error) {
	if p.ID == 0 {
		return dst, ErrNoID
	}
	n := 2 + len(p.Codes)
	set := p.Properties.allowed(SUBACK)
	props, err := p.Properties.size(set)
	if err != nil {
		return dst, err
	}
	if v == mqtt.V5 {
		n += sizeVarint(props) + props
	}
	out, err := header(dst, byte(SUBACK)<<4, n)
	if err != nil {
		return dst, err
	}
	out = binary.BigEndian.AppendUint16(out, p.ID)
	if v == mqtt.V5 {
		out = p.Properties.append(out, set, props)
	}
	for _, c := range p.Codes {
		// 3.1.1 knows one failure only [MQTT-3.9.3-2 of 3.1.1].
		if v != mqtt.V5 && c.IsError() {
			c = mqtt.UnspecifiedError
		}
		out = append(out, byte(c))
	}
	return out, nil
}

func (p *Suback) Decode(f Frame, v mqtt.Version) error {
	p.Codes = p.Codes[:0]
	p.Properties.reset()
	if err := fixedFlags(f, v, "MQTT-2.1.3-1"); err != nil {
		return err
	}
	c := cursor{b: f.Body, typ: SUBACK}
	p.ID = c.id()
	if v == mqtt.V5 {
		p.Properties.decode(&c, SUBACK)
	}
	if c.err == nil && c.left() == 0 {
		c.protocol("", "no reason code")
	}
	for c.left() > 0 {
		code := mqtt.ReasonCode(c.byte())
		switch {
		case v == mqtt.V5 && !validCode(SUBACK, code):
			c.protocol("MQTT-3.9.3-2", "reason code is not one of SUBACK's")
		case v != mqtt.V5 && code > mqtt.GrantedQoS2 && code != mqtt.UnspecifiedError:
			c.protocol("MQTT-3.9.3-2 of 3.1.1", "return code is reserved")
		}
		p.Codes = append(p.Codes, code)
	}
	return c.done()
}
