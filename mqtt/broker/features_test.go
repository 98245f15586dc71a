package broker

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"gateway/mqtt"
	"gateway/mqtt/packet"
)

func willOf(topic, payload string, edit ...func(*packet.Will)) func(*packet.Connect) {
	return func(c *packet.Connect) {
		c.Will = &packet.Will{Topic: topic, Payload: []byte(payload), QoS: 1}
		for _, f := range edit {
			f(c.Will)
		}
	}
}

// [MQTT-3.1.2-7] [MQTT-3.1.2-8] [MQTT-3.1.2-10] [MQTT-3.1.2-14] [MQTT-3.14.4-3]
func TestWillIsPublishedOnce(t *testing.T) {
	for name, c := range map[string]struct {
		end  func(*peer)
		want bool
	}{
		"connection breaks":          {func(p *peer) { p.drop() }, true},
		"DISCONNECT":                 {func(p *peer) { p.leave() }, false},                                                // [MQTT-3.14.4-3]
		"DISCONNECT 0x04":            {func(p *peer) { p.send(&packet.Disconnect{Code: mqtt.DisconnectWithWill}) }, true}, // mochi-mqtt does not
		"DISCONNECT 0x80":            {func(p *peer) { p.send(&packet.Disconnect{Code: mqtt.UnspecifiedError}) }, true},   // [MQTT-3.1.2-8]: all but 0x00
		"protocol error":             {func(p *peer) { p.write([]byte{0xF0, 0}) }, true},
		"taken over by a clean one":  {nil, true},
		"keep alive runs out, later": {func(p *peer) { p.drop() }, true},
	} {
		t.Run(name, func(t *testing.T) {
			b := start(t, Options{})
			watch := join(t, b, mqtt.V5, "watch")
			watch.subscribed("will", 2)
			p := join(t, b, mqtt.V5, "mortal", willOf("will", "gone"))
			if c.end != nil {
				c.end(p)
			} else {
				join(t, b, mqtt.V5, "mortal")
			}
			if c.want {
				if m := watch.message("will", "gone"); m.QoS != 1 || m.Properties.Has(packet.PropWillDelay) {
					t.Errorf("will came with qos %d and delay %t", m.QoS, m.Properties.Has(packet.PropWillDelay))
				}
			}
			until(t, "the connection has ended", func() bool { return b.Stats().Connected <= 2 })
			p.drop()
			watch.silence()
			watch.subscribed("will", 2) // it said nothing of being retained [MQTT-3.1.2-14]
			watch.silence()
		})
	}
}

// What a client sent before it came back is heard, although its former connection has not been read to its
// end by then: the message is forwarded, and after its DISCONNECT there is no will [MQTT-3.14.4-3].
func TestALastDisconnectIsHeardBeforeTheHeir(t *testing.T) {
	for _, v := range versions {
		t.Run(fmt.Sprint("version ", v), func(t *testing.T) {
			b := start(t, Options{})
			watch := join(t, b, mqtt.V5, "watch")
			watch.subscribed("#", 0)
			for range 50 {
				p := join(t, b, v, "quick", willOf("will", "gone"))
				p.send(&packet.Publish{Topic: "t", Payload: []byte("last words")}, &packet.Disconnect{})
				p.drop()
				join(t, b, v, "quick").leave()
				watch.message("t", "last words")
				watch.silence()
			}
			if n := b.Stats().TakeOvers; n != 0 {
				t.Errorf("%d take-overs of connections that had ended", n)
			}
		})
	}
}

func TestRetainedWill(t *testing.T) {
	b := start(t, Options{})
	p := join(t, b, mqtt.V311, "mortal", willOf("state", "offline", func(w *packet.Will) { w.Retain = true }))
	p.publish("state", "online", 1, asRetained)
	p.drop()
	until(t, "the broker notices", func() bool { return b.Stats().Connected == 0 })
	late := join(t, b, mqtt.V311, "late")
	late.subscribed("state", 1)
	if m := late.message("state", "offline"); !m.Retain {
		t.Error("not retained [MQTT-3.1.2-15]")
	}
}

// [MQTT-3.3.1-5] [MQTT-3.3.1-6] [MQTT-3.3.1-7] [MQTT-3.3.1-8] [MQTT-3.3.1-12]
func TestRetained(t *testing.T) {
	b := start(t, Options{})
	pub := join(t, b, mqtt.V5, "pub")
	early := join(t, b, mqtt.V5, "early")
	early.subscribed("r/#", 1)
	pub.publish("r/a", "old", 1, asRetained)
	if m := early.message("r/a", "old"); m.Retain {
		t.Error("retain flag set for an established subscription [MQTT-3.3.1-12]")
	}
	early.leave()
	pub.publish("r/a", "new", 1, asRetained)
	pub.publish("r/b", "other", 2, asRetained)
	pub.publish("r/b/c", "deep", 0, asRetained)
	pub.publish("s", "elsewhere", 0, asRetained)
	pub.silence() // so that all are handled
	for filter, want := range map[string][]string{
		"r/a":   {"r/a new"},
		"r/+":   {"r/a new", "r/b other"},
		"r/#":   {"r/a new", "r/b other", "r/b/c deep"},
		"r/b/#": {"r/b other", "r/b/c deep"},
		"+":     {"s elsewhere"},
		"x":     nil,
	} {
		sub := join(t, b, mqtt.V5, "sub")
		sub.subscribed(filter, 1)
		var got []string
		for range want {
			m := expect[*packet.Publish](sub)
			if !m.Retain { // [MQTT-3.3.1-8]
				t.Errorf("%s: retain flag is not set", filter)
			}
			if want := map[string]mqtt.QoS{"r/a": 1, "r/b": 1}[m.Topic]; m.QoS != want { // published with 1, 2 and 0 [MQTT-3.8.4-8]
				t.Errorf("%s comes with qos %d, want %d", m.Topic, m.QoS, want)
			}
			got = append(got, m.Topic+" "+string(m.Payload))
		}
		sub.silence()
		slices.Sort(got)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", filter, diff)
		}
		sub.leave()
	}
	pub.publish("r/a", "", 1, asRetained) // forgotten [MQTT-3.3.1-6]
	sub := join(t, b, mqtt.V5, "sub")
	sub.subscribed("r/a", 1)
	sub.silence()
	if n := b.Stats().Retained; n != 3 {
		t.Errorf("%d retained messages, want 3", n)
	}
}

// [MQTT-3.3.1-9] [MQTT-3.3.1-10] [MQTT-3.3.1-11] [MQTT-3.3.1-13] [MQTT-3.8.4-3] [MQTT-3.8.4-4]
func TestRetainHandlingAndRetainAsPublished(t *testing.T) {
	b := start(t, Options{})
	pub := join(t, b, mqtt.V5, "pub")
	pub.publish("t", "kept", 1, asRetained)
	sub := join(t, b, mqtt.V5, "sub")
	s := mqtt.Subscription{Filter: "t", QoS: 1, RetainHandling: mqtt.RetainDoNotSend}
	sub.subscribe(s)
	sub.silence() // [MQTT-3.3.1-11]
	s.RetainHandling = mqtt.RetainSendIfNew
	sub.subscribe(s)
	sub.silence() // not new [MQTT-3.3.1-10]
	sub.send(&packet.Unsubscribe{ID: 2, Filters: []string{"t"}})
	expect[*packet.Unsuback](sub)
	sub.subscribe(s)
	sub.message("t", "kept")
	s.RetainHandling = mqtt.RetainSend
	s.RetainAsPublished = true
	sub.subscribe(s)
	sub.message("t", "kept") // [MQTT-3.3.1-9]
	pub.publish("t", "live", 1, asRetained)
	if m := sub.message("t", "live"); !m.Retain { // [MQTT-3.3.1-13]
		t.Error("retain as published: the flag is gone")
	}
}

// [MQTT-3.8.3-3]
func TestNoLocal(t *testing.T) {
	b := start(t, Options{})
	c := join(t, b, mqtt.V5, "c")
	c.subscribe(mqtt.Subscription{Filter: "t", QoS: 1, NoLocal: true})
	c.publish("t", "own", 1)
	c.silence() // [MQTT-3.8.3-3]
	join(t, b, mqtt.V5, "other").publish("t", "foreign", 1)
	c.message("t", "foreign")
}

// A bridge of Mosquitto's that speaks 3.1 or 3.1.1 says so by a bit of the version; there are no subscription options
// that it could ask for. Nothing goes back to it, also not after it came back, and a shared subscription knows
// no such thing [MQTT-3.8.3-4].
func TestABridgeGetsRetainAsPublishedAndNoLocal(t *testing.T) {
	for _, v := range []mqtt.Version{mqtt.V31, mqtt.V311} {
		b := start(t, Options{})
		other := join(t, b, mqtt.V5, "other")
		asBridge := func(c *packet.Connect) { c.Bridge, c.CleanStart = true, false }
		bridge := join(t, b, v, "bridge", asBridge)
		bridge.subscribe(mqtt.Subscription{Filter: "t"}, mqtt.Subscription{Filter: "$share/g/s"})
		for range 2 {
			other.publish("t", "to keep", 1, asRetained)
			if m := bridge.message("t", "to keep"); !m.Retain {
				t.Errorf("%v: the flag is gone", v)
			}
			other.publish("t", "live", 1)
			if m := bridge.message("t", "live"); m.Retain {
				t.Errorf("%v: the flag is set", v)
			}
			bridge.publish("t", "own", 1)
			bridge.publish("s", "own", 0)
			bridge.message("s", "own")
			bridge.silence()
			bridge = join(t, b, v, "bridge", asBridge)
		}
	}
}

// [MQTT-3.3.4-2] [MQTT-3.3.4-3] [MQTT-3.3.4-4]
func TestOverlappingSubscriptionsGiveOneCopyWithTheHighestQoS(t *testing.T) {
	b := start(t, Options{})
	c := join(t, b, mqtt.V5, "c")
	for i, f := range []string{"a/+", "a/#", "a/b"} {
		s := &packet.Subscribe{ID: 1, Subscriptions: []mqtt.Subscription{{Filter: f, QoS: mqtt.QoS(i)}}}
		if i > 0 {
			s.Properties.SetSubscriptionID(uint32(i * 1000))
		}
		c.send(s)
		expect[*packet.Suback](c)
	}
	pub := join(t, b, mqtt.V5, "pub")
	pub.publish("a/b", "x", 2)
	m := c.message("a/b", "x")
	slices.Sort(m.Properties.SubscriptionID)
	if diff := cmp.Diff([]uint32{1000, 2000}, m.Properties.SubscriptionID); diff != "" || m.QoS != 2 { // [MQTT-3.3.4-3]
		t.Errorf("qos %d, identifiers (-want +got):\n%s", m.QoS, diff)
	}
	c.silence()
	pub.publish("a/c", "y", 0)
	if m := c.message("a/c", "y"); !slices.Equal(m.Properties.SubscriptionID, []uint32{1000}) {
		t.Errorf("identifiers %d", m.Properties.SubscriptionID)
	}
}

// [MQTT-3.1.2-26] [MQTT-3.3.2-11] [MQTT-3.3.2-12]
func TestTopicAliases(t *testing.T) {
	b := start(t, Options{TopicAliasMaximum: 3})
	sub := join(t, b, mqtt.V5, "sub", func(c *packet.Connect) { c.Properties.SetTopicAliasMaximum(1) })
	sub.subscribed("#", 1)
	pub, ack := connect(t, b, mqtt.V5, "pub")
	if ack.Properties.TopicAliasMaximum != 3 {
		t.Errorf("CONNACK offers %d aliases", ack.Properties.TopicAliasMaximum)
	}
	alias := func(n uint16) func(*packet.Publish) {
		return func(p *packet.Publish) { p.Properties.SetTopicAlias(n) }
	}
	pub.publish("long/topic", "1", 1, alias(3))
	pub.publish("", "2", 1, alias(3))
	pub.publish("other", "3", 1, alias(3)) // a new meaning
	pub.publish("", "4", 1, alias(3))
	first, second := expect[*packet.Publish](sub), expect[*packet.Publish](sub)
	if first.Topic != "long/topic" || first.Properties.TopicAlias != 1 || second.Topic != "" || second.Properties.TopicAlias != 1 {
		t.Errorf("got topic %q alias %d, then %q alias %d", first.Topic, first.Properties.TopicAlias, second.Topic, second.Properties.TopicAlias)
	}
	for _, payload := range []string{"3", "4"} { // no more aliases than the client takes [MQTT-3.1.2-26]
		if m := sub.message("other", payload); m.Properties.Has(packet.PropTopicAlias) {
			t.Error("a second alias")
		}
	}
	for _, n := range []uint16{4, 2} {
		bad := join(t, b, mqtt.V5, "bad")
		m := &packet.Publish{}
		m.Properties.SetTopicAlias(n)
		bad.send(m)
		want := mqtt.TopicAliasInvalid // [MQTT-3.3.2-8]
		if n == 2 {
			want = mqtt.ProtocolError // not announced
		}
		bad.refused(want)
	}
}

// [MQTT-3.3.2-4] [MQTT-3.3.2-15] [MQTT-3.3.2-16] [MQTT-3.3.2-17] [MQTT-3.3.2-18] [MQTT-3.3.2-20]
// [MQTT-3.1.2-27]
func TestPropertiesAreForwardedUnchanged(t *testing.T) {
	b := start(t, Options{})
	sub := join(t, b, mqtt.V5, "sub")
	sub.subscribed("t", 1)
	old := join(t, b, mqtt.V311, "old")
	old.subscribed("t", 1)
	pub := join(t, b, mqtt.V5, "pub")
	user := []mqtt.UserProperty{{Name: "b", Value: "2"}, {Name: "a", Value: "1"}, {Name: "b", Value: "2"}}
	full := func(p *packet.Publish) {
		ps := &p.Properties
		ps.SetPayloadFormat(1)
		ps.SetContentType("text/plain")
		ps.SetResponseTopic("answer/here")
		ps.SetCorrelationData([]byte{0, 1, 2})
		ps.SetUser(user)
	}
	check := func(p *peer, topic string) {
		t.Helper()
		m := p.message(topic, "x")
		if m.QoS == 1 {
			p.send(&packet.Puback{ID: m.ID})
		}
		ps := &m.Properties
		if ps.Has(packet.PropTopicAlias) {
			t.Error("a topic alias for a client that takes none")
		}
		if ps.PayloadFormat != 1 || ps.ContentType != "text/plain" || ps.ResponseTopic != "answer/here" || string(ps.CorrelationData) != "\x00\x01\x02" {
			t.Errorf("got %+v", ps)
		}
		if diff := cmp.Diff(user, ps.User); diff != "" { // in their order [MQTT-3.3.2-17] [MQTT-3.3.2-18]
			t.Errorf("user properties (-want +got):\n%s", diff)
		}
	}
	for range 2 { // the second time through what was kept of the first
		pub.publish("t", "x", 1, full)
		check(sub, "t")
		old.message("t", "x")
	}
	// Kept for somebody who is away, and retained for somebody who comes later.
	away := func(c *packet.Connect) {
		c.CleanStart = false
		c.Properties.SetSessionExpiry(60)
	}
	p := join(t, b, mqtt.V5, "away", away)
	p.subscribed("kept", 1)
	p.leave()
	until(t, "it is away", func() bool { return b.Stats().Connected == 3 })
	pub.publish("kept", "x", 1, full, func(p *packet.Publish) { p.Retain = true })
	check(join(t, b, mqtt.V5, "away", away), "kept")
	p = join(t, b, mqtt.V5, "later")
	p.subscribed("kept", 1)
	check(p, "kept")
}

// A property that says what its absence would is a property all the same [MQTT-3.3.2-4] [MQTT-3.3.2-20], at once,
// from an offline queue, retained, in a will and after a restart.
func TestPropertiesWithTheirDefaultAreForwarded(t *testing.T) {
	store := &memStore{}
	b, stop := startStop(t, Options{Store: store})
	says := func(ps *packet.Properties) {
		ps.SetPayloadFormat(0)
		ps.SetContentType("")
	}
	check := func(p *peer, topic string) {
		t.Helper()
		m := expect[*packet.Publish](p)
		if ps := &m.Properties; m.Topic != topic || !ps.Has(packet.PropPayloadFormat) || ps.PayloadFormat != 0 || !ps.Has(packet.PropContentType) {
			t.Errorf("%s instead of %s: payload format %t, content type %t", m.Topic, topic, ps.Has(packet.PropPayloadFormat), ps.Has(packet.PropContentType))
		}
		if m.QoS == 1 {
			p.send(&packet.Puback{ID: m.ID})
		}
	}
	there := join(t, b, mqtt.V5, "there")
	there.subscribed("#", 0)
	away := join(t, b, mqtt.V5, "away", persistent)
	away.subscribed("#", 1)
	away.leave()
	pub := join(t, b, mqtt.V5, "pub", willOf("will", "x", func(w *packet.Will) { says(&w.Properties) }))
	pub.publish("t", "x", 1, func(p *packet.Publish) { p.Retain = true; says(&p.Properties) })
	check(there, "t")
	pub.drop()
	check(there, "will")
	late := join(t, b, mqtt.V5, "late")
	late.subscribed("t", 0)
	check(late, "t")
	stop()
	b = start(t, Options{Store: store})
	away = join(t, b, mqtt.V5, "away", persistent)
	check(away, "t")
	check(away, "will")
	late = join(t, b, mqtt.V5, "late")
	late.subscribed("t", 0)
	check(late, "t")
}

func TestSharedSubscriptionsTakeTurns(t *testing.T) {
	b := start(t, Options{})
	var members []*peer
	for i := range 3 {
		m := join(t, b, mqtt.V5, fmt.Sprint("member-", i))
		m.subscribed("$share/g/t/#", 1)
		members = append(members, m)
	}
	alone := join(t, b, mqtt.V5, "alone")
	alone.subscribed("t/#", 1)
	other := join(t, b, mqtt.V5, "other")
	other.subscribed("$share/h/t/#", 1)
	pub := join(t, b, mqtt.V5, "pub")
	for i := range 9 {
		pub.publish("t/x", fmt.Sprint(i), 1)
		alone.message("t/x", fmt.Sprint(i))
		other.message("t/x", fmt.Sprint(i))
	}
	got := make(map[string]int)
	for _, m := range members {
		for range 3 {
			p := expect[*packet.Publish](m)
			got[string(p.Payload)]++
		}
		m.silence()
	}
	if len(got) != 9 {
		t.Errorf("the group got %v, want each of 9 once", got)
	}
	pub.publish("t/r", "retained", 1, asRetained)
	late := join(t, b, mqtt.V5, "late")
	late.subscribed("$share/h2/t/#", 1) // nothing retained for shared ones
	late.silence()
}

// A member that may not have a message does not cost the others theirs.
func TestSharedMessagesGoToWhoMayHaveThem(t *testing.T) {
	b := start(t, Options{ACL: aclFunc(func(c *Client, a Access, _ string) bool { return a != Receive || c.ID != "barred" })})
	for _, id := range []string{"barred", "allowed"} {
		join(t, b, mqtt.V5, id, persistent).subscribed("$share/g/t", 1)
	}
	allowed := join(t, b, mqtt.V5, "allowed", persistent)
	pub := join(t, b, mqtt.V5, "pub")
	for i := range 4 {
		pub.publish("t", fmt.Sprint(i), 1)
		m := allowed.message("t", fmt.Sprint(i))
		allowed.send(&packet.Puback{ID: m.ID})
	}
	allowed.leave()
	pub.publish("t", "waits", 1)
	join(t, b, mqtt.V5, "allowed", persistent).message("t", "waits")
}

func TestSharedMessagesOfALeavingMemberGoToAnother(t *testing.T) {
	b := start(t, Options{})
	one := join(t, b, mqtt.V5, "one")
	one.subscribed("$share/g/t", 1)
	pub := join(t, b, mqtt.V5, "pub")
	pub.publish("t", "unacknowledged", 1)
	one.message("t", "unacknowledged")
	two := join(t, b, mqtt.V5, "two")
	two.subscribed("$share/g/t", 1)
	one.drop()
	two.message("t", "unacknowledged")
}

// [MQTT-3.1.2-24] [MQTT-3.1.2-25]
func TestMaximumPacketSizeOfTheClientIsKept(t *testing.T) {
	b := start(t, Options{})
	sub := join(t, b, mqtt.V5, "sub", func(c *packet.Connect) { c.Properties.SetMaximumPacketSize(100) })
	sub.subscribed("t", 1)
	pub := join(t, b, mqtt.V5, "pub")
	pub.publish("t", strings.Repeat("x", 200), 1)
	pub.publish("t", "small", 1)
	sub.message("t", "small") // [MQTT-3.1.2-24] [MQTT-3.1.2-25]
	if n := b.Stats().TooLarge; n != 1 {
		t.Errorf("%d too large, want 1", n)
	}
}

// [MQTT-3.2.2-9] [MQTT-3.2.2-10] [MQTT-3.2.2-12] [MQTT-3.2.2-13] [MQTT-3.9.3-1]
func TestWhatTheBrokerDoesNotOffer(t *testing.T) {
	one := mqtt.AtLeastOnce
	b := start(t, Options{MaxQoS: &one, NoRetain: true, NoWildcards: true, NoShared: true, MaxPacketSize: 200, ServerKeepAlive: 77, ResponseInfoPrefix: "answers/"})
	c, ack := connect(t, b, mqtt.V5, "c", func(c *packet.Connect) { c.KeepAlive = 1000; c.Properties.SetRequestResponseInfo(true) })
	ps := &ack.Properties
	if ps.MaximumQoS != 1 || !ps.Has(packet.PropMaximumQoS) || ps.RetainAvailable || ps.WildcardAvailable || ps.SharedAvailable ||
		ps.MaximumPacketSize != 200 || ps.ServerKeepAlive != 77 || ps.ResponseInfo != "answers/c" {
		t.Errorf("CONNACK offers %+v", ps)
	}
	if _, ack := connect(t, b, mqtt.V5, "asks not"); ack.Properties.Has(packet.PropResponseInfo) { // [MQTT-3.1.2-28]
		t.Error("response information that was not asked for")
	}
	want := []mqtt.ReasonCode{mqtt.GrantedQoS1, mqtt.WildcardsNotSupported, mqtt.SharedNotSupported}
	got := c.subscribe(mqtt.Subscription{Filter: "a", QoS: 2}, mqtt.Subscription{Filter: "a/#"}, mqtt.Subscription{Filter: "$share/g/a"})
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("SUBACK (-want +got):\n%s", diff)
	}
	c.send(&packet.Publish{Topic: "t", QoS: 2, ID: 1})
	c.refused(mqtt.QoSNotSupported)
	c = join(t, b, mqtt.V5, "c")
	c.send(&packet.Publish{Topic: "t", Retain: true})
	c.refused(mqtt.RetainNotSupported)
	c = join(t, b, mqtt.V5, "c")
	c.send(&packet.Publish{Topic: "t", Payload: make([]byte, 300)})
	c.refused(mqtt.PacketTooLarge)
	if _, ack := connect(t, b, mqtt.V5, "w", willOf("t", "x", func(w *packet.Will) { w.QoS = 2 })); ack.Code != mqtt.QoSNotSupported {
		t.Errorf("will of qos 2: %s", ack.Code)
	}
	if _, ack := connect(t, b, mqtt.V5, "w", willOf("t", "x", func(w *packet.Will) { w.Retain = true })); ack.Code != mqtt.RetainNotSupported {
		t.Errorf("retained will: %s", ack.Code)
	}
}

func TestReasonCodesOfPublish(t *testing.T) {
	b := start(t, Options{MaxPayload: 10, Limits: Limits{TopicLevels: 3}})
	c := join(t, b, mqtt.V5, "c")
	c.subscribed("there", 2)
	for _, x := range []struct {
		topic, payload string
		want           mqtt.ReasonCode
	}{
		{"nobody", "x", mqtt.NoMatchingSubscribers},
		{"a/b/c/d", "x", mqtt.TopicNameInvalid},
		{"there", "more than ten", mqtt.QuotaExceeded},
		{"$SYS/broker/uptime", "x", mqtt.NotAuthorized},
	} {
		for qos := mqtt.AtLeastOnce; qos <= mqtt.ExactlyOnce; qos++ {
			if got := c.publish(x.topic, x.payload, qos); got != x.want {
				t.Errorf("%s at qos %d: %s, want %s", x.topic, qos, got, x.want)
			}
		}
	}
	old := join(t, b, mqtt.V311, "old") // has no refusal [MQTT-3.3.5-2 of 3.1.1]
	old.publish("there", "more than ten", 1)
	old.publish("there", "more than ten", 2)
	c.silence()
	if got := c.subscribe(mqtt.Subscription{Filter: "a/b/c/#"}); got[0] != mqtt.TopicFilterInvalid {
		t.Errorf("a filter of four levels: %s", got[0])
	}
	c.send(&packet.Unsubscribe{ID: 4, Filters: []string{"there", "x"}})
	if diff := cmp.Diff([]mqtt.ReasonCode{mqtt.Success, mqtt.NoSubscriptionExisted}, expect[*packet.Unsuback](c).Codes); diff != "" {
		t.Errorf("UNSUBACK (-want +got):\n%s", diff)
	}
}

// The specification knows no limit of levels; Mosquitto takes 200, and so do its clients.
func TestDeepTopics(t *testing.T) {
	b := start(t, Options{})
	c, p := join(t, b, mqtt.V5, "c"), join(t, b, mqtt.V5, "p")
	deep := strings.Repeat("a/", 255) + "a"
	c.subscribed(strings.Repeat("+/", 255)+"#", 1)
	if got := p.publish(deep, "256 levels", 1, func(p *packet.Publish) { p.Retain = true }); got != mqtt.Success {
		t.Errorf("PUBACK %s", got)
	}
	c.message(deep, "256 levels")
	if got := p.publish(deep+"/a", "one more", 1); got != mqtt.TopicNameInvalid {
		t.Errorf("PUBACK %s for 257 levels", got)
	}
}

func TestDollarTopicsAreNotForWildcards(t *testing.T) {
	b := start(t, Options{SysInterval: 1 << 40})
	c := join(t, b, mqtt.V5, "c")
	c.subscribed("#", 0)
	c.subscribed("+/broker/version", 0)
	c.silence() // [MQTT-4.7.2-1]
	c.subscribed("$SYS/broker/version", 0)
	c.message("$SYS/broker/version", "gateway")
	// Nor do they match what is published now.
	c.subscribed("+/x", 0)
	named, pub := join(t, b, mqtt.V5, "named"), join(t, b, mqtt.V5, "pub")
	named.subscribed("$own/+", 0)
	pub.publish("$own/x", "live", 1)
	named.message("$own/x", "live")
	c.silence()
}

// [MQTT-4.12.0-1] [MQTT-4.12.0-6] [MQTT-4.12.0-7]
func TestEnhancedAuthenticationIsRefused(t *testing.T) {
	b := start(t, Options{})
	p, ack := connect(t, b, mqtt.V5, "c", func(c *packet.Connect) { c.Properties.SetAuthMethod("SCRAM-SHA-256") })
	if ack.Code != mqtt.BadAuthenticationMethod {
		t.Errorf("CONNACK says %s", ack.Code)
	}
	p.closed()
	c := join(t, b, mqtt.V5, "c")
	c.send(&packet.Auth{Code: mqtt.ReAuthenticate})
	c.refused(mqtt.ProtocolError)
}

func TestPublishFromWithin(t *testing.T) {
	b := start(t, Options{})
	sub := join(t, b, mqtt.V311, "sub")
	sub.subscribed("t", 1)
	payload := []byte("x")
	called := 0
	err := b.Publish(t.Context(), &mqtt.Message{Topic: "t", Payload: payload, QoS: 1, Retain: true}, func(err error) {
		if called++; err != nil {
			t.Errorf("done: %v", err)
		}
	})
	if err != nil || called != 1 {
		t.Fatalf("Publish: %v, done was called %d times", err, called)
	}
	payload[0] = 'y' // the caller's again
	sub.message("t", "x")
	late := join(t, b, mqtt.V311, "late")
	late.subscribed("t", 0)
	late.message("t", "x")
	var refused error
	if err := b.Publish(t.Context(), &mqtt.Message{Topic: "a/#"}, func(err error) { refused = err }); err != nil || refused == nil {
		t.Errorf("a topic with a wildcard: %v, %v", err, refused)
	}
}

// A publisher that found the receivers just before one unsubscribed gives it nothing any more, for UNSUBACK may
// be out [MQTT-3.10.4-2].
func TestAMessageUnderWayDoesNotReachWhoUnsubscribed(t *testing.T) {
	b := start(t, Options{})
	c := join(t, b, mqtt.V5, "c")
	c.subscribe(mqtt.Subscription{Filter: "t", QoS: 1}, mqtt.Subscription{Filter: "+", QoS: 1})
	publish := func(r *route) {
		w := b.worker()
		defer w.done()
		w.pub.load(&message{Message: mqtt.Message{Topic: "t", QoS: 1, Payload: []byte("x")}}, b.now())
		b.publish(w, r, receipt{})
	}
	r := b.route("t", nil, nil)
	c.send(&packet.Unsubscribe{ID: 1, Filters: []string{"t"}})
	expect[*packet.Unsuback](c)
	publish(r)
	c.message("t", "x") // by the other
	c.send(&packet.Unsubscribe{ID: 1, Filters: []string{"+"}})
	expect[*packet.Unsuback](c)
	publish(r)
	c.silence()
}

// [MQTT-3.10.4-1] [MQTT-3.10.4-2] [MQTT-3.10.4-3] [MQTT-3.10.4-4] [MQTT-3.10.4-5] [MQTT-3.10.4-6]
// [MQTT-3.11.3-1]
func TestUnsubscribe(t *testing.T) {
	b := start(t, Options{})
	for _, v := range []mqtt.Version{mqtt.V311, mqtt.V5} {
		c := join(t, b, v, "c")
		pub := join(t, b, v, "pub")
		c.subscribed("a/b", 1)
		c.subscribed("a/+", 1)
		pub.publish("a/b", "before", 1)
		m := c.message("a/b", "before")
		c.send(&packet.Unsubscribe{ID: 300, Filters: []string{"never", "A/b", "a/b"}})
		ack := expect[*packet.Unsuback](c)
		want := []mqtt.ReasonCode{mqtt.NoSubscriptionExisted, mqtt.NoSubscriptionExisted, mqtt.Success}
		if v == mqtt.V311 {
			want = nil
		}
		if diff := cmp.Diff(want, ack.Codes); diff != "" || ack.ID != 300 {
			t.Errorf("UNSUBACK of %d (-want +got):\n%s", ack.ID, diff)
		}
		c.send(&packet.Puback{ID: m.ID}) // what had begun is completed
		pub.publish("a/b", "by the other", 1)
		c.send(&packet.Puback{ID: c.message("a/b", "by the other").ID})
		c.send(&packet.Unsubscribe{ID: 301, Filters: []string{"a/+"}})
		expect[*packet.Unsuback](c)
		pub.publish("a/b", "after", 1)
		c.silence()
		c.leave()
		pub.leave()
		until(t, "nothing of it is left", func() bool { s := b.Stats(); return s.Subscriptions == 0 && s.Sessions == 0 })
	}
}

// What was on its way is delivered to its end, on a later connection if need be [MQTT-3.10.4-3].
func TestUnsubscribeWhileAMessageIsOnItsWay(t *testing.T) {
	b := start(t, Options{})
	keep := func(p *packet.Connect) {
		p.CleanStart = false
		p.Properties.SetSessionExpiry(60)
	}
	c, pub := join(t, b, mqtt.V5, "c", keep), join(t, b, mqtt.V5, "pub")
	c.subscribed("t", 2)
	for _, name := range []string{"received", "sent"} {
		pub.publish("t", name, 2)
	}
	received, sent := c.message("t", "received"), c.message("t", "sent")
	c.send(&packet.Unsubscribe{ID: 1, Filters: []string{"t"}}, &packet.Pubrec{ID: received.ID})
	expect[*packet.Unsuback](c)
	if p := expect[*packet.Pubrel](c); p.ID != received.ID || p.Code != mqtt.Success {
		t.Errorf("PUBREL %+v", p)
	}
	c.drop()
	c = join(t, b, mqtt.V5, "c", keep)
	if p := expect[*packet.Pubrel](c); p.ID != received.ID {
		t.Errorf("PUBREL %+v", p)
	}
	if m := c.message("t", "sent"); m.ID != sent.ID || !m.Dup {
		t.Errorf("PUBLISH %d, dup %t", m.ID, m.Dup)
	}
}

// [MQTT-3.14.2-3]
func TestAReasonStringGivesWay(t *testing.T) {
	b := start(t, Options{})
	c := join(t, b, mqtt.V5, "c", func(c *packet.Connect) { c.Properties.SetMaximumPacketSize(20) })
	c.write(unhex("82 03 0001 00"))
	if d := expect[*packet.Disconnect](c); d.Code != mqtt.ProtocolError || d.Properties.Has(packet.PropReasonString) {
		t.Errorf("DISCONNECT says %s, %q", d.Code, d.Properties.ReasonString)
	}
}

// [MQTT-4.8.2-5] [MQTT-4.8.2-6]
func TestSharedMessagesThatGoToNobodyElse(t *testing.T) {
	b := start(t, Options{})
	one := join(t, b, mqtt.V5, "one")
	one.subscribed("$share/g/t", 2)
	pub := join(t, b, mqtt.V5, "pub")
	pub.publish("t", "half way", 2)
	one.message("t", "half way")
	pub.publish("t", "refused", 1)
	refused := one.message("t", "refused")
	two := join(t, b, mqtt.V5, "two")
	two.subscribed("$share/g/t", 2)
	one.send(&packet.Puback{ID: refused.ID, Code: mqtt.QuotaExceeded})
	one.leave()
	two.silence()
}
