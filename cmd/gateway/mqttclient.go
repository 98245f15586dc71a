package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"gateway/internal/logging"
	"gateway/internal/secret"
	"gateway/mqtt"
	"gateway/mqtt/client"
)

// clientFlags are what pub and sub have in common; the short names are those of mosquitto_pub and
// mosquitto_sub.
type clientFlags struct {
	url, host, port           string
	id, user                  string
	password, passwordFile    string
	caFile, certFile, keyFile string
	alpn                      string
	version                   string
	keepAlive, wait           time.Duration
	will                      mqtt.Message
	willPayload               string
	willDelay                 time.Duration
	session                   time.Duration
	debug                     bool
}

func qosVar(f *flag.FlagSet, q *mqtt.QoS, name, usage string) {
	f.Func(name, usage, func(s string) error {
		if len(s) != 1 || s[0] < '0' || s[0] > '2' {
			return errors.New("is none of 0, 1, 2")
		}
		*q = mqtt.QoS(s[0] - '0')
		return nil
	})
}

// seconds is a duration that may be given as a bare number of seconds, as mosquitto_pub and mosquitto_sub take it.
type seconds time.Duration

func (s *seconds) String() string { return time.Duration(*s).String() }

func (s *seconds) Set(text string) error {
	d, err := time.ParseDuration(text)
	if n, bare := strconv.ParseUint(text, 10, 32); bare == nil {
		d, err = time.Duration(n)*time.Second, nil
	}
	if err != nil || d < 0 {
		return errors.New("is no duration, such as 10s, and no number of seconds")
	}
	*s = seconds(d)
	return nil
}

func secondsVar(f *flag.FlagSet, d *time.Duration, name string, value time.Duration, usage string) {
	*d = value
	f.Var((*seconds)(d), name, usage)
}

func (c *clientFlags) register(f *flag.FlagSet) {
	f.StringVar(&c.url, "url", "", "the broker's `URL`: mqtt://, mqtts://, ws://, wss://, unix:///path (default: mqtt://127.0.0.1:1883)")
	f.StringVar(&c.host, "h", "", "instead of --url: the broker's `host`, over TLS where --cafile, --cert or the port 8883 says so")
	f.StringVar(&c.port, "p", "", "the `port` (default: 1883, with TLS 8883)")
	f.StringVar(&c.id, "id", "", "the client `identifier` (default: a random one)")
	f.StringVar(&c.id, "i", "", "the same as --id")
	f.StringVar(&c.user, "user", "", "the user `name`")
	f.StringVar(&c.user, "u", "", "the same as --user")
	f.StringVar(&c.passwordFile, "password-file", "", "the `file` that holds the password")
	f.StringVar(&c.password, "P", "", "the `password`; everybody on this machine can see it, so that --password-file is better")
	f.StringVar(&c.caFile, "cafile", "", "a PEM `file` of the authorities to trust instead of the system's")
	f.StringVar(&c.certFile, "cert", "", "a PEM `file` of our certificate")
	f.StringVar(&c.keyFile, "key", "", "a PEM `file` of the certificate's key")
	f.StringVar(&c.alpn, "alpn", "", "the application `protocol` to agree on in TLS, such as mqtt")
	f.StringVar(&c.version, "V", "", "the protocol `version`: 3.1, 3.1.1 or 5 (default: 5, or 3.1.1 where the broker does not know it)")
	secondsVar(f, &c.keepAlive, "k", 30*time.Second, "the `duration` of the keep alive")
	f.StringVar(&c.will.Topic, "will-topic", "", "the `topic` of a will")
	f.StringVar(&c.willPayload, "will-payload", "", "the `text` of the will")
	qosVar(f, &c.will.QoS, "will-qos", "the `QoS` of the will")
	f.BoolVar(&c.will.Retain, "will-retain", false, "the will is retained")
	secondsVar(f, &c.willDelay, "will-delay", 0, "the `duration` that the broker waits before it publishes the will")
	f.BoolVar(&c.debug, "d", false, "say on the standard error what happens")
}

func (c *clientFlags) options(call call) (client.Options, error) {
	if c.url != "" && (c.host != "" || c.port != "") {
		return client.Options{}, usagef("--url says all that -h and -p do")
	}
	o := client.Options{URLs: []string{c.address()}, ClientID: c.id, Username: c.user, KeepAlive: c.keepAlive, SessionExpiry: c.session}
	switch c.version {
	case "":
	case "3.1", "31", "mqttv31":
		o.Version = mqtt.V31
	case "3.1.1", "311", "mqttv311":
		o.Version = mqtt.V311
	case "5", "5.0", "mqttv5":
		o.Version = mqtt.V5
	default:
		return o, usagef("-V %s: is none of 3.1, 3.1.1, 5", c.version)
	}
	switch {
	case c.password != "" && c.passwordFile != "":
		return o, usagef("-P and --password-file are both the password")
	case c.password != "":
		o.Password = []byte(c.password)
	case c.passwordFile != "":
		path, err := filepath.Abs(c.passwordFile) // as shells have it: a bare name is no credential here
		if err != nil {
			return o, err
		}
		b, err := secret.Read(path, "", os.Getenv)
		if err != nil {
			return o, err
		}
		o.Password = b
	}
	if c.will.Topic != "" {
		c.will.Payload = []byte(c.willPayload)
		o.Will = &client.Will{Message: c.will, Delay: c.willDelay}
	}
	cfg, err := c.tls()
	if err != nil {
		return o, err
	}
	o.TLS = cfg
	level := slog.LevelError
	if c.debug {
		level = slog.LevelDebug
	}
	o.Logger = slog.New(logging.NewHandler(call.err, logging.Plain, level))
	return o, nil
}

// address returns the URL that the flags say.
func (c *clientFlags) address() string {
	switch {
	case c.url != "":
		return c.url
	case c.host == "":
		c.host = "127.0.0.1"
	}
	scheme := "mqtt"
	if c.caFile != "" || c.certFile != "" || c.alpn != "" || c.port == "8883" {
		scheme = "mqtts"
	}
	if c.port == "" { // the scheme's own
		return (&url.URL{Scheme: scheme, Host: bracketed(c.host)}).String()
	}
	return (&url.URL{Scheme: scheme, Host: net.JoinHostPort(c.host, c.port)}).String()
}

// bracketed returns a host as it stands in a URL.
func bracketed(host string) string {
	if strings.Contains(host, ":") {
		return "[" + host + "]"
	}
	return host
}

func (c *clientFlags) tls() (*tls.Config, error) {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.caFile != "" {
		pem, err := os.ReadFile(c.caFile)
		if err != nil {
			return nil, err
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s: holds no certificate in PEM form", c.caFile)
		}
	}
	if c.alpn != "" {
		cfg.NextProtos = []string{c.alpn}
	}
	switch {
	case c.certFile != "" && c.keyFile != "":
		cert, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
		if err != nil {
			return nil, err
		}
		cfg.Certificates = []tls.Certificate{cert}
	case c.certFile != "" || c.keyFile != "":
		return nil, usagef("--cert and --key belong together")
	}
	return cfg, nil
}

// A session is a running client. A broker that refuses us ends it: asking again would not help; one that is
// not there is waited for.
type session struct {
	*client.Client
	fatal chan error
	last  chan error // why it is not connected, the newest only

	cancel func() // begins the end
	end    func() // and waits for it
}

// startSession starts a client. That the broker is away is said once each time: who waits knows for what.
func startSession(ctx context.Context, c call, o client.Options) (*session, error) {
	waiting := false
	s := &session{fatal: make(chan error, 1), last: make(chan error, 1)}
	o.OnState = func(st client.State) {
		select {
		case <-s.last:
		default:
		}
		switch {
		case st.Connected: // whatever was wrong is over
			waiting = false
		case permanent(st.Reason):
			select {
			case s.fatal <- st.Err:
			default:
			}
		default:
			s.last <- st.Err
			if !waiting && st.Err != nil && !errors.Is(st.Err, client.ErrClosed) {
				fmt.Fprintf(c.err, "gateway %s: %s; trying on\n", c.name, strings.TrimPrefix(st.Err.Error(), "mqtt client: "))
			}
			waiting = true
		}
	}
	cl, err := client.New(o)
	if err != nil {
		return nil, usagef("%s", strings.TrimPrefix(err.Error(), "mqtt client: "))
	}
	s.Client = cl
	ctx, s.cancel = context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		cl.Run(ctx)
	}()
	s.end = func() {
		s.cancel()
		<-ended
	}
	return s, nil
}

// why explains a wait that was too long.
func (s *session) why(what string) error {
	select {
	case err := <-s.last:
		return fmt.Errorf("%s: %w", what, err)
	default:
		return errors.New(what)
	}
}

func permanent(c mqtt.ReasonCode) bool {
	switch c {
	case mqtt.Success, mqtt.ServerUnavailable, mqtt.ServerBusy, mqtt.ServerShuttingDown, mqtt.KeepAliveTimeout, mqtt.ConnectionRateExceeded,
		mqtt.MessageRateTooHigh, mqtt.QuotaExceeded, mqtt.MaximumConnectTime, mqtt.UnspecifiedError, mqtt.AdministrativeAction:
		return false
	}
	return c.IsError()
}
