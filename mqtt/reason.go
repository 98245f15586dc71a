package mqtt

import "fmt"

// A ReasonCode is the result of an operation (2.4). Codes from 0x80 on are failures. The return
// codes of MQTT 3.1.1 are mapped onto these when a packet is decoded, and back when it is encoded.
type ReasonCode uint8

const (
	Success                 ReasonCode = 0x00 // also normal disconnection and granted QoS 0
	GrantedQoS1             ReasonCode = 0x01
	GrantedQoS2             ReasonCode = 0x02
	DisconnectWithWill      ReasonCode = 0x04
	NoMatchingSubscribers   ReasonCode = 0x10
	NoSubscriptionExisted   ReasonCode = 0x11
	ContinueAuthentication  ReasonCode = 0x18
	ReAuthenticate          ReasonCode = 0x19
	UnspecifiedError        ReasonCode = 0x80
	MalformedPacket         ReasonCode = 0x81
	ProtocolError           ReasonCode = 0x82
	ImplementationError     ReasonCode = 0x83
	UnsupportedVersion      ReasonCode = 0x84
	ClientIDNotValid        ReasonCode = 0x85
	BadUserNameOrPassword   ReasonCode = 0x86
	NotAuthorized           ReasonCode = 0x87
	ServerUnavailable       ReasonCode = 0x88
	ServerBusy              ReasonCode = 0x89
	Banned                  ReasonCode = 0x8A
	ServerShuttingDown      ReasonCode = 0x8B
	BadAuthenticationMethod ReasonCode = 0x8C
	KeepAliveTimeout        ReasonCode = 0x8D
	SessionTakenOver        ReasonCode = 0x8E
	TopicFilterInvalid      ReasonCode = 0x8F
	TopicNameInvalid        ReasonCode = 0x90
	PacketIDInUse           ReasonCode = 0x91
	PacketIDNotFound        ReasonCode = 0x92
	ReceiveMaximumExceeded  ReasonCode = 0x93
	TopicAliasInvalid       ReasonCode = 0x94
	PacketTooLarge          ReasonCode = 0x95
	MessageRateTooHigh      ReasonCode = 0x96
	QuotaExceeded           ReasonCode = 0x97
	AdministrativeAction    ReasonCode = 0x98
	PayloadFormatInvalid    ReasonCode = 0x99
	RetainNotSupported      ReasonCode = 0x9A
	QoSNotSupported         ReasonCode = 0x9B
	UseAnotherServer        ReasonCode = 0x9C
	ServerMoved             ReasonCode = 0x9D
	SharedNotSupported      ReasonCode = 0x9E
	ConnectionRateExceeded  ReasonCode = 0x9F
	MaximumConnectTime      ReasonCode = 0xA0
	SubscriptionIDsNotSup   ReasonCode = 0xA1
	WildcardsNotSupported   ReasonCode = 0xA2
)

// IsError tells whether the code says that the operation failed.
func (c ReasonCode) IsError() bool { return c >= 0x80 }

// String returns the code's name in lower case, or its number when the specification has none.
func (c ReasonCode) String() string {
	if name := c.name(); name != "" {
		return name
	}
	return fmt.Sprintf("reason code 0x%02x", uint8(c))
}

func (c ReasonCode) name() string {
	switch c {
	case Success:
		return "success"
	case GrantedQoS1:
		return "granted qos 1"
	case GrantedQoS2:
		return "granted qos 2"
	case DisconnectWithWill:
		return "disconnect with will message"
	case NoMatchingSubscribers:
		return "no matching subscribers"
	case NoSubscriptionExisted:
		return "no subscription existed"
	case ContinueAuthentication:
		return "continue authentication"
	case ReAuthenticate:
		return "re-authenticate"
	case UnspecifiedError:
		return "unspecified error"
	case MalformedPacket:
		return "malformed packet"
	case ProtocolError:
		return "protocol error"
	case ImplementationError:
		return "implementation specific error"
	case UnsupportedVersion:
		return "unsupported protocol version"
	case ClientIDNotValid:
		return "client identifier not valid"
	case BadUserNameOrPassword:
		return "bad user name or password"
	case NotAuthorized:
		return "not authorized"
	case ServerUnavailable:
		return "server unavailable"
	case ServerBusy:
		return "server busy"
	case Banned:
		return "banned"
	case ServerShuttingDown:
		return "server shutting down"
	case BadAuthenticationMethod:
		return "bad authentication method"
	case KeepAliveTimeout:
		return "keep alive timeout"
	case SessionTakenOver:
		return "session taken over"
	case TopicFilterInvalid:
		return "topic filter invalid"
	case TopicNameInvalid:
		return "topic name invalid"
	case PacketIDInUse:
		return "packet identifier in use"
	case PacketIDNotFound:
		return "packet identifier not found"
	case ReceiveMaximumExceeded:
		return "receive maximum exceeded"
	case TopicAliasInvalid:
		return "topic alias invalid"
	case PacketTooLarge:
		return "packet too large"
	case MessageRateTooHigh:
		return "message rate too high"
	case QuotaExceeded:
		return "quota exceeded"
	case AdministrativeAction:
		return "administrative action"
	case PayloadFormatInvalid:
		return "payload format invalid"
	case RetainNotSupported:
		return "retain not supported"
	case QoSNotSupported:
		return "qos not supported"
	case UseAnotherServer:
		return "use another server"
	case ServerMoved:
		return "server moved"
	case SharedNotSupported:
		return "shared subscriptions not supported"
	case ConnectionRateExceeded:
		return "connection rate exceeded"
	case MaximumConnectTime:
		return "maximum connect time"
	case SubscriptionIDsNotSup:
		return "subscription identifiers not supported"
	case WildcardsNotSupported:
		return "wildcard subscriptions not supported"
	}
	return ""
}

// A ReasonError is a refusal by the other side.
type ReasonError struct {
	Op     string // what was refused: "connect", "publish", …
	Code   ReasonCode
	Detail string // the reason string that came with it, empty mostly
}

func (e *ReasonError) Error() string {
	s := "mqtt: " + e.Op + " refused: " + e.Code.String()
	if e.Detail != "" {
		s += ": " + e.Detail
	}
	return s
}
