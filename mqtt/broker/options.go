package broker

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"time"

	"gateway/mqtt"
)

// Options say how a broker behaves. The zero Options give a broker without listeners that accepts
// anonymous clients from loopback and in-process, keeps sessions in memory and has the limits of the
// package comment.
type Options struct {
	Listen []Listener

	Auth      Authenticator // nil: nobody has a password, see Anonymous
	ACL       Authorizer    // nil: everybody may do everything but publish to $ topics
	Anonymous Anonymity
	Store     Store // nil: sessions and retained messages end with the process
	// SyncWindow is how long at most what the broker took over from nobody that waits, such as
	// in-process messages, stays unsynced. Publishers that wait for an acknowledgement trigger
	// the sync themselves. Default 1 s; negative: everything triggers the sync.
	SyncWindow time.Duration

	// What the broker offers (3.2.2.3). Zero values mean the defaults in brackets.
	ServerKeepAlive    uint16        // seconds, tells MQTT 5.0 clients to use this [theirs]
	MaxPacketSize      uint32        // bytes of one packet, both ways [4 MiB]
	MaxPayload         int           // bytes of one message's payload [what the packet size allows]
	ReceiveMaximum     uint16        // unacknowledged QoS 1 and 2 messages that a client may send [1024]
	TopicAliasMaximum  uint16        // topic aliases that a client may use [32]
	NoTopicAlias       bool          // none, instead
	MaxQoS             *mqtt.QoS     // the highest that is accepted [2]
	NoRetain           bool          // retained messages are refused
	NoWildcards        bool          // filters with wildcards are refused
	NoShared           bool          // shared subscriptions are refused
	NoEmptyClientID    bool          // clients must bring an identifier
	MaxSessionExpiry   time.Duration // no session outlives its connection by more; 0: no bound
	ResponseInfoPrefix string        // response information is this and the client identifier [none]

	Limits Limits

	// SysInterval is how often the $SYS topics are brought up to date; negative: there are none. Default 10 s.
	SysInterval time.Duration
	Version     string // what $SYS/broker/version says

	// Uptime says which boot of the machine this is and for how long it has run. With it the time that the
	// broker did not run, but the machine did, counts for expiry intervals after a restart; nil or an empty
	// boot: it does not.
	Uptime func() (boot string, up time.Duration)

	// PortHolder says which process listens on a TCP port, for the log; "" or nil: unknown.
	PortHolder func(port int) string

	Logger *slog.Logger // nil: silent
}

// Limits bound what clients can make the broker hold. Zero values mean the defaults in brackets.
type Limits struct {
	Connections    int           // at a time, [20,000]
	Pending        int           // of which not yet past CONNECT [1,000]
	ConnectTimeout time.Duration // from accepting to a whole CONNECT [10 s]
	WriteTimeout   time.Duration // without any progress in writing [30 s]

	Sessions          int // with and without connection [50,000]
	Inflight          int // unacknowledged messages on their way to one client [256; MQTT 5.0 clients say less if they want]
	QueuedMessages    int // waiting for one session [10,000]
	QueuedBytes       int // the same in bytes [8 MiB]
	QueuedBytesTotal  int // of all sessions, and of packets larger than 16 KiB that are arriving [256 MiB]
	Subscriptions     int // of one session, or KiB of filters [100,000]
	SubscriptionsAll  int // of all sessions [1,000,000]
	TopicLevels       int // of a topic or filter [256]
	Retained          int // retained messages [100,000]
	RetainedBytes     int // the same in bytes [128 MiB]
	OutBuffer         int // encoded bytes that wait for one client's socket before messages queue [128 KiB]
	ConnectPacketSize int // bytes of a CONNECT [256 KiB]
	ConnectBytes      int // of all CONNECT packets larger than 16 KiB that are arriving [16 MiB]
}

// A Listener is an address to listen on.
type Listener struct {
	Network string // "tcp" (the default), "tcp4", "tcp6" or "unix"
	Address string // host:port, or the path of a Unix socket
	TLS     *tls.Config
	// WebSocket speaks MQTT over WebSocket, at every path.
	WebSocket bool
	Socket    net.Listener // that listens already, and that Run closes; nil: the broker listens on Address
}

func (l Listener) network() string {
	if l.Network == "" {
		return "tcp"
	}
	return l.Network
}

// Anonymity says which clients without a username and a verified certificate may connect.
type Anonymity uint8

const (
	AnonymousLoopback Anonymity = iota // those on this machine, but no web page of another
	AnonymousAlways
	AnonymousNever
)

// A Client is what is known of a client when it is judged.
type Client struct {
	ID       string
	Username string // after authentication: of the password file, or of the certificate
	Addr     net.Addr
	Version  mqtt.Version
	// Certificate is the client's, verified by the listener's TLS configuration; nil: none.
	Certificate *x509.Certificate
}

// An Authenticator judges who a client is. Authenticate returns the name that the ACL will know the
// client by. It is called on the client's own goroutine, ends with ctx, and reports a refusal as
// *mqtt.ReasonError (BadUserNameOrPassword, NotAuthorized, Banned, …); any other error is a server
// that is unavailable.
type Authenticator interface {
	Authenticate(ctx context.Context, c *Client, username string, password []byte) (user string, err error)
}

// An Access is what a client wants with a topic.
type Access uint8

const (
	Publish   Access = iota + 1 // to a topic name
	Subscribe                   // to a topic filter, without its share prefix
	Receive                     // a message of a topic name
)

// An Authorizer judges what a client may do. Allow may be called from several goroutines at once and
// must not block; answers to Publish and Receive are remembered until ReloadACL, or until a method Changed() bool,
// which the broker calls every few seconds where there is one, returns true.
type Authorizer interface {
	Allow(c *Client, a Access, topic string) bool
}

// A Store keeps records over restarts: a journal. The broker writes every change of a persistent
// session and of the retained messages as one record, from many goroutines; what the records hold is
// its own affair. Records are replayed in the order in which Append was called.
type Store interface {
	// Replay calls fn with the records of the newest snapshot and then with those appended since.
	// It is called once, before anything else. A record is valid during the call only.
	Replay(fn func(rec []byte) error) error
	// Append hands a record to the operating system. It must not keep rec.
	Append(rec []byte) error
	// Sync returns when everything appended before the call survives a power cut.
	Sync() error
	// Snapshot replaces the records so far by those that write puts. Records that are appended
	// after its first call of put come after the snapshot, also while it is being written; those before that
	// are replaced. It runs beside Append and Sync; once it has returned without an error, failures before it are
	// mended, and after an error all is as before.
	Snapshot(write func(put func(rec []byte) error) error) error
	// Size is how many bytes were appended since the newest snapshot.
	Size() int64
}

func (o *Options) fill() error {
	def := func(p *int, v int) {
		if *p == 0 {
			*p = v
		}
	}
	defTime := func(p *time.Duration, v time.Duration) {
		if *p == 0 {
			*p = v
		}
	}
	l := &o.Limits
	def(&l.Connections, 20_000)
	def(&l.Pending, 1000)
	def(&l.Sessions, 50_000)
	def(&l.Inflight, 256)
	def(&l.QueuedMessages, 10_000)
	def(&l.QueuedBytes, 8<<20)
	def(&l.QueuedBytesTotal, 256<<20)
	def(&l.Subscriptions, 100_000)
	def(&l.SubscriptionsAll, 1_000_000)
	def(&l.TopicLevels, 256)
	def(&l.Retained, 100_000)
	def(&l.RetainedBytes, 128<<20)
	def(&l.OutBuffer, 128<<10)
	def(&l.ConnectPacketSize, 256<<10)
	def(&l.ConnectBytes, 16<<20)
	defTime(&l.ConnectTimeout, 10*time.Second)
	defTime(&l.WriteTimeout, 30*time.Second)
	defTime(&o.SyncWindow, time.Second)
	defTime(&o.SysInterval, 10*time.Second)
	if o.MaxPacketSize == 0 {
		o.MaxPacketSize = 4 << 20
	}
	if o.ReceiveMaximum == 0 {
		o.ReceiveMaximum = 1024
	}
	if o.TopicAliasMaximum == 0 {
		o.TopicAliasMaximum = 32
	}
	if o.NoTopicAlias {
		o.TopicAliasMaximum = 0
	}
	if o.MaxQoS == nil {
		q := mqtt.ExactlyOnce
		o.MaxQoS = &q
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Version == "" {
		o.Version = "gateway"
	}
	return o.check()
}

func (o *Options) check() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf("broker: "+format, args...)) }
	l := &o.Limits
	for name, v := range map[string]int{
		"connections": l.Connections, "pending": l.Pending, "sessions": l.Sessions, "queued messages": l.QueuedMessages,
		"queued bytes": l.QueuedBytes, "total queued bytes": l.QueuedBytesTotal, "subscriptions": l.Subscriptions,
		"total subscriptions": l.SubscriptionsAll, "topic levels": l.TopicLevels, "retained": l.Retained,
		"retained bytes": l.RetainedBytes, "out buffer": l.OutBuffer,
		"connect packet size": l.ConnectPacketSize, "connect bytes": l.ConnectBytes,
	} {
		if v < 1 {
			bad("limit of %s is %d: it must be at least 1", name, v)
		}
	}
	if l.Inflight < 1 || l.Inflight > math.MaxUint16 {
		bad("limit of messages in flight is %d: it is 1 to 65535", l.Inflight)
	}
	if o.MaxPacketSize < 128 || o.MaxPacketSize > maxPacket {
		bad("maximum packet size is %d: it is 128 to %d bytes", o.MaxPacketSize, maxPacket)
	}
	if *o.MaxQoS > mqtt.ExactlyOnce {
		bad("maximum qos is %d: it is 0, 1 or 2", *o.MaxQoS)
	}
	for _, ln := range o.Listen {
		if ln.Address == "" && ln.Socket == nil {
			bad("a listener has no address")
		}
	}
	return errors.Join(errs...)
}

// maxPacket is the largest packet that the protocol knows (2.1.4), fixed header included.
const maxPacket = 268_435_455 + 5
