package broker

import (
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"time"

	"gateway/mqtt"
	"gateway/mqtt/packet"
)

// A conn is one network connection. One goroutine, serve, reads it and owns all fields that are not in
// output; what others may do is add to its output and stop it.
type conn struct {
	output
	b      *Broker
	reader *packet.Reader
	client *Client
	sess   *session // nil before CONNECT was accepted; fixed then

	version   mqtt.Version
	bridge    bool   // of another broker, which subscribes as one
	maxPacket uint32 // that the client takes
	aliasMax  uint16 // topic aliases that the client takes
	aliasOut  map[string]uint16
	aliasIn   map[uint16]string
	aliasSize int               // bytes of aliasIn
	topic     string            // of the last PUBLISH, so that it need not be allocated again
	routes    map[string]*route // of the topics published to
	routed    int               // bytes that routes takes
	gather    gatherer
	noExpiry  bool          // CONNECT said that the session ends with the connection
	will      *will         // guarded by sess.mu
	heard     atomic.Int64  // broker time of the last packet
	keepAlive time.Duration // 0: off
	alive     *time.Timer
	stopped   atomic.Pointer[stop]
	waiting   atomic.Bool   // for the client to send something: all that was read is handled
	left      bool          // the client sent DISCONNECT; to be read when idle is closed
	idle      chan struct{} // closed when no more packets are handled
}

// A stop is why a connection is ended by the broker.
type stop struct {
	code mqtt.ReasonCode // for the DISCONNECT or CONNACK
	err  error
}

// A refusal is an error of a client's making that is answered with a reason code and the end of
// the connection (4.13).
type refusal struct {
	code mqtt.ReasonCode
	text string
}

func (r *refusal) Error() string { return fmt.Sprintf("broker: %s (%s)", r.text, r.code) }

func refuse(code mqtt.ReasonCode, format string, args ...any) error {
	return &refusal{code, fmt.Sprintf(format, args...)}
}

// errNotConnect is about a first packet that is none, or another [MQTT-3.1.0-1].
var errNotConnect = errors.New("broker: the first packet is not CONNECT")

// errDisconnected is the normal end: the client sent DISCONNECT.
var errDisconnected = errors.New("broker: client disconnected")

// lingerTime is how long a connection that the broker ends is kept half open, so that the last
// packet is not destroyed by a reset for what the client sent meanwhile.
const (
	lingerTime     = 2 * time.Second
	lingerShutdown = 500 * time.Millisecond // when the broker itself stops
)

// What a connection remembers of the topics that it publishes to is bounded; one topic is always remembered. So
// are the topics of its aliases.
const (
	maxRoutes     = 256
	maxRouteBytes = 64 << 10
	maxAliasBytes = 128 << 10
)

// smallBatch is the number of packets below which it is worth a moment to let others add to what
// will be written.
const smallBatch = 8

func (c *conn) id() string {
	if c.client == nil {
		return ""
	}
	return c.client.ID
}

// serve reads a connection from CONNECT to its end.
func (c *conn) serve() {
	defer c.nc.Close()
	err := c.connect()
	if err == nil {
		err = c.loop()
	}
	close(c.idle)
	c.end(err)
}

// connect reads and answers the first packet, which must be CONNECT [MQTT-3.1.0-1].
func (c *conn) connect() error {
	c.nc.SetReadDeadline(time.Now().Add(c.b.opt.Limits.ConnectTimeout))
	c.reader.Limit(min(c.b.opt.Limits.ConnectPacketSize, int(c.b.opt.MaxPacketSize)), c.b.connecting, c.wake)
	if s := c.stopped.Load(); s != nil { // stop's deadline must not be overwritten
		return s.err
	}
	f, err := c.reader.Next()
	if err != nil {
		c.b.stats.badConnects.Add(1)
		return fmt.Errorf("broker: before CONNECT: %w", err)
	}
	if err := c.accept(f); err != nil {
		c.b.stats.badConnects.Add(1)
		return err
	}
	c.reader.Limit(int(c.b.opt.MaxPacketSize), c.b.arriving, c.makeRoom)
	c.nc.SetReadDeadline(time.Time{})
	if s := c.stopped.Load(); s != nil {
		return s.err
	}
	return nil
}

// loop handles packets in batches: what was read together is answered and forwarded together.
func (c *conn) loop() (err error) {
	w := c.b.worker()
	defer func() {
		// A fault of ours in one connection must not take the others down.
		if p := recover(); p != nil {
			err = refuse(mqtt.UnspecifiedError, "internal error: %v", p)
			c.b.stats.panics.Add(1)
			c.b.log.Error("connection ended by an internal error", "client", c.id(), "panic", p, "stack", string(debug.Stack()))
			w = nil
		}
		if w != nil {
			w.done()
		}
	}()
	for {
		if !c.reader.Ready() {
			if len(w.dirty) > 0 && w.received < smallBatch {
				// Others who are ready to run may have something for the same receivers.
				runtime.Gosched()
			}
			gather := canPause && c.gather.after(w.received, w.pub.now)
			w.done()
			w = nil
			c.settle()
			// What was read is handled first, whoever wants the end: it may be a DISCONNECT.
			if s := c.stopped.Load(); s != nil {
				return s.err
			}
			if gather {
				pause()
			}
			c.waiting.Store(true)
		}
		f, err := c.reader.Next()
		if w == nil {
			c.waiting.Store(false)
			w = c.b.worker()
			w.pub.now = c.b.now()
			if w.pub.now-c.heard.Load() > quietTime {
				c.b.stepBack()
				w.quiet = true
			}
			c.heard.Store(w.pub.now)
		}
		if err != nil {
			return err
		}
		w.received++
		if err := c.handle(w, f); err != nil {
			return err
		}
	}
}

func (c *conn) handle(w *worker, f packet.Frame) error {
	switch f.Type {
	case packet.PUBLISH:
		return c.onPublish(w, f)
	case packet.PUBACK:
		var p packet.Puback
		if err := p.Decode(f, c.version); err != nil {
			return err
		}
		return c.sess.acked(w, c, f.Type, p.ID, mqtt.AtLeastOnce)
	case packet.PUBREC:
		var p packet.Pubrec
		if err := p.Decode(f, c.version); err != nil {
			return err
		}
		if p.Code.IsError() { // [MQTT-4.3.3-4]: the message is done with
			return c.sess.acked(w, c, f.Type, p.ID, mqtt.ExactlyOnce)
		}
		return c.sess.received(w, c, p.ID)
	case packet.PUBREL:
		var p packet.Pubrel
		if err := p.Decode(f, c.version); err != nil {
			return err
		}
		c.onPubrel(w, p.ID)
	case packet.PUBCOMP:
		var p packet.Pubcomp
		if err := p.Decode(f, c.version); err != nil {
			return err
		}
		return c.sess.completed(w, c, p.ID)
	case packet.SUBSCRIBE:
		return c.onSubscribe(w, f)
	case packet.UNSUBSCRIBE:
		return c.onUnsubscribe(w, f)
	case packet.PINGREQ:
		var p packet.Pingreq
		if err := p.Decode(f, c.version); err != nil {
			return err
		}
		return c.packet(w, &packet.Pingresp{}, 0) // [MQTT-3.12.4-1]
	case packet.DISCONNECT:
		return c.onDisconnect(f)
	case packet.CONNECT:
		return refuse(mqtt.ProtocolError, "CONNECT twice [MQTT-3.1.0-2]")
	case packet.AUTH:
		var p packet.Auth
		if err := p.Decode(f, c.version); err != nil {
			return err
		}
		return refuse(mqtt.ProtocolError, "AUTH without an authentication method [MQTT-4.12.0-6]")
	default:
		return refuse(mqtt.ProtocolError, "%s is not for a client to send", f.Type)
	}
	return nil
}

func (c *conn) onDisconnect(f packet.Frame) error {
	var p packet.Disconnect
	if err := p.Decode(f, c.version); err != nil {
		return err
	}
	c.left = true
	s := c.sess
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn != c {
		return errDisconnected
	}
	if p.Properties.Has(packet.PropSessionExpiry) {
		if c.noExpiry && p.Properties.SessionExpiry != 0 {
			return refuse(mqtt.ProtocolError, "session expiry was 0 in CONNECT and cannot be set in DISCONNECT")
		}
		s.setExpiry(c.b.cappedExpiry(p.Properties.SessionExpiry))
		c.b.journal.session(s)
	}
	if p.Code == mqtt.Success { // every other reason leaves the will to be published [MQTT-3.1.2-8] [MQTT-3.14.4-3]
		c.b.forgo(c.will)
		c.will = nil
	}
	return errDisconnected
}

// stop ends the connection from outside of its goroutine. It takes no lock but the output's and does
// not wait; flush must follow when no lock is held. It reports whether nobody did so before.
func (c *conn) stop(code mqtt.ReasonCode, err error) bool {
	if !c.stopped.CompareAndSwap(nil, &stop{code, err}) {
		return false
	}
	c.seal(c.farewell(code, ""))
	c.wake()
	return true
}

// makeRoom ends the connection because a packet of it arrives more slowly than others that need the room.
func (c *conn) makeRoom() {
	if c.stop(mqtt.QuotaExceeded, errors.New("broker: too many large packets are arriving, and this one comes most slowly")) {
		c.b.stats.refusals.Add(1)
		c.flush()
	}
}

const (
	// hearOutTime is how long at most an heir waits for what its client had sent before it came.
	hearOutTime  = 500 * time.Millisecond
	hearOutPause = time.Millisecond
)

// hearOut waits while there is something that the client sent before, on this connection, until it
// is handled: a client that sent DISCONNECT and came back at once is none that was thrown out, and its
// will is not due [MQTT-3.14.4-3]. On a connection that is merely still there nothing is waited for.
func (c *conn) hearOut() {
	if c.socket == nil {
		return
	}
	looks := 1
	if c.raw == nil {
		looks = 25 // what is being decrypted or unpacked is in neither place, on a busy machine for long
	}
	ticks := time.NewTicker(hearOutPause)
	defer ticks.Stop()
	for until := time.Now().Add(hearOutTime); time.Now().Before(until); {
		if c.waiting.Load() && !unread(c.socket) {
			if looks--; looks == 0 {
				return
			}
		}
		select {
		case <-c.idle:
			return
		case <-ticks.C:
		}
	}
}

// wake ends the wait of the connection's reader.
func (c *conn) wake() {
	if _, ok := c.nc.(*wsConn); !ok {
		c.nc.SetReadDeadline(past)
		return
	}
	// A WebSocket does not survive a deadline, so what is to be written must be written before.
	c.b.tasks.Go(func() {
		c.drained(lingerTime)
		c.nc.SetReadDeadline(past)
	})
}

// farewell returns the DISCONNECT for a reason code; before 5.0 there is none for servers.
func (c *conn) farewell(code mqtt.ReasonCode, text string) packet.Packet {
	// Without a session there was no CONNACK yet, and c.version may be being written [MQTT-3.14.0-1].
	if c.sess == nil || c.version != mqtt.V5 {
		return nil
	}
	p := &packet.Disconnect{Code: code}
	if text != "" {
		p.Properties.SetReasonString(text)
	}
	return p
}

// end parts from the client and cleans up. err is why.
func (c *conn) end(err error) {
	c.reader.Close() // others may need the room while this one lingers
	if c.alive != nil {
		c.alive.Stop()
	}
	linger := false
	if s := c.stopped.Load(); s != nil {
		linger = true
		c.b.log.Info("connection ended by the broker", "client", c.id(), "address", c.client.Addr, "reason", s.err)
	} else if code, text, ok := c.verdict(err); ok {
		c.seal(c.farewell(code, text))
		linger = true
		c.b.stats.refusals.Add(1)
		c.b.refused("connection ended", "client", c.id(), "address", c.client.Addr, "err", err)
	} else {
		c.seal(nil)
		c.b.log.Debug("connection ended", "client", c.id(), "address", c.client.Addr, "err", err)
	}
	if c.sess != nil {
		c.b.detach(c)
	} else {
		c.b.pending.Add(-1)
	}
	c.drained(lingerTime)
	if linger {
		c.linger()
	}
}

// verdict returns the reason code that an error deserves; the ends of the network and of the client
// deserve none.
func (c *conn) verdict(err error) (code mqtt.ReasonCode, text string, ok bool) {
	if r, isRefusal := errors.AsType[*refusal](err); isRefusal {
		return r.code, r.text, true
	}
	if p, isPacket := errors.AsType[*packet.Error](err); isPacket {
		return p.Code, p.Type.String() + ": " + p.Detail, true
	}
	return 0, "", false
}

// linger closes the sending half and reads until the client closes, too, for a moment: closing with
// unread bytes would reset the connection, and a reset destroys what the client has not read.
func (c *conn) linger() {
	half, ok := c.nc.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil {
		return
	}
	wait := lingerTime
	if c.b.closed.Load() {
		wait = lingerShutdown
	}
	c.nc.SetReadDeadline(time.Now().Add(wait))
	var scrap [512]byte
	for total := 0; total < 1<<20; {
		n, err := c.nc.Read(scrap[:])
		if total += n; err != nil {
			return
		}
	}
}

// watch starts the keep alive: after one and a half times the interval without a packet the client is
// taken for dead [MQTT-3.1.2-22]. The timer looks at the time of the last packet when it fires,
// so packets cost no timer.
func (c *conn) watch(interval time.Duration) {
	if interval == 0 {
		return
	}
	c.keepAlive = interval + interval/2
	c.heard.Store(c.b.now())
	c.alive = time.AfterFunc(time.Hour, c.check)
	c.alive.Reset(c.keepAlive)
}

func (c *conn) check() {
	silent := time.Duration(c.b.now() - c.heard.Load())
	if silent >= c.keepAlive {
		c.b.stats.timeouts.Add(1)
		c.stop(mqtt.KeepAliveTimeout, fmt.Errorf("broker: nothing heard for %s, one and a half times the keep alive", silent.Round(time.Millisecond)))
		c.flush()
		return
	}
	c.alive.Reset(c.keepAlive - silent)
}
