// Package verify proves from what a subscriber received whether anything is missing. Every sample
// names the one before it of the same device, so a gap shows without asking the gateway; the
// gateway's own loss records say which gaps it knows of.
package verify

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"gateway/mqtt"
)

// A Gap is a sample that another one names as its predecessor and that never came. There may be more
// than one sample in it.
type Gap struct {
	Topic   string `json:"topic"`
	Missing uint64 `json:"missing"` // sequence
	Before  uint64 `json:"before"`  // the sample that names it
	// Explained says that a loss record of the gateway names it, for that destination and reason.
	Explained   bool   `json:"explained"`
	Destination string `json:"destination,omitempty"`
	Reason      string `json:"reason,omitempty"`
	// Unseen says that the subscription was interrupted there: it may have been published then.
	Unseen bool `json:"unseen,omitempty"`
}

// A Report is what a Checker found.
type Report struct {
	Topics        int    `json:"topics"`
	Samples       uint64 `json:"samples"` // different ones
	Readings      uint64 `json:"readings"`
	Duplicates    uint64 `json:"duplicates"`
	Reordered     uint64 `json:"reordered"`     // live samples behind a newer one of their topic
	Historical    uint64 `json:"historical"`    // delivered late, and marked so
	Anew          uint64 `json:"anew"`          // samples without a predecessor, on topics that had one: what is before them is not proven
	Foreign       uint64 `json:"foreign"`       // messages without an identity
	Unnamed       uint64 `json:"unnamed"`       // samples in CBOR whose schema did not come
	Interruptions int    `json:"interruptions"` // of the subscription
	Epochs        int    `json:"epochs"`        // openings of the queue
	Gaps          []Gap  `json:"gaps"`
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
//
// Samples are told apart by epoch and sequence, which are never used twice in the world. Where a
// sample's points have topics of their own, its predecessor may have come on another one of them:
// topics that share samples are one stream. Topics that share an epoch are of one gateway, whose loss
// records count for them and for no other's.
type Checker struct {
	// Destination is whose loss records count; empty: everybody's.
	Destination string

	reader  Reader
	unnamed map[string]*unnamed // by the topic of the schema that has not come
	topics  map[string]*topic
	epochs  map[string]*topic // by epoch: a topic that has it
	arrived map[ident]*topic  // where it came first
	also    map[arrival]bool  // and where else
	losses  []lossRange
	report  Report
}

// ident names a sample.
type ident struct {
	epoch string
	seq   uint64
}

type arrival struct {
	ident
	t *topic
}

type topic struct {
	stream, gateway set
	open            map[ident]named // by predecessor, as far as it had not come
	began           bool
	first, newest   uint64
	blind           bool // the subscription was interrupted, and nothing came since
}

// unnamed is samples whose schema has not come. Some of them may be loss records.
type unnamed struct {
	n    uint64
	kept []kept // at most maxKept
}

type kept struct {
	sample Sample
	on     *topic
}

// maxKept bounds what a broker that has lost its schemas can make a Checker keep.
const maxKept = 1000

// named is who names a predecessor.
type named struct {
	seq    uint64
	unseen bool
}

// set is a member of one of several disjoint sets, each of which has a head.
type set struct{ parent *set }

func (s *set) head() *set {
	for s.parent != nil {
		if up := s.parent.parent; up != nil {
			s.parent = up
		}
		s = s.parent
	}
	return s
}

func (s *set) join(other *set) {
	if a, b := s.head(), other.head(); a != b {
		a.parent = b
	}
}

// NewChecker returns a Checker that has seen nothing.
func NewChecker() *Checker {
	return &Checker{unnamed: map[string]*unnamed{}, topics: map[string]*topic{}, epochs: map[string]*topic{}, arrived: map[ident]*topic{}, also: map[arrival]bool{}}
}

// Add takes a message. With the format of bare values each of a sample's messages names the sample.
func (c *Checker) Add(m *mqtt.Message) error {
	samples, err := c.reader.Read(m)
	if err != nil {
		c.report.Foreign++
		return err
	}
	if len(samples) == 0 { // a schema
		c.schemaCame(m.Topic)
		return nil
	}
	t := c.topics[m.Topic]
	if t == nil {
		t = &topic{open: map[ident]named{}}
		c.topics[m.Topic] = t
	}
	for i := range samples {
		c.add(t, &samples[i], m.Retain)
	}
	return nil
}

// schemaCame names the values of the samples that were before their schema.
func (c *Checker) schemaCame(on string) {
	x := c.unnamed[on]
	if x == nil {
		return
	}
	delete(c.unnamed, on)
	for _, k := range x.kept {
		c.reader.schemas.name(&k.sample)
		c.noteLoss(&k.sample, k.on)
	}
}

func (c *Checker) noteLoss(s *Sample, t *topic) {
	if l := loss(s.Values); l != nil {
		l.by = t
		c.losses = append(c.losses, *l)
	}
}

// Interrupted says that the subscription was away, and that the broker kept nothing for it.
func (c *Checker) Interrupted() {
	c.report.Interruptions++
	for _, t := range c.topics {
		t.blind = true
	}
}

// add takes a sample; stored says that the broker had kept the message and sends it to each new
// subscription.
func (c *Checker) add(t *topic, s *Sample, stored bool) {
	id := ident{s.Epoch, s.Seq}
	if first, again := c.arrived[id]; !again {
		c.arrived[id] = t
	} else if here := (arrival{id, t}); first == t || c.also[here] {
		if !stored {
			c.report.Duplicates++
		}
		return
	} else {
		c.also[here] = true
		t.stream.join(&first.stream)
	}
	if other := c.epochs[s.Epoch]; other != nil {
		t.gateway.join(&other.gateway)
	} else {
		c.epochs[s.Epoch] = t
	}
	if s.Unnamed == "" {
		c.noteLoss(s, t)
	} else {
		x := c.unnamed[s.Unnamed]
		if x == nil {
			x = &unnamed{}
			c.unnamed[s.Unnamed] = x
		}
		if x.n++; len(x.kept) < maxKept {
			x.kept = append(x.kept, kept{*s, t})
		}
	}
	c.report.Samples++
	c.report.Readings += uint64(s.Readings)
	if s.HasPrev {
		if before := (ident{s.Epoch, s.Prev}); c.arrived[before] == nil {
			t.open[before] = named{s.Seq, t.blind && !s.Historical}
		} else {
			t.stream.join(&c.arrived[before].stream)
		}
	} else if t.began && s.Seq > t.newest {
		c.report.Anew++
	}
	switch {
	case s.Historical:
		c.report.Historical++
	case s.Seq < t.newest:
		c.report.Reordered++
	default:
		t.newest, t.blind = s.Seq, false
	}
	if !t.began || s.Seq < t.first {
		t.began, t.first = true, s.Seq
	}
}

// Report returns what has been found up to now. What was before the first sample of a stream is not
// asked for.
func (c *Checker) Report() Report {
	r := c.report
	r.Topics, r.Epochs = len(c.topics), len(c.epochs)
	for _, x := range c.unnamed {
		r.Unnamed += x.n
	}
	first := map[*set]uint64{}
	for _, t := range c.topics {
		s := t.stream.head()
		if f, ok := first[s]; !ok || t.first < f {
			first[s] = t.first
		}
	}
	for name, t := range c.topics {
		for before, by := range t.open {
			if before.seq < first[t.stream.head()] || c.came(t, before) {
				continue
			}
			g := Gap{Topic: name, Missing: before.seq, Before: by.seq, Unseen: by.unseen}
			if l := c.explains(t, before); l != nil {
				g.Explained, g.Destination, g.Reason = true, l.destination, l.reason
			}
			r.Gaps = append(r.Gaps, g)
		}
	}
	slices.SortFunc(r.Gaps, func(a, b Gap) int {
		return cmp.Or(strings.Compare(a.Topic, b.Topic), cmp.Compare(a.Missing, b.Missing), cmp.Compare(a.Before, b.Before))
	})
	return r
}

// came tells whether a predecessor has arrived after all: in the epoch of the one that names it, or on
// a topic of the same stream in another, for the chain goes on over a restart.
func (c *Checker) came(t *topic, before ident) bool {
	if c.arrived[before] != nil {
		return true
	}
	for epoch := range c.epochs {
		if at := c.arrived[ident{epoch, before.seq}]; at != nil && at.stream.head() == t.stream.head() {
			return true
		}
	}
	return false
}

// explains returns the loss record that names a missing sample.
func (c *Checker) explains(t *topic, missing ident) *lossRange {
	for i := range c.losses {
		l := &c.losses[i]
		if c.Destination != "" && l.destination != c.Destination || l.by.gateway.head() != t.gateway.head() || missing.seq < l.first {
			continue
		}
		// What a power cut took was of one epoch, and nothing that came later names it.
		if l.open && missing.epoch == l.epoch || !l.open && missing.seq <= max(l.first, l.last) {
			return l
		}
	}
	return nil
}
