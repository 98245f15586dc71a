// Package mqttclient runs our client against brokers that we did not write: Debian's Mosquitto,
// mochi-mqtt and the MQTT side of NATS.
package mqttclient

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gateway/e2e/rig"
	"gateway/mqtt"

	mochi "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/hooks/auth"
	"github.com/mochi-mqtt/server/v2/listeners"
	nats "github.com/nats-io/nats-server/v2/server"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	code := m.Run()
	// The embedded brokers leave goroutines of their own behind, and take a while to end the others; ours must not be left.
	left := func() error {
		return goleak.Find(
			goleak.IgnoreAnyFunction("github.com/nats-io/nats-server/v2/server.(*Server).startGoRoutine.func1"),
			goleak.IgnoreAnyFunction("github.com/nats-io/nats-server/v2/server.init.0.func1"),
			goleak.IgnoreAnyFunction("github.com/nats-io/nats-server/v2/server.(*ipQueue[...]).push"),
		)
	}
	if code == 0 {
		err := left()
		for limit := time.Now().Add(patience); err != nil && time.Now().Before(limit); {
			err = left()
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// A peer is a broker in a version of the protocol.
type peer struct {
	name    string
	version mqtt.Version
	ordered bool                      // mochi hands on out of order what exceeds the receive maximum or waited in a session
	start   func(t *testing.T) string // returns its URL; the test's end ends it
}

var peers = []peer{
	{"mosquitto-3.1.1", mqtt.V311, true, startMosquitto},
	{"mosquitto-5.0", mqtt.V5, true, startMosquitto},
	{"mochi-3.1.1", mqtt.V311, false, startMochi},
	{"mochi-5.0", mqtt.V5, false, startMochi},
	{"nats-3.1.1", mqtt.V311, true, startNATS},
	{"gateway-3.1.1", mqtt.V311, true, startGateway},
	{"gateway-5.0", mqtt.V5, true, startGateway},
}

func eachPeer(t *testing.T, test func(t *testing.T, p peer, url string)) {
	for _, p := range peers {
		t.Run(p.name, func(t *testing.T) { test(t, p, p.start(t)) })
	}
}

func startMosquitto(t *testing.T) string { return rig.NewMosquitto(t, "").URL() }

// startGateway starts our own broker alone, with its sessions on the disk.
func startGateway(t *testing.T) string {
	addr := fmt.Sprintf("127.0.0.1:%d", rig.FreePort(t))
	rig.Start(t, rig.Binary(t), "broker", "--listen", addr, "--data", t.TempDir())
	rig.AwaitTCP(t, addr, rig.Patience)
	return "mqtt://" + addr
}

// exact tells whether a broker neither loses nor repeats anything when connections are cut.
func (p peer) exact() bool {
	return strings.HasPrefix(p.name, "mosquitto") || strings.HasPrefix(p.name, "gateway")
}

func startMochi(t *testing.T) string {
	// mochi's client queue drops what does not fit; that is not what these tests are about.
	caps := mochi.NewDefaultServerCapabilities()
	caps.MaximumClientWritesPending = 1 << 16
	caps.MaximumInflight = 1 << 15
	s := mochi.New(&mochi.Options{Capabilities: caps, Logger: slog.New(slog.DiscardHandler)})
	if err := s.AddHook(new(auth.AllowHook), nil); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.AddListener(listeners.NewNet("t", &turns{Listener: l})); err != nil {
		t.Fatal(err)
	}
	if err := s.Serve(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return "mqtt://" + l.Addr().String()
}

// turns is a listener whose connections are served one at a time: what one has read is handled before
// another's Read returns. mochi v2.7.9 takes a read lock twice (Inflight.NextImmediate, GetAll) and hangs
// for ever where a publisher asks for the write lock in between.
type turns struct {
	net.Listener
	turn sync.Mutex
}

func (l *turns) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &turnConn{Conn: nc, turn: &l.turn}, nil
}

type turnConn struct {
	net.Conn
	turn   *sync.Mutex
	mine   atomic.Bool
	closed atomic.Bool
}

func (c *turnConn) Read(b []byte) (int, error) {
	c.end()
	n, err := c.Conn.Read(b)
	if err != nil {
		return n, err
	}
	c.turn.Lock()
	c.mine.Store(true)
	if c.closed.Load() { // while it waited for its turn; nobody would end that one
		c.end()
		return 0, net.ErrClosed
	}
	return n, nil
}

// Write does not fail; that the other side is gone shows when it is read from. mochi v2.7.9 keeps an acknowledgement
// that it could not write for the next connection, and the message it acknowledges is never handed on
// (Server.processPublish, Client.ResendInflightMessages).
func (c *turnConn) Write(b []byte) (int, error) {
	_, _ = c.Conn.Write(b)
	return len(b), nil
}

func (c *turnConn) Close() error {
	c.closed.Store(true)
	err := c.Conn.Close()
	c.end()
	return err
}

func (c *turnConn) end() {
	if c.mine.CompareAndSwap(true, false) {
		c.turn.Unlock()
	}
}

func startNATS(t *testing.T) string {
	port := rig.FreePort(t)
	s, err := nats.NewServer(&nats.Options{
		ServerName: "e2e", Host: "127.0.0.1", Port: nats.RANDOM_PORT, DontListen: true, NoSigs: true, NoLog: true,
		JetStream: true, StoreDir: filepath.Join(t.TempDir(), "js"),
		MQTT: nats.MQTTOpts{Host: "127.0.0.1", Port: port, AckWait: 30 * time.Second, MaxAckPending: 1000},
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	rig.AwaitTCP(t, fmt.Sprintf("127.0.0.1:%d", port), rig.Patience)
	return fmt.Sprintf("mqtt://127.0.0.1:%d", port)
}

// A cutter is a proxy on the way to a broker that cuts a connection once it has carried its share of bytes, in the
// middle of whatever passes. It counts bytes, not arrivals, so that a test is cut as often however fast its sides are.
type cutter struct {
	l     net.Listener
	to    string
	every int64 // bytes that one connection carries, both ways together
	left  atomic.Int64
}

// newCutter makes a proxy to the address that makes that many cuts, and after them lets everything pass.
func newCutter(t *testing.T, to string, every, cuts int64) *cutter {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &cutter{l: l, to: to, every: every}
	c.left.Store(cuts)
	var running sync.WaitGroup
	running.Go(func() { c.accept(t.Context(), &running) })
	t.Cleanup(func() {
		l.Close()
		running.Wait()
	})
	return c
}

func (c *cutter) url() string { return "mqtt://" + c.l.Addr().String() }

func (c *cutter) accept(ctx context.Context, running *sync.WaitGroup) {
	for {
		in, err := c.l.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("tcp", c.to)
		if err != nil {
			in.Close()
			continue
		}
		end := func() {
			in.Close()
			out.Close()
		}
		context.AfterFunc(ctx, end) // the test's context ends before its cleanups
		var carried atomic.Int64
		pipe := func(dst, src net.Conn) {
			defer end()
			buf := make([]byte, 700) // small and odd, so that cuts fall within packets
			for {
				n, err := src.Read(buf)
				if err != nil {
					return
				}
				if _, err := dst.Write(buf[:n]); err != nil {
					return
				}
				if sum := carried.Add(int64(n)); sum >= c.every && sum-int64(n) < c.every && c.left.Add(-1) >= 0 {
					return
				}
			}
		}
		running.Go(func() { pipe(in, out) })
		running.Go(func() { pipe(out, in) })
	}
}

func testLogger(t *testing.T) *slog.Logger {
	if os.Getenv("MQTTCLIENT_LOG") == "" {
		return nil
	}
	return slog.New(slog.NewTextHandler(t.Output(), nil))
}
