package demo

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"gateway/config"
)

func TestTheDemoLosesNothingAndItsAccountAddsUp(t *testing.T) {
	var out bytes.Buffer
	var text string
	account, err := Run(t.Context(), Options{
		For: 3 * time.Second, Out: &out, Log: slog.New(slog.DiscardHandler),
		OnConfig: func(config string) error { text = config; return nil },
	})
	if err != nil {
		t.Fatalf("%v\n%s\n%s", err, account, &out)
	}
	if account.Read == 0 || account.Local.Delivered != account.Read || account.Upstream.Delivered != account.Read || account.Lost() != 0 {
		t.Errorf("the account does not add up:\n%s", account)
	}
	if account.Outages != 1 || account.Local.Disorder+account.Local.Foreign+account.Upstream.Foreign != 0 {
		t.Errorf("%+v", account)
	}
	for _, event := range []string{"the upstream is away", "the upstream is back"} {
		if !strings.Contains(out.String(), event) {
			t.Errorf("not told: %s", event)
		}
	}
	if _, p := config.Parse("demo.toml", text); p.Failed() {
		t.Errorf("the configuration that it shows: %s", p)
	}
}

// A watcher is an output, and a person before it who does one thing after the other, each upon seeing something.
type watcher struct {
	bytes.Buffer
	steps []step
}

type step struct {
	sees string // a regular expression
	does func()
}

func (w *watcher) Write(b []byte) (int, error) {
	if len(w.steps) > 0 && regexp.MustCompile(w.steps[0].sees).Match(b) {
		w.steps[0].does()
		w.steps = w.steps[1:]
	}
	return w.Buffer.Write(b)
}

func TestKeysTakeTheUpstreamAwayAndBringItBack(t *testing.T) {
	keys := make(chan byte, 3)
	press := func(key byte) func() { return func() { keys <- key } }
	out := &watcher{steps: []step{
		{`local: in this process, \d{2,} delivered`, press('u')},
		{`the upstream is away`, func() {}},
		{`upstream: .*, [1-9]\d* waiting`, press('u')},
		{`the upstream is back`, press('q')},
	}}
	account, err := Run(t.Context(), Options{Out: out, Keys: keys, Log: slog.New(slog.DiscardHandler)})
	if err != nil || account.Read < 10 || account.Upstream.Delivered != account.Read || account.Outages != 1 || account.Lost() != 0 {
		t.Errorf("%v\n%s\n%s", err, account, out)
	}
	if len(out.steps) != 0 {
		t.Errorf("never seen: %s\n%s", out.steps[0].sees, out)
	}
}

// An interrupt within the outage ends the demo with the same account: the line is mended first.
func TestTheDemoInterruptedInTheOutageLosesNothing(t *testing.T) {
	ctx, interrupt := context.WithCancel(t.Context())
	keys := make(chan byte, 1)
	out := &watcher{steps: []step{
		{`upstream: connected, [1-9]\d* delivered`, func() { keys <- 'u' }},
		{`upstream: .*, [1-9]\d* waiting`, interrupt},
		{`the upstream is back`, func() {}},
	}}
	account, err := Run(ctx, Options{Out: out, Keys: keys, Log: slog.New(slog.DiscardHandler)})
	if err != nil || account.Read == 0 || account.Lost() != 0 {
		t.Fatalf("%v\n%s\n%s", err, account, out)
	}
	if len(out.steps) != 0 {
		t.Errorf("never seen: %s\n%s", out.steps[0].sees, out)
	}
}

// Two demos at once have a broker each: neither counts what the other reads.
func TestTwoDemosDoNotGetInEachOthersWay(t *testing.T) {
	var both sync.WaitGroup
	for range 2 {
		both.Go(func() {
			var out bytes.Buffer
			account, err := Run(t.Context(), Options{For: time.Second, Out: &out, Log: slog.New(slog.DiscardHandler)})
			if err != nil || account.Local.Delivered != account.Read || account.Local.Duplicates+account.Local.Foreign != 0 {
				t.Errorf("%v\n%s\n%s", err, account, &out)
			}
		})
	}
	both.Wait()
}

func TestAViewIsDrawnWithinItsTerminal(t *testing.T) {
	v := view{
		Elapsed: 65 * time.Second, Left: 5 * time.Second, Event: "something happened", Keys: true,
		Devices:      []deviceView{{Device: "a-device-with-a-long-name", Bus: "bus", Values: strings.Repeat("reading 71.2 °C ", 20)}},
		Destinations: []destinationView{{Name: "local", Broker: "127.0.0.1:1883", Link: "in this process", Up: true, Delivered: 7, Waiting: 3}},
	}
	styled := regexp.MustCompile("\x1b\\[[0-9]*m")
	for _, size := range [][2]int{{200, 60}, {80, 24}, {60, 12}, {20, 5}, {1, 1}} {
		var out bytes.Buffer
		s := &screen{out: &out, size: func() (int, int) { return size[0], size[1] }}
		s.show(v)
		lines := strings.Split(strings.ReplaceAll(out.String(), "\x1b[K", ""), "\r\n")
		lines = lines[:len(lines)-1] // where the cursor is left
		if len(lines) > max(size[1]-1, 1) {
			t.Errorf("%d lines in a terminal of %v", len(lines), size)
		}
		for _, l := range lines {
			if n := utf8.RuneCountInString(strings.TrimPrefix(styled.ReplaceAllString(l, ""), "\r")); n > size[0] {
				t.Errorf("%d columns in a terminal of %v: %q", n, size, l)
			}
		}
		out.Reset()
		s.show(v)
		if got := out.String(); strings.Contains(got, "\x1b[2J") || !strings.HasPrefix(got, fmt.Sprintf("\x1b[%dA", len(lines))) {
			t.Errorf("not drawn over what was there: %q", got[:20])
		}
		out.Reset()
		size[0]++
		if s.show(v); !strings.HasPrefix(out.String(), "\x1b[2J\x1b[H") {
			t.Error("a terminal of another size keeps the lines of the old one")
		}
	}
	lines := strings.Split(v.text(), "\n")
	if len(lines) != 2 || !strings.HasPrefix(lines[0], " 65 s   a-device-with-a-long-name (bus): reading 71.2 °C") ||
		lines[1] != " 65 s   local: in this process, 7 delivered, 3 waiting" {
		t.Errorf("got %q", lines)
	}
}
