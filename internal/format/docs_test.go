package format

import (
	"cmp"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"gateway/adapters"
	"gateway/internal/cbor"
	"gateway/internal/clock"
)

// document returns docs/messages.md.
func document(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../../docs/messages.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// block returns its n-th code block of a language, with its lines joined.
func block(t *testing.T, language string, n int) string {
	t.Helper()
	parts := strings.Split(document(t), "```"+language+"\n")
	if len(parts) <= n+1 {
		t.Fatalf("%d blocks of %s", len(parts)-1, language)
	}
	code, _, _ := strings.Cut(parts[n+1], "```")
	var b strings.Builder
	for line := range strings.Lines(code) {
		b.WriteString(strings.TrimSpace(line))
	}
	return b.String()
}

func TestTheMessagesOfTheDocumentation(t *testing.T) {
	s := &adapters.Schema{Bus: "plc", Device: "boiler", Points: []adapters.Point{
		{Name: "supply_temperature", Unit: "°C", Decimals: 1}, {Name: "pump"}, {Name: "energy", Unit: "kWh", Decimals: 1}, {Name: "return_temperature", Unit: "°C"}}}
	it := Item{
		Sample: &adapters.Sample{Schema: s, Readings: []adapters.Reading{
			{Point: 0, Value: adapters.FloatValue(71.2)}, {Point: 1, Value: adapters.BoolValue(true)},
			{Point: 2, Value: adapters.FloatValue(4021.5), Quality: adapters.Stale, Reason: adapters.ReasonTimeout},
			{Point: 3, Quality: adapters.Bad, Reason: adapters.ReasonTimeout}}},
		Epoch: 0x9f3c2a1b7d5e4f60, Seq: 1842, Prev: 1839, HasPrev: true, Wall: 1795449600123e6, Clock: clock.Unsynced, Volatile: true, Historical: true,
	}
	for kind, want := range map[Kind]string{JSON: block(t, "json", 0), Line: block(t, "influx", 0), SenML: block(t, "json", 1)} {
		f, err := New(Options{Gateway: "boiler-room", Kind: kind})
		if err != nil {
			t.Fatal(err)
		}
		var out Out
		if err := f.Append(&out, it); err != nil {
			t.Fatal(err)
		}
		if got := string(out.Messages[0].Payload); got != want {
			t.Errorf("%s:\n got %s\nwant %s", kind, got, want)
		}
	}
	f, err := New(Options{Gateway: "boiler-room", Kind: CBOR})
	if err != nil {
		t.Fatal(err)
	}
	var compact Out
	if err := f.Append(&compact, it); err != nil {
		t.Fatal(err)
	}
	for n, payload := range [][]byte{compact.Messages[0].Payload, f.Schema(s).Payload} {
		v, _, err := cbor.Decode(payload)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := diagnostic(v), strings.ReplaceAll(block(t, "cbor", n), " ", ""); got != want {
			t.Errorf("cbor:\n got %s\nwant %s", got, want)
		}
	}
	if topic := f.Schema(s).Topic; !strings.Contains(document(t), "`"+topic+"`") {
		t.Errorf("the topic %s is not shown", topic)
	}

	batch := []Item{it, it, it}
	batch[1].Seq, batch[1].Prev = 1845, 1842
	batch[2].Seq, batch[2].Prev = 1848, 1845
	if f, err = New(Options{Gateway: "boiler-room", Kind: SenML, Batch: true}); err != nil {
		t.Fatal(err)
	}
	var out Out
	if err := f.Append(&out, batch...); err != nil {
		t.Fatal(err)
	}
	if u := out.Messages[0].User; len(u) != 3 || u[1].Name != "seqs" || !strings.Contains(document(t), "`"+u[1].Value+"`") {
		t.Errorf("%+v", u)
	}
}

// diagnostic writes an item in the diagnostic notation of RFC 8949, section 8, without spaces. The keys of maps are in
// the order in which they are encoded.
func diagnostic(v any) string {
	var parts []string
	switch v := v.(type) {
	case []byte:
		return fmt.Sprintf("h'%x'", v)
	case []any:
		for _, x := range v {
			parts = append(parts, diagnostic(x))
		}
		return "[" + strings.Join(parts, ",") + "]"
	case map[any]any:
		for _, k := range slices.SortedFunc(maps.Keys(v), func(a, b any) int {
			return cmp.Or(cmp.Compare(len(fmt.Sprint(a)), len(fmt.Sprint(b))), cmp.Compare(fmt.Sprint(a), fmt.Sprint(b)))
		}) {
			parts = append(parts, diagnostic(k)+":"+diagnostic(v[k]))
		}
		return "{" + strings.Join(parts, ",") + "}"
	case string:
		return strconv.Quote(v)
	}
	return fmt.Sprint(v)
}
