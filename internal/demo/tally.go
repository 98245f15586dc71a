package demo

import (
	"encoding/json"
	"strconv"
	"sync"
)

// identity names a sample, as its payload does.
type identity struct {
	epoch, seq uint64
}

// A tally counts what arrived at one broker, seen from the outside: by a subscriber that knows no
// more than the payloads.
type tally struct {
	mu         sync.Mutex
	seen       map[identity]bool
	last       map[string]identity // by topic
	duplicates int
	disorder   int // first arrivals that came after a later one of the same device
	foreign    int // messages that are not samples
}

func newTally() *tally {
	return &tally{seen: map[identity]bool{}, last: map[string]identity{}}
}

// add takes one message off the broker.
func (t *tally) add(topic string, payload []byte) {
	var message struct {
		Epoch string
		Seq   uint64
	}
	err := json.Unmarshal(payload, &message)
	epoch, err2 := strconv.ParseUint(message.Epoch, 16, 64)
	t.mu.Lock()
	defer t.mu.Unlock()
	if err != nil || err2 != nil {
		t.foreign++
		return
	}
	id := identity{epoch, message.Seq}
	if t.seen[id] {
		t.duplicates++
		return
	}
	t.seen[id] = true
	if last := t.last[topic]; last.epoch == id.epoch && last.seq > id.seq {
		t.disorder++
		return
	}
	t.last[topic] = id
}

// count is a tally's result beside what was queued.
type count struct {
	Delivered, Duplicates, Disorder, Foreign, Lost int
}

// against compares the tally with the samples that were queued.
func (t *tally) against(queued []identity) count {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := count{Duplicates: t.duplicates, Disorder: t.disorder, Foreign: t.foreign}
	for _, id := range queued {
		if t.seen[id] {
			c.Delivered++
		} else {
			c.Lost++
		}
	}
	return c
}

// delivered is how many different samples have arrived so far.
func (t *tally) delivered() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.seen)
}
