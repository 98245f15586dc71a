package format

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"gateway/adapters"
)

// A TopicTemplate is a topic with fields: {gateway}, {bus}, {device}, {point}, and {label.NAME} for
// a label of the device or, where there is one, of the point.
type TopicTemplate struct {
	parts []topicPart
}

type topicPart struct {
	literal string
	field   string // gateway, bus, device, point, or label
	label   string
}

// ParseTopic reads a template. Fields other than the known ones, wildcards, and {point} where
// messages carry whole samples are errors.
func ParseTopic(text string, perPoint bool) (*TopicTemplate, error) {
	fail := func(what string, args ...any) (*TopicTemplate, error) {
		return nil, fmt.Errorf("format: topic %q: "+what, append([]any{text}, args...)...)
	}
	switch {
	case text == "":
		return fail("is empty")
	case !utf8.ValidString(text) || strings.ContainsRune(text, 0):
		return fail("is not valid UTF-8 text without NUL")
	case strings.ContainsAny(text, "+#"):
		return fail("the wildcards + and # cannot be published to")
	case text[0] == '$':
		return fail("topics that begin with $ belong to the broker")
	}
	t := &TopicTemplate{}
	hasPoint := false
	for rest := text; rest != ""; {
		open := strings.IndexAny(rest, "{}")
		if open < 0 {
			t.parts = append(t.parts, topicPart{literal: rest})
			break
		}
		if open > 0 {
			t.parts = append(t.parts, topicPart{literal: rest[:open]})
		}
		end := strings.IndexByte(rest, '}')
		if rest[open] == '}' || end < 0 {
			return fail("a brace stands alone")
		}
		p := topicPart{field: rest[open+1 : end]}
		rest = rest[end+1:]
		switch p.field {
		case "gateway", "bus", "device":
		case "point":
			hasPoint = true
			if !perPoint {
				return fail("{point} needs format = \"value\": other formats put all points of a sample into one message")
			}
		default:
			name, ok := strings.CutPrefix(p.field, "label.")
			if !ok || name == "" {
				return fail("there is no field {%s}; there are {gateway}, {bus}, {device}, {point} and {label.NAME}", p.field)
			}
			p.field, p.label = "label", name
		}
		t.parts = append(t.parts, p)
	}
	if perPoint && !hasPoint {
		return fail("with format = \"value\" it needs {point}, or all points would share one topic")
	}
	return t, nil
}

// level makes a name fit for one topic level: what would split it or be a wildcard becomes "_", and
// no name at all "-".
func level(s string) string {
	if s == "" {
		return "-"
	}
	return strings.Map(func(r rune) rune {
		switch {
		case r == '/' || r == '+' || r == '#' || r < ' ' || r == 0x7f:
			return '_'
		}
		return r
	}, s)
}

// Expand returns the topic for a point of a device; p is nil for whole samples.
func (t *TopicTemplate) Expand(gateway string, s *adapters.Schema, p *adapters.Point) string {
	var b strings.Builder
	for _, part := range t.parts {
		switch part.field {
		case "":
			b.WriteString(part.literal)
		case "gateway":
			b.WriteString(level(gateway))
		case "bus":
			b.WriteString(level(s.Bus))
		case "device":
			b.WriteString(level(s.Device))
		case "point":
			b.WriteString(level(p.Name))
		case "label":
			b.WriteString(level(labelOf(part.label, s, p)))
		}
	}
	return b.String()
}

// labelOf returns a label of the point or else of the device.
func labelOf(name string, s *adapters.Schema, p *adapters.Point) string {
	if p != nil {
		for _, l := range p.Labels {
			if l.Name == name {
				return l.Value
			}
		}
	}
	for _, l := range s.Labels {
		if l.Name == name {
			return l.Value
		}
	}
	return ""
}
