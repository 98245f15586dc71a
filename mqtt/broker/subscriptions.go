package broker

import (
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"gateway/mqtt"
)

// A subscription joins a filter and a session. All but gone is fixed once it is in the tree.
type subscription struct {
	sess   *session
	filter string // as the client wrote it, share prefix included
	node   *node[subscribers]
	group  *shareGroup // nil: not shared
	pos    int         // in node.val.subs or group.members
	id     uint32      // subscription identifier, 0: none
	qos    mqtt.QoS
	local  bool // no local
	rap    bool // retain as published
	gone   bool // guarded by sess.mu
}

// cost is what a filter counts for where subscriptions are bounded: 1 for each KiB that it takes at most, which is 1 for
// any but a very long one or one of many levels.
func cost(filter string) int { return 1 + (len(filter)+levelBytes*strings.Count(filter, "/"))/1024 }

// subscribers are those of one filter.
type subscribers struct {
	subs   []*subscription
	groups []*shareGroup
}

func (s *subscribers) empty() bool { return len(s.subs) == 0 && len(s.groups) == 0 }

// A shareGroup is one shared subscription: its members take turns (4.8.2).
type shareGroup struct {
	name    string
	filter  string // with the name
	mu      sync.Mutex
	members []*subscription
	turn    int
}

// pick returns whose turn it is of those who may have the message: the next member that is online, or, with none
// online, the next one; nil where nobody may.
func (g *shareGroup) pick(may func(*session) bool) *subscription {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := len(g.members)
	away := -1
	for i := range n {
		at := (g.turn + i) % n
		m := g.members[at]
		if online := m.sess.online.Load(); !online && away >= 0 || !may(m.sess) {
			continue
		} else if online {
			g.turn = (at + 1) % n
			return m
		}
		away = at
	}
	if away < 0 {
		return nil
	}
	g.turn = (away + 1) % n
	return g.members[away]
}

// subscriptions is the tree of all filters. gen changes with each change of it, which outdates the
// routes that were made before.
type subscriptions struct {
	mu   sync.RWMutex
	tree trie[subscribers]
	gen  atomic.Uint64
	n    atomic.Int64
	cost atomic.Int64
}

// add puts a subscription into the tree.
func (t *subscriptions) add(s *subscription) {
	group, filter := mqtt.SplitShare(s.filter)
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.tree.put(filter)
	s.node = n
	if group == "" {
		s.pos = len(n.val.subs)
		n.val.subs = append(n.val.subs, s)
	} else {
		i := slices.IndexFunc(n.val.groups, func(g *shareGroup) bool { return g.name == group })
		if i < 0 {
			i = len(n.val.groups)
			n.val.groups = append(n.val.groups, &shareGroup{name: group, filter: s.filter})
		}
		g := n.val.groups[i]
		g.mu.Lock()
		s.group, s.pos = g, len(g.members)
		g.members = append(g.members, s)
		g.mu.Unlock()
	}
	t.n.Add(1)
	t.cost.Add(int64(cost(s.filter)))
	t.gen.Add(1)
}

// group returns the shared subscription that a filter names, nil where it has no member.
func (t *subscriptions) group(filter string) *shareGroup {
	name, filter := mqtt.SplitShare(filter)
	t.mu.RLock()
	defer t.mu.RUnlock()
	if n := t.tree.get(filter); n != nil {
		for _, g := range n.val.groups {
			if g.name == name {
				return g
			}
		}
	}
	return nil
}

// replace puts s in the place of old, which has the same filter and session: no message falls
// between the two [MQTT-3.8.4-3].
func (t *subscriptions) replace(old, s *subscription) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s.node, s.group, s.pos = old.node, old.group, old.pos
	if g := s.group; g != nil {
		g.mu.Lock()
		g.members[s.pos] = s
		g.mu.Unlock()
	} else {
		s.node.val.subs[s.pos] = s
	}
	t.gen.Add(1)
}

// remove takes a subscription out of the tree.
func (t *subscriptions) remove(s *subscription) {
	t.mu.Lock()
	defer t.mu.Unlock()
	v := &s.node.val
	if g := s.group; g != nil {
		g.mu.Lock()
		g.members = cut(g.members, s.pos)
		empty := len(g.members) == 0
		g.mu.Unlock()
		if empty {
			v.groups = slices.DeleteFunc(v.groups, func(have *shareGroup) bool { return have == g })
		}
	} else {
		v.subs = cut(v.subs, s.pos)
	}
	t.tree.prune(s.node, (*subscribers).empty)
	t.n.Add(-1)
	t.cost.Add(-int64(cost(s.filter)))
	t.gen.Add(1)
}

// cut removes a member and puts the last one in its place.
func cut(list []*subscription, at int) []*subscription {
	last := len(list) - 1
	list[at] = list[last]
	list[at].pos = at
	list[last] = nil
	if last == 0 {
		return nil
	}
	return list[:last]
}

// A route is who gets what one publisher publishes to one topic.
type route struct {
	gen     uint64 // of the tree that it was made from
	acl     uint64 // of the ACL
	topic   string
	refused mqtt.ReasonCode // why the publisher may not, or Success
	targets []target
}

// size is roughly what a route takes in memory.
func (r *route) size() int { return len(r.topic) + 80*len(r.targets) }

// A target is one receiver of a route: a session, or whoever's turn it is in a group.
type target struct {
	sess  *session
	sub   *subscription
	more  []*subscription // of the same session, which overlap
	ids   []uint32        // subscription identifiers [MQTT-3.3.4-3] [MQTT-3.3.4-4]
	group *shareGroup
	qos   mqtt.QoS
	rap   bool
}

// gone tells whether the session unsubscribed from everything that led here. It needs sess.mu.
func (t *target) gone() bool {
	if t.sub == nil || !t.sub.gone {
		return false
	}
	for _, s := range t.more {
		if !s.gone {
			return false
		}
	}
	return true
}

// route finds the receivers of a topic. A session whose subscriptions overlap gets one copy with the
// highest of their qualities of service [MQTT-3.3.4-2] and all of their identifiers. allow
// says whether a session may receive it.
func (t *subscriptions) route(topic string, publisher *session, allow func(*session) bool) ([]target, uint64) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	var targets []target
	var at map[*session]int // index in targets, once they are many
	t.tree.match(topic, func(n *node[subscribers]) {
		for _, s := range n.val.subs {
			if s.local && s.sess == publisher { // [MQTT-3.8.3-3]
				continue
			}
			i, found := 0, false
			if at != nil {
				i, found = at[s.sess]
			} else {
				for i = range targets {
					if targets[i].group == nil && targets[i].sess == s.sess {
						found = true
						break
					}
				}
			}
			if !found {
				if !allow(s.sess) {
					continue
				}
				tg := target{sess: s.sess, sub: s, qos: s.qos, rap: s.rap}
				if s.id != 0 {
					tg.ids = []uint32{s.id}
				}
				targets = append(targets, tg)
				switch {
				case at != nil:
					at[s.sess] = len(targets) - 1
				case len(targets) == 16:
					at = make(map[*session]int, 64)
					for i := range targets {
						if targets[i].group == nil {
							at[targets[i].sess] = i
						}
					}
				}
				continue
			}
			tg := &targets[i]
			tg.more = append(tg.more, s)
			tg.qos = max(tg.qos, s.qos)
			tg.rap = tg.rap || s.rap
			if s.id != 0 {
				tg.ids = append(tg.ids, s.id)
			}
		}
		for _, g := range n.val.groups {
			targets = append(targets, target{group: g})
		}
	})
	return targets, t.gen.Load()
}

// ofMember returns the target that one member of a group is.
func ofMember(s *subscription) target {
	t := target{sess: s.sess, sub: s, group: s.group, qos: s.qos, rap: s.rap}
	if s.id != 0 {
		t.ids = []uint32{s.id}
	}
	return t
}
