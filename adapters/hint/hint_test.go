package hint_test

import (
	"testing"

	"gateway/adapters/hint"
)

type kind string

func TestNearest(t *testing.T) {
	for _, c := range []struct {
		typed kind
		names []kind
		want  kind
	}{
		{"jsn", []kind{"value", "json"}, "json"},
		{"nmae", []kind{"nmea", "regex"}, "nmea"}, // exchanged neighbours are one mistake
		{"JSON", []kind{"json"}, "json"},
		{"adress", []kind{"access", "address"}, "address"},
		{"bme281", []kind{"bmp280", "bme280", "bme680"}, "bme280"},
		{"max_bytse", []kind{"max_age", "max_bytes"}, "max_bytes"},
		{"colour", []kind{"b", "a"}, ""},
		{"x", []kind{"y"}, ""}, // any letter is near to any other
		{"", []kind{"a"}, ""},
		{"bb", []kind{"bc", "ba"}, "ba"},
		{"eastron-smd630", nil, ""},
	} {
		got, ok := hint.Nearest(c.typed, c.names)
		if got != c.want || ok != (c.want != "") {
			t.Errorf("%q among %q: %q, %t, want %q", c.typed, c.names, got, ok, c.want)
		}
	}
}

func TestHints(t *testing.T) {
	names := []kind{"gzip", "zstd", "none"}
	for typed, want := range map[kind]string{
		"gzpi": `; did you mean "gzip"?`,
		"lz":   "; there are gzip, zstd and none",
	} {
		if got := hint.OneOf(typed, names); got != want {
			t.Errorf("%q: %q, want %q", typed, got, want)
		}
	}
	if got := hint.DidYouMean("lz", names); got != "" {
		t.Errorf("%q", got)
	}
	for n, want := range []string{"", "gzip", "gzip and zstd", "gzip, zstd and none"} {
		if got := hint.List(names[:n]); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
