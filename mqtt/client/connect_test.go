package client

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"gateway/mqtt"
	"gateway/mqtt/packet"

	"github.com/google/go-cmp/cmp"
)

// CONNECT says all that the options do, and in 3.1.1 what there is a word for.
func TestConnectSaysWhatIsWanted(t *testing.T) {
	o := Options{
		URLs: []string{"mqtt://server"}, Version: mqtt.V5, ClientID: "box-7", Username: "alice", Password: []byte("secret"),
		KeepAlive: 90 * time.Second, SessionExpiry: time.Hour, CleanStart: true, ReceiveMaximum: 7, MaxPacket: 1000, TopicAliasesIn: 3,
		RequestResponse: true, User: []mqtt.UserProperty{{Name: "k", Value: "v"}},
		Will: &Will{Message: mqtt.Message{Topic: "w", Payload: []byte("gone"), QoS: 1, Retain: true, ContentType: "text/plain"}, Delay: time.Minute},
	}
	want := packet.Connect{
		Version: mqtt.V5, CleanStart: true, KeepAlive: 90, ClientID: "box-7", HasUsername: true, Username: "alice", HasPassword: true, Password: []byte("secret"),
		Will: &packet.Will{Topic: "w", Payload: []byte("gone"), QoS: 1, Retain: true},
	}
	p := &want.Properties
	p.SetSessionExpiry(3600)
	p.SetReceiveMaximum(7)
	p.SetMaximumPacketSize(1000)
	p.SetTopicAliasMaximum(3)
	p.SetRequestResponseInfo(true)
	p.SetUser(o.User)
	want.Will.Properties.SetContentType("text/plain")
	want.Will.Properties.SetWillDelay(60)
	run(t, o, func(t *testing.T, b *bench) {
		_, got := b.accept(packet.Connack{})
		if d := diff(&want, got); d != "" {
			t.Error(d)
		}
	})
	o.Version, want.Version = mqtt.V311, mqtt.V311
	want.Properties, want.Will.Properties = packet.Properties{}, packet.Properties{}
	run(t, o, func(t *testing.T, b *bench) {
		_, got := b.accept(packet.Connack{})
		if d := diff(&want, got); d != "" {
			t.Error(d)
		}
	})
	// Without an expiry no session is kept, which 5.0 says by leaving it out (3.1.2.11.2) and 3.1.1 by a clean session.
	o.SessionExpiry, o.CleanStart = 0, false
	for v, clean := range map[mqtt.Version]bool{mqtt.V311: true, mqtt.V5: false} {
		o.Version = v
		run(t, o, func(t *testing.T, b *bench) {
			if _, got := b.accept(packet.Connack{}); got.CleanStart != clean || got.Properties.Has(packet.PropSessionExpiry) {
				t.Errorf("version %d: %+v", v, got)
			}
		})
	}
}

// Who asks for 5.0 gets it or nothing.
func TestAFixedVersionDoesNotFallBack(t *testing.T) {
	run(t, Options{Version: mqtt.V5}, func(t *testing.T, b *bench) {
		for range 2 {
			if _, p := b.accept(packet.Connack{Code: mqtt.UnsupportedVersion}); p.Version != mqtt.V5 {
				t.Errorf("version %d", p.Version)
			}
			if st := b.state(); st.Reason != mqtt.UnsupportedVersion {
				t.Errorf("%+v", st)
			}
		}
	})
}

// negotiates tests a client to whom the version is open.
func negotiates(t *testing.T, test func(t *testing.T, f *fake, states chan State)) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		states := make(chan State, 100)
		c, err := New(Options{URLs: []string{"mqtt://server"}, Dial: f.dial, Proxy: noProxy, OnState: func(s State) { states <- s }})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- c.Run(ctx) }()
		test(t, f, states)
		cancel()
		<-ended
	})
}

// speaks takes a connection whose CONNECT must be of a version.
func (f *fake) speaks(v mqtt.Version) *fakeConn {
	f.t.Helper()
	s := <-f.conns
	p, ok := s.next().(*packet.Connect)
	if !ok || p.Version != v {
		f.t.Fatalf("%+v, want a CONNECT of version %d", p, v)
	}
	s.v = v
	return s
}

// What a server was found to speak holds as long as it can be reached: another may have taken its place.
func TestTheVersionIsFoundOutAnew(t *testing.T) {
	negotiates(t, func(t *testing.T, f *fake, states chan State) {
		f.speaks(mqtt.V5).close()
		s := f.speaks(mqtt.V311)
		s.send(&packet.Connack{})
		<-states
		s.close()
		<-states
		f.speaks(mqtt.V311).close()
		<-states
		s = f.speaks(mqtt.V5)
		s.send(&packet.Connack{})
		<-states
		s.close()
		// One that spoke 5.0 and hangs up does not speak something older.
		<-states
		s = f.speaks(mqtt.V5)
		start := time.Now()
		s.close()
		if <-states; time.Since(start) != 0 {
			t.Errorf("something else is tried for %v", time.Since(start))
		}
		f.speaks(mqtt.V5)
	})
}

// A refusal in the older version is what is told; an answer that is none is no sign of an old server, nor is silence.
func TestWhatIsNoSignOfAnOldServer(t *testing.T) {
	negotiates(t, func(t *testing.T, f *fake, states chan State) {
		f.speaks(mqtt.V5).close()
		f.speaks(mqtt.V311).send(&packet.Connack{Code: mqtt.NotAuthorized})
		if st := <-states; st.Reason != mqtt.NotAuthorized {
			t.Errorf("%+v", st)
		}
		f.speaks(mqtt.V5).close()
		f.speaks(mqtt.V311).close()
		if st := <-states; !errors.Is(st.Err, errSilent) {
			t.Errorf("%+v", st)
		}
		for _, answer := range []func(s *fakeConn){
			func(s *fakeConn) { s.send(&packet.Pingresp{}) },
			func(s *fakeConn) { s.send(&packet.Connack{Code: mqtt.NotAuthorized}) },
			func(s *fakeConn) {},
		} {
			answer(f.speaks(mqtt.V5))
			if st := <-states; st.Connected {
				t.Errorf("%+v", st)
			}
		}
	})
}

// User and password of a URL are those of CONNECT where the options say none [MQTT-3.1.2-17] [MQTT-3.1.2-19]; before 5.0 there is
// no password without a user name [MQTT-3.1.2-22 of 3.1.1].
func TestUserAndPassword(t *testing.T) {
	for _, c := range []struct {
		o              Options
		user, password string
	}{
		{Options{URLs: []string{"mqtt://alice:secret@server"}}, "alice", "secret"},
		{Options{URLs: []string{"mqtt://alice@server"}, Password: []byte("file")}, "alice", "file"},
		{Options{URLs: []string{"mqtt://alice:secret@server"}, Username: "bob", Password: []byte("file")}, "bob", "file"},
		{Options{URLs: []string{"mqtt://alice:secret@server"}, Username: "bob"}, "bob", ""},
		{Options{Password: []byte("token"), Version: mqtt.V5}, "", "token"},
		{Options{Password: []byte("token")}, "", ""},
	} {
		run(t, c.o, func(t *testing.T, b *bench) {
			_, p := b.accept(packet.Connack{})
			if p.Username != c.user || string(p.Password) != c.password || p.HasUsername != (c.user != "") || p.HasPassword != (c.password != "") {
				t.Errorf("%+v: %+v", c, p)
			}
		})
	}
}

// A server may say of a feature that it has it, which is what its silence means, too (3.2.2.3).
func TestWhatTheServerSaysItHas(t *testing.T) {
	ack := packet.Connack{}
	ack.Properties.SetWildcardAvailable(true)
	ack.Properties.SetSharedAvailable(true)
	ack.Properties.SetSubscriptionIDsAvailable(true)
	ack.Properties.SetRetainAvailable(true)
	for _, ack := range []packet.Connack{ack, {}} {
		run(t, Options{Version: mqtt.V5}, func(t *testing.T, b *bench) {
			s, _ := b.accept(ack)
			subs := []mqtt.Subscription{{Filter: "a/#"}, {Filter: "$share/g/b"}}
			go b.c.Subscribe(t.Context(), subs...)
			s.expect(&packet.Subscribe{ID: 1, Subscriptions: subs})
			s.send(&packet.Suback{ID: 1, Codes: []mqtt.ReasonCode{0, 0}})
			if err := b.c.Publish(t.Context(), &mqtt.Message{Topic: "t", Retain: true}, nil); err != nil {
				t.Error(err)
			}
			s.expect(&packet.Publish{Topic: "t", Retain: true})
		})
	}
}

func TestOptionsThatCannotBe(t *testing.T) {
	long := strings.Repeat("x", mqtt.MaxString+1)
	for want, o := range map[string]Options{
		"no URL":                  {},
		"keep alive is more":      {KeepAlive: 65536 * time.Second},
		"keep alive is less":      {KeepAlive: time.Millisecond},
		"client identifier":       {ClientID: "\x00"},
		"user name":               {Username: long},
		"password":                {Password: []byte(long)},
		"version 6":               {Version: 6},
		"needs version 5.0":       {Version: mqtt.V311, Auth: &scram{}},
		"a limit is negative":     {MaxInflight: -1},
		"timeout, a pause":        {WriteTimeout: -1},
		"timeout, a pause or":     {Backoff: Backoff{Min: -1}},
		"session expiry is neg":   {SessionExpiry: -1},
		"user property":           {User: []mqtt.UserProperty{{Name: "\x00"}}},
		"will: ":                  {Will: &Will{Message: mqtt.Message{Topic: "w/#"}}},
		"will payload is longer":  {Will: &Will{Message: mqtt.Message{Topic: "w", Payload: []byte(long)}}},
		"scheme \"gopher\" is no": {URLs: []string{"gopher://h"}},
	} {
		if o.URLs == nil && want != "no URL" {
			o.URLs = []string{"mqtt://h"}
		}
		if _, err := New(o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

func TestDefaults(t *testing.T) {
	c, err := New(Options{URLs: []string{"mqtt://h"}})
	if err != nil {
		t.Fatal(err)
	}
	got := c.opt
	if got.Proxy == nil || got.Logger == nil {
		t.Error("no proxy, or no logger")
	}
	got.Proxy, got.Logger = nil, nil
	if d := cmp.Diff(Options{
		URLs: []string{"mqtt://h"}, KeepAlive: 30 * time.Second, ConnectTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second, AckTimeout: 90 * time.Second,
		Backoff:        Backoff{Min: 250 * time.Millisecond, Max: 4 * time.Second, Healthy: 10 * time.Second},
		ReceiveMaximum: 256, MaxPacket: 16 << 20, MaxQueuedBytes: 32 << 20, MaxUnacked: 4096, MaxInflight: 1024, TopicAliases: 64, TopicAliasesIn: 64,
	}, got); d != "" {
		t.Error(d)
	}
	if a, b := randomID(), randomID(); a == b || len(a) > 23 { // [MQTT-3.1.3-5]
		t.Errorf("%s and %s", a, b)
	}
}

// What is just possible is taken as it is, and the rest brought within bounds.
func TestOptionsAtTheirBounds(t *testing.T) {
	most := []byte(strings.Repeat("x", mqtt.MaxString))
	for _, d := range []time.Duration{time.Second, 65535 * time.Second} {
		c, err := New(Options{
			URLs: []string{"mqtt://h"}, KeepAlive: d, Password: most, Will: &Will{Message: mqtt.Message{Topic: "w", Payload: most}},
			MaxUnacked: 1, MaxInflight: 1, MaxQueuedBytes: 1, TopicAliasesIn: 1 << 20, Backoff: Backoff{Min: time.Minute},
		})
		if err != nil {
			t.Fatal(err)
		}
		if o := c.opt; o.KeepAlive != d || o.TopicAliasesIn != 65535 || o.Backoff.Max != time.Minute {
			t.Errorf("%+v", o)
		}
	}
}

// Also at the bounds of what a message may carry.
func TestMessagesThatNoServerTakes(t *testing.T) {
	most := []byte(strings.Repeat("x", mqtt.MaxString))
	run(t, Options{Version: mqtt.V5}, func(t *testing.T, b *bench) {
		s, _ := b.accept(packet.Connack{})
		for _, m := range []mqtt.Message{
			{Topic: "a", CorrelationData: append(most, 'x')},
			{Topic: "a", User: []mqtt.UserProperty{{Name: "\x00"}}},
			{Topic: "a", User: []mqtt.UserProperty{{Value: "\xff"}}},
		} {
			if err := b.c.Publish(t.Context(), &m, nil); err == nil {
				t.Errorf("%.60v is accepted", m)
			}
		}
		if err := b.c.Publish(t.Context(), &mqtt.Message{Topic: "a", CorrelationData: most}, nil); err != nil {
			t.Fatal(err)
		}
		if p := s.next().(*packet.Publish); len(p.Properties.CorrelationData) != len(most) {
			t.Errorf("%d bytes of correlation data", len(p.Properties.CorrelationData))
		}
	})
}

// Nor does any packet hold more than 268,435,455 bytes (2.1.4), which no check of the parts shows: the message is refused as one
// that this server finds too large, not tried for ever.
func TestAMessageBeyondAllPackets(t *testing.T) {
	part := mqtt.UserProperty{Value: strings.Repeat("x", mqtt.MaxString)}
	run(t, Options{Version: mqtt.V5}, func(t *testing.T, b *bench) {
		s, _ := b.accept(packet.Connack{})
		m := &mqtt.Message{Topic: "a", QoS: 1, User: slices.Repeat([]mqtt.UserProperty{part}, 268_435_455/len(part.Value))}
		if err := b.c.Publish(t.Context(), m, func(err error) { b.done("huge", err) }); err != nil {
			t.Fatal(err)
		}
		b.expectDone("huge: mqtt client: mqtt: publish refused: packet too large: mqtt packet: packet is larger than 268435455 bytes")
		s.sync()
	})
}

// A message of QoS 0 is no server's receive maximum's affair [MQTT-3.3.4-7] [MQTT-4.9.0-3].
func TestQoS0PassesAFullWindow(t *testing.T) {
	ack := packet.Connack{}
	ack.Properties.SetReceiveMaximum(1)
	run(t, Options{Version: mqtt.V5}, func(t *testing.T, b *bench) {
		s, _ := b.accept(ack)
		b.publish(1, "a")
		s.expect(pub(1, 1, "a"))
		b.publish(0, "z")
		s.expect(pub(0, 0, "z"))
		b.expectDone("z")
	})
}

// What was not sent again yet is not acknowledged by what may be about an earlier exchange; it is sent.
func TestAcknowledgementBeforeItIsSentAgain(t *testing.T) {
	run(t, Options{Version: mqtt.V5, SessionExpiry: time.Hour}, func(t *testing.T, b *bench) {
		s, _ := b.accept(packet.Connack{})
		b.publish(1, "a")
		b.publish(1, "b")
		b.publish(2, "c")
		s.expect(pub(1, 1, "a"), pub(1, 2, "b"), pub(2, 3, "c"))
		s.close()
		ack := packet.Connack{SessionPresent: true}
		ack.Properties.SetReceiveMaximum(1)
		s, _ = b.accept(ack)
		s.expect(again(pub(1, 1, "a")))
		s.send(&packet.Puback{ID: 2}, &packet.Pubcomp{ID: 3})
		b.noneDone()
		s.send(&packet.Puback{ID: 1})
		s.expect(again(pub(1, 2, "b")))
		s.send(&packet.Puback{ID: 2})
		s.expect(again(pub(2, 3, "c")))
		b.expectDone("a", "b")
	})
}

// A server that has the message and says so before it was asked again is believed: PUBLISH after the PUBREL would be another
// message to it [MQTT-4.3.3-6].
func TestReceiptBeforeItIsSentAgain(t *testing.T) {
	run(t, Options{Version: mqtt.V5, SessionExpiry: time.Hour}, func(t *testing.T, b *bench) {
		s, _ := b.accept(packet.Connack{})
		b.publish(1, "a")
		b.publish(2, "b")
		b.publish(2, "c")
		s.expect(pub(1, 1, "a"), pub(2, 2, "b"), pub(2, 3, "c"))
		s.close()
		ack := packet.Connack{SessionPresent: true}
		ack.Properties.SetReceiveMaximum(1)
		s, _ = b.accept(ack)
		s.expect(again(pub(1, 1, "a")))
		s.send(&packet.Pubrec{ID: 2}, &packet.Pubrec{ID: 3, Code: mqtt.QuotaExceeded}) // a refusal is none before it is asked
		s.send(&packet.Puback{ID: 1})
		s.expect(&packet.Pubrel{ID: 2}, again(pub(2, 3, "c")))
		s.send(&packet.Pubcomp{ID: 2}, &packet.Pubrec{ID: 3})
		s.expect(&packet.Pubrel{ID: 3})
		s.send(&packet.Pubcomp{ID: 3})
		b.expectDone("a", "b", "c")
	})
}

// A server that has become less able refuses what it may have half of: PUBREL ends that before the identifier is another
// message's, which would be taken for the same again.
func TestLessTakenThanBefore(t *testing.T) {
	run(t, Options{Version: mqtt.V5, SessionExpiry: time.Hour}, func(t *testing.T, b *bench) {
		s, _ := b.accept(packet.Connack{})
		b.publish(2, "a")
		b.publish(1, "b")
		s.expect(pub(2, 1, "a"), pub(1, 2, "b"))
		s.close()
		ack := packet.Connack{SessionPresent: true}
		ack.Properties.SetMaximumQoS(0)
		s, _ = b.accept(ack)
		s.expect(&packet.Pubrel{ID: 1})
		b.expectDone("a: mqtt client: mqtt: publish refused: qos not supported", "b: mqtt client: mqtt: publish refused: qos not supported")
		s.send(&packet.Pubcomp{ID: 1, Code: mqtt.PacketIDNotFound})
		s.sync()
		if st := b.c.Stats(); st.Unacked != 0 || st.Refused != 2 || len(b.c.out.byID) != 0 {
			t.Errorf("%+v, %d identifiers", st, len(b.c.out.byID))
		}
	})
}

// A request that the server could not take is answered, not left to wait; so is one that makes no sense.
func TestRequestsThatCannotBeSent(t *testing.T) {
	run(t, Options{Version: mqtt.V5}, func(t *testing.T, b *bench) {
		ack := packet.Connack{}
		ack.Properties.SetMaximumPacketSize(30)
		s, _ := b.accept(ack)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := b.c.Subscribe(ctx, mqtt.Subscription{Filter: strings.Repeat("x", 30)}); reasonOf(err) != mqtt.PacketTooLarge {
			t.Errorf("subscribe: %v", err)
		}
		if _, err := b.c.Unsubscribe(ctx, strings.Repeat("x", 30)); reasonOf(err) != mqtt.PacketTooLarge {
			t.Errorf("unsubscribe: %v", err)
		}
		for _, subs := range [][]mqtt.Subscription{{}, {{Filter: "a", QoS: 3}}, {{Filter: "a", RetainHandling: 3}}} {
			if _, err := b.c.Subscribe(ctx, subs...); err == nil || errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%v: %v", subs, err)
			}
		}
		for _, filters := range [][]string{{}, {"a#"}} {
			if _, err := b.c.Unsubscribe(ctx, filters...); err == nil || errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%v: %v", filters, err)
			}
		}
		b.publish(0, "next")
		s.expect(pub(0, 0, "next"))
		if n := len(b.c.out.requests); n != 0 {
			t.Errorf("%d requests", n)
		}
	})
}

// Before 5.0 UNSUBACK has no codes: it is success.
func TestUnsubscribeBefore5(t *testing.T) {
	run(t, Options{}, func(t *testing.T, b *bench) {
		s, _ := b.accept(packet.Connack{})
		var codes []mqtt.ReasonCode
		var err error
		go func() { codes, err = b.c.Unsubscribe(t.Context(), "a", "b") }()
		s.expect(&packet.Unsubscribe{ID: 1, Filters: []string{"a", "b"}})
		s.send(&packet.Unsuback{ID: 1})
		synctest.Wait()
		if err != nil || len(codes) != 2 || codes[0] != mqtt.Success || codes[1] != mqtt.Success {
			t.Errorf("%v, %v", codes, err)
		}
	})
}

// A client that wants no topic aliases says so by leaving them out, and takes none [MQTT-3.1.2-27].
func TestNoTopicAliasesIn(t *testing.T) {
	run(t, Options{Version: mqtt.V5, TopicAliasesIn: -1}, func(t *testing.T, b *bench) {
		s, connect := b.accept(packet.Connack{})
		if connect.Properties.Has(packet.PropTopicAliasMaximum) {
			t.Errorf("%+v", connect)
		}
		p := &packet.Publish{Topic: "t"}
		p.Properties.SetTopicAlias(1)
		s.send(p)
		if d, ok := s.next().(*packet.Disconnect); !ok || d.Code != mqtt.TopicAliasInvalid {
			t.Errorf("%+v", d)
		}
	})
}
