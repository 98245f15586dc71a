package broker

import (
	"strings"
	"sync"
	"sync/atomic"

	"gateway/mqtt"
)

// retained keeps the last retained message of each topic (3.3.1.3).
type retained struct {
	mu    sync.RWMutex
	tree  trie[*message]
	count int
	bytes int
	n     atomic.Int64 // count, for those without the lock
}

func noMessage(m **message) bool { return *m == nil }

// set keeps m, or, where its payload is empty, forgets the topic's message [MQTT-3.3.1-6]
// [MQTT-3.3.1-7]. It reports whether there was room.
func (r *retained) set(m *message, l *Limits, log func(m *message)) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := r.tree.get(m.Topic)
	var old *message
	if n != nil {
		old = n.val
	}
	if len(m.Payload) == 0 {
		if old != nil {
			r.forget(n)
			log(m)
		}
		return true
	}
	count, bytes := r.count+1, r.bytes+retainedSize(m)
	if old != nil {
		count, bytes = r.count, bytes-retainedSize(old)
	}
	if count > l.Retained || bytes > l.RetainedBytes {
		return false
	}
	if n == nil {
		n = r.tree.put(m.Topic)
	}
	n.val, r.count, r.bytes = m, count, bytes
	r.n.Store(int64(count))
	log(m)
	return true
}

// retainedSize is what a retained message counts for, with the levels of its topic.
func retainedSize(m *message) int { return m.size() + levelBytes*strings.Count(m.Topic, "/") }

// state keeps a message of the broker's own, which does not count for the limits and is not stored. It
// reports whether it differs from the one before.
func (r *retained) state(m *message) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := r.tree.put(m.Topic)
	if n.val != nil && string(n.val.Payload) == string(m.Payload) {
		return false
	}
	n.val = m
	return true
}

func (r *retained) forget(n *node[*message]) {
	r.count--
	r.bytes -= retainedSize(n.val)
	r.n.Store(int64(r.count))
	n.val = nil
	r.tree.prune(n, noMessage)
}

// matching returns the messages whose topics match a filter, without those that are expired.
func (r *retained) matching(filter string, now int64) []*message {
	r.mu.RLock()
	defer r.mu.RUnlock()
	var ms []*message
	take := func(n *node[*message]) bool {
		if m := n.val; m != nil && !m.expired(now) {
			ms = append(ms, m)
		}
		return true
	}
	if mqtt.HasWildcard(filter) {
		r.tree.under(filter, take)
	} else if n := r.tree.get(filter); n != nil {
		take(n)
	}
	return ms
}

// all returns those that are to be stored, without those that are expired and those of $SYS, which are made anew.
func (r *retained) all(now int64) []*message {
	r.mu.RLock()
	defer r.mu.RUnlock()
	ms := make([]*message, 0, r.count)
	r.tree.root.descend(true, func(n *node[*message]) bool {
		if m := n.val; m != nil && !m.expired(now) {
			ms = append(ms, m)
		}
		return true
	})
	return ms
}

// sweep forgets the expired ones.
func (r *retained) sweep(now int64, log func(m *message)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var gone []*node[*message]
	visit := func(n *node[*message]) bool {
		if n.val != nil && n.val.expired(now) {
			gone = append(gone, n)
		}
		return true
	}
	r.tree.root.descend(false, visit)
	for _, n := range gone {
		log(&message{Message: mqtt.Message{Topic: n.val.Topic}})
		r.forget(n)
	}
}
