package client

import (
	"sync"

	"gateway/mqtt"
)

// An incoming is a message on its way to the handlers. Its acknowledgement goes out only on the
// connection that brought it: on a later one the server may have given the identifier to another message.
type incoming struct {
	m    mqtt.Message
	id   uint16
	link *link
	two  *exchange // QoS 2
}

// An exchange is a QoS 2 message that was received and not yet released by PUBREL. Until then its
// identifier is no new message's [MQTT-4.3.3-10].
type exchange struct {
	link    *link // where PUBREC is owed
	handled bool
}

// An inbox queues messages between the reading goroutine, which never waits, and the handling one.
type inbox struct {
	mu     sync.Mutex
	queue  []incoming
	bytes  int
	wake   chan struct{}
	closed bool
}

func newInbox() *inbox { return &inbox{wake: make(chan struct{}, 1)} }

func size(m *mqtt.Message) int {
	n := 256 + len(m.Topic) + len(m.Payload) + len(m.CorrelationData) + len(m.ContentType) + len(m.ResponseTopic)
	for _, u := range m.User {
		n += 32 + len(u.Name) + len(u.Value)
	}
	return n
}

// put queues a message unless more than max bytes wait already.
func (b *inbox) put(in incoming, max int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := size(&in.m)
	if b.bytes > 0 && b.bytes+n > max {
		return false
	}
	b.queue = append(b.queue, in)
	b.bytes += n
	select {
	case b.wake <- struct{}{}:
	default:
	}
	return true
}

// take swaps the queue for an empty one; ok is false when the inbox was closed. What is taken counts
// until it is handled.
func (b *inbox) take(empty []incoming) (got []incoming, ok bool) {
	for {
		b.mu.Lock()
		if b.closed {
			b.mu.Unlock()
			return nil, false
		}
		if len(b.queue) > 0 {
			got, b.queue = b.queue, empty[:0]
			b.mu.Unlock()
			return got, true
		}
		b.mu.Unlock()
		<-b.wake
	}
}

func (b *inbox) handled(m *mqtt.Message) {
	b.mu.Lock()
	b.bytes -= size(m)
	b.mu.Unlock()
}

func (b *inbox) close() {
	b.mu.Lock()
	b.closed = true
	b.mu.Unlock()
	select {
	case b.wake <- struct{}{}:
	default:
	}
}
