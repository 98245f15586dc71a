package packet

import "gateway/mqtt"

// Connack is a server's answer to CONNECT (3.2).
type Connack struct {
	SessionPresent bool
	Code           mqtt.ReasonCode
	Properties     Properties
}

func (*Connack) Type() Type { return CONNACK }

// returnCode gives the CONNACK return code of 3.1.1 (table 3.1 there) for a reason code.
func returnCode(c mqtt.ReasonCode) byte {
	switch c {
	case mqtt.Success:
		return 0
	case mqtt.UnsupportedVersion:
		return 1
	case mqtt.ClientIDNotValid:
		return 2
	case mqtt.BadUserNameOrPassword, mqtt.BadAuthenticationMethod:
		return 4
	case mqtt.NotAuthorized, mqtt.Banned:
		return 5
	}
	return 3 // server unavailable
}

// reasonCodes are what the return codes of 3.1.1 mean.
var reasonCodes = [6]mqtt.ReasonCode{
	mqtt.Success, mqtt.UnsupportedVersion, mqtt.ClientIDNotValid, mqtt.ServerUnavailable, mqtt.BadUserNameOrPassword, mqtt.NotAuthorized,
}

func (p *Connack) Append(dst []byte, v mqtt.Version) ([]byte, error) {
	// Session present goes with success only [MQTT-3.2.2-6]; 3.1 has no such flag.
	present := flag(p.SessionPresent && p.Code == mqtt.Success && v != mqtt.V31)
	if v != mqtt.V5 {
		return append(dst, byte(CONNACK)<<4, 2, present, returnCode(p.Code)), nil
	}
	set := p.Properties.allowed(CONNACK)
	n, err := p.Properties.size(set)
	if err != nil {
		return dst, err
	}
	out, err := header(dst, byte(CONNACK)<<4, 2+sizeVarint(n)+n)
	if err != nil {
		return dst, err
	}
	return p.Properties.append(append(out, present, byte(p.Code)), set, n), nil
}

func (p *Connack) Decode(f Frame, v mqtt.Version) error {
	*p = Connack{}
	if err := fixedFlags(f, v, "MQTT-2.1.3-1"); err != nil {
		return err
	}
	c := cursor{b: f.Body, typ: CONNACK}
	flags, code := c.byte(), c.byte()
	if flags > 1 && v != mqtt.V31 {
		c.malformed("MQTT-3.2.2-1", "reserved acknowledge flags are set")
	}
	p.SessionPresent = flags&1 != 0 && v != mqtt.V31
	switch {
	case v == mqtt.V5 && len(f.Body) == 2 && code != 0 && int(code) < len(reasonCodes):
		// A server that knows only older versions refuses 5.0 with two bytes and return code 1.
		p.Code = reasonCodes[code]
	case v == mqtt.V5:
		p.Code = mqtt.ReasonCode(code)
		if c.err == nil && !validCode(CONNACK, p.Code) {
			c.protocol("MQTT-3.2.2-8", "reason code is not one of CONNACK's")
		}
		p.Properties.decode(&c, CONNACK)
	case int(code) < len(reasonCodes):
		p.Code = reasonCodes[code]
	default:
		c.protocol("", "return code is reserved")
	}
	if c.err == nil && p.SessionPresent && p.Code != mqtt.Success {
		c.protocol("MQTT-3.2.2-6", "session present with a refusal")
	}
	return c.done()
}
