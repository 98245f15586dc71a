package broker

import (
	"context"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"gateway/mqtt"
	"gateway/mqtt/packet"
)

// inBubble runs a test with a broker in a bubble of fake time.
func inBubble(t *testing.T, o Options, test func(t *testing.T, b *Broker)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		o.SysInterval = -1
		b, err := New(o)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- b.Run(ctx) }()
		test(t, b)
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// piped connects through a pipe, which fake time can see.
func piped(t *testing.T, b *Broker, v mqtt.Version, id string, edit ...func(*packet.Connect)) (*peer, *packet.Connack) {
	t.Helper()
	near, far := net.Pipe()
	b.ServeConn(far)
	p := newPeer(t, near, v)
	c := &packet.Connect{Version: v, ClientID: id, CleanStart: true}
	for _, f := range edit {
		f(c)
	}
	p.send(c)
	return p, expect[*packet.Connack](p)
}

// [MQTT-3.1.2-22] [MQTT-3.2.2-22]
func TestKeepAlive(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, b *Broker) {
		p, _ := piped(t, b, mqtt.V5, "c", func(c *packet.Connect) { c.KeepAlive = 10 })
		began := time.Now()
		time.Sleep(14 * time.Second)
		p.silence() // its PINGREQ starts the interval anew
		x, err := p.next(time.Minute)
		d, ok := x.(*packet.Disconnect)
		if !ok || d.Code != mqtt.KeepAliveTimeout {
			t.Fatalf("got %T %+v, %v", x, x, err)
		}
		if after := time.Since(began); after != 29*time.Second { // [MQTT-3.1.2-22]
			t.Errorf("disconnected after %s, want 14 s and one and a half times 10 s", after)
		}
	})
}

// The server's keep alive is told and held, in the place of a longer one or of none (3.2.2.3.14); a client of 3.1.1,
// which cannot be told, has its own.
func TestServerKeepAliveIsHeld(t *testing.T) {
	for _, c := range []struct {
		v         mqtt.Version
		own       uint16
		told      bool
		silentFor time.Duration // when the client is taken for dead; 0: never
	}{
		{mqtt.V5, 100, true, 15 * time.Second},
		{mqtt.V5, 0, true, 15 * time.Second},
		{mqtt.V5, 4, false, 6 * time.Second},
		{mqtt.V311, 100, false, 150 * time.Second},
		{mqtt.V311, 0, false, 0},
	} {
		inBubble(t, Options{ServerKeepAlive: 10}, func(t *testing.T, b *Broker) {
			p, ack := piped(t, b, c.v, "c", func(p *packet.Connect) { p.KeepAlive = c.own })
			if got := ack.Properties.Has(packet.PropServerKeepAlive); got != c.told || got && ack.Properties.ServerKeepAlive != 10 {
				t.Errorf("%+v: CONNACK says %t, %d", c, got, ack.Properties.ServerKeepAlive)
			}
			began := time.Now()
			_, err := p.next(time.Hour)
			switch after := time.Since(began); {
			case c.silentFor == 0 && after < time.Hour:
				t.Errorf("%+v: ended after %s: %v", c, after, err)
			case c.silentFor != 0 && after != c.silentFor:
				t.Errorf("%+v: ended after %s", c, after)
			}
		})
	}
}

// dying connects a client with a delayed will and breaks its connection. It returns who waits for the
// will, and what the client's CONNECT says when it comes back.
func dying(t *testing.T, b *Broker, expiry, delay uint32) (watch *peer, mortal func(*packet.Connect)) {
	t.Helper()
	watch, _ = piped(t, b, mqtt.V5, "watch")
	watch.subscribed("w", 0)
	mortal = func(p *packet.Connect) {
		p.CleanStart = false
		p.Properties.SetSessionExpiry(expiry)
	}
	p, _ := piped(t, b, mqtt.V5, "mortal", mortal, willOf("w", "x", func(w *packet.Will) { w.Properties.SetWillDelay(delay) }))
	p.drop()
	synctest.Wait()
	return watch, mortal
}

// [MQTT-3.1.3-9]
func TestWillDelay(t *testing.T) {
	for name, c := range map[string]struct {
		expiry, delay uint32
		back          time.Duration // when the client comes back; 0: not
		want          time.Duration // when the will comes; 0: not
	}{
		"delay":                            {100, 10, 0, 10 * time.Second},
		"session ends before":              {5, 10, 0, 5 * time.Second}, // [MQTT-3.1.3-9]
		"session ends with the connection": {0, 10, 0, time.Nanosecond},
		"client is back before":            {100, 10, 9 * time.Second, 0},
		"no delay":                         {100, 0, 0, time.Nanosecond},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, Options{}, func(t *testing.T, b *Broker) {
				watch, mortal := dying(t, b, c.expiry, c.delay)
				gone := time.Now()
				if c.back > 0 {
					time.AfterFunc(c.back, func() { piped(t, b, mqtt.V5, "mortal", mortal) })
				}
				_, err := watch.next(time.Minute)
				switch {
				case c.want == 0 && err == nil:
					t.Errorf("a will came after %s", time.Since(gone))
				case c.want != 0 && err != nil:
					t.Error("no will came")
				case c.want > time.Nanosecond && time.Since(gone) != c.want:
					t.Errorf("the will came after %s, want %s", time.Since(gone), c.want)
				}
				if c.want != 0 { // and only once
					piped(t, b, mqtt.V5, "mortal", mortal)
					watch.silence()
				}
			})
		})
	}
}

// A will that was averted by the client's return does not come with a later end, of connection or session [MQTT-3.1.3-9].
func TestAWillThatWasAvertedIsForgotten(t *testing.T) {
	for name, end := range map[string]func(p *peer){
		"the session ends":      func(p *peer) { p.send(expiring(0)) },
		"the connection breaks": func(p *peer) { p.drop() },
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, Options{}, func(t *testing.T, b *Broker) {
				watch, mortal := dying(t, b, 100, 10)
				p, ack := piped(t, b, mqtt.V5, "mortal", mortal)
				if !ack.SessionPresent {
					t.Error("the session is gone")
				}
				end(p)
				if m, err := watch.next(time.Hour); err == nil {
					t.Errorf("%+v", m)
				}
			})
		})
	}
}

func expiring(seconds uint32) *packet.Disconnect {
	p := new(packet.Disconnect)
	p.Properties.SetSessionExpiry(seconds)
	return p
}

// [MQTT-4.1.0-2]
func TestSessionsExpire(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, b *Broker) {
		edit := func(p *packet.Connect) {
			p.CleanStart = false
			p.Properties.SetSessionExpiry(30)
		}
		p, _ := piped(t, b, mqtt.V5, "c", edit)
		p.drop()
		time.Sleep(29 * time.Second)
		p, ack := piped(t, b, mqtt.V5, "c", edit)
		if !ack.SessionPresent {
			t.Error("expired after 29 s of 30")
		}
		time.Sleep(time.Hour) // connected sessions do not expire
		p.silence()
		p.drop()
		time.Sleep(31 * time.Second)
		if s := b.Stats(); s.Sessions != 0 || s.ExpiredSessions != 1 {
			t.Errorf("after 31 s: %+v", s)
		}
		if _, ack := piped(t, b, mqtt.V5, "c", edit); ack.SessionPresent {
			t.Error("there after 31 s of 30")
		}
	})
}

// A client that takes nothing is let go, so that what waits for it does not wait for ever.
func TestWriteTimeout(t *testing.T) {
	inBubble(t, Options{Limits: Limits{WriteTimeout: 20 * time.Second}}, func(t *testing.T, b *Broker) {
		stuck, _ := piped(t, b, mqtt.V5, "stuck")
		stuck.subscribed("t", 1)
		done := make(chan error, 1)
		if err := b.Publish(t.Context(), &mqtt.Message{Topic: "t", QoS: 1}, func(err error) { done <- err }); err != nil {
			t.Fatal(err)
		}
		<-done // the publisher does not wait
		time.Sleep(19 * time.Second)
		if n := b.Stats().Connected; n != 1 {
			t.Error("let go too early")
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if n := b.Stats().Connected; n != 0 {
			t.Error("still there after 21 s of 20")
		}
	})
}

func TestRetainedMessagesExpire(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, b *Broker) {
		m := &mqtt.Message{Topic: "t", Payload: []byte("x"), Retain: true, HasExpiry: true, Expiry: 30}
		b.Publish(t.Context(), m, func(error) {})
		time.Sleep(10 * time.Second)
		c, _ := piped(t, b, mqtt.V5, "c")
		c.subscribed("t", 0)
		if got := c.message("t", "x"); got.Properties.MessageExpiry != 20 { // [MQTT-3.3.2-6]
			t.Errorf("%d seconds remain, want 20", got.Properties.MessageExpiry)
		}
		time.Sleep(time.Minute + time.Second)
		synctest.Wait()
		if n := b.Stats().Retained; n != 0 {
			t.Errorf("%d retained messages are left", n)
		}
	})
}

// A slowReader holds what it has read for a second, as a busy machine may.
type slowReader struct{ net.Conn }

func (r slowReader) Read(b []byte) (int, error) {
	n, err := r.Conn.Read(b)
	time.Sleep(time.Second)
	return n, err
}

// A DISCONNECT that the broker has in hand when its client comes back, neither unread nor handled, is heard: there
// was nothing to take over, and no will [MQTT-3.14.4-3].
func TestADisconnectInHandIsHeardBeforeTheHeir(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, b *Broker) {
		watch, _ := piped(t, b, mqtt.V5, "watch")
		watch.subscribed("will", 0)
		near, far := net.Pipe()
		b.ServeConn(slowReader{far})
		p := newPeer(t, near, mqtt.V5)
		c := &packet.Connect{Version: mqtt.V5, ClientID: "quick", CleanStart: true}
		willOf("will", "gone")(c)
		p.send(c)
		expect[*packet.Connack](p)
		p.send(&packet.Disconnect{})
		piped(t, b, mqtt.V5, "quick")
		watch.silence()
		if n := b.Stats().TakeOvers; n != 0 {
			t.Errorf("%d take-overs of a connection that had ended", n)
		}
	})
}
