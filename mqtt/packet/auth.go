package packet

import "gateway/mqtt"

// Auth carries a step of an enhanced authentication, either way (3.15). It is of 5.0 only.
type Auth struct {
	Code       mqtt.ReasonCode
	Properties Properties
}

func (*Auth) Type() Type { return AUTH }

func (p *Auth) Append(dst []byte, v mqtt.Version) ([]byte, error) {
	if v != mqtt.V5 {
		return dst, ErrVersion
	}
	return appendCode(dst, AUTH, p.Code, &p.Properties)
}

func (p *Auth) Decode(f Frame, v mqtt.Version) error {
	if v != mqtt.V5 {
		return &Error{Code: mqtt.ProtocolError, Type: AUTH, Detail: "the protocol version has no such packet"}
	}
	return decodeCode(f, v, "MQTT-3.15.1-1", "MQTT-3.15.2-1", &p.Code, &p.Properties)
}
