package broker

import "strings"

// A trie keeps values under paths of topic levels. It serves both directions of matching: filters
// looked up by a topic name (subscriptions), and topic names looked up by a filter (retained
// messages). What a look-up costs depends on the levels and on what matches, never on how much else
// is stored. It is not safe for concurrent use.
type trie[V any] struct {
	root node[V]
}

// A node is one level of a path. Its level string is a part of the path that created it.
type node[V any] struct {
	val    V
	parent *node[V]
	level  string
	few    []*node[V]          // the children while they are few,
	many   map[string]*node[V] // and then
}

// levelBytes is what a node takes, at least, that serves one path alone.
const levelBytes = 128

// manyChildren is the number of children from which a map finds one faster than a scan does.
const manyChildren = 8

func (n *node[V]) child(level string) *node[V] {
	if n.many != nil {
		return n.many[level]
	}
	for _, c := range n.few {
		if c.level == level {
			return c
		}
	}
	return nil
}

func (n *node[V]) add(level string) *node[V] {
	c := &node[V]{parent: n, level: level}
	switch {
	case n.many != nil:
		n.many[level] = c
	case len(n.few) < manyChildren:
		n.few = append(n.few, c)
	default:
		n.many = make(map[string]*node[V], 2*manyChildren)
		for _, old := range n.few {
			n.many[old.level] = old
		}
		n.few = nil
		n.many[level] = c
	}
	return c
}

func (n *node[V]) childless() bool { return len(n.few) == 0 && len(n.many) == 0 }

func (n *node[V]) remove(c *node[V]) {
	if n.many != nil {
		delete(n.many, c.level)
		return
	}
	for i, have := range n.few {
		if have == c {
			last := len(n.few) - 1
			n.few[i], n.few[last] = n.few[last], nil
			n.few = n.few[:last]
			if last == 0 {
				n.few = nil
			}
			return
		}
	}
}

// get returns the node at path, nil when there is none.
func (t *trie[V]) get(path string) *node[V] {
	n := &t.root
	for {
		level, rest, more := strings.Cut(path, "/")
		if n = n.child(level); n == nil || !more {
			return n
		}
		path = rest
	}
}

// put returns the node at path and makes it when there is none.
func (t *trie[V]) put(path string) *node[V] {
	n := &t.root
	for {
		level, rest, more := strings.Cut(path, "/")
		c := n.child(level)
		if c == nil {
			c = n.add(level)
		}
		if n = c; !more {
			return n
		}
		path = rest
	}
}

// prune takes n out, and every ancestor that serves no other, as long as empty holds for the values.
func (t *trie[V]) prune(n *node[V], empty func(*V) bool) {
	for n.parent != nil && n.childless() && empty(&n.val) {
		p := n.parent
		p.remove(n)
		n.parent = nil
		n = p
	}
}

// match calls visit for each stored filter that matches the topic name (4.7.1).
func (t *trie[V]) match(name string, visit func(*node[V])) {
	// [MQTT-4.7.2-1]: a leading wildcard does not match a leading $.
	t.root.match(name, name != "" && name[0] == '$', visit)
}

func (n *node[V]) match(name string, system bool, visit func(*node[V])) {
	level, rest, more := strings.Cut(name, "/")
	if !system {
		if c := n.child("#"); c != nil {
			visit(c)
		}
		if c := n.child("+"); c != nil {
			c.matched(rest, more, visit)
		}
	}
	if c := n.child(level); c != nil {
		c.matched(rest, more, visit)
	}
}

// matched goes on below a node that matched a level.
func (n *node[V]) matched(rest string, more bool, visit func(*node[V])) {
	if more {
		n.match(rest, false, visit)
		return
	}
	visit(n)
	if c := n.child("#"); c != nil { // a/# matches a, too (4.7.1.2)
		visit(c)
	}
}

// under calls visit for each stored topic name that the filter matches, until visit returns false.
func (t *trie[V]) under(filter string, visit func(*node[V]) bool) {
	t.root.under(filter, true, visit)
}

func (n *node[V]) under(filter string, top bool, visit func(*node[V]) bool) bool {
	level, rest, more := strings.Cut(filter, "/")
	each := func(c *node[V]) bool {
		if top && c.level != "" && c.level[0] == '$' { // [MQTT-4.7.2-1]
			return true
		}
		if more {
			return c.under(rest, false, visit)
		}
		return visit(c)
	}
	switch level {
	case "#":
		if !top && !visit(n) { // the parent itself; the caller did not visit it
			return false
		}
		return n.descend(top, visit)
	case "+":
		for _, c := range n.few {
			if !each(c) {
				return false
			}
		}
		for _, c := range n.many {
			if !each(c) {
				return false
			}
		}
		return true
	}
	c := n.child(level)
	if c == nil {
		return true
	}
	if more {
		return c.under(rest, false, visit)
	}
	return visit(c)
}

// descend visits everything below n.
func (n *node[V]) descend(top bool, visit func(*node[V]) bool) bool {
	one := func(c *node[V]) bool {
		if top && c.level != "" && c.level[0] == '$' {
			return true
		}
		return visit(c) && c.descend(false, visit)
	}
	for _, c := range n.few {
		if !one(c) {
			return false
		}
	}
	for _, c := range n.many {
		if !one(c) {
			return false
		}
	}
	return true
}
