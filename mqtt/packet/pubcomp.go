package packet

import "gateway/mqtt"

// Pubcomp is the answer to PUBREL and ends the exchange of QoS 2 (3.7).
type Pubcomp struct {
	ID         uint16
	Code       mqtt.ReasonCode // 5.0 only
	Properties Properties
}

func (*Pubcomp) Type() Type { return PUBCOMP }

func (p *Pubcomp) Append(dst []byte, v mqtt.Version) ([]byte, error) {
	return appendAck(dst, v, byte(PUBCOMP)<<4, p.ID, p.Code, &p.Properties)
}

func (p *Pubcomp) Decode(f Frame, v mqtt.Version) error {
	return decodeAck(f, v, "MQTT-2.1.3-1", "MQTT-3.7.2-1", &p.ID, &p.Code, &p.Properties)
}
