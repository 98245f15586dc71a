// Package verify proves from what a subscriber received whether anything is missing. Every sample
// names the one before it of the same device, so a gap shows without asking the gateway; the
// gateway's own loss records say which gaps it knows of.
package verify

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"gateway/mqtt"
)

// A Sample is what a message says of one sample's identity.
type Sample struct {
	Epoch      string
	Seq, Prev  uint64
	HasPrev    bool
	Historical bool
	Readings   int
	loss       *lossRange
}

type lossRange struct {
	first, last uint64
	open        bool
}

// ErrNoIdentity says that a message is not one of the gateway's samples.
var ErrNoIdentity = errors.New("verify: the message carries no identity: neither the JSON format's nor user properties")

type payload struct {
	Epoch      *string        `json:"epoch"`
	Seq        *uint64        `json:"seq"`
	Prev       *uint64        `json:"prev"`
	Historical bool           `json:"historical"`
	Values     map[string]any `json:"values"`
	Bad        map[string]any `json:"bad"`
}

// Parse returns the samples that a message carries: those of the JSON format, single or in an array,
// or that which the user properties of MQTT 5.0 name.
func Parse(m *mqtt.Message) ([]Sample, error) {
	if s, ok := fromProperties(m.User); ok {
		return []Sample{s}, nil
	}
	text := strings.TrimSpace(string(m.Payload))
	var list []payload
	switch {
	case strings.HasPrefix(text, "["):
		if err := json.Unmarshal([]byte(text), &list); err != nil {
			return nil, ErrNoIdentity
		}
	case strings.HasPrefix(text, "{"):
		list = make([]payload, 1)
		if err := json.Unmarshal([]byte(text), &list[0]); err != nil {
			return nil, ErrNoIdentity
		}
	default:
		return nil, ErrNoIdentity
	}
	var samples []Sample
	for _, p := range list {
		if p.Epoch == nil || p.Seq == nil {
			return nil, ErrNoIdentity
		}
		s := Sample{Epoch: *p.Epoch, Seq: *p.Seq, Historical: p.Historical, Readings: len(p.Values) + len(p.Bad)}
		if p.Prev != nil {
			s.Prev, s.HasPrev = *p.Prev, true
		}
		s.loss = loss(p.Values)
		samples = append(samples, s)
	}
	return samples, nil
}

// loss reads a loss record.
func loss(values map[string]any) *lossRange {
	if values["event"] != "loss" {
		return nil
	}
	number := func(name string) uint64 {
		f, _ := values[name].(float64)
		return uint64(f)
	}
	r := &lossRange{first: number("first"), last: number("last"), open: values["open"] == true}
	if r.first == 0 {
		return nil
	}
	return r
}

func fromProperties(user []mqtt.UserProperty) (s Sample, ok bool) {
	var haveEpoch, haveSeq bool
	for _, u := range user {
		var err error
		switch u.Name {
		case "epoch":
			s.Epoch, haveEpoch = u.Value, true
		case "seq":
			s.Seq, err = strconv.ParseUint(u.Value, 10, 64)
			haveSeq = err == nil
		case "prev":
			s.Prev, err = strconv.ParseUint(u.Value, 10, 64)
			s.HasPrev = err == nil
		case "historical":
			s.Historical = u.Value == "true"
		}
	}
	s.Readings = 1
	return s, haveEpoch && haveSeq
}

// A Gap is a sample that another one names as its predecessor and that never came. There may be more
// than one sample in it.
type Gap struct {
	Topic     string `json:"topic"`
	Missing   uint64 `json:"missing"`   // sequence
	Before    uint64 `json:"before"`    // the sample that names it
	Explained bool   `json:"explained"` // by a loss record of the gateway
}

// A Report is what a Checker found.
type Report struct {
	Topics     int    `json:"topics"`
	Samples    uint64 `json:"samples"` // different ones
	Readings   uint64 `json:"readings"`
	Duplicates uint64 `json:"duplicates"`
	Reordered  uint64 `json:"reordered"`  // live samples behind a newer one of their topic
	Historical uint64 `json:"historical"` // delivered late, and marked so
	Foreign    uint64 `json:"foreign"`    // messages without an identity
	Epochs     int    `json:"epochs"`     // openings of the queue
	Gaps       []Gap  `json:"gaps"`
}

// Unexplained is the number of gaps that no loss record explains.
func (r *Report) Unexplained() (n int) {
	for _, g := range r.Gaps {
		if !g.Explained {
			n++
		}
	}
	return n
}

func (r *Report) String() string {
	text := fmt.Sprintf("%d samples with %d readings on %d topics: %d duplicates, %d out of order, %d historical, %d gaps",
		r.Samples, r.Readings, r.Topics, r.Duplicates, r.Reordered, r.Historical, len(r.Gaps))
	if n := len(r.Gaps) - r.Unexplained(); n > 0 {
		text += fmt.Sprintf(" (%d explained by loss records)", n)
	}
	return text
}

// A Checker takes messages in the order of their arrival. It is not safe for concurrent use.
type Checker struct {
	topics map[string]*topic
	epochs map[string]bool
	losses []lossRange
	report Report
}

type topic struct {
	seen   map[uint64]string // epoch by sequence
	twins  map[Sample]bool   // sequences that a second epoch used again
	prev   map[uint64]uint64 // named predecessors that had not come, by the sample that names them
	first  uint64
	newest uint64
}

// NewChecker returns a Checker that has seen nothing.
func NewChecker() *Checker {
	return &Checker{topics: map[string]*topic{}, epochs: map[string]bool{}}
}

// Add takes a message. With the format of bare values each of a sample's messages names the sample;
// samples are told apart by topic and identity.
func (c *Checker) Add(m *mqtt.Message) error {
	samples, err := Parse(m)
	if err != nil {
		c.report.Foreign++
		return err
	}
	t := c.topics[m.Topic]
	if t == nil {
		t = &topic{seen: map[uint64]string{}, twins: map[Sample]bool{}, prev: map[uint64]uint64{}}
		c.topics[m.Topic] = t
	}
	for i := range samples {
		c.add(t, &samples[i])
	}
	return nil
}

func (c *Checker) add(t *topic, s *Sample) {
	if s.loss != nil {
		c.losses = append(c.losses, *s.loss)
	}
	if epoch, ok := t.seen[s.Seq]; ok {
		twin := Sample{Epoch: s.Epoch, Seq: s.Seq}
		if epoch == s.Epoch || t.twins[twin] {
			c.report.Duplicates++
			return
		}
		t.twins[twin] = true
	} else {
		t.seen[s.Seq] = s.Epoch
	}
	c.epochs[s.Epoch] = true
	c.report.Samples++
	c.report.Readings += uint64(s.Readings)
	switch {
	case s.Historical:
		c.report.Historical++
	case s.Seq < t.newest:
		c.report.Reordered++
	default:
		t.newest = s.Seq
	}
	if t.first == 0 || s.Seq < t.first {
		t.first = s.Seq
	}
	if s.HasPrev {
		t.prev[s.Prev] = s.Seq
	}
	delete(t.prev, s.Seq)
	if s.HasPrev && t.seen[s.Prev] != "" {
		delete(t.prev, s.Prev)
	}
}

// Report returns what has been found up to now. What was before the first sample of a topic is not
// asked for.
func (c *Checker) Report() Report {
	r := c.report
	r.Topics, r.Epochs = len(c.topics), len(c.epochs)
	for _, name := range slices.Sorted(maps.Keys(c.topics)) {
		t := c.topics[name]
		for _, missing := range slices.Sorted(maps.Keys(t.prev)) {
			if missing < t.first {
				continue
			}
			r.Gaps = append(r.Gaps, Gap{Topic: name, Missing: missing, Before: t.prev[missing], Explained: c.explained(missing)})
		}
	}
	return r
}

func (c *Checker) explained(seq uint64) bool {
	return slices.ContainsFunc(c.losses, func(l lossRange) bool {
		return seq >= l.first && (l.open || seq <= max(l.first, l.last))
	})
}
