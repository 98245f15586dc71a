package packet

import "gateway/mqtt"

// Disconnect is the last packet on a connection (3.14). Before 5.0 only clients send it, and it is
// empty.
type Disconnect struct {
	Code       mqtt.ReasonCode
	Properties Properties
}

func (*Disconnect) Type() Type { return DISCONNECT }

func (p *Disconnect) Append(dst []byte, v mqtt.Version) ([]byte, error) {
	if v != mqtt.V5 {
		return append(dst, byte(DISCONNECT)<<4, 0), nil
	}
	return appendCode(dst, DISCONNECT, p.Code, &p.Properties)
}

func (p *Disconnect) Decode(f Frame, v mqtt.Version) error {
	return decodeCode(f, v, "MQTT-3.14.1-1", "MQTT-3.14.2-1", &p.Code, &p.Properties)
}

// appendCode encodes DISCONNECT and AUTH of 5.0, which are a reason code and properties, both left
// out when they say nothing (3.14.2.1, 3.15.2.1).
func appendCode(dst []byte, t Type, code mqtt.ReasonCode, p *Properties) ([]byte, error) {
	set := p.allowed(t)
	switch {
	case set == 0 && code == mqtt.Success:
		return append(dst, byte(t)<<4, 0), nil
	case set == 0 && t == DISCONNECT:
		return append(dst, byte(t)<<4, 1, byte(code)), nil
	}
	n, err := p.size(set)
	if err != nil {
		return dst, err
	}
	out, err := header(dst, byte(t)<<4, 1+sizeVarint(n)+n)
	if err != nil {
		return dst, err
	}
	return p.append(append(out, byte(code)), set, n), nil
}

func decodeCode(f Frame, v mqtt.Version, flags, codes string, code *mqtt.ReasonCode, p *Properties) error {
	*code = mqtt.Success
	p.reset()
	if err := fixedFlags(f, v, flags); err != nil {
		return err
	}
	c := cursor{b: f.Body, typ: f.Type}
	if v == mqtt.V5 && c.left() > 0 {
		*code = mqtt.ReasonCode(c.byte())
		if !validCode(f.Type, *code) {
			c.protocol(codes, "reason code is not one of this packet's")
		}
		// A DISCONNECT may end after its reason code (3.14.2.2.1), an AUTH only before it (3.15.2.1).
		if c.left() > 0 || f.Type == AUTH {
			p.decode(&c, f.Type)
		}
	}
	return c.done()
}
