package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/url"
	"time"

	"gateway/mqtt"
	"gateway/mqtt/packet"
)

// connect dials a server and exchanges CONNECT and CONNACK, with whatever AUTH is between. Where the
// version is open it tries the one that the server was found to speak, or 5.0; a refusal of that
// makes it 3.1.1 and tries once more.
func (c *Client) connect(ctx context.Context, u *url.URL, spoken *mqtt.Version) (*link, error) {
	v := c.opt.Version
	if v == 0 {
		if v = *spoken; v == 0 {
			v = mqtt.V5
		}
	}
	l, err := c.attempt(ctx, u, v)
	if err == nil {
		*spoken = v
		return l, nil
	}
	// Servers that do not know 5.0 say so, or just hang up on it.
	old := reasonOf(err) == mqtt.UnsupportedVersion || errors.Is(err, errSilent) && *spoken == 0
	if c.opt.Version == 0 && v == mqtt.V5 && old && c.opt.Auth == nil && ctx.Err() == nil {
		l, err2 := c.attempt(ctx, u, mqtt.V311)
		if err2 == nil {
			*spoken = mqtt.V311
			return l, nil
		}
		if reasonOf(err2) != mqtt.Success {
			err = err2
		}
		return nil, err
	}
	*spoken = 0 // it may have been replaced by another
	return nil, err
}

var errSilent = errors.New("server hung up instead of answering CONNECT")

func (c *Client) attempt(ctx context.Context, u *url.URL, v mqtt.Version) (*link, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, c.opt.ConnectTimeout, fmt.Errorf("no answer within %v", c.opt.ConnectTimeout))
	defer cancel()
	nc, err := c.dial(ctx, u)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil && !errors.Is(err, cause) {
			err = fmt.Errorf("%w (%w)", cause, err)
		}
		return nil, fmt.Errorf("mqtt client: %s: %w", shown(u), err)
	}
	stop := context.AfterFunc(ctx, func() { nc.Close() })
	l := newLink(c, nc, v)
	err = l.introduce(ctx, u)
	if e, ok := errors.AsType[*packet.Error](err); ok {
		l.sendDisconnect(e.Code) // what the server did wrong is told to it before we hang up [MQTT-4.13.1-1]
	}
	if !stop() {
		err = context.Cause(ctx)
	}
	if err != nil {
		nc.Close()
		return nil, fmt.Errorf("mqtt client: %s: %w", shown(u), err)
	}
	return l, nil
}

// introduce exchanges CONNECT and CONNACK.
func (l *link) introduce(ctx context.Context, u *url.URL) error {
	c := l.c
	req := c.connectPacket(u, l.v)
	if c.opt.Auth != nil {
		if err := c.auth.start(ctx, &req.Properties); err != nil {
			return err
		}
	}
	if err := l.send(req); err != nil {
		return err
	}
	ack, err := l.connack(ctx)
	if err != nil {
		return err
	}
	if ack.Code.IsError() {
		detail := ack.Properties.ReasonString
		if s := ack.Properties.ServerReference; s != "" {
			detail += " (server reference " + s + ")"
		}
		return &mqtt.ReasonError{Op: "connect", Code: ack.Code, Detail: detail}
	}
	// A session where a clean one was asked for is not ours [MQTT-3.2.2-2].
	if ack.SessionPresent && req.CleanStart {
		return wrong(packet.CONNACK, "MQTT-3.2.2-2", "server resumed a session although a clean start was asked for")
	}
	if n := ack.Properties.MaximumPacketSize; ack.Properties.Has(packet.PropMaximumPacketSize) && n < leastPacket {
		return fmt.Errorf("server takes packets of at most %d bytes, and an acknowledgement has up to %d", n, leastPacket)
	}
	l.agree(u, req, ack)
	return nil
}

func (c *Client) connectPacket(u *url.URL, v mqtt.Version) *packet.Connect {
	o := &c.opt
	c.mu.Lock()
	first := c.stats.Connects == 0
	// Before 5.0 nobody tells us an assigned identifier; and 3.1 takes no empty one.
	if c.id == "" && v != mqtt.V5 {
		c.id = randomID()
	}
	p := &packet.Connect{Version: v, ClientID: c.id, KeepAlive: seconds16(o.KeepAlive)}
	c.mu.Unlock()
	p.CleanStart = o.CleanStart && first || v != mqtt.V5 && o.SessionExpiry == 0
	user, password := o.Username, o.Password
	if user == "" && u.User != nil {
		user = u.User.Username()
		if s, ok := u.User.Password(); ok {
			password = []byte(s)
		}
	}
	p.HasUsername, p.Username = user != "", user
	p.HasPassword, p.Password = password != nil && (user != "" || v == mqtt.V5), password
	if w := o.Will; w != nil {
		p.Will = &packet.Will{Topic: w.Message.Topic, Payload: w.Message.Payload, QoS: w.Message.QoS, Retain: w.Message.Retain}
		p.Will.Properties.SetMessage(&w.Message)
		if w.Delay > 0 {
			p.Will.Properties.SetWillDelay(seconds32(w.Delay))
		}
	}
	if v == mqtt.V5 {
		q := &p.Properties
		if o.SessionExpiry > 0 {
			q.SetSessionExpiry(seconds32(o.SessionExpiry))
		}
		q.SetReceiveMaximum(o.ReceiveMaximum)
		q.SetMaximumPacketSize(o.MaxPacket)
		if o.TopicAliasesIn > 0 {
			q.SetTopicAliasMaximum(uint16(o.TopicAliasesIn))
		}
		if o.RequestResponse {
			q.SetRequestResponseInfo(true)
		}
		if len(o.User) > 0 {
			q.SetUser(o.User)
		}
	}
	return p
}

// seconds16 and seconds32 round up: a second more than wanted does no harm, 0 would mean off.
func seconds16(d time.Duration) uint16 { return uint16(min(seconds32(d), math.MaxUint16)) }

func seconds32(d time.Duration) uint32 {
	s := int64(d / time.Second)
	if d%time.Second > 0 {
		s++
	}
	return uint32(min(s, math.MaxUint32)) // which means never where it is an expiry
}

// leastPacket is the size in bytes of the largest acknowledgement that we send.
const leastPacket = 5

// connack reads up to CONNACK and answers the AUTH packets before it [MQTT-4.12.0-2].
func (l *link) connack(ctx context.Context) (*packet.Connack, error) {
	for {
		f, err := l.r.Next()
		if err != nil {
			if isClosed(err) {
				err = fmt.Errorf("%w (%w)", errSilent, err)
			}
			return nil, err
		}
		switch {
		case f.Type == packet.CONNACK:
			ack := new(packet.Connack)
			if err := ack.Decode(f, l.v); err != nil {
				return nil, err
			}
			if l.c.opt.Auth != nil && !ack.Code.IsError() {
				if err := l.c.auth.finish(ctx, f.Type, &ack.Properties); err != nil {
					return nil, err
				}
			}
			return ack, nil
		case f.Type == packet.AUTH && l.c.opt.Auth != nil:
			if err := l.authenticate(ctx, f); err != nil {
				return nil, err
			}
		default:
			return nil, wrong(f.Type, "MQTT-3.2.0-1", "server answers CONNECT with something else than CONNACK")
		}
	}
}

// agree takes over what CONNACK says.
func (l *link) agree(u *url.URL, req *packet.Connect, ack *packet.Connack) {
	o, q := &l.c.opt, &ack.Properties
	l.keepAlive = time.Duration(req.KeepAlive) * time.Second
	if q.Has(packet.PropServerKeepAlive) {
		l.keepAlive = time.Duration(q.ServerKeepAlive) * time.Second // [MQTT-3.2.2-21]
	}
	// A server that needs no sign of life from us, with a server keep alive of 0, is still asked for one of its
	// own: a dead link would not be noticed otherwise. PINGREQ is allowed at any time (3.1.2.10).
	if l.probe = l.keepAlive; l.probe == 0 {
		l.probe = o.KeepAlive
	}
	if l.probe > 0 {
		l.probe = max(l.probe, leastProbe)
	}
	l.window = o.MaxInflight
	receive := uint16(math.MaxUint16)
	if q.Has(packet.PropReceiveMaximum) {
		receive = q.ReceiveMaximum
		l.window = min(l.window, int(receive)) // [MQTT-3.3.4-9]
	}
	l.window2 = l.window
	if l.v != mqtt.V5 {
		l.window2 = min(l.window, silentQoS2)
	}
	l.maxPacket = math.MaxInt32
	if q.Has(packet.PropMaximumPacketSize) {
		l.maxPacket = int(min(q.MaximumPacketSize, math.MaxInt32)) // [MQTT-3.2.2-15]
	}
	l.maxQoS = mqtt.ExactlyOnce
	if q.Has(packet.PropMaximumQoS) {
		l.maxQoS = q.MaximumQoS // [MQTT-3.2.2-11]
	}
	l.noRetain = q.Has(packet.PropRetainAvailable) && !q.RetainAvailable // [MQTT-3.2.2-14]
	l.noWildcard = q.Has(packet.PropWildcardAvailable) && !q.WildcardAvailable
	l.noShared = q.Has(packet.PropSharedSubscriptionsAvl) && !q.SharedAvailable
	if q.Has(packet.PropTopicAliasMaximum) && o.TopicAliases > 0 {
		l.aliases = newAliases(min(o.TopicAliases, int(q.TopicAliasMaximum))) // [MQTT-3.2.2-17]
	}
	if l.v == mqtt.V5 {
		l.aliasesIn = make([]string, o.TopicAliasesIn+1)
	}
	id := req.ClientID
	if q.Has(packet.PropAssignedClientID) {
		id = q.AssignedClientID
	}
	server := *q
	server.AuthData = nil // aliases the reader's buffer
	l.state = State{
		Connected: true, URL: shown(u), Since: time.Now(), Version: l.v, SessionPresent: ack.SessionPresent, ClientID: id,
		KeepAlive: l.keepAlive, ReceiveMaximum: receive, MaxPacket: q.MaximumPacketSize, Server: server,
	}
}

// attach makes a link the client's connection.
func (c *Client) attach(l *link) {
	c.mu.Lock()
	defer c.mu.Unlock()
	present := l.state.SessionPresent
	// The server may have a session of an earlier process of ours, and that knows nothing of what is half done. 3.2.2.1.1 asks
	// for hanging up then, which would throw away what the server has for us; so it is taken over, with care.
	c.out.inherit(present, c.stats.Connects == 0)
	c.id = l.state.ClientID
	c.stats.Connects++
	c.out.restart(present)
	if !present {
		clear(c.in)
		c.resubscribe()
	}
	c.link = l
}

func (c *Client) detach(l *link) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.link = nil
	// Requests are no part of the session: those not answered are made again.
	var again []*request
	for _, r := range c.out.requests {
		if !r.abandoned {
			again = append(again, r)
		}
	}
	clear(c.out.requests)
	c.waiting = append(sortRequests(again), c.waiting...)
}

// reasonOf returns what the server said, Success if nothing.
func reasonOf(err error) mqtt.ReasonCode {
	if e, ok := errors.AsType[*mqtt.ReasonError](err); ok {
		return e.Code
	}
	return mqtt.Success
}

// isClosed tells whether the other side hung up without a word.
func isClosed(err error) bool {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return true
	}
	e, ok := errors.AsType[*net.OpError](err)
	return ok && !e.Timeout() && (e.Op == "read" || e.Op == "write")
}
