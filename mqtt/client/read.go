package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"gateway/mqtt"
	"gateway/mqtt/packet"
)

func (l *link) read(ctx context.Context) {
	err := l.readPackets(ctx)
	if e, ok := errors.AsType[*packet.Error](err); ok {
		// What the server did wrong is told to it before we hang up [MQTT-4.13.1-1].
		l.stop(e.Code)
		if l.nc.SetReadDeadline(time.Now().Add(lingerTime)) == nil {
			io.Copy(io.Discard, l.nc)
		}
	}
	l.end(err)
}

func (l *link) readPackets(ctx context.Context) error {
	for {
		f, err := l.r.Next()
		if err != nil {
			return err
		}
		switch f.Type {
		case packet.PUBLISH:
			err = l.received(f)
		case packet.PUBACK:
			err = l.puback(f)
		case packet.PUBREC:
			err = l.pubrec(f)
		case packet.PUBREL:
			err = l.pubrel(f)
		case packet.PUBCOMP:
			err = l.pubcomp(f)
		case packet.SUBACK:
			err = l.suback(f)
		case packet.UNSUBACK:
			err = l.unsuback(f)
		case packet.PINGRESP:
			err = new(packet.Pingresp).Decode(f, l.v)
		case packet.DISCONNECT:
			err = l.disconnected(f)
		case packet.AUTH:
			if l.c.opt.Auth == nil {
				err = wrong(f.Type, "MQTT-4.12.0-6", "server sends AUTH though none was asked for")
				break
			}
			err = l.authenticate(ctx, f)
		default:
			err = wrong(f.Type, "", "server sends what only clients may, or twice what it may once")
		}
		if err != nil {
			return err
		}
	}
}

func wrong(t packet.Type, statement, detail string) error {
	return &packet.Error{Code: mqtt.ProtocolError, Type: t, Statement: statement, Detail: detail}
}

func (l *link) disconnected(f packet.Frame) error {
	if l.v != mqtt.V5 {
		return wrong(f.Type, "", "before 5.0 a server sends none")
	}
	var p packet.Disconnect
	if err := p.Decode(f, l.v); err != nil {
		return err
	}
	if p.Properties.Has(packet.PropSessionExpiry) {
		return wrong(f.Type, "MQTT-3.14.2-2", "server sends a session expiry interval")
	}
	detail := p.Properties.ReasonString
	if s := p.Properties.ServerReference; s != "" {
		detail += " (server reference " + s + ")"
	}
	return fmt.Errorf("mqtt client: disconnected by the server: %w", &mqtt.ReasonError{Op: "connection", Code: p.Code, Detail: detail})
}

// received queues a message for the handlers.
func (l *link) received(f packet.Frame) error {
	p, c := &l.in, l.c
	if err := p.Decode(f, l.v); err != nil {
		return err
	}
	if err := l.resolveAlias(p); err != nil {
		return err
	}
	in := incoming{m: p.Message(), id: p.ID, link: l}
	in.m.Payload = bytes.Clone(p.Payload)
	in.m.CorrelationData = bytes.Clone(in.m.CorrelationData)
	in.m.User = slices.Clone(in.m.User)

	c.mu.Lock()
	defer c.mu.Unlock()
	if p.QoS == mqtt.ExactlyOnce {
		if x := c.in[p.ID]; x != nil {
			// The same message again [MQTT-4.3.3-10]: PUBREC is due, now or when it is handled.
			c.stats.Duplicates++
			if x.link != l {
				x.link = l
				l.unacked++
			}
			if x.handled {
				return l.answer(&packet.Pubrec{ID: p.ID})
			}
			return nil
		}
	}
	if p.QoS > 0 {
		// Mosquitto 2.0.11 drifts beyond our receive maximum where messages come faster than we handle them:
		// 895 of 256 after 50,000. To hang up, as 3.3.4 asks for, would lose what a session without expiry was
		// owed, again and again; memory is bounded by MaxQueuedBytes all the same [MQTT-3.3.4-9].
		if l.unacked++; l.v == mqtt.V5 && l.unacked > int(c.opt.ReceiveMaximum) && !l.exceeded {
			l.exceeded = true
			c.log.Warn("mqtt client: the server sends more at once than our receive maximum allows; taking it", "url", l.state.URL, "maximum", c.opt.ReceiveMaximum)
		}
	}
	if p.QoS == mqtt.ExactlyOnce {
		in.two = &exchange{link: l}
	}
	if !c.inbox.put(in, c.opt.MaxQueuedBytes) {
		if p.QoS > 0 {
			// It will be sent again when we have come back and, it is to be hoped, caught up.
			return &packet.Error{Code: mqtt.QuotaExceeded, Type: f.Type, Detail: "handlers are too slow for what the server sends"}
		}
		if c.stats.Dropped++; !l.warned {
			l.warned = true
			c.log.Warn("mqtt client: handlers are too slow: messages of qos 0 are dropped", "url", l.state.URL, "topic", p.Topic)
		}
		return nil
	}
	if in.two != nil {
		c.in[p.ID] = in.two
	}
	c.stats.Received++
	return nil
}

func (l *link) resolveAlias(p *packet.Publish) error {
	if !p.Properties.Has(packet.PropTopicAlias) {
		return nil
	}
	a := int(p.Properties.TopicAlias)
	if a >= len(l.aliasesIn) {
		return &packet.Error{Code: mqtt.TopicAliasInvalid, Type: packet.PUBLISH, Statement: "MQTT-3.1.2-26", Detail: "topic alias is greater than our maximum"}
	}
	if p.Topic != "" {
		l.aliasesIn[a] = p.Topic
	} else if p.Topic = l.aliasesIn[a]; p.Topic == "" {
		return wrong(packet.PUBLISH, "", "topic alias is not known")
	}
	return nil
}

// answer is enqueue and kick, with c.mu held.
func (l *link) answer(p packet.Packet) error {
	err := l.enqueue(p)
	l.kick()
	return err
}

// acknowledge follows the handlers of a message, in the order in which messages came [MQTT-4.6.0-2]
// [MQTT-4.6.0-3].
func (c *Client) acknowledge(in *incoming) {
	if in.m.QoS == 0 {
		return
	}
	l := in.link
	var err error
	c.mu.Lock()
	switch x := in.two; {
	case x != nil:
		x.handled = true
		// Where the connection is gone it is answered when it comes again.
		if l = x.link; l == c.link && c.in[in.id] == x {
			err = l.answer(&packet.Pubrec{ID: in.id})
		}
	case l == c.link:
		l.unacked--
		err = l.answer(&packet.Puback{ID: in.id})
	}
	c.mu.Unlock()
	if err != nil {
		l.end(err)
	}
}

// mild makes a PUBACK or PUBREC whose reason code is none of its own [MQTT-3.4.2-1] mean what it most
// likely does: to hang up would be to send the message for ever. Below 0x80 it is a success: mochi sends
// the QoS there, and the message has arrived. Above it is a refusal, such as a packet that is too large for
// what is behind the server; one that is busy asks to wait.
func mild(f packet.Frame) {
	if len(f.Body) < 3 {
		return
	}
	switch code := mqtt.ReasonCode(f.Body[2]); code {
	case mqtt.Success, mqtt.NoMatchingSubscribers, mqtt.UnspecifiedError, mqtt.ImplementationError, mqtt.NotAuthorized,
		mqtt.TopicNameInvalid, mqtt.PacketIDInUse, mqtt.QuotaExceeded, mqtt.PayloadFormatInvalid:
	case mqtt.ServerBusy, mqtt.ServerUnavailable, mqtt.MessageRateTooHigh, mqtt.ReceiveMaximumExceeded:
		f.Body[2] = byte(mqtt.QuotaExceeded)
	default:
		f.Body[2] = byte(mqtt.Success)
		if code.IsError() {
			f.Body[2] = byte(mqtt.UnspecifiedError)
		}
	}
}

func (l *link) puback(f packet.Frame) error {
	var p packet.Puback
	mild(f)
	if err := p.Decode(f, l.v); err != nil {
		return err
	}
	c := l.c
	c.mu.Lock()
	o := c.out.byID[p.ID]
	if o == nil || !o.sent {
		first := !l.strayed
		l.strayed = true
		c.mu.Unlock()
		if first {
			// It may be late and mean nothing; but from a server that counts wrongly no other sign comes.
			c.log.Warn("mqtt client: the server acknowledges a packet identifier that is not in flight; the message it may mean stays unacknowledged",
				"url", l.state.URL, "id", p.ID)
		}
		return nil
	}
	if o.qos != mqtt.AtLeastOnce && (l.v == mqtt.V5 || o.released) {
		c.mu.Unlock()
		return wrong(f.Type, "MQTT-4.3.3-3", "answers a message of qos 2")
	}
	first := o.qos != mqtt.AtLeastOnce && !l.lowered
	l.lowered = l.lowered || first
	l.complete(o, p.Code, &p.Properties)
	if first {
		// RabbitMQ before 4.0 takes qos 2 for 1, which 3.1.1 has no way to say beforehand. The message has arrived; to
		// hang up would be to send it for ever.
		c.log.Warn("mqtt client: the server takes qos 2 for qos 1: messages may arrive twice", "url", l.state.URL)
	}
	return nil
}

// complete ends a message as the server says. It is called with c.mu held, and releases it.
func (l *link) complete(o *outgoing, code mqtt.ReasonCode, p *packet.Properties) {
	c := l.c
	l.acked = time.Duration(l.lastRead.Load())
	// What was sent long before is passed over; only a new connection may send it again [MQTT-4.4.0-1].
	skipped := l.ackTimeout > 0 && time.Duration(o.sentAt-c.out.head.sentAt)*time.Second >= l.ackTimeout
	blocked := c.out.unsent != nil
	c.out.remove(o)
	var err error
	switch {
	case o.m == nil: // withdrawn
	case code.IsError():
		c.stats.Refused++
		err = refusal("publish", code, p.ReasonString)
	default:
		c.stats.Acked++
	}
	c.mu.Unlock()
	if blocked {
		l.kick()
	}
	c.finish(o, err)
	if skipped {
		l.end(fmt.Errorf("server acknowledges messages, but not one that it was sent %v before", l.ackTimeout))
	}
}

func (l *link) pubrec(f packet.Frame) error {
	var p packet.Pubrec
	mild(f)
	if err := p.Decode(f, l.v); err != nil {
		return err
	}
	c := l.c
	c.mu.Lock()
	o := c.out.byID[p.ID]
	switch {
	case o != nil && !o.sent && o.qos == mqtt.ExactlyOnce && !p.Code.IsError() && !c.out.doubtful(p.ID):
		// Said before it was asked again on this connection. It has the message: to send that again after the PUBREL
		// would make it another one.
		o.released = true
		c.mu.Unlock()
		return nil
	case o == nil || !o.sent:
		defer c.mu.Unlock()
		if p.Code.IsError() {
			return nil
		}
		return l.answer(&packet.Pubrel{ID: p.ID, Code: mqtt.PacketIDNotFound})
	case o.qos != mqtt.ExactlyOnce:
		c.mu.Unlock()
		return wrong(f.Type, "MQTT-4.3.2-3", "answers a message of qos 1")
	case p.Code.IsError() && !o.released:
		l.complete(o, p.Code, &p.Properties) // and no PUBREL [MQTT-4.3.3-4]
		return nil
	}
	defer c.mu.Unlock()
	l.acked = time.Duration(l.lastRead.Load())
	c.out.settle(p.ID)
	o.released = true // from here on the message is not sent again [MQTT-4.3.3-6]
	return l.answer(&packet.Pubrel{ID: p.ID})
}

func (l *link) pubcomp(f packet.Frame) error {
	var p packet.Pubcomp
	if err := p.Decode(f, l.v); err != nil {
		return err
	}
	c := l.c
	c.mu.Lock()
	o := c.out.byID[p.ID]
	if o == nil || !o.sent || !o.released {
		c.out.settle(p.ID) // it answers the PUBREL before a PUBLISH
		c.mu.Unlock()
		return nil
	}
	// A server that has no such identifier any more has had the message: PUBREC said so.
	l.complete(o, mqtt.Success, &p.Properties)
	return nil
}

func (l *link) pubrel(f packet.Frame) error {
	var p packet.Pubrel
	if err := p.Decode(f, l.v); err != nil {
		return err
	}
	c := l.c
	c.mu.Lock()
	defer c.mu.Unlock()
	out := packet.Pubcomp{ID: p.ID}
	if x := c.in[p.ID]; x == nil {
		out.Code = mqtt.PacketIDNotFound
	} else {
		delete(c.in, p.ID)
		if x.link == l {
			l.unacked--
		}
	}
	return l.answer(&out)
}
