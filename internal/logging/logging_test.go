package logging

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/slogtest"
	"time"
)

var noon = time.Date(2026, 11, 23, 12, 0, 0, 123e6, time.UTC)

func record(at time.Time, l slog.Level, msg string, args ...any) slog.Record {
	r := slog.NewRecord(at, l, msg, 0)
	r.Add(args...)
	return r
}

func TestStyles(t *testing.T) {
	for _, c := range []struct {
		style Style
		level slog.Level
		want  string
	}{
		{Journal, slog.LevelDebug, "<7>polled bus=meters n=3\n"},
		{Journal, slog.LevelInfo, "<6>polled bus=meters n=3\n"},
		{Journal, slog.LevelWarn, "<4>polled bus=meters n=3\n"},
		{Journal, slog.LevelError, "<3>polled bus=meters n=3\n"},
		{Journal, slog.LevelError + 4, "<3>polled bus=meters n=3\n"},
		{Terminal, slog.LevelWarn, "12:00:00.123 WARN polled bus=meters n=3\n"},
		{Plain, slog.LevelInfo, "2026-11-23T12:00:00.123Z INFO polled bus=meters n=3\n"},
	} {
		var out bytes.Buffer
		h := NewHandler(&out, c.style, slog.LevelDebug).WithAttrs([]slog.Attr{slog.String("bus", "meters")})
		if err := h.Handle(context.Background(), record(noon, c.level, "polled", "n", 3)); err != nil {
			t.Fatal(err)
		}
		if out.String() != c.want {
			t.Errorf("got %q, want %q", out.String(), c.want)
		}
	}
}

func TestALineIsOneLine(t *testing.T) {
	var out bytes.Buffer
	log := slog.New(NewHandler(&out, Journal, slog.LevelInfo))
	log.Info("two\nlines\x1b[31m", "err", errors.New("a\nb"), slog.Group("at", "msg", "kept", "time", "kept"))
	log.Debug("not asked for")
	log.Info("bare")
	want := `<6>"two\nlines\x1b[31m" err="a\nb" at.msg=kept at.time=kept` + "\n<6>bare\n"
	if out.String() != want {
		t.Errorf("got  %q\nwant %q", out.String(), want)
	}
}

func TestAttributesAndGroupsAreKept(t *testing.T) {
	// slogtest wants key=value lines with time, level and msg; they stand in the head of ours.
	var out bytes.Buffer
	h := Summarise(NewHandler(&out, Plain, slog.LevelInfo))
	err := slogtest.TestHandler(h, func() []map[string]any {
		var all []map[string]any
		for line := range strings.Lines(out.String()) {
			f := strings.Fields(line)
			m := map[string]any{}
			if strings.HasSuffix(f[0], "Z") {
				m[slog.TimeKey] = f[0]
				f = f[1:]
			}
			m[slog.LevelKey] = f[0]
			m[slog.MessageKey] = f[1]
			for _, kv := range f[2:] {
				k, v, _ := strings.Cut(kv, "=")
				at := m
				for group, rest, ok := strings.Cut(k, "."); ok; group, rest, ok = strings.Cut(k, ".") {
					if at[group] == nil {
						at[group] = map[string]any{}
					}
					at, k = at[group].(map[string]any), rest
				}
				at[k] = v
			}
			all = append(all, m)
		}
		return all
	})
	if err != nil {
		t.Error(err)
	}
}

func TestStyleOfAFile(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	stream := func(v string) func(string) string {
		return func(key string) string {
			if key == "JOURNAL_STREAM" {
				return v
			}
			return ""
		}
	}
	if got := StyleOf(f, stream("")); got != Plain {
		t.Errorf("a file: %v", got)
	}
	if got := StyleOf(f, stream("1:1")); got != Plain {
		t.Errorf("a file, the journal being another stream: %v", got)
	}
	if runtime.GOOS != "windows" {
		if got := StyleOf(f, stream(deviceAndInode(info))); got != Journal {
			t.Errorf("the journal's stream: %v", got)
		}
	}
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	New(null, slog.LevelInfo, stream("")).Info("to nowhere")
}

func TestAPersistingFaultIsSaidOnceAndThenSummarised(t *testing.T) {
	var out bytes.Buffer
	log := slog.New(Summarise(NewHandler(&out, Journal, slog.LevelInfo))).With("bus", "meters")
	at := noon
	fail := func(args ...any) {
		log.Handler().Handle(context.Background(), record(at, slog.LevelWarn, "device does not answer", args...))
	}
	// A device that fails every second for three hours, with numbers that change, beside one that
	// failed twice.
	for i := range 3 * 3600 {
		fail("device", "boiler", "attempt", i, "retry_in", time.Duration(i))
		if i < 2 {
			fail("device", "pump")
		}
		at = at.Add(time.Second)
	}
	want := []string{
		`<4>device does not answer bus=meters device=boiler attempt=0 retry_in=0s`,
		`<4>device does not answer bus=meters device=pump`,
		`<4>device does not answer (once more in 1s) bus=meters device=pump`,
		`<4>device does not answer (60 times more in 1m) bus=meters device=boiler attempt=60 retry_in=60ns`,
		`<4>device does not answer (600 times more in 10m) bus=meters device=boiler attempt=660 retry_in=660ns`,
		`<4>device does not answer (3600 times more in 1h) bus=meters device=boiler attempt=4260 retry_in=4.26µs`,
		`<4>device does not answer (3600 times more in 1h) bus=meters device=boiler attempt=7860 retry_in=7.86µs`,
	}
	if got := strings.TrimSuffix(out.String(), "\n"); got != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", got, strings.Join(want, "\n"))
	}
}

// Each attempt to connect has a port of its own, which made each failure another fault.
func TestTheOwnPortOfAConnectionIsNoPartOfAFault(t *testing.T) {
	var out bytes.Buffer
	h := Summarise(NewHandler(&out, Journal, slog.LevelInfo))
	for i := range 30 {
		for _, own := range []string{"127.0.0.1", "[::1]"} {
			err := fmt.Errorf("read tcp %s:%d->%s:1883: connection reset by peer", own, 54000+i, own)
			h.Handle(context.Background(), record(noon.Add(time.Duration(i)*time.Second), slog.LevelWarn, "not connected", "err", err))
		}
	}
	if got := strings.Count(out.String(), "\n"); got != 2 {
		t.Errorf("%d lines, want 2:\n%s", got, out.String())
	}
}

func TestWhatIsNoFaultOrAnotherFaultPasses(t *testing.T) {
	var out bytes.Buffer
	h := Summarise(NewHandler(&out, Journal, slog.LevelInfo))
	ctx := context.Background()
	h.Handle(ctx, record(noon, slog.LevelInfo, "connected"))
	h.Handle(ctx, record(noon, slog.LevelInfo, "connected"))
	h.Handle(ctx, record(noon, slog.LevelWarn, "failed", "err", "timeout"))
	h.Handle(ctx, record(noon, slog.LevelError, "failed", "err", "timeout"))
	h.Handle(ctx, record(noon, slog.LevelWarn, "failed", "err", "refused"))
	h.WithGroup("a").Handle(ctx, record(noon, slog.LevelWarn, "failed", "err", "refused"))
	// After two quiet hours the same is news.
	h.Handle(ctx, record(noon.Add(2*time.Hour), slog.LevelWarn, "failed", "err", "timeout"))
	if got := strings.Count(out.String(), "\n"); got != 7 || strings.Contains(out.String(), "more in") {
		t.Errorf("%d lines, want 7 and no summary:\n%s", got, out.String())
	}
}

func TestTheMemoryOfFaultsIsBounded(t *testing.T) {
	var out bytes.Buffer
	s := Summarise(NewHandler(&out, Journal, slog.LevelInfo)).(*summariser)
	for i := range 2 * maxFaults {
		s.Handle(context.Background(), record(noon, slog.LevelWarn, fmt.Sprintf("fault %d", i)))
	}
	if len(s.seen) != maxFaults || strings.Count(out.String(), "\n") != 2*maxFaults {
		t.Errorf("%d remembered, %d said", len(s.seen), strings.Count(out.String(), "\n"))
	}
	s.Handle(context.Background(), record(noon.Add(forgotten), slog.LevelInfo, "later"))
	if len(s.seen) != 0 {
		t.Errorf("%d remembered after two quiet hours", len(s.seen))
	}
}

func BenchmarkHandle(b *testing.B) {
	log := slog.New(Summarise(NewHandler(&bytes.Buffer{}, Journal, slog.LevelWarn)))
	for b.Loop() {
		log.Warn("device does not answer", "device", "boiler", "attempt", 3)
	}
}
