package delivery

import (
	"context"
	"log/slog"
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
	log *slog.Logger

	mu     sync.Mutex
	topics map[string]*announcement
	down   bool
	hush   hush
	gone   []string // cleared, and Cleared has not said so yet
	wake   chan struct{}
}

type announcement struct {
	payload string
	told    bool // published since it changed
	flying  bool // handed to the publisher, which has not said what became of it
	clear   bool // forgotten when it is acknowledged
}

// NewAnnouncer returns an Announcer for a publisher that is taken to be connected until Link says
// otherwise.
func NewAnnouncer(pub Publisher, log *slog.Logger) *Announcer {
	return &Announcer{pub: pub, log: log, topics: map[string]*announcement{}, wake: make(chan struct{}, 1), hush: newHush()}
}

// Set says what a topic is to hold.
func (a *Announcer) Set(topic, payload string) {
	a.mu.Lock()
	x := a.topic(topic)
	changed := !x.told && x.payload == "" || x.payload != payload
	if changed {
		x.payload, x.told, x.clear = payload, false, false
	}
	a.mu.Unlock()
	if changed {
		a.poke()
	}
}

// Clear has the broker forget what it retains of a topic: a retained message without content does that
// [MQTT-3.3.1-6]. It is said once.
func (a *Announcer) Clear(topic string) {
	a.mu.Lock()
	x := a.topic(topic)
	x.payload, x.told, x.clear = "", false, true
	a.mu.Unlock()
	a.poke()
}

// topic is the entry of a topic. There is one as long as a message of it is on its way.
func (a *Announcer) topic(name string) *announcement {
	x := a.topics[name]
	if x == nil {
		x = &announcement{}
		a.topics[name] = x
	}
	return x
}

// Cleared returns the topics of which the broker has forgotten what it retained since it was last called.
func (a *Announcer) Cleared() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	gone := a.gone
	a.gone = nil
	return gone
}

// Link tells of a change of the connection.
func (a *Announcer) Link(up bool) {
	a.mu.Lock()
	defer a.poke()
	defer a.mu.Unlock()
	if up {
		a.down = false
		a.hush.connected()
		for _, x := range a.topics {
			x.told = x.flying && x.told
		}
		return
	}
	if a.down {
		return
	}
	a.down = true
	flying := false
	for _, x := range a.topics {
		flying = flying || x.flying
	}
	pause := a.hush.broke(flying, time.Now())
	if pause == 0 {
		return
	}
	a.log.Warn("connections break while states and totals are announced; trying without them. Where the broker does not allow their topics set announce = false",
		"retry_in", pause.Round(time.Second))
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
	if !a.down && !a.hush.quiet(time.Now()) {
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
	} else {
		a.hush.acknowledged()
		if x.clear && !changed {
			delete(a.topics, m.Topic)
			a.gone = append(a.gone, m.Topic)
			a.mu.Unlock()
			return
		}
	}
	stale := !x.told && (changed || err == nil)
	a.mu.Unlock()
	if stale {
		a.poke()
	}
}
