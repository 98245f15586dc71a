package broker

import (
	"net"
	"strconv"
	"sync/atomic"
	"time"

	"gateway/mqtt"
	"gateway/mqtt/packet"
)

// counters count since the start. Their names are those of Stats.
type counters struct {
	received, sent, published, bytesReceived, bytesSent                atomic.Int64
	dropped, expired, tooLarge, refused, refusals, badConnects, panics atomic.Int64
	timeouts, takeOvers, rivals, expiredSessions, turnedAway           atomic.Int64
	storeErrors, syncs                                                 atomic.Int64
}

// Stats is the state of a broker at a moment, and what it counted since its start.
type Stats struct {
	Uptime        time.Duration
	Connected     int // clients
	Sessions      int // with and without connection
	Subscriptions int
	Retained      int
	QueuedBytes   int64 // messages that wait for sessions

	PacketsReceived  int64
	MessagesReceived int64 // PUBLISH packets of clients and messages of the process
	MessagesSent     int64 // PUBLISH packets
	BytesReceived    int64
	BytesSent        int64

	Dropped         int64 // messages, because of a limit
	Expired         int64 // messages that waited for longer than their expiry
	TooLarge        int64 // messages that were larger than their receiver takes
	Refused         int64 // publishes and subscriptions that were not allowed
	ProtocolErrors  int64 // connections ended with a reason code for what the client sent
	BadConnects     int64 // connections that did not get past CONNECT
	TurnedAway      int64 // connections beyond the limit
	Timeouts        int64 // clients that fell silent
	TakeOvers       int64
	Rivals          int64 // warnings of clients that evict each other
	ExpiredSessions int64
	Panics          int64 // faults of ours that cost a connection
	StoreErrors     int64
	Syncs           int64
}

// Stats returns the present state.
func (b *Broker) Stats() Stats {
	b.mu.Lock()
	sessions := len(b.sessions)
	b.mu.Unlock()
	c := &b.stats
	return Stats{
		Uptime: time.Since(b.start), Connected: int(b.connected.Load()), Sessions: sessions,
		Subscriptions: int(b.subs.n.Load()), Retained: int(b.retained.n.Load()), QueuedBytes: b.queued.Load(),
		PacketsReceived: c.received.Load(), MessagesReceived: c.published.Load(), MessagesSent: c.sent.Load(),
		BytesReceived: c.bytesReceived.Load(), BytesSent: c.bytesSent.Load(),
		Dropped: c.dropped.Load(), Expired: c.expired.Load(), TooLarge: c.tooLarge.Load(), Refused: c.refused.Load(),
		ProtocolErrors: c.refusals.Load(), BadConnects: c.badConnects.Load(), TurnedAway: c.turnedAway.Load(),
		Timeouts: c.timeouts.Load(), TakeOvers: c.takeOvers.Load(), Rivals: c.rivals.Load(),
		ExpiredSessions: c.expiredSessions.Load(), Panics: c.panics.Load(),
		StoreErrors: c.storeErrors.Load(), Syncs: c.syncs.Load(),
	}
}

// publishSys publishes the state under $SYS/broker, retained, with the names that other brokers use.
func (b *Broker) publishSys() {
	s := b.Stats()
	for _, kv := range []struct {
		name  string
		value int64
	}{
		{"clients/connected", int64(s.Connected)},
		{"clients/disconnected", int64(s.Sessions - s.Connected)},
		{"clients/total", int64(s.Sessions)},
		{"clients/expired", s.ExpiredSessions},
		{"subscriptions/count", int64(s.Subscriptions)},
		{"retained messages/count", int64(s.Retained)},
		{"store/messages/bytes", s.QueuedBytes},
		{"messages/received", s.PacketsReceived},
		{"messages/sent", s.MessagesSent},
		{"publish/messages/received", s.MessagesReceived},
		{"publish/messages/sent", s.MessagesSent},
		{"publish/messages/dropped", s.Dropped},
		{"bytes/received", s.BytesReceived},
		{"bytes/sent", s.BytesSent},
	} {
		b.publishState("$SYS/broker/"+kv.name, strconv.FormatInt(kv.value, 10))
	}
	b.publishState("$SYS/broker/uptime", strconv.FormatInt(int64(s.Uptime/time.Second), 10)+" seconds")
	b.publishState("$SYS/broker/version", b.opt.Version)
}

// publishState retains a value and forwards it where it has changed. It is not stored.
func (b *Broker) publishState(topic, value string) {
	m := &message{Message: mqtt.Message{Topic: topic, Payload: []byte(value), Retain: true}}
	if !b.retained.state(m) {
		return
	}
	w := b.worker()
	defer w.done()
	w.pub.load(m, b.now())
	w.pub.retain = false // it is retained already
	b.publish(w, b.ownRoute(topic), receipt{})
}

// A countingReader counts what is read, and refuses a stream that does not begin with a CONNECT: what
// speaks TLS or HTTP need not be waited for.
type countingReader struct {
	nc    net.Conn
	n     *atomic.Int64
	begun bool
}

func (r *countingReader) Read(p []byte) (int, error) {
	n, err := r.nc.Read(p)
	r.n.Add(int64(n))
	if !r.begun && n > 0 {
		r.begun = true
		if packet.Type(p[0]>>4) != packet.CONNECT {
			return 0, errNotConnect
		}
	}
	return n, err
}
