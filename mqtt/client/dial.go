package client

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"

	"golang.org/x/net/http/httpproxy"
	"golang.org/x/net/proxy"
)

// parseURL makes the scheme one of mqtt, mqtts, ws, wss, unix and sees to a port.
func parseURL(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	if err != nil || u.Opaque != "" {
		// To say more would be to show a password, perhaps.
		return nil, errors.New("mqtt client: a URL is not valid; mqtt://host:1883 is the form")
	}
	port := ""
	switch u.Scheme {
	case "mqtt", "tcp":
		u.Scheme, port = "mqtt", "1883"
	case "mqtts", "ssl", "tls":
		u.Scheme, port = "mqtts", "8883"
	case "ws":
		port = "80"
	case "wss":
		port = "443"
	case "unix", "mqtt+unix":
		if u.Scheme = "unix"; u.Path == "" {
			return nil, fmt.Errorf("mqtt client: %s: no path of a socket; unix:///run/mqtt.sock is the form", shown(u))
		}
		return u, nil
	default:
		return nil, fmt.Errorf("mqtt client: %s: scheme %q is none of mqtt, mqtts, ws, wss, unix", shown(u), u.Scheme)
	}
	if u.Hostname() == "" {
		return nil, fmt.Errorf("mqtt client: %s: no host", shown(u))
	}
	if u.Port() == "" {
		u.Host = net.JoinHostPort(u.Hostname(), port)
	}
	return u, nil
}

// shown is a URL without what may be a secret: a user name is one where a server goes by tokens, and a query where it goes
// by signed URLs.
func shown(u *url.URL) string {
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
}

// dial opens the connection on which MQTT is spoken.
func (c *Client) dial(ctx context.Context, u *url.URL) (net.Conn, error) {
	if u.Scheme == "ws" || u.Scheme == "wss" {
		return c.dialWebSocket(ctx, u)
	}
	nc, err := c.dialRaw(ctx, u)
	if err != nil || u.Scheme != "mqtts" {
		return nc, err
	}
	return c.startTLS(ctx, nc, u)
}

func (c *Client) tlsConfig(u *url.URL) *tls.Config {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.opt.TLS != nil {
		cfg = c.opt.TLS.Clone()
	}
	if cfg.ServerName == "" {
		cfg.ServerName = u.Hostname() // SNI, and what the certificate must be for
	}
	return cfg
}

func (c *Client) startTLS(ctx context.Context, nc net.Conn, u *url.URL) (net.Conn, error) {
	t := tls.Client(nc, c.tlsConfig(u))
	if err := t.HandshakeContext(ctx); err != nil {
		nc.Close()
		if errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("tls: server hung up during the handshake; perhaps it does not speak TLS on this port: %w", err)
		}
		return nil, fmt.Errorf("tls: %w", err)
	}
	return t, nil
}

// dialRaw opens the stream below TLS, through a proxy where there is one.
func (c *Client) dialRaw(ctx context.Context, u *url.URL) (net.Conn, error) {
	dial := c.opt.Dial
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	if u.Scheme == "unix" {
		return dial(ctx, "unix", u.Path)
	}
	via, err := c.opt.Proxy(u)
	if err != nil {
		return nil, fmt.Errorf("proxy: %w", err)
	}
	if via == nil {
		return dial(ctx, "tcp", u.Host)
	}
	switch via.Scheme {
	case "socks5", "socks5h":
		d, err := proxy.FromURL(via, dialer(dial))
		if err != nil {
			return nil, fmt.Errorf("proxy %s: %w", shown(via), err)
		}
		nc, err := d.(proxy.ContextDialer).DialContext(ctx, "tcp", u.Host)
		if err != nil {
			return nil, fmt.Errorf("proxy %s: %w", shown(via), err)
		}
		return nc, nil
	case "http", "https":
		nc, err := c.tunnel(ctx, dial, via, u.Host)
		if err != nil {
			return nil, fmt.Errorf("proxy %s: %w", shown(via), err)
		}
		return nc, nil
	}
	return nil, fmt.Errorf("proxy %s: scheme is none of http, https, socks5", shown(via))
}

type dialer func(ctx context.Context, network, addr string) (net.Conn, error)

func (d dialer) Dial(network, addr string) (net.Conn, error) {
	return d(context.Background(), network, addr)
}

func (d dialer) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	return d(ctx, network, addr)
}

// maxAnswer bounds what an HTTP proxy may say before it lets us through, in bytes.
const maxAnswer = 64 << 10

// tunnel asks an HTTP proxy for a connection to addr (RFC 9110, 9.3.6).
func (c *Client) tunnel(ctx context.Context, dial dialer, via *url.URL, addr string) (net.Conn, error) {
	host := via.Host
	if via.Port() == "" {
		host = net.JoinHostPort(via.Hostname(), map[string]string{"http": "80", "https": "443"}[via.Scheme])
	}
	nc, err := dial(ctx, "tcp", host)
	if err != nil {
		return nil, err
	}
	if via.Scheme == "https" {
		t := tls.Client(nc, &tls.Config{ServerName: via.Hostname(), MinVersion: tls.VersionTLS12})
		if err := t.HandshakeContext(ctx); err != nil {
			nc.Close()
			return nil, err
		}
		nc = t
	}
	stop := context.AfterFunc(ctx, func() { nc.Close() })
	defer stop()
	req := &http.Request{Method: http.MethodConnect, URL: &url.URL{Opaque: addr}, Host: addr, Header: http.Header{}}
	if via.User != nil {
		password, _ := via.User.Password()
		req.Header.Set("Proxy-Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(via.User.Username()+":"+password)))
	}
	if err := req.Write(nc); err != nil {
		nc.Close()
		return nil, err
	}
	// The server does not speak before CONNECT, so nothing of its can be in the reader's buffer.
	resp, err := http.ReadResponse(bufio.NewReaderSize(io.LimitReader(nc, maxAnswer), 1024), req)
	if err != nil {
		nc.Close()
		return nil, err
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		nc.Close()
		return nil, errors.New(resp.Status)
	}
	return nc, nil
}

// proxyFromEnvironment reads the variables that curl and others do. A plain connection goes through
// a proxy only where ALL_PROXY says so: those for HTTP seldom let it pass.
func proxyFromEnvironment(server *url.URL) (*url.URL, error) {
	all := os.Getenv("ALL_PROXY")
	if all == "" {
		all = os.Getenv("all_proxy")
	}
	cfg := httpproxy.FromEnvironment()
	ask := *server
	switch server.Scheme {
	case "mqtts", "wss":
		ask.Scheme = "https"
	case "ws":
		ask.Scheme = "http"
	case "mqtt":
		cfg.HTTPProxy = ""
		ask.Scheme = "http"
	default:
		return nil, nil
	}
	cfg.CGI = false
	if cfg.HTTPProxy == "" {
		cfg.HTTPProxy = all
	}
	if cfg.HTTPSProxy == "" {
		cfg.HTTPSProxy = all
	}
	// httpproxy leaves the own machine out only by name and loopback address, which is what we want.
	return cfg.ProxyFunc()(&ask)
}
