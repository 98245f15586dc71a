package broker

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"math"
	"net"
	"time"

	"gateway/mqtt"
	"gateway/mqtt/packet"
)

// accept answers CONNECT (3.1).
func (c *conn) accept(f packet.Frame) error {
	var p packet.Connect
	err := p.Decode(f, 0)
	c.version, c.bridge = p.Version, p.Bridge
	c.client.Version = p.Version
	if p.Properties.Has(packet.PropMaximumPacketSize) { // also of a CONNECT that proves malformed further on
		c.maxPacket = p.Properties.MaximumPacketSize
	}
	if err != nil {
		c.refuseConnect(packet.Code(err), err)
		return err
	}
	if code, err := c.admit(&p); err != nil {
		c.refuseConnect(code, err)
		return fmt.Errorf("broker: CONNECT of client %q refused: %w", p.ClientID, err)
	}
	return nil
}

// refuseConnect sends a refusing CONNACK where the version has one for the reason.
func (c *conn) refuseConnect(code mqtt.ReasonCode, err error) {
	ack := packet.Connack{Code: code}
	switch c.version {
	case mqtt.V31, mqtt.V311:
		switch code {
		case mqtt.MalformedPacket, mqtt.ProtocolError, mqtt.TopicNameInvalid:
			// A return code for it does not exist: the connection is closed [MQTT-3.1.4-1 of 3.1.1].
			c.seal(nil)
			return
		}
	case mqtt.V5:
		if p, ok := errors.AsType[*packet.Error](err); ok {
			ack.Properties.SetReasonString(p.Detail)
		}
	default:
		if code != mqtt.UnsupportedVersion {
			c.seal(nil)
			return
		}
		// Later versions understand the newest form, earlier ones the oldest [MQTT-3.1.2-2].
		if c.version > mqtt.V5 {
			c.version = mqtt.V5
		} else {
			c.version = mqtt.V31
		}
	}
	if c.maxPacket == 0 { // it was not read that far
		c.maxPacket = math.MaxUint32
	}
	c.seal(&ack)
}

// admit judges a CONNECT, joins the connection to its session and puts CONNACK into the output.
func (c *conn) admit(p *packet.Connect) (mqtt.ReasonCode, error) {
	b, o, ps := c.b, &c.b.opt, &p.Properties
	ack := packet.Connack{}
	aps := &ack.Properties
	if c.maxPacket == 0 {
		c.maxPacket = math.MaxUint32
	}
	if ps.Has(packet.PropAuthMethod) { // [MQTT-4.12.0-1]
		return mqtt.BadAuthenticationMethod, errors.New("authentication method is not supported")
	}
	if w := p.Will; w != nil {
		switch {
		case w.QoS > *o.MaxQoS: // [MQTT-3.2.2-12]
			return mqtt.QoSNotSupported, fmt.Errorf("will qos %d is more than %d", w.QoS, *o.MaxQoS)
		case w.Retain && o.NoRetain: // [MQTT-3.2.2-13]
			return mqtt.RetainNotSupported, errors.New("retained will")
		case o.MaxPayload > 0 && len(w.Payload) > o.MaxPayload:
			return mqtt.QuotaExceeded, fmt.Errorf("will of %d bytes: at most %d are taken", len(w.Payload), o.MaxPayload)
		}
	}
	if p.ClientID == "" {
		if o.NoEmptyClientID {
			return mqtt.ClientIDNotValid, errors.New("client identifier is empty")
		}
		p.ClientID = "auto-" + rand.Text()
		aps.SetAssignedClientID(p.ClientID) // [MQTT-3.2.2-16]
	}
	c.client.ID = p.ClientID
	if code, err := c.authenticate(p); err != nil {
		return code, err
	}
	keep := p.KeepAlive
	if o.ServerKeepAlive != 0 && p.Version == mqtt.V5 && (keep == 0 || keep > o.ServerKeepAlive) {
		keep = o.ServerKeepAlive
		aps.SetServerKeepAlive(keep) // [MQTT-3.1.2-21]
	}
	join := joining{clean: p.CleanStart, window: o.Limits.Inflight}
	if p.Version == mqtt.V5 {
		join.expiry = b.cappedExpiry(ps.SessionExpiry)
		if join.expiry != ps.SessionExpiry {
			aps.SetSessionExpiry(join.expiry)
		}
		c.noExpiry = ps.SessionExpiry == 0
		if ps.Has(packet.PropReceiveMaximum) { // [MQTT-3.3.4-9]
			join.window = min(join.window, int(ps.ReceiveMaximum))
		}
		c.aliasMax = min(ps.TopicAliasMaximum, maxAliasOut)
		c.offer(aps)
		if ps.RequestResponseInfo && o.ResponseInfoPrefix != "" {
			aps.SetResponseInfo(o.ResponseInfoPrefix + p.ClientID)
		}
	} else if !p.CleanStart {
		join.expiry = b.cappedExpiry(never)
	}
	if p.Will != nil {
		c.will = newWill(p.Will, c.client)
	}
	if out, err := ack.Append(nil, c.version); err != nil || uint32(len(out)) > c.maxPacket { // [MQTT-3.1.2-24]
		return mqtt.PacketTooLarge, errors.New("CONNACK is larger than the client's maximum packet size")
	}
	if code, err := b.attach(c, join, &ack); err != nil {
		return code, err
	}
	c.watch(time.Duration(keep) * time.Second)
	return mqtt.Success, nil
}

// maxAliasOut bounds the topic aliases that the broker makes for one client, maxAliasTopic the bytes of their topics.
const (
	maxAliasOut   = 64
	maxAliasTopic = 1024
)

// offer tells an MQTT 5.0 client what it can have, where that differs from the default (3.2.2.3).
func (c *conn) offer(ps *packet.Properties) {
	o := &c.b.opt
	ps.SetReceiveMaximum(o.ReceiveMaximum)
	ps.SetMaximumPacketSize(o.MaxPacketSize)
	if o.TopicAliasMaximum > 0 {
		ps.SetTopicAliasMaximum(o.TopicAliasMaximum)
	}
	if *o.MaxQoS < mqtt.ExactlyOnce { // [MQTT-3.2.2-9]
		ps.SetMaximumQoS(*o.MaxQoS)
	}
	if o.NoRetain {
		ps.SetRetainAvailable(false)
	}
	if o.NoWildcards {
		ps.SetWildcardAvailable(false)
	}
	if o.NoShared {
		ps.SetSharedAvailable(false)
	}
}

// authenticate finds out who the client is: by its certificate, by name and password, or nobody in
// particular.
func (c *conn) authenticate(p *packet.Connect) (mqtt.ReasonCode, error) {
	o := &c.b.opt
	if t, ok := c.nc.(interface{ ConnectionState() tls.ConnectionState }); ok {
		if certs := t.ConnectionState().VerifiedChains; len(certs) > 0 {
			c.client.Certificate = certs[0][0]
		}
	}
	if o.Auth != nil && (p.HasUsername || p.HasPassword || c.client.Certificate != nil) {
		ctx, cancel := context.WithTimeout(c.b.ctx, o.Limits.ConnectTimeout)
		defer cancel()
		user, err := o.Auth.Authenticate(ctx, c.client, p.Username, p.Password)
		if err != nil {
			if r, ok := errors.AsType[*mqtt.ReasonError](err); ok {
				return r.Code, err
			}
			return mqtt.ServerUnavailable, err
		}
		c.client.Username = user
		return mqtt.Success, nil
	}
	allowed := false
	switch o.Anonymous {
	case AnonymousAlways:
		allowed = true
	case AnonymousLoopback:
		ws, web := c.nc.(*wsConn)
		allowed = local(c.client.Addr) && !(web && ws.stranger)
	}
	if !allowed {
		return mqtt.NotAuthorized, errors.New("anonymous clients are not allowed here")
	}
	c.client.Username = ""
	return mqtt.Success, nil
}

// local tells whether an address is of this machine: loopback, a Unix socket or a pipe.
func local(a net.Addr) bool {
	switch a := a.(type) {
	case *net.TCPAddr:
		return a.IP.IsLoopback()
	case *net.UnixAddr:
		return true
	}
	return a != nil && a.Network() == "pipe"
}

// cappedExpiry is what the broker makes of a session expiry interval in seconds.
func (b *Broker) cappedExpiry(seconds uint32) uint32 {
	if limit := b.opt.MaxSessionExpiry; limit > 0 && int64(seconds) > int64(limit/time.Second) {
		return uint32(max(1, limit/time.Second))
	}
	return seconds
}

// joining is how a connection wants its session.
type joining struct {
	clean  bool
	expiry uint32
	window int
}

// attach joins a connection to the session of its client identifier: the one that is there, taken
// over from its connection if it has one [MQTT-3.1.4-3], or a new one [MQTT-3.1.2-4].
func (b *Broker) attach(c *conn, j joining, ack *packet.Connack) (mqtt.ReasonCode, error) {
	var after []func() // what must wait for the locks
	defer func() {
		for _, f := range after {
			f()
		}
	}()
	if !b.keeps(c.will.size()) {
		return mqtt.QuotaExceeded, errors.New("too many bytes of wills")
	}
	defer func() {
		if c.sess == nil {
			b.keeps(-c.will.size())
		}
	}()
	b.quiesce(c)
	defer b.mu.Unlock()
	if b.closed.Load() {
		return mqtt.ServerShuttingDown, errors.New("shutting down")
	}
	id := c.client.ID
	s := b.sessions[id]
	if s != nil {
		s.mu.Lock()
		if old := s.conn; old != nil {
			after = append(after, b.takeOver(s, old, j.clean))
		}
		if j.clean || s.expiry == 0 || s.ended {
			after = append(after, b.endLocked(s))
			s.mu.Unlock()
			s = nil
		}
	}
	if s == nil {
		if len(b.sessions) >= b.opt.Limits.Sessions || !b.keeps(len(id)) {
			return mqtt.QuotaExceeded, errors.New("too many sessions")
		}
		s = &session{b: b, id: id, num: b.journal.nextSession()}
		s.mu.Lock()
		b.sessions[id] = s
	} else {
		ack.SessionPresent = true // [MQTT-3.2.2-3]
	}
	defer s.mu.Unlock()
	c.sess = s
	s.ident.Store(c.client)
	if ack.SessionPresent && b.opt.ACL != nil {
		b.ReloadACL() // the identifier's session may be somebody else's now, routes must not remember who had it
		s.withhold(c.client)
	}
	s.window = j.window
	s.stopTimers()
	b.forgo(s.will) // the client came back before its will's delay was over [MQTT-3.1.3-9]
	s.will, s.left = nil, 0
	b.journal.bequest(s, c.will)
	s.setExpiry(j.expiry)
	if ack.SessionPresent || j.expiry != 0 {
		b.journal.session(s)
	}
	w := b.worker()
	c.packet(w, ack, 0)
	// What is in flight is sent again, after CONNACK.
	s.gen++
	s.conn, s.used, s.resend = c, 0, s.order.first
	s.online.Store(true)
	s.pump(w)
	after = append(after, w.done)
	b.connected.Add(1)
	b.pending.Add(-1)
	b.roomMade()
	b.log.Info("client connected", "client", id, "user", c.client.Username, "address", c.client.Addr, "version", c.version, "session", ack.SessionPresent)
	return mqtt.Success, nil
}

// quiesce stops the connection that the client's session has and waits until it handles no more
// packets: what it was still to say must not come after what its heir says. It returns with b.mu
// locked.
func (b *Broker) quiesce(heir *conn) {
	for {
		b.mu.Lock()
		s := b.sessions[heir.client.ID]
		if s == nil {
			return
		}
		s.mu.Lock()
		old := s.conn
		s.mu.Unlock()
		if old == nil {
			return
		}
		select {
		case <-old.idle:
			return
		default:
		}
		b.mu.Unlock()
		old.hearOut()
		select {
		case <-old.idle: // it ended by itself
			continue
		default:
		}
		stopped := old.stop(mqtt.SessionTakenOver, fmt.Errorf("broker: session taken over by %s", heir.client.Addr)) // [MQTT-3.1.4-3]
		old.flush()
		<-old.idle
		// Its DISCONNECT may have been in hand, neither unread nor handled: then it had left before.
		if stopped && !old.left {
			b.stats.takeOvers.Add(1)
			b.rivals.note(b, s.id, old.client.Addr, heir.client.Addr)
		}
	}
}

// takeOver parts a session from a connection that has ended and has not cleaned up yet. It needs s.mu
// and returns what is to be done without locks.
func (b *Broker) takeOver(s *session, old *conn, clean bool) func() {
	will := old.will
	old.will = nil
	if will != nil && will.delay > 0 && !clean && s.expiry != 0 {
		b.forgo(will) // the session goes on within the delay [MQTT-3.1.3-9]
		will = nil
	}
	s.conn = nil
	s.dropQoS0()
	b.connected.Add(-1)
	return func() { b.publishWill(will, s) }
}

// detach is called by a connection when it ends. It does nothing to a session that has another one.
func (b *Broker) detach(c *conn) {
	s := c.sess
	b.mu.Lock()
	s.mu.Lock()
	if s.conn != c {
		s.mu.Unlock()
		b.mu.Unlock()
		return
	}
	s.conn = nil
	s.online.Store(false)
	b.connected.Add(-1)
	s.dropQoS0()
	will := c.will
	c.will = nil
	var ended func()
	switch {
	case s.expiry == 0 || b.sessions[s.id] != s:
		ended = b.endLocked(s)
	default:
		s.left = b.now()
		b.journal.left(s)
		if will != nil && will.delay > 0 && (!b.closed.Load() || b.journal != nil) {
			s.will, will = will, nil
		}
		s.startTimers()
	}
	s.mu.Unlock()
	b.mu.Unlock()
	if ended != nil {
		ended()
	}
	b.publishWill(will, s)
}

// startTimers has the session end, and the will that waits published, when it is time for a session that lost its
// connection at s.left. It needs mu.
func (s *session) startTimers() {
	b := s.b
	gone := time.Duration(b.now() - s.left)
	if s.expiry != never {
		s.endTimer = time.AfterFunc(s.lifetime()-gone, func() { b.expire(s) })
	}
	if s.will != nil {
		s.willTimer = time.AfterFunc(min(s.will.delay, s.lifetime())-gone, func() { b.delayed(s) })
	}
}

// lifetime is how long the session lives without a connection.
func (s *session) lifetime() time.Duration {
	if s.expiry == never {
		return math.MaxInt64
	}
	return time.Duration(s.expiry) * time.Second
}

// delayed publishes a will whose delay is over.
func (b *Broker) delayed(s *session) {
	s.mu.Lock()
	will := s.will
	s.will = nil
	s.mu.Unlock()
	b.publishWill(will, s)
}

// expire ends a session that had no connection for long enough.
func (b *Broker) expire(s *session) {
	b.mu.Lock()
	s.mu.Lock()
	var ended func()
	if s.conn == nil && !s.ended && s.endTimer != nil {
		ended = b.endLocked(s)
		b.stats.expiredSessions.Add(1)
	}
	s.mu.Unlock()
	b.mu.Unlock()
	if ended != nil {
		ended()
	}
}

// stopTimers cancels what was to happen to a session without connection. It needs mu.
func (s *session) stopTimers() {
	for _, t := range []**time.Timer{&s.willTimer, &s.endTimer} {
		if *t != nil {
			(*t).Stop()
			*t = nil
		}
	}
}

// setExpiry changes how long the session outlives its connection. It needs mu.
func (s *session) setExpiry(seconds uint32) {
	s.expiry = seconds
	was := s.durable.Swap(seconds != 0 && s.b.journal != nil)
	if was && seconds == 0 {
		s.b.journal.end(s)
	}
}

// dropQoS0 forgets what waits at QoS 0: it is not kept for a client that is away. It needs mu.
func (s *session) dropQoS0() {
	for d := s.queue.first; d != nil; {
		next := d.next
		if d.qos == 0 {
			s.unqueue(d)
			s.b.stats.dropped.Add(1)
		}
		d = next
	}
}

// withhold drops what waits for the session and the client may not receive: it may have connected as
// somebody else before, or the ACL may have changed. It needs mu.
func (s *session) withhold(c *Client) {
	for d := s.order.first; d != nil; {
		next := d.next
		if d.msg != nil && !d.released && !s.b.allow(c, Receive, d.msg.Topic) {
			s.b.stats.refused.Add(1)
			s.forget(d)
		}
		d = next
	}
	for d := s.queue.first; d != nil; {
		next := d.next
		if !s.b.allow(c, Receive, d.msg.Topic) {
			s.b.stats.refused.Add(1)
			s.unqueue(d)
			s.b.journal.done(s, d.msg)
			s.recycle(d)
		}
		d = next
	}
}

// endLocked ends a session. It needs b.mu and s.mu and returns what is to be done without locks: a
// will that was waiting is due [MQTT-3.1.3-9], and other members of shared subscriptions get
// what this one was still owed.
func (b *Broker) endLocked(s *session) func() {
	if !s.ended {
		b.keeps(-len(s.id))
	}
	s.ended = true
	s.online.Store(false)
	s.stopTimers()
	will := s.will
	s.will = nil
	for _, sub := range s.subs {
		sub.gone = true
		b.subs.remove(sub)
	}
	s.subs = nil
	if s.durable.Load() {
		b.journal.end(s)
		s.durable.Store(false)
	}
	orphans := s.drop()
	if b.sessions[s.id] == s {
		delete(b.sessions, s.id)
	}
	return func() {
		b.publishWill(will, s)
		b.bequeath(orphans)
	}
}

// bequeath gives messages of shared subscriptions to other members (4.8.2).
func (b *Broker) bequeath(orphans []*delivery) {
	if len(orphans) == 0 {
		return
	}
	w := b.worker()
	defer w.done()
	for _, d := range orphans {
		g := b.subs.group(d.group.filter) // it may have begun anew
		if g == nil {
			continue
		}
		heir := g.pick(func(s *session) bool { return b.mayHave(s, d.msg.Topic) })
		if heir == nil {
			continue
		}
		t := ofMember(heir)
		t.qos = min(t.qos, d.qos)
		m := *d.msg
		m.seq = b.journal.number()
		w.pub.load(&m, b.now())
		b.journal.enter()
		w.pub.seq = m.seq
		b.journal.message(w, nil, []target{t}, nil, 0)
		b.share(w, &t)
		b.journal.leave()
	}
}
