package broker

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"gateway/mqtt"
	"gateway/mqtt/packet"
)

// What binds a server beside what the tests of each feature show, by chapter of MQTT 5.0.

// 3.1.2.11.7: with request problem information 0, reason strings come in CONNACK and DISCONNECT at
// most [MQTT-3.1.2-29], and user properties in PUBLISH only. The broker adds neither to SUBACK,
// UNSUBACK and acknowledgements for anybody, so these cannot grow too large by them
// [MQTT-3.9.2-1] [MQTT-3.9.2-2] [MQTT-3.11.2-1] [MQTT-3.11.2-2] [MQTT-3.4.2-2] [MQTT-3.4.2-3]
// [MQTT-3.5.2-2] [MQTT-3.5.2-3] [MQTT-3.7.2-2] [MQTT-3.7.2-3].
func TestNoProblemInformationWhereItIsNotWanted(t *testing.T) {
	for _, wanted := range []bool{false, true} {
		t.Run(fmt.Sprint("wanted ", wanted), func(t *testing.T) {
			b := start(t, Options{MaxPayload: 10})
			c := join(t, b, mqtt.V5, "c", func(c *packet.Connect) { c.Properties.SetRequestProblemInfo(wanted) })
			none := func(what string, ps *packet.Properties) {
				t.Helper()
				if ps.Has(packet.PropReasonString) || ps.Has(packet.PropUser) {
					t.Errorf("%s explains itself: %q %v", what, ps.ReasonString, ps.User)
				}
			}
			c.send(&packet.Subscribe{ID: 1, Subscriptions: []mqtt.Subscription{{Filter: "t"}, {Filter: strings.Repeat("/", 300)}}})
			sub := expect[*packet.Suback](c)
			none("SUBACK", &sub.Properties)
			if sub.Codes[1] != mqtt.TopicFilterInvalid { // [MQTT-3.9.3-2]
				t.Errorf("SUBACK %v", sub.Codes)
			}
			c.send(&packet.Unsubscribe{ID: 2, Filters: []string{"t", "nothing"}})
			unsub := expect[*packet.Unsuback](c)
			none("UNSUBACK", &unsub.Properties)
			if !slices.Equal(unsub.Codes, []mqtt.ReasonCode{mqtt.Success, mqtt.NoSubscriptionExisted}) { // [MQTT-3.11.3-2]
				t.Errorf("UNSUBACK %v", unsub.Codes)
			}
			large := []byte("more than ten bytes")
			c.send(&packet.Publish{Topic: "t", QoS: 1, ID: 3, Payload: large})
			puback := expect[*packet.Puback](c)
			none("PUBACK", &puback.Properties)
			c.send(&packet.Publish{Topic: "t", QoS: 2, ID: 4, Payload: large})
			pubrec := expect[*packet.Pubrec](c)
			none("PUBREC", &pubrec.Properties)
			if puback.Code != mqtt.QuotaExceeded || pubrec.Code != mqtt.QuotaExceeded {
				t.Errorf("PUBACK %s, PUBREC %s", puback.Code, pubrec.Code)
			}
			c.send(&packet.Pubrel{ID: 9})
			pubcomp := expect[*packet.Pubcomp](c)
			none("PUBCOMP", &pubcomp.Properties)
		})
	}
}

// A payload beyond the maximum reaches nobody, in whatever version and quality of service and not as a will either;
// the connection goes on.
func TestAPayloadBeyondTheMaximumReachesNobody(t *testing.T) {
	b := start(t, Options{MaxPayload: 10})
	watch := join(t, b, mqtt.V5, "watch")
	watch.subscribed("#", 2)
	const large, fits = "eleven byte", "ten bytes."
	for _, v := range versions {
		p := join(t, b, v, "p")
		for qos := mqtt.AtMostOnce; qos <= mqtt.ExactlyOnce; qos++ {
			code := p.publish("t", large, qos)
			if want := v == mqtt.V5 && qos > 0; (code == mqtt.QuotaExceeded) != want {
				t.Errorf("version %d, qos %d: %s", v, qos, code)
			}
		}
		p.silence()
		watch.silence()
		p.publish("t", fits, 0)
		watch.message("t", fits)
		want := mqtt.QuotaExceeded
		if v != mqtt.V5 {
			want = mqtt.ServerUnavailable
		}
		mortal, ack := connect(t, b, v, "mortal", willOf("will", large))
		if ack.Code != want {
			t.Errorf("version %d: CONNACK %s for a will of %d bytes, want %s", v, ack.Code, len(large), want)
		}
		mortal.closed()
	}
}

// 3.1.2.11.4: no packet of whatever type is larger than the client's maximum. [MQTT-3.1.2-24]
func TestEveryPacketKeepsTheClientsMaximum(t *testing.T) {
	b := start(t, Options{})
	small := func(n uint32) func(*packet.Connect) {
		return func(c *packet.Connect) { c.Properties.SetMaximumPacketSize(n) }
	}
	p, ack := connect(t, b, mqtt.V5, "c", small(10)) // what the broker must tell does not fit
	if ack.Code != mqtt.PacketTooLarge || b.Stats().Sessions != 0 {
		t.Errorf("CONNACK %s, %d sessions", ack.Code, b.Stats().Sessions)
	}
	p.closed()

	p = join(t, b, mqtt.V5, "c", small(20))
	p.send(&packet.Subscribe{ID: 1, Subscriptions: slices.Repeat([]mqtt.Subscription{{Filter: "t"}}, 20)})
	p.refused(mqtt.PacketTooLarge)
}

// 3.2.2.3.9: a refusing CONNACK leaves out what makes it too large; the code comes. [MQTT-3.2.2-19] [MQTT-3.2.2-20]
func TestARefusalFitsTheClientsMaximum(t *testing.T) {
	b := start(t, Options{})
	p, ack := connect(t, b, mqtt.V5, "c", func(c *packet.Connect) {
		c.Properties.SetMaximumPacketSize(6)
		c.Properties.SetAuthMethod("SCRAM-SHA-1")
	})
	// A failed authentication is told and closed [MQTT-4.12.0-4].
	if ack.Code != mqtt.BadAuthenticationMethod || !ack.Properties.None() {
		t.Errorf("CONNACK %s, reason string %q", ack.Code, ack.Properties.ReasonString)
	}
	p.closed()

	for limit, told := range map[uint32]bool{6: false, 200: true} {
		p = dial(t, b, mqtt.V5)
		p.send(&packet.Connect{Version: mqtt.V5, Will: &packet.Will{Topic: "#"}, Properties: func() (ps packet.Properties) {
			ps.SetMaximumPacketSize(limit)
			return ps
		}()})
		ack := expect[*packet.Connack](p)
		if ack.Code != mqtt.MalformedPacket || ack.Properties.Has(packet.PropReasonString) != told {
			t.Errorf("maximum %d: CONNACK %s, reason string %q", limit, ack.Code, ack.Properties.ReasonString)
		}
		p.closed()
	}
}

// 3.1.3.2: what the will carries comes with it, the user properties in their order. [MQTT-3.1.3-10]
func TestWillCarriesItsProperties(t *testing.T) {
	b := start(t, Options{})
	watch := join(t, b, mqtt.V5, "watch")
	watch.subscribed("will", 2)
	user := []mqtt.UserProperty{{Name: "b", Value: "1"}, {Name: "a", Value: "2"}, {Name: "b", Value: "0"}}
	p := join(t, b, mqtt.V5, "mortal", func(c *packet.Connect) {
		c.Will = &packet.Will{Topic: "will", Payload: []byte("x"), QoS: 1}
		ps := &c.Will.Properties
		ps.SetPayloadFormat(1)
		ps.SetMessageExpiry(100)
		ps.SetContentType("text/plain")
		ps.SetResponseTopic("answer")
		ps.SetCorrelationData([]byte{1, 0, 2})
		ps.SetUser(user)
	})
	p.drop()
	m := watch.message("will", "x")
	ps := &m.Properties
	if ps.PayloadFormat != 1 || ps.MessageExpiry == 0 || ps.MessageExpiry > 100 || ps.ContentType != "text/plain" ||
		ps.ResponseTopic != "answer" || string(ps.CorrelationData) != "\x01\x00\x02" || !slices.Equal(ps.User, user) {
		t.Errorf("the will's properties: %+v", ps)
	}
}

// Without a will none is published. [MQTT-3.1.2-12 of 3.1.1]
func TestNoWillNoMessage(t *testing.T) {
	for _, v := range []mqtt.Version{mqtt.V311, mqtt.V5} {
		b := start(t, Options{})
		watch := join(t, b, mqtt.V5, "watch")
		watch.subscribed("#", 0)
		join(t, b, v, "c").drop()
		until(t, "the connection has ended", func() bool { return b.Stats().Connected == 1 })
		watch.silence()
	}
}

// Retained messages are no part of a session: they outlive it. A new subscription gets them with the
// flag. [MQTT-3.1.2-7 of 3.1.1] [MQTT-3.3.1-8 of 3.1.1]
func TestRetainedMessagesOutliveTheSession(t *testing.T) {
	b := start(t, Options{})
	pub := join(t, b, mqtt.V311, "pub")
	pub.publish("t", "kept", 1, asRetained)
	pub.leave()
	until(t, "the session has ended", func() bool { return b.Stats().Sessions == 0 })
	sub := join(t, b, mqtt.V311, "sub")
	sub.subscribed("t", 1)
	if m := sub.message("t", "kept"); !m.Retain || m.Dup {
		t.Errorf("retain %t, dup %t", m.Retain, m.Dup)
	}
}

// Where no return code fits, the connection is closed without CONNACK. [MQTT-3.2.2-6 of 3.1.1]
func TestNoReturnCodeFits(t *testing.T) {
	b := start(t, Options{})
	p := dial(t, b, mqtt.V311)
	p.write(unhex("10 12 0004 4d515454 04 06 0000 0001 61 0001 23 0000")) // will to a wildcard
	p.closed()
	p = dial(t, b, mqtt.V311) // one that fits: no identifier for a session to be kept
	p.write(unhex("10 0c 0004 4d515454 04 00 0000 0000"))
	if ack := expect[*packet.Connack](p); ack.Code != mqtt.ClientIDNotValid || ack.SessionPresent {
		t.Errorf("CONNACK %s", ack.Code)
	}
	p.closed()
}

// A broker without wildcards refuses their filters and no others. [MQTT-3.8.3-2 of 3.1.1]
func TestFiltersWithWildcardsAreRefused(t *testing.T) {
	b := start(t, Options{NoWildcards: true})
	for v, want := range map[mqtt.Version]mqtt.ReasonCode{mqtt.V311: 0x80, mqtt.V5: mqtt.WildcardsNotSupported} {
		c := join(t, b, v, "c")
		got := c.subscribe(mqtt.Subscription{Filter: "a/+"}, mqtt.Subscription{Filter: "a/b", QoS: 1}, mqtt.Subscription{Filter: "#"})
		if !slices.Equal(got, []mqtt.ReasonCode{want, 1, want}) {
			t.Errorf("version %d: SUBACK %v", v, got)
		}
	}
}

// 3.3.4: the broker sends one copy for overlapping subscriptions, but a shared one is apart, and
// each copy has its own identifier. [MQTT-3.3.4-5]
func TestSeveralCopiesHaveTheirOwnIdentifiers(t *testing.T) {
	b := start(t, Options{})
	c := join(t, b, mqtt.V5, "c")
	for i, filter := range []string{"t", "$share/g/t"} {
		s := &packet.Subscribe{ID: uint16(i + 1), Subscriptions: []mqtt.Subscription{{Filter: filter}}}
		s.Properties.SetSubscriptionID(uint32(10 + i))
		c.send(s)
		expect[*packet.Suback](c)
	}
	c.publish("t", "x", 0)
	var got []uint32
	for range 2 {
		got = append(got, c.message("t", "x").Properties.SubscriptionID...)
	}
	if slices.Sort(got); !slices.Equal(got, []uint32{10, 11}) {
		t.Errorf("identifiers %v", got)
	}
	c.silence()
}

// 4.8.2: each member of a group gets what was granted to it [MQTT-4.8.2-3], and a QoS 2 exchange that
// began with one is completed with it, over connections [MQTT-4.8.2-4].
func TestSharedMessagesKeepTheirReceiver(t *testing.T) {
	b := start(t, Options{})
	zero, two := join(t, b, mqtt.V5, "zero"), join(t, b, mqtt.V5, "two", persistent)
	zero.subscribed("$share/g/t", 0)
	two.subscribed("$share/g/t", 2)
	pub := join(t, b, mqtt.V5, "pub")
	pub.publish("t", "1", 2)
	pub.publish("t", "2", 2)
	if m := zero.message("t", "1"); m.QoS != 0 {
		t.Errorf("qos %d, granted 0", m.QoS)
	}
	m := two.message("t", "2")
	if m.QoS != 2 {
		t.Errorf("qos %d, granted 2", m.QoS)
	}
	two.drop()
	until(t, "the connection has ended", func() bool { return b.Stats().Connected == 2 })
	zero.silence()
	two = join(t, b, mqtt.V5, "two", persistent)
	if again := two.message("t", "2"); !again.Dup || again.ID != m.ID {
		t.Errorf("again with dup %t and identifier %d, was %d", again.Dup, again.ID, m.ID)
	}
	two.send(&packet.Pubrec{ID: m.ID})
	expect[*packet.Pubrel](two)
	two.send(&packet.Pubcomp{ID: m.ID})
	two.silence()
	zero.silence()
}

// A message one above the receive maximum ends the connection and is not taken for known when the
// client sends it again. [MQTT-3.3.4-7]
func TestWhatWasRefusedByTheReceiveMaximumComesAgain(t *testing.T) {
	b := start(t, Options{ReceiveMaximum: 1})
	sub := join(t, b, mqtt.V5, "sub")
	sub.subscribed("t", 0)
	c := join(t, b, mqtt.V5, "c", persistent)
	c.send(&packet.Publish{Topic: "t", QoS: 2, ID: 1, Payload: []byte("1")})
	expect[*packet.Pubrec](c)
	c.send(&packet.Publish{Topic: "t", QoS: 2, ID: 2, Payload: []byte("2")})
	c.refused(mqtt.ReceiveMaximumExceeded)
	sub.message("t", "1")
	c = join(t, b, mqtt.V5, "c", persistent)
	c.send(&packet.Pubrel{ID: 1})
	expect[*packet.Pubcomp](c)
	c.send(&packet.Publish{Topic: "t", QoS: 2, ID: 2, Dup: true, Payload: []byte("2")})
	expect[*packet.Pubrec](c)
	sub.message("t", "2")
}

// What was in flight and is too large for the next connection is done with and holds no place in
// its receive maximum. [MQTT-3.1.2-25]
func TestAResendTooLargeForTheNextConnection(t *testing.T) {
	b := start(t, Options{})
	sub := join(t, b, mqtt.V5, "sub", persistent)
	sub.subscribed("t", 1)
	pub := join(t, b, mqtt.V5, "pub")
	large := strings.Repeat("x", 200)
	pub.publish("t", large, 1)
	sub.message("t", large)
	sub.drop()
	until(t, "the connection has ended", func() bool { return b.Stats().Connected == 1 })
	sub = join(t, b, mqtt.V5, "sub", persistent, func(c *packet.Connect) {
		c.Properties.SetMaximumPacketSize(100)
		c.Properties.SetReceiveMaximum(1)
	})
	pub.publish("t", "small", 1)
	if m := sub.message("t", "small"); m.Dup {
		t.Error("a first delivery has the duplicate flag")
	}
}

// Once its PUBLISH was sent, a QoS 2 message is sent again and its exchange completed although it has
// expired meanwhile. [MQTT-4.3.3-7] [MQTT-4.3.3-13]
func TestExactlyOnceGoesOnAfterTheExpiry(t *testing.T) {
	b := start(t, Options{})
	sub := join(t, b, mqtt.V5, "sub", persistent)
	sub.subscribed("t", 2)
	pub := join(t, b, mqtt.V5, "pub")
	var ids []uint16
	for _, payload := range []string{"released", "sent"} {
		pub.publish("t", payload, 2, func(p *packet.Publish) { p.Properties.SetMessageExpiry(60) })
		ids = append(ids, sub.message("t", payload).ID)
	}
	sub.send(&packet.Pubrec{ID: ids[0]})
	expect[*packet.Pubrel](sub)
	sub.drop()
	until(t, "the connection has ended", func() bool { return b.Stats().Connected == 1 })
	b.mu.Lock()
	s := b.sessions["sub"]
	b.mu.Unlock()
	s.mu.Lock()
	for d := s.order.first; d != nil; d = d.next {
		d.msg.expires = 1 // as if its minute had passed
	}
	s.mu.Unlock()
	sub = join(t, b, mqtt.V5, "sub", persistent)
	if rel := expect[*packet.Pubrel](sub); rel.ID != ids[0] {
		t.Errorf("PUBREL %d, want %d", rel.ID, ids[0])
	}
	if m := sub.message("t", "sent"); !m.Dup || m.ID != ids[1] {
		t.Errorf("dup %t, identifier %d, want %d", m.Dup, m.ID, ids[1])
	}
	sub.send(&packet.Pubcomp{ID: ids[0]}, &packet.Pubrec{ID: ids[1]})
	expect[*packet.Pubrel](sub)
	sub.send(&packet.Pubcomp{ID: ids[1]})
	sub.silence()
}

// Before 5.0 a server has no DISCONNECT: what is malformed closes the connection without a word, is
// counted, and harms nobody else. [MQTT-4.13.1-1] [MQTT-4.8.0-1 of 3.1.1]
func TestBadInputBefore5ClosesTheConnection(t *testing.T) {
	b := start(t, Options{})
	bystander := join(t, b, mqtt.V311, "bystander")
	bystander.subscribed("#", 0)
	for name, bytes := range map[string]string{
		"CONNECT twice":                  "10 0d 0004 4d515454 04 02 0000 0001 61",
		"PUBLISH to a wildcard":          "30 04 0002 612b 00",
		"PUBLISH without topic":          "30 02 0000",
		"PUBLISH with identifier 0":      "32 05 0001 61 0000",
		"PUBLISH of qos 3":               "36 05 0001 61 0001",
		"PUBLISH with broken UTF-8":      "30 04 0002 61ff",
		"PUBLISH with a null":            "30 04 0002 6100",
		"SUBSCRIBE without filters":      "82 02 0001",
		"SUBSCRIBE with wrong flags":     "80 06 0001 0001 61 00",
		"SUBSCRIBE with qos 3":           "82 06 0001 0001 61 03",
		"UNSUBSCRIBE without filters":    "a2 02 0001",
		"PUBREL with wrong flags":        "60 02 0001",
		"AUTH":                           "f0 00",
		"CONNACK from a client":          "20 02 0000",
		"DISCONNECT with flags":          "e1 00",
		"announced beyond the maximum":   "30 ff ff ff 7f",
		"remaining length of five bytes": "30 ff ff ff ff 01",
	} {
		t.Run(name, func(t *testing.T) {
			before := b.Stats().ProtocolErrors
			p := join(t, b, mqtt.V311, "hostile")
			p.write(unhex(bytes))
			p.closed()
			until(t, "it is counted", func() bool { return b.Stats().ProtocolErrors == before+1 })
		})
	}
	bystander.silence()
}
