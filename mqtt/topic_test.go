package mqtt

import (
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// [MQTT-4.7.0-1] [MQTT-4.7.3-1] [MQTT-4.7.3-2] [MQTT-4.7.3-3]
func TestTopicNames(t *testing.T) {
	for _, c := range []struct {
		name string
		want bool
	}{
		{"a", true}, {"/", true}, {"a//b", true}, {"a b/ü/€", true}, {"$SYS/x", true}, {"\ufeffbom", true},
		{strings.Repeat("x", 65535), true},
		{"", false}, {"a/+", false}, {"a/#", false}, {"a+b", false}, {"nul\x00", false}, {"bad\xff", false},
		{"surrogate\xed\xa0\x80", false}, {strings.Repeat("x", 65536), false},
	} {
		if got := ValidTopicName(c.name); got != c.want {
			t.Errorf("ValidTopicName(%.20q) = %t, want %t", c.name, got, c.want)
		}
		if err := CheckTopicName(c.name); (err == nil) != c.want {
			t.Errorf("CheckTopicName(%.20q) = %v", c.name, err)
		}
	}
}

// [MQTT-4.7.1-1] [MQTT-4.7.1-2] [MQTT-4.8.2-1] [MQTT-4.8.2-2]
func TestTopicFilters(t *testing.T) {
	for _, c := range []struct {
		filter string
		want   bool
	}{
		{"a", true}, {"#", true}, {"+", true}, {"/", true}, {"a/#", true}, {"+/+/#", true}, {"/+", true}, {"a/+/b", true}, {"$SYS/#", true},
		{"$share/g/a", true}, {"$share/g/#", true}, {"$share/g//a", true}, {"$sharex", true},
		{"", false}, {"a#", false}, {"#/a", false}, {"a/#/b", false}, {"a+", false}, {"+a", false}, {"a/b+/c", false}, {"##", false}, {"++", false},
		{"$share/", false}, {"$share/g", false}, {"$share/g/", false}, {"$share//a", false}, {"$share/+/a", false}, {"$share/a#/a", false}, {"$share/g/a#", false},
		{"\x00", false}, {"\xff", false},
	} {
		if got := ValidTopicFilter(c.filter); got != c.want {
			t.Errorf("ValidTopicFilter(%q) = %t, want %t", c.filter, got, c.want)
		}
	}
}

// Byte by byte [MQTT-4.7.3-4]; topics that begin with $ [MQTT-4.7.2-1].
func TestMatch(t *testing.T) {
	for _, c := range []struct {
		filter, name string
		want         bool
	}{
		{"a", "a", true}, {"a", "A", false}, {"a", "a/", false}, {"a/", "a", false}, {"a", "/a", false},
		{"#", "a/b/c", true}, {"#", "/", true}, {"a/#", "a", true}, {"a/#", "a/b/c", true}, {"a/#", "ab", false},
		{"+", "a", true}, {"+", "a/b", false}, {"+", "/a", false}, {"+/+", "/a", true}, {"/+", "/a", true}, {"+/", "a/", true},
		{"a/+/c", "a/b/c", true}, {"a/+/c", "a//c", true}, {"a/+/c", "a/c", false}, {"a/+", "a", false}, {"a/+/#", "a", false}, {"a/+/#", "a/b", true},
		{"#", "$SYS/a", false}, {"+/a", "$SYS/a", false}, {"$SYS/#", "$SYS/a", true}, {"$SYS/+", "$SYS/a", true}, {"a/$b", "a/$b", true}, {"a/+", "a/$b", true},
		{"", "a", false}, {"a", "", false},
	} {
		if got := Match(c.filter, c.name); got != c.want {
			t.Errorf("Match(%q, %q) = %t, want %t", c.filter, c.name, got, c.want)
		}
	}
}

// A topic always matches what one gets by replacing levels of it with wildcards.
func TestMatchesWhatItWasMadeFrom(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		levels := rapid.SliceOfN(rapid.StringMatching(`[a-c]{0,2}`), 1, 6).Draw(t, "levels")
		name := strings.Join(levels, "/")
		if name == "" {
			return
		}
		filter := make([]string, 0, len(levels))
		for i, l := range levels {
			switch rapid.IntRange(0, 5).Draw(t, "wild") {
			case 0:
				filter = append(filter, "+")
				continue
			case 1:
				if i > 0 {
					filter = append(filter, "#")
				}
			}
			if len(filter) > 0 && filter[len(filter)-1] == "#" {
				break
			}
			filter = append(filter, l)
		}
		f := strings.Join(filter, "/")
		if f == "" {
			return
		}
		if !ValidTopicFilter(f) || !Match(f, name) {
			t.Fatalf("%q does not match %q", f, name)
		}
		if Match(f+"/x/y/z", name) && !strings.HasSuffix(f, "#") {
			t.Fatalf("%q matches a shorter %q", f+"/x/y/z", name)
		}
	})
}

func TestSplitShare(t *testing.T) {
	for _, c := range [][3]string{
		{"$share/g/a/b", "g", "a/b"}, {"$share/g//a", "g", "/a"}, {"a/b", "", "a/b"}, {"$shared/g/a", "", "$shared/g/a"}, {"$SYS/a", "", "$SYS/a"},
	} {
		if g, f := SplitShare(c[0]); g != c[1] || f != c[2] {
			t.Errorf("SplitShare(%q) = %q, %q", c[0], g, f)
		}
	}
}

func TestReasonCodesHaveNames(t *testing.T) {
	named := 0
	for i := range 256 {
		if c := ReasonCode(i); c.name() != "" {
			named++
		} else if !strings.HasPrefix(c.String(), "reason code 0x") {
			t.Errorf("%d: %q", i, c)
		}
	}
	// 2.4 table 2-6 lists 43 values; 0x00 has three names there.
	if named != 43 {
		t.Errorf("%d reason codes have names", named)
	}
	if got := (&ReasonError{Op: "publish", Code: QuotaExceeded, Detail: "come back tomorrow"}).Error(); got != "mqtt: publish refused: quota exceeded: come back tomorrow" {
		t.Error(got)
	}
}
