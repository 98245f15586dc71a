package config

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// LocalDestination is the name of the destination that the embedded broker is.
const LocalDestination = "local"

// Broker is the table [broker]: the local broker inside the gateway.
type Broker struct {
	At      Place
	Enabled bool `toml:"enabled"`
	// Listen holds the addresses: host:port, or a URL with the scheme mqtt, mqtts, ws, wss or unix.
	Listen []string `toml:"listen"`

	Certificate        string `toml:"certificate_file"` // for mqtts and wss, PEM, with the chain
	Key                string `toml:"key_file"`
	CA                 string `toml:"ca_file"`                    // who signs clients' certificates
	CRL                string `toml:"crl_file"`                   // revoked ones
	RequireCertificate bool   `toml:"require_client_certificate"` // on mqtts and wss
	CertificateUser    string `toml:"certificate_user"`           // "cn" or "san": the name in the certificate is the user's

	Passwords string `toml:"password_file"` // written by gateway passwd
	ACL       string `toml:"acl_file"`
	Anonymous string `toml:"anonymous"` // "loopback", "always" or "never"

	Persistence bool `toml:"persistence"` // sessions and retained messages survive a restart
	Sync        Sync `toml:"sync"`        // how long at most what nobody waits for is not synced

	ServerKeepAlive   time.Duration `toml:"server_keep_alive"` // tells MQTT 5.0 clients; 0: theirs
	MaxPacketSize     Size          `toml:"max_packet_size"`
	MaxPayload        Size          `toml:"max_payload"` // 0: what the packet size allows
	ReceiveMaximum    int           `toml:"receive_maximum"`
	TopicAliasMaximum int           `toml:"topic_alias_maximum"`
	MaxQoS            int           `toml:"max_qos"`
	RetainAvailable   bool          `toml:"retain_available"`
	Wildcards         bool          `toml:"wildcard_subscriptions"`
	Shared            bool          `toml:"shared_subscriptions"`
	EmptyClientID     bool          `toml:"allow_empty_client_id"`
	MaxSessionExpiry  time.Duration `toml:"max_session_expiry"` // 0: no bound
	ResponseInfo      string        `toml:"response_information"`
	SysInterval       time.Duration `toml:"sys_interval"` // of the $SYS topics; 0: none

	Limits BrokerLimits `toml:"limits"`
}

// BrokerLimits is the table [broker.limits].
type BrokerLimits struct {
	At               Place
	Connections      int           `toml:"connections"`
	Pending          int           `toml:"pending_connections"`
	ConnectTimeout   time.Duration `toml:"connect_timeout"`
	WriteTimeout     time.Duration `toml:"write_timeout"`
	Sessions         int           `toml:"sessions"`
	Inflight         int           `toml:"inflight"`
	QueuedMessages   int           `toml:"queued_messages"`
	QueuedBytes      Size          `toml:"queued_bytes"`
	QueuedBytesTotal Size          `toml:"queued_bytes_total"`
	Subscriptions    int           `toml:"subscriptions"`
	SubscriptionsAll int           `toml:"subscriptions_total"`
	TopicLevels      int           `toml:"topic_levels"`
	Retained         int           `toml:"retained_messages"`
	RetainedBytes    Size          `toml:"retained_bytes"`
}

func (b *Broker) setDefaults() {
	b.Enabled = true
	b.Listen = []string{"127.0.0.1:1883"}
	b.Anonymous = "loopback"
	b.Persistence = true
	b.Sync.Window = time.Second
	b.MaxPacketSize = 4 << 20
	b.ReceiveMaximum = 1024
	b.TopicAliasMaximum = 32
	b.MaxQoS = 2
	b.RetainAvailable = true
	b.Wildcards = true
	b.Shared = true
	b.EmptyClientID = true
	b.SysInterval = 10 * time.Second
	b.Limits.setDefaults()
}

func (l *BrokerLimits) setDefaults() {
	l.Connections = 20_000
	l.Pending = 1000
	l.ConnectTimeout = 10 * time.Second
	l.WriteTimeout = 30 * time.Second
	l.Sessions = 50_000
	l.Inflight = 256
	l.QueuedMessages = 10_000
	l.QueuedBytes = 8 << 20
	l.QueuedBytesTotal = 256 << 20
	l.Subscriptions = 100_000
	l.SubscriptionsAll = 1_000_000
	l.TopicLevels = 256
	l.Retained = 100_000
	l.RetainedBytes = 128 << 20
}

// A Listen is one of a broker's addresses taken apart.
type Listen struct {
	Scheme  string // mqtt, mqtts, ws, wss or unix
	Address string // host:port, or the path of a socket
}

// TLS tells whether the listener needs a certificate.
func (l Listen) TLS() bool { return l.Scheme == "mqtts" || l.Scheme == "wss" }

// ParseListen takes an address of the broker apart.
func ParseListen(s string) (Listen, error) {
	scheme, address, found := strings.Cut(s, "://")
	if !found {
		scheme, address = "mqtt", s
		if path, ok := strings.CutPrefix(s, "unix:"); ok {
			scheme, address = "unix", path
		}
	}
	switch scheme {
	case "tcp":
		scheme = "mqtt"
	case "ssl", "tls":
		scheme = "mqtts"
	case "mqtt", "mqtts", "ws", "wss":
	case "unix":
		if err := checkSocket(address); err != nil {
			return Listen{}, fmt.Errorf("%q: %w", s, err)
		}
		return Listen{scheme, address}, nil
	default:
		return Listen{}, fmt.Errorf("%q: the scheme is not one of mqtt, mqtts, ws, wss, unix", s)
	}
	address = strings.TrimSuffix(address, "/")
	_, port, err := net.SplitHostPort(address)
	if n, e := strconv.Atoi(port); err != nil || e != nil || n < 0 || n > 65535 {
		return Listen{}, fmt.Errorf("%q is not an address; write host:port, such as 127.0.0.1:1883", s)
	}
	return Listen{scheme, address}, nil
}

// maxSocketPath is what sun_path of unix(7) holds beside its final null, in bytes.
const maxSocketPath = 107

// checkSocket tells whether the path of a Unix socket can be used.
func checkSocket(path string) error {
	switch {
	case !filepath.IsAbs(path):
		return errors.New("a Unix socket is unix: and an absolute path, such as unix:/run/gateway/mqtt.sock")
	case len(path) > maxSocketPath:
		return fmt.Errorf("the path of a Unix socket has at most %d bytes, and this one has %d; put the socket into a directory nearer to the root, such as /run/gateway", maxSocketPath, len(path))
	}
	return nil
}

func (b *Broker) check() {
	needsTLS, beyond := false, false
	for _, s := range b.Listen {
		l, err := ParseListen(s)
		if err != nil {
			b.At.Errorf("listen", "listen: %v", err)
			continue
		}
		needsTLS = needsTLS || l.TLS()
		host, _, _ := net.SplitHostPort(l.Address)
		ip := net.ParseIP(host)
		beyond = beyond || l.Scheme != "unix" && host != "localhost" && (ip == nil || !ip.IsLoopback())
	}
	switch {
	case needsTLS && (b.Certificate == "" || b.Key == ""):
		b.At.Errorf("listen", "listen: mqtts and wss need certificate_file and key_file")
	case !needsTLS && b.Certificate != "":
		b.At.Warnf("certificate_file", "certificate_file: no address in listen is mqtts or wss, so nothing is encrypted")
	}
	if b.CA == "" {
		for key, set := range map[string]bool{"crl_file": b.CRL != "", "require_client_certificate": b.RequireCertificate, "certificate_user": b.CertificateUser != ""} {
			if set {
				b.At.Errorf(key, "%s: clients' certificates need ca_file to be checked with", key)
			}
		}
	}
	if u := b.CertificateUser; u != "" && u != "cn" && u != "san" {
		b.At.Errorf("certificate_user", `certificate_user is %q, must be "cn" or "san"`, u)
	}
	switch b.Anonymous {
	case "loopback", "never":
	case "always":
		if beyond {
			b.At.Warnf("anonymous", "anonymous: everybody in the network can read and write everything that the ACL does not refuse")
		}
	default:
		b.At.Errorf("anonymous", `anonymous is %q, must be "loopback", "always" or "never"`, b.Anonymous)
	}
	if beyond && b.Anonymous != "always" && b.Passwords == "" && b.CertificateUser == "" {
		b.At.Warnf("listen", "listen: nobody from outside of this machine can connect without password_file, certificate_user or anonymous = \"always\"")
	}
	within := func(at Place, key string, n, least, most int64) {
		if n < least || n > most {
			at.Errorf(key, "%s is %d, must be from %d to %d", key, n, least, most)
		}
	}
	within(b.At, "receive_maximum", int64(b.ReceiveMaximum), 1, 65535)
	within(b.At, "topic_alias_maximum", int64(b.TopicAliasMaximum), 0, 65535)
	within(b.At, "max_qos", int64(b.MaxQoS), 0, 2)
	within(b.At, "max_packet_size", int64(b.MaxPacketSize), 128, 268_435_460)
	within(b.At, "max_payload", int64(b.MaxPayload), 0, 268_435_455)
	if k := b.ServerKeepAlive; k < 0 || k > 65535*time.Second || k%time.Second != 0 {
		b.At.Errorf("server_keep_alive", "server_keep_alive is %v, must be whole seconds up to 65535s", k)
	}
	for key, d := range map[string]time.Duration{"max_session_expiry": b.MaxSessionExpiry, "sys_interval": b.SysInterval} {
		if d < 0 || d > 0 && d < time.Second {
			b.At.Errorf(key, "%s is %v, must be 0 or at least 1s", key, d)
		}
	}
	b.Limits.check()
}

func (l *BrokerLimits) check() {
	most := int64(1<<31 - 1)
	for _, x := range []struct {
		key string
		n   int64
		max int64
	}{
		{"connections", int64(l.Connections), most}, {"pending_connections", int64(l.Pending), most},
		{"sessions", int64(l.Sessions), most}, {"inflight", int64(l.Inflight), 65535},
		{"queued_messages", int64(l.QueuedMessages), most}, {"queued_bytes", int64(l.QueuedBytes), most},
		{"queued_bytes_total", int64(l.QueuedBytesTotal), most}, {"subscriptions", int64(l.Subscriptions), most},
		{"subscriptions_total", int64(l.SubscriptionsAll), most}, {"topic_levels", int64(l.TopicLevels), 65535},
		{"retained_messages", int64(l.Retained), most}, {"retained_bytes", int64(l.RetainedBytes), most},
	} {
		if x.n < 1 || x.n > x.max {
			l.At.Errorf(x.key, "%s is %d, must be from 1 to %d", x.key, x.n, x.max)
		}
	}
	for key, d := range map[string]time.Duration{"connect_timeout": l.ConnectTimeout, "write_timeout": l.WriteTimeout} {
		if d < 100*time.Millisecond {
			l.At.Errorf(key, "%s is %v, must be at least 100ms", key, d)
		}
	}
}
