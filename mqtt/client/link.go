package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"gateway/mqtt"
	"gateway/mqtt/packet"
)

const (
	// silentQoS2 is how many messages of QoS 2 are on the wire at once where the version has no way to tell how
	// many a server takes: Mosquitto hangs up on a client of 3.1.1 that has more than 20 open (its
	// max_inflight_messages), and others have limits near that.
	silentQoS2 = 20
	// writeBytes is what one deadline is for: on the slowest of lines it takes some seconds.
	writeBytes = 16 << 10
	// batchBytes is about how much is written at once, so that a lost connection leaves little in doubt.
	batchBytes = 64 << 10
	// maxControl bounds answers that wait to be written: a server that makes us owe more does not read.
	maxControl = 1 << 20
	// lingerTime is how long the server may take to close after DISCONNECT. Closing first could make
	// the kernel throw away what we said.
	lingerTime = time.Second
)

// A link is one connection: a goroutine that reads, one that writes, and serve, which watches over both.
type link struct {
	c     *Client
	nc    net.Conn
	r     *packet.Reader
	v     mqtt.Version
	state State

	// Agreed on in CONNACK.
	keepAlive  time.Duration
	probe      time.Duration // after how much silence the server is asked for a sign of life; 0: never
	window     int           // QoS 1 and 2 messages on the wire at once
	window2    int           // QoS 2 ones
	maxPacket  int
	maxQoS     mqtt.QoS
	noRetain   bool
	noWildcard bool
	noShared   bool
	ackTimeout time.Duration // of the options; 0: never

	wake   chan struct{} // there may be something to write
	dead   chan struct{} // closed by end
	endOne sync.Once
	err    error // why it ended; read after dead is closed

	start     time.Time
	lastRead  atomic.Int64 // time since start
	lastWrite atomic.Int64
	writing   atomic.Bool
	pinged    atomic.Int64 // when the first unanswered PINGREQ had been written; 0: the one that is due has not been yet

	// Guarded by c.mu.
	control  []byte        // packets to write before any PUBLISH
	ping     bool          // a PINGREQ is to be written
	acked    time.Duration // since start: when the server last acknowledged something, or had nothing to
	unacked  int           // QoS 1 and 2 messages received and not acknowledged
	reauth   bool          // an exchange that Reauthenticate began is under way
	stopping bool
	final    []byte // the last packet to write

	// The writer's.
	aliases aliases
	pub     packet.Publish
	// The reader's.
	aliasesIn []string
	in        packet.Publish
	warned    bool // of QoS 0 that is dropped
	exceeded  bool // warned of a server beyond our receive maximum
	lowered   bool // warned of a server that has no QoS 2
	strayed   bool // warned of a PUBACK for nothing that is in flight
}

func newLink(c *Client, nc net.Conn, v mqtt.Version) *link {
	l := &link{c: c, nc: nc, v: v, wake: make(chan struct{}, 1), dead: make(chan struct{}), start: time.Now(), ackTimeout: max(0, c.opt.AckTimeout)}
	l.r = packet.NewReader((*stamped)(l), int(min(c.opt.MaxPacket, 1<<28+4)), nil)
	return l
}

// stamped notes each time that something arrives, also of a large packet's middle.
type stamped link

func (s *stamped) Read(p []byte) (int, error) {
	n, err := s.nc.Read(p)
	s.lastRead.Store(int64(time.Since(s.start)))
	return n, err
}

// kick makes the writer look for work. A nil link has none.
func (l *link) kick() {
	if l != nil {
		select {
		case l.wake <- struct{}{}:
		default:
		}
	}
}

// end closes the connection for a reason, the first of which stays.
func (l *link) end(err error) {
	l.endOne.Do(func() {
		l.err = err
		close(l.dead)
		l.nc.Close()
	})
}

// send writes a packet at once; only before serve.
func (l *link) send(p packet.Packet) error {
	b, err := p.Append(nil, l.v)
	if err != nil {
		return err
	}
	l.nc.SetWriteDeadline(time.Now().Add(l.c.opt.WriteTimeout))
	_, err = l.nc.Write(b)
	return err
}

// sendDisconnect says why we hang up, where the version has a word for it; only before serve.
func (l *link) sendDisconnect(code mqtt.ReasonCode) {
	if l.v == mqtt.V5 {
		_ = l.send(&packet.Disconnect{Code: code}) // the reason for hanging up is what counts
	}
}

// queue hands a packet to the writer, or before serve writes it.
func (l *link) queue(p packet.Packet) error {
	l.c.mu.Lock()
	if l.c.link != l {
		l.c.mu.Unlock()
		return l.send(p)
	}
	err := l.enqueue(p)
	l.c.mu.Unlock()
	l.kick()
	return err
}

// enqueue is queue with c.mu held and without the kick.
func (l *link) enqueue(p packet.Packet) error {
	if len(l.control) > maxControl {
		return errors.New("server does not read our answers")
	}
	var err error
	l.control, err = p.Append(l.control, l.v)
	return err
}

// serve runs the connection until it ends or ctx does, and returns why it ended.
func (l *link) serve(ctx context.Context) error {
	var both sync.WaitGroup
	both.Go(func() { l.read(ctx) })
	both.Go(l.write)

	var tick <-chan time.Time
	if every := l.watchEvery(); every > 0 {
		t := time.NewTicker(every)
		defer t.Stop()
		tick = t.C
	}
	asked := false // a PINGREQ is unanswered, or waits to be written
	for done := false; !done; {
		select {
		case <-l.dead:
			done = true
		case <-ctx.Done():
			l.hangUp(ErrClosed)
			done = true
		case <-tick:
			asked = l.watch(asked)
		}
	}
	both.Wait()
	l.c.detach(l)
	l.r.Close()
	return l.err
}

// watchEvery is how often watch is to be called; 0: never.
func (l *link) watchEvery() (every time.Duration) {
	for _, d := range [...]time.Duration{l.keepAlive, l.probe, l.ackTimeout} {
		if d > 0 && (every == 0 || d < every) {
			every = d
		}
	}
	return every / 8
}

// leastProbe is the least time without a sign of life that is looked into: over a radio link an answer takes a second or
// two, however short the keep alive is.
const leastProbe = 4 * time.Second

// watch ends a connection whose other side is dead or does not do its work. It takes and returns whether a
// PINGREQ is unanswered.
func (l *link) watch(asked bool) bool {
	now := time.Since(l.start)
	read, wrote, pinged := time.Duration(l.lastRead.Load()), time.Duration(l.lastWrite.Load()), time.Duration(l.pinged.Load())
	l.c.mu.Lock()
	if l.writing.Load() {
		l.acked = now // it cannot acknowledge yet what it is being sent
	}
	idle := l.ackTimeout > 0 && l.c.out.owed() && now-l.acked >= l.ackTimeout
	l.c.mu.Unlock()
	if asked && pinged > 0 && read >= pinged {
		asked = false
	}
	switch {
	case idle:
		// It answers PINGREQ perhaps; but only a new connection may send a message again [MQTT-4.4.0-1].
		l.end(&abandoned{fmt.Errorf("server has not acknowledged anything for %v", l.ackTimeout)})
	case l.probe == 0:
	case asked && pinged > 0 && now-read >= l.probe*11/8 && now-pinged >= l.probe/2:
		// Half-open: half the time again after the ping was due, nothing has come (3.1.2.10). A PINGREQ that still
		// waits behind much else on a slow line does not count, for that line moves.
		l.end(fmt.Errorf("server has not been heard for %v", (now - read).Round(time.Millisecond)))
	case l.keepAlive > 0 && now-wrote >= l.keepAlive*3/4, !asked && now-read >= l.probe*3/4:
		// Sent before the keep alive has run out [MQTT-3.1.2-20], also when we send all the time
		// and only the server is silent.
		if !asked {
			asked = true
			l.pinged.Store(0)
		}
		l.c.mu.Lock()
		l.ping = true
		l.c.mu.Unlock()
		l.kick()
	}
	return asked
}

// stop makes the writer say DISCONNECT after what waits already, and nothing else. The caller is to end the link once the
// server has had the time to close it.
func (l *link) stop(code mqtt.ReasonCode) {
	l.c.mu.Lock()
	if !l.stopping && (l.v == mqtt.V5 || code == mqtt.Success) {
		l.final, _ = (&packet.Disconnect{Code: code}).Append(nil, l.v) // cannot fail: it has no properties
	}
	l.stopping = true
	l.c.mu.Unlock()
	l.kick()
}

// hangUp says DISCONNECT and closes when the server has closed or lingerTime is over. A handler that is at work
// is waited for, so that its message is acknowledged before.
func (l *link) hangUp(why error) {
	t := time.NewTimer(lingerTime)
	defer t.Stop()
	select {
	case l.c.turn <- struct{}{}:
		<-l.c.turn
	case <-l.dead:
	case <-t.C:
		t.Reset(lingerTime)
	}
	l.stop(mqtt.Success)
	select {
	case <-l.dead:
	case <-t.C:
	}
	l.end(why)
}
