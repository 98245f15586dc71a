package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"gateway/mqtt"
	"gateway/mqtt/packet"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// A fake is a server that a test plays by hand: each connection that the client makes comes out of
// conns, and every packet on it is expected and sent by name. It works in a synctest bubble.
type fake struct {
	t     *testing.T
	conns chan *fakeConn
	down  chan struct{}           // while it holds a value, dialling fails
	wrap  func(net.Conn) net.Conn // nil, or what the client gets instead; set before the connection is accepted
}

func newFake(t *testing.T) *fake {
	return &fake{t: t, conns: make(chan *fakeConn), down: make(chan struct{}, 1)}
}

func (f *fake) dial(ctx context.Context, _, addr string) (net.Conn, error) {
	if len(f.down) > 0 {
		return nil, errors.New("connection refused")
	}
	ours, theirs := net.Pipe()
	select {
	case f.conns <- &fakeConn{t: f.t, nc: ours, r: packet.NewReader(ours, 0, nil), addr: addr}:
		if f.wrap != nil {
			return f.wrap(theirs), nil
		}
		return theirs, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

type fakeConn struct {
	t    *testing.T
	nc   net.Conn
	r    *packet.Reader
	v    mqtt.Version
	addr string
}

// accept takes a connection and answers CONNECT.
func (f *fake) accept(ack packet.Connack) (*fakeConn, *packet.Connect) {
	f.t.Helper()
	c := <-f.conns
	p, ok := c.next().(*packet.Connect)
	if !ok {
		f.t.Fatalf("first packet is no CONNECT")
	}
	c.v = p.Version
	c.send(&ack)
	return c, p
}

// next returns the next packet; it fails after a minute of silence.
func (c *fakeConn) next() packet.Packet {
	c.t.Helper()
	c.nc.SetReadDeadline(time.Now().Add(time.Minute))
	f, err := c.r.Next()
	if err != nil {
		c.t.Fatalf("reading from the client: %v", err)
	}
	p, err := packet.Decode(f, c.v)
	if err != nil {
		c.t.Fatalf("the client sends: %v", err)
	}
	if p, ok := p.(*packet.Publish); ok {
		p.Payload = append([]byte(nil), p.Payload...)
	}
	return p
}

var equal = cmp.Options{cmpopts.EquateEmpty(), cmp.AllowUnexported(packet.Properties{})}

// expect reads packets that must be these, in order.
func (c *fakeConn) expect(want ...packet.Packet) {
	c.t.Helper()
	for i, w := range want {
		if d := cmp.Diff(w, c.next(), equal); d != "" {
			c.t.Fatalf("packet %d: %s", i, d)
		}
	}
}

func (c *fakeConn) send(ps ...packet.Packet) {
	c.t.Helper()
	for _, p := range ps {
		b, err := p.Append(nil, c.v)
		if err != nil {
			c.t.Fatal(err)
		}
		if _, err := c.nc.Write(b); err != nil {
			c.t.Fatalf("writing to the client: %v", err)
		}
	}
}

// gone waits until the client has closed the connection.
func (c *fakeConn) gone() {
	c.t.Helper()
	c.nc.SetReadDeadline(time.Now().Add(time.Hour))
	if f, err := c.r.Next(); err == nil {
		c.t.Fatalf("%v instead of the end", f.Type)
	} else if e, ok := errors.AsType[net.Error](err); ok && e.Timeout() {
		c.t.Fatal("the connection stays")
	}
}

func (c *fakeConn) close() { c.nc.Close() }

// A bench is a client under test with its fake server.
type bench struct {
	*fake
	c      *Client
	stop   context.CancelFunc
	ended  atomic.Bool // Run has returned
	mu     sync.Mutex
	states []State // guarded by mu
	dones  chan string
}

// run tests a client in a bubble; at the end it is stopped and must leave nothing behind, which
// synctest checks: a goroutine that stays is a deadlock.
func run(t *testing.T, o Options, test func(t *testing.T, b *bench)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := &bench{fake: newFake(t), dones: make(chan string, 10000)}
		if o.URLs == nil {
			o.URLs = []string{"mqtt://server"}
		}
		if o.Version == 0 {
			o.Version = mqtt.V311
		}
		o.Dial = b.dial
		o.Proxy = noProxy
		o.OnState = func(s State) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.states = append(b.states, s)
		}
		c, err := New(o)
		if err != nil {
			t.Fatal(err)
		}
		b.c = c
		ctx, cancel := context.WithCancel(t.Context())
		b.stop = cancel
		ended := make(chan error)
		go func() {
			err := c.Run(ctx)
			b.ended.Store(true)
			ended <- err
		}()
		defer func() {
			cancel()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}()
		test(t, b)
	})
}

// publish publishes a message whose payload names it in dones.
func (b *bench) publish(qos mqtt.QoS, name string) {
	b.t.Helper()
	err := b.c.Publish(b.t.Context(), &mqtt.Message{Topic: "t", Payload: []byte(name), QoS: qos}, func(err error) { b.done(name, err) })
	if err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) done(name string, err error) {
	if err != nil {
		name = fmt.Sprintf("%s: %v", name, err)
	}
	b.dones <- name
}

func (b *bench) expectDone(want ...string) {
	b.t.Helper()
	for _, w := range want {
		select {
		case got := <-b.dones:
			if got != w {
				b.t.Errorf("done %q, want %q", got, w)
			}
		case <-time.After(time.Minute):
			b.t.Fatalf("%q is not done", w)
		}
	}
}

func (b *bench) noneDone() {
	b.t.Helper()
	synctest.Wait()
	select {
	case got := <-b.dones:
		b.t.Errorf("done %q", got)
	default:
	}
}

// pub is the PUBLISH that publish should send.
func pub(qos mqtt.QoS, id uint16, name string) *packet.Publish {
	return &packet.Publish{Topic: "t", QoS: qos, ID: id, Payload: []byte(name)}
}

func again(p *packet.Publish) *packet.Publish {
	p.Dup = true
	return p
}

func diff(a, b any) string { return cmp.Diff(a, b, equal) }

// reported returns all states that were reported, once all is quiet.
func (b *bench) reported() []State {
	synctest.Wait()
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.states)
}

// state returns the state reported last, once all is quiet.
func (b *bench) state() State {
	all := b.reported()
	return all[len(all)-1]
}
