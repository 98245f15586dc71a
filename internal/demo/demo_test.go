package demo

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"regexp"
	"strings"
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
	if account.Read < 10 || account.Local.Delivered != account.Read || account.Upstream.Delivered != account.Read || account.Lost() != 0 {
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

// A trigger is an output that calls f when a text is written to it.
type trigger struct {
	bytes.Buffer
	text string
	f    func()
}

func (t *trigger) Write(b []byte) (int, error) {
	if bytes.Contains(b, []byte(t.text)) {
		t.f()
	}
	return t.Buffer.Write(b)
}

// An interrupt within the outage ends the demo with the same account: the line is mended first.
func TestTheDemoInterruptedInTheOutageLosesNothing(t *testing.T) {
	ctx, interrupt := context.WithCancel(t.Context())
	out := &trigger{text: "upstream: away", f: interrupt}
	account, err := Run(ctx, Options{For: 4500 * time.Millisecond, Out: out, Log: slog.New(slog.DiscardHandler)})
	if err != nil || account.Read == 0 || account.Lost() != 0 || account.Waiting != 0 {
		t.Fatalf("%v\n%s\n%s", err, account, out)
	}
	if ctx.Err() == nil {
		t.Errorf("the outage was never shown:\n%s", out)
	}
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
