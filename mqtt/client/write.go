package client

import (
	"time"

	"gateway/mqtt"
	"gateway/mqtt/packet"
)

// A verdict is a message that is done without an answer of the server.
type verdict struct {
	o   *outgoing
	err error
}

// write writes whatever there is, as much at once as there is.
func (l *link) write() {
	var buf []byte
	var done []verdict
	for {
		l.c.mu.Lock()
		pinging := l.ping && !l.stopping
		l.ping = false
		buf, done = l.fill(buf[:0], done[:0])
		if pinging {
			buf, _ = (&packet.Pingreq{}).Append(buf, l.v) // cannot fail
		}
		last := l.stopping && len(buf) == 0
		if last {
			buf = append(buf, l.final...)
		}
		l.c.mu.Unlock()

		err := l.writeAll(buf)
		if pinging && err == nil {
			l.pinged.CompareAndSwap(0, l.lastWrite.Load())
		}
		for i, v := range done {
			if err != nil && v.err == nil {
				v.err = ErrLost
			}
			l.c.finish(v.o, v.err)
			done[i] = verdict{}
		}
		switch {
		case err != nil:
			l.end(err)
			return
		case last:
			if w, ok := l.nc.(interface{ CloseWrite() error }); ok {
				w.CloseWrite() // which is no more than a courtesy
			}
			return // who called stop knows the reason for the end, and gives the server time to close
		case len(buf) > 0 || len(done) > 0:
			continue
		}
		if cap(buf) > 2*batchBytes {
			buf = nil
		}
		select {
		case <-l.wake:
		case <-l.dead:
			return
		}
	}
}

// writeAll writes a little at a time, each in time: on a slow line much takes long, which is no fault.
func (l *link) writeAll(b []byte) error {
	l.writing.Store(true)
	defer l.writing.Store(false)
	for len(b) > 0 {
		if err := l.nc.SetWriteDeadline(time.Now().Add(l.c.opt.WriteTimeout)); err != nil {
			return err
		}
		n, err := l.nc.Write(b[:min(len(b), writeBytes)])
		if err != nil {
			return err
		}
		b = b[n:]
		l.lastWrite.Store(int64(time.Since(l.start)))
	}
	return nil
}

// fill appends what is to be written now: answers, then requests, then messages. The messages of
// QoS 0 among them, and those that the server cannot take, are done. Called with c.mu held.
func (l *link) fill(buf []byte, done []verdict) ([]byte, []verdict) {
	buf = append(buf, l.control...)
	if l.control = l.control[:0]; cap(l.control) > batchBytes {
		l.control = nil
	}
	if l.stopping {
		return buf, done
	}
	buf = l.fillRequests(buf)
	now := time.Since(l.start)
	for b := &l.c.out; b.unsent != nil && len(buf) < batchBytes; {
		o := b.unsent
		if o.m == nil && o.qos != mqtt.ExactlyOnce {
			b.remove(o) // withdrawn before it was sent again
			continue
		}
		if o.m == nil || o.released {
			// PUBREC came on an earlier connection [MQTT-4.4.0-1]; or the message was withdrawn, and the server may hold it:
			// PUBREL ends the exchange, whether or not it does, before the identifier is used for another message.
			o.released = true
			buf, _ = (&packet.Pubrel{ID: o.id}).Append(buf, l.v) // cannot fail: it has an identifier
			if b.sending(uint32(now / time.Second)) {
				l.acked = now
			}
			continue
		}
		if o.qos > 0 && b.inflight >= l.window || o.qos == mqtt.ExactlyOnce && b.inflight2 >= l.window2 {
			break
		}
		var id uint16
		if o.qos > 0 {
			if id = o.id; id == 0 {
				if id = b.newID(); id == 0 {
					break // all are in use; the next acknowledgement frees one
				}
			}
		}
		before := len(buf)
		if o.qos == mqtt.ExactlyOnce && b.doubtful(id) {
			buf, _ = (&packet.Pubrel{ID: id}).Append(buf, l.v) // cannot fail: it has an identifier
		}
		var err error
		if buf, err = l.publish(buf, o, id); err != nil {
			buf = buf[:before]
			l.c.stats.Refused++
			done = append(done, verdict{b.giveBack(o), err})
			continue
		}
		if o.qos == 0 {
			b.remove(o)
			l.c.stats.Published++
			l.c.stats.Acked++
			done = append(done, verdict{o, nil})
			continue
		}
		if o.id == 0 {
			o.id = id
			b.byID[id] = o
		}
		if o.tried {
			l.c.stats.Resent++
		} else {
			l.c.stats.Published++
		}
		o.tried, o.counted = true, true
		b.inflight++
		if o.qos == mqtt.ExactlyOnce {
			b.inflight2++
		}
		if b.sending(uint32(now / time.Second)) {
			l.acked = now
		}
	}
	return buf, done
}

// publish appends a message, or says why this server cannot take it.
func (l *link) publish(buf []byte, o *outgoing, id uint16) ([]byte, error) {
	m := o.m
	switch {
	case m.QoS > l.maxQoS:
		return buf, refusal("publish", mqtt.QoSNotSupported, "")
	case m.Retain && l.noRetain:
		return buf, refusal("publish", mqtt.RetainNotSupported, "")
	}
	alias, known := l.aliases.next(m.Topic)
	out, err := l.encode(buf, o, id, alias, known)
	if alias > 0 && !known && len(out)-len(buf) > l.maxPacket {
		alias = 0 // to name one is what makes it too large
		out, err = l.encode(buf, o, id, 0, false)
	}
	switch {
	case err != nil: // what was checked by Publish cannot fail but by its size, which is beyond that of any packet (2.1.4)
		return buf, refusal("publish", mqtt.PacketTooLarge, err.Error())
	case len(out)-len(buf) > l.maxPacket:
		return buf, refusal("publish", mqtt.PacketTooLarge, "") // [MQTT-3.2.2-15]
	}
	l.aliases.sent(m.Topic, alias)
	return out, nil
}

// encode appends the PUBLISH of a message, with an alias of its topic, 0 for none, and without the topic where the server
// knows the alias.
func (l *link) encode(buf []byte, o *outgoing, id, alias uint16, known bool) ([]byte, error) {
	p := &l.pub
	p.SetMessage(o.m)
	p.ID = id
	p.Dup = o.id != 0 // sent before [MQTT-3.3.1-1]
	if known {
		p.Topic = ""
	}
	if alias > 0 {
		p.Properties.SetTopicAlias(alias)
	}
	return p.Append(buf, l.v)
}
