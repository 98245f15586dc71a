// Package mqtt holds what the codec, the client and the broker share: messages, topic names and
// filters, qualities of service and reason codes. Clauses in brackets are those of OASIS MQTT 5.0
// and, where marked so, 3.1.1.
package mqtt

// QoS is the quality of service of a message or a subscription (4.3).
type QoS uint8

const (
	AtMostOnce  QoS = 0
	AtLeastOnce QoS = 1
	ExactlyOnce QoS = 2
)

// Version is the protocol version as CONNECT carries it (3.1.2.2).
type Version uint8

const (
	V31  Version = 3 // MQIsdp, for old devices
	V311 Version = 4
	V5   Version = 5
)

// A UserProperty is a name and a value that travel with a packet of MQTT 5.0 (3.3.2.3.7).
type UserProperty struct {
	Name, Value string
}

// A Message is an application message. The fields from PayloadUTF8 on travel only where both ends
// speak MQTT 5.0. A message handed to Publish must not be changed until it is done.
type Message struct {
	Topic   string
	Payload []byte
	QoS     QoS
	Retain  bool

	PayloadUTF8     bool   // the payload is UTF-8 text (3.3.2.3.2)
	HasExpiry       bool   // Expiry is set
	Expiry          uint32 // seconds after which the message is of no use (3.3.2.3.3)
	ContentType     string
	ResponseTopic   string
	CorrelationData []byte // nil: none
	User            []UserProperty
}
