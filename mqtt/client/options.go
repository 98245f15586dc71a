// Package client is an MQTT client that keeps what it was given until the server has it.
//
// Run owns the connection: it connects, comes back with growing pauses when the connection is lost,
// and ends with DISCONNECT. Publish queues a message and returns; the message is kept until it is
// acknowledged and sent again on the next connection when it was not: with the same packet identifier
// and the duplicate flag where the server kept the session [MQTT-4.4.0-1], as a new message where it
// did not. Neither waits for a slow or dead server while a lock is held: one goroutine reads, one
// writes, with deadlines, and a third runs the handlers, so that a slow handler delays no PINGRESP
// and no acknowledgement of what is published.
package client

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/url"
	"time"

	"gateway/mqtt"
)

// Options say how to reach a server and what to agree with it. Only URLs must be set.
type Options struct {
	// URLs are tried in order until one accepts: mqtt://host:1883, mqtts://host:8883,
	// ws://host/path, wss://host/path, unix:///path. tcp, ssl and tls are other names of the first two.
	// User and password in a URL are used where Username is empty.
	URLs     []string
	ClientID string // empty: the server assigns one (5.0), or a random one is made
	Username string
	Password []byte

	// Version 0 tries 5.0 and falls back to 3.1.1 for a server that refuses it.
	Version mqtt.Version
	// CleanStart discards, on the first connection, what the server kept of earlier ones.
	CleanStart bool
	// SessionExpiry is how long the server shall keep the session when the connection ends; 0: not at
	// all. MQTT 3.1.1 knows only 0 and for ever.
	SessionExpiry time.Duration

	KeepAlive      time.Duration // default 30 s; a dead connection is noticed after 1.5 times that, or 6 s; negative: off
	ConnectTimeout time.Duration // for each URL, from name lookup to CONNACK; default 10 s
	WriteTimeout   time.Duration // for 16 KiB to be taken by the kernel; default 10 s
	AckTimeout     time.Duration // after which a server that lives and does not acknowledge is left; default 90 s; negative: never
	Backoff        Backoff       // pauses between attempts; default 250 ms to 4 s

	Will *Will

	ReceiveMaximum  uint16 // QoS 1 and 2 messages that the server may send ahead; default 256
	MaxPacket       uint32 // bytes; larger packets from the server are refused; default 16 MiB
	MaxQueuedBytes  int    // received and not yet handled; default 32 MiB. QoS 0 beyond it is dropped and counted
	MaxUnacked      int    // messages that Publish takes before it blocks; default 4096
	MaxInflight     int    // of these, on the wire at once; default 1024, and at most what the server says
	TopicAliases    int    // for what we publish, at most; default 64, negative: none
	TopicAliasesIn  int    // that the server may use, at most 65,535; default 64, negative: none
	RequestResponse bool   // ask for response information (3.1.2.11.6)
	User            []mqtt.UserProperty

	// Handler gets every received message that no handler of Handle takes. Handlers are called one at a
	// time, in the order of arrival; a message of QoS 1 or 2 is acknowledged when its handlers have returned.
	// The message is theirs to keep. They may publish.
	Handler func(mqtt.Message)
	// OnState is told of each connection made, lost and not made, in order. It must not block.
	OnState func(State)
	// Auth does enhanced authentication (4.12), 5.0 only.
	Auth Authenticator

	// TLS is for mqtts and wss: roots, client certificates, NextProtos for ALPN. ServerName is the URL's
	// host unless set. It is not changed.
	TLS *tls.Config
	// Dial opens the connection below TLS and WebSocket; nil: a net.Dialer, through Proxy.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
	// Proxy tells through which proxy (http, https, socks5) to reach a URL of a server; nil result: none. By default
	// the environment says: ALL_PROXY for all, HTTPS_PROXY for mqtts and wss, HTTP_PROXY for ws, but
	// for what NO_PROXY lists and the own machine.
	Proxy func(server *url.URL) (*url.URL, error)
	// Header goes with the request that opens a WebSocket.
	Header http.Header

	Logger *slog.Logger // nil: none
}

// A Will is what the server publishes for us when the connection ends without DISCONNECT.
type Will struct {
	Message mqtt.Message
	Delay   time.Duration // 5.0; a reconnect within it averts the will (3.1.3.2.2)
}

// An Authenticator does enhanced authentication (4.12), such as SCRAM. Its methods are called in
// turn, never at once; Start begins a new exchange. What they are given is valid until they return.
type Authenticator interface {
	Method() string
	Start(ctx context.Context) (data []byte, err error)
	Continue(ctx context.Context, data []byte) ([]byte, error)
	// Finish checks what the server proved at the end; data may be nil.
	Finish(ctx context.Context, data []byte) error
}

// Errors that Publish returns or hands to done.
var (
	ErrWithdrawn = errors.New("mqtt client: message was withdrawn before it was acknowledged")
	ErrClosed    = errors.New("mqtt client: closed")
	ErrLost      = errors.New("mqtt client: connection was lost while a message of qos 0 was being written")
	errRunning   = errors.New("mqtt client: Run was called before")
)

func (o *Options) defaults() error {
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	def(&o.KeepAlive, 30*time.Second)
	def(&o.ConnectTimeout, 10*time.Second)
	def(&o.WriteTimeout, 10*time.Second)
	def(&o.AckTimeout, 90*time.Second)
	def(&o.Backoff.Min, 250*time.Millisecond)
	def(&o.Backoff.Max, 4*time.Second)
	def(&o.Backoff.Healthy, 10*time.Second)
	o.Backoff.Max = max(o.Backoff.Max, o.Backoff.Min)
	if o.KeepAlive < 0 {
		o.KeepAlive = 0
	}
	num := func(n *int, v int) {
		if *n == 0 {
			*n = v
		}
	}
	num(&o.MaxQueuedBytes, 32<<20)
	num(&o.MaxUnacked, 4096)
	num(&o.MaxInflight, 1024)
	num(&o.TopicAliases, 64)
	if o.ReceiveMaximum == 0 {
		o.ReceiveMaximum = 256
	}
	if o.MaxPacket == 0 {
		o.MaxPacket = 16 << 20
	}
	num(&o.TopicAliasesIn, 64)
	o.TopicAliasesIn = max(0, min(o.TopicAliasesIn, math.MaxUint16))
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Proxy == nil {
		o.Proxy = proxyFromEnvironment
	}
	switch {
	case len(o.URLs) == 0:
		return errors.New("mqtt client: no URL")
	case o.KeepAlive > 65535*time.Second:
		return errors.New("mqtt client: keep alive is more than 65535 s")
	case o.KeepAlive != 0 && o.KeepAlive < time.Second:
		return errors.New("mqtt client: keep alive is less than 1 s")
	case !mqtt.ValidString(o.ClientID):
		return errors.New("mqtt client: client identifier is not valid UTF-8 of at most 65535 bytes")
	case !mqtt.ValidString(o.Username):
		return errors.New("mqtt client: user name is not valid UTF-8 of at most 65535 bytes")
	case len(o.Password) > mqtt.MaxString:
		return errors.New("mqtt client: password is longer than 65535 bytes")
	case o.Version != 0 && o.Version != mqtt.V31 && o.Version != mqtt.V311 && o.Version != mqtt.V5:
		return fmt.Errorf("mqtt client: protocol version %d is none of 3 (3.1), 4 (3.1.1), 5", o.Version)
	case o.Auth != nil && o.Version != 0 && o.Version != mqtt.V5:
		return errors.New("mqtt client: enhanced authentication needs version 5.0")
	case o.MaxUnacked < 1 || o.MaxInflight < 1 || o.MaxQueuedBytes < 1:
		return errors.New("mqtt client: a limit is negative")
	case min(o.ConnectTimeout, o.WriteTimeout, o.SessionExpiry, o.Backoff.Min, o.Backoff.Max, o.Backoff.Healthy) < 0:
		return errors.New("mqtt client: a timeout, a pause or the session expiry is negative")
	}
	if err := checkUser(o.User); err != nil {
		return fmt.Errorf("mqtt client: %w", err)
	}
	if w := o.Will; w != nil {
		if err := check(&w.Message); err != nil {
			return fmt.Errorf("mqtt client: will: %w", err)
		}
		if len(w.Message.Payload) > mqtt.MaxString {
			return errors.New("mqtt client: will payload is longer than 65535 bytes")
		}
	}
	return nil
}

// check says what no server would take of a message.
func check(m *mqtt.Message) error {
	if err := mqtt.CheckTopicName(m.Topic); err != nil {
		return err
	}
	switch {
	case m.QoS > mqtt.ExactlyOnce:
		return fmt.Errorf("mqtt: qos %d is none of 0, 1, 2", m.QoS)
	case !mqtt.ValidString(m.ContentType):
		return errors.New("mqtt: content type is not valid UTF-8 of at most 65535 bytes")
	case m.ResponseTopic != "" && !mqtt.ValidTopicName(m.ResponseTopic):
		return errors.New("mqtt: response topic is not a valid topic name")
	case len(m.CorrelationData) > mqtt.MaxString:
		return errors.New("mqtt: correlation data is longer than 65535 bytes")
	}
	return checkUser(m.User)
}

func checkUser(properties []mqtt.UserProperty) error {
	for _, u := range properties {
		if !mqtt.ValidString(u.Name) || !mqtt.ValidString(u.Value) {
			return errors.New("mqtt: user property is not valid UTF-8 of at most 65535 bytes")
		}
	}
	return nil
}
