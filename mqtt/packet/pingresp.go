package packet

import "gateway/mqtt"

// Pingresp answers PINGREQ (3.13).
type Pingresp struct{}

func (*Pingresp) Type() Type { return PINGRESP }

func (*Pingresp) Append(dst []byte, _ mqtt.Version) ([]byte, error) {
	return append(dst, byte(PINGRESP)<<4, 0), nil
}

func (*Pingresp) Decode(f Frame, v mqtt.Version) error { return decodeEmpty(f, v) }
