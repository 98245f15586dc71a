package packet

import (
	"encoding/binary"

	"gateway/mqtt"
)

// Connect asks a server for a connection (3.1).
type Connect struct {
	Version     mqtt.Version
	Bridge      bool // says that it is one broker's bridge to another; before 5.0 only
	CleanStart  bool // clean session before 5.0
	KeepAlive   uint16
	ClientID    string
	Will        *Will // nil: none
	HasUsername bool
	Username    string
	HasPassword bool
	Password    []byte
	Properties  Properties
}

// A Will is published by the server when the connection ends without a DISCONNECT (3.1.2.5).
type Will struct {
	Topic      string
	Payload    []byte
	QoS        mqtt.QoS
	Retain     bool
	Properties Properties
}

func (*Connect) Type() Type { return CONNECT }

// The connect flags (3.1.2.3).
const (
	flagCleanStart = 0x02
	flagWill       = 0x04
	flagWillRetain = 0x20
	flagPassword   = 0x40
	flagUsername   = 0x80
)

// bridgeBit is what Mosquitto's bridges add to the protocol version, unless try_private false is in their
// configuration, since before 5.0 there are no subscription options to ask for. No specification has it.
const bridgeBit = 0x80

// Append encodes for p.Version; the version given is ignored.
func (p *Connect) Append(dst []byte, _ mqtt.Version) ([]byte, error) {
	name := "MQTT"
	if p.Version == mqtt.V31 {
		name = "MQIsdp"
	}
	n := 2 + len(name) + 1 + 1 + 2 + 2 + len(p.ClientID)
	long := len(p.ClientID) > mqtt.MaxString
	var flags byte
	if p.CleanStart {
		flags |= flagCleanStart
	}
	set := p.Properties.allowed(CONNECT)
	props, err := p.Properties.size(set)
	if err != nil {
		return dst, err
	}
	var willSet uint64
	var willProps int
	if w := p.Will; w != nil {
		if w.QoS > mqtt.ExactlyOnce {
			return dst, ErrQoS
		}
		flags |= flagWill | byte(w.QoS)<<3
		if w.Retain {
			flags |= flagWillRetain
		}
		n += 4 + len(w.Topic) + len(w.Payload)
		long = long || len(w.Topic) > mqtt.MaxString || len(w.Payload) > mqtt.MaxString
		willSet = w.Properties.allowed(will)
		if willProps, err = w.Properties.size(willSet); err != nil {
			return dst, err
		}
	}
	if p.HasUsername {
		flags |= flagUsername
		n += 2 + len(p.Username)
		long = long || len(p.Username) > mqtt.MaxString
	}
	if p.HasPassword {
		flags |= flagPassword
		n += 2 + len(p.Password)
		long = long || len(p.Password) > mqtt.MaxString
	}
	if long {
		return dst, ErrTooLong
	}
	if p.Version == mqtt.V5 {
		n += sizeVarint(props) + props
		if p.Will != nil {
			n += sizeVarint(willProps) + willProps
		}
	}
	out, err := header(dst, byte(CONNECT)<<4, n)
	if err != nil {
		return dst, err
	}
	out = appendString(out, name)
	version := byte(p.Version)
	if p.Bridge && p.Version != mqtt.V5 {
		version |= bridgeBit
	}
	out = append(out, version, flags)
	out = binary.BigEndian.AppendUint16(out, p.KeepAlive)
	if p.Version == mqtt.V5 {
		out = p.Properties.append(out, set, props)
	}
	out = appendString(out, p.ClientID)
	if w := p.Will; w != nil {
		if p.Version == mqtt.V5 {
			out = w.Properties.append(out, willSet, willProps)
		}
		out = appendString(out, w.Topic)
		out = appendString(out, w.Payload)
	}
	if p.HasUsername {
		out = appendString(out, p.Username)
	}
	if p.HasPassword {
		out = appendString(out, p.Password)
	}
	return out, nil
}

// lenient31 clears the connect flags that MQTT 3.1 says are to be disregarded: bit 0, which was not used, and
// the will's qos and retain without a will.
func lenient31(flags byte) byte {
	if flags &^= 1; flags&flagWill == 0 {
		flags &^= flagWillRetain | 3<<3
	}
	return flags
}

// Decode takes the version from the packet and leaves it in p.Version, also when it fails for an
// unknown one, so that a server knows how to answer. An identifier that the version does not allow
// fails with ClientIDNotValid once everything else proved right.
func (p *Connect) Decode(f Frame, _ mqtt.Version) error {
	*p = Connect{}
	c := cursor{b: f.Body, typ: CONNECT}
	name := c.utf8()
	p.Version = mqtt.Version(c.byte())
	if v := p.Version &^ bridgeBit; v != p.Version && (v == mqtt.V31 || v == mqtt.V311) {
		p.Version, p.Bridge = v, true
	}
	if c.err != nil {
		return c.err
	}
	if err := fixedFlags(f, p.Version, "MQTT-2.1.3-1"); err != nil {
		return err
	}
	switch {
	case string(name) == "MQTT" && (p.Version == mqtt.V311 || p.Version == mqtt.V5):
	case string(name) == "MQIsdp" && p.Version == mqtt.V31:
	case string(name) != "MQTT" && string(name) != "MQIsdp":
		c.fail(mqtt.UnsupportedVersion, "MQTT-3.1.2-1", "protocol name is not MQTT")
	default:
		c.fail(mqtt.UnsupportedVersion, "MQTT-3.1.2-2", "protocol version is not supported")
	}
	flags := c.byte()
	p.KeepAlive = c.uint16()
	if p.Version == mqtt.V31 {
		flags = lenient31(flags)
	}
	if c.err == nil && flags&1 != 0 {
		c.malformed("MQTT-3.1.2-3", "reserved connect flag is set")
	}
	p.CleanStart = flags&flagCleanStart != 0
	if p.Version == mqtt.V5 {
		p.Properties.decode(&c, CONNECT)
	}
	p.ClientID = c.string("")
	qos := flags >> 3 & 3
	switch {
	case c.err != nil:
	case qos == 3:
		c.malformed("MQTT-3.1.2-12", "will qos is 3")
	case flags&flagWill == 0 && qos != 0:
		c.malformed("MQTT-3.1.2-11", "will qos without a will")
	case flags&flagWill == 0 && flags&flagWillRetain != 0:
		c.malformed("MQTT-3.1.2-13", "will retain without a will")
	case flags&flagPassword != 0 && flags&flagUsername == 0 && p.Version != mqtt.V5:
		c.malformed("MQTT-3.1.2-22 of 3.1.1", "password without a user name")
	}
	if flags&flagWill != 0 && c.err == nil {
		w := &Will{QoS: mqtt.QoS(qos), Retain: flags&flagWillRetain != 0}
		if p.Version == mqtt.V5 {
			w.Properties.decode(&c, will)
		}
		w.Topic = c.topicName("", "MQTT-4.7.1-1")
		if c.err == nil && w.Topic == "" {
			c.malformed("MQTT-4.7.3-1", "will topic is empty")
		}
		w.Payload = c.binary()
		p.Will = w
	}
	// In 3.1 the remaining length counts for more than the flags: a user name or password may be missing
	// (CONNECT of the MQTT V3.1 protocol specification).
	missing := func() bool { return p.Version == mqtt.V31 && c.left() == 0 }
	if flags&flagUsername != 0 && !missing() {
		p.HasUsername = true
		p.Username = c.string("")
	}
	if flags&flagPassword != 0 && !missing() {
		p.HasPassword = true
		p.Password = c.binary()
	}
	if err := c.done(); err != nil {
		return err
	}
	if p.ClientID == "" && (p.Version == mqtt.V311 && !p.CleanStart || p.Version == mqtt.V31) {
		return &Error{Code: mqtt.ClientIDNotValid, Type: CONNECT, Statement: "MQTT-3.1.3-8 of 3.1.1", Detail: "client identifier is empty and the session is to be kept"}
	}
	return nil
}
