package client

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"gateway/mqtt"
	"gateway/mqtt/packet"
)

// scram is an exchange of two steps.
type scram struct{ steps []string }

func (a *scram) Method() string { return "TEST" }
func (a *scram) Start(context.Context) ([]byte, error) {
	a.steps = append(a.steps, "start")
	return []byte("hello"), nil
}
func (a *scram) Continue(_ context.Context, d []byte) ([]byte, error) {
	a.steps = append(a.steps, string(d))
	if string(d) == "doubtful" {
		return nil, errors.New("this is not what was agreed")
	}
	return []byte("answer"), nil
}
func (a *scram) Finish(_ context.Context, d []byte) error {
	a.steps = append(a.steps, "finish "+string(d))
	if string(d) == "forged" {
		return errors.New("server is not who it says")
	}
	return nil
}

// [MQTT-4.12.0-3] [MQTT-4.12.0-5] [MQTT-4.12.1-1]; nothing but AUTH before CONNACK [MQTT-3.1.2-30].
func TestEnhancedAuthentication(t *testing.T) {
	auth := &scram{}
	run(t, Options{Version: mqtt.V5, Auth: auth}, func(t *testing.T, b *bench) {
		step := func(code mqtt.ReasonCode, data string) *packet.Auth { return step(code, "TEST", data) }
		ack := &packet.Connack{}
		ack.Properties.SetAuthData([]byte("forged"))
		ack.Properties.SetAuthMethod("TEST")
		for _, proof := range []string{"forged", "proved"} {
			s := <-b.conns
			s.v = mqtt.V5
			if p := s.next().(*packet.Connect); p.Properties.AuthMethod != "TEST" || string(p.Properties.AuthData) != "hello" {
				t.Errorf("%+v", p.Properties)
			}
			s.send(step(mqtt.ContinueAuthentication, "challenge"))
			s.expect(step(mqtt.ContinueAuthentication, "answer"))
			ack.Properties.SetAuthData([]byte(proof))
			s.send(ack)
			if proof == "forged" {
				s.gone()
				continue
			}
			synctest.Wait()
			if err := b.c.Reauthenticate(t.Context()); err != nil {
				t.Fatal(err)
			}
			s.expect(step(mqtt.ReAuthenticate, "hello"))
			s.send(step(mqtt.ContinueAuthentication, "once more"))
			s.expect(step(mqtt.ContinueAuthentication, "answer"))
			s.send(step(mqtt.Success, "again"))
			other := step(mqtt.ContinueAuthentication, "")
			other.Properties.SetAuthMethod("OTHER")
			s.send(other)
			s.expect(&packet.Disconnect{Code: mqtt.ProtocolError})
		}
		if got := strings.Join(auth.steps, ", "); got != "start, challenge, finish forged, start, challenge, finish proved, start, once more, finish again" {
			t.Error(got)
		}
	})
}

// Without a method in CONNECT the client sends no AUTH [MQTT-4.12.0-7].
func TestNoAuthenticationUnasked(t *testing.T) {
	run(t, Options{Version: mqtt.V5}, func(t *testing.T, b *bench) {
		s, p := b.accept(packet.Connack{})
		if p.Properties.Has(packet.PropAuthMethod) {
			t.Errorf("%+v", p.Properties)
		}
		synctest.Wait()
		if err := b.c.Reauthenticate(t.Context()); err == nil {
			t.Error("re-authenticates")
		}
		b.publish(0, "next")
		s.expect(pub(0, 0, "next"))
	})
}

// Who the server is, is asked only where it has let us in; a refusal is told as the server put it.
func TestARefusalEndsAuthentication(t *testing.T) {
	auth := &scram{}
	run(t, Options{Version: mqtt.V5, Auth: auth}, func(t *testing.T, b *bench) {
		b.accept(packet.Connack{Code: mqtt.NotAuthorized})
		if st := b.state(); st.Reason != mqtt.NotAuthorized {
			t.Errorf("%+v", st)
		}
		if got := strings.Join(auth.steps, ", "); got != "start" {
			t.Error(got)
		}
	})
}

// step is an AUTH packet.
func step(code mqtt.ReasonCode, method, data string) *packet.Auth {
	p := &packet.Auth{Code: code}
	p.Properties.SetAuthMethod(method)
	p.Properties.SetAuthData([]byte(data))
	return p
}

// slow is an Authenticator that begins only when it is let, and sees that no two of its methods are at work at once.
type slow struct {
	scram
	t     *testing.T
	busy  bool
	let   chan struct{}
	calls int
}

func (a *slow) Start(ctx context.Context) ([]byte, error) {
	if a.busy {
		a.t.Error("two methods at once")
	}
	a.busy = true
	defer func() { a.busy = false }()
	if a.calls++; a.calls > 1 {
		select {
		case <-a.let:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	return a.scram.Start(ctx)
}

func (a *slow) Continue(ctx context.Context, d []byte) ([]byte, error) {
	if a.busy {
		a.t.Error("two methods at once")
	}
	return a.scram.Continue(ctx, d)
}

// The methods of an Authenticator are called one at a time, whatever the server sends and whoever asks: neither does an AUTH
// that nobody asked for reach it, nor a new connection while Reauthenticate is at work; and a second exchange is none
// before the first has ended.
func TestOneExchangeAtATime(t *testing.T) {
	a := &slow{t: t}
	run(t, Options{Version: mqtt.V5, Auth: a}, func(t *testing.T, b *bench) {
		a.let = make(chan struct{})
		s, _ := b.accept(packet.Connack{})
		synctest.Wait()
		answer := make(chan error)
		ask := func() { answer <- b.c.Reauthenticate(t.Context()) }
		go ask()
		synctest.Wait() // within Start
		s.send(step(mqtt.ContinueAuthentication, "TEST", "too early"))
		s.expect(&packet.Disconnect{Code: mqtt.ProtocolError})
		s.gone()
		s = <-b.conns // the new connection waits
		synctest.Wait()
		a.let <- struct{}{}
		if err := <-answer; err == nil {
			t.Error("re-authenticates on a connection that has ended")
		}
		a.let <- struct{}{}
		s.v = mqtt.V5
		s.next()
		s.send(&packet.Connack{})
		synctest.Wait()

		go ask()
		synctest.Wait()
		a.let <- struct{}{}
		s.expect(step(mqtt.ReAuthenticate, "TEST", "hello"))
		if err := <-answer; err != nil {
			t.Fatal(err)
		}
		if err := b.c.Reauthenticate(t.Context()); err == nil || !strings.Contains(err.Error(), "under way") {
			t.Errorf("a second exchange: %v", err)
		}
		s.send(step(mqtt.Success, "TEST", "proved"))
		synctest.Wait()
		go ask()
		synctest.Wait()
		a.let <- struct{}{}
		s.expect(step(mqtt.ReAuthenticate, "TEST", "hello"))
		<-answer
	})
	if got := strings.Join(a.steps, ", "); got != "start, finish , start, start, finish , start, finish proved, start" {
		t.Error(got)
	}
}

// Who waits for his turn gives up with his context.
func TestReauthenticateGivesUpWithItsContext(t *testing.T) {
	a := &slow{t: t}
	run(t, Options{Version: mqtt.V5, Auth: a}, func(t *testing.T, b *bench) {
		b.accept(packet.Connack{})
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		other := make(chan error)
		go func() { other <- b.c.Reauthenticate(ctx) }()
		synctest.Wait()
		if err := b.c.Reauthenticate(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		if err := <-other; !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
	})
}

// Where nothing can be said, nothing is asked of the authenticator; and what it cannot begin is not sent.
func TestExchangesThatDoNotBegin(t *testing.T) {
	a := &reluctant{}
	run(t, Options{Version: mqtt.V5, Auth: a}, func(t *testing.T, b *bench) {
		s := <-b.conns
		s.gone()
		if st := b.state(); st.Err == nil || !strings.Contains(st.Err.Error(), "the token is not there") {
			t.Errorf("%+v", st)
		}
		if err := b.c.Reauthenticate(t.Context()); err == nil || !strings.Contains(err.Error(), "no connection") {
			t.Error(err)
		}
		if a.asked != 1 {
			t.Errorf("asked %d times", a.asked)
		}
	})
}

// reluctant is an Authenticator that cannot begin.
type reluctant struct {
	scram
	asked int
}

func (a *reluctant) Start(context.Context) ([]byte, error) {
	a.asked++
	return nil, errors.New("the token is not there")
}

// What ends an exchange before it is over: the authenticator's own doubt, another method [MQTT-4.12.0-5], a success that only
// CONNACK can tell.
func TestExchangesThatFail(t *testing.T) {
	other := &packet.Connack{}
	other.Properties.SetAuthMethod("OTHER")
	for _, c := range []struct {
		name   string
		packet packet.Packet
		want   mqtt.ReasonCode
		says   string
	}{
		{"another method", step(mqtt.ContinueAuthentication, "OTHER", ""), mqtt.ProtocolError, "method"},
		{"no method", &packet.Auth{Code: mqtt.ContinueAuthentication}, mqtt.ProtocolError, "method"},
		{"another method in CONNACK", other, mqtt.ProtocolError, "method"},
		{"success before CONNACK", step(mqtt.Success, "TEST", ""), mqtt.ProtocolError, "AUTH"},
		{"authenticator has doubts", step(mqtt.ContinueAuthentication, "TEST", "doubtful"), ends, "this is not what was agreed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			run(t, Options{Version: mqtt.V5, Auth: &scram{}}, func(t *testing.T, b *bench) {
				s := <-b.conns
				s.v = mqtt.V5
				s.next()
				s.send(c.packet)
				if c.want != ends {
					s.expect(&packet.Disconnect{Code: c.want})
				}
				s.gone()
				if st := b.state(); st.Err == nil || !strings.Contains(st.Err.Error(), c.says) {
					t.Errorf("%+v", st)
				}
			})
		})
	}
}
