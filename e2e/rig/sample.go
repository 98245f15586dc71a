package rig

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
)

// Sample is a sample as the gateway publishes it by default.
type Sample struct {
	Epoch  string
	Seq    uint64
	Prev   *uint64
	Time   time.Time
	Clock  string // "unsynced" where Time is not to be trusted
	Values map[string]any
	Bad    map[string]string
}

// Samples returns the samples on a topic among the lines of a subscriber (Subscribe), in the order in
// which they came.
func Samples(t testing.TB, lines []string, topic string) (all []Sample) {
	t.Helper()
	for _, l := range lines {
		payload, ok := strings.CutPrefix(l, topic+" ")
		if !ok {
			continue
		}
		var s Sample
		if err := json.Unmarshal([]byte(payload), &s); err != nil {
			t.Fatalf("%s: %v", l, err)
		}
		all = append(all, s)
	}
	return all
}
