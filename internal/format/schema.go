package format

import (
	"time"

	"gateway/adapters"
	"gateway/mqtt"
)

// settings are those of one message.
type settings struct {
	qos    mqtt.QoS
	retain bool
	expiry time.Duration
}

func (s *settings) apply(m *mqtt.Message) {
	m.QoS, m.Retain = s.qos, s.retain
	if s.expiry > 0 {
		m.HasExpiry, m.Expiry = true, uint32(min((s.expiry+time.Second-1)/time.Second, 1<<32-1))
	}
}

// A schema is what the configuration makes of a device's schema: worked out once, used for each
// sample.
type schema struct {
	settings
	skip    bool   // nothing of it is published here
	part    bool   // some points are left out
	topic   string // for whole samples
	prefix  string // format-specific: what begins each sample of the device
	points  []point
	each    []settings    // by point, for the Value kind only: there each has a message of its own
	units   []string      // by point, for SenML only
	message *mqtt.Message // the schema itself, for the CBOR kind only
}

// A point is kept small: there may be tens of thousands, for each destination.
type point struct {
	text     string // its name as the format writes it; for the Value kind its topic
	index    int32  // for the CBOR kind: among the points that are not left out
	skip     bool
	decimals int8
}

// maxSchemas bounds the cache; a decoder that forgets schemas makes new ones of the same content.
const maxSchemas = 4096

func (f *Formatter) info(s *adapters.Schema) *schema {
	if i, ok := f.schemas[s]; ok {
		return i
	}
	if len(f.schemas) >= maxSchemas {
		clear(f.schemas)
	}
	i := f.newSchema(s)
	f.schemas[s] = i
	return i
}

func (f *Formatter) newSchema(s *adapters.Schema) *schema {
	i := &schema{points: make([]point, len(s.Points)), skip: true}
	var topic *TopicTemplate
	i.settings, topic, _ = f.decide(s, nil)
	if f.enc != nil {
		i.topic = topic.Expand(f.o.Gateway, s, nil)
	} else {
		i.each = make([]settings, len(s.Points))
	}
	for n := range s.Points {
		p := &i.points[n]
		p.text, p.decimals = s.Points[n].Name, s.Points[n].Decimals
		var set settings
		set, topic, p.skip = f.decide(s, &s.Points[n])
		if p.skip {
			i.part = true
			continue
		}
		i.skip = false
		if f.enc == nil {
			i.each[n], p.text = set, topic.Expand(f.o.Gateway, s, &s.Points[n])
		}
	}
	if f.enc != nil && !i.skip {
		if c, ok := f.enc.(interface {
			prepare(gateway string, s *adapters.Schema, i *schema)
		}); ok {
			c.prepare(f.o.Gateway, s, i)
		}
	}
	if i.message != nil {
		if i.message.Retain = !f.o.PassingSchemas; f.o.NoProperties {
			i.message.ContentType = ""
		}
	}
	return i
}

// rename gives each point its name as f writes it. The names share one string.
func (s *schema) rename(f func(b []byte, name string) []byte) {
	var all []byte
	ends := make([]int, len(s.points))
	for i := range s.points {
		all = f(all, s.points[i].text)
		ends[i] = len(all)
	}
	text, start := string(all), 0
	for i, end := range ends {
		s.points[i].text = text[start:end]
		start = end
	}
}

// decide applies the rules to a point, or with nil to the device as a whole.
func (f *Formatter) decide(s *adapters.Schema, p *adapters.Point) (set settings, topic *TopicTemplate, skip bool) {
	set = settings{qos: f.o.QoS, retain: f.o.Retain, expiry: f.o.Expiry}
	topic = f.topic
	skip = !f.o.Select.Point(s, p)
	for i := range f.o.Rules {
		r := &f.o.Rules[i]
		if !r.Match.Point(s, p) {
			continue
		}
		skip = skip || r.Skip
		if f.ruleTopic[i] != nil {
			topic = f.ruleTopic[i]
		}
		if r.QoS != nil {
			set.qos = *r.QoS
		}
		if r.Retain != nil {
			set.retain = *r.Retain
		}
		if r.Expiry != nil {
			set.expiry = *r.Expiry
		}
	}
	return set, topic, skip
}

// selects tells whether anything of the sample is published.
func (s *schema) selects(sample *adapters.Sample) bool {
	if !s.part {
		return len(sample.Readings) > 0
	}
	for i := range sample.Readings {
		if !s.points[sample.Readings[i].Point].skip {
			return true
		}
	}
	return false
}
