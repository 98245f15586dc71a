package packet

import "gateway/mqtt"

// Puback acknowledges a PUBLISH of QoS 1 (3.4).
type Puback struct {
	ID         uint16
	Code       mqtt.ReasonCode // 5.0 only
	Properties Properties
}

func (*Puback) Type() Type { return PUBACK }

func (p *Puback) Append(dst []byte, v mqtt.Version) ([]byte, error) {
	return appendAck(dst, v, byte(PUBACK)<<4, p.ID, p.Code, &p.Properties)
}

func (p *Puback) Decode(f Frame, v mqtt.Version) error {
	return decodeAck(f, v, "MQTT-2.1.3-1", "MQTT-3.4.2-1", &p.ID, &p.Code, &p.Properties)
}
