// Package packet encodes and decodes the control packets of MQTT 3.1, 3.1.1 and 5.0.
//
// A control packet is a fixed header of one byte (type and flags) and a remaining length of one to
// four bytes, seven bits each, low ones first; then a variable header and a payload (2.1):
//
//	 7  6  5  4   3  2  1  0
//	+-----------+-----------+------------------+-----------------+---------+
//	|   type    |   flags   | remaining length | variable header | payload |
//	+-----------+-----------+------------------+-----------------+---------+
//
// A Reader cuts a byte stream into Frames. A packet's Decode takes a Frame apart, strictly: whatever
// the specification calls malformed or a protocol error is refused with an *Error that carries the
// reason code to answer with and the normative statement that was broken. A packet's Append encodes.
//
// A decoded packet's byte slices alias the frame's body, which the Reader uses again; its strings
// are its own. Decoding into a packet that is used again costs no allocation where the strings
// stay the same.
//
// Clauses in brackets are those of OASIS MQTT 5.0 unless 3.1.1 stands beside them.
package packet

import (
	"errors"
	"fmt"

	"gateway/mqtt"
)

// Type is a control packet's type (2.1.2).
type Type uint8

const (
	CONNECT     Type = 1
	CONNACK     Type = 2
	PUBLISH     Type = 3
	PUBACK      Type = 4
	PUBREC      Type = 5
	PUBREL      Type = 6
	PUBCOMP     Type = 7
	SUBSCRIBE   Type = 8
	SUBACK      Type = 9
	UNSUBSCRIBE Type = 10
	UNSUBACK    Type = 11
	PINGREQ     Type = 12
	PINGRESP    Type = 13
	DISCONNECT  Type = 14
	AUTH        Type = 15

	// will stands for the will in the table of where a property may be.
	will Type = 0
)

var typeNames = [16]string{
	"reserved type 0", "CONNECT", "CONNACK", "PUBLISH", "PUBACK", "PUBREC", "PUBREL", "PUBCOMP",
	"SUBSCRIBE", "SUBACK", "UNSUBSCRIBE", "UNSUBACK", "PINGREQ", "PINGRESP", "DISCONNECT", "AUTH",
}

func (t Type) String() string {
	if int(t) < len(typeNames) {
		return typeNames[t]
	}
	return fmt.Sprintf("type %d", uint8(t))
}

// A Packet is one of the fifteen control packets.
type Packet interface {
	Type() Type
	// Append encodes the packet for a version and appends it to dst. What the version has no room
	// for is left out. It fails on what cannot be encoded: a string of more than 65,535 bytes, a
	// packet of more than 268,435,455, a packet identifier of 0, a quality of service of 3; dst is returned
	// unchanged then. Whether strings are valid is for the caller to see to.
	Append(dst []byte, v mqtt.Version) ([]byte, error)
	// Decode sets the packet to what a frame of its type holds. Errors are *Error.
	Decode(f Frame, v mqtt.Version) error
}

// A Frame is one control packet with its fixed header taken off. The body is valid until the next
// call of the Reader that gave it.
type Frame struct {
	Type  Type
	Flags byte // the low four bits of the first byte
	Body  []byte
}

// Decode decodes a frame into a new packet. The version of a CONNECT is the one that it announces.
func Decode(f Frame, v mqtt.Version) (Packet, error) {
	p := New(f.Type)
	if p == nil {
		return nil, &Error{Code: mqtt.MalformedPacket, Type: f.Type, Detail: "reserved control packet type"}
	}
	return p, p.Decode(f, v)
}

// New returns an empty packet of a type, or nil where the type is reserved.
func New(t Type) Packet {
	switch t {
	case CONNECT:
		return new(Connect)
	case CONNACK:
		return new(Connack)
	case PUBLISH:
		return new(Publish)
	case PUBACK:
		return new(Puback)
	case PUBREC:
		return new(Pubrec)
	case PUBREL:
		return new(Pubrel)
	case PUBCOMP:
		return new(Pubcomp)
	case SUBSCRIBE:
		return new(Subscribe)
	case SUBACK:
		return new(Suback)
	case UNSUBSCRIBE:
		return new(Unsubscribe)
	case UNSUBACK:
		return new(Unsuback)
	case PINGREQ:
		return new(Pingreq)
	case PINGRESP:
		return new(Pingresp)
	case DISCONNECT:
		return new(Disconnect)
	case AUTH:
		return new(Auth)
	}
	return nil
}

// An Error says why a packet is refused.
type Error struct {
	Code      mqtt.ReasonCode // to answer with, in CONNACK or DISCONNECT (4.13)
	Type      Type
	Statement string // the normative statement broken, such as MQTT-1.5.5-1; may be empty
	Detail    string
}

func (e *Error) Error() string {
	s := "mqtt packet: " + e.Type.String() + ": " + e.Detail + " (" + e.Code.String()
	if e.Statement != "" {
		s += ", " + e.Statement
	}
	return s + ")"
}

// Code returns the reason code to answer an error of this package with: what the *Error in its
// chain carries, otherwise unspecified error.
func Code(err error) mqtt.ReasonCode {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	return mqtt.UnspecifiedError
}

// Errors of Append.
var (
	ErrTooLong  = errors.New("mqtt packet: a string or binary value is longer than 65535 bytes")
	ErrTooLarge = errors.New("mqtt packet: packet is larger than 268435455 bytes")
	ErrNoID     = errors.New("mqtt packet: packet identifier is 0")
	ErrVersion  = errors.New("mqtt packet: protocol version has no such packet")
	ErrEmpty    = errors.New("mqtt packet: no topic filter")
	ErrQoS      = errors.New("mqtt packet: qos is none of 0, 1, 2")
	ErrSubID    = errors.New("mqtt packet: subscription identifier is not within 1 to 268435455")
)

// maxRemaining is what four bytes of remaining length can say (2.1.4).
const maxRemaining = 268_435_455

// fixedFlags checks the flags of every type but PUBLISH, which are fixed [MQTT-2.1.3-1]. In MQTT
// 3.1 the bits were called unused or, for the duplicate flag, used.
func fixedFlags(f Frame, v mqtt.Version, statement string) error {
	var want byte
	switch f.Type {
	case PUBREL, SUBSCRIBE, UNSUBSCRIBE:
		want = 2
	}
	if f.Flags == want || v == mqtt.V31 {
		return nil
	}
	return &Error{Code: mqtt.MalformedPacket, Type: f.Type, Statement: statement, Detail: "reserved flags of the fixed header are wrong"}
}

// header appends a fixed header.
func header(dst []byte, first byte, remaining int) ([]byte, error) {
	if remaining > maxRemaining {
		return dst, ErrTooLarge
	}
	return appendVarint(append(dst, first), uint32(remaining)), nil
}
