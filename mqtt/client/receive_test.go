package client

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"gateway/mqtt"
	"gateway/mqtt/packet"
)

// gate is a handler that lets messages through one by one.
type gate struct {
	got chan mqtt.Message
	let chan struct{}
}

// open makes the channels, which must be done in the bubble.
func (g *gate) open() { g.got, g.let = make(chan mqtt.Message, 1000), make(chan struct{}) }

func (g *gate) handle(m mqtt.Message) {
	g.got <- m
	<-g.let
}

// [MQTT-4.3.2-4] [MQTT-4.3.3-8] [MQTT-4.3.3-11] [MQTT-4.5.0-2], in the order of the messages [MQTT-4.6.0-2] [MQTT-4.6.0-3];
// nothing else waits for it [MQTT-3.3.4-8] [MQTT-4.9.0-3]: paho.mqtt.golang#208, #453 (a slow handler blocks PINGRESP).
func TestReceiveAcknowledgesAfterTheHandler(t *testing.T) {
	g := new(gate)
	run(t, Options{Handler: g.handle}, func(t *testing.T, b *bench) {
		g.open()
		defer close(g.let)
		s, _ := b.accept(packet.Connack{})
		s.send(pub(1, 10, "a"), pub(2, 11, "b"), pub(0, 0, "c"))
		if m := <-g.got; string(m.Payload) != "a" || m.QoS != 1 {
			t.Errorf("%+v", m)
		}
		// The handler is stuck; PINGRESP and our own acknowledgements still come through.
		b.publish(1, "mine")
		s.expect(pub(1, 1, "mine"))
		s.send(&packet.Puback{ID: 1})
		b.expectDone("mine")
		g.let <- struct{}{}
		s.expect(&packet.Puback{ID: 10})
		<-g.got
		g.let <- struct{}{}
		s.expect(&packet.Pubrec{ID: 11})
		s.send(&packet.Pubrel{ID: 11})
		s.expect(&packet.Pubcomp{ID: 11})
		<-g.got
	})
}

// [MQTT-4.3.3-10]: a QoS 2 message that comes again before PUBREL is the same one, also on the next connection; after
// PUBCOMP it is another [MQTT-4.3.3-12].
func TestQoS2IsHandledOnce(t *testing.T) {
	var got []string
	run(t, Options{SessionExpiry: time.Hour, Handler: func(m mqtt.Message) { got = append(got, string(m.Payload)) }}, func(t *testing.T, b *bench) {
		s, _ := b.accept(packet.Connack{})
		s.send(pub(2, 5, "a"))
		s.expect(&packet.Pubrec{ID: 5})
		s.send(again(pub(2, 5, "a")))
		s.expect(&packet.Pubrec{ID: 5})
		s.close()
		s, _ = b.accept(packet.Connack{SessionPresent: true})
		s.send(again(pub(2, 5, "a")))
		s.expect(&packet.Pubrec{ID: 5})
		s.send(&packet.Pubrel{ID: 5})
		s.expect(&packet.Pubcomp{ID: 5})
		// From now on 5 is another message.
		s.send(pub(2, 5, "b"))
		s.expect(&packet.Pubrec{ID: 5})
		s.close()
		// And in a new session, too, though it was never released in the old one.
		s, _ = b.accept(packet.Connack{})
		s.send(pub(2, 5, "c"))
		s.expect(&packet.Pubrec{ID: 5})
		if strings.Join(got, "") != "abc" {
			t.Errorf("handled %q", got)
		}
		if n := b.c.Stats().Duplicates; n != 2 {
			t.Errorf("%d duplicates", n)
		}
	})
}

// An acknowledgement that is ready only after a reconnect must not go to the new connection: there the
// identifier may be another message's. Nor does it block (paho.mqtt.golang#468, #509: a deadlock when the connection
// drops while a message is acknowledged).
func TestAcknowledgementStaysWithItsConnection(t *testing.T) {
	g := new(gate)
	run(t, Options{Handler: g.handle, SessionExpiry: time.Hour}, func(t *testing.T, b *bench) {
		g.open()
		s, _ := b.accept(packet.Connack{})
		s.send(pub(1, 10, "old"), pub(2, 20, "two"))
		<-g.got
		s.close()
		s, _ = b.accept(packet.Connack{SessionPresent: true})
		s.send(pub(1, 10, "new"), again(pub(2, 20, "two")))
		synctest.Wait()
		g.let <- struct{}{} // the old one, not acknowledged
		<-g.got
		g.let <- struct{}{} // two, answered on the connection that asked last
		s.expect(&packet.Pubrec{ID: 20})
		if m := <-g.got; string(m.Payload) != "new" {
			t.Errorf("%s", m.Payload)
		}
		g.let <- struct{}{}
		s.expect(&packet.Puback{ID: 10})
	})
}

func TestUnknownIdentifiers(t *testing.T) {
	run(t, Options{Version: mqtt.V5}, func(t *testing.T, b *bench) {
		s, _ := b.accept(packet.Connack{})
		s.send(&packet.Pubrel{ID: 9}, &packet.Pubrec{ID: 8})
		s.expect(&packet.Pubcomp{ID: 9, Code: mqtt.PacketIDNotFound}, &packet.Pubrel{ID: 8, Code: mqtt.PacketIDNotFound})
		s.send(&packet.Pubcomp{ID: 8, Code: mqtt.PacketIDNotFound}, &packet.Puback{ID: 7}, &packet.Suback{ID: 6, Codes: []mqtt.ReasonCode{0}}, &packet.Unsuback{ID: 5, Codes: []mqtt.ReasonCode{0}})
		b.publish(1, "still alive")
		s.expect(pub(1, 1, "still alive"))
	})
}

// mochi answers with the QoS as the reason code (mochi 2.7.9); the message has arrived all the same.
func TestAcknowledgementWithTheQoSAsItsReason(t *testing.T) {
	run(t, Options{Version: mqtt.V5}, func(t *testing.T, b *bench) {
		s, _ := b.accept(packet.Connack{})
		b.publish(1, "a")
		b.publish(2, "b")
		s.expect(pub(1, 1, "a"), pub(2, 2, "b"))
		s.send(&packet.Puback{ID: 1, Code: mqtt.GrantedQoS1}, &packet.Pubrec{ID: 2, Code: mqtt.GrantedQoS2})
		s.expect(&packet.Pubrel{ID: 2})
		b.expectDone("a")
	})
}

// Mosquitto 2.0.11 sends more than our receive maximum where handlers are slow. It is borne with, and told of once for each
// connection: the messages are good, and memory is bounded otherwise [MQTT-3.3.4-9].
func TestAServerBeyondOurReceiveMaximumIsBorneWith(t *testing.T) {
	var log bytes.Buffer
	told := func(t *testing.T, want int) {
		t.Helper()
		synctest.Wait()
		if n := strings.Count(log.String(), "more at once than our receive maximum"); n != want {
			t.Errorf("told %d times, want %d: %s", n, want, log.String())
		}
	}
	g := new(gate)
	o := Options{Version: mqtt.V5, SessionExpiry: time.Hour, ReceiveMaximum: 2, Handler: g.handle, Logger: slog.New(slog.NewTextHandler(&log, nil))}
	run(t, o, func(t *testing.T, b *bench) {
		g.open()
		s, p := b.accept(packet.Connack{})
		if p.Properties.ReceiveMaximum != 2 {
			t.Errorf("%+v", p.Properties)
		}
		// A place is taken from PUBLISH to PUBACK or PUBCOMP, and none by QoS 0.
		s.send(pub(1, 1, "a"), pub(2, 2, "b"), pub(0, 0, "z"))
		g.let <- struct{}{}
		s.expect(&packet.Puback{ID: 1})
		s.send(pub(1, 3, "c"))
		g.let <- struct{}{}
		s.expect(&packet.Pubrec{ID: 2})
		s.send(&packet.Pubrel{ID: 2})
		s.expect(&packet.Pubcomp{ID: 2})
		s.send(pub(2, 4, "d"))
		told(t, 0)
		s.send(pub(1, 5, "e"), pub(1, 6, "f"))
		told(t, 1)
		s.close()
		// The next connection begins with none; what comes again counts again.
		s, _ = b.accept(packet.Connack{SessionPresent: true})
		s.send(again(pub(1, 3, "c")), again(pub(2, 4, "d")), again(pub(2, 4, "d")))
		told(t, 1)
		s.send(again(pub(1, 5, "e")))
		told(t, 2)
		close(g.let)
		s.expect(&packet.Pubrec{ID: 4}, &packet.Puback{ID: 3}, &packet.Puback{ID: 5})
	})
	// Before 5.0 there is none.
	log.Reset()
	o.Version = mqtt.V311
	run(t, o, func(t *testing.T, b *bench) {
		g.open()
		s, _ := b.accept(packet.Connack{})
		s.send(pub(1, 1, "a"), pub(1, 2, "b"), pub(1, 3, "c"))
		told(t, 0)
		close(g.let)
	})
}

// A server that acknowledges what is not in flight is told of once for each connection, and acknowledges nothing
// by it.
func TestAnAcknowledgementOfAnUnknownIdentifierIsToldOnce(t *testing.T) {
	var log bytes.Buffer
	run(t, Options{Version: mqtt.V5, Logger: slog.New(slog.NewTextHandler(&log, nil))}, func(t *testing.T, b *bench) {
		s, _ := b.accept(packet.Connack{})
		b.publish(1, "a")
		s.expect(pub(1, 1, "a"))
		s.send(&packet.Puback{ID: 7}, &packet.Puback{ID: 8})
		synctest.Wait()
		b.noneDone()
		s.send(&packet.Puback{ID: 1})
		b.expectDone("a")
		synctest.Wait()
		if n := strings.Count(log.String(), "not in flight"); n != 1 || !strings.Contains(log.String(), "id=7") {
			t.Errorf("told %d times: %s", n, log.String())
		}
	})
}

// Slow handlers: QoS 0 is dropped and counted, QoS 1 ends the connection so that the server sends it again.
func TestSlowHandlers(t *testing.T) {
	g := new(gate)
	big := strings.Repeat("x", 1000)
	run(t, Options{MaxQueuedBytes: 4000, Handler: g.handle}, func(t *testing.T, b *bench) {
		g.open()
		s, _ := b.accept(packet.Connack{})
		for range 10 {
			s.send(pub(0, 0, big))
		}
		synctest.Wait()
		if st := b.c.Stats(); st.Received != 3 || st.Dropped != 7 {
			t.Errorf("%+v", st)
		}
		s.send(pub(1, 1, big))
		s.gone()
		close(g.let)
		s, _ = b.accept(packet.Connack{})
		s.send(again(pub(1, 1, big)))
		s.expect(&packet.Puback{ID: 1})
	})
}

// All of a message counts that takes memory.
func TestTheSizeOfAMessage(t *testing.T) {
	x := strings.Repeat("x", 1000)
	for _, m := range []mqtt.Message{{Topic: x}, {Payload: []byte(x)}, {CorrelationData: []byte(x)}, {ContentType: x}, {ResponseTopic: x},
		{User: []mqtt.UserProperty{{Name: x}}}, {User: []mqtt.UserProperty{{Value: x}}}} {
		if n := size(&m); n < 1000+size(&mqtt.Message{}) {
			t.Errorf("%d bytes: %.50v", n, m)
		}
	}
}

// In 5.0 the server is told why; and our user, once, that messages are dropped.
func TestSlowHandlersAreTold(t *testing.T) {
	var log bytes.Buffer
	g := new(gate)
	big := strings.Repeat("x", 1000)
	run(t, Options{Version: mqtt.V5, MaxQueuedBytes: 2000, Handler: g.handle, Logger: slog.New(slog.NewTextHandler(&log, nil))}, func(t *testing.T, b *bench) {
		g.open()
		defer close(g.let)
		s, _ := b.accept(packet.Connack{})
		for range 4 {
			s.send(pub(0, 0, big))
		}
		s.send(pub(2, 1, big))
		s.expect(&packet.Disconnect{Code: mqtt.QuotaExceeded})
		if st := b.c.Stats(); st.Received != 1 || st.Dropped != 3 {
			t.Errorf("%+v", st)
		}
	})
	if n := strings.Count(log.String(), "messages of qos 0 are dropped"); n != 1 {
		t.Errorf("told %d times: %s", n, log.String())
	}
}

// A server that has us owe answers and does not read them is left before they take much memory.
func TestServerThatDoesNotReadAnswers(t *testing.T) {
	run(t, Options{Version: mqtt.V5}, func(t *testing.T, b *bench) {
		s, _ := b.accept(packet.Connack{})
		asked := bytes.Repeat(encoded(mqtt.V5, &packet.Pubrel{ID: 9}), 1000)
		most := maxControl / len(encoded(mqtt.V5, &packet.Pubcomp{ID: 9, Code: mqtt.PacketIDNotFound}))
		n := 0
		for ; n < 2*most; n += 1000 {
			if _, err := s.nc.Write(asked); err != nil {
				break
			}
		}
		if st := b.state(); n < most || n >= 2*most || st.Connected || !strings.Contains(st.Err.Error(), "does not read our answers") {
			t.Errorf("after %d of %d: %+v", n, most, st)
		}
	})
}

// A message is the handler's to keep: what comes later does not change it.
func TestAMessageMayBeKept(t *testing.T) {
	var got []mqtt.Message
	run(t, Options{Version: mqtt.V5, Handler: func(m mqtt.Message) { got = append(got, m) }}, func(t *testing.T, b *bench) {
		s, _ := b.accept(packet.Connack{})
		for i, x := range []string{"a", "b"} {
			m := mqtt.Message{Topic: x, Payload: []byte(x), CorrelationData: []byte(x), ContentType: x, User: []mqtt.UserProperty{{Name: x, Value: x}}}
			p := new(packet.Publish)
			p.SetMessage(&m)
			p.QoS, p.ID = 1, uint16(i+1)
			s.send(p)
			s.expect(&packet.Puback{ID: p.ID})
		}
	})
	for i, x := range []string{"a", "b"} {
		want := mqtt.Message{Topic: x, Payload: []byte(x), CorrelationData: []byte(x), ContentType: x, User: []mqtt.UserProperty{{Name: x, Value: x}}, QoS: 1}
		if d := diff(want, got[i]); d != "" {
			t.Error(d)
		}
	}
}

// A handler may publish and subscribe; nothing waits in a circle.
func TestHandlerMayPublish(t *testing.T) {
	var c *Client
	handler := func(m mqtt.Message) {
		if err := c.Publish(context.Background(), &mqtt.Message{Topic: "t", QoS: 1, Payload: []byte("re: " + string(m.Payload))}, nil); err != nil && err != ErrClosed {
			panic(err)
		}
	}
	run(t, Options{MaxUnacked: 1, Handler: handler}, func(t *testing.T, b *bench) {
		c = b.c
		s, _ := b.accept(packet.Connack{})
		s.send(pub(0, 0, "a"), pub(0, 0, "b"))
		s.expect(pub(1, 1, "re: a"))
		s.send(&packet.Puback{ID: 1})
		s.expect(pub(1, 2, "re: b"))
		s.send(pub(0, 0, "c")) // its handler blocks in Publish until the end
		synctest.Wait()
	})
}

func TestSubscribe(t *testing.T) {
	run(t, Options{Version: mqtt.V5, SessionExpiry: time.Hour}, func(t *testing.T, b *bench) {
		type result struct {
			codes []mqtt.ReasonCode
			err   error
		}
		results := make(chan result, 1)
		subscribe := func(subs ...mqtt.Subscription) {
			go func() {
				codes, err := b.c.Subscribe(t.Context(), subs...)
				results <- result{codes, err}
			}()
		}
		a, z := mqtt.Subscription{Filter: "a/#", QoS: 1, NoLocal: true}, mqtt.Subscription{Filter: "z", QoS: 2}
		subscribe(a, z) // before there is a connection
		s, _ := b.accept(packet.Connack{})
		s.expect(&packet.Subscribe{ID: 1, Subscriptions: []mqtt.Subscription{a, z}})
		s.send(&packet.Suback{ID: 1, Codes: []mqtt.ReasonCode{1, mqtt.NotAuthorized}})
		if r := <-results; r.err != nil || len(r.codes) != 2 || r.codes[1] != mqtt.NotAuthorized {
			t.Errorf("%+v", r)
		}
		// The connection is lost before the answer: asked again.
		y := mqtt.Subscription{Filter: "y"}
		subscribe(y)
		s.expect(&packet.Subscribe{ID: 2, Subscriptions: []mqtt.Subscription{y}})
		s.close()
		s, _ = b.accept(packet.Connack{SessionPresent: true})
		s.expect(&packet.Subscribe{ID: 3, Subscriptions: []mqtt.Subscription{y}})
		s.send(&packet.Suback{ID: 3, Codes: []mqtt.ReasonCode{0}})
		<-results
		// The server lost the session: what was granted is asked for again, before anything is published.
		s.close()
		synctest.Wait()
		b.publish(0, "after")
		s, _ = b.accept(packet.Connack{})
		s.expect(&packet.Subscribe{ID: 4, Subscriptions: []mqtt.Subscription{a, y}}, pub(0, 0, "after"))
		s.send(&packet.Suback{ID: 4, Codes: []mqtt.ReasonCode{1, 0}})

		go func() {
			codes, err := b.c.Unsubscribe(t.Context(), "a/#")
			results <- result{codes, err}
		}()
		s.expect(&packet.Unsubscribe{ID: 5, Filters: []string{"a/#"}})
		s.send(&packet.Unsuback{ID: 5, Codes: []mqtt.ReasonCode{0}})
		<-results
		s.close()
		s, _ = b.accept(packet.Connack{})
		s.expect(&packet.Subscribe{ID: 6, Subscriptions: []mqtt.Subscription{y}})
		// A wrong number of codes is the server's fault.
		s.send(&packet.Suback{ID: 6, Codes: []mqtt.ReasonCode{0, 0}})
		s.expect(&packet.Disconnect{Code: mqtt.ProtocolError})
	})
}

// A subscription that was granted is asked for again in each new session, also when one server, or one moment, refused it:
// only the caller gives it up.
func TestAGrantedSubscriptionIsNotGivenUp(t *testing.T) {
	run(t, Options{Version: mqtt.V5}, func(t *testing.T, b *bench) {
		s, _ := b.accept(packet.Connack{})
		a := mqtt.Subscription{Filter: "a", QoS: 1}
		codes := make(chan []mqtt.ReasonCode)
		ask := func(sub mqtt.Subscription) {
			c, _ := b.c.Subscribe(t.Context(), sub)
			codes <- c
		}
		go ask(a)
		s.expect(&packet.Subscribe{ID: 1, Subscriptions: []mqtt.Subscription{a}})
		s.send(&packet.Suback{ID: 1, Codes: []mqtt.ReasonCode{1}})
		<-codes
		for id, code := range []mqtt.ReasonCode{mqtt.NotAuthorized, mqtt.QuotaExceeded, 1, 1} {
			s.close()
			s, _ = b.accept(packet.Connack{})
			s.expect(&packet.Subscribe{ID: uint16(id) + 2, Subscriptions: []mqtt.Subscription{a}})
			s.send(&packet.Suback{ID: uint16(id) + 2, Codes: []mqtt.ReasonCode{code}})
		}
		// Who asks himself and is refused has none.
		go ask(a)
		s.expect(&packet.Subscribe{ID: 6, Subscriptions: []mqtt.Subscription{a}})
		s.send(&packet.Suback{ID: 6, Codes: []mqtt.ReasonCode{mqtt.NotAuthorized}})
		<-codes
		s.close()
		s, _ = b.accept(packet.Connack{})
		b.publish(0, "nothing before it")
		s.expect(pub(0, 0, "nothing before it"))
	})
}

// An answer for another number of filters than was asked for is the server's fault [MQTT-3.9.3-1] [MQTT-3.11.3-1]: nobody knows which
// it means, and whoever asked is told.
func TestAnswersOfAnotherNumber(t *testing.T) {
	for _, n := range []int{1, 3} {
		run(t, Options{Version: mqtt.V5}, func(t *testing.T, b *bench) {
			answers := make(chan error)
			for _, unsubscribe := range []bool{false, true} {
				s, _ := b.accept(packet.Connack{})
				go func() {
					var err error
					if unsubscribe {
						_, err = b.c.Unsubscribe(t.Context(), "a", "b")
					} else {
						_, err = b.c.Subscribe(t.Context(), mqtt.Subscription{Filter: "a"}, mqtt.Subscription{Filter: "b"})
					}
					answers <- err
				}()
				switch p := s.next().(type) {
				case *packet.Subscribe:
					s.send(&packet.Suback{ID: p.ID, Codes: make([]mqtt.ReasonCode, n)})
				case *packet.Unsubscribe:
					s.send(&packet.Unsuback{ID: p.ID, Codes: make([]mqtt.ReasonCode, n)})
				}
				if err := <-answers; err == nil || !strings.Contains(err.Error(), "another number") {
					t.Error(err)
				}
				s.expect(&packet.Disconnect{Code: mqtt.ProtocolError})
				s.gone()
				s.close()
			}
		})
	}
}

// Requests that were not answered are made again in their order.
func TestRequestsAreMadeAgainInOrder(t *testing.T) {
	run(t, Options{Version: mqtt.V5, SessionExpiry: time.Hour}, func(t *testing.T, b *bench) {
		s, _ := b.accept(packet.Connack{})
		asked := make(chan string, 10)
		for i := range 8 {
			filter := strconv.Itoa(i)
			go func() {
				b.c.Subscribe(t.Context(), mqtt.Subscription{Filter: filter})
				asked <- filter
			}()
			s.expect(&packet.Subscribe{ID: uint16(1 + i), Subscriptions: []mqtt.Subscription{{Filter: filter}}})
		}
		s.close()
		s, _ = b.accept(packet.Connack{SessionPresent: true})
		for i := range 8 {
			s.expect(&packet.Subscribe{ID: uint16(9 + i), Subscriptions: []mqtt.Subscription{{Filter: strconv.Itoa(i)}}})
			s.send(&packet.Suback{ID: uint16(9 + i), Codes: []mqtt.ReasonCode{0}})
			if f := <-asked; f != strconv.Itoa(i) {
				t.Errorf("%s is answered, not %d", f, i)
			}
		}
	})
}

// What the client asks for again it asks for once in each session, also when it got no answer in the last, and goes on asking
// where the session is kept.
func TestGrantedSubscriptionsAreAskedForOnce(t *testing.T) {
	run(t, Options{Version: mqtt.V5, SessionExpiry: time.Hour}, func(t *testing.T, b *bench) {
		s, _ := b.accept(packet.Connack{})
		a := mqtt.Subscription{Filter: "a"}
		asked := make(chan struct{})
		go func() {
			b.c.Subscribe(t.Context(), a)
			close(asked)
		}()
		s.expect(&packet.Subscribe{ID: 1, Subscriptions: []mqtt.Subscription{a}})
		s.send(&packet.Suback{ID: 1, Codes: []mqtt.ReasonCode{0}})
		<-asked
		for id, present := range []bool{false, false, true, false} {
			s.close()
			s, _ = b.accept(packet.Connack{SessionPresent: present})
			s.expect(&packet.Subscribe{ID: uint16(id) + 2, Subscriptions: []mqtt.Subscription{a}})
			s.sync()
		}
		s.send(&packet.Suback{ID: 5, Codes: []mqtt.ReasonCode{0}})
		s.close()
		s, _ = b.accept(packet.Connack{SessionPresent: true})
		b.publish(0, "nothing before it")
		s.expect(pub(0, 0, "nothing before it"))
		if n := len(b.c.out.requests); n != 0 {
			t.Errorf("%d requests", n)
		}
	})
}

func TestSubscribeGivesUpWithItsContext(t *testing.T) {
	run(t, Options{}, func(t *testing.T, b *bench) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := b.c.Subscribe(ctx, mqtt.Subscription{Filter: "a"}); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		s, _ := b.accept(packet.Connack{})
		b.publish(0, "x")
		s.expect(pub(0, 0, "x"))
		for _, sub := range []mqtt.Subscription{{Filter: ""}, {Filter: "a#"}, {Filter: "a", QoS: 3}, {Filter: "$share/g/a", NoLocal: true}} {
			if _, err := b.c.Subscribe(t.Context(), sub); err == nil {
				t.Errorf("%+v is accepted", sub)
			}
		}
	})
}

// Aliases up to our maximum are taken [MQTT-3.3.2-10].
func TestHandlersByFilter(t *testing.T) {
	var got []string
	note := func(s string) func(mqtt.Message) {
		return func(m mqtt.Message) { got = append(got, s+":"+m.Topic) }
	}
	run(t, Options{Handler: note("rest"), Version: mqtt.V5}, func(t *testing.T, b *bench) {
		for i, f := range []string{"a/+", "$share/g/a/b", "#"} {
			remove, err := b.c.Handle(f, note(strconv.Itoa(i)))
			if err != nil {
				t.Fatal(err)
			}
			if i == 2 {
				remove()
			}
		}
		if _, err := b.c.Handle("a#", func(mqtt.Message) {}); err == nil {
			t.Error("a# is accepted")
		}
		s, _ := b.accept(packet.Connack{})
		for _, topic := range []string{"a/b", "a/c", "x"} {
			s.send(&packet.Publish{Topic: topic})
		}
		// By alias, too.
		p := &packet.Publish{Topic: "a/d"}
		p.Properties.SetTopicAlias(64)
		s.send(p)
		p.Topic = ""
		s.send(p, pub(1, 1, "last"))
		s.expect(&packet.Puback{ID: 1})
		if g := strings.Join(got, " "); g != "0:a/b 1:a/b 0:a/c rest:x 0:a/d 0:a/d rest:t" {
			t.Error(g)
		}
	})
}

// A message travels with its properties and with nothing else: no subscription identifier [MQTT-3.3.4-6].
func TestMessageProperties(t *testing.T) {
	var got mqtt.Message
	run(t, Options{Version: mqtt.V5, Handler: func(m mqtt.Message) { got = m }}, func(t *testing.T, b *bench) {
		s, _ := b.accept(packet.Connack{})
		want := mqtt.Message{Topic: "t", QoS: 1, Payload: []byte("x"), PayloadUTF8: true, HasExpiry: true, Expiry: 9, ContentType: "c", ResponseTopic: "r",
			CorrelationData: []byte{1}, User: []mqtt.UserProperty{{Name: "a", Value: "b"}}}
		if err := b.c.Publish(t.Context(), &want, nil); err != nil {
			t.Fatal(err)
		}
		p := s.next().(*packet.Publish)
		if p.Properties.Has(packet.PropSubscriptionID) {
			t.Errorf("%+v", p.Properties)
		}
		p.ID = 77
		s.send(p)
		s.expect(&packet.Puback{ID: 77})
		if d := diff(want, got); d != "" {
			t.Error(d)
		}
	})
}

// What was handled when the client is stopped is acknowledged before DISCONNECT, and what was not is not, so that the
// server keeps it.
func TestStoppingAcknowledgesWhatWasHandled(t *testing.T) {
	run(t, Options{SessionExpiry: time.Hour}, func(t *testing.T, b *bench) {
		at, handled := make(chan struct{}), 0
		b.c.Handle("#", func(mqtt.Message) {
			handled++
			at <- struct{}{}
			<-at
		})
		s, _ := b.accept(packet.Connack{})
		s.send(pub(1, 1, "a"), pub(1, 2, "b"))
		<-at
		b.stop()
		synctest.Wait()
		at <- struct{}{}
		s.expect(&packet.Puback{ID: 1}, &packet.Disconnect{})
		s.close()
		synctest.Wait()
		if handled != 1 {
			t.Errorf("%d messages were handled", handled)
		}
	})
}

// A handler that never returns does not keep the connection open, only Run from returning.
func TestStoppingWithAHandlerThatDoesNotReturn(t *testing.T) {
	run(t, Options{}, func(t *testing.T, b *bench) {
		at := make(chan struct{})
		b.c.Handle("#", func(mqtt.Message) { <-at })
		s, _ := b.accept(packet.Connack{})
		s.send(pub(1, 1, "a"))
		synctest.Wait()
		start := time.Now()
		b.stop()
		s.expect(&packet.Disconnect{})
		s.gone()
		if d := time.Since(start); d > 2*lingerTime {
			t.Errorf("the connection stays for %v", d)
		}
		<-time.After(time.Hour)
		if b.ended.Load() {
			t.Error("Run has returned while a handler is at work")
		}
		close(at)
		synctest.Wait()
		if !b.ended.Load() {
			t.Error("Run does not return")
		}
	})
}

// Whoever waits is answered when the client ends, whatever his own context says; and the end of a connection is told.
func TestStoppingAnswersWhoWaits(t *testing.T) {
	for _, connected := range []bool{false, true} {
		run(t, Options{MaxUnacked: 1}, func(t *testing.T, b *bench) {
			var s *fakeConn
			if connected {
				s, _ = b.accept(packet.Connack{})
			}
			synctest.Wait()
			b.publish(1, "taken")
			answers := make(chan error, 10)
			for range 3 {
				go func() {
					answers <- b.c.Publish(context.Background(), &mqtt.Message{Topic: "t"}, nil)
				}()
			}
			go func() {
				_, err := b.c.Subscribe(context.Background(), mqtt.Subscription{Filter: "a"})
				answers <- err
			}()
			go func() {
				_, err := b.c.Unsubscribe(context.Background(), "a")
				answers <- err
			}()
			if connected {
				for range 3 { // the message and both requests
					s.next()
				}
			}
			synctest.Wait()
			b.stop()
			if connected {
				s.expect(&packet.Disconnect{})
				s.close()
			}
			for range 5 {
				if err := <-answers; err != ErrClosed {
					t.Error(err)
				}
			}
			b.expectDone("taken: " + ErrClosed.Error())
			all := b.reported()
			if connected && (len(all) != 2 || all[1].Connected || all[1].Err != ErrClosed) || !connected && len(all) != 0 {
				t.Errorf("connected %t: %+v", connected, all)
			}
		})
	}
}

// RabbitMQ before 4.0 answers QoS 2 as if it were 1. In 3.1.1 it cannot have said so before; in 5.0 it can, and a PUBACK is
// an error there [MQTT-4.3.3-3].
func TestAServerWithoutQoS2(t *testing.T) {
	var log bytes.Buffer
	run(t, Options{Logger: slog.New(slog.NewTextHandler(&log, nil))}, func(t *testing.T, b *bench) {
		s, _ := b.accept(packet.Connack{})
		for id := uint16(1); id <= 3; id++ {
			b.publish(2, "a")
			s.expect(pub(2, id, "a"))
			s.send(&packet.Puback{ID: id})
			b.expectDone("a")
		}
		// Not once its first half is done.
		b.publish(2, "b")
		s.expect(pub(2, 4, "b"))
		s.send(&packet.Pubrec{ID: 4})
		s.expect(&packet.Pubrel{ID: 4})
		s.send(&packet.Puback{ID: 4})
		s.gone()
	})
	if n := strings.Count(log.String(), "takes qos 2 for qos 1"); n != 1 {
		t.Errorf("told %d times: %s", n, log.String())
	}
	run(t, Options{Version: mqtt.V5}, func(t *testing.T, b *bench) {
		s, _ := b.accept(packet.Connack{})
		b.publish(2, "a")
		s.expect(pub(2, 1, "a"))
		s.send(&packet.Puback{ID: 1})
		s.expect(&packet.Disconnect{Code: mqtt.ProtocolError})
	})
}
