package mainjob

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// A message is a sample as a foreign subscriber sees it.
type message struct {
	topic  string
	Epoch  string
	Seq    uint64
	Prev   *uint64
	Values map[string]json.Number
	Bad    map[string]string
}

// samples parses the lines of a subscriber: a topic, a space, a payload.
func samples(t *testing.T, lines []string) []message {
	t.Helper()
	var list []message
	for _, line := range lines {
		topic, payload, ok := strings.Cut(line, " ")
		if !ok || !strings.HasPrefix(payload, "{") || strings.Contains(topic, "/gateway") || strings.HasSuffix(topic, "/availability") {
			continue
		}
		m := message{topic: topic}
		dec := json.NewDecoder(strings.NewReader(payload))
		dec.UseNumber()
		if err := dec.Decode(&m); err != nil {
			t.Fatalf("payload on %s: %v: %s", topic, err, payload)
		}
		list = append(list, m)
	}
	return list
}

// A stream is what a subscriber saw of one device.
type stream struct {
	first      []message // first arrivals, in order of arrival
	duplicates int
	faults     []string
}

// streams sorts samples by device and checks what DESIGN promises: first transmissions in order, and
// no predecessor that was queued but never arrived.
func streams(list []message) map[string]*stream {
	type identity struct {
		epoch string
		seq   uint64
	}
	byTopic := map[string]*stream{}
	seen := map[identity]bool{}
	for _, m := range list {
		s := byTopic[m.topic]
		if s == nil {
			s = &stream{}
			byTopic[m.topic] = s
		}
		if id := (identity{m.Epoch, m.Seq}); seen[id] {
			s.duplicates++
			continue
		} else {
			seen[id] = true
		}
		if n := len(s.first); n > 0 {
			last := s.first[n-1]
			switch {
			case m.Seq <= last.Seq:
				s.faults = append(s.faults, fmt.Sprintf("seq %d came after %d", m.Seq, last.Seq))
			case m.Prev == nil:
				s.faults = append(s.faults, fmt.Sprintf("seq %d names no predecessor; %d came before", m.Seq, last.Seq))
			case *m.Prev != last.Seq:
				s.faults = append(s.faults, fmt.Sprintf("seq %d follows %d, but %d came before it: a gap", m.Seq, *m.Prev, last.Seq))
			}
		}
		s.first = append(s.first, m)
	}
	return byTopic
}

// missed counts the readings that the device gave and that never arrived: gaps in its own count.
func (s *stream) missed(t *testing.T, point string) (missed int) {
	t.Helper()
	var last int64
	for _, m := range s.first {
		number, ok := m.Values[point]
		if !ok {
			continue // published as bad; the device did not count it
		}
		n, err := number.Int64()
		if err != nil {
			t.Fatalf("%s: %s is %q: %v", m.topic, point, number, err)
		}
		if last > 0 && n != last+1 {
			missed += int(n - last - 1)
		}
		last = n
	}
	return missed
}
