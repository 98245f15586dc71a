package packet

import "gateway/mqtt"

// The four acknowledgements of PUBLISH have one form (3.4 to 3.7): packet identifier, and in 5.0
// reason code and properties, which are left out when they say nothing (3.4.2.1, 3.4.2.2.1).

func appendAck(dst []byte, v mqtt.Version, first byte, id uint16, code mqtt.ReasonCode, p *Properties) ([]byte, error) {
	if id == 0 {
		return dst, ErrNoID
	}
	if v != mqtt.V5 || code == mqtt.Success && p.set == 0 {
		return append(dst, first, 2, byte(id>>8), byte(id)), nil
	}
	set := p.allowed(Type(first >> 4))
	if set == 0 {
		return append(dst, first, 3, byte(id>>8), byte(id), byte(code)), nil
	}
	n, err := p.size(set)
	if err != nil {
		return dst, err
	}
	out, err := header(dst, first, 3+sizeVarint(n)+n)
	if err != nil {
		return dst, err
	}
	return p.append(append(out, byte(id>>8), byte(id), byte(code)), set, n), nil
}

func decodeAck(f Frame, v mqtt.Version, flags, codes string, id *uint16, code *mqtt.ReasonCode, p *Properties) error {
	*code = mqtt.Success
	p.reset()
	if err := fixedFlags(f, v, flags); err != nil {
		return err
	}
	c := cursor{b: f.Body, typ: f.Type}
	*id = c.id()
	if v == mqtt.V5 && c.left() > 0 {
		*code = mqtt.ReasonCode(c.byte())
		if !validCode(f.Type, *code) {
			c.protocol(codes, "reason code is not one of this packet's")
		}
		if c.left() > 0 {
			p.decode(&c, f.Type)
		}
	}
	return c.done()
}
