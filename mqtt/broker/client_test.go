package broker

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"gateway/mqtt"
	"gateway/mqtt/packet"
)

// patience is how long a test waits for what must come.
const patience = time.Minute

// start runs a broker until the test ends.
func start(t testing.TB, o Options) *Broker {
	t.Helper()
	b, _ := startStop(t, o)
	return b
}

// startStop runs a broker; stop ends it before the test does.
func startStop(t testing.TB, o Options) (b *Broker, stop func()) {
	t.Helper()
	if o.Logger == nil {
		o.Logger = slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelWarn}))
	}
	if o.SysInterval == 0 {
		o.SysInterval = -1
	}
	b, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- b.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(stop)
	return b, stop
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(p)))
	return len(p), nil
}

// A peer is the other end of a connection: it sends and expects control packets.
type peer struct {
	t  testing.TB
	nc net.Conn
	rd *packet.Reader
	v  mqtt.Version
}

// pair returns a connected pair of loopback sockets.
func pair(t testing.TB) (a, b net.Conn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	a, err = net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err = ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return a, b
}

// dial connects to a broker without sending anything.
func dial(t testing.TB, b *Broker, v mqtt.Version) *peer {
	t.Helper()
	near, far := pair(t)
	b.ServeConn(far)
	return newPeer(t, near, v)
}

func newPeer(t testing.TB, nc net.Conn, v mqtt.Version) *peer {
	t.Cleanup(func() { nc.Close() })
	return &peer{t: t, nc: nc, rd: packet.NewReader(nc, 0, nil), v: v}
}

// connect connects with an identifier and returns what CONNACK said.
func connect(t testing.TB, b *Broker, v mqtt.Version, id string, edit ...func(*packet.Connect)) (*peer, *packet.Connack) {
	t.Helper()
	p := dial(t, b, v)
	c := &packet.Connect{Version: v, ClientID: id, CleanStart: true}
	for _, f := range edit {
		f(c)
	}
	p.send(c)
	ack := expect[*packet.Connack](p)
	return p, ack
}

// join is connect that must succeed.
func join(t testing.TB, b *Broker, v mqtt.Version, id string, edit ...func(*packet.Connect)) *peer {
	t.Helper()
	p, ack := connect(t, b, v, id, edit...)
	if ack.Code != mqtt.Success {
		t.Fatalf("CONNECT of %q: %s", id, ack.Code)
	}
	return p
}

// persistent asks for a session that outlives the connection.
func persistent(c *packet.Connect) {
	c.CleanStart = false
	if c.Version == mqtt.V5 {
		c.Properties.SetSessionExpiry(never)
	}
}

func (p *peer) send(ps ...packet.Packet) {
	p.t.Helper()
	var b []byte
	for _, x := range ps {
		var err error
		if b, err = x.Append(b, p.v); err != nil {
			p.t.Fatal(err)
		}
	}
	p.write(b)
}

func (p *peer) write(b []byte) {
	p.t.Helper()
	p.nc.SetWriteDeadline(time.Now().Add(patience))
	if _, err := p.nc.Write(b); err != nil {
		p.t.Fatal(err)
	}
}

// next returns the next packet or why there is none.
func (p *peer) next(wait time.Duration) (packet.Packet, error) {
	p.nc.SetReadDeadline(time.Now().Add(wait))
	f, err := p.rd.Next()
	if err != nil {
		if errors.Is(err, os.ErrDeadlineExceeded) {
			p.rd = packet.NewReader(p.nc, 0, nil)
		}
		return nil, err
	}
	x, err := packet.Decode(f, p.v)
	if pub, ok := x.(*packet.Publish); ok {
		pub.Payload = append([]byte(nil), pub.Payload...)
	}
	return x, err
}

// expect returns the next packet, which must be of one type.
func expect[P packet.Packet](p *peer) P {
	p.t.Helper()
	x, err := p.next(patience)
	if err != nil {
		p.t.Fatalf("waiting for %T: %v", *new(P), err)
	}
	got, ok := x.(P)
	if !ok {
		p.t.Fatalf("got %T %+v, want %T", x, x, *new(P))
	}
	return got
}

// message expects a PUBLISH with a topic and a payload.
func (p *peer) message(topic, payload string) *packet.Publish {
	p.t.Helper()
	m := expect[*packet.Publish](p)
	if m.Topic != topic || string(m.Payload) != payload {
		p.t.Fatalf("got message %q on %q, want %q on %q", m.Payload, m.Topic, payload, topic)
	}
	return m
}

// silence checks that nothing comes: a PINGREQ is answered by PINGRESP and nothing else.
func (p *peer) silence() {
	p.t.Helper()
	p.send(&packet.Pingreq{})
	if x, err := p.next(patience); err != nil {
		p.t.Fatalf("waiting for PINGRESP: %v", err)
	} else if _, ok := x.(*packet.Pingresp); !ok {
		p.t.Fatalf("got %T %+v, want nothing", x, x)
	}
}

// closed checks that the broker closes the connection without a further packet.
func (p *peer) closed() {
	p.t.Helper()
	x, err := p.next(patience)
	if err == nil {
		p.t.Fatalf("got %T %+v, want the end of the connection", x, x)
	}
	if !errors.Is(err, io.EOF) {
		p.t.Fatalf("got %v, want the end of the connection", err)
	}
}

// refused checks that the connection ends with a reason code, which before 5.0 is not told.
func (p *peer) refused(code mqtt.ReasonCode) {
	p.t.Helper()
	if p.v == mqtt.V5 {
		if d := expect[*packet.Disconnect](p); d.Code != code {
			p.t.Fatalf("DISCONNECT with %s (%s), want %s", d.Code, d.Properties.ReasonString, code)
		}
	}
	p.closed()
}

func (p *peer) subscribe(subs ...mqtt.Subscription) []mqtt.ReasonCode {
	p.t.Helper()
	p.send(&packet.Subscribe{ID: 1, Subscriptions: subs})
	return expect[*packet.Suback](p).Codes
}

// subscribed subscribes to one filter.
func (p *peer) subscribed(filter string, qos mqtt.QoS) {
	p.t.Helper()
	if diff := cmp.Diff([]mqtt.ReasonCode{mqtt.ReasonCode(qos)}, p.subscribe(mqtt.Subscription{Filter: filter, QoS: qos})); diff != "" {
		p.t.Fatalf("SUBACK (-want +got):\n%s", diff)
	}
}

// publish sends a message and goes through its handshake.
func (p *peer) publish(topic, payload string, qos mqtt.QoS, edit ...func(*packet.Publish)) mqtt.ReasonCode {
	p.t.Helper()
	m := &packet.Publish{Topic: topic, Payload: []byte(payload), QoS: qos}
	if qos > 0 {
		m.ID = 7
	}
	for _, f := range edit {
		f(m)
	}
	p.send(m)
	switch qos {
	case mqtt.AtLeastOnce:
		return expect[*packet.Puback](p).Code
	case mqtt.ExactlyOnce:
		rec := expect[*packet.Pubrec](p)
		if rec.Code.IsError() {
			return rec.Code
		}
		p.send(&packet.Pubrel{ID: m.ID})
		expect[*packet.Pubcomp](p)
		return rec.Code
	}
	return mqtt.Success
}

// retained makes a publish retained.
func asRetained(m *packet.Publish) { m.Retain = true }

// leave disconnects and waits until the broker has noticed.
func (p *peer) leave() {
	p.t.Helper()
	p.send(&packet.Disconnect{})
	p.closed()
}

// drop breaks the connection.
func (p *peer) drop() { p.nc.Close() }

// until waits for a condition that another goroutine brings about.
func until(t testing.TB, what string, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); !cond(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// logTo returns a logger whose lines go to a channel.
func logTo(lines chan<- string) *slog.Logger {
	return slog.New(slog.NewTextHandler(writerFunc(func(p []byte) (int, error) {
		select {
		case lines <- string(p):
		default:
		}
		return len(p), nil
	}), nil))
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func contains(s string, parts ...string) bool {
	for _, p := range parts {
		if !strings.Contains(s, p) {
			return false
		}
	}
	return true
}
