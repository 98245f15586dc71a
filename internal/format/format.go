// Package format makes MQTT messages of samples: topics by template, payloads as JSON, compact CBOR, bare
// values, InfluxDB line protocol, SenML or by a Go template. The queue holds samples, not messages, so what
// is configured here applies to the backlog, too.
package format

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"gateway/adapters"
	"gateway/adapters/hint"
	"gateway/internal/clock"
	"gateway/mqtt"
)

// Kind is a payload format.
type Kind string

const (
	JSON      Kind = "json"       // one object per sample
	CBOR      Kind = "cbor"       // one array per sample; the names are published once, in its schema
	Value     Kind = "value"      // one message per reading, the bare value
	Line      Kind = "influx"     // InfluxDB line protocol, one line per sample
	SenML     Kind = "senml"      // RFC 8428, JSON
	SenMLCBOR Kind = "senml-cbor" // RFC 8428, CBOR
	Template  Kind = "template"   // a Go text/template per sample
)

// Kinds returns the formats there are.
func Kinds() []Kind { return []Kind{JSON, CBOR, Value, Line, SenML, SenMLCBOR, Template} }

// Compression of payloads, for links that are paid by the byte.
type Compression string

const (
	None Compression = ""
	Gzip Compression = "gzip"
	Zstd Compression = "zstd"
)

// Options configure a Formatter. The zero value publishes JSON on {gateway}/{device}, QoS 0.
type Options struct {
	Gateway     string
	Kind        Kind
	Topic       string // a topic template; empty: {gateway}/{device}, for Value {gateway}/{device}/{point}
	Template    string // for the Template kind
	ContentType string // for the Template kind; the others have their own
	Compression Compression
	Batch       bool     // several samples may share a message: JSON is always an array then
	Select      Selector // what goes to this destination at all
	QoS         mqtt.QoS
	Retain      bool
	Expiry      time.Duration // 0: none
	Rules       []Rule        // the last one that matches and says something about a setting decides it
	// NoProperties leaves out content type and identity in MQTT 5.0 properties, to save their bytes.
	NoProperties bool
	// PassingSchemas are those of the CBOR kind that the broker is not asked to retain.
	PassingSchemas bool
}

// A Rule changes settings for some devices or points. Rules that name points decide Topic, QoS,
// Retain and Expiry only where a point has a message of its own, which is in the Value format; Skip
// works in all.
type Rule struct {
	Match  Selector
	Skip   bool // not published here
	Topic  string
	QoS    *mqtt.QoS
	Retain *bool
	Expiry *time.Duration
}

// An Item is a sample as it leaves.
type Item struct {
	Sample     *adapters.Sample
	Epoch, Seq uint64
	Prev       uint64 // sequence of the device's sample before
	HasPrev    bool
	Wall       int64 // the sample's time, nanoseconds since 1970 UTC; nothing where Clock is Unknown
	Clock      clock.State
	Volatile   bool // it never reached the disk
	Historical bool // it was late: newer samples of the device have been sent before
}

// Out takes messages. It is reused: Reset before, and not until the messages are done with, for
// they lie in its buffer.
type Out struct {
	Messages []mqtt.Message
	buf      []byte
}

// Reset empties o.
func (o *Out) Reset() {
	clear(o.Messages)
	o.Messages, o.buf = o.Messages[:0], o.buf[:0]
}

// An encoder writes samples of one topic into one payload.
type encoder interface {
	contentType() string
	text() bool
	begin(b []byte, samples int) []byte
	add(b []byte, first bool, it *Item, s *schema) ([]byte, error)
	end(b []byte) []byte
}

// A Formatter makes messages. It is not safe for concurrent use.
type Formatter struct {
	o         Options
	topic     *TopicTemplate
	ruleTopic []*TopicTemplate
	enc       encoder // nil for Value
	pack      compressor
	schemas   map[*adapters.Schema]*schema
	epoch     uint64
	epochText string
}

// A Setting is one of the options that New refuses.
type Setting struct {
	Name string // as the configuration has it: format, topic, template, compression, batch
	Rule int    // whose it is: an index of Rules; -1: none's
	Err  error
}

func (s *Setting) Error() string { return s.Err.Error() }
func (s *Setting) Unwrap() error { return s.Err }

// New checks o and returns its Formatter. The error joins all that is wrong, each a *Setting.
func New(o Options) (*Formatter, error) {
	if o.Kind == "" {
		o.Kind = JSON
	}
	if o.Topic == "" {
		o.Topic = DefaultTopic(o.Kind)
	}
	f := &Formatter{o: o, schemas: make(map[*adapters.Schema]*schema), ruleTopic: make([]*TopicTemplate, len(o.Rules))}
	var errs []error
	failed := func(name string, err error) {
		if err != nil {
			errs = append(errs, &Setting{name, -1, err})
		}
	}
	var err error
	f.topic, err = ParseTopic(o.Topic, o.Kind == Value)
	failed("topic", err)
	for i, r := range o.Rules {
		if r.Topic == "" {
			continue
		}
		if f.ruleTopic[i], err = ParseTopic(r.Topic, o.Kind == Value); err != nil {
			errs = append(errs, &Setting{"topic", i, err})
		}
	}
	if o.Batch && (o.Kind == Value || o.Kind == Template) {
		failed("batch", fmt.Errorf("format: %q cannot put several samples into one message", o.Kind))
	}
	switch o.Kind {
	case JSON:
		f.enc = jsonEncoder{array: o.Batch}
	case CBOR:
		f.enc = compactEncoder{array: o.Batch}
	case Value:
	case Line:
		f.enc = lineEncoder{}
	case SenML:
		f.enc = senmlJSON{}
	case SenMLCBOR:
		f.enc = senmlCBOR{}
	case Template:
		f.enc, err = newTemplate(o)
		failed("template", err)
	default:
		failed("format", fmt.Errorf("format: no such format %q%s", o.Kind, hint.OneOf(o.Kind, Kinds())))
	}
	f.pack, err = newCompressor(o.Compression)
	failed("compression", err)
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return f, nil
}

// DefaultTopic returns the topic template of a kind.
func DefaultTopic(k Kind) string {
	if k == Value {
		return "{gateway}/{device}/{point}"
	}
	return "{gateway}/{device}"
}

// Topic returns the topic of the samples of s, by which they can be gathered into one message, and
// whether there is one: the samples of a device that is not sent here, and those of the Value
// format, have none.
func (f *Formatter) Topic(s *adapters.Schema) (topic string, ok bool) {
	i := f.info(s)
	return i.topic, !i.skip && f.enc != nil
}

// Skips tells whether nothing of this schema's samples goes to this destination.
func (f *Formatter) Skips(s *adapters.Schema) bool { return f.info(s).skip }

// Partial tells whether some points of a device may go to this destination and others not.
func (f *Formatter) Partial() bool {
	return len(f.o.Select.Points)+len(f.o.Select.Labels) > 0 || slices.ContainsFunc(f.o.Rules, func(r Rule) bool {
		return r.Skip && len(r.Match.Points)+len(r.Match.Labels) > 0
	})
}

// Selects tells whether anything of the sample goes to this destination: the selected points may be
// missing from it.
func (f *Formatter) Selects(sample *adapters.Sample) bool {
	s := f.info(sample.Schema)
	return !s.skip && s.selects(sample)
}

// Schema returns the message without which nobody can read the samples of s: it has to be published before
// them, once, and names what they only number. It is nil where samples speak for themselves. Whoever gets it
// may not change it.
func (f *Formatter) Schema(s *adapters.Schema) *mqtt.Message { return f.info(s).message }

// Append makes the messages of items and adds them to out. The items are of one topic, as Topic
// says, or one item of any. No message at all is a result, too: the selected points may be missing
// from the sample.
func (f *Formatter) Append(out *Out, items ...Item) error {
	if f.enc == nil {
		for i := range items {
			if err := f.appendValues(out, &items[i]); err != nil {
				return err
			}
		}
		return nil
	}
	n := 0
	for i := range items {
		if f.Selects(items[i].Sample) {
			n++
		}
	}
	if n == 0 {
		return nil
	}
	var last *schema
	start := len(out.buf)
	out.buf = f.enc.begin(out.buf, n)
	for i := range items {
		if !f.Selects(items[i].Sample) {
			continue
		}
		first := last == nil
		last = f.info(items[i].Sample.Schema)
		var err error
		if out.buf, err = f.enc.add(out.buf, first, &items[i], last); err != nil {
			return err
		}
	}
	out.buf = f.enc.end(out.buf)
	m := mqtt.Message{Topic: last.topic}
	last.settings.apply(&m)
	for i := range items {
		m.Retain = m.Retain && !items[i].Historical
	}
	if !f.o.NoProperties {
		m.ContentType, m.PayloadUTF8 = f.enc.contentType(), f.enc.text()
		switch {
		case f.o.Kind == JSON || f.o.Kind == CBOR: // it stands in the payload
		case len(items) == 1:
			m.User = f.identity(nil, &items[0])
		default:
			m.User = f.identities(items)
		}
	}
	return f.finish(out, m, start)
}

// finish makes what stands in the buffer from start on the payload of m.
func (f *Formatter) finish(out *Out, m mqtt.Message, start int) error {
	if f.pack != nil {
		end := len(out.buf)
		var err error
		if out.buf, err = f.pack.compress(out.buf, out.buf[start:end]); err != nil {
			return fmt.Errorf("format: %s: %w", f.o.Compression, err)
		}
		start = end
		m.PayloadUTF8 = false
		if m.ContentType != "" {
			m.ContentType += "+" + string(f.o.Compression)
		}
	}
	m.Payload = out.buf[start:len(out.buf):len(out.buf)]
	out.Messages = append(out.Messages, m)
	return nil
}

// appendValues makes one message per reading. A bad reading has an empty payload: there is no
// value, and where values are retained the older one must not stand for it.
func (f *Formatter) appendValues(out *Out, it *Item) error {
	s := f.info(it.Sample.Schema)
	if s.skip {
		return nil
	}
	var id []mqtt.UserProperty
	if !f.o.NoProperties {
		id = f.identity(make([]mqtt.UserProperty, 0, 8), it)
	}
	for i := range it.Sample.Readings {
		r := &it.Sample.Readings[i]
		p := &s.points[r.Point]
		if p.skip {
			continue
		}
		start := len(out.buf)
		out.buf = appendValue(out.buf, r.Value, p.decimals)
		m := mqtt.Message{Topic: p.text}
		s.each[r.Point].apply(&m)
		m.Retain = m.Retain && !it.Historical
		if !f.o.NoProperties {
			m.PayloadUTF8, m.User = true, id
			if r.Quality != adapters.Good {
				m.User = append(slices.Clone(id), mqtt.UserProperty{Name: r.Quality.String(), Value: string(r.Reason)})
			}
		}
		if err := f.finish(out, m, start); err != nil {
			return err
		}
	}
	return nil
}

// identity appends what the JSON format says of a sample besides its values.
func (f *Formatter) identity(u []mqtt.UserProperty, it *Item) []mqtt.UserProperty {
	if f.epochText == "" || f.epoch != it.Epoch {
		f.epoch, f.epochText = it.Epoch, string(appendHex(nil, it.Epoch))
	}
	u = append(u, mqtt.UserProperty{Name: "epoch", Value: f.epochText},
		mqtt.UserProperty{Name: "seq", Value: strconv.FormatUint(it.Seq, 10)})
	if it.HasPrev {
		u = append(u, mqtt.UserProperty{Name: "prev", Value: strconv.FormatUint(it.Prev, 10)})
	}
	if it.Clock != clock.Unknown {
		u = append(u, mqtt.UserProperty{Name: "time", Value: string(appendTime(nil, it.Wall))})
	}
	if it.Clock != clock.Synced {
		u = append(u, mqtt.UserProperty{Name: "clock", Value: clockText(it.Clock)})
	}
	if it.Volatile {
		u = append(u, mqtt.UserProperty{Name: "durable", Value: "false"})
	}
	if it.Historical {
		u = append(u, mqtt.UserProperty{Name: "historical", Value: "true"})
	}
	return u
}

// identities is what identity says of several samples in short: epoch, and as seqs the sequences, each
// with "<" and its predecessor where that is not the one before it in the list. Times and what is
// doubted of them stand in the payload.
func (f *Formatter) identities(items []Item) (u []mqtt.UserProperty) {
	for len(items) > 0 {
		n := 1
		for n < len(items) && items[n].Epoch == items[0].Epoch {
			n++
		}
		var seqs []byte
		for i := range items[:n] {
			it := &items[i]
			if i > 0 {
				seqs = append(seqs, ' ')
			}
			seqs = strconv.AppendUint(seqs, it.Seq, 10)
			if i > 0 && it.HasPrev && it.Prev == items[i-1].Seq {
				continue
			}
			if seqs = append(seqs, '<'); it.HasPrev {
				seqs = strconv.AppendUint(seqs, it.Prev, 10)
			}
		}
		u = append(u, mqtt.UserProperty{Name: "epoch", Value: string(appendHex(nil, items[0].Epoch))}, mqtt.UserProperty{Name: "seqs", Value: string(seqs)})
		if items[0].Historical {
			u = append(u, mqtt.UserProperty{Name: "historical", Value: "true"})
		}
		items = items[n:]
	}
	return u
}

func clockText(s clock.State) string {
	if s == clock.Unknown {
		return "unknown"
	}
	return "unsynced"
}

// appendTime appends a time as RFC 3339 in UTC with milliseconds.
func appendTime(b []byte, wall int64) []byte {
	return time.Unix(0, wall).UTC().AppendFormat(b, "2006-01-02T15:04:05.000Z")
}

// appendHex appends v in 16 digits.
func appendHex(b []byte, v uint64) []byte {
	const digits = "0123456789abcdef"
	for shift := 60; shift >= 0; shift -= 4 {
		b = append(b, digits[v>>shift&15])
	}
	return b
}

// appendValue appends a value as text. A float of a point with a number of decimals is rounded to
// them: the digits behind are noise that the link need not carry.
func appendValue(b []byte, v adapters.Value, decimals int8) []byte {
	if f, ok := v.Number(); ok && v.Kind() == adapters.Float && decimals >= 0 && rounds(f) {
		at := len(b)
		b = strconv.AppendFloat(b, f, 'f', int(decimals), 64)
		if decimals > 0 {
			b = bytes.TrimSuffix(bytes.TrimRight(b, "0"), []byte("."))
		}
		if string(b[at:]) == "-0" {
			b = append(b[:at], '0')
		}
		return b
	}
	return v.AppendText(b)
}

// rounds tells whether there is anything to round: a double so large holds hardly any decimals.
func rounds(f float64) bool { return f < 1e15 && f > -1e15 }
