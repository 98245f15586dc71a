package client

import (
	"context"
	"errors"
	"math"
	"net"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"gateway/mqtt"
	"gateway/mqtt/packet"
)

func noProxy(*url.URL) (*url.URL, error) { return nil, nil }

// First CONNECT [MQTT-3.1.0-1]; new messages have an identifier of their own and no duplicate flag [MQTT-2.2.1-3]
// [MQTT-4.3.1-1] [MQTT-4.3.2-1] [MQTT-4.3.2-2] [MQTT-4.3.2-3] [MQTT-4.3.3-1] [MQTT-4.3.3-2] [MQTT-4.3.3-3]; PUBREL follows
// PUBREC with its identifier [MQTT-4.3.3-4] [MQTT-2.2.1-5] and is done with PUBCOMP [MQTT-4.3.3-5]; nothing follows
// DISCONNECT but the close [MQTT-3.14.4-1] [MQTT-3.14.4-2].
func TestPublishAtEachQoS(t *testing.T) {
	run(t, Options{}, func(t *testing.T, b *bench) {
		s, _ := b.accept(packet.Connack{})
		b.publish(0, "zero")
		s.expect(pub(0, 0, "zero"))
		b.expectDone("zero")
		b.publish(1, "one")
		s.expect(pub(1, 1, "one"))
		b.noneDone()
		s.send(&packet.Puback{ID: 1})
		b.expectDone("one")
		b.publish(2, "two")
		s.expect(pub(2, 2, "two"))
		s.send(&packet.Pubrec{ID: 2})
		s.expect(&packet.Pubrel{ID: 2})
		b.noneDone()
		s.send(&packet.Pubcomp{ID: 2})
		b.expectDone("two")
		b.stop()
		s.expect(&packet.Disconnect{})
		s.gone()
	})
}

// After DISCONNECT the client has no more to say, and says so where the transport has a way to [MQTT-3.14.4-2]; the server has
// time to close first, so that nothing of what it was sent is thrown away.
func TestTheServerClosesAfterDisconnect(t *testing.T) {
	run(t, Options{}, func(t *testing.T, b *bench) {
		h := new(half)
		b.wrap = func(nc net.Conn) net.Conn {
			h.Conn = nc
			return h
		}
		s, _ := b.accept(packet.Connack{})
		synctest.Wait()
		b.stop()
		s.expect(&packet.Disconnect{})
		synctest.Wait()
		if !h.shut || h.closed {
			t.Errorf("half closed %t, closed %t", h.shut, h.closed)
		}
		s.close()
		synctest.Wait()
		if !h.closed {
			t.Error("not closed, though the server has")
		}
	})
}

// half is a connection that can be closed for writing only.
type half struct {
	net.Conn
	shut, closed bool
}

func (h *half) CloseWrite() error { h.shut = true; return nil }
func (h *half) Close() error      { h.closed = true; return h.Conn.Close() }

func TestPublishBeforeTheFirstConnection(t *testing.T) {
	run(t, Options{}, func(t *testing.T, b *bench) {
		b.publish(1, "a")
		b.publish(0, "b")
		s, _ := b.accept(packet.Connack{})
		s.expect(pub(1, 1, "a"), pub(0, 0, "b"))
		b.expectDone("b")
	})
}

// [MQTT-4.4.0-1]: with the session kept, what was not acknowledged goes again: the same identifiers,
// the duplicate flag [MQTT-3.3.1-1], the order of the first time [MQTT-4.6.0-1]; and QoS 2 goes on where it stood
// [MQTT-4.3.3-6]. The state is kept while the process lives [MQTT-3.1.2-23] [MQTT-4.1.0-1].
func TestSessionIsResumed(t *testing.T) {
	run(t, Options{SessionExpiry: time.Hour, Version: mqtt.V5}, func(t *testing.T, b *bench) {
		s, _ := b.accept(packet.Connack{})
		for _, p := range []struct {
			qos  mqtt.QoS
			name string
		}{{1, "a"}, {2, "b"}, {1, "c"}, {2, "d"}, {1, "e"}} {
			b.publish(p.qos, p.name)
		}
		s.expect(pub(1, 1, "a"), pub(2, 2, "b"), pub(1, 3, "c"), pub(2, 4, "d"), pub(1, 5, "e"))
		s.send(&packet.Puback{ID: 3}, &packet.Pubrec{ID: 2})
		b.expectDone("c")
		s.expect(&packet.Pubrel{ID: 2})
		s.close()
		synctest.Wait()
		b.publish(1, "f")

		s, _ = b.accept(packet.Connack{SessionPresent: true})
		s.expect(again(pub(1, 1, "a")), &packet.Pubrel{ID: 2}, again(pub(2, 4, "d")), again(pub(1, 5, "e")), pub(1, 6, "f"))
		s.send(&packet.Puback{ID: 1}, &packet.Pubcomp{ID: 2, Code: mqtt.PacketIDNotFound}, &packet.Pubrec{ID: 4}, &packet.Puback{ID: 5}, &packet.Puback{ID: 6})
		s.expect(&packet.Pubrel{ID: 4})
		s.send(&packet.Pubcomp{ID: 4})
		b.expectDone("a", "b", "e", "f", "d")
	})
}

// A server that lost the session gets everything as new, under new identifiers [MQTT-3.2.2-5]: nothing may be missing.
func TestSessionIsLost(t *testing.T) {
	run(t, Options{SessionExpiry: time.Hour}, func(t *testing.T, b *bench) {
		s, _ := b.accept(packet.Connack{})
		b.publish(1, "a")
		b.publish(2, "b")
		s.expect(pub(1, 1, "a"), pub(2, 2, "b"))
		s.send(&packet.Pubrec{ID: 2})
		s.expect(&packet.Pubrel{ID: 2})
		s.close()
		s, _ = b.accept(packet.Connack{})
		s.expect(pub(1, 3, "a"), pub(2, 4, "b"))
		s.send(&packet.Puback{ID: 1}, &packet.Pubrec{ID: 2}) // nobody's any more
		s.expect(&packet.Pubrel{ID: 2})
		b.noneDone()
		s.send(&packet.Puback{ID: 3})
		b.expectDone("a")
	})
}

// An acknowledgement of an identifier that was not sent again yet is not taken for it.
func TestStaleAcknowledgement(t *testing.T) {
	run(t, Options{SessionExpiry: time.Hour, MaxInflight: 1}, func(t *testing.T, b *bench) {
		s, _ := b.accept(packet.Connack{})
		b.publish(1, "a")
		s.expect(pub(1, 1, "a"))
		s.send(&packet.Puback{ID: 9}, &packet.Pubcomp{ID: 1})
		b.noneDone()
		s.send(&packet.Puback{ID: 1})
		b.expectDone("a")
	})
}

// [MQTT-3.3.4-7]: never more on the wire than the receive maximum, also when sending again [MQTT-4.9.0-1] [MQTT-4.9.0-2].
func TestReceiveMaximum(t *testing.T) {
	run(t, Options{Version: mqtt.V5, SessionExpiry: time.Hour}, func(t *testing.T, b *bench) {
		ack := packet.Connack{}
		ack.Properties.SetReceiveMaximum(2)
		s, _ := b.accept(ack)
		for _, n := range []string{"a", "b", "c", "d"} {
			b.publish(1, n)
		}
		s.expect(pub(1, 1, "a"), pub(1, 2, "b"))
		s.send(&packet.Puback{ID: 2})
		s.expect(pub(1, 3, "c"))
		s.close()
		ack.SessionPresent = true
		ack.Properties.SetReceiveMaximum(1)
		s, _ = b.accept(ack)
		s.expect(again(pub(1, 1, "a")))
		s.send(&packet.Puback{ID: 1})
		s.expect(again(pub(1, 3, "c")))
		s.send(&packet.Puback{ID: 3})
		s.expect(pub(1, 4, "d"))
		b.expectDone("b", "a", "c")
		// PUBREC with an error frees the place, too.
		b.publish(2, "e")
		s.send(&packet.Puback{ID: 4})
		s.expect(pub(2, 5, "e"))
		s.send(&packet.Pubrec{ID: 5, Code: mqtt.QuotaExceeded})
		b.publish(1, "f")
		s.expect(pub(1, 6, "f"))
		b.expectDone("d", "e: mqtt client: mqtt: publish refused: quota exceeded")
	})
}

// Maximum QoS [MQTT-3.2.2-11], retain [MQTT-3.2.2-14], packet size [MQTT-3.2.2-15]; a message that the server refuses is
// not sent again [MQTT-4.4.0-2].
func TestRefusals(t *testing.T) {
	ack := packet.Connack{}
	ack.Properties.SetMaximumQoS(1)
	ack.Properties.SetRetainAvailable(false)
	ack.Properties.SetMaximumPacketSize(20)
	run(t, Options{Version: mqtt.V5}, func(t *testing.T, b *bench) {
		s, _ := b.accept(ack)
		b.publish(2, "a")
		b.publish(1, strings.Repeat("x", 20))
		if err := b.c.Publish(t.Context(), &mqtt.Message{Topic: "t", Retain: true}, func(err error) { b.done("retained", err) }); err != nil {
			t.Fatal(err)
		}
		b.expectDone("a: mqtt client: mqtt: publish refused: qos not supported",
			strings.Repeat("x", 20)+": mqtt client: mqtt: publish refused: packet too large",
			"retained: mqtt client: mqtt: publish refused: retain not supported")
		b.publish(1, "b")
		p := s.next().(*packet.Publish)
		refused := &packet.Puback{ID: p.ID, Code: mqtt.NotAuthorized}
		s.send(refused)
		b.expectDone("b: mqtt client: mqtt: publish refused: not authorized")
		b.publish(1, "c")
		p = s.next().(*packet.Publish)
		s.send(&packet.Puback{ID: p.ID, Code: mqtt.NoMatchingSubscribers})
		b.expectDone("c")
	})
	run(t, Options{}, func(t *testing.T, b *bench) {
		for _, m := range []mqtt.Message{{}, {Topic: "a/#"}, {Topic: "a", QoS: 3}, {Topic: "\xff"}, {Topic: "a", ResponseTopic: "+"}, {Topic: "a", ContentType: "\x00"}} {
			if err := b.c.Publish(t.Context(), &m, nil); err == nil {
				t.Errorf("%+v is accepted", m)
			}
		}
	})
}

// paho.mqtt.golang#364, paho.golang#46: identifiers are found by a search that goes round, never 0, never one
// in use.
func TestIdentifiersGoRound(t *testing.T) {
	b := newOutbox()
	b.lastID = 65534
	b.byID[1] = &outgoing{}
	b.requests[2] = &request{}
	if got := b.newID(); got != 65535 {
		t.Errorf("%d after 65534", got)
	}
	if got := b.newID(); got != 3 {
		t.Errorf("%d after 65535, with 1 and 2 in use", got)
	}
	for id := range 65536 {
		b.byID[uint16(id)] = &outgoing{}
	}
	if got := b.newID(); got != 0 {
		t.Errorf("%d with all in use", got)
	}
}

func TestMoreMessagesThanIdentifiers(t *testing.T) {
	const n = 70000
	run(t, Options{MaxUnacked: n, MaxInflight: n}, func(t *testing.T, b *bench) {
		b.dones = make(chan string, n)
		for range n {
			b.publish(1, "m")
		}
		s, _ := b.accept(packet.Connack{})
		for id := 1; id <= 65535; id++ {
			if p := s.next().(*packet.Publish); int(p.ID) != id {
				t.Fatalf("identifier %d, want %d", p.ID, id)
			}
		}
		synctest.Wait()
		s.send(&packet.Puback{ID: 7})
		s.expect(pub(1, 7, "m"))
	})
}

func TestPublishBlocksAtTheLimit(t *testing.T) {
	run(t, Options{MaxUnacked: 2}, func(t *testing.T, b *bench) {
		b.publish(1, "a")
		b.publish(1, "b")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := b.c.Publish(ctx, &mqtt.Message{Topic: "t"}, nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		s, _ := b.accept(packet.Connack{})
		s.expect(pub(1, 1, "a"), pub(1, 2, "b"))
		s.send(&packet.Puback{ID: 1})
		b.publish(1, "c")
		s.expect(pub(1, 3, "c"))
	})
}

// Also goroutines: what stays in the bubble fails the test (paho.mqtt.golang#600); and no message is left unanswered
// (paho.golang#233).
func TestEndGivesEverythingBack(t *testing.T) {
	run(t, Options{}, func(t *testing.T, b *bench) {
		s, _ := b.accept(packet.Connack{})
		b.publish(1, "a")
		s.expect(pub(1, 1, "a"))
		b.stop()
		s.expect(&packet.Disconnect{})
		s.gone()
		b.expectDone("a: mqtt client: closed")
		if err := b.c.Publish(t.Context(), &mqtt.Message{Topic: "t"}, nil); err != ErrClosed {
			t.Error(err)
		}
		if _, err := b.c.Subscribe(t.Context(), mqtt.Subscription{Filter: "a"}); err != ErrClosed {
			t.Error(err)
		}
		if err := b.c.Run(t.Context()); err == nil {
			t.Error("runs twice")
		}
	})
}

func TestStats(t *testing.T) {
	run(t, Options{Version: mqtt.V5, SessionExpiry: time.Hour}, func(t *testing.T, b *bench) {
		check := func(want Stats) {
			t.Helper()
			synctest.Wait()
			if d := diff(want, b.c.Stats()); d != "" {
				t.Error(d)
			}
		}
		s, _ := b.accept(packet.Connack{})
		for i, n := range []string{"a", "b", "c", "d"} {
			b.publish(mqtt.QoS([]int{0, 1, 2, 1}[i]), n)
		}
		s.expect(pub(0, 0, "a"), pub(1, 1, "b"), pub(2, 2, "c"), pub(1, 3, "d"))
		check(Stats{Connects: 1, Published: 4, Acked: 1, Unacked: 3, Inflight: 3})
		s.send(&packet.Pubrec{ID: 2})
		s.expect(&packet.Pubrel{ID: 2})
		s.close()
		s, _ = b.accept(packet.Connack{SessionPresent: true})
		s.expect(again(pub(1, 1, "b")), &packet.Pubrel{ID: 2}, again(pub(1, 3, "d")))
		check(Stats{Connects: 2, Published: 4, Resent: 2, Acked: 1, Unacked: 3, Inflight: 2})
		s.send(&packet.Puback{ID: 1}, &packet.Pubcomp{ID: 2}, &packet.Puback{ID: 3, Code: mqtt.NotAuthorized}, pub(0, 0, "in"))
		check(Stats{Connects: 2, Published: 4, Resent: 2, Acked: 3, Refused: 1, Received: 1})
		b.publish(1, "e")
		s.expect(pub(1, 4, "e"))
		s.close()
		check(Stats{Connects: 2, Published: 5, Resent: 2, Acked: 3, Refused: 1, Received: 1, Unacked: 1})
		s, _ = b.accept(packet.Connack{}) // a new session, and the message is not new for that
		s.expect(pub(1, 5, "e"))
		check(Stats{Connects: 3, Published: 5, Resent: 3, Acked: 3, Refused: 1, Received: 1, Unacked: 1, Inflight: 1})
	})
}

// A message that was withdrawn keeps its identifier from others until the server cannot mean it any more.
func TestWithdraw(t *testing.T) {
	run(t, Options{SessionExpiry: time.Hour}, func(t *testing.T, b *bench) {
		s, _ := b.accept(packet.Connack{})
		b.publish(1, "a")
		b.publish(2, "b")
		s.expect(pub(1, 1, "a"), pub(2, 2, "b"))
		b.c.Withdraw()
		b.expectDone("a: "+ErrWithdrawn.Error(), "b: "+ErrWithdrawn.Error())
		if s := b.c.Stats(); s.Unacked != 0 || s.Inflight != 2 {
			t.Errorf("%+v", s)
		}
		b.publish(1, "c")
		s.expect(pub(1, 3, "c"))
		s.send(&packet.Puback{ID: 1})
		b.noneDone()
		s.close()
		// The server may hold the QoS 2 message: the exchange is ended before its identifier is used again.
		s, _ = b.accept(packet.Connack{SessionPresent: true})
		s.expect(&packet.Pubrel{ID: 2}, again(pub(1, 3, "c")))
		s.send(&packet.Pubcomp{ID: 2}, &packet.Puback{ID: 3})
		b.expectDone("c")
		if s := b.c.Stats(); s.Unacked != 0 || s.Inflight != 0 || len(b.c.out.byID) != 0 {
			t.Errorf("%+v, %d identifiers", s, len(b.c.out.byID))
		}
	})
}

// Where the server has lost the session there is no exchange to end.
func TestWithdrawnBeforeTheSessionIsLost(t *testing.T) {
	run(t, Options{SessionExpiry: time.Hour}, func(t *testing.T, b *bench) {
		s, _ := b.accept(packet.Connack{})
		b.publish(1, "a")
		b.publish(2, "b")
		s.expect(pub(1, 1, "a"), pub(2, 2, "b"))
		b.c.Withdraw()
		b.expectDone("a: "+ErrWithdrawn.Error(), "b: "+ErrWithdrawn.Error())
		s.close()
		s, _ = b.accept(packet.Connack{})
		b.publish(0, "c")
		s.expect(pub(0, 0, "c"))
		if n := len(b.c.out.byID); n != 0 {
			t.Errorf("%d identifiers", n)
		}
	})
}

// A message of QoS 0 that was being written when the connection was lost may have arrived or not: whoever published it is told
// so. What was refused before stays refused, and what waits for a connection waits.
func TestQoS0IsLostWithItsConnection(t *testing.T) {
	run(t, Options{Version: mqtt.V5}, func(t *testing.T, b *bench) {
		ack := packet.Connack{}
		ack.Properties.SetMaximumQoS(0)
		for _, n := range []string{"a", "b"} {
			b.publish(0, n)
			b.publish(1, n+" refused")
		}
		s, _ := b.accept(ack)
		synctest.Wait() // the first is on its way into a pipe without a buffer
		b.publish(0, "later")
		s.close()
		refused := " refused: mqtt client: mqtt: publish refused: qos not supported"
		b.expectDone("a: "+ErrLost.Error(), "a"+refused, "b: "+ErrLost.Error(), "b"+refused)
		b.noneDone()
		s, _ = b.accept(ack)
		s.expect(pub(0, 0, "later"))
		b.expectDone("later")
	})
}

// [MQTT-3.1.2-20]
func TestKeepAlive(t *testing.T) {
	run(t, Options{KeepAlive: 20 * time.Second}, func(t *testing.T, b *bench) {
		s, p := b.accept(packet.Connack{})
		if p.KeepAlive != 20 {
			t.Errorf("keep alive %d", p.KeepAlive)
		}
		start := time.Now()
		for range 3 {
			s.expect(&packet.Pingreq{})
			s.send(&packet.Pingresp{})
		}
		if d := time.Since(start); d > 60*time.Second {
			t.Errorf("three pings took %v", d)
		}
		// Half-open: nothing comes any more. It is noticed within 1.5 times the keep alive.
		quiet := time.Now()
		s.expect(&packet.Pingreq{})
		s.gone()
		if d := time.Since(quiet); d < 20*time.Second || d > 30*time.Second {
			t.Errorf("noticed after %v", d)
		}
		s, _ = b.accept(packet.Connack{})
		s.expect(&packet.Pingreq{})
	})
}

// Also to a server that talks all the time: it must hear of us [MQTT-3.1.2-20].
func TestKeepAliveWhileTheServerTalks(t *testing.T) {
	run(t, Options{KeepAlive: 20 * time.Second}, func(t *testing.T, b *bench) {
		s, _ := b.accept(packet.Connack{})
		stop := make(chan struct{})
		defer close(stop)
		go func() {
			for {
				select {
				case <-time.After(time.Second):
					s.nc.Write(encoded(mqtt.V311, pub(0, 0, "x")))
				case <-stop:
					return
				}
			}
		}()
		last := time.Now()
		for range 3 {
			s.expect(&packet.Pingreq{})
			if d := time.Since(last); d > 20*time.Second {
				t.Errorf("nothing was sent for %v", d)
			}
			last = time.Now()
		}
	})
}

// A server that takes bytes and never says anything is found out also while we publish all the time.
func TestHalfOpenWhilePublishing(t *testing.T) {
	run(t, Options{KeepAlive: 20 * time.Second}, func(t *testing.T, b *bench) {
		s, _ := b.accept(packet.Connack{})
		gone := make(chan struct{})
		go func() {
			defer close(gone)
			for {
				if _, err := s.r.Next(); err != nil {
					return
				}
			}
		}()
		start := time.Now()
		for stop := false; !stop; {
			select {
			case <-gone:
				stop = true
			case <-time.After(time.Second):
				b.publish(0, "x")
			}
		}
		if d := time.Since(start); d > 30*time.Second {
			t.Errorf("noticed after %v", d)
		}
	})
}

// A server that does not read: writing ends at its deadline, and nobody else waits for it.
func TestPeerThatDoesNotRead(t *testing.T) {
	run(t, Options{KeepAlive: -1, WriteTimeout: 5 * time.Second}, func(t *testing.T, b *bench) {
		s, _ := b.accept(packet.Connack{})
		start := time.Now()
		b.publish(1, "a")
		synctest.Wait()
		for range 10 {
			b.publish(1, "x") // net.Pipe has no buffer: the writer is stuck, Publish is not
		}
		if d := time.Since(start); d != 0 {
			t.Errorf("Publish waited %v", d)
		}
		s2, _ := b.accept(packet.Connack{})
		if d := time.Since(start); d < 5*time.Second || d > 10*time.Second {
			t.Errorf("came back after %v", d)
		}
		s2.expect(pub(1, 2, "a"))
		s.close()
	})
}

// [MQTT-3.1.2-21] [MQTT-3.2.2-21]
func TestServerKeepAliveAndAssignedIdentifier(t *testing.T) {
	run(t, Options{Version: mqtt.V5, KeepAlive: 20 * time.Second}, func(t *testing.T, b *bench) {
		ack := packet.Connack{}
		ack.Properties.SetServerKeepAlive(100)
		ack.Properties.SetAssignedClientID("auto-7")
		s, p := b.accept(ack)
		if p.ClientID != "" {
			t.Errorf("client identifier %q", p.ClientID)
		}
		start := time.Now()
		s.nc.SetReadDeadline(start.Add(2 * time.Minute))
		if f, err := s.r.Next(); err != nil || f.Type != packet.PINGREQ {
			t.Fatal(f.Type, err)
		}
		if d := time.Since(start); d < 50*time.Second {
			t.Errorf("pinged after %v", d)
		}
		s.close()
		_, p = b.accept(packet.Connack{})
		if p.ClientID != "auto-7" {
			t.Errorf("client identifier %q after the reconnect", p.ClientID)
		}
	})
}

// [MQTT-3.1.2-4]
func TestCleanStartIsForTheFirstConnectionOnly(t *testing.T) {
	for _, v := range []mqtt.Version{mqtt.V311, mqtt.V5} {
		run(t, Options{Version: v, CleanStart: true, SessionExpiry: time.Minute}, func(t *testing.T, b *bench) {
			s, p := b.accept(packet.Connack{})
			if !p.CleanStart {
				t.Error("first connection is not clean")
			}
			s.close()
			if _, p = b.accept(packet.Connack{}); p.CleanStart {
				t.Error("second connection is clean")
			}
		})
	}
}

// [MQTT-3.2.2-4]: a session where none can be is refused.
func TestSessionPresentAfterCleanStart(t *testing.T) {
	run(t, Options{Version: mqtt.V5, CleanStart: true}, func(t *testing.T, b *bench) {
		c := <-b.conns
		c.v = mqtt.V5
		c.next()
		c.send(&packet.Connack{SessionPresent: true})
		c.expect(&packet.Disconnect{Code: mqtt.ProtocolError})
		c.gone()
	})
}

// What is learnt stays; and 3.1.1 gets an identifier of ours, for an empty one may not be kept [MQTT-3.1.3-7 of 3.1.1].
func TestVersionFallsBack(t *testing.T) {
	for _, answer := range []func(c *fakeConn){
		func(c *fakeConn) { c.send(&packet.Connack{Code: mqtt.UnsupportedVersion}) },
		func(c *fakeConn) { c.v = mqtt.V311; c.send(&packet.Connack{Code: mqtt.UnsupportedVersion}) },
		func(c *fakeConn) { c.close() },
	} {
		synctest.Test(t, func(t *testing.T) {
			f := newFake(t)
			c, err := New(Options{URLs: []string{"mqtt://old"}, Dial: f.dial, Proxy: noProxy})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error)
			go func() { ended <- c.Run(ctx) }()
			s := <-f.conns
			if p := s.next().(*packet.Connect); p.Version != mqtt.V5 {
				t.Errorf("first try is %d", p.Version)
			}
			s.v = mqtt.V5
			answer(s)
			s, p := f.accept(packet.Connack{})
			if p.Version != mqtt.V311 || p.ClientID == "" {
				t.Errorf("second try is %d, client identifier %q", p.Version, p.ClientID)
			}
			s.close()
			if _, p = f.accept(packet.Connack{}); p.Version != mqtt.V311 {
				t.Errorf("what was learnt is forgotten: %d", p.Version)
			}
			cancel()
			<-ended
		})
	}
}

func TestFailOverAndBackoff(t *testing.T) {
	run(t, Options{URLs: []string{"mqtt://one", "mqtt://two:1884"}, Backoff: Backoff{Min: time.Second, Max: 8 * time.Second}}, func(t *testing.T, b *bench) {
		var waits []time.Duration
		for range 5 {
			c := <-b.conns
			if c.addr != "one:1883" {
				t.Fatalf("dials %s", c.addr)
			}
			c.close()
			start := time.Now()
			c = <-b.conns
			if c.addr != "two:1884" || time.Since(start) != 0 {
				t.Fatalf("dials %s after %v", c.addr, time.Since(start))
			}
			c.close()
			waits = append(waits, b.state().RetryIn)
		}
		for i, max := range []time.Duration{1, 2, 4, 8, 8} {
			if w := waits[i]; w > max*time.Second || w < max*time.Second/2 {
				t.Errorf("pause %d is %v", i, w)
			}
		}
		// Accepted and thrown out at once is the next server's turn and does not start the pauses over; a
		// connection that lasts does.
		s, _ := b.accept(packet.Connack{})
		s.close()
		if st := b.state(); st.RetryIn != 0 || st.URL != "mqtt://one:1883" {
			t.Errorf("pause of %v after a short connection to %s", st.RetryIn, st.URL)
		}
		s, _ = b.accept(packet.Connack{})
		s.close()
		if st := b.state(); st.RetryIn < 4*time.Second || st.URL != "mqtt://two:1884" {
			t.Errorf("pause of %v after a short connection to %s", st.RetryIn, st.URL)
		}
		s, _ = b.accept(packet.Connack{})
		<-time.After(11 * time.Second)
		s.close()
		if st := b.state(); st.RetryIn > time.Second || st.Attempt != 1 || st.URL != "mqtt://one:1883" {
			t.Errorf("pause of %v after a long connection to %s", st.RetryIn, st.URL)
		}
		b.accept(packet.Connack{})
		if st := b.state(); st.URL != "mqtt://one:1883" {
			t.Errorf("after a long connection it goes on at %s", st.URL)
		}
	})
}

// A server may take messages, answer PINGREQ, and do nothing else: whoever notices leaves it.
func TestAServerThatWasAbandonedIsFollowedByTheNext(t *testing.T) {
	run(t, Options{URLs: []string{"mqtt://one", "mqtt://two"}}, func(t *testing.T, b *bench) {
		why := errors.New("it acknowledges nothing")
		b.c.Reconnect(why) // nothing to leave yet
		s, _ := b.accept(packet.Connack{})
		<-time.After(11 * time.Second)
		b.publish(1, "a")
		s.expect(pub(1, 1, "a"))
		b.c.Reconnect(why)
		s.gone()
		if st := b.state(); !errors.Is(st.Err, why) || st.RetryIn != 0 {
			t.Errorf("%+v", st)
		}
		s, _ = b.accept(packet.Connack{})
		if st := b.state(); st.URL != "mqtt://two:1883" {
			t.Errorf("goes on at %s", st.URL)
		}
		s.expect(pub(1, 2, "a"))
		s.send(&packet.Puback{ID: 2})
		b.expectDone("a")
	})
}

// Two clients with one identifier evict each other: ours gives way and says so.
func TestEviction(t *testing.T) {
	run(t, Options{Version: mqtt.V5}, func(t *testing.T, b *bench) {
		var last time.Duration
		for i := range 4 {
			s, _ := b.accept(packet.Connack{})
			s.send(&packet.Disconnect{Code: mqtt.SessionTakenOver})
			s.gone()
			st := b.state()
			if st.Evicted != i+1 || st.Reason != mqtt.SessionTakenOver || st.RetryIn < 2*time.Second {
				t.Errorf("%+v", st)
			}
			last = st.RetryIn
		}
		if last < 20*time.Second {
			t.Errorf("fourth pause is %v", last)
		}
	})
	run(t, Options{}, func(t *testing.T, b *bench) {
		for i := range 6 {
			s, _ := b.accept(packet.Connack{})
			s.close()
			if st := b.state(); (st.Evicted > 0) != (i >= 4) || st.RetryIn > 4*time.Second {
				t.Errorf("%d: %+v", i, st)
			}
		}
		// Where the server is away for once, it was no other client.
		b.down <- struct{}{}
		synctest.Wait()
		time.Sleep(b.state().RetryIn)
		if st := b.state(); st.Evicted != 0 || st.Connected {
			t.Errorf("%+v", st)
		}
		<-b.down
		for i := range 5 {
			s, _ := b.accept(packet.Connack{})
			s.close()
			if st := b.state(); (st.Evicted > 0) != (i >= 4) {
				t.Errorf("%d: %+v", i, st)
			}
		}
	})
}

func TestDisconnectOfTheServer(t *testing.T) {
	run(t, Options{Version: mqtt.V5}, func(t *testing.T, b *bench) {
		s, _ := b.accept(packet.Connack{})
		bye := &packet.Disconnect{Code: mqtt.ServerShuttingDown}
		bye.Properties.SetReasonString("until tomorrow")
		s.send(bye)
		s.gone()
		st := b.state()
		if st.Connected || st.Reason != mqtt.ServerShuttingDown || !strings.Contains(st.Err.Error(), "until tomorrow") || strings.Contains(st.Err.Error(), "reference") {
			t.Errorf("%+v", st)
		}
		refuse := packet.Connack{Code: mqtt.BadUserNameOrPassword}
		b.accept(refuse)
		if st := b.state(); st.Reason != mqtt.BadUserNameOrPassword || strings.Contains(st.Err.Error(), "reference") {
			t.Errorf("%+v", st)
		}
		// Where another server is named, that is told, not followed (4.11).
		refuse.Code = mqtt.UseAnotherServer
		refuse.Properties.SetServerReference("other.example")
		b.accept(refuse)
		if st := b.state(); st.Reason != mqtt.UseAnotherServer || !strings.Contains(st.Err.Error(), "server reference other.example") {
			t.Errorf("%+v", st)
		}
		s, _ = b.accept(packet.Connack{})
		bye = &packet.Disconnect{Code: mqtt.ServerMoved}
		bye.Properties.SetServerReference("other.example")
		s.send(bye)
		s.gone()
		if st := b.state(); st.Reason != mqtt.ServerMoved || !strings.Contains(st.Err.Error(), "server reference other.example") {
			t.Errorf("%+v", st)
		}
	})
}

// An answer of the other QoS is none: the exchanges have nothing in common [MQTT-4.3.2-3] [MQTT-4.3.3-3].
func TestAnswersOfTheOtherQoS(t *testing.T) {
	for qos, answer := range map[mqtt.QoS]packet.Packet{1: &packet.Pubrec{ID: 1}, 2: &packet.Puback{ID: 1}} {
		run(t, Options{Version: mqtt.V5, SessionExpiry: time.Hour}, func(t *testing.T, b *bench) {
			s, _ := b.accept(packet.Connack{})
			b.publish(qos, "a")
			s.expect(pub(qos, 1, "a"))
			s.send(answer)
			s.expect(&packet.Disconnect{Code: mqtt.ProtocolError})
			s.gone()
			b.noneDone()
			s.close()
			s, _ = b.accept(packet.Connack{SessionPresent: true})
			s.expect(again(pub(qos, 1, "a")))
		})
	}
}

// [MQTT-3.2.2-17] [MQTT-3.2.2-18] [MQTT-3.3.2-7] [MQTT-3.3.2-9]
func TestTopicAliasesOut(t *testing.T) {
	run(t, Options{Version: mqtt.V5}, func(t *testing.T, b *bench) {
		ack := packet.Connack{}
		ack.Properties.SetTopicAliasMaximum(1)
		s, _ := b.accept(ack)
		send := func(topic string) *packet.Publish {
			t.Helper()
			if err := b.c.Publish(t.Context(), &mqtt.Message{Topic: topic}, nil); err != nil {
				t.Fatal(err)
			}
			return s.next().(*packet.Publish)
		}
		for range 2 { // on each connection anew
			for _, topic := range []string{"announced/once", "a/long/topic"} {
				if p := send(topic); p.Topic != topic || p.Properties.Has(packet.PropTopicAlias) {
					t.Errorf("%+v", p)
				}
			}
			if p := send("a/long/topic"); p.Topic != "a/long/topic" || p.Properties.TopicAlias != 1 {
				t.Errorf("%+v", p)
			}
			if p := send("a/long/topic"); p.Topic != "" || p.Properties.TopicAlias != 1 {
				t.Errorf("%+v", p)
			}
			for range 2 {
				if p := send("another/topic"); p.Topic != "another/topic" || p.Properties.Has(packet.PropTopicAlias) {
					t.Errorf("%+v", p)
				}
			}
			s.close()
			s, _ = b.accept(ack)
		}
	})
}

// What fits without an alias is sent without one [MQTT-3.2.2-15].
func TestAnAliasDoesNotMakeAPacketTooLarge(t *testing.T) {
	run(t, Options{Version: mqtt.V5}, func(t *testing.T, b *bench) {
		ack := packet.Connack{}
		ack.Properties.SetTopicAliasMaximum(1)
		ack.Properties.SetMaximumPacketSize(40)
		s, _ := b.accept(ack)
		send := func(size int) *packet.Publish {
			t.Helper()
			if err := b.c.Publish(t.Context(), &mqtt.Message{Topic: "a/long/topic", Payload: make([]byte, size)}, nil); err != nil {
				t.Fatal(err)
			}
			return s.next().(*packet.Publish)
		}
		const most = 40 - 2 - 2 - len("a/long/topic") - 1
		for range 3 {
			if p := send(most); p.Topic != "a/long/topic" || p.Properties.Has(packet.PropTopicAlias) || len(p.Payload) != most {
				t.Errorf("%+v", p)
			}
		}
		if p := send(most - 3); p.Properties.TopicAlias != 1 {
			t.Errorf("%+v", p)
		}
		// Where the server knows the alias the topic takes no room.
		if p := send(most + 1); p.Topic != "" || p.Properties.TopicAlias != 1 {
			t.Errorf("%+v", p)
		}
	})
}

func TestWill(t *testing.T) {
	w := &Will{Message: mqtt.Message{Topic: "state", Payload: []byte("offline"), QoS: 1, Retain: true, ContentType: "text/plain"}, Delay: 5 * time.Second}
	run(t, Options{Version: mqtt.V5, Will: w, Username: "u", Password: []byte("p"), User: []mqtt.UserProperty{{Name: "a", Value: "b"}}}, func(t *testing.T, b *bench) {
		_, p := b.accept(packet.Connack{})
		got := p.Will
		if got == nil || got.Topic != "state" || string(got.Payload) != "offline" || got.QoS != 1 || !got.Retain || got.Properties.WillDelay != 5 || got.Properties.ContentType != "text/plain" {
			t.Errorf("%+v", got)
		}
		if p.Username != "u" || string(p.Password) != "p" || len(p.Properties.User) != 1 {
			t.Errorf("%+v", p)
		}
	})
}

// Before 5.0 a server cannot say how many messages of QoS 2 it takes: Mosquitto hangs up at the 21st.
func TestFewQoS2Before5(t *testing.T) {
	run(t, Options{}, func(t *testing.T, b *bench) {
		s, _ := b.accept(packet.Connack{})
		for range 30 {
			b.publish(2, "x")
		}
		for id := range uint16(20) {
			s.expect(pub(2, id+1, "x"))
		}
		synctest.Wait()
		if st := b.c.Stats(); st.Inflight != 20 {
			t.Errorf("%+v", st)
		}
		s.send(&packet.Pubrec{ID: 1})
		s.expect(&packet.Pubrel{ID: 1})
		s.send(&packet.Pubcomp{ID: 1})
		s.expect(pub(2, 21, "x"))
	})
}

// PUBREL goes out in the order of PUBREC, also where that is not the order of PUBLISH [MQTT-4.6.0-4].
func TestReleasesInTheOrderOfReceipts(t *testing.T) {
	run(t, Options{}, func(t *testing.T, b *bench) {
		s, _ := b.accept(packet.Connack{})
		for _, n := range []string{"a", "b", "c"} {
			b.publish(2, n)
		}
		s.expect(pub(2, 1, "a"), pub(2, 2, "b"), pub(2, 3, "c"))
		s.send(&packet.Pubrec{ID: 3}, &packet.Pubrec{ID: 1}, &packet.Pubrec{ID: 2})
		s.expect(&packet.Pubrel{ID: 3}, &packet.Pubrel{ID: 1}, &packet.Pubrel{ID: 2})
	})
}

// An identifier whose exchange is over is a new message's: after PUBACK [MQTT-4.3.2-5], after a PUBREC that
// refuses [MQTT-4.3.3-9].
func TestIdentifiersAreUsedAgain(t *testing.T) {
	run(t, Options{Version: mqtt.V5}, func(t *testing.T, b *bench) {
		s, _ := b.accept(packet.Connack{})
		for round := range 2 {
			b.c.mu.Lock()
			b.c.out.lastID = 0 // as after 65,535 messages
			b.c.mu.Unlock()
			b.publish(1, "a")
			b.publish(2, "b")
			s.expect(pub(1, 1, "a"), pub(2, 2, "b"))
			s.send(&packet.Puback{ID: 1}, &packet.Pubrec{ID: 2, Code: mqtt.QuotaExceeded})
			b.expectDone("a", "b: mqtt client: mqtt: publish refused: quota exceeded")
			if n := len(b.c.out.byID); n != 0 {
				t.Errorf("round %d: %d identifiers in use", round, n)
			}
		}
	})
}

func TestSeconds(t *testing.T) {
	for d, want := range map[time.Duration]uint32{0: 0, 1: 1, time.Second: 1, time.Second + 1: 2, math.MaxInt64: math.MaxUint32, 1 << 32 * time.Second: math.MaxUint32} {
		if got := seconds32(d); got != want {
			t.Errorf("%v is %d s", d, got)
		}
	}
	if got := seconds16(70_000 * time.Second); got != 65535 {
		t.Error(got)
	}
}

// A server may give a reason that PUBACK has not [MQTT-3.4.2-1]. It is believed as far as it can be: hanging
// up would send the same message for ever.
func TestAReasonThatPubackHasNot(t *testing.T) {
	run(t, Options{Version: mqtt.V5}, func(t *testing.T, b *bench) {
		s, _ := b.accept(packet.Connack{})
		for i, c := range []struct {
			code mqtt.ReasonCode
			done string
		}{
			{1, "m"},
			{mqtt.PacketTooLarge, "m: mqtt client: mqtt: publish refused: unspecified error"},
			{0xff, "m: mqtt client: mqtt: publish refused: unspecified error"},
			{mqtt.ServerBusy, "m: mqtt client: mqtt: publish refused: quota exceeded"},
		} {
			id := uint16(i + 1)
			b.publish(1, "m")
			s.expect(pub(1, id, "m"))
			if _, err := s.nc.Write([]byte{0x40, 3, 0, byte(id), byte(c.code)}); err != nil {
				t.Fatal(err)
			}
			b.expectDone(c.done)
		}
	})
}
