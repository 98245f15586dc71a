package packet

import (
	"encoding/binary"
	"math/bits"

	"gateway/mqtt"
)

// A Property is the identifier of a property (2.2.2.2).
type Property uint8

const (
	PropPayloadFormat          Property = 1
	PropMessageExpiry          Property = 2
	PropContentType            Property = 3
	PropResponseTopic          Property = 8
	PropCorrelationData        Property = 9
	PropSubscriptionID         Property = 11
	PropSessionExpiry          Property = 17
	PropAssignedClientID       Property = 18
	PropServerKeepAlive        Property = 19
	PropAuthMethod             Property = 21
	PropAuthData               Property = 22
	PropRequestProblemInfo     Property = 23
	PropWillDelay              Property = 24
	PropRequestResponseInfo    Property = 25
	PropResponseInfo           Property = 26
	PropServerReference        Property = 28
	PropReasonString           Property = 31
	PropReceiveMaximum         Property = 33
	PropTopicAliasMaximum      Property = 34
	PropTopicAlias             Property = 35
	PropMaximumQoS             Property = 36
	PropRetainAvailable        Property = 37
	PropUser                   Property = 38
	PropMaximumPacketSize      Property = 39
	PropWildcardAvailable      Property = 40
	PropSubscriptionIDsAvail   Property = 41
	PropSharedSubscriptionsAvl Property = 42
)

// where tells in which packets a property may be: bit t for a packet of type t, bit 0 for the will.
var where = [43]uint16{
	PropPayloadFormat:          1<<PUBLISH | 1<<will,
	PropMessageExpiry:          1<<PUBLISH | 1<<will,
	PropContentType:            1<<PUBLISH | 1<<will,
	PropResponseTopic:          1<<PUBLISH | 1<<will,
	PropCorrelationData:        1<<PUBLISH | 1<<will,
	PropSubscriptionID:         1<<PUBLISH | 1<<SUBSCRIBE,
	PropSessionExpiry:          1<<CONNECT | 1<<CONNACK | 1<<DISCONNECT,
	PropAssignedClientID:       1 << CONNACK,
	PropServerKeepAlive:        1 << CONNACK,
	PropAuthMethod:             1<<CONNECT | 1<<CONNACK | 1<<AUTH,
	PropAuthData:               1<<CONNECT | 1<<CONNACK | 1<<AUTH,
	PropRequestProblemInfo:     1 << CONNECT,
	PropWillDelay:              1 << will,
	PropRequestResponseInfo:    1 << CONNECT,
	PropResponseInfo:           1 << CONNACK,
	PropServerReference:        1<<CONNACK | 1<<DISCONNECT,
	PropReasonString:           1<<CONNACK | acks | 1<<SUBACK | 1<<UNSUBACK | 1<<DISCONNECT | 1<<AUTH,
	PropReceiveMaximum:         1<<CONNECT | 1<<CONNACK,
	PropTopicAliasMaximum:      1<<CONNECT | 1<<CONNACK,
	PropTopicAlias:             1 << PUBLISH,
	PropMaximumQoS:             1 << CONNACK,
	PropRetainAvailable:        1 << CONNACK,
	PropUser:                   1<<CONNECT | 1<<CONNACK | 1<<PUBLISH | 1<<will | acks | 1<<SUBSCRIBE | 1<<SUBACK | 1<<UNSUBSCRIBE | 1<<UNSUBACK | 1<<DISCONNECT | 1<<AUTH,
	PropMaximumPacketSize:      1<<CONNECT | 1<<CONNACK,
	PropWildcardAvailable:      1 << CONNACK,
	PropSubscriptionIDsAvail:   1 << CONNACK,
	PropSharedSubscriptionsAvl: 1 << CONNACK,
}

const acks = 1<<PUBACK | 1<<PUBREC | 1<<PUBREL | 1<<PUBCOMP

// Properties are those of any packet of MQTT 5.0 or of a will; the zero Properties has none. A
// field counts only when Has says that it is there; the setters see to that. Append leaves out
// what does not belong into the packet.
type Properties struct {
	set uint64 // bit n: property n is there

	MessageExpiry     uint32 // seconds
	SessionExpiry     uint32 // seconds; 0xFFFFFFFF: never
	WillDelay         uint32 // seconds
	MaximumPacketSize uint32 // bytes, fixed header included
	ServerKeepAlive   uint16 // seconds
	ReceiveMaximum    uint16
	TopicAliasMaximum uint16
	TopicAlias        uint16

	PayloadFormat       uint8 // 1: the payload is UTF-8
	MaximumQoS          mqtt.QoS
	RetainAvailable     bool
	WildcardAvailable   bool
	SubscriptionIDs     bool // subscription identifiers are available
	SharedAvailable     bool
	RequestProblemInfo  bool
	RequestResponseInfo bool

	ContentType      string
	ResponseTopic    string
	AssignedClientID string
	AuthMethod       string
	ResponseInfo     string
	ServerReference  string
	ReasonString     string

	CorrelationData []byte
	AuthData        []byte
	// SubscriptionID holds one in a SUBSCRIBE and, of each subscription that matched, in a PUBLISH.
	SubscriptionID []uint32
	User           []mqtt.UserProperty
}

// Has tells whether a property is there.
func (p *Properties) Has(id Property) bool { return p.set>>id&1 != 0 }

// None tells whether there is no property at all.
func (p *Properties) None() bool { return p.set == 0 }

// Remove takes a property away.
func (p *Properties) Remove(id Property) { p.set &^= 1 << id }

func (p *Properties) SetPayloadFormat(f uint8)    { p.PayloadFormat = f; p.mark(PropPayloadFormat) }
func (p *Properties) SetMessageExpiry(s uint32)   { p.MessageExpiry = s; p.mark(PropMessageExpiry) }
func (p *Properties) SetContentType(s string)     { p.ContentType = s; p.mark(PropContentType) }
func (p *Properties) SetResponseTopic(s string)   { p.ResponseTopic = s; p.mark(PropResponseTopic) }
func (p *Properties) SetCorrelationData(b []byte) { p.CorrelationData = b; p.mark(PropCorrelationData) }
func (p *Properties) SetSubscriptionID(ids ...uint32) {
	p.SubscriptionID = ids
	p.mark(PropSubscriptionID)
}
func (p *Properties) SetSessionExpiry(s uint32) { p.SessionExpiry = s; p.mark(PropSessionExpiry) }
func (p *Properties) SetAssignedClientID(s string) {
	p.AssignedClientID = s
	p.mark(PropAssignedClientID)
}
func (p *Properties) SetServerKeepAlive(s uint16) { p.ServerKeepAlive = s; p.mark(PropServerKeepAlive) }
func (p *Properties) SetAuthMethod(s string)      { p.AuthMethod = s; p.mark(PropAuthMethod) }
func (p *Properties) SetAuthData(b []byte)        { p.AuthData = b; p.mark(PropAuthData) }
func (p *Properties) SetRequestProblemInfo(b bool) {
	p.RequestProblemInfo = b
	p.mark(PropRequestProblemInfo)
}
func (p *Properties) SetWillDelay(s uint32) { p.WillDelay = s; p.mark(PropWillDelay) }
func (p *Properties) SetRequestResponseInfo(b bool) {
	p.RequestResponseInfo = b
	p.mark(PropRequestResponseInfo)
}
func (p *Properties) SetResponseInfo(s string)    { p.ResponseInfo = s; p.mark(PropResponseInfo) }
func (p *Properties) SetServerReference(s string) { p.ServerReference = s; p.mark(PropServerReference) }
func (p *Properties) SetReasonString(s string)    { p.ReasonString = s; p.mark(PropReasonString) }
func (p *Properties) SetReceiveMaximum(n uint16)  { p.ReceiveMaximum = n; p.mark(PropReceiveMaximum) }
func (p *Properties) SetTopicAliasMaximum(n uint16) {
	p.TopicAliasMaximum = n
	p.mark(PropTopicAliasMaximum)
}
func (p *Properties) SetTopicAlias(n uint16)        { p.TopicAlias = n; p.mark(PropTopicAlias) }
func (p *Properties) SetMaximumQoS(q mqtt.QoS)      { p.MaximumQoS = q; p.mark(PropMaximumQoS) }
func (p *Properties) SetRetainAvailable(b bool)     { p.RetainAvailable = b; p.mark(PropRetainAvailable) }
func (p *Properties) SetUser(u []mqtt.UserProperty) { p.User = u; p.mark(PropUser) }
func (p *Properties) SetMaximumPacketSize(n uint32) {
	p.MaximumPacketSize = n
	p.mark(PropMaximumPacketSize)
}
func (p *Properties) SetWildcardAvailable(b bool) {
	p.WildcardAvailable = b
	p.mark(PropWildcardAvailable)
}
func (p *Properties) SetSubscriptionIDsAvailable(b bool) {
	p.SubscriptionIDs = b
	p.mark(PropSubscriptionIDsAvail)
}
func (p *Properties) SetSharedAvailable(b bool) {
	p.SharedAvailable = b
	p.mark(PropSharedSubscriptionsAvl)
}

func (p *Properties) mark(id Property) { p.set |= 1 << id }

// reset empties the properties and keeps the room of their lists.
func (p *Properties) reset() {
	if p.set != 0 {
		*p = Properties{SubscriptionID: p.SubscriptionID[:0], User: p.User[:0]}
	}
}

// allowed returns the properties that are there and belong into a packet of type t.
func (p *Properties) allowed(t Type) uint64 {
	if p.set == 0 {
		return 0
	}
	out := p.set
	for m := p.set; m != 0; m &= m - 1 {
		if id := bits.TrailingZeros64(m); where[id]>>t&1 == 0 {
			out &^= 1 << id
		}
	}
	return out
}

// size returns the encoded size of the properties in set, without the length before them, or
// ErrTooLong or ErrSubID.
func (p *Properties) size(set uint64) (int, error) {
	n, long := 0, false
	text := func(l int) {
		n += 3 + l
		long = long || l > mqtt.MaxString
	}
	for m := set; m != 0; m &= m - 1 {
		switch Property(bits.TrailingZeros64(m)) {
		case PropPayloadFormat, PropRequestProblemInfo, PropRequestResponseInfo, PropMaximumQoS, PropRetainAvailable,
			PropWildcardAvailable, PropSubscriptionIDsAvail, PropSharedSubscriptionsAvl:
			n += 2
		case PropServerKeepAlive, PropReceiveMaximum, PropTopicAliasMaximum, PropTopicAlias:
			n += 3
		case PropMessageExpiry, PropSessionExpiry, PropWillDelay, PropMaximumPacketSize:
			n += 5
		case PropContentType:
			text(len(p.ContentType))
		case PropResponseTopic:
			text(len(p.ResponseTopic))
		case PropAssignedClientID:
			text(len(p.AssignedClientID))
		case PropAuthMethod:
			text(len(p.AuthMethod))
		case PropResponseInfo:
			text(len(p.ResponseInfo))
		case PropServerReference:
			text(len(p.ServerReference))
		case PropReasonString:
			text(len(p.ReasonString))
		case PropCorrelationData:
			text(len(p.CorrelationData))
		case PropAuthData:
			text(len(p.AuthData))
		case PropSubscriptionID:
			for _, id := range p.SubscriptionID {
				if id == 0 || id > maxRemaining { // (3.8.2.1.2)
					return 0, ErrSubID
				}
				n += 1 + sizeVarint(int(id))
			}
		case PropUser:
			for i := range p.User {
				u := &p.User[i]
				text(len(u.Name))
				text(len(u.Value))
				n-- // one identifier for both
			}
		}
	}
	if long {
		return 0, ErrTooLong
	}
	return n, nil
}

func flag(b bool) byte {
	if b {
		return 1
	}
	return 0
}

// append appends the properties in set, n bytes long, and their length before them.
func (p *Properties) append(dst []byte, set uint64, n int) []byte {
	dst = appendVarint(dst, uint32(n))
	for m := set; m != 0; m &= m - 1 {
		id := bits.TrailingZeros64(m)
		b := byte(id)
		switch Property(id) {
		case PropPayloadFormat:
			dst = append(dst, b, p.PayloadFormat)
		case PropMessageExpiry:
			dst = binary.BigEndian.AppendUint32(append(dst, b), p.MessageExpiry)
		case PropContentType:
			dst = appendString(append(dst, b), p.ContentType)
		case PropResponseTopic:
			dst = appendString(append(dst, b), p.ResponseTopic)
		case PropCorrelationData:
			dst = appendString(append(dst, b), p.CorrelationData)
		case PropSubscriptionID:
			for _, id := range p.SubscriptionID {
				dst = appendVarint(append(dst, b), id)
			}
		case PropSessionExpiry:
			dst = binary.BigEndian.AppendUint32(append(dst, b), p.SessionExpiry)
		case PropAssignedClientID:
			dst = appendString(append(dst, b), p.AssignedClientID)
		case PropServerKeepAlive:
			dst = binary.BigEndian.AppendUint16(append(dst, b), p.ServerKeepAlive)
		case PropAuthMethod:
			dst = appendString(append(dst, b), p.AuthMethod)
		case PropAuthData:
			dst = appendString(append(dst, b), p.AuthData)
		case PropRequestProblemInfo:
			dst = append(dst, b, flag(p.RequestProblemInfo))
		case PropWillDelay:
			dst = binary.BigEndian.AppendUint32(append(dst, b), p.WillDelay)
		case PropRequestResponseInfo:
			dst = append(dst, b, flag(p.RequestResponseInfo))
		case PropResponseInfo:
			dst = appendString(append(dst, b), p.ResponseInfo)
		case PropServerReference:
			dst = appendString(append(dst, b), p.ServerReference)
		case PropReasonString:
			dst = appendString(append(dst, b), p.ReasonString)
		case PropReceiveMaximum:
			dst = binary.BigEndian.AppendUint16(append(dst, b), p.ReceiveMaximum)
		case PropTopicAliasMaximum:
			dst = binary.BigEndian.AppendUint16(append(dst, b), p.TopicAliasMaximum)
		case PropTopicAlias:
			dst = binary.BigEndian.AppendUint16(append(dst, b), p.TopicAlias)
		case PropMaximumQoS:
			dst = append(dst, b, byte(p.MaximumQoS))
		case PropRetainAvailable:
			dst = append(dst, b, flag(p.RetainAvailable))
		case PropUser:
			for i := range p.User {
				dst = appendString(append(dst, b), p.User[i].Name)
				dst = appendString(dst, p.User[i].Value)
			}
		case PropMaximumPacketSize:
			dst = binary.BigEndian.AppendUint32(append(dst, b), p.MaximumPacketSize)
		case PropWildcardAvailable:
			dst = append(dst, b, flag(p.WildcardAvailable))
		case PropSubscriptionIDsAvail:
			dst = append(dst, b, flag(p.SubscriptionIDs))
		case PropSharedSubscriptionsAvl:
			dst = append(dst, b, flag(p.SharedAvailable))
		}
	}
	return dst
}

// decode reads the length and the properties of a packet of type t (2.2.2). p is empty before.
func (p *Properties) decode(c *cursor, t Type) {
	n := int(c.varint())
	if n == 0 || c.err != nil {
		return
	}
	if n > c.left() {
		c.malformed("", "property length goes beyond the packet")
		return
	}
	// The properties end where their length says, whatever is in them.
	whole := c.b
	c.b = c.b[:c.off+n]
	for c.left() > 0 && c.err == nil {
		p.one(c, t)
	}
	c.b = whole
	if c.err == nil && p.Has(PropAuthData) && !p.Has(PropAuthMethod) {
		c.protocol("", "authentication data without a method")
	}
	if c.err != nil {
		c.off = len(c.b)
	}
}

func (p *Properties) one(c *cursor, t Type) {
	n := c.varint()
	if n >= uint32(len(where)) || where[n]>>t&1 == 0 {
		c.malformed("", "property does not belong into this packet")
		return
	}
	id := Property(n)
	if p.Has(id) && id != PropUser && !(id == PropSubscriptionID && t == PUBLISH) {
		c.protocol("", "property is there twice")
		return
	}
	p.mark(id)
	switch id {
	case PropPayloadFormat:
		p.PayloadFormat = flag(c.bit())
	case PropMessageExpiry:
		p.MessageExpiry = c.uint32()
	case PropContentType:
		p.ContentType = c.string("")
	case PropResponseTopic:
		p.ResponseTopic = c.topicName("", "MQTT-3.3.2-14")
		if c.err == nil && p.ResponseTopic == "" {
			c.protocol("MQTT-4.7.3-1", "response topic is empty")
		}
	case PropCorrelationData:
		p.CorrelationData = c.binary()
	case PropSubscriptionID:
		id := c.varint()
		if id == 0 {
			c.protocol("", "subscription identifier is 0")
		}
		p.SubscriptionID = append(p.SubscriptionID, id)
	case PropSessionExpiry:
		p.SessionExpiry = c.uint32()
	case PropAssignedClientID:
		p.AssignedClientID = c.string("")
	case PropServerKeepAlive:
		p.ServerKeepAlive = c.uint16()
	case PropAuthMethod:
		p.AuthMethod = c.string("")
	case PropAuthData:
		p.AuthData = c.binary()
	case PropRequestProblemInfo:
		p.RequestProblemInfo = c.bit()
	case PropWillDelay:
		p.WillDelay = c.uint32()
	case PropRequestResponseInfo:
		p.RequestResponseInfo = c.bit()
	case PropResponseInfo:
		p.ResponseInfo = c.string("")
	case PropServerReference:
		p.ServerReference = c.string("")
	case PropReasonString:
		p.ReasonString = c.string("")
	case PropReceiveMaximum:
		if p.ReceiveMaximum = c.uint16(); p.ReceiveMaximum == 0 {
			c.protocol("", "receive maximum is 0")
		}
	case PropTopicAliasMaximum:
		p.TopicAliasMaximum = c.uint16()
	case PropTopicAlias:
		if p.TopicAlias = c.uint16(); p.TopicAlias == 0 {
			c.fail(mqtt.TopicAliasInvalid, "MQTT-3.3.2-8", "topic alias is 0")
		}
	case PropMaximumQoS:
		p.MaximumQoS = mqtt.QoS(flag(c.bit()))
	case PropRetainAvailable:
		p.RetainAvailable = c.bit()
	case PropUser:
		name := c.string("")
		p.User = append(p.User, mqtt.UserProperty{Name: name, Value: c.string("")})
	case PropMaximumPacketSize:
		if p.MaximumPacketSize = c.uint32(); p.MaximumPacketSize == 0 {
			c.protocol("", "maximum packet size is 0")
		}
	case PropWildcardAvailable:
		p.WildcardAvailable = c.bit()
	case PropSubscriptionIDsAvail:
		p.SubscriptionIDs = c.bit()
	case PropSharedSubscriptionsAvl:
		p.SharedAvailable = c.bit()
	}
}

// bit reads a byte that is 0 or 1.
func (c *cursor) bit() bool {
	b := c.byte()
	if b > 1 {
		c.protocol("", "property is neither 0 nor 1")
	}
	return b == 1
}
