package packet

import "gateway/mqtt"

// Pubrec is the first answer to a PUBLISH of QoS 2 (3.5).
type Pubrec struct {
	ID         uint16
	Code       mqtt.ReasonCode // 5.0 only
	Properties Properties
}

func (*Pubrec) Type() Type { return PUBREC }

func (p *Pubrec) Append(dst []byte, v mqtt.Version) ([]byte, error) {
	return appendAck(dst, v, byte(PUBREC)<<4, p.ID, p.Code, &p.Properties)
}

func (p *Pubrec) Decode(f Frame, v mqtt.Version) error {
	return decodeAck(f, v, "MQTT-2.1.3-1", "MQTT-3.5.2-1", &p.ID, &p.Code, &p.Properties)
}
