package config

import (
	"cmp"
	"net/url"
	"slices"
	"strings"
	"time"
)

// Destination is a table [[destination]]: a broker to which readings are published.
type Destination struct {
	At           Place
	Name         string        `toml:"name"`
	URL          string        `toml:"url"`
	URLs         []string      `toml:"urls"` // instead of url: a cluster's nodes, tried in turn
	ClientID     string        `toml:"client_id"`
	Version      string        `toml:"version"` // "5" or "3.1.1"; empty: 5, and 3.1.1 where the broker refuses it
	KeepAlive    time.Duration `toml:"keep_alive"`
	Username     string        `toml:"username"`
	PasswordFile string        `toml:"password_file"`
	PasswordEnv  string        `toml:"password_env"` // instead: the environment variable that holds it
	CAFile       string        `toml:"ca_file"`
	CertFile     string        `toml:"certificate_file"` // the gateway's own, PEM, with the chain
	KeyFile      string        `toml:"key_file"`
	ServerName   string        `toml:"server_name"` // in the broker's certificate, where it is not the url's host
	ALPN         []string      `toml:"alpn"`        // application protocols to offer, as AWS IoT Core wants on port 443
	Publishing
}

// Publishing is what goes to a destination and how. It is the table [local] for the broker inside
// the gateway.
type Publishing struct {
	Devices []string          `toml:"devices"` // patterns with *; which samples go there
	Points  []string          `toml:"points"`
	Labels  map[string]string `toml:"labels"`

	Format      string `toml:"format"`
	Topic       string `toml:"topic"`
	Template    string `toml:"template"`     // format = "template"
	ContentType string `toml:"content_type"` // format = "template"
	Compression string `toml:"compression"`  // "gzip", "zstd"
	Properties  bool   `toml:"properties"`   // MQTT 5.0: content type, identity
	QoS         int    `toml:"qos"`
	Retain      bool   `toml:"retain"`
	// RetainSchemas asks the broker to keep the schemas of format = "cbor" for those who subscribe later.
	RetainSchemas bool          `toml:"retain_schemas"`
	Expiry        time.Duration `toml:"expiry"` // 0: none
	Rules         []PublishRule `toml:"rule"`
	// Announce publishes, retained, beside the samples: whether the gateway and each device is there,
	// and the account. Not for brokers that end the connection for a topic that is not allowed.
	Announce bool `toml:"announce"`

	Order        string  `toml:"order"` // "live-first", "oldest-first"
	Start        string  `toml:"start"` // where a new destination begins: "oldest", "newest"
	Window       int     `toml:"window"`
	MessageRate  float64 `toml:"max_messages_per_second"`
	ByteRate     Size    `toml:"max_bytes_per_second"`
	BackfillRate float64 `toml:"max_backfill_messages_per_second"`
	Batch        Batch   `toml:"batch"`
}

// Batch is several samples of one topic in one message.
type Batch struct {
	At      Place
	Samples int           `toml:"samples"`
	Bytes   Size          `toml:"bytes"`
	Wait    time.Duration `toml:"wait"`
}

// PublishRule is a table [[destination.rule]] or [[local.rule]]: settings for some devices or points.
type PublishRule struct {
	At      Place
	Devices []string          `toml:"devices"`
	Points  []string          `toml:"points"`
	Labels  map[string]string `toml:"labels"`
	Skip    bool              `toml:"skip"`
	Topic   string            `toml:"topic"`
	QoS     *int              `toml:"qos"`
	Retain  *bool             `toml:"retain"`
	Expiry  *time.Duration    `toml:"expiry"`
}

// Local is the table [local]: what is published to the broker inside the gateway.
type Local struct {
	At Place
	Publishing
}

func (d *Destination) setDefaults() { d.Publishing.fill() }

func (p *Publishing) fill() {
	p.Devices = []string{"*"}
	p.Window = 64
	p.Format, p.Properties, p.Announce, p.RetainSchemas = "json", true, true, true
	p.QoS = 1
	p.Order, p.Start = "oldest-first", "oldest"
	p.Batch = Batch{Samples: 1, Bytes: 64 << 10, Wait: time.Second}
}

func (l *Local) setDefaults() {
	l.Publishing.fill()
	// There is no round trip to wait for, but the broker's sync: a second of samples may be owed.
	l.Window = 4096
}

// LocalDestination returns the destination that the broker inside the gateway is: it has no url.
func (c *Config) LocalDestination() Destination {
	return Destination{At: c.Local.At, Name: LocalDestination, Publishing: c.Local.Publishing}
}

// Addresses returns the urls in the order in which they are tried.
func (d *Destination) Addresses() []string {
	if d.URL != "" {
		return append([]string{d.URL}, d.URLs...)
	}
	return d.URLs
}

// URLSchemes are the kinds of connection a destination may ask for.
var URLSchemes = []string{"mqtt", "mqtts", "ws", "wss", "unix"}

// otherSchemes are ours by the names that other clients have for them.
var otherSchemes = map[string]string{"tcp": "mqtt", "ssl": "mqtts", "tls": "mqtts", "http": "ws", "https": "wss"}

// advice: a password never stands in the file.
func (d *Destination) advice(key string) string {
	if key == "password" {
		return "a password does not stand here but in a file, which password_file names, or in a variable of the environment, which password_env names"
	}
	return ""
}

func (d *Destination) check(destinations *unique) {
	destinations.add(d.At, d.Name)
	if len(d.Addresses()) == 0 {
		d.At.Errorf("", `has no url; add url = "mqtts://broker.example.com:8883"`)
	}
	tls := false
	for i, text := range d.Addresses() {
		key := "urls"
		if d.URL != "" && i == 0 {
			key = "url"
		}
		u, err := url.Parse(text)
		switch {
		case err != nil:
			d.At.Errorf(key, "%s cannot be read; write it as mqtts://host:port", key)
			continue
		case u.Scheme != "unix" && !strings.Contains(text, "://"):
			d.At.Errorf(key, "%s %q does not say how to connect; write mqtt://%[2]s, or mqtts://%[2]s with TLS", key, text)
		case !slices.Contains(URLSchemes, u.Scheme):
			d.At.Errorf(key, "url scheme %q is not known; use %s", u.Scheme, cmp.Or(otherSchemes[u.Scheme], strings.Join(URLSchemes, ", ")))
		case u.Hostname() == "" && u.Scheme != "unix":
			d.At.Errorf(key, "%s names no host; write it as mqtts://host:port", key)
		case u.Scheme == "unix" && checkSocket(u.Host+u.Path) != nil: // unix://run/x is a path without its first slash
			d.At.Errorf(key, "%s %q: %v", key, text, checkSocket(u.Host+u.Path))
		case u.User != nil:
			d.At.Errorf(key, "%s carries credentials; put them into username and password_file, where no log can show them", key)
		}
		tls = tls || u.Scheme == "mqtts" || u.Scheme == "wss"
	}
	for key, value := range map[string]string{"ca_file": d.CAFile, "certificate_file": d.CertFile, "key_file": d.KeyFile, "server_name": d.ServerName} {
		if value != "" && !tls {
			d.At.Errorf(key, "%s needs a url with mqtts or wss", key)
		}
	}
	if d.PasswordFile != "" && d.PasswordEnv != "" {
		d.At.Errorf("password_env", "password_file and password_env both name the password; keep one of them")
	}
	if (d.CertFile == "") != (d.KeyFile == "") {
		d.At.Errorf("", "certificate_file and key_file belong together; one of them is missing")
	}
	if !slices.Contains([]string{"", "5", "5.0", "3.1.1"}, d.Version) {
		d.At.Errorf("version", `version %q: use "5" or "3.1.1", or leave it out to find out`, d.Version)
	}
	if d.KeepAlive != 0 && (d.KeepAlive < time.Second || d.KeepAlive > 65535*time.Second) {
		d.At.Errorf("keep_alive", "keep_alive %v: from 1s to 65535s", d.KeepAlive)
	}
	d.Publishing.check(d.At)
}

func (p *Publishing) check(at Place) {
	oneOf := func(key, value string, choices ...string) {
		if !slices.Contains(choices, value) {
			at.Errorf(key, "%s %q: use %s", key, value, strings.Join(choices, ", "))
		}
	}
	oneOf("order", p.Order, "live-first", "oldest-first")
	oneOf("start", p.Start, "oldest", "newest")
	if p.Window < 1 || p.Window > 65535 {
		at.Errorf("window", "window %d: from 1 to 65535 messages may be in flight", p.Window)
	}
	checkQoS(at, p.QoS)
	if !p.RetainSchemas && p.Format != "cbor" {
		at.Errorf("retain_schemas", `retain_schemas: format = %q has no schemas, only format = "cbor" has`, p.Format)
	}
	if p.Expiry < 0 {
		at.Errorf("expiry", "expiry %v: a message cannot expire before it is sent", p.Expiry)
	}
	for key, rate := range map[string]float64{"max_messages_per_second": p.MessageRate, "max_backfill_messages_per_second": p.BackfillRate} {
		if rate < 0 {
			at.Errorf(key, "%s %v cannot be negative; 0 is no limit", key, rate)
		}
	}
	b := &p.Batch
	if b.Samples < 1 || b.Bytes < 1 || b.Wait <= 0 {
		at.Errorf("batch", "batch: samples, bytes and wait must be positive")
	}
	if p.Retain && b.Samples > 1 {
		at.Warnf("retain", "retain with batch: the broker keeps a message of several samples as the last one")
	}
	for i := range p.Rules {
		r := &p.Rules[i]
		if r.QoS != nil {
			checkQoS(r.At, *r.QoS)
		}
		if r.Expiry != nil && *r.Expiry < 0 {
			r.At.Errorf("expiry", "expiry %v: a message cannot expire before it is sent", *r.Expiry)
		}
		if len(r.Points) > 0 && !r.Skip && p.Format != "value" {
			r.At.Errorf("points", `points: with format = %q all points of a sample share a message; only skip can tell them apart, or format = "value"`, p.Format)
		}
		if len(r.Devices)+len(r.Points)+len(r.Labels) == 0 {
			r.At.Errorf("", "the rule says of nothing for whom it is; add devices, points or labels")
		}
	}
}

func checkQoS(at Place, qos int) {
	if qos < 0 || qos > 2 {
		at.Errorf("qos", "qos %d: 0 may be lost, 1 arrives at least once, 2 exactly once while nothing restarts", qos)
	}
	if qos == 0 {
		at.Warnf("qos", "qos 0: what is on its way when a connection breaks is lost, and nobody knows")
	}
}
