package config

import (
	"strings"
	"testing"
	"time"
)

func TestQueue(t *testing.T) {
	cfg, p := Parse("gateway.toml", `
[queue]
max_bytes = "64 MiB"
max_age = "48h"
when_full = "refuse-newest"
preallocate = true
sync = "always"
`)
	want := Queue{At: cfg.Queue.At, MaxBytes: 64 << 20, MaxAge: 48 * time.Hour, WhenFull: RefuseNewest, Preallocate: true}
	if p.String() != "" || cfg.Queue != want {
		t.Errorf("got %+v, %s", cfg.Queue, p)
	}
}

func TestQueueProblemsAreAllReported(t *testing.T) {
	got := problems("[queue]\nmax_bytes = 1000\nmax_age = \"3s\"\nwhen_full = \"panic\"\nsync = \"2h\"\n")
	for i, want := range []string{":2: queue: max_bytes", ":3: queue: max_age", `:4: queue: when_full = "panic" is neither`, "a power cut may lose the last 2h"} {
		if len(got) != 4 || !strings.Contains(got[i], want) {
			t.Errorf("problem %d of %q does not say %q", i, got, want)
		}
	}
}
