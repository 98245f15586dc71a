package packet

import "gateway/mqtt"

// Pubrel is the answer to PUBREC (3.6).
type Pubrel struct {
	ID         uint16
	Code       mqtt.ReasonCode // 5.0 only
	Properties Properties
}

func (*Pubrel) Type() Type { return PUBREL }

func (p *Pubrel) Append(dst []byte, v mqtt.Version) ([]byte, error) {
	return appendAck(dst, v, byte(PUBREL)<<4|2, p.ID, p.Code, &p.Properties)
}

func (p *Pubrel) Decode(f Frame, v mqtt.Version) error {
	return decodeAck(f, v, "MQTT-3.6.1-1", "MQTT-3.6.2-1", &p.ID, &p.Code, &p.Properties)
}
