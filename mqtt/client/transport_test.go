package client

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gateway/mqtt"
	"gateway/mqtt/packet"

	"github.com/coder/websocket"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serveMQTT answers CONNECT and acknowledges what is published at QoS 1, until the client leaves. Its
// result is the user name of CONNECT.
func serveMQTT(nc net.Conn) (user string) {
	defer nc.Close()
	nc.SetDeadline(time.Now().Add(time.Minute))
	r := packet.NewReader(nc, 0, nil)
	v := mqtt.V5
	for {
		f, err := r.Next()
		if err != nil {
			return user
		}
		p, err := packet.Decode(f, v)
		if err != nil {
			return user
		}
		var answer packet.Packet
		switch p := p.(type) {
		case *packet.Connect:
			v, user, answer = p.Version, p.Username, &packet.Connack{}
		case *packet.Publish:
			answer = &packet.Puback{ID: p.ID}
		case *packet.Disconnect:
			return user
		default:
			continue
		}
		b, _ := answer.Append(nil, v)
		if _, err := nc.Write(b); err != nil {
			return user
		}
	}
}

// listen serves MQTT on a listener until the test ends and returns the users that came.
func listen(t *testing.T, l net.Listener) <-chan string {
	users := make(chan string, 10)
	var all sync.WaitGroup
	all.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() { users <- serveMQTT(nc) })
		}
	})
	t.Cleanup(func() { l.Close(); all.Wait() })
	return users
}

func tcp(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// deliver publishes one message over a transport and sees it acknowledged, or returns why not.
func deliver(t *testing.T, o Options) error {
	t.Helper()
	if o.Proxy == nil {
		o.Proxy = noProxy
	}
	o.Version, o.ConnectTimeout, o.WriteTimeout = mqtt.V5, time.Minute, time.Minute
	failed := make(chan error, 100)
	o.OnState = func(s State) {
		if s.Err != nil {
			failed <- s.Err
		}
	}
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	ended := make(chan struct{})
	go func() { c.Run(ctx); close(ended) }()
	defer func() { cancel(); <-ended }()
	done := make(chan error, 1)
	if err := c.Publish(ctx, &mqtt.Message{Topic: "t", QoS: 1}, func(err error) { done <- err }); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-done:
		return err
	case err := <-failed:
		return err
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
}

func refused(t *testing.T, err error, want string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%v, want %s", err, want)
	}
}

// [MQTT-4.2.0-1]
func TestTCPAndUnix(t *testing.T) {
	l := tcp(t)
	users := listen(t, l)
	must(t, deliver(t, Options{URLs: []string{"mqtt://alice:secret@" + l.Addr().String()}}))
	if u := <-users; u != "alice" {
		t.Errorf("user %q", u)
	}
	dir, err := os.MkdirTemp("", "s") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "s")
	u, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	listen(t, u)
	must(t, deliver(t, Options{URLs: []string{"unix://" + filepath.ToSlash(path)}}))
}

// authority issues certificates for a test.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

func newAuthority(t *testing.T) *authority {
	a := &authority{pool: x509.NewCertPool()}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	c := a.sign(t, tmpl, tmpl)
	a.cert, _ = x509.ParseCertificate(c.Certificate[0])
	a.key = c.PrivateKey.(*ecdsa.PrivateKey)
	a.pool.AddCert(a.cert)
	return a
}

func (a *authority) sign(t *testing.T, tmpl, parent *x509.Certificate) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	by := a.key
	if by == nil {
		by = key
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, &key.PublicKey, by)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func (a *authority) issue(t *testing.T, name string) tls.Certificate {
	return a.sign(t, &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}, a.cert)
}

func TestTLS(t *testing.T) {
	ca := newAuthority(t)
	var mu sync.Mutex
	var hello []string // server name, protocols, client certificate
	server := &tls.Config{
		Certificates: []tls.Certificate{ca.issue(t, "broker.test")}, ClientCAs: ca.pool, ClientAuth: tls.VerifyClientCertIfGiven, NextProtos: []string{"mqtt"},
		VerifyConnection: func(s tls.ConnectionState) error {
			mu.Lock()
			defer mu.Unlock()
			name := ""
			if len(s.PeerCertificates) > 0 {
				name = s.PeerCertificates[0].Subject.CommonName
			}
			hello = append(hello, fmt.Sprintf("%s %s %s", s.ServerName, s.NegotiatedProtocol, name))
			return nil
		},
	}
	raw := tcp(t)
	listen(t, tls.NewListener(raw, server))
	addr := raw.Addr().String()
	_, port, _ := net.SplitHostPort(addr)
	dial := func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, addr)
	}
	named := "mqtts://broker.test:" + port
	must(t, deliver(t, Options{URLs: []string{named}, Dial: dial, TLS: &tls.Config{RootCAs: ca.pool}}))
	must(t, deliver(t, Options{URLs: []string{"mqtts://" + addr}, TLS: &tls.Config{RootCAs: ca.pool, ServerName: "broker.test", NextProtos: []string{"mqtt"}, Certificates: []tls.Certificate{ca.issue(t, "box-7")}}}))
	if got := strings.Join(hello, ", "); got != "broker.test  , broker.test mqtt box-7" {
		t.Errorf("handshakes: %s", got)
	}
	refused(t, deliver(t, Options{URLs: []string{named}, Dial: dial}), "certificate")
	refused(t, deliver(t, Options{URLs: []string{"mqtts://" + addr}, TLS: &tls.Config{RootCAs: ca.pool}}), "127.0.0.1")
	// Speaking TLS to a plain port, and the reverse.
	plain := tcp(t)
	listen(t, plain)
	refused(t, deliver(t, Options{URLs: []string{"mqtts://" + plain.Addr().String()}}), "tls")
	if err := deliver(t, Options{URLs: []string{"mqtt://" + addr}}); err == nil {
		t.Error("plain MQTT on a TLS port")
	}
}

// crumbs writes byte by byte.
type crumbs struct{ net.Conn }

func (c crumbs) Write(b []byte) (int, error) {
	for i := range b {
		if _, err := c.Conn.Write(b[i : i+1]); err != nil {
			return i, err
		}
	}
	return len(b), nil
}

func wsServer(t *testing.T, protocols ...string) *httptest.Server {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/mqtt" || r.Header.Get("X-Token") != "t" || r.Header.Get("Authorization") != "" {
			http.Error(w, "not here", http.StatusNotFound)
			return
		}
		ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: protocols})
		if err != nil {
			return
		}
		// A frame for each byte: packets and frames have nothing to do with each other.
		serveMQTT(crumbs{websocket.NetConn(r.Context(), ws, websocket.MessageBinary)})
	}))
	t.Cleanup(s.Close)
	return s
}

// [MQTT-6.0.0-1] [MQTT-6.0.0-2] [MQTT-6.0.0-3]
func TestWebSocket(t *testing.T) {
	header := http.Header{"X-Token": {"t"}}
	s := wsServer(t, "mqtt")
	s.Start()
	must(t, deliver(t, Options{URLs: []string{"ws" + strings.TrimPrefix(s.URL, "http") + "/mqtt"}, Header: header}))
	// The user of a URL is MQTT's, not HTTP's.
	must(t, deliver(t, Options{URLs: []string{"ws" + strings.Replace(s.URL, "http://", "://alice:secret@", 1) + "/mqtt"}, Header: header}))
	refused(t, deliver(t, Options{URLs: []string{"ws" + strings.TrimPrefix(s.URL, "http") + "/other"}, Header: header}), "404")
	// Nor is another place followed, for the header may be a secret.
	moved := httptest.NewServer(http.RedirectHandler(s.URL+"/mqtt", http.StatusTemporaryRedirect))
	defer moved.Close()
	refused(t, deliver(t, Options{URLs: []string{"ws" + strings.TrimPrefix(moved.URL, "http") + "/mqtt"}, Header: header}), "307")

	// A server that does not agree on the subprotocol speaks something else [MQTT-6.0.0-4].
	other := wsServer(t)
	other.Start()
	refused(t, deliver(t, Options{URLs: []string{"ws" + strings.TrimPrefix(other.URL, "http") + "/mqtt"}, Header: header}), "subprotocol mqtt")

	secure := wsServer(t, "mqtt")
	secure.StartTLS()
	pool := x509.NewCertPool()
	pool.AddCert(secure.Certificate())
	wss := "wss" + strings.TrimPrefix(secure.URL, "https") + "/mqtt"
	must(t, deliver(t, Options{URLs: []string{wss}, Header: header, TLS: &tls.Config{RootCAs: pool}}))
	refused(t, deliver(t, Options{URLs: []string{wss}, Header: header}), "certificate")
}

// A handshake that never ends, of whatever transport, ends with the connect timeout, which the error tells.
func TestHandshakesThatNeverEnd(t *testing.T) {
	via := func(s string) func(*url.URL) (*url.URL, error) {
		return func(*url.URL) (*url.URL, error) { return url.Parse(s) }
	}
	for name, o := range map[string]Options{
		"mqtt":  {URLs: []string{"mqtt://server"}, Proxy: noProxy},
		"mqtts": {URLs: []string{"mqtts://server"}, Proxy: noProxy},
		"ws":    {URLs: []string{"ws://server"}, Proxy: noProxy},
		"wss":   {URLs: []string{"wss://server"}, Proxy: noProxy},
		"http":  {URLs: []string{"mqtt://server"}, Proxy: via("http://proxy")},
		"https": {URLs: []string{"mqtt://server"}, Proxy: via("https://proxy")},
		"socks": {URLs: []string{"mqtt://server"}, Proxy: via("socks5://proxy")},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o.ConnectTimeout = 7 * time.Second
				o.Dial = func(context.Context, string, string) (net.Conn, error) {
					ours, theirs := net.Pipe()
					go io.Copy(io.Discard, ours) // it takes everything and says nothing
					return theirs, nil
				}
				failed := make(chan error, 1)
				o.OnState = func(s State) {
					select {
					case failed <- s.Err:
					default:
					}
				}
				c, err := New(o)
				if err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithCancel(t.Context())
				ended := make(chan error)
				start := time.Now()
				go func() { ended <- c.Run(ctx) }()
				// What speaks SOCKS keeps to the time by itself, and says so in its own words.
				if err := <-failed; !strings.Contains(err.Error(), "no answer within 7s") && !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start) != 7*time.Second {
					t.Errorf("after %v: %v", time.Since(start), err)
				}
				// Nor does it hold up the end.
				time.Sleep(time.Second)
				start = time.Now()
				cancel()
				if <-ended; time.Since(start) != 0 {
					t.Errorf("Run takes %v to end", time.Since(start))
				}
			})
		})
	}
}

// A connection on which the wrong thing is spoken is closed, and the error says what it was; the port of a proxy is that of its
// scheme where none is named.
func TestHandshakesThatFail(t *testing.T) {
	via := func(s string) func(*url.URL) (*url.URL, error) {
		return func(*url.URL) (*url.URL, error) { return url.Parse(s) }
	}
	const http500 = "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n"
	for _, c := range []struct {
		name, url string
		proxy     func(*url.URL) (*url.URL, error)
		answer    string // none: it hangs up
		addr      string
		says      string
	}{
		{"http on mqtt", "mqtt://server", noProxy, http500, "server:1883", "hung up"},
		{"http on mqtts", "mqtts://server", noProxy, http500, "server:8883", "tls: "},
		{"silence on mqtts", "mqtts://server", noProxy, "", "server:8883", "perhaps it does not speak TLS"},
		{"no websocket", "ws://server", noProxy, http500, "server:80", "500"},
		{"http on wss", "wss://server", noProxy, http500, "server:443", "tls: "},
		{"http proxy", "mqtt://server", via("http://proxy"), http500, "proxy:80", "500"},
		{"http proxy with a port", "mqtt://server", via("http://proxy:3128"), http500, "proxy:3128", "500"},
		{"http proxy that hangs up", "mqtt://server", via("http://proxy"), "", "proxy:80", "proxy http://proxy: "},
		{"https proxy", "mqtt://server", via("https://proxy"), http500, "proxy:443", "tls: "},
		{"http proxy for wss", "wss://server", via("http://proxy"), http500, "proxy:80", "500"},
		{"socks proxy", "mqtt://server", via("socks5://proxy"), http500, "proxy:1080", "proxy socks5://proxy: "},
		{"proxy that is not known", "mqtt://server", func(*url.URL) (*url.URL, error) { return nil, errors.New("the script failed") }, "", "", "proxy: the script failed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var open []*half
				addr := ""
				dial := func(_ context.Context, _, a string) (net.Conn, error) {
					addr = a
					ours, theirs := net.Pipe()
					go func() {
						ours.Read(make([]byte, 4096))
						io.WriteString(ours, c.answer)
						ours.Close()
					}()
					open = append(open, &half{Conn: theirs})
					return open[len(open)-1], nil
				}
				client, err := New(Options{URLs: []string{c.url}, Version: mqtt.V5, Proxy: c.proxy, Dial: dial})
				if err != nil {
					t.Fatal(err)
				}
				var v mqtt.Version
				if _, err := client.connect(t.Context(), client.urls[0], &v); err == nil || !strings.Contains(err.Error(), c.says) {
					t.Errorf("%v, want %s", err, c.says)
				}
				synctest.Wait()
				for _, h := range open {
					if !h.closed {
						t.Error("the connection stays open")
					}
				}
				if addr != c.addr {
					t.Errorf("dials %s", addr)
				}
			})
		})
	}
}

// A user name may be a token, and a query a signature: neither gets into a log or an error.
func TestSecretsInURLsAreNotShown(t *testing.T) {
	for _, s := range []string{"mqtt:token:secret@h", "http://token:secret@h", "mqtt://token:secret@", "unix://token:secret@", "mqtt://token:secret@h:port"} {
		if _, err := New(Options{URLs: []string{s}}); err == nil || strings.Contains(err.Error(), "token") || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", s, err)
		}
	}
	var log bytes.Buffer
	for _, scheme := range []string{"mqtt", "ws"} {
		run(t, Options{URLs: []string{scheme + "://token:secret@server:1/p?q=secret"}, Logger: slog.New(slog.NewTextHandler(&log, nil))}, func(t *testing.T, b *bench) {
			s := <-b.conns
			s.close()
			if st := b.state(); st.URL != scheme+"://server:1/p" {
				t.Error(st.URL)
			}
			s = <-b.conns
			if scheme == "ws" {
				s.upgrade()
			}
			s.next()
			s.send(&packet.Connack{})
			if st := b.state(); !st.Connected || st.URL != scheme+"://server:1/p" {
				t.Error(st.URL)
			}
		})
	}
	if s := log.String(); strings.Count(s, "not connected") != 2 || strings.Contains(s, "token") || strings.Contains(s, "secret") {
		t.Error(s)
	}
	c, err := New(Options{
		URLs:  []string{"mqtt://server"},
		Proxy: func(*url.URL) (*url.URL, error) { return url.Parse("http://token:secret@proxy") },
		Dial:  func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("connection refused") },
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.dial(t.Context(), c.urls[0]); err == nil || err.Error() != "proxy http://proxy: connection refused" {
		t.Error(err)
	}
}

// relay copies both ways until either side ends.
func relay(a, b io.ReadWriteCloser) {
	var both sync.WaitGroup
	both.Go(func() { io.Copy(a, b); a.Close(); b.Close() })
	io.Copy(b, a)
	a.Close()
	b.Close()
	both.Wait()
}

// forwarder runs a proxy: handshake reads the client's wish and returns the address.
func forwarder(t *testing.T, handshake func(nc net.Conn) (addr string, ok bool)) string {
	l := tcp(t)
	var all sync.WaitGroup
	all.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer nc.Close()
				addr, ok := handshake(nc)
				if !ok {
					return
				}
				out, err := net.Dial("tcp", addr)
				if err == nil {
					relay(nc, out)
				}
			})
		}
	})
	t.Cleanup(func() { l.Close(); all.Wait() })
	return l.Addr().String()
}

func TestHTTPProxy(t *testing.T) {
	l := tcp(t)
	listen(t, l)
	addr := forwarder(t, func(nc net.Conn) (string, bool) {
		req, err := http.ReadRequest(bufio.NewReader(nc))
		if err != nil || req.Method != http.MethodConnect {
			return "", false
		}
		if req.Header.Get("Proxy-Authorization") != "Basic dTpw" {
			io.WriteString(nc, "HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
			return "", false
		}
		io.WriteString(nc, "HTTP/1.1 200 OK\r\n\r\n")
		return req.Host, true
	})
	via := func(s string) func(*url.URL) (*url.URL, error) {
		return func(*url.URL) (*url.URL, error) { return url.Parse(s) }
	}
	target := []string{"mqtt://" + l.Addr().String()}
	must(t, deliver(t, Options{URLs: target, Proxy: via("http://u:p@" + addr)}))
	refused(t, deliver(t, Options{URLs: target, Proxy: via("http://" + addr)}), "407")
	refused(t, deliver(t, Options{URLs: target, Proxy: via("ftp://" + addr)}), "none of http, https, socks5")
	// A proxy that never comes to the point is heard only so long.
	endless := forwarder(t, func(nc net.Conn) (string, bool) {
		io.WriteString(nc, "HTTP/1.1 200 OK\r\n")
		for {
			if _, err := io.WriteString(nc, "X-More: and more\r\n"); err != nil {
				return "", false
			}
		}
	})
	refused(t, deliver(t, Options{URLs: target, Proxy: via("http://" + endless)}), "proxy http://"+endless)
	ws := wsServer(t, "mqtt")
	ws.Start()
	must(t, deliver(t, Options{URLs: []string{"ws" + strings.TrimPrefix(ws.URL, "http") + "/mqtt"}, Header: http.Header{"X-Token": {"t"}}, Proxy: via("http://u:p@" + addr)}))
}

func TestSOCKSProxy(t *testing.T) {
	l := tcp(t)
	listen(t, l)
	// RFC 1928 without authentication, IPv4 and names.
	addr := forwarder(t, func(nc net.Conn) (string, bool) {
		b := make([]byte, 300)
		if _, err := io.ReadFull(nc, b[:2]); err != nil || b[0] != 5 {
			return "", false
		}
		io.ReadFull(nc, b[:b[1]])
		nc.Write([]byte{5, 0})
		if _, err := io.ReadFull(nc, b[:4]); err != nil {
			return "", false
		}
		host := ""
		switch b[3] {
		case 1:
			io.ReadFull(nc, b[:4])
			host = net.IP(b[:4]).String()
		case 3:
			io.ReadFull(nc, b[:1])
			n := int(b[0])
			io.ReadFull(nc, b[:n])
			host = string(b[:n])
		}
		if _, err := io.ReadFull(nc, b[:2]); err != nil {
			return "", false
		}
		nc.Write([]byte{5, 0, 0, 1, 0, 0, 0, 0, 0, 0})
		return net.JoinHostPort(host, fmt.Sprint(int(b[0])<<8|int(b[1]))), true
	})
	must(t, deliver(t, Options{URLs: []string{"mqtt://" + l.Addr().String()}, Proxy: func(*url.URL) (*url.URL, error) { return url.Parse("socks5://" + addr) }}))
}

func TestProxyFromEnvironment(t *testing.T) {
	for _, name := range []string{"HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy", "REQUEST_METHOD"} {
		t.Setenv(name, "")
	}
	ask := func(s string) string {
		t.Helper()
		u, err := parseURL(s)
		if err != nil {
			t.Fatal(err)
		}
		p, err := proxyFromEnvironment(u)
		if err != nil {
			t.Fatal(err)
		}
		if p == nil {
			return ""
		}
		return p.String()
	}
	expect := func(s, want string) {
		t.Helper()
		if got := ask(s); got != want {
			t.Errorf("%s goes through %q, want %q", s, got, want)
		}
	}
	expect("mqtt://a.example", "")
	t.Setenv("HTTP_PROXY", "http://h:1")
	t.Setenv("REQUEST_METHOD", "GET") // nor is this a script of a web server
	t.Setenv("HTTPS_PROXY", "http://s:2")
	expect("mqtt://a.example", "") // a proxy for the web would not let it pass
	expect("mqtts://a.example", "http://s:2")
	expect("wss://a.example", "http://s:2")
	expect("ws://a.example", "http://h:1")
	expect("unix:///s", "")
	t.Setenv("ALL_PROXY", "socks5://x:3")
	expect("mqtt://a.example", "socks5://x:3")
	expect("mqtts://a.example", "http://s:2")
	expect("mqtt://127.0.0.1", "")
	expect("mqtts://localhost", "")
	t.Setenv("NO_PROXY", "example,10.0.0.0/8")
	expect("mqtts://a.example", "")
	expect("mqtt://10.1.2.3:1883", "")
	expect("mqtt://11.1.2.3:1883", "socks5://x:3")
	t.Setenv("HTTPS_PROXY", "")
	t.Setenv("HTTP_PROXY", "")
	expect("mqtts://11.1.2.3:8883", "socks5://x:3")
	expect("wss://11.1.2.3:443", "socks5://x:3")
	expect("ws://11.1.2.3:80", "socks5://x:3")
	t.Setenv("ALL_PROXY", "")
	t.Setenv("all_proxy", "SOCKS5://y:4")
	expect("mqtt://11.1.2.3:1883", "socks5://y:4")
}

func TestURLs(t *testing.T) {
	for in, want := range map[string]string{
		"mqtt://h": "mqtt://h:1883", "tcp://h:7": "mqtt://h:7", "ssl://h": "mqtts://h:8883", "tls://[::1]": "mqtts://[::1]:8883",
		"ws://h/p": "ws://h:80/p", "wss://h/p?q=1": "wss://h:443/p?q=1", "mqtt+unix:///run/x": "unix:///run/x",
	} {
		if u, err := parseURL(in); err != nil || u.String() != want {
			t.Errorf("%s: %v, %v", in, u, err)
		}
	}
	for _, in := range []string{"", "host:1883", "http://h", "mqtt://", "unix://", "mqtt://u:secret@h:port"} {
		if _, err := parseURL(in); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", in, err)
		}
	}
}
