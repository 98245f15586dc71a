package broker

import (
	"slices"
	"strconv"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"gateway/mqtt"
)

// levels draws short paths over a small alphabet, so that they collide.
func levels(alphabet ...string) *rapid.Generator[string] {
	return rapid.Custom(func(t *rapid.T) string {
		return strings.Join(rapid.SliceOfN(rapid.SampledFrom(alphabet), 1, 4).Draw(t, "levels"), "/")
	})
}

func filters() *rapid.Generator[string] {
	return levels("", "a", "b", "$SYS", "+", "#").Filter(mqtt.ValidTopicFilter)
}

func names() *rapid.Generator[string] {
	return levels("", "a", "b", "$SYS").Filter(mqtt.ValidTopicName)
}

func TestTrieMatchesLikeTheDefinition(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var tr trie[string]
		fs := rapid.SliceOfN(filters(), 0, 20).Draw(t, "filters")
		for _, f := range fs {
			tr.put(f).val = f
		}
		for _, gone := range fs[:len(fs)/3] {
			if n := tr.get(gone); n != nil {
				n.val = ""
				tr.prune(n, func(v *string) bool { return *v == "" })
			}
		}
		kept := make(map[string]bool)
		for _, f := range fs {
			if n := tr.get(f); n != nil && n.val != "" {
				kept[f] = true
			}
		}
		name := names().Draw(t, "name")
		var got, want []string
		tr.match(name, func(n *node[string]) {
			if n.val != "" {
				got = append(got, n.val)
			}
		})
		for f := range kept {
			if mqtt.Match(f, name) {
				want = append(want, f)
			}
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Fatalf("%q matched %q, want %q of %q", name, got, want, fs)
		}
	})
}

func TestTrieFindsNamesUnderAFilter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var tr trie[string]
		ns := rapid.SliceOfNDistinct(names(), 0, 30, rapid.ID).Draw(t, "names")
		for _, n := range ns {
			tr.put(n).val = n
		}
		filter := filters().Draw(t, "filter")
		var got, want []string
		tr.under(filter, func(n *node[string]) bool {
			if n.val != "" {
				got = append(got, n.val)
			}
			return true
		})
		for _, n := range ns {
			if mqtt.Match(filter, n) {
				want = append(want, n)
			}
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Fatalf("under %q: %q, want %q", filter, got, want)
		}
	})
}

func TestTrieForgetsEverything(t *testing.T) {
	var tr trie[int]
	var nodes []*node[int]
	for i := range 100 {
		n := tr.put("site/" + strconv.Itoa(i) + "/+/temperature")
		n.val = 1
		nodes = append(nodes, n)
	}
	for _, n := range nodes {
		n.val = 0
		tr.prune(n, func(v *int) bool { return *v == 0 })
	}
	if !tr.root.childless() {
		t.Error("nodes are left after everything was taken out")
	}
}

// The cost of a look-up must not depend on what does not match.
func BenchmarkTrieMatch(b *testing.B) {
	for _, n := range []int{10, 1000, 100_000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			var tr trie[int]
			for i := range n {
				tr.put("site/" + strconv.Itoa(i) + "/+/temperature").val = 1
			}
			for b.Loop() {
				found := 0
				tr.match("site/7/boiler/temperature", func(n *node[int]) { found += n.val })
				if found != 1 {
					b.Fatal(found)
				}
			}
		})
	}
}
