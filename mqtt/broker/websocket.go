package broker

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"
)

// A wsListener takes MQTT over WebSocket (6): an HTTP server whose upgraded connections are
// accepted as network connections.
type wsListener struct {
	net.Listener
	srv    *http.Server
	conns  chan net.Conn
	done   chan struct{}
	once   sync.Once
	serves sync.WaitGroup

	pending    int
	turnedAway func(net.Conn)
	mu         sync.Mutex
	fresh      map[net.Conn]struct{} // those that do not speak WebSocket yet
}

// listenWebSocket makes a listener of WebSockets from one of sockets. At most pending connections are not
// upgraded yet, for timeout each; the others are closed and reported to turnedAway.
func listenWebSocket(ln net.Listener, t *tls.Config, pending int, timeout time.Duration, turnedAway func(net.Conn)) net.Listener {
	l := &wsListener{
		Listener: ln, conns: make(chan net.Conn), done: make(chan struct{}),
		pending: pending, turnedAway: turnedAway, fresh: make(map[net.Conn]struct{}),
	}
	l.srv = &http.Server{
		Handler:           l,
		ReadHeaderTimeout: timeout,
		MaxHeaderBytes:    16 << 10,
		TLSConfig:         t,
		ConnState:         l.count,
		ConnContext: func(ctx context.Context, nc net.Conn) context.Context {
			return context.WithValue(ctx, belowKey{}, nc)
		},
		ErrorLog: log.New(io.Discard, "", 0), // it would go to the standard error, one line for each stranger
	}
	if t != nil {
		t = t.Clone()
		t.NextProtos = []string{"http/1.1"} // WebSocket's upgrade is of HTTP/1.1
		ln = tls.NewListener(ln, t)
	}
	l.serves.Go(func() { l.srv.Serve(ln) })
	return l
}

// count keeps the number of connections that are not upgraded within bounds.
func (l *wsListener) count(nc net.Conn, state http.ConnState) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case state == http.StateHijacked || state == http.StateClosed:
		delete(l.fresh, nc)
	case state != http.StateNew:
	case len(l.fresh) < l.pending:
		l.fresh[nc] = struct{}{}
	default:
		l.turnedAway(nc)
		nc.Close()
	}
}

func (l *wsListener) Accept() (net.Conn, error) {
	select {
	case nc := <-l.conns:
		return nc, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *wsListener) Close() error {
	l.once.Do(func() { close(l.done) })
	err := l.srv.Close()
	l.serves.Wait()
	return err
}

// ServeHTTP upgrades. The client must name the subprotocol mqtt [MQTT-6.0.0-3], which the answer
// names, too [MQTT-6.0.0-4]; frames that are not binary close the connection [MQTT-6.0.0-1].
func (l *wsListener) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{
		Subprotocols: []string{"mqtt", "mqttv3.1"},
		// Pages of other origins may connect: a client proves who it is in CONNECT, not by cookies. What counts
		// as this machine's own is another matter, see ofAStranger.
		InsecureSkipVerify: true,
		CompressionMode:    websocket.CompressionDisabled,
	})
	if err != nil {
		return // Accept has answered
	}
	if ws.Subprotocol() == "" {
		ws.Close(websocket.StatusPolicyViolation, "the subprotocol must be mqtt")
		return
	}
	ws.SetReadLimit(-1) // the packet reader has limits of its own, and frames are not packets [MQTT-6.0.0-2]
	ctx, cancel := context.WithCancel(context.Background())
	nc := &wsConn{Conn: websocket.NetConn(ctx, ws, websocket.MessageBinary), cancel: cancel, tls: r.TLS, closed: make(chan struct{})}
	nc.below, _ = r.Context().Value(belowKey{}).(net.Conn)
	if a, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok {
		nc.local = a
	}
	nc.remote = remoteAddr(r.RemoteAddr)
	nc.stranger = ofAStranger(r.Header.Get("Origin"))
	select {
	case l.conns <- nc:
		<-nc.closed // the handler's end would close the connection
	case <-l.done:
		nc.Close()
	}
}

// ofAStranger tells whether it is a page that connects, and none of this machine's own: then an address of this
// machine says only where the browser runs. The Host header proves nothing, since a page's server chooses where its
// name leads.
func ofAStranger(origin string) bool {
	if origin == "" {
		return false // no browser
	}
	u, err := url.Parse(origin)
	if err != nil {
		return true
	}
	name := strings.ToLower(u.Hostname())
	ip := net.ParseIP(name)
	return name != "localhost" && !strings.HasSuffix(name, ".localhost") && !ip.IsLoopback()
}

// remoteAddr is the address of an HTTP client; a Unix socket's has none.
func remoteAddr(s string) net.Addr {
	if a, err := net.ResolveTCPAddr("tcp", s); err == nil && a.IP != nil {
		return a
	}
	return &net.UnixAddr{Name: s, Net: "unix"}
}

// belowKey is under which a request's context has the connection that it came by.
type belowKey struct{}

// A wsConn is a WebSocket as a network connection.
type wsConn struct {
	net.Conn
	below         net.Conn // what it stands on
	cancel        context.CancelFunc
	tls           *tls.ConnectionState
	local, remote net.Addr
	stranger      bool // a page of another machine's, in a browser that may be on this one
	once          sync.Once
	closed        chan struct{}
}

func (c *wsConn) LocalAddr() net.Addr  { return c.local }
func (c *wsConn) RemoteAddr() net.Addr { return c.remote }

// ConnectionState is that of the TLS connection below, empty without one.
func (c *wsConn) ConnectionState() tls.ConnectionState {
	if c.tls == nil {
		return tls.ConnectionState{}
	}
	return *c.tls
}

func (c *wsConn) Close() error {
	var err error
	c.once.Do(func() {
		err = c.Conn.Close()
		c.cancel()
		close(c.closed)
	})
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}
