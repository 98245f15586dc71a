package packet

import "gateway/mqtt"

// Pingreq asks the server for a sign of life, and is one (3.12).
type Pingreq struct{}

func (*Pingreq) Type() Type { return PINGREQ }

func (*Pingreq) Append(dst []byte, _ mqtt.Version) ([]byte, error) {
	return append(dst, byte(PINGREQ)<<4, 0), nil
}

func (*Pingreq) Decode(f Frame, v mqtt.Version) error { return decodeEmpty(f, v) }

func decodeEmpty(f Frame, v mqtt.Version) error {
	if err := fixedFlags(f, v, "MQTT-2.1.3-1"); err != nil {
		return err
	}
	c := cursor{b: f.Body, typ: f.Type}
	return c.done()
}
