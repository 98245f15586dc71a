package broker

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"net"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"

	"gateway/mqtt"
	"gateway/mqtt/packet"
)

// selfSigned makes a certificate for localhost; with a CA it is signed by that.
func selfSigned(t testing.TB, name string, ca *tls.Certificate) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA: ca == nil, BasicConstraintsValid: true,
	}
	parent, signer := c, any(key)
	if ca != nil {
		parent, signer = ca.Leaf, ca.PrivateKey
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// everyListener runs a broker with a listener of each kind and says how to connect to them.
func everyListener(t *testing.T) (b *Broker, dials map[string]func() (net.Conn, error)) {
	cert := selfSigned(t, "broker", nil)
	pool := x509.NewCertPool()
	pool.AddCert(cert.Leaf)
	server := &tls.Config{Certificates: []tls.Certificate{cert}}
	client := &tls.Config{RootCAs: pool, ServerName: "localhost"}
	t.Chdir(t.TempDir()) // a socket's path is short, that of a temporary directory need not be
	socket := "mqtt.sock"
	b = start(t, Options{Listen: []Listener{
		{Address: "127.0.0.1:0"},
		{Address: "127.0.0.1:0", TLS: server},
		{Address: "127.0.0.1:0", WebSocket: true},
		{Address: "127.0.0.1:0", WebSocket: true, TLS: server},
		{Network: "unix", Address: socket},
	}})
	<-b.Tried()
	for _, err := range b.Faults() {
		if err != nil {
			t.Fatal(err)
		}
	}
	addr := func(i int) string { return b.Addrs()[i].String() }
	web := func(url string) (net.Conn, error) {
		ws, _, err := websocket.Dial(t.Context(), url, &websocket.DialOptions{
			Subprotocols: []string{"mqtt"}, HTTPClient: &http.Client{Transport: &http.Transport{TLSClientConfig: client}},
		})
		if err != nil {
			return nil, err
		}
		ws.SetReadLimit(-1)
		return websocket.NetConn(context.Background(), ws, websocket.MessageBinary), nil
	}
	return b, map[string]func() (net.Conn, error){
		"TCP":                func() (net.Conn, error) { return net.Dial("tcp", addr(0)) },
		"TLS":                func() (net.Conn, error) { return tls.Dial("tcp", addr(1), client) },
		"WebSocket":          func() (net.Conn, error) { return web("ws://" + addr(2) + "/mqtt") },
		"WebSocket over TLS": func() (net.Conn, error) { return web("wss://" + addr(3) + "/mqtt") },
		"Unix":               func() (net.Conn, error) { return net.Dial("unix", socket) },
	}
}

// TestALastDisconnectIsHeardBeforeTheHeir, over whatever lies between the protocol and the socket.
func TestALastDisconnectIsHeardOnEveryListener(t *testing.T) {
	b, dials := everyListener(t)
	watch := join(t, b, mqtt.V5, "watch")
	watch.subscribed("will", 0)
	for name, dial := range dials {
		for range 20 {
			nc, err := dial()
			if err != nil {
				t.Fatal(err)
			}
			p := newPeer(t, nc, mqtt.V5)
			p.send(&packet.Connect{Version: mqtt.V5, ClientID: "quick", CleanStart: true, Will: &packet.Will{Topic: "will", Payload: []byte(name)}})
			expect[*packet.Connack](p)
			p.send(&packet.Disconnect{})
			join(t, b, mqtt.V5, "quick").leave()
		}
		watch.silence()
	}
	if n := b.Stats().TakeOvers; n != 0 {
		t.Errorf("%d take-overs of connections that had ended", n)
	}
}

// A door is a listener of a bubble: who comes through it comes by a pipe.
type door struct {
	waiting chan net.Conn
	closed  chan struct{}
	close   func()
}

func newDoor() *door {
	d := &door{waiting: make(chan net.Conn, 1000), closed: make(chan struct{})}
	d.close = sync.OnceFunc(func() { close(d.closed) })
	return d
}

func (d *door) Accept() (net.Conn, error) {
	select {
	case nc := <-d.waiting:
		return nc, nil
	case <-d.closed:
		return nil, net.ErrClosed
	}
}

func (d *door) Addr() net.Addr { return &net.UnixAddr{Name: "door", Net: "unix"} }

func (d *door) Close() error {
	d.close()
	return nil
}

func (d *door) dial() net.Conn {
	near, far := net.Pipe()
	d.waiting <- far
	return near
}

// knock connects without sending anything.
func (d *door) knock(t *testing.T) *peer { return newPeer(t, d.dial(), mqtt.V5) }

// throughDoor runs a test in a bubble, with a broker that listens at a door.
func throughDoor(t *testing.T, l Listener, limits Limits, test func(t *testing.T, b *Broker, d *door)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		d := newDoor()
		l.Socket = d
		b, stop := startStop(t, Options{Listen: []Listener{l}, Limits: limits})
		test(t, b, d)
		stop()
	})
}

// At the limit a client that leaves and comes back at once finds room, and one too many does not.
func TestAConnectionAtTheLimitMayComeBack(t *testing.T) {
	throughDoor(t, Listener{}, Limits{Connections: 2}, func(t *testing.T, b *Broker, d *door) {
		come := func(id string) *peer {
			p := d.knock(t)
			p.send(&packet.Connect{Version: mqtt.V5, ClientID: id, CleanStart: true})
			expect[*packet.Connack](p)
			return p
		}
		come("stays")
		for range 200 {
			p := come("comes and goes")
			p.send(&packet.Disconnect{})
			p.drop()
		}
		come("last")
		d.knock(t).closed()
		if n := b.Stats().TurnedAway; n != 1 {
			t.Errorf("%d connections were turned away", n)
		}
	})
}

// When everybody comes at once, as after a restart, those that CONNECT without delay all get in.
func TestAStormOfConnections(t *testing.T) {
	throughDoor(t, Listener{}, Limits{Pending: 2}, func(t *testing.T, b *Broker, d *door) {
		var all sync.WaitGroup
		for range 100 {
			p := d.knock(t)
			all.Go(func() {
				p.send(&packet.Connect{Version: mqtt.V5, CleanStart: true})
				if _, err := p.next(patience); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
	})
}

func TestListeners(t *testing.T) {
	_, dials := everyListener(t)
	for name, dial := range dials {
		t.Run(name, func(t *testing.T) {
			nc, err := dial()
			if err != nil {
				t.Fatal(err)
			}
			p := newPeer(t, nc, mqtt.V5)
			p.send(&packet.Connect{Version: mqtt.V5, ClientID: name, CleanStart: true})
			if ack := expect[*packet.Connack](p); ack.Code != mqtt.Success {
				t.Fatal(ack.Code)
			}
			p.subscribed("t", 2)
			for qos := mqtt.AtMostOnce; qos <= mqtt.ExactlyOnce; qos++ {
				p.send(&packet.Publish{Topic: "t", QoS: qos, ID: uint16(qos), Payload: make([]byte, 100_000)})
				for range 1 + min(qos, 1) { // the message, and its acknowledgement
					if _, err := p.next(patience); err != nil {
						t.Fatal(err)
					}
				}
			}
			p.write(unhex("f1 00"))
			if d := expect[*packet.Disconnect](p); d.Code != mqtt.MalformedPacket {
				t.Errorf("DISCONNECT says %s", d.Code)
			}
		})
	}
}

// A web page that a browser on this machine shows is as strange as the machine that it came from, whatever address it
// connects from: it needs a password.
func TestAWebPageIsNotThisMachine(t *testing.T) {
	b := start(t, Options{Listen: []Listener{{Address: "127.0.0.1:0", WebSocket: true}}})
	until(t, "it listens", func() bool { return b.Addrs()[0] != nil })
	for origin, want := range map[string]mqtt.ReasonCode{
		"":                              mqtt.Success,
		"http://localhost:8080":         mqtt.Success,
		"http://panel.localhost":        mqtt.Success,
		"http://127.0.0.1":              mqtt.Success,
		"http://[::1]:8080":             mqtt.Success,
		"https://evil.example":          mqtt.NotAuthorized,
		"http://localhost.evil.example": mqtt.NotAuthorized,
		"null":                          mqtt.NotAuthorized, // a sandboxed frame, a file
	} {
		header := http.Header{}
		if origin != "" {
			header.Set("Origin", origin)
		}
		ws, _, err := websocket.Dial(t.Context(), "ws://"+b.Addrs()[0].String(), &websocket.DialOptions{Subprotocols: []string{"mqtt"}, HTTPHeader: header})
		if err != nil {
			t.Fatal(err)
		}
		p := newPeer(t, websocket.NetConn(t.Context(), ws, websocket.MessageBinary), mqtt.V5)
		p.send(&packet.Connect{Version: mqtt.V5, CleanStart: true})
		if ack := expect[*packet.Connack](p); ack.Code != want {
			t.Errorf("origin %q: %s, want %s", origin, ack.Code, want)
		}
	}
}

func TestWebSocketNeedsItsSubprotocolAndBinaryFrames(t *testing.T) {
	b := start(t, Options{Listen: []Listener{{Address: "127.0.0.1:0", WebSocket: true}}})
	until(t, "it listens", func() bool { return b.Addrs()[0] != nil })
	url := "ws://" + b.Addrs()[0].String()
	ws, _, err := websocket.Dial(t.Context(), url, nil)
	if err == nil {
		_, _, err = ws.Read(t.Context())
	}
	if err == nil { // [MQTT-6.0.0-3]
		t.Error("a client without the subprotocol was served")
	}
	ws, _, err = websocket.Dial(t.Context(), url, &websocket.DialOptions{Subprotocols: []string{"mqtt"}})
	if err != nil {
		t.Fatal(err)
	}
	if ws.Subprotocol() != "mqtt" { // [MQTT-6.0.0-4]
		t.Errorf("the answer names %q", ws.Subprotocol())
	}
	ws.Write(t.Context(), websocket.MessageText, []byte("text"))
	if _, _, err := ws.Read(t.Context()); err == nil { // [MQTT-6.0.0-1]
		t.Error("a text frame was taken")
	}
}

func TestATakenAddressIsRetriedAndItsHolderNamed(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	logs := make(chan string, 100)
	b := start(t, Options{
		Listen:     []Listener{{Address: taken.Addr().String()}, {Address: "127.0.0.1:0"}},
		PortHolder: func(int) string { return "mosquitto (pid 812)" },
		Logger:     logTo(logs),
	})
	<-b.Tried()
	if b.Addrs()[1] == nil {
		t.Error("the other address waits for the taken one")
	}
	until(t, "the log names the holder", func() bool {
		select {
		case line := <-logs:
			return contains(line, "cannot listen", "mosquitto (pid 812)")
		default:
			return false
		}
	})
	if b.Addrs()[0] != nil {
		t.Error("it says that it listens on a taken address")
	}
	if f := b.Faults(); f[1] != nil || f[0] == nil || !contains(f[0].Error(), taken.Addr().String(), "mosquitto (pid 812)") {
		t.Errorf("it tells the fault as %v", f)
	}
	taken.Close()
	until(t, "it gets the address in the end", func() bool { return b.Addrs()[0] != nil && b.Faults()[0] == nil })
}

func TestASocketThatListensAlreadyIsServedAndClosed(t *testing.T) {
	socket, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nc, err := net.Dial("tcp", socket.Addr().String()) // it may be early
	if err != nil {
		t.Fatal(err)
	}
	_, stop := startStop(t, Options{Listen: []Listener{{Socket: socket}}})
	p := newPeer(t, nc, mqtt.V5)
	p.send(&packet.Connect{Version: mqtt.V5, CleanStart: true})
	expect[*packet.Connack](p)
	stop()
	if _, err := socket.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after the end of the broker its socket says %v", err)
	}
}

// A socket file that a killed broker left behind is no obstacle, one that is in use is.
func TestStaleUnixSockets(t *testing.T) {
	t.Chdir(t.TempDir()) // a socket's path is short
	path := "s"
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	if err := removeStale(path); err == nil {
		t.Error("a socket in use was removed")
	}
	ln.SetUnlinkOnClose(false)
	ln.Close()
	if err := removeStale(path); err != nil {
		t.Error(err)
	}
}

// An authFunc is an Authenticator.
type authFunc func(c *Client, user string, password []byte) (string, error)

func (f authFunc) Authenticate(_ context.Context, c *Client, user string, password []byte) (string, error) {
	return f(c, user, password)
}

// An aclFunc is an Authorizer.
type aclFunc func(c *Client, a Access, topic string) bool

func (f aclFunc) Allow(c *Client, a Access, topic string) bool { return f(c, a, topic) }

// [MQTT-3.1.4-2]
func TestWhoMayConnect(t *testing.T) {
	passwords := authFunc(func(_ *Client, user string, password []byte) (string, error) {
		if user == "alice" && string(password) == "secret" {
			return user, nil
		}
		return "", &mqtt.ReasonError{Op: "connect", Code: mqtt.BadUserNameOrPassword}
	})
	as := func(user, password string) func(*packet.Connect) {
		return func(c *packet.Connect) {
			c.HasUsername, c.Username, c.HasPassword, c.Password = true, user, true, []byte(password)
		}
	}
	nobody := func(*packet.Connect) {}
	for name, c := range map[string]struct {
		o    Options
		edit func(*packet.Connect)
		want mqtt.ReasonCode
	}{
		"anonymous on loopback":                {Options{}, nobody, mqtt.Success},
		"anonymous on loopback with passwords": {Options{Auth: passwords}, nobody, mqtt.Success},
		"anonymous, never":                     {Options{Anonymous: AnonymousNever}, nobody, mqtt.NotAuthorized},
		"right password":                       {Options{Auth: passwords, Anonymous: AnonymousNever}, as("alice", "secret"), mqtt.Success},
		"wrong password":                       {Options{Auth: passwords}, as("alice", "guess"), mqtt.BadUserNameOrPassword},
	} {
		b := start(t, c.o)
		for _, v := range []mqtt.Version{mqtt.V311, mqtt.V5} {
			p, ack := connect(t, b, v, "c", c.edit)
			if ack.Code != c.want {
				t.Errorf("%s, version %d: %s, want %s", name, v, ack.Code, c.want)
			}
			if ack.Code != mqtt.Success {
				p.closed()
			}
		}
	}
	if local(&net.TCPAddr{IP: net.IPv4(192, 0, 2, 1)}) || !local(&net.TCPAddr{IP: net.IPv6loopback}) || local(nil) {
		t.Error("which addresses are this machine's is wrong")
	}
}

func TestAccessIsJudgedAndChangesCount(t *testing.T) {
	open := make(chan bool, 1)
	open <- false
	is := func() bool { v := <-open; open <- v; return v }
	b := start(t, Options{ACL: aclFunc(func(c *Client, a Access, topic string) bool {
		switch {
		case topic == "public":
			return true
		case topic == "private":
			return c.ID == "pub" && a == Publish || a == Receive && is()
		}
		return topic == "#" && a == Subscribe
	})})
	sub := join(t, b, mqtt.V5, "sub")
	if got := sub.subscribe(mqtt.Subscription{Filter: "#", QoS: 1}, mqtt.Subscription{Filter: "private"}); got[0] != 1 || got[1] != mqtt.NotAuthorized {
		t.Errorf("SUBACK %v", got)
	}
	pub := join(t, b, mqtt.V5, "pub")
	if got := pub.publish("other", "x", 1); got != mqtt.NotAuthorized {
		t.Errorf("PUBACK %s", got)
	}
	pub.publish("other", "x", 0)
	pub.publish("private", "hidden", 1)
	pub.publish("public", "seen", 1)
	sub.message("public", "seen")
	<-open
	open <- true
	b.ReloadACL()
	pub.publish("private", "now seen", 1)
	sub.message("private", "now seen")
	// A will is judged like a message.
	mortal := join(t, b, mqtt.V5, "mortal", willOf("private", "gone"))
	mortal.drop()
	until(t, "the will is refused", func() bool { return b.Stats().Refused >= 4 })
}

// A client that connects with the identifier of somebody else's session gets nothing by it that it may not
// receive: not what waited, not what was sent and not acknowledged, and not what is published from now on.
func TestASessionGivesNobodyWhatTheACLRefuses(t *testing.T) {
	b := start(t, Options{
		Auth: authFunc(func(_ *Client, username string, _ []byte) (string, error) { return username, nil }),
		ACL: aclFunc(func(c *Client, a Access, topic string) bool {
			return a != Receive || topic == "public" || c.Username == "alice"
		}),
	})
	as := func(name string) func(*packet.Connect) {
		return func(c *packet.Connect) {
			persistent(c)
			c.HasUsername, c.Username = true, name
		}
	}
	alice := join(t, b, mqtt.V5, "panel", as("alice"))
	alice.subscribed("#", 2)
	pub := join(t, b, mqtt.V5, "pub")
	pub.publish("private", "sent", 1)
	alice.message("private", "sent")
	alice.leave()
	pub.publish("private", "waits", 2)
	pub.publish("public", "for all", 1)

	mallory := join(t, b, mqtt.V5, "panel", as("mallory"))
	m := mallory.message("public", "for all")
	mallory.send(&packet.Puback{ID: m.ID})
	pub.publish("private", "later", 1)
	mallory.silence()
	if n := b.Stats().Refused; n != 2 {
		t.Errorf("%d messages counted as refused, want 2", n)
	}

	alice = join(t, b, mqtt.V5, "panel", as("alice"))
	pub.publish("private", "again", 1)
	alice.message("private", "again")
}
