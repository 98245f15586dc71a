package client

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"gateway/mqtt"
	"gateway/mqtt/packet"
)

// A server that takes the connection and never answers CONNECT is left after the connect timeout.
func TestServerThatNeverAnswersConnect(t *testing.T) {
	run(t, Options{ConnectTimeout: 7 * time.Second}, func(t *testing.T, b *bench) {
		start := time.Now()
		c := <-b.conns
		c.next()
		c.gone()
		if st := b.state(); time.Since(start) != 7*time.Second || st.Err == nil || !strings.Contains(st.Err.Error(), "no answer within 7s") {
			t.Errorf("after %v: %+v", time.Since(start), st)
		}
		// Nor does half a CONNACK help it.
		c = <-b.conns
		start = time.Now()
		c.next()
		c.nc.Write([]byte{0x20, 2, 0})
		c.gone()
		if d := time.Since(start); d != 7*time.Second {
			t.Errorf("half a CONNACK holds for %v", d)
		}
		b.accept(packet.Connack{})
	})
}

// A server that stops in the middle of a packet is as dead as one that says nothing.
func TestServerThatStallsWithinAPacket(t *testing.T) {
	run(t, Options{KeepAlive: 20 * time.Second}, func(t *testing.T, b *bench) {
		s, _ := b.accept(packet.Connack{})
		s.nc.Write([]byte{0x30, 100, 0, 1, 't', 'x'})
		start := time.Now()
		s.expect(&packet.Pingreq{})
		s.gone()
		if d := time.Since(start); d > 30*time.Second {
			t.Errorf("noticed after %v", d)
		}
		b.accept(packet.Connack{})
	})
}

// One that says a byte a second is slow, and not dead, though no PINGRESP can come before the packet is whole.
func TestServerThatSaysAByteASecond(t *testing.T) {
	var got []mqtt.Message
	run(t, Options{Version: mqtt.V5, KeepAlive: 5 * time.Second, Handler: func(m mqtt.Message) { got = append(got, m) }}, func(t *testing.T, b *bench) {
		s := <-b.conns
		s.v = mqtt.V5
		s.next()
		go func() {
			for _, x := range encoded(mqtt.V5, &packet.Connack{}, pub(1, 1, strings.Repeat("x", 100))) {
				time.Sleep(time.Second)
				s.nc.Write([]byte{x})
			}
		}()
		for {
			p := s.next()
			if _, ok := p.(*packet.Pingreq); ok {
				continue
			}
			if d := diff(&packet.Puback{ID: 1}, p); d != "" {
				t.Error(d)
			}
			break
		}
		if all := b.reported(); len(all) != 1 || !all[0].Connected || len(got) != 1 || len(got[0].Payload) != 100 {
			t.Errorf("%d messages, %+v", len(got), all)
		}
	})
}

// A message that takes longer than the write timeout and the keep alive together arrives all the same: a line that
// moves is not dead. The PINGREQ that is due meanwhile comes after it.
func TestLargeMessageOnASlowLine(t *testing.T) {
	run(t, Options{KeepAlive: 10 * time.Second, WriteTimeout: 20 * time.Second}, func(t *testing.T, b *bench) {
		s, _ := b.accept(packet.Connack{})
		large := strings.Repeat("x", 100<<10)
		b.publish(1, large)
		start := time.Now()
		s.r = packet.NewReader(slowly{s.nc}, 0, nil)
		s.nc.SetReadDeadline(time.Time{})
		f, err := s.r.Next()
		if err != nil {
			t.Fatalf("after %v: %v", time.Since(start), err)
		}
		var p packet.Publish
		if err := p.Decode(f, s.v); err != nil || string(p.Payload) != large || p.Dup {
			t.Fatalf("%d bytes, %v", len(p.Payload), err)
		}
		if d := time.Since(start); d < time.Minute {
			t.Errorf("the line is not slow: %v", d)
		}
		s.send(&packet.Puback{ID: 1})
		s.expect(&packet.Pingreq{})
		b.expectDone(large)
	})
}

// slowly reads a kilobyte a second.
type slowly struct{ net.Conn }

func (s slowly) Read(p []byte) (int, error) {
	<-time.After(time.Second)
	return s.Conn.Read(p[:min(len(p), 1<<10)])
}

// A server that lives and acknowledges nothing is left, so that the message can be sent again [MQTT-4.4.0-1].
func TestServerThatAcknowledgesNothing(t *testing.T) {
	run(t, Options{KeepAlive: 20 * time.Second, SessionExpiry: time.Hour}, func(t *testing.T, b *bench) {
		s, _ := b.accept(packet.Connack{})
		go s.pong()
		<-time.After(5 * time.Minute) // nothing is owed: nothing is wrong
		start := time.Now()
		b.publish(2, "a")
		s, _ = b.accept(packet.Connack{SessionPresent: true})
		if d := time.Since(start); d < 90*time.Second || d > 105*time.Second {
			t.Errorf("left after %v", d)
		}
		s.expect(again(pub(2, 1, "a")))
		// Each step is an acknowledgement.
		go s.pong()
		for range 3 {
			<-time.After(80 * time.Second)
			s.send(&packet.Pubrec{ID: 1})
		}
		s.send(&packet.Pubcomp{ID: 1})
		b.expectDone("a")
	})
}

// Nor is one kept that leaves the second half of an exchange of QoS 2 unanswered, which is not counted against its receive
// maximum.
func TestServerThatNeverCompletes(t *testing.T) {
	run(t, Options{KeepAlive: 20 * time.Second, SessionExpiry: time.Hour}, func(t *testing.T, b *bench) {
		s, _ := b.accept(packet.Connack{})
		b.publish(2, "a")
		s.expect(pub(2, 1, "a"))
		s.send(&packet.Pubrec{ID: 1})
		s.expect(&packet.Pubrel{ID: 1})
		s.close()
		for range 2 {
			s, _ = b.accept(packet.Connack{SessionPresent: true})
			start := time.Now()
			s.expect(&packet.Pubrel{ID: 1})
			s.pong()
			if d := time.Since(start); d < 90*time.Second || d > 105*time.Second {
				t.Errorf("left after %v", d)
			}
		}
	})
}

// pong answers pings, and nothing else, until the connection ends.
func (c *fakeConn) pong() {
	c.nc.SetReadDeadline(time.Time{})
	for {
		f, err := c.r.Next()
		if err != nil {
			return
		}
		if f.Type == packet.PINGREQ {
			c.nc.Write([]byte{0xd0, 0})
		}
	}
}

// A server that counts wrongly acknowledges every message but one: that one is sent again on a new connection.
func TestServerThatSkipsAMessage(t *testing.T) {
	run(t, Options{KeepAlive: -1, SessionExpiry: time.Hour}, func(t *testing.T, b *bench) {
		s, _ := b.accept(packet.Connack{})
		b.publish(1, "skipped")
		s.expect(pub(1, 1, "skipped"))
		for id := uint16(2); id <= 4; id++ {
			<-time.After(30 * time.Second)
			b.publish(1, "x")
			s.expect(pub(1, id, "x"))
			s.send(&packet.Puback{ID: id})
			b.expectDone("x")
		}
		start := time.Now()
		s, _ = b.accept(packet.Connack{SessionPresent: true})
		if d := time.Since(start); d > time.Second {
			t.Errorf("left %v after the acknowledgement that skipped it for too long", d)
		}
		s.expect(again(pub(1, 1, "skipped")))
	})
}

// Who waits for ever waits for ever, in whatever order the server acknowledges.
func TestNoTimeoutOfAcknowledgements(t *testing.T) {
	run(t, Options{Version: mqtt.V5, SessionExpiry: time.Hour, AckTimeout: -1}, func(t *testing.T, b *bench) {
		s, _ := b.accept(packet.Connack{})
		s.nc.SetReadDeadline(time.Time{})
		go func() {
			for { // it lives
				f, err := s.r.Next()
				if err != nil {
					return
				}
				if f.Type == packet.PINGREQ {
					s.nc.Write([]byte{byte(packet.PINGRESP) << 4, 0})
				}
			}
		}()
		b.publish(1, "a")
		time.Sleep(24 * time.Hour)
		b.publish(1, "b")
		time.Sleep(time.Hour)
		s.send(&packet.Puback{ID: 2})
		b.expectDone("b")
		time.Sleep(time.Hour)
		if st := b.state(); !st.Connected {
			t.Errorf("%+v", st)
		}
		s.send(&packet.Puback{ID: 1})
		b.expectDone("a")
		s.close()
		b.accept(packet.Connack{SessionPresent: true})
	})
}

// A server that wants a sign of life every second gets it [MQTT-3.1.2-20], also where its answers take two: a link that is
// slow is not dead.
func TestServerKeepAliveShorterThanTheAnswersTake(t *testing.T) {
	run(t, Options{Version: mqtt.V5}, func(t *testing.T, b *bench) {
		ack := packet.Connack{}
		ack.Properties.SetServerKeepAlive(1)
		s, _ := b.accept(ack)
		last := time.Now()
		for range 20 {
			s.expect(&packet.Pingreq{})
			if d := time.Since(last); d > time.Second {
				t.Errorf("PINGREQ after %v", d)
			}
			last = time.Now()
			go func() {
				time.Sleep(2 * time.Second)
				s.send(&packet.Pingresp{})
			}()
		}
		last = time.Now()
		for {
			if _, err := s.r.Next(); err != nil { // nothing is answered any more
				break
			}
		}
		if d := time.Since(last); d > 10*time.Second {
			t.Errorf("a dead server was noticed after %v", d)
		}
	})
}

// A server keep alive of 0 asks for no sign of life from us; we want one of it all the same.
func TestServerKeepAliveOfZero(t *testing.T) {
	run(t, Options{Version: mqtt.V5, KeepAlive: 20 * time.Second}, func(t *testing.T, b *bench) {
		ack := packet.Connack{}
		ack.Properties.SetServerKeepAlive(0)
		s, _ := b.accept(ack)
		if st := b.state(); st.KeepAlive != 0 {
			t.Errorf("keep alive %v", st.KeepAlive)
		}
		s.expect(&packet.Pingreq{})
		s.gone()
		b.accept(ack)
	})
}

// What a server has said that it cannot do is not asked of it, for it would hang up (3.2.2.3.11, 3.2.2.3.13); and asking
// again after each new connection would never end.
func TestSubscriptionsThatTheServerDoesNotTake(t *testing.T) {
	run(t, Options{Version: mqtt.V5}, func(t *testing.T, b *bench) {
		ack := packet.Connack{}
		ack.Properties.SetWildcardAvailable(false)
		ack.Properties.SetSharedAvailable(false)
		s, _ := b.accept(ack)
		for filter, want := range map[string]mqtt.ReasonCode{"a/#": mqtt.WildcardsNotSupported, "$share/g/a": mqtt.SharedNotSupported} {
			_, err := b.c.Subscribe(t.Context(), mqtt.Subscription{Filter: filter})
			if reasonOf(err) != want {
				t.Errorf("%s: %v", filter, err)
			}
		}
		// Granted by another server: what this one takes is asked for again.
		s.close()
		s, _ = b.accept(packet.Connack{})
		asked := make(chan struct{})
		go func() {
			defer close(asked)
			b.c.Subscribe(t.Context(), mqtt.Subscription{Filter: "a/#"}, mqtt.Subscription{Filter: "b"})
		}()
		s.next()
		s.send(&packet.Suback{ID: 1, Codes: []mqtt.ReasonCode{0, 0}})
		<-asked
		s.close()
		s, _ = b.accept(ack)
		s.expect(&packet.Subscribe{ID: 2, Subscriptions: []mqtt.Subscription{{Filter: "b"}}})
	})
}

// A server that answers SUBSCRIBE by hanging up is not asked again once nobody waits for it.
func TestAbandonedRequestIsNotMadeAgain(t *testing.T) {
	run(t, Options{}, func(t *testing.T, b *bench) {
		s, _ := b.accept(packet.Connack{})
		ctx, cancel := context.WithCancel(t.Context())
		asked := make(chan error)
		go func() {
			_, err := b.c.Subscribe(ctx, mqtt.Subscription{Filter: "forbidden"})
			asked <- err
		}()
		want := &packet.Subscribe{ID: 1, Subscriptions: []mqtt.Subscription{{Filter: "forbidden"}}}
		s.expect(want)
		s.close()
		s, _ = b.accept(packet.Connack{})
		want.ID = 2
		s.expect(want)
		cancel()
		if err := <-asked; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		s.close()
		s, _ = b.accept(packet.Connack{})
		b.publish(1, "a")
		s.expect(pub(1, 3, "a"))
	})
}

// A session that an earlier process left may hold half of an exchange of QoS 2 under any identifier. A new message under
// that would be taken for the old one again and be lost: PUBREL ends the old one first.
func TestSessionOfAnEarlierProcess(t *testing.T) {
	run(t, Options{Version: mqtt.V5, SessionExpiry: time.Hour, ClientID: "again"}, func(t *testing.T, b *bench) {
		s, _ := b.accept(packet.Connack{SessionPresent: true})
		b.publish(2, "a")
		b.publish(1, "b")
		s.expect(&packet.Pubrel{ID: 1}, pub(2, 1, "a"), pub(1, 2, "b"))
		s.close()
		// Nobody knows whether the PUBREL has arrived.
		s, _ = b.accept(packet.Connack{SessionPresent: true})
		s.expect(&packet.Pubrel{ID: 1}, again(pub(2, 1, "a")), again(pub(1, 2, "b")))
		s.send(&packet.Pubcomp{ID: 1, Code: mqtt.PacketIDNotFound})
		b.noneDone()
		s.close()
		s, _ = b.accept(packet.Connack{SessionPresent: true})
		s.expect(again(pub(2, 1, "a")), again(pub(1, 2, "b")))
		s.send(&packet.Pubrec{ID: 1})
		s.expect(&packet.Pubrel{ID: 1})
		s.send(&packet.Pubcomp{ID: 1}, &packet.Puback{ID: 2})
		b.expectDone("a", "b")
		// Nor does an identifier whose first exchange of ours is over need such care again.
		b.c.mu.Lock()
		b.c.out.lastID = 0
		b.c.mu.Unlock()
		b.publish(2, "a2")
		s.expect(pub(2, 1, "a2"))
		s.send(&packet.Pubrec{ID: 1})
		s.expect(&packet.Pubrel{ID: 1})
		s.send(&packet.Pubcomp{ID: 1})
		b.expectDone("a2")
		b.c.mu.Lock()
		b.c.out.lastID = 2
		b.c.mu.Unlock()
		s.close()
		// A session of our own needs no such care.
		s, _ = b.accept(packet.Connack{})
		b.publish(2, "c")
		s.expect(pub(2, 3, "c"))
		s.close()
		s, _ = b.accept(packet.Connack{SessionPresent: true})
		b.publish(2, "d")
		s.expect(again(pub(2, 3, "c")), pub(2, 4, "d"))
	})
}

// Where the other client with our identifier gives way as we do, each is quiet for as long as the other waits: that is no
// reason to begin with short pauses again.
func TestEvictionByAPatientRival(t *testing.T) {
	run(t, Options{Version: mqtt.V5, KeepAlive: -1}, func(t *testing.T, b *bench) {
		pause := 5 * time.Second
		for range 8 {
			s, _ := b.accept(packet.Connack{})
			<-time.After(pause)
			s.send(&packet.Disconnect{Code: mqtt.SessionTakenOver})
			s.gone()
			pause = b.state().RetryIn
		}
		if pause < time.Minute {
			t.Errorf("eighth pause is %v", pause)
		}
		// Once the other one is gone for good, all is forgotten.
		s, _ := b.accept(packet.Connack{})
		<-time.After(10 * time.Minute)
		s.send(&packet.Disconnect{Code: mqtt.SessionTakenOver})
		s.gone()
		if st := b.state(); st.Evicted != 1 || st.RetryIn > 5*time.Second {
			t.Errorf("%+v", st)
		}
	})
}

// Whenever it is stopped, at each of its reads and writes, Run returns soon, everything is answered once, and nothing stays.
func TestCancelAtEveryMoment(t *testing.T) {
	for _, v := range []mqtt.Version{mqtt.V311, mqtt.V5} {
		for at := range int64(60) {
			synctest.Test(t, func(t *testing.T) { cancelAt(t, v, at) })
		}
	}
}

// counted calls f at each read and write.
type counted struct {
	net.Conn
	f func()
}

func (c counted) Read(p []byte) (int, error)  { c.f(); return c.Conn.Read(p) }
func (c counted) Write(p []byte) (int, error) { c.f(); return c.Conn.Write(p) }

func cancelAt(t *testing.T, v mqtt.Version, at int64) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var moments atomic.Int64
	c, err := New(Options{
		URLs: []string{"mqtt://server"}, Version: v, SessionExpiry: time.Hour, Proxy: noProxy, Handler: func(mqtt.Message) {},
		Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			ours, theirs := net.Pipe()
			go obliging(theirs, v)
			return counted{ours, func() {
				if moments.Add(1) > at {
					cancel()
				}
			}}, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error)
	go func() { ended <- c.Run(ctx) }()
	asked := make(chan struct{})
	go func() {
		defer close(asked)
		c.Subscribe(ctx, mqtt.Subscription{Filter: "t", QoS: 2})
	}()
	var done [6]atomic.Int64
	published := 0
	for i := range done {
		err := c.Publish(ctx, &mqtt.Message{Topic: "t", QoS: mqtt.QoS(i % 3)}, func(error) { done[i].Add(1) })
		if err == nil {
			published++
		}
	}
	go func() { // what comes to an end before the moment
		<-time.After(time.Minute)
		cancel()
	}()
	<-ctx.Done()
	stopped := time.Now()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if d := time.Since(stopped); d > 2*lingerTime {
		t.Errorf("at %d: Run takes %v to end", at, d)
	}
	<-asked
	once := 0
	for i := range done {
		once += int(done[i].Load())
	}
	if once != published {
		t.Errorf("at %d: %d answers for %d messages", at, once, published)
	}
	<-time.After(2 * time.Minute) // the other goroutine here
}

// obliging is a server that answers everything and, once something is subscribed to, sends a message of each QoS.
func obliging(nc net.Conn, v mqtt.Version) {
	defer nc.Close()
	r := packet.NewReader(nc, 0, nil)
	for {
		f, err := r.Next()
		if err != nil {
			return
		}
		p, err := packet.Decode(f, v)
		if err != nil {
			return
		}
		var answers []packet.Packet
		switch p := p.(type) {
		case *packet.Connect:
			answers = []packet.Packet{&packet.Connack{}}
		case *packet.Subscribe:
			answers = []packet.Packet{&packet.Suback{ID: p.ID, Codes: []mqtt.ReasonCode{2}}, pub(0, 0, "x"), pub(1, 1, "y"), pub(2, 2, "z")}
		case *packet.Publish:
			switch p.QoS {
			case mqtt.AtLeastOnce:
				answers = []packet.Packet{&packet.Puback{ID: p.ID}}
			case mqtt.ExactlyOnce:
				answers = []packet.Packet{&packet.Pubrec{ID: p.ID}}
			}
		case *packet.Pubrec:
			answers = []packet.Packet{&packet.Pubrel{ID: p.ID}}
		case *packet.Pubrel:
			answers = []packet.Packet{&packet.Pubcomp{ID: p.ID}}
		case *packet.Disconnect:
			return
		}
		var b []byte
		for _, a := range answers {
			b, _ = a.Append(b, v)
		}
		if len(b) > 0 {
			if _, err := nc.Write(b); err != nil {
				return
			}
		}
	}
}
