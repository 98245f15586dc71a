package client

import (
	"context"
	"errors"
	"fmt"

	"gateway/mqtt"
	"gateway/mqtt/packet"
)

// An auth calls an Authenticator, one method at a time: a server that sends AUTH when it likes, or a connection that is made
// while Reauthenticate is at work, must not have two at once.
type auth struct {
	a    Authenticator
	turn chan struct{} // holds a value while a method is at work
}

func newAuth(a Authenticator) auth { return auth{a, make(chan struct{}, 1)} }

// call waits for its turn and calls f.
func (a auth) call(ctx context.Context, f func() error) error {
	select {
	case a.turn <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { <-a.turn }()
	if err := f(); err != nil {
		return fmt.Errorf("authentication: %w", err)
	}
	return nil
}

// say puts the method and what the authenticator says into a packet.
func (a auth) say(p *packet.Properties, data []byte) {
	p.SetAuthMethod(a.a.Method())
	if data != nil {
		p.SetAuthData(data)
	}
}

func (a auth) start(ctx context.Context, p *packet.Properties) error {
	return a.call(ctx, func() error {
		data, err := a.a.Start(ctx)
		a.say(p, data)
		return err
	})
}

// finish ends an exchange with the packet in which the server lets us in. CONNACK may do so without the method
// where a server knows nothing of it; what that is worth, Finish says.
func (a auth) finish(ctx context.Context, t packet.Type, p *packet.Properties) error {
	if p.Has(packet.PropAuthMethod) || t == packet.AUTH {
		if err := a.same(t, p); err != nil {
			return err
		}
	}
	return a.call(ctx, func() error { return a.a.Finish(ctx, p.AuthData) })
}

func (a auth) same(t packet.Type, p *packet.Properties) error {
	if p.AuthMethod != a.a.Method() {
		return wrong(t, "MQTT-4.12.0-5", "authentication method is not the one of CONNECT")
	}
	return nil
}

// authenticate answers one AUTH packet (4.12), before CONNACK or after Reauthenticate.
func (l *link) authenticate(ctx context.Context, f packet.Frame) error {
	var in packet.Auth
	if err := in.Decode(f, l.v); err != nil {
		return err
	}
	a := l.c.auth
	if err := a.same(f.Type, &in.Properties); err != nil {
		return err
	}
	l.c.mu.Lock()
	connecting, exchanging := l.c.link != l, l.reauth
	if in.Code == mqtt.Success {
		l.reauth = false
	}
	l.c.mu.Unlock()
	switch {
	case in.Code == mqtt.ContinueAuthentication && (connecting || exchanging):
		out := &packet.Auth{Code: mqtt.ContinueAuthentication}
		err := a.call(ctx, func() error {
			data, err := a.a.Continue(ctx, in.Properties.AuthData)
			a.say(&out.Properties, data)
			return err
		})
		if err != nil {
			return err
		}
		return l.queue(out)
	case in.Code == mqtt.Success && exchanging:
		return a.finish(ctx, f.Type, &in.Properties)
	}
	return wrong(f.Type, "MQTT-4.12.0-2", "server sends AUTH when no exchange is under way, or asks to re-authenticate")
}

// Reauthenticate begins a new exchange on the connection that is there (4.12.1), one at a time. Whether it ends well
// is seen by Authenticator.Finish, or by the server closing the connection.
func (c *Client) Reauthenticate(ctx context.Context) error {
	if c.opt.Auth == nil {
		return errors.New("mqtt client: re-authentication needs Options.Auth")
	}
	p := &packet.Auth{Code: mqtt.ReAuthenticate}
	err := c.auth.call(ctx, func() error {
		// While it is our turn no new connection begins an exchange.
		c.mu.Lock()
		l := c.link
		busy := l != nil && l.reauth
		c.mu.Unlock()
		switch {
		case l == nil || l.v != mqtt.V5:
			return errors.New("there is no connection of 5.0")
		case busy:
			return errors.New("an exchange is under way")
		}
		data, err := c.opt.Auth.Start(ctx)
		if err != nil {
			return err
		}
		c.auth.say(&p.Properties, data)
		c.mu.Lock()
		l.reauth = true
		c.mu.Unlock()
		return l.queue(p)
	})
	if err != nil {
		return fmt.Errorf("mqtt client: %w", err)
	}
	return nil
}
