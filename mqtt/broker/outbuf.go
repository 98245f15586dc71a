package broker

import (
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"gateway/mqtt"
	"gateway/mqtt/packet"
)

// An output is the sending side of a connection: a buffer that grows while a batch of packets is
// handled and goes out in one write at its end. Whoever filled it writes, if that needs no waiting;
// where the socket is full, a goroutine takes over until it is empty again. So nobody waits for
// somebody else's socket, and an idle connection holds no buffer.
type output struct {
	nc     net.Conn
	socket syscall.RawConn // below nc; nil: none that could be looked at
	raw    *rawWriter      // nil: nc cannot be written to without waiting

	mu        sync.Mutex
	quiet     sync.Cond // signalled when writing ends or much was written
	buf       *buffer   // what waits; nil: nothing
	writing   bool      // somebody is at it and will look again
	scheduled bool      // somebody will come at the end of its batch
	starved   bool      // the session has more than fitted
	sealed    bool      // nothing may be added any more
	failed    error     // of writing
	pending   int       // bytes with the goroutine
	deferred  []deferred
	unacked   atomic.Int32 // how many of deferred end a message of the client's
}

// A deferred packet waits for the store.
type deferred struct {
	after uint64
	last  bool // PUBACK or PUBCOMP
	b     []byte
	then  []func(w *worker) // what is to be done when it is on its way
}

type buffer struct{ b []byte }

// bufferKept is the largest buffer that goes back to the pool.
const bufferKept = 256 << 10

var buffers = sync.Pool{New: func() any { return &buffer{b: make([]byte, 0, 2048)} }}

func putBuffer(b *buffer) {
	if cap(b.b) <= bufferKept {
		b.b = b.b[:0]
		buffers.Put(b)
	}
}

type sendResult uint8

const (
	sendOK      sendResult = iota
	sendFull               // not now: the session keeps it
	sendDropped            // never: the client does not take packets of that size
)

// schedule has the connection written at the end of w's batch. It needs mu.
func (c *conn) schedule(w *worker) {
	if !c.scheduled && !c.writing {
		c.scheduled = true
		w.dirty = append(w.dirty, c)
	}
}

// space returns the buffer to append to. It needs mu.
func (c *conn) space() *buffer {
	if c.buf == nil {
		c.buf = buffers.Get().(*buffer)
	}
	return c.buf
}

// full tells whether messages should wait in the session. It needs mu.
func (c *conn) full() bool {
	return c.buf != nil && len(c.buf.b) >= c.b.opt.Limits.OutBuffer
}

// room tells whether publish would find room.
func (c *conn) room() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sealed {
		return false
	}
	if c.full() {
		c.starved = true
		return false
	}
	return true
}

// publish appends w.pub as this receiver gets it.
func (c *conn) publish(w *worker, o outgoing) sendResult {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sealed {
		return sendFull
	}
	if c.full() {
		c.starved = true
		return sendFull
	}
	b := c.space()
	start := len(b.b)
	var err error
	if c.aliasMax > 0 {
		b.b, err = c.aliased(b.b, &w.pub, &o)
	} else {
		b.b, err = w.pub.append(b.b, c.version, &o)
	}
	if err != nil || uint32(len(b.b)-start) > c.maxPacket {
		b.b = b.b[:start]
		c.b.stats.tooLarge.Add(1)
		return sendDropped
	}
	w.sent++
	if o.after != 0 {
		c.hold(start, o.after)
	}
	c.schedule(w)
	return sendOK
}

// aliased encodes with a topic alias (3.3.2.3.4): the first topics to come get one each. An alias
// is remembered only once the packet that announces it is sure to be sent.
func (c *conn) aliased(dst []byte, p *publication, o *outgoing) ([]byte, error) {
	topic := p.p.Topic
	alias, known := c.aliasOut[topic]
	if !known && (len(c.aliasOut) >= int(c.aliasMax) || len(topic) > maxAliasTopic) {
		return p.append(dst, c.version, o)
	}
	if known {
		p.p.Topic = ""
	} else {
		alias = uint16(len(c.aliasOut) + 1)
	}
	fan := p.fan
	p.fan = false
	p.p.Properties.SetTopicAlias(alias)
	out, err := p.append(dst, c.version, o)
	p.p.Properties.Remove(packet.PropTopicAlias)
	p.p.Topic, p.fan = topic, fan
	if !known && err == nil && uint32(len(out)-len(dst)) <= c.maxPacket && o.after == 0 {
		if c.aliasOut == nil {
			c.aliasOut = make(map[string]uint16)
		}
		c.aliasOut[topic] = alias
	}
	return out, err
}

// hold moves what was appended from start on behind the store's sync. It needs mu.
func (c *conn) hold(start int, after uint64) {
	if len(c.deferred) == 0 && c.b.journal.isSynced(after) {
		return
	}
	b := c.buf.b[start:]
	t := packet.Type(b[0] >> 4)
	last := t == packet.PUBACK || t == packet.PUBCOMP
	if last {
		c.unacked.Add(1)
	}
	c.deferred = append(c.deferred, deferred{after: after, last: last, b: append([]byte(nil), b...)})
	c.buf.b = c.buf.b[:start]
	c.b.journal.wait(c, after)
}

// ack appends one of the four acknowledgements, in the order of the calls [MQTT-4.6.0-2]
// [MQTT-4.6.0-3], after the store has synced what it stands for.
func (c *conn) ack(w *worker, t packet.Type, id uint16, code mqtt.ReasonCode, after uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sealed {
		return
	}
	b := c.space()
	start := len(b.b)
	first := byte(t) << 4
	if t == packet.PUBREL {
		first |= 2 // [MQTT-3.6.1-1]
	}
	if code == mqtt.Success || c.version != mqtt.V5 {
		b.b = append(b.b, first, 2, byte(id>>8), byte(id))
	} else {
		b.b = append(b.b, first, 3, byte(id>>8), byte(id), byte(code))
	}
	if after != 0 || len(c.deferred) > 0 {
		c.hold(start, after)
	}
	c.schedule(w)
}

// release sends PUBREL; sendFull says that the connection is at its end.
func (c *conn) release(w *worker, id uint16, code mqtt.ReasonCode, after uint64) sendResult {
	if !c.open() {
		return sendFull
	}
	c.ack(w, packet.PUBREL, id, code, after)
	return sendOK
}

func (c *conn) open() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.sealed
}

// packet appends a packet of a rarer kind. One that is larger than the client takes is not sent
// [MQTT-3.1.2-24]: the error is what to end the connection with, for the client waits for an answer.
func (c *conn) packet(w *worker, p packet.Packet, after uint64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sealed {
		return nil
	}
	b := c.space()
	start := len(b.b)
	var err error
	if b.b, err = p.Append(b.b, c.version); err != nil {
		c.b.log.Error("packet cannot be encoded", "type", p.Type(), "client", c.id(), "err", err)
		return nil
	}
	if uint32(len(b.b)-start) > c.maxPacket {
		b.b = b.b[:start]
		c.b.stats.tooLarge.Add(1)
		return refuse(mqtt.PacketTooLarge, "%s is larger than the client's maximum packet size", p.Type())
	}
	if after != 0 {
		c.hold(start, after)
	}
	c.schedule(w)
	return nil
}

// postpone has f called after what waits for the store at the moment, or reports that nothing does.
func (c *conn) postpone(f func(w *worker)) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.deferred) == 0 {
		return false
	}
	last := &c.deferred[len(c.deferred)-1]
	last.then = append(last.then, f)
	return true
}

// synced sends what waited for the store up to a point, and does what was to follow it.
func (c *conn) synced(w *worker, upto uint64) {
	for _, f := range c.sendSynced(w, upto) {
		f(w)
	}
}

func (c *conn) sendSynced(w *worker, upto uint64) (then []func(w *worker)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := 0
	for n < len(c.deferred) && c.deferred[n].after <= upto {
		then = append(then, c.deferred[n].then...)
		if !c.sealed {
			b := c.space()
			b.b = append(b.b, c.deferred[n].b...)
		}
		if c.deferred[n].last {
			c.unacked.Add(-1)
		}
		n++
	}
	if n == 0 {
		return nil
	}
	c.deferred = append(c.deferred[:0], c.deferred[n:]...)
	clear(c.deferred[len(c.deferred):cap(c.deferred)])
	if len(c.deferred) > 0 {
		c.b.journal.wait(c, c.deferred[0].after)
	}
	c.quiet.Broadcast()
	c.schedule(w)
	return then
}

// seal adds a last packet, if there is one, and lets nothing follow it.
func (c *conn) seal(last packet.Packet) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sealed {
		return
	}
	if last != nil {
		b := c.space()
		start := len(b.b)
		out, err := last.Append(b.b, c.version)
		if err == nil && uint32(len(out)-start) > c.maxPacket {
			switch p := last.(type) {
			case *packet.Disconnect: // [MQTT-3.14.2-3]
				out, err = (&packet.Disconnect{Code: p.Code}).Append(out[:start], c.version)
			case *packet.Connack: // [MQTT-3.2.2-19]
				out, err = (&packet.Connack{Code: p.Code}).Append(out[:start], c.version)
			}
		}
		if b.b = out; err != nil || uint32(len(out)-start) > c.maxPacket {
			b.b = b.b[:start]
		}
	}
	c.sealed = true
	c.deferred = nil
	c.quiet.Broadcast()
}

// flush writes what waits, as far as that goes without waiting.
func (c *conn) flush() {
	c.mu.Lock()
	c.scheduled = false
	if c.writing || c.failed != nil || c.buf == nil {
		c.mu.Unlock()
		return
	}
	c.writing = true
	if c.raw == nil {
		c.mu.Unlock()
		c.b.tasks.Go(c.write)
		return
	}
	for c.next() {
		b := c.buf
		c.buf = nil
		c.mu.Unlock()
		n, err := c.raw.write(b.b)
		c.mu.Lock()
		c.b.stats.bytesSent.Add(int64(n))
		if err != nil {
			c.fail(err)
			break
		}
		if n < len(b.b) { // the socket is full: from here on with patience
			rest := copy(b.b, b.b[n:])
			b.b = b.b[:rest]
			if c.buf != nil {
				b.b = append(b.b, c.buf.b...)
				putBuffer(c.buf)
			}
			c.buf = b
			c.mu.Unlock()
			c.b.tasks.Go(c.write)
			return
		}
		putBuffer(b)
	}
	c.writing = false
	c.quiet.Broadcast()
	c.mu.Unlock()
}

// next tells whether there is more to write; it asks the session for more where it had to wait. It
// needs mu.
func (c *conn) next() bool {
	for c.failed == nil {
		if c.buf != nil && len(c.buf.b) > 0 {
			return true
		}
		if !c.starved || c.sealed {
			break
		}
		c.starved = false
		c.mu.Unlock()
		c.refill()
		c.mu.Lock()
	}
	return false
}

// refill lets the session go on.
func (c *conn) refill() {
	s := c.sess
	if s == nil {
		return
	}
	w := c.b.worker()
	s.mu.Lock()
	if s.conn == c {
		s.pump(w)
	}
	s.mu.Unlock()
	w.done()
}

// writePiece is what must go out within the write timeout.
const writePiece = 16 << 10

// write is the goroutine that waits for the socket.
func (c *conn) write() {
	c.mu.Lock()
	for c.next() {
		b := c.buf
		c.buf = nil
		c.pending = len(b.b)
		c.mu.Unlock()
		err := c.writeAll(b.b)
		c.mu.Lock()
		c.pending = 0
		c.quiet.Broadcast()
		if err != nil {
			c.fail(err)
			break
		}
		putBuffer(b)
	}
	c.writing = false
	c.quiet.Broadcast()
	c.mu.Unlock()
}

func (c *conn) writeAll(b []byte) error {
	for len(b) > 0 {
		piece := b[:min(len(b), writePiece)]
		if err := c.nc.SetWriteDeadline(time.Now().Add(c.b.opt.Limits.WriteTimeout)); err != nil {
			return err
		}
		n, err := c.nc.Write(piece)
		c.b.stats.bytesSent.Add(int64(n))
		if err != nil {
			return err
		}
		b = b[n:]
	}
	return c.nc.SetWriteDeadline(time.Time{})
}

// fail ends the connection after a failed write: its reader wakes up and cleans up. It needs mu.
func (c *conn) fail(err error) {
	c.failed = err
	c.sealed = true
	c.deferred = nil
	if c.buf != nil {
		putBuffer(c.buf)
		c.buf = nil
	}
	c.quiet.Broadcast()
	c.nc.SetReadDeadline(past)
}

// past is a deadline that is over.
var past = time.Unix(1, 0)

// settle makes a client wait for its own socket and for the store: it is not read from while it
// does not take what it is owed, nor, before 5.0 tells it a receive maximum, while too many of its
// messages are not synced yet.
func (c *conn) settle() {
	c.mu.Lock()
	for c.failed == nil && !c.sealed &&
		(c.writing && c.backlog() > 2*c.b.opt.Limits.OutBuffer || len(c.deferred) > int(c.b.opt.ReceiveMaximum)) {
		c.quiet.Wait()
	}
	c.mu.Unlock()
}

func (c *conn) backlog() int {
	n := c.pending
	if c.buf != nil {
		n += len(c.buf.b)
	}
	return n
}

// drained waits until everything is written, it failed, or the time is up.
func (c *conn) drained(limit time.Duration) {
	timer := time.AfterFunc(limit, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.writing && c.failed == nil {
			c.fail(os.ErrDeadlineExceeded)
			c.nc.SetWriteDeadline(past)
		}
	})
	defer timer.Stop()
	c.flush()
	c.mu.Lock()
	for c.writing {
		c.quiet.Wait()
	}
	c.mu.Unlock()
}
