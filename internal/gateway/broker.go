package gateway

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	"gateway/adapters"
	"gateway/config"
	"gateway/internal/brokerstore"
	"gateway/internal/clock"
	"gateway/internal/secret"
	"gateway/mqtt"
	"gateway/mqtt/broker"
	"gateway/mqtt/broker/guard"
)

// BrokerEnv is what a broker needs besides its table of the configuration.
type BrokerEnv struct {
	ConfigFile string // from whose directory relative names of files count
	Data       string // directory of all state; the broker's is below it
	Getenv     func(string) string
	Version    string
	Sockets    []net.Listener // that listen already, at addresses of the configuration
	Log        *slog.Logger
}

// NewBroker makes the broker that a configuration asks for. The Closer is its store's and must be
// closed when the broker has ended.
func NewBroker(c *config.Broker, env BrokerEnv) (*broker.Broker, io.Closer, error) {
	o, err := brokerOptions(c, env)
	if err != nil {
		return nil, nil, err
	}
	var store closer
	if c.Persistence {
		s := brokerstore.New(filepath.Join(env.Data, "broker"), nil, env.Log)
		o.Store, store.Closer = s, s
	}
	b, err := broker.New(o)
	if err != nil {
		store.Close()
		return nil, nil, err
	}
	return b, store, nil
}

// A closer closes what there is to close.
type closer struct{ io.Closer }

func (c closer) Close() error {
	if c.Closer == nil {
		return nil
	}
	return c.Closer.Close()
}

// uptime names the machine's present boot and says how long ago it was; "" where that is not known.
func uptime() (boot string, up time.Duration) {
	now := clock.System()
	id, err := now.BootID()
	if err != nil {
		return "", 0
	}
	return string(id[:]), time.Duration(now.Now())
}

// A BrokerFileError is about a file that the table [broker] names and that cannot be used: passwords, access list,
// certificates. To start again does not mend it.
type BrokerFileError struct {
	Key string // password_file, acl_file, certificate_file
	Err error
}

func (e *BrokerFileError) Error() string { return e.Err.Error() }
func (e *BrokerFileError) Unwrap() error { return e.Err }

// brokerOptions translates the table [broker]. Of the files that it names it tells all that cannot be used.
func brokerOptions(c *config.Broker, env BrokerEnv) (broker.Options, error) {
	file := func(name string) string { return secret.Path(name, env.ConfigFile, env.Getenv) }
	qos := mqtt.QoS(c.MaxQoS)
	l := &c.Limits
	o := broker.Options{
		SyncWindow:         c.Sync.Window,
		ServerKeepAlive:    uint16(c.ServerKeepAlive.Seconds()),
		MaxPacketSize:      uint32(c.MaxPacketSize),
		MaxPayload:         int(c.MaxPayload),
		ReceiveMaximum:     uint16(c.ReceiveMaximum),
		TopicAliasMaximum:  uint16(c.TopicAliasMaximum),
		NoTopicAlias:       c.TopicAliasMaximum == 0,
		MaxQoS:             &qos,
		NoRetain:           !c.RetainAvailable,
		NoWildcards:        !c.Wildcards,
		NoShared:           !c.Shared,
		NoEmptyClientID:    !c.EmptyClientID,
		MaxSessionExpiry:   c.MaxSessionExpiry,
		ResponseInfoPrefix: c.ResponseInfo,
		SysInterval:        c.SysInterval,
		Version:            env.Version,
		Uptime:             uptime,
		PortHolder:         portHolder,
		Logger:             env.Log,
		Limits: broker.Limits{
			Connections: l.Connections, Pending: l.Pending, ConnectTimeout: l.ConnectTimeout, WriteTimeout: l.WriteTimeout,
			Sessions: l.Sessions, Inflight: l.Inflight, QueuedMessages: l.QueuedMessages, QueuedBytes: int(l.QueuedBytes),
			QueuedBytesTotal: int(l.QueuedBytesTotal), Subscriptions: l.Subscriptions, SubscriptionsAll: l.SubscriptionsAll,
			TopicLevels: l.TopicLevels, Retained: l.Retained, RetainedBytes: int(l.RetainedBytes),
		},
	}
	if c.Sync.Window == 0 { // "always"
		o.SyncWindow = -1
	}
	if c.SysInterval == 0 {
		o.SysInterval = -1
	}
	switch c.Anonymous {
	case "always":
		o.Anonymous = broker.AnonymousAlways
	case "never":
		o.Anonymous = broker.AnonymousNever
	}
	var errs []error
	users := &guard.Users{Cert: map[string]guard.CertName{"cn": guard.CommonName, "san": guard.SubjectName}[c.CertificateUser]}
	if c.Passwords != "" {
		var err error
		if users.Passwords, err = guard.OpenPasswords(file(c.Passwords), env.Log); err != nil {
			errs = append(errs, &BrokerFileError{"password_file", err})
		}
	}
	if users.Passwords != nil || users.Cert != guard.NoCertName {
		o.Auth = users
	}
	if c.ACL != "" {
		acl, err := guard.OpenACL(file(c.ACL), env.Log)
		if err != nil {
			errs = append(errs, &BrokerFileError{"acl_file", err})
		}
		o.ACL = acl
	}
	var certificate *tls.Config
	for _, s := range c.Listen {
		a, err := config.ParseListen(s)
		if err != nil {
			return o, fmt.Errorf("broker: %w", err)
		}
		ln := broker.Listener{Network: "tcp", Address: a.Address, WebSocket: a.Scheme == "ws" || a.Scheme == "wss"}
		if a.Scheme == "unix" {
			ln.Network = "unix"
		}
		if i := slices.IndexFunc(env.Sockets, func(s net.Listener) bool { return s.Addr().String() == a.Address }); i >= 0 {
			ln.Socket = env.Sockets[i]
		}
		if a.TLS() {
			if certificate == nil {
				if certificate, err = guard.TLS(guard.TLSFiles{
					Certificate: file(c.Certificate), Key: file(c.Key), CA: file(c.CA), CRL: file(c.CRL), Require: c.RequireCertificate,
				}, env.Log); err != nil {
					return o, errors.Join(append(errs, &BrokerFileError{"certificate_file", err})...)
				}
			}
			ln.TLS = certificate
		}
		o.Listen = append(o.Listen, ln)
	}
	return o, errors.Join(errs...)
}

// checkBroker says which of the files that the table [broker] names cannot be used today. Who runs the
// check may not be who runs the service, and may see other files: they are warnings.
func checkBroker(c *config.Broker, configFile string) {
	_, err := brokerOptions(c, BrokerEnv{ConfigFile: configFile, Getenv: os.Getenv, Log: slog.New(slog.DiscardHandler)})
	for _, err := range adapters.Joined(err) {
		if e := new(BrokerFileError); errors.As(err, &e) {
			c.At.Warnf(e.Key, "%s: %v; the gateway does not start like this", e.Key, e.Err)
		}
	}
}
