package format

import (
	"strings"

	"gateway/adapters"
)

// A Selector chooses devices and points by name and label. Names are patterns in which * stands for
// any text. An empty list chooses all; labels must all match.
type Selector struct {
	Devices []string
	Points  []string
	Labels  []adapters.Label
}

// Device tells whether some point of the device may be chosen.
func (s *Selector) Device(schema *adapters.Schema) bool {
	return matchAny(s.Devices, schema.Device)
}

// Point tells whether a point is chosen; p is nil to ask for the device as a whole.
func (s *Selector) Point(schema *adapters.Schema, p *adapters.Point) bool {
	if !s.Device(schema) {
		return false
	}
	if len(s.Points) > 0 && (p == nil || !matchAny(s.Points, p.Name)) {
		return false
	}
	for _, l := range s.Labels {
		if !Match(l.Value, labelOf(l.Name, schema, p)) {
			return false
		}
	}
	return true
}

func matchAny(patterns []string, name string) bool {
	for _, p := range patterns {
		if Match(p, name) {
			return true
		}
	}
	return len(patterns) == 0
}

// Match tells whether name fits pattern, in which * stands for any text.
func Match(pattern, name string) bool {
	head, rest, star := strings.Cut(pattern, "*")
	if !star {
		return pattern == name
	}
	if !strings.HasPrefix(name, head) {
		return false
	}
	name = name[len(head):]
	for {
		part, more, star := strings.Cut(rest, "*")
		if !star {
			return strings.HasSuffix(name, part)
		}
		// The earliest place leaves most to the patterns behind.
		i := strings.Index(name, part)
		if i < 0 {
			return false
		}
		name, rest = name[i+len(part):], more
	}
}
