package delivery

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"gateway/mqtt"
)

// An Announcer keeps retained messages at a broker up to date: states and totals, of which only the
// newest counts. It publishes what changed, and everything anew after each connection, for the
// broker may be another one. Of a topic one message at a time is on its way: the publisher keeps it
// through reconnects, and with a broker that never acknowledges each connection would add another.
// It is safe for concurrent use.
type Announcer struct {
	pub Publisher

	mu     sync.Mutex
	topics map[string]*announcement
	down   bool
	wake   chan struct{}
}

type announcement struct {
	payload string
	told    bool // published since it changed
	flying  bool // handed to the publisher, which has not said what became of it
}

// NewAnnouncer returns an Announcer for a publisher that is taken to be connected until Link says
// otherwise.
func NewAnnouncer(pub Publisher) *Announcer {
	return &Announcer{pub: pub, topics: map[string]*announcement{}, wake: make(chan struct{}, 1)}
}

// Set says what a topic is to hold.
func (a *Announcer) Set(topic, payload string) {
	a.mu.Lock()
	x := a.topics[topic]
	if x == nil {
		x = &announcement{}
		a.topics[topic] = x
	}
	changed := !x.told && x.payload == "" || x.payload != payload
	if changed {
		x.payload, x.told = payload, false
	}
	a.mu.Unlock()
	if changed {
		a.poke()
	}
}

// Link tells of a change of the connection.
func (a *Announcer) Link(up bool) {
	a.mu.Lock()
	a.down = !up
	if up {
		for _, x := range a.topics {
			x.told = x.flying && x.told
		}
	}
	a.mu.Unlock()
	a.poke()
}

func (a *Announcer) poke() {
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// retryAnnouncement is how long a refused announcement waits. Refusals are no reason to do more: a
// user that may publish samples need not be allowed to publish states.
const retryAnnouncement = time.Minute

// Run publishes until ctx ends.
func (a *Announcer) Run(ctx context.Context) error {
	for {
		a.publish(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-a.wake:
		case <-time.After(retryAnnouncement):
		}
	}
}

func (a *Announcer) publish(ctx context.Context) {
	a.mu.Lock()
	var due []*mqtt.Message
	if !a.down {
		for _, topic := range slices.Sorted(maps.Keys(a.topics)) {
			if x := a.topics[topic]; !x.told && !x.flying {
				x.told, x.flying = true, true
				due = append(due, &mqtt.Message{Topic: topic, Payload: []byte(x.payload), QoS: mqtt.AtLeastOnce, Retain: true, PayloadUTF8: true})
			}
		}
	}
	a.mu.Unlock()
	for _, m := range due {
		done := func(err error) { a.landed(m, err) }
		if err := a.pub.Publish(ctx, m, done); err != nil {
			done(err)
		}
	}
}

// landed notes what became of m. What was refused is tried again later, what changed meanwhile now.
func (a *Announcer) landed(m *mqtt.Message, err error) {
	a.mu.Lock()
	x := a.topics[m.Topic]
	x.flying = false
	changed := x.payload != string(m.Payload)
	if err != nil {
		x.told = false
	}
	stale := !x.told && (changed || err == nil)
	a.mu.Unlock()
	if stale {
		a.poke()
	}
}
