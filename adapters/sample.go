// Package adapters holds what every sensor adapter produces and shares: samples of readings with
// their quality, the reasons why a reading is bad, the state of devices and buses, and the schedule
// by which polls fall due. The adapters themselves live in the folders below.
package adapters

// A Label is a name and a value that the user attached to a device or a point, for routing and for
// topics.
type Label struct {
	Name, Value string
}

// A Point describes one quantity that a device gives.
type Point struct {
	Name     string
	Unit     string // UCUM or plain text; empty where there is none
	Decimals int8   // digits after the decimal point worth showing; negative: as many as needed
	Labels   []Label
}

// A Schema says what a device's samples are made of. It is immutable once a sample refers to it, and
// shared by all of them; queue records refer to it by the hash of its content.
type Schema struct {
	Bus    string
	Device string
	Labels []Label
	Points []Point
}

// Quality tells how far a reading can be trusted.
type Quality uint8

const (
	Good  Quality = iota // measured in this cycle
	Stale                // the value is an older one; Reason says why there is no newer
	Bad                  // there is no value that could be trusted; Reason says why
)

func (q Quality) String() string {
	switch q {
	case Good:
		return "good"
	case Stale:
		return "stale"
	case Bad:
		return "bad"
	}
	return "invalid"
}

// A Reading is the value of one point in one cycle. A bad reading has no value; a good one has no
// reason.
type Reading struct {
	Point   int // index into Schema.Points
	Quality Quality
	Reason  Reason
	Value   Value
}

// A Sample is what one device gave in one cycle: one time and at least one reading, at most one for
// each point of the schema, in ascending order of Point. Whoever is handed a sample owns its
// Readings.
type Sample struct {
	Schema   *Schema
	Time     Instant // arrival of the cycle's first response
	Readings []Reading
}

// A Sink takes samples from an adapter. Offer never blocks: it takes ownership of the sample and
// reports whether it was accepted. The sink counts and records what it refuses; the adapter only
// goes on.
type Sink interface {
	Offer(Sample) bool
}

// SinkFunc makes a function a Sink.
type SinkFunc func(Sample) bool

// Offer calls f.
func (f SinkFunc) Offer(s Sample) bool { return f(s) }
