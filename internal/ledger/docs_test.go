package ledger

import (
	"bytes"
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	"gateway/adapters"
)

// The record and the account of docs/messages.md have the keys that ours have, and no others.
func TestTheAccountOfTheDocumentation(t *testing.T) {
	text, err := os.ReadFile("../../docs/messages.md")
	if err != nil {
		t.Fatal(err)
	}
	_, losses, ok := strings.Cut(string(text), "## Losses")
	parts := strings.Split(losses, "```")
	if !ok || len(parts) < 4 {
		t.Fatal("it has no losses")
	}
	var record struct{ Values map[string]any }
	if err := json.Unmarshal([]byte(strings.TrimPrefix(parts[1], "json")), &record); err != nil || len(record.Values) == 0 {
		t.Error(err)
	}
	for name := range record.Values {
		if !slices.ContainsFunc(schema.Points, func(p adapters.Point) bool { return p.Name == name }) {
			t.Errorf("a record has no %q", name)
		}
	}
	d := json.NewDecoder(bytes.NewReader([]byte(strings.TrimPrefix(parts[3], "json"))))
	d.DisallowUnknownFields()
	var totals Totals
	if err := d.Decode(&totals); err != nil || totals.Destinations["cloud"].Delivered == 0 {
		t.Error(err)
	}
	for _, reason := range []string{Overflow, SetAside, Forgotten, Refused, Retired} {
		if !strings.Contains(losses, "`"+reason+"`") {
			t.Errorf("the reason %q is not there", reason)
		}
	}
}
