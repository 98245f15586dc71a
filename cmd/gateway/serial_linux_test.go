package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"gateway/adapters/sim"
)

// A screen is what a command has written so far.
type screen struct {
	mu   sync.Mutex
	text bytes.Buffer
	news chan struct{}
}

func (s *screen) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case s.news <- struct{}{}:
	default:
	}
	return s.text.Write(b)
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// await waits until the screen matches.
func (s *screen) await(t *testing.T, pattern string) {
	t.Helper()
	re := regexp.MustCompile(pattern)
	late := time.After(time.Minute)
	for !re.MatchString(s.String()) {
		select {
		case <-s.news:
		case <-late:
			t.Fatalf("%q did not appear in\n%s", pattern, s)
		}
	}
}

// monitorOf runs gateway serial monitor and returns its screen and a function that ends it and returns
// the exit code.
func monitorOf(t *testing.T, args ...string) (*screen, func() int) {
	out := &screen{news: make(chan struct{}, 1)}
	ctx, cancel := context.WithCancel(t.Context())
	code := make(chan int, 1)
	go func() {
		code <- Main(ctx, streams{strings.NewReader(""), out, out}, append([]string{"serial", "monitor"}, args...))
	}()
	return out, func() int { cancel(); return <-code }
}

func serialLine(t *testing.T) *sim.PTY {
	t.Helper()
	line, err := sim.OpenPTY(filepath.Join(t.TempDir(), "ttyUSB0"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { line.Close() })
	return line
}

func TestSerialMonitorShowsBytesFramesAndPoints(t *testing.T) {
	line := serialLine(t)
	file := filepath.Join(t.TempDir(), "gateway.toml")
	err := os.WriteFile(file, fmt.Appendf(nil, `
[[serial]]
name = "scale-port"
port = %q
frame = { line = '\r\n' }

  [[serial.device]]
  name = "scale"
  match = '^ST,GS,\s*(?P<weight>[-+0-9.]+)kg'
  points = [{ name = "weight", unit = "kg" }]
`, line.Path()), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	out, end := monitorOf(t, "--config", file, line.Path())
	out.await(t, "is open")
	line.Write([]byte("first\r\nST,GS,12.5kg\r\nwhat?\r\n"))
	// The first line may have been joined in its middle.
	out.await(t, `(?s)< 66 69 72 73 74 0d 0a 53  54 2c 47 53 2c 31 32 2e +\|first\.\.ST,GS,12\.\|.*frame of 12 bytes: ST,GS,12\.5kg\n.*scale: weight = 12\.5 kg\n.*frame of 5 bytes: what\?`)
	if err := line.Unplug(); err != nil {
		t.Fatal(err)
	}
	out.await(t, "vanished.*; waiting for it")
	if code := end(); code != exitOK {
		t.Errorf("exit %d", code)
	}
	out.await(t, `\d+ bytes, [23] frames, [12] of them for nobody`)
}

func TestSerialMonitorWithoutAConfiguration(t *testing.T) {
	line := serialLine(t)
	out, end := monitorOf(t, "--baud", "115200", "--silence", "20ms", line.Path())
	out.await(t, "is open")
	speaking, quiet := context.WithCancel(t.Context())
	defer quiet()
	go func() { // what comes right after the opening may be the rest of something and is no frame
		tick := time.NewTicker(250 * time.Millisecond)
		defer tick.Stop()
		for speaking.Err() == nil {
			<-tick.C
			line.Write([]byte{0xAA, 0x00, 0x41})
		}
	}()
	out.await(t, `< aa 00 41 +\|\.\.A\|\n.*frame of 3 bytes: \.\.A`)
	// Another program that wants the port is told who has it.
	second, endSecond := monitorOf(t, line.Path())
	second.await(t, "in use")
	if code := endSecond(); code != exitFailure {
		t.Errorf("exit %d", code)
	}
	if code := end(); code != exitOK {
		t.Errorf("exit %d", code)
	}
}

func TestSerialMonitorOfNoPort(t *testing.T) {
	for want, args := range map[string][]string{
		"not there":               {filepath.Join(t.TempDir(), "ttyUSB0")},
		"none, odd, even, mark":   {"--parity", "strange", "/dev/null"},
		"not a serial port":       {"/dev/null"},
		"--line":                  {"--line", `\q`, "/dev/null"},
		"an argument is missing":  {},
		"there is no such file":   {"--config", "/nowhere.toml", "/dev/null"},
		"not defined: --nonsense": {"--nonsense"},
	} {
		var out bytes.Buffer
		code := Main(t.Context(), streams{strings.NewReader(""), &out, &out}, append([]string{"serial", "monitor"}, args...))
		if code == exitOK || !strings.Contains(out.String(), want) {
			t.Errorf("%q: exit %d, %q", args, code, out.String())
		}
	}
}
