package broker

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"gateway/mqtt"
	"gateway/mqtt/packet"
)

// [MQTT-3.1.2-5] [MQTT-3.1.2-6] [MQTT-3.1.4-4] [MQTT-3.2.2-2] [MQTT-3.2.2-3] [MQTT-3.1.3-2]
func TestSessionIsResumedWithItsSubscriptionsAndMessages(t *testing.T) {
	for _, v := range []mqtt.Version{mqtt.V311, mqtt.V5} {
		t.Run(fmt.Sprint("v", v), func(t *testing.T) {
			b := start(t, Options{})
			sub, ack := connect(t, b, v, "sub", persistent)
			if ack.SessionPresent {
				t.Error("session present on the first connection [MQTT-3.2.2-2]")
			}
			sub.subscribed("a/#", mqtt.ExactlyOnce)
			sub.leave()
			pub := join(t, b, v, "pub")
			for qos := mqtt.AtMostOnce; qos <= mqtt.ExactlyOnce; qos++ {
				pub.publish("a/b", fmt.Sprint("qos ", qos), qos)
			}
			sub, ack = connect(t, b, v, "sub", persistent)
			if !ack.SessionPresent {
				t.Error("no session present [MQTT-3.2.2-3]")
			}
			sub.message("a/b", "qos 1")
			sub.message("a/b", "qos 2")
			sub.leave()
			sub, ack = connect(t, b, v, "sub") // clean
			if ack.SessionPresent {
				t.Error("session present after clean start [MQTT-3.1.2-4]")
			}
			pub.publish("a/b", "nobody", 1)
			sub.silence()
		})
	}
}

// [MQTT-4.4.0-1]: the same identifiers, in order, with DUP; then what waited.
func TestUnacknowledgedMessagesAreResentInOrder(t *testing.T) {
	b := start(t, Options{})
	sub := join(t, b, mqtt.V311, "sub", persistent)
	sub.subscribed("t", mqtt.ExactlyOnce)
	pub := join(t, b, mqtt.V311, "pub")
	var ids []uint16
	for i := range 3 {
		pub.publish("t", fmt.Sprint(i), mqtt.QoS(1+i%2))
		m := sub.message("t", fmt.Sprint(i))
		if m.Dup {
			t.Error("DUP on the first delivery [MQTT-3.3.1-1]")
		}
		ids = append(ids, m.ID)
	}
	sub.send(&packet.Pubrec{ID: ids[1]}) // the QoS 2 one goes half way
	expect[*packet.Pubrel](sub)
	sub.drop()
	until(t, "the broker notices", func() bool { return b.Stats().Connected == 1 })
	pub.publish("t", "3", 1)

	sub = join(t, b, mqtt.V311, "sub", persistent)
	if m := sub.message("t", "0"); m.ID != ids[0] || !m.Dup {
		t.Errorf("got id %d dup %t, want %d with dup", m.ID, m.Dup, ids[0])
	}
	if r := expect[*packet.Pubrel](sub); r.ID != ids[1] {
		t.Errorf("PUBREL of %d, want %d", r.ID, ids[1])
	}
	if m := sub.message("t", "2"); m.ID != ids[2] || !m.Dup {
		t.Errorf("got id %d dup %t, want %d with dup", m.ID, m.Dup, ids[2])
	}
	if m := sub.message("t", "3"); m.Dup {
		t.Error("DUP on a message that was never sent")
	}
}

// One identifier space for both directions lets a client's QoS 2 identifier overwrite a delivery
// (mochi-mqtt #545, #519).
func TestIdentifiersOfTheTwoDirectionsAreApart(t *testing.T) {
	b := start(t, Options{})
	c := join(t, b, mqtt.V5, "both")
	c.subscribed("t", mqtt.ExactlyOnce)
	c.send(&packet.Publish{Topic: "t", QoS: 2, ID: 1, Payload: []byte("x")})
	var m *packet.Publish
	for range 2 {
		switch p, err := c.next(patience); p := p.(type) {
		case *packet.Pubrec:
			if p.ID != 1 {
				t.Errorf("PUBREC of %d", p.ID)
			}
		case *packet.Publish:
			m = p
		default:
			t.Fatalf("got %T, %v", p, err)
		}
	}
	if m.ID != 1 {
		t.Fatalf("delivery has id %d, want 1 as the first one", m.ID)
	}
	c.send(&packet.Pubrel{ID: 1})
	if p := expect[*packet.Pubcomp](c); p.Code != mqtt.Success {
		t.Errorf("PUBCOMP says %s", p.Code)
	}
	c.send(&packet.Pubrec{ID: 1})
	if p := expect[*packet.Pubrel](c); p.Code != mqtt.Success {
		t.Errorf("PUBREL says %s: the delivery was forgotten", p.Code)
	}
	c.send(&packet.Pubcomp{ID: 1})
	c.silence()
	b.mu.Lock()
	s := b.sessions["both"]
	b.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.used != 0 || len(s.flight) != 0 || len(s.incoming) != 0 {
		t.Errorf("left over: window %d, in flight %d, incoming %d", s.used, len(s.flight), len(s.incoming))
	}
}

// The orphaned connection must not touch its heir's session (mochi-mqtt #173).
// [MQTT-3.1.4-3]
func TestTakeOverLeavesTheHeirItsSubscriptions(t *testing.T) {
	b := start(t, Options{})
	for _, clean := range []bool{true, false} {
		t.Run(fmt.Sprint("clean ", clean), func(t *testing.T) {
			edit := func(c *packet.Connect) {
				if !clean {
					persistent(c)
				}
			}
			old := join(t, b, mqtt.V5, "same", edit)
			old.subscribed("t", 1)
			heir := join(t, b, mqtt.V5, "same", edit)
			if clean {
				heir.subscribed("t", 1)
			}
			old.refused(mqtt.SessionTakenOver) // [MQTT-3.1.4-3]
			old.drop()
			pub := join(t, b, mqtt.V5, "pub")
			if code := pub.publish("t", "x", 1); code != mqtt.Success {
				t.Errorf("PUBACK says %s", code)
			}
			heir.message("t", "x")
		})
	}
}

// A session looked up by the client's identifier and stored under the assigned one (mochi-mqtt #416).
// [MQTT-3.1.3-6] [MQTT-3.1.3-7] [MQTT-3.2.2-16]
func TestAssignedIdentifierNamesTheSession(t *testing.T) {
	b := start(t, Options{})
	c, ack := connect(t, b, mqtt.V5, "", persistent)
	id := ack.Properties.AssignedClientID
	if id == "" {
		t.Fatal("no assigned client identifier [MQTT-3.2.2-16]")
	}
	c.subscribed("t", 1)
	c.leave()
	_, ack = connect(t, b, mqtt.V5, id, persistent)
	if !ack.SessionPresent {
		t.Error("the session is not found under the assigned identifier")
	}
	if _, ack := connect(t, b, mqtt.V5, ""); ack.Properties.AssignedClientID == id {
		t.Error("the identifier is assigned twice")
	}
}

// [MQTT-3.1.3-8] [MQTT-3.2.2-7]
func TestEmptyIdentifiers(t *testing.T) {
	b := start(t, Options{})
	if _, ack := connect(t, b, mqtt.V311, ""); ack.Code != mqtt.Success {
		t.Errorf("clean 3.1.1 session without identifier: %s", ack.Code)
	}
	p, ack := connect(t, b, mqtt.V311, "", persistent)
	if ack.Code != mqtt.ClientIDNotValid { // [MQTT-3.1.3-8] of 3.1.1
		t.Errorf("persistent 3.1.1 session without identifier: %s", ack.Code)
	}
	p.closed()
	strict := start(t, Options{NoEmptyClientID: true})
	if _, ack := connect(t, strict, mqtt.V5, ""); ack.Code != mqtt.ClientIDNotValid {
		t.Errorf("with NoEmptyClientID: %s", ack.Code)
	}
}

// Beyond 65,535 messages the identifier 0 was used (paho.mqtt.golang #364, paho.golang #46).
func TestIdentifiersGoRoundPastZeroAndThoseInUse(t *testing.T) {
	s := &session{lastID: 65533, flight: map[uint16]*delivery{65535: {}, 1: {}}}
	for _, want := range []uint16{65534, 2, 3} {
		if got := s.nextID(); got != want {
			t.Errorf("got identifier %d, want %d", got, want)
		}
	}
}

// [MQTT-3.3.4-9] [MQTT-3.3.4-10]
func TestReceiveMaximumOfTheClientIsKept(t *testing.T) {
	b := start(t, Options{})
	sub := join(t, b, mqtt.V5, "sub", func(c *packet.Connect) { c.Properties.SetReceiveMaximum(2) })
	sub.subscribed("t", 2)
	pub := join(t, b, mqtt.V5, "pub")
	for i := range 5 {
		pub.publish("t", fmt.Sprint(i), mqtt.QoS(1+i%2))
	}
	first, second := sub.message("t", "0"), sub.message("t", "1")
	sub.silence() // [MQTT-3.3.4-9]
	sub.send(&packet.Pubrec{ID: second.ID})
	expect[*packet.Pubrel](sub)
	sub.silence() // PUBREC alone frees nothing
	sub.send(&packet.Pubcomp{ID: second.ID})
	third := sub.message("t", "2")
	sub.silence()
	sub.send(&packet.Puback{ID: first.ID}, &packet.Puback{ID: third.ID})
	m := sub.message("t", "3")
	sub.message("t", "4")
	sub.send(&packet.Pubrec{ID: m.ID, Code: mqtt.QuotaExceeded}) // a refusal ends it, too [MQTT-4.3.3-4]
	sub.silence()
	pub.publish("t", "5", 1)
	sub.message("t", "5")
}

func TestReceiveMaximumOfTheBrokerIsEnforced(t *testing.T) {
	b := start(t, Options{ReceiveMaximum: 2})
	c, ack := connect(t, b, mqtt.V5, "c")
	if ack.Properties.ReceiveMaximum != 2 {
		t.Errorf("CONNACK announces %d", ack.Properties.ReceiveMaximum)
	}
	for id := uint16(1); id <= 3; id++ {
		c.send(&packet.Publish{Topic: "t", QoS: 2, ID: id})
		if id <= 2 {
			expect[*packet.Pubrec](c)
		}
	}
	c.refused(mqtt.ReceiveMaximumExceeded)
}

func TestQoS2IsForwardedOnce(t *testing.T) {
	b := start(t, Options{})
	sub := join(t, b, mqtt.V311, "sub")
	sub.subscribed("t", 0)
	pub := join(t, b, mqtt.V311, "pub", persistent)
	m := &packet.Publish{Topic: "t", QoS: 2, ID: 9, Payload: []byte("x")}
	pub.send(m)
	expect[*packet.Pubrec](pub)
	pub.drop()
	until(t, "the broker notices", func() bool { return b.Stats().Connected == 1 })
	pub = join(t, b, mqtt.V311, "pub", persistent)
	m.Dup = true
	pub.send(m)
	expect[*packet.Pubrec](pub)
	pub.send(&packet.Pubrel{ID: 9})
	expect[*packet.Pubcomp](pub)
	pub.send(&packet.Pubrel{ID: 9})
	expect[*packet.Pubcomp](pub)
	sub.message("t", "x")
	sub.silence() // [MQTT-4.3.3-10]
	m.Dup = false
	pub.send(m) // a new message under the same identifier [MQTT-4.3.3-12]
	expect[*packet.Pubrec](pub)
	sub.message("t", "x")
}

func TestUnknownIdentifiersAreAnswered(t *testing.T) {
	b := start(t, Options{})
	c := join(t, b, mqtt.V5, "c")
	c.send(&packet.Pubrel{ID: 5})
	if p := expect[*packet.Pubcomp](c); p.Code != mqtt.PacketIDNotFound {
		t.Errorf("PUBCOMP says %s", p.Code)
	}
	c.send(&packet.Pubrec{ID: 5})
	if p := expect[*packet.Pubrel](c); p.Code != mqtt.PacketIDNotFound {
		t.Errorf("PUBREL says %s", p.Code)
	}
	c.send(&packet.Puback{ID: 5}, &packet.Pubcomp{ID: 5})
	c.silence()
}

func TestSlowSubscriberHoldsUpNobody(t *testing.T) {
	b := start(t, Options{Limits: Limits{QueuedMessages: 50, OutBuffer: 4096}})
	slow := join(t, b, mqtt.V311, "slow") // never reads again
	slow.subscribed("t", 1)
	slow.subscribed("only", 1)
	fast := join(t, b, mqtt.V311, "fast")
	fast.subscribed("t", 1)
	pub := join(t, b, mqtt.V311, "pub")
	big := strings.Repeat("x", 32<<10)
	for i := range 500 {
		pub.publish("t", big, 1)
		m := fast.message("t", big)
		fast.send(&packet.Puback{ID: m.ID})
		_ = i
	}
	st := b.Stats()
	if st.Dropped == 0 {
		t.Error("nothing was dropped although the slow subscriber reads nothing") // and it is counted (mochi-mqtt #95, #150)
	}
	if st.QueuedBytes > 51*(32<<10+overhead+100) {
		t.Errorf("%d bytes are queued, more than the bound (mochi-mqtt #340)", st.QueuedBytes)
	}
	if st.Connected != 3 {
		t.Errorf("%d clients are connected, want 3", st.Connected)
	}
}

func TestOfflineQueueIsBounded(t *testing.T) {
	b := start(t, Options{Limits: Limits{QueuedMessages: 10}})
	sub := join(t, b, mqtt.V311, "sub", persistent)
	sub.subscribed("t", 1)
	sub.leave()
	pub := join(t, b, mqtt.V5, "pub")
	for i := range 15 {
		if code := pub.publish("t", fmt.Sprint(i), 1); code != mqtt.Success {
			t.Errorf("PUBACK says %s", code)
		}
	}
	if st := b.Stats(); st.Dropped != 5 {
		t.Errorf("%d dropped, want 5", st.Dropped)
	}
	sub = join(t, b, mqtt.V311, "sub", persistent)
	for i := range 10 {
		sub.message("t", fmt.Sprint(i))
	}
	sub.silence()
	if q := b.Stats().QueuedBytes; q != 0 {
		t.Errorf("%d bytes are left in the queue", q)
	}
}

// A client that acknowledges nothing is not sent more than the bound in bytes, however many messages its window
// takes: they are kept, to be sent again. The rest waits, and comes when it acknowledges.
func TestWhatIsInFlightIsBoundedInBytes(t *testing.T) {
	const size = 10_000
	b := start(t, Options{Limits: Limits{QueuedBytes: 10 * size}})
	sub := join(t, b, mqtt.V311, "sub", persistent)
	sub.subscribed("t", 1)
	pub := join(t, b, mqtt.V311, "pub")
	payload := strings.Repeat("x", size)
	for range 15 {
		pub.publish("t", payload, 1)
	}
	var got []uint16
	for range 10 {
		got = append(got, sub.message("t", payload).ID)
	}
	sub.silence()
	if n := b.flying.Load(); n < 10*size || n > 11*size {
		t.Errorf("%d bytes are in flight", n)
	}
	for n := 0; n < 15; n++ {
		sub.send(&packet.Puback{ID: got[n]})
		if len(got) < 15 {
			got = append(got, sub.message("t", payload).ID)
		}
	}
	sub.silence()
	if n, q := b.flying.Load(), b.Stats().QueuedBytes; n != 0 || q != 0 || b.Stats().Dropped != 0 {
		t.Errorf("%d bytes in flight and %d in the queue are left, %d messages were dropped", n, q, b.Stats().Dropped)
	}
}

// Retained messages that wait for clients that do not read them count, too: asking for all of them again and again
// is bounded.
func TestWaitingRetainedMessagesAreBounded(t *testing.T) {
	b := start(t, Options{Limits: Limits{QueuedBytesTotal: 100 * overhead}})
	for i := range 50 {
		b.Publish(t.Context(), &mqtt.Message{Topic: fmt.Sprint("r/", i), Payload: []byte("x"), QoS: 1, Retain: true}, func(error) {})
	}
	greedy := join(t, b, mqtt.V5, "greedy", func(c *packet.Connect) { c.Properties.SetReceiveMaximum(1) })
	for range 10 {
		greedy.send(&packet.Subscribe{ID: 1, Subscriptions: []mqtt.Subscription{{Filter: "r/+", QoS: 1}}})
	}
	greedy.send(&packet.Pingreq{})
	for { // SUBACKs, and one message
		x, err := greedy.next(patience)
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := x.(*packet.Pingresp); ok {
			break
		}
	}
	if st := b.Stats(); st.QueuedBytes > 100*overhead || st.Dropped < 300 {
		t.Errorf("%d bytes wait, %d messages were dropped", st.QueuedBytes, st.Dropped)
	}
	greedy.drop()
	until(t, "nothing waits", func() bool { return b.Stats().QueuedBytes == 0 })
}

func TestSlowSubscriberCatchesUp(t *testing.T) {
	b := start(t, Options{Limits: Limits{OutBuffer: 2048}})
	sub := join(t, b, mqtt.V5, "sub")
	sub.subscribed("t", 0)
	pub := join(t, b, mqtt.V5, "pub")
	payload := strings.Repeat("y", 8<<10)
	const n = 2000
	for i := range n {
		pub.publish("t", fmt.Sprintf("%d %s", i, payload), 0)
	}
	dropped := 0
	last := -1
	pub.publish("t", "end", 1)
	for {
		m := expect[*packet.Publish](sub)
		if string(m.Payload) == "end" {
			break
		}
		var i int
		fmt.Sscan(string(m.Payload[:8]), &i)
		if i <= last {
			t.Fatalf("message %d after %d", i, last)
		}
		dropped += i - last - 1
		last = i
	}
	dropped += n - 1 - last
	if got := b.Stats().Dropped; got != int64(dropped) {
		t.Errorf("%d are missing, %d were counted", dropped, got)
	}
}

func TestSessionExpiry(t *testing.T) {
	b := start(t, Options{MaxSessionExpiry: time.Hour})
	_, ack := connect(t, b, mqtt.V5, "long", persistent)
	if ack.Properties.SessionExpiry != 3600 {
		t.Errorf("CONNACK says the session expires after %d s, want 3600", ack.Properties.SessionExpiry)
	}
	c := join(t, b, mqtt.V5, "gone", func(c *packet.Connect) { c.Properties.SetSessionExpiry(100) })
	d := &packet.Disconnect{}
	d.Properties.SetSessionExpiry(0) // ends it now
	c.send(d)
	c.closed()
	if _, ack := connect(t, b, mqtt.V5, "gone", persistent); ack.SessionPresent {
		t.Error("the session is there although DISCONNECT set its expiry to 0")
	}
	c = join(t, b, mqtt.V5, "none")
	d.Properties.SetSessionExpiry(10) // not after 0 in CONNECT [MQTT-3.14.2-2]
	c.send(d)
	c.refused(mqtt.ProtocolError)
}

// [MQTT-3.3.2-5] [MQTT-3.3.2-6]
func TestMessageExpiry(t *testing.T) {
	b := start(t, Options{})
	sub := join(t, b, mqtt.V5, "sub")
	sub.subscribed("t", 1)
	pub := join(t, b, mqtt.V5, "pub")
	pub.publish("t", "x", 1, func(p *packet.Publish) { p.Properties.SetMessageExpiry(60) })
	if m := sub.message("t", "x"); !m.Properties.Has(packet.PropMessageExpiry) || m.Properties.MessageExpiry != 60 {
		t.Errorf("forwarded with expiry %d", m.Properties.MessageExpiry)
	}
	pub.publish("t", "y", 1)
	if m := sub.message("t", "y"); m.Properties.Has(packet.PropMessageExpiry) { // an expiry nobody set
		t.Errorf("forwarded with expiry %d that nobody set", m.Properties.MessageExpiry)
	}
	// One that waited for too long is not sent [MQTT-3.3.2-5], and the rest is told what is left of it [MQTT-3.3.2-6].
	m := &message{Message: mqtt.Message{Topic: "t"}, expires: 10e9}
	if m.remaining(1) != 10 || m.remaining(9_999_999_999) != 1 || !m.expired(10e9) || m.expired(9e9) {
		t.Error("remaining interval is wrong")
	}
	off := join(t, b, mqtt.V5, "off", persistent)
	off.subscribed("t", 1)
	off.leave()
	pub.publish("t", "soon", 1, func(p *packet.Publish) { p.Properties.SetMessageExpiry(1) })
	pub.publish("t", "later", 1, func(p *packet.Publish) { p.Properties.SetMessageExpiry(100) })
	b.mu.Lock()
	s := b.sessions["off"]
	b.mu.Unlock()
	s.mu.Lock()
	s.queue.first.msg.expires = 1 // as if its second had passed
	s.mu.Unlock()
	off = join(t, b, mqtt.V5, "off", persistent)
	off.message("t", "later")
	if b.Stats().Expired != 1 {
		t.Errorf("%d expired, want 1", b.Stats().Expired)
	}
}

func TestRivalsAreNamed(t *testing.T) {
	logs := make(chan string, 100)
	b := start(t, Options{Logger: logTo(logs)})
	for range rivalTimes + 2 {
		join(t, b, mqtt.V311, "twin")
	}
	until(t, "the warning", func() bool { return b.Stats().Rivals == 1 })
	for {
		select {
		case line := <-logs:
			if strings.Contains(line, "evict each other") && strings.Contains(line, "client=twin") && strings.Contains(line, "127.0.0.1") {
				return
			}
		default:
			t.Fatal("no line of the log says who")
		}
	}
}

// A connection that ends while the queue is being sent must not take the message at hand with it.
func TestAMessageThatCannotBeSentStaysFirst(t *testing.T) {
	b := start(t, Options{})
	sub := join(t, b, mqtt.V311, "sub", persistent)
	sub.subscribed("t", 1)
	sub.leave()
	pub := join(t, b, mqtt.V311, "pub")
	for i := range 3 {
		pub.publish("t", fmt.Sprint(i), 1)
	}
	b.mu.Lock()
	s := b.sessions["sub"]
	b.mu.Unlock()
	s.mu.Lock()
	d, bytes, total := s.queue.first, s.bytes, b.queued.Load()
	s.unqueue(d)
	s.requeue(d)
	if s.queue.first != d || s.queue.n != 3 || s.bytes != bytes || b.queued.Load() != total {
		t.Errorf("after going back: first %t, %d messages, %d bytes, %d in all", s.queue.first == d, s.queue.n, s.bytes, b.queued.Load())
	}
	s.mu.Unlock()
	sub = join(t, b, mqtt.V311, "sub", persistent)
	for i := range 3 {
		sub.message("t", fmt.Sprint(i))
	}
}

// What does not answer the message that was sent is against the protocol, and the message stays owed.
// [MQTT-4.3.2-3] [MQTT-4.3.3-3]
func TestAnAnswerThatDoesNotBelongToTheMessageIsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		qos    mqtt.QoS
		answer packet.Packet
	}{
		"PUBREC for qos 1":            {1, &packet.Pubrec{ID: 1}},
		"refusing PUBREC for qos 1":   {1, &packet.Pubrec{ID: 1, Code: mqtt.UnspecifiedError}},
		"PUBCOMP for qos 1":           {1, &packet.Pubcomp{ID: 1}},
		"PUBACK for qos 2":            {2, &packet.Puback{ID: 1}},
		"PUBCOMP for qos 2 at PUBREC": {2, &packet.Pubcomp{ID: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			b := start(t, Options{})
			sub := join(t, b, mqtt.V5, "sub", persistent)
			sub.subscribed("t", c.qos)
			pub := join(t, b, mqtt.V5, "pub")
			pub.publish("t", "x", c.qos)
			sub.message("t", "x")
			sub.send(c.answer)
			sub.refused(mqtt.ProtocolError)
			sub = join(t, b, mqtt.V5, "sub", persistent)
			if m := sub.message("t", "x"); !m.Dup {
				t.Error("not sent as what was sent before")
			}
		})
	}
}
