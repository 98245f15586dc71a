package logging

import (
	"context"
	"fmt"
	"log/slog"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
)

// How a fault that persists is said: at once, then in summaries that grow rarer.
var pauses = []time.Duration{time.Minute, 10 * time.Minute, time.Hour}

const (
	forgotten = 2 * time.Hour // a fault that was not heard of for so long is news again
	maxFaults = 512           // faults remembered at once
)

// Summarise returns a handler that passes a warning or an error to h the first time, counts it while
// it comes again, and says after a minute, after ten more, and then every hour how often it came.
// What is no warning passes as it is.
//
// Two records are the same fault when level, message and attributes are the same, numbers, durations
// and times among the attributes left aside: they tell how often and how long, not what. So does the
// port that a connection of ours happened to have.
func Summarise(h slog.Handler) slog.Handler {
	return &summariser{next: h, faults: &faults{seen: map[string]*fault{}}}
}

type summariser struct {
	next   slog.Handler
	prefix string // attributes and groups given with WithAttrs and WithGroup
	*faults
}

type faults struct {
	mu   sync.Mutex
	seen map[string]*fault
}

// A fault is a record that may come again.
type fault struct {
	record  slog.Record // the latest
	next    slog.Handler
	first   time.Time // when it was first heard of
	last    time.Time // when it was last heard of
	said    time.Time // when it was last passed on
	silent  int       // how often it came since
	summary int       // summaries given
}

func (s *summariser) Enabled(ctx context.Context, l slog.Level) bool { return s.next.Enabled(ctx, l) }

func (s *summariser) WithAttrs(attrs []slog.Attr) slog.Handler {
	var b strings.Builder
	b.WriteString(s.prefix)
	for _, a := range attrs {
		key(&b, a)
	}
	return &summariser{s.next.WithAttrs(attrs), b.String(), s.faults}
}

func (s *summariser) WithGroup(name string) slog.Handler {
	return &summariser{s.next.WithGroup(name), s.prefix + "\x00" + name + ".", s.faults}
}

func (s *summariser) Handle(ctx context.Context, r slog.Record) error {
	pass := s.sort(r)
	for _, f := range pass {
		if err := f.next.Handle(ctx, f.record); err != nil {
			return err
		}
	}
	return nil
}

// sort returns what is to be passed on: summaries that are due, whichever fault they are of, and the
// record unless it is only counted.
func (s *summariser) sort(r slog.Record) (pass []fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := ""
	if r.Level >= slog.LevelWarn {
		k = s.key(r)
	}
	for name, f := range s.seen {
		quiet := r.Time.Sub(f.last)
		if name != k && f.silent > 0 && r.Time.Sub(f.said) >= f.pause() {
			pass = append(pass, f.summarise(r.Time))
		}
		if quiet >= forgotten {
			delete(s.seen, name)
		}
	}
	slices.SortFunc(pass, func(a, b fault) int { return a.record.Time.Compare(b.record.Time) })
	f, again := s.seen[k]
	if k == "" || !again {
		if k != "" && len(s.seen) < maxFaults {
			s.seen[k] = &fault{next: s.next, record: r.Clone(), first: r.Time, last: r.Time, said: r.Time}
		}
		return append(pass, fault{next: s.next, record: r})
	}
	f.record, f.last = r.Clone(), r.Time
	f.silent++
	if r.Time.Sub(f.said) >= f.pause() {
		pass = append(pass, f.summarise(r.Time))
	}
	return pass
}

func (f *fault) pause() time.Duration { return pauses[min(f.summary, len(pauses)-1)] }

// summarise returns the fault with its count in the message, and counts anew.
func (f *fault) summarise(now time.Time) fault {
	r := slog.NewRecord(f.record.Time, f.record.Level,
		fmt.Sprintf("%s (%s more in %s)", f.record.Message, times(f.silent), ago(f.last.Sub(f.said))), f.record.PC)
	f.record.Attrs(func(a slog.Attr) bool { r.AddAttrs(a); return true })
	f.silent = 0
	f.said = now
	f.summary++
	return fault{next: f.next, record: r}
}

func times(n int) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}

func (s *summariser) key(r slog.Record) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d %s%s", r.Level, r.Message, s.prefix)
	r.Attrs(func(a slog.Attr) bool { key(&b, a); return true })
	return b.String()
}

// key appends what an attribute adds to a fault's identity.
func key(b *strings.Builder, a slog.Attr) {
	v := a.Value.Resolve()
	switch v.Kind() {
	case slog.KindInt64, slog.KindUint64, slog.KindFloat64, slog.KindDuration, slog.KindTime:
		return
	case slog.KindGroup:
		b.WriteString("\x00" + a.Key + ".")
		for _, m := range v.Group() {
			key(b, m)
		}
		return
	}
	b.WriteString("\x00" + a.Key + "=" + ownPort.ReplaceAllString(v.String(), "->"))
}

// ownPort is in errors of package net, "read tcp 127.0.0.1:54066->127.0.0.1:1883: connection reset".
var ownPort = regexp.MustCompile(`:[0-9]+->`)
