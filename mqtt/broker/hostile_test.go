package broker

import (
	"context"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
	"go.uber.org/goleak"

	"gateway/mqtt"
	"gateway/mqtt/packet"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func unhex(s string) []byte {
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		panic(err)
	}
	return b
}

// Bytes on a connection of MQTT 5.0 that has been accepted, and the reason code that they earn.
// [MQTT-4.13.1-1] [MQTT-3.1.0-2] [MQTT-3.3.4-6]
func TestMalformedPacketsEarnTheirReasonCode(t *testing.T) {
	b := start(t, Options{})
	bystander := join(t, b, mqtt.V5, "bystander")
	bystander.subscribed("#", 0)
	for name, c := range map[string]struct {
		bytes string
		want  mqtt.ReasonCode
	}{
		"reserved type 0":                        {"00 00", mqtt.MalformedPacket},
		"remaining length of five bytes":         {"30 ff ff ff ff 01", mqtt.MalformedPacket},
		"remaining length longer than needed":    {"c0 80 00", mqtt.MalformedPacket},
		"PUBLISH of qos 3":                       {"36 06 0001 61 0001 00", mqtt.MalformedPacket},
		"PUBLISH qos 0 with dup":                 {"38 04 0001 61 00", mqtt.MalformedPacket},
		"PUBLISH with identifier 0":              {"32 06 0001 61 0000 00", mqtt.ProtocolError},
		"PUBLISH to a wildcard":                  {"30 04 0001 23 00", mqtt.MalformedPacket},
		"PUBLISH without topic and alias":        {"30 03 0000 00", mqtt.ProtocolError},
		"PUBLISH with a null in its topic":       {"30 04 0001 00 00", mqtt.MalformedPacket},
		"PUBLISH with broken UTF-8":              {"30 04 0001 ff 00", mqtt.MalformedPacket},
		"PUBLISH with a surrogate":               {"30 06 0003 eda080 00", mqtt.MalformedPacket},
		"PUBLISH whose topic is cut off":         {"30 03 0009 61", mqtt.MalformedPacket},
		"PUBLISH with an unknown property":       {"30 06 0001 61 02 7f00", mqtt.MalformedPacket},
		"PUBLISH with a property of CONNECT":     {"30 09 0001 61 05 1100000001", mqtt.MalformedPacket},
		"PUBLISH with a property twice":          {"30 08 0001 61 04 0101 0101", mqtt.ProtocolError},
		"PUBLISH with subscription identifier":   {"30 06 0001 61 02 0b01", mqtt.ProtocolError},
		"PUBLISH with topic alias 0":             {"30 07 0001 61 03 230000", mqtt.TopicAliasInvalid},
		"SUBSCRIBE with wrong flags":             {"80 07 0001 00 0001 61 00", mqtt.MalformedPacket},
		"SUBSCRIBE without filters":              {"82 03 0001 00", mqtt.ProtocolError},
		"SUBSCRIBE cut off (mochi-mqtt #501)":    {"82 02 0001", mqtt.MalformedPacket},
		"SUBSCRIBE cut off in the options":       {"82 06 0001 00 0001 61", mqtt.MalformedPacket},
		"SUBSCRIBE with reserved options":        {"82 07 0001 00 0001 61 c0", mqtt.MalformedPacket},
		"SUBSCRIBE with qos 3":                   {"82 07 0001 00 0001 61 03", mqtt.ProtocolError},
		"SUBSCRIBE with retain handling 3":       {"82 07 0001 00 0001 61 30", mqtt.ProtocolError},
		"SUBSCRIBE shared with no local":         {"82 10 0001 00 000a 2473686172652f672f61 04", mqtt.ProtocolError},
		"SUBSCRIBE with subscription id 0":       {"82 09 0001 02 0b00 0001 61 00", mqtt.ProtocolError},
		"SUBSCRIBE to a#":                        {"82 08 0001 00 0002 6123 00", mqtt.MalformedPacket},
		"UNSUBSCRIBE without filters":            {"a2 03 0001 00", mqtt.ProtocolError},
		"PUBREL with wrong flags":                {"60 02 0001", mqtt.MalformedPacket},
		"PUBACK with an unknown reason code":     {"40 03 0001 05", mqtt.ProtocolError},
		"PINGREQ with a body":                    {"c0 01 00", mqtt.MalformedPacket},
		"CONNECT twice":                          {"10 0d 0004 4d515454 05 02 0000 00 0000", mqtt.ProtocolError},
		"CONNACK from a client":                  {"20 03 00 00 00", mqtt.ProtocolError},
		"SUBACK from a client":                   {"90 04 0001 00 00", mqtt.ProtocolError},
		"PINGRESP from a client":                 {"d0 00", mqtt.ProtocolError},
		"DISCONNECT with an unknown reason code": {"e0 01 01", mqtt.ProtocolError},
		"announced length beyond the maximum":    {"30 ff ff ff 7f", mqtt.PacketTooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			before := b.Stats().ProtocolErrors
			p := join(t, b, mqtt.V5, "hostile")
			p.write(unhex(c.bytes))
			p.refused(c.want)
			until(t, "it is counted", func() bool { return b.Stats().ProtocolErrors == before+1 })
		})
	}
	bystander.silence() // and nobody else is harmed
}

// Bytes instead of a CONNECT; in return the connection ends, with or without a CONNACK.
// [MQTT-3.1.4-1] [MQTT-3.1.4-6]
func TestBadFirstPackets(t *testing.T) {
	b := start(t, Options{})
	for name, c := range map[string]struct{ bytes, want string }{
		"PUBLISH first [MQTT-3.1.0-1]":           {"30 04 0001 61 00", ""},
		"PINGREQ first":                          {"c0 00", ""},
		"TLS to a plain port":                    {"16 03 01 00 05 01 00 00 01 00", ""},
		"HTTP to a plain port":                   {"47 45 54 20 2f 20 48 54 54 50 2f 31 2e 31 0d 0a 0d 0a", ""},
		"protocol version 6":                     {"10 0d 0004 4d515454 06 02 0000 00 0000", "20 03 00 84 00"},
		"protocol version 2":                     {"10 0c 0004 4d515454 02 02 0000 0000", "20 02 00 01"},
		"MQIsdp with version 4":                  {"10 0e 0006 4d5149736470 04 02 0000 0000", "20 02 00 01"},
		"protocol version 5 with a bridge's bit": {"10 0d 0004 4d515454 85 02 0000 00 0000", "20 03 00 84 00"},
		"MQTT with 3 and a bridge's bit":         {"10 0c 0004 4d515454 83 02 0000 0000", "20 02 00 01"},
		"another protocol name":                  {"10 0d 0004 4d515458 05 02 0000 00 0000", "20"},
		"5.0, reserved flag set [MQTT-3.1.2-3]":  {"10 0d 0004 4d515454 05 03 0000 00 0000", "20 .. 00 81"},
		"3.1.1, reserved flag set":               {"10 0c 0004 4d515454 04 03 0000 0000", ""},
		"5.0, receive maximum 0":                 {"10 10 0004 4d515454 05 02 0000 03 210000 0000", "20 .. 00 82"},
		"5.0, identifier with a null":            {"10 0e 0004 4d515454 05 02 0000 00 0001 00", "20 .. 00 81"},
		"5.0, will qos 3":                        {"10 12 0004 4d515454 05 1e 0000 00 0000 00 0001 61 0000", "20 .. 00 81"},
		"5.0, a byte too many":                   {"10 0e 0004 4d515454 05 02 0000 00 0000 00", "20 .. 00 81"},
		"3.1.1, password without a user name":    {"10 0e 0004 4d515454 04 42 0000 0000 0000", ""},
		"CONNECT larger than its bound":          {"10 ff ff ff 7f", ""},
	} {
		t.Run(name, func(t *testing.T) {
			before := b.Stats().BadConnects
			p := dial(t, b, mqtt.V5)
			p.write(unhex(c.bytes))
			var got [64]byte
			p.nc.SetReadDeadline(time.Now().Add(patience))
			n := 0
			for n < len(got) {
				k, err := p.nc.Read(got[n:])
				n += k
				if err != nil {
					if !strings.Contains(err.Error(), "EOF") {
						t.Errorf("the connection ends with %v", err)
					}
					break
				}
			}
			want := strings.ReplaceAll(c.want, " ", "")
			have := hex.EncodeToString(got[:n])
			if len(have) < len(want) || want == "" && have != "" {
				t.Fatalf("answer %q, want %q", have, want)
			}
			for i := range want {
				if want[i] != '.' && want[i] != have[i] {
					t.Fatalf("answer %q, want %q", have, want)
				}
			}
			until(t, "it is counted", func() bool { return b.Stats().BadConnects == before+1 })
		})
	}
}

// A reset must not destroy the last packet although the client goes on sending.
func TestTheReasonCodeSurvivesWhatIsStillSent(t *testing.T) {
	b := start(t, Options{})
	for range 20 {
		p := join(t, b, mqtt.V5, "c")
		flood := unhex("36 06 0001 61 0001 00")
		for range 2000 {
			flood = append(flood, unhex("30 04 0001 61 00")...)
		}
		p.write(flood)
		p.refused(mqtt.MalformedPacket)
	}
}

func TestConnectMustComeInTime(t *testing.T) {
	b := start(t, Options{Limits: Limits{ConnectTimeout: 50 * time.Millisecond}})
	silent := dial(t, b, mqtt.V5)
	trickling := dial(t, b, mqtt.V5)
	trickling.write(unhex("10 0d 00")) // and no more: slow loris
	silent.closed()
	trickling.closed()
}

// What is not known yet to be anybody's holds little, however many do it, and takes no room from clients.
func TestBytesBeforeConnectAreBounded(t *testing.T) {
	inBubble(t, Options{Limits: Limits{ConnectBytes: 100 << 10}}, func(t *testing.T, b *Broker) {
		large := &packet.Connect{Version: mqtt.V5, CleanStart: true, ClientID: "large", HasPassword: true, HasUsername: true, Password: make([]byte, 60_000)}
		whole, err := large.Append(nil, mqtt.V5)
		if err != nil {
			t.Fatal(err)
		}
		dial := func() *peer {
			near, far := net.Pipe()
			b.ServeConn(far)
			return newPeer(t, near, mqtt.V5)
		}
		known, _ := piped(t, b, mqtt.V5, "known")
		first := dial()
		first.write(whole[:len(whole)-1])
		time.Sleep(time.Second)
		known.send(&packet.Publish{Topic: "t", Payload: make([]byte, 200_000), QoS: 1, ID: 1})
		expect[*packet.Puback](known)
		piped(t, b, mqtt.V5, "small")
		second := dial() // takes the place of the first, which does not go on
		second.send(large)
		expect[*packet.Connack](second)
		first.closed()
		if n := b.Stats().BadConnects; n != 1 {
			t.Errorf("%d bad connects, want 1", n)
		}
		second.silence() // it reads on, so there is room again
		third := dial()
		third.send(large)
		expect[*packet.Connack](third)
	})
}

// Clients that send large packets and never come to their ends hold no more than may be queued, and keep nobody out: the
// one whose packet comes most slowly makes room.
func TestArrivingPacketsAreBounded(t *testing.T) {
	inBubble(t, Options{MaxPacketSize: 100_000, Limits: Limits{QueuedBytesTotal: 100_000}}, func(t *testing.T, b *Broker) {
		unfinished, err := (&packet.Publish{Topic: "t", Payload: make([]byte, 90_000)}).Append(nil, mqtt.V5)
		if err != nil {
			t.Fatal(err)
		}
		join := func(id string) *peer {
			p, _ := piped(t, b, mqtt.V5, id)
			return p
		}
		first := join("first")
		first.write(unfinished[:89_000])
		time.Sleep(10 * time.Second)
		second := join("second")
		go second.nc.Write(unfinished[:89_000])
		first.refused(mqtt.QuotaExceeded)
		synctest.Wait()
		third := join("third") // which is no faster than the second
		go third.nc.Write(unfinished[:89_000])
		third.refused(mqtt.QuotaExceeded)
		second.write(unfinished[89_000:])
		second.silence()
		fourth := join("fourth")
		fourth.write(unfinished)
		fourth.silence()
		if n := b.Stats().ProtocolErrors; n != 2 {
			t.Errorf("%d refusals counted, want 2", n)
		}
	})
}

func TestConnectionsAreBounded(t *testing.T) {
	b := start(t, Options{Limits: Limits{Pending: 2}})
	dial(t, b, mqtt.V5)
	second := dial(t, b, mqtt.V5)
	third := dial(t, b, mqtt.V5)
	if _, err := third.next(patience); err == nil {
		t.Error("the third connection that is not past CONNECT was served")
	}
	second.send(&packet.Connect{Version: mqtt.V5, CleanStart: true})
	expect[*packet.Connack](second)
	join(t, b, mqtt.V5, "room again")
	if n := b.Stats().TurnedAway; n != 1 {
		t.Errorf("%d turned away, want 1", n)
	}
}

// A connection to a WebSocket port counts before it speaks WebSocket, and must begin to in time.
func TestConnectionsBeforeTheUpgradeAreBounded(t *testing.T) {
	throughDoor(t, Listener{WebSocket: true}, Limits{Pending: 2}, func(t *testing.T, b *Broker, d *door) {
		peers := []*peer{d.knock(t), d.knock(t), d.knock(t)}
		for _, p := range peers { // the third at once, the others when their time is up
			if _, err := p.next(patience); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("a connection that says nothing: %v", err)
			}
		}
		if n := b.Stats().TurnedAway; n != 1 {
			t.Errorf("%d turned away, want 1", n)
		}
		synctest.Wait() // the peers have seen their ends, the broker follows
		ws, _, err := websocket.Dial(t.Context(), "ws://door", &websocket.DialOptions{
			Subprotocols: []string{"mqtt"},
			HTTPClient:   &http.Client{Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return d.dial(), nil }}},
		})
		if err != nil {
			t.Fatalf("there is no room again: %v", err)
		}
		ws.CloseNow()
	})
}

// [MQTT-3.8.4-5] [MQTT-3.8.4-6]
func TestSubscriptionsAreBounded(t *testing.T) {
	b := start(t, Options{Limits: Limits{Subscriptions: 2, SubscriptionsAll: 3}})
	one := join(t, b, mqtt.V5, "one")
	if got := one.subscribe(mqtt.Subscription{Filter: "a"}, mqtt.Subscription{Filter: "b"}, mqtt.Subscription{Filter: "c"}, mqtt.Subscription{Filter: "a"}); got[2] != mqtt.QuotaExceeded || got[3] != mqtt.Success {
		t.Errorf("SUBACK %v", got)
	}
	two := join(t, b, mqtt.V5, "two")
	if got := two.subscribe(mqtt.Subscription{Filter: "a"}, mqtt.Subscription{Filter: "b"}); got[1] != mqtt.QuotaExceeded {
		t.Errorf("SUBACK %v", got)
	}
	old := join(t, b, mqtt.V311, "old")
	if got := old.subscribe(mqtt.Subscription{Filter: "a"}); got[0] != 0x80 {
		t.Errorf("3.1.1 SUBACK %v", got)
	}
}

// The levels of a retained message's topic count for what they take in the tree, and are given back with it.
func TestDeepRetainedTopicsCountForTheirLevels(t *testing.T) {
	b := start(t, Options{Limits: Limits{RetainedBytes: 20_000}})
	c := join(t, b, mqtt.V5, "c")
	deep := func(first string) string { return first + strings.Repeat("/", 100) }
	c.publish(deep("a"), "1", 1, asRetained)
	c.publish(deep("b"), "1", 1, asRetained)
	c.publish("flat", "1", 1, asRetained)
	if n := b.Stats().Retained; n != 2 {
		t.Errorf("%d are retained, want one deep and one flat", n)
	}
	c.publish(deep("a"), "", 1, asRetained)
	c.publish(deep("b"), "1", 1, asRetained)
	if n := b.Stats().Retained; n != 2 {
		t.Errorf("%d are retained once there is room, want 2", n)
	}
}

// Identifiers and wills are bounded, too; and whatever becomes of a client, what it took is given back.
func TestIdentifiersAndWillsAreBounded(t *testing.T) {
	store := &memStore{}
	o := Options{Store: store, Limits: Limits{QueuedBytesTotal: 200_000}}
	b, stop := startStop(t, o)
	big := willOf("will", strings.Repeat("x", 60_000))
	var first *peer
	for i := range 3 {
		if p := join(t, b, mqtt.V5, strconv.Itoa(i), big); i == 0 {
			first = p
		}
	}
	if _, ack := connect(t, b, mqtt.V5, "fourth", big); ack.Code != mqtt.QuotaExceeded {
		t.Errorf("a fourth large will: %s", ack.Code)
	}
	if _, ack := connect(t, b, mqtt.V5, strings.Repeat("i", 60_000)); ack.Code != mqtt.QuotaExceeded {
		t.Errorf("a large identifier beside them: %s", ack.Code)
	}
	join(t, b, mqtt.V5, "0") // takes over
	first.drop()
	join(t, b, mqtt.V5, "1").leave()                                                                                            // a will that was published
	join(t, b, mqtt.V5, "later", persistent, willOf("w", "x", func(w *packet.Will) { w.Properties.SetWillDelay(1000) })).drop() // waits
	until(t, "the will waits", func() bool { return b.Stats().Connected == 2 })
	stop()
	b = start(t, o)
	join(t, b, mqtt.V5, "later", persistent, willOf("w", "x")).leave() // in time; and is not needed
	join(t, b, mqtt.V5, "later").leave()
	until(t, "all is given back", func() bool { return b.kept.Load() == 0 })
}

// A filter of 64 KiB counts for 64 usual ones, and so does what is left of one that ended, also after a restart.
func TestLongFiltersCountForWhatTheyTake(t *testing.T) {
	store := &memStore{}
	b, stop := startStop(t, Options{Store: store, Limits: Limits{Subscriptions: 70}})
	c := join(t, b, mqtt.V5, "c", persistent)
	long := func(first string) mqtt.Subscription {
		return mqtt.Subscription{Filter: first + strings.Repeat("x", 65_000)}
	}
	deep := mqtt.Subscription{Filter: strings.Repeat("/", 100)}
	if got := c.subscribe(long("a"), long("b"), mqtt.Subscription{Filter: "short"}, deep, long("a")); got[0].IsError() ||
		got[1] != mqtt.QuotaExceeded || got[2].IsError() || got[3] != mqtt.QuotaExceeded || got[4].IsError() {
		t.Errorf("SUBACK %v", got)
	}
	stop()
	b = start(t, Options{Store: store, Limits: Limits{Subscriptions: 70}})
	c = join(t, b, mqtt.V5, "c", persistent)
	if got := c.subscribe(long("b")); got[0] != mqtt.QuotaExceeded {
		t.Errorf("after the restart: SUBACK %v", got)
	}
	c.send(&packet.Unsubscribe{ID: 1, Filters: []string{long("a").Filter}})
	expect[*packet.Unsuback](c)
	if got := c.subscribe(long("b")); got[0].IsError() {
		t.Errorf("once there is room: SUBACK %v", got)
	}
}

// A client that publishes to many long topics, or to many that many receive, makes the broker remember little of them.
func TestWhatAConnectionRemembersOfTopicsIsBounded(t *testing.T) {
	b := start(t, Options{})
	c := &conn{b: b, client: &Client{ID: "c"}}
	for i := range 1000 {
		topic := strconv.Itoa(i) + strings.Repeat("x", 10_000)
		if r := c.route(topic); r.topic != topic || c.route(topic) != r {
			t.Fatal("the last topic is not remembered")
		}
		size := 0
		for _, r := range c.routes {
			size += r.size()
		}
		if size > maxRouteBytes || size != c.routed {
			t.Fatalf("%d bytes are remembered, and %d counted", size, c.routed)
		}
	}
	p := join(t, b, mqtt.V5, "aliases")
	for i := range 3 {
		m := &packet.Publish{Topic: strings.Repeat("x", 50_000)}
		m.Properties.SetTopicAlias(uint16(i + 1))
		p.send(m, m) // to name it again takes nothing
	}
	p.refused(mqtt.QuotaExceeded)
}

// [MQTT-3.1.4-2]
func TestSessionsAndRetainedMessagesAreBounded(t *testing.T) {
	b := start(t, Options{Limits: Limits{Sessions: 1, Retained: 1}})
	c := join(t, b, mqtt.V5, "c")
	if _, ack := connect(t, b, mqtt.V5, "second"); ack.Code != mqtt.QuotaExceeded {
		t.Errorf("a second session: %s", ack.Code)
	}
	if _, ack := connect(t, b, mqtt.V311, "second"); ack.Code != mqtt.ServerUnavailable {
		t.Errorf("a second session in 3.1.1: %s", ack.Code)
	}
	c.publish("a", "1", 1, asRetained)
	c.publish("b", "1", 1, asRetained)
	c.publish("a", "2", 1, asRetained)
	c.subscribed("+", 0)
	c.message("a", "2")
	c.silence()
}

// 3,500 hostile packets cost mochi-mqtt 341 MiB: nothing may be left of them.
func TestHostilePacketsLeaveNothing(t *testing.T) {
	b := start(t, Options{})
	for range 200 {
		p := join(t, b, mqtt.V5, "")
		p.write(unhex("30 ff ff 7f 0001 61 00")) // announces 2 MiB and sends nothing of it
		p.drop()
	}
	until(t, "all have ended", func() bool { return b.Stats().Connected == 0 })
	if s := b.Stats(); s.Sessions != 0 || s.QueuedBytes != 0 {
		t.Errorf("left: %+v", s)
	}
}

// Who has no CONNACK yet gets no DISCONNECT either. [MQTT-3.14.0-1]
func TestShutdownIsAnnounced(t *testing.T) {
	b, stop := startStop(t, Options{})
	p := join(t, b, mqtt.V5, "c", willOf("w", "x"))
	old := join(t, b, mqtt.V311, "old")
	pending := dial(t, b, mqtt.V5)
	go stop()
	p.refused(mqtt.ServerShuttingDown)
	old.closed()
	pending.closed()
	stop()
	if err := b.Publish(context.Background(), &mqtt.Message{Topic: "t"}, func(error) { t.Error("done was called") }); err != ErrClosed {
		t.Errorf("Publish after the end: %v", err)
	}
}

// Neither does one whose CONNECT is being judged: its answer is a CONNACK. [MQTT-3.14.0-1]
func TestShutdownWhileAClientIsJudged(t *testing.T) {
	judging, goOn := make(chan struct{}), make(chan struct{})
	b, stop := startStop(t, Options{Auth: authFunc(func(*Client, string, []byte) (string, error) {
		close(judging)
		<-goOn
		return "alice", nil
	})})
	p := dial(t, b, mqtt.V5)
	p.send(&packet.Connect{Version: mqtt.V5, CleanStart: true, ClientID: "c", HasUsername: true, Username: "alice"})
	<-judging
	stopped := make(chan struct{})
	go func() { stop(); close(stopped) }()
	until(t, "the broker stops", func() bool { return b.closed.Load() })
	close(goOn)
	if got, err := p.next(patience); err == nil {
		if ack, ok := got.(*packet.Connack); !ok || ack.Code != mqtt.ServerShuttingDown {
			t.Errorf("got %T %+v", got, got)
		}
	}
	p.drop()
	<-stopped
}

func TestPlainMQTTToATLSPort(t *testing.T) {
	b := start(t, Options{})
	near, far := pair(t)
	b.ServeConn(tls.Server(far, &tls.Config{Certificates: []tls.Certificate{selfSigned(t, "broker", nil)}}))
	p := newPeer(t, near, mqtt.V5)
	p.send(&packet.Connect{Version: mqtt.V5, CleanStart: true})
	p.nc.SetReadDeadline(time.Now().Add(patience))
	var got [1]byte
	if n, err := p.nc.Read(got[:]); n == 1 && got[0]>>4 == byte(packet.CONNACK) {
		t.Error("a TLS port answered CONNACK")
	} else if ne, ok := err.(net.Error); ok && ne.Timeout() {
		t.Error("a TLS port leaves plain MQTT hanging")
	}
}
