package mqtt

// A Subscription asks for the messages whose topic matches Filter (3.8.3). The fields from NoLocal
// on travel only in MQTT 5.0.
type Subscription struct {
	Filter string
	QoS    QoS // the highest that the subscriber wants

	NoLocal           bool           // not what this client publishes itself
	RetainAsPublished bool           // keep the retain flag when forwarding
	RetainHandling    RetainHandling // whether retained messages are sent at subscribing
}

// RetainHandling says when retained messages are sent because of a subscription (3.8.3.1).
type RetainHandling uint8

const (
	RetainSend      RetainHandling = 0 // at each SUBSCRIBE
	RetainSendIfNew RetainHandling = 1 // only when the subscription did not exist before
	RetainDoNotSend RetainHandling = 2
)
