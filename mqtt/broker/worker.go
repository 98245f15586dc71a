package broker

import (
	"gateway/mqtt"
	"gateway/mqtt/packet"
)

// A worker is what a goroutine needs while it handles packets: the publication at hand and the
// connections that have something to be written at the end of the batch. Workers are pooled, so that
// an idle connection holds none.
type worker struct {
	b     *Broker
	pub   publication
	dirty []*conn

	quiet bool // the connection was, and nothing that it says now has waited for others

	received, sent, published int64 // packets, PUBLISH packets, messages; summed up at the end
	picked                    []target
	again                     []target // those of picked that get the message already
	owed                      []byte   // who is owed the message at hand, as a record has it
}

func (b *Broker) worker() *worker {
	if w, ok := b.workers.Get().(*worker); ok {
		return w
	}
	return &worker{b: b}
}

// done writes what was collected and gives the worker back.
func (w *worker) done() {
	w.b.journal.flush() // what is sent must not be forgotten by a crash
	w.flush()
	st := &w.b.stats
	st.received.Add(w.received)
	st.sent.Add(w.sent)
	st.published.Add(w.published)
	w.received, w.sent, w.published = 0, 0, 0
	w.quiet = false
	w.pub.reset()
	w.b.workers.Put(w)
}

// flush writes what was collected, each connection once.
func (w *worker) flush() {
	for i, c := range w.dirty {
		c.flush()
		w.dirty[i] = nil
	}
	w.dirty = w.dirty[:0]
}

// A publication is a message while it is handed to its receivers. p carries it; its QoS, retain
// flag and identifiers change with each receiver.
type publication struct {
	p      packet.Publish
	qos    mqtt.QoS // as it was published
	retain bool
	now    int64
	seq    uint64   // in the store
	kept   *message // the copy that outlives the packet, made when first needed
	will   *will    // that it is, which is executed by it; nil: none

	seen     message // what view returns
	borrowed bool    // p's lists are those of a message

	fan   bool // there are several receivers: encode once
	cache [12]struct {
		made bool
		t    packet.Template
		buf  []byte
	}
}

func (p *publication) reset() {
	p.clear()
	p.seen = message{}
	p.p.Payload = nil // part of a connection's buffer
	p.p.Properties.CorrelationData = nil
}

// clear forgets what belongs to the last message.
func (p *publication) clear() {
	p.kept, p.will, p.seq = nil, nil, 0
	if p.fan {
		p.fan = false
		for i := range p.cache {
			p.cache[i].made = false
		}
	}
}

// prepare makes p.p ready to be decoded into: its lists must not be those of a message.
func (p *publication) prepare(topic string) {
	if p.borrowed {
		p.borrowed = false
		p.p = packet.Publish{}
	}
	p.p.Topic = topic
}

// take starts with what p.p was decoded to.
func (p *publication) take(now int64) {
	p.clear()
	p.qos, p.retain, p.now = p.p.QoS, p.p.Retain, now
	p.p.Dup = false // [MQTT-3.3.1-3]
}

// load starts with a kept message.
func (p *publication) load(m *message, now int64) {
	p.clear()
	p.kept, p.borrowed = m, true
	p.qos, p.retain, p.now = m.QoS, m.Retain, now
	m.fillPublish(&p.p, now)
}

// keep returns the message as one that may be held on to.
func (p *publication) keep() *message {
	if p.kept == nil {
		m := fromPublish(&p.p, p.now)
		m.QoS, m.Retain, m.seq = p.qos, p.retain, p.seq
		p.kept = m
	}
	return p.kept
}

// outgoing is what one receiver's PUBLISH has of its own.
type outgoing struct {
	qos    mqtt.QoS
	retain bool
	dup    bool
	id     uint16
	ids    []uint32
	after  uint64 // not before the store has synced this
}

// append encodes the publication for one receiver.
func (p *publication) append(dst []byte, v mqtt.Version, o *outgoing) ([]byte, error) {
	if p.fan && len(o.ids) == 0 {
		i := int(o.qos)
		if v == mqtt.V5 {
			i += 6
		}
		if o.retain {
			i += 3
		}
		c := &p.cache[i]
		if !c.made {
			p.set(o)
			t, err := packet.MakeTemplate(c.buf, &p.p, v)
			if err != nil {
				return dst, err
			}
			c.t, c.buf, c.made = t, t.Bytes(), true
		}
		return c.t.Append(dst, o.id, o.dup), nil
	}
	p.set(o)
	if len(o.ids) > 0 && v == mqtt.V5 {
		p.p.Properties.SetSubscriptionID(o.ids...)
		out, err := p.p.Append(dst, v)
		p.p.Properties.Remove(packet.PropSubscriptionID)
		p.p.Properties.SubscriptionID = nil // the receiver's own; not for the next Decode
		return out, err
	}
	return p.p.Append(dst, v)
}

func (p *publication) set(o *outgoing) {
	p.p.QoS, p.p.Retain, p.p.Dup, p.p.ID = o.qos, o.retain, o.dup, o.id
}

// view returns the publication as a message, without copying it where that was not needed so far.
func (p *publication) view() *message {
	if p.kept != nil {
		return p.kept
	}
	m := &p.seen
	*m = message{Message: mqtt.Message{Topic: p.p.Topic, Payload: p.p.Payload, QoS: p.qos, Retain: p.retain}, seq: p.seq}
	m.aliasing(&p.p.Properties, p.now)
	return m
}
