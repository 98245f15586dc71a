package main

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"gateway/adapters"
	"gateway/adapters/serial"
	"gateway/adapters/serial/frame"
)

// A monitor prints what happens on a line. Bytes that trickle in are gathered into rows of sixteen; a
// row ends early where a frame does, or when nothing has come for a quarter of a second.
type monitor struct {
	out  io.Writer
	fail func(error) // called for a port that cannot be opened

	mu      sync.Mutex
	row     []byte
	at      time.Time // when the row began
	stamp   uint64    // counts the rows, for the timer
	wasOpen bool
}

const rowBytes = 16

func (m *monitor) opened(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.wasOpen = true
	fmt.Fprintf(m.out, "%s %s is open\n", clockText(time.Now()), name)
}

// see is the Trace of a line.
func (m *monitor) see(e serial.Event) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case e.Got != nil:
		m.bytes(e.At, e.Got)
	case e.Sent != nil:
		m.flushRow()
		for i := 0; i < len(e.Sent); i += rowBytes {
			m.print(e.At, ">", e.Sent[i:min(i+rowBytes, len(e.Sent))])
		}
	case e.Frame != nil:
		m.flushRow()
		if e.Frame.Fault != frame.None {
			fmt.Fprintf(m.out, "%s   thrown away, %v: %d bytes\n", clockText(e.At), e.Frame.Fault, len(e.Frame.Raw))
		} else {
			fmt.Fprintf(m.out, "%s   frame of %d bytes: %s\n", clockText(e.At), len(e.Frame.Data), printableText(e.Frame.Data))
		}
	case e.Sample != nil:
		m.flushRow()
		for _, r := range e.Sample.Readings {
			fmt.Fprintf(m.out, "%s   %s: %s\n", clockText(e.At), e.Device, readingText(e.Sample.Schema, r))
		}
	case e.Err != nil:
		m.flushRow()
		if !m.wasOpen {
			m.fail(e.Err)
			return
		}
		fmt.Fprintf(m.out, "%s %v; waiting for it\n", clockText(e.At), e.Err)
	}
}

func (m *monitor) bytes(at time.Time, b []byte) {
	for _, c := range b {
		if len(m.row) == 0 {
			m.at = at
			m.stamp++
			stamp := m.stamp
			time.AfterFunc(250*time.Millisecond, func() { m.late(stamp) })
		}
		if m.row = append(m.row, c); len(m.row) == rowBytes {
			m.flushRow()
		}
	}
}

// late prints a row that nothing has ended.
func (m *monitor) late(stamp uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if stamp == m.stamp {
		m.flushRow()
	}
}

func (m *monitor) flush() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.flushRow()
	m.stamp++
}

func (m *monitor) flushRow() {
	if len(m.row) > 0 {
		m.print(m.at, "<", m.row)
		m.row = m.row[:0]
	}
}

func (m *monitor) print(at time.Time, arrow string, b []byte) {
	hex := fmt.Sprintf("% x", b[:min(8, len(b))])
	if len(b) > 8 {
		hex += fmt.Sprintf("  % x", b[8:])
	}
	fmt.Fprintf(m.out, "%s %s %-*s |%s|\n", clockText(at), arrow, 3*rowBytes, hex, printableText(b))
}

func clockText(t time.Time) string { return t.Format("15:04:05.000") }

// printableText shows what is no character of ASCII as a dot.
func printableText(b []byte) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '.'
		}
		return r
	}, strings.ToValidUTF8(string(b), "."))
}

func readingText(s *adapters.Schema, r adapters.Reading) string {
	p := s.Points[r.Point]
	text := p.Name + " = "
	switch r.Quality {
	case adapters.Bad:
		return text + "bad: " + string(r.Reason)
	case adapters.Stale:
		return text + r.Value.String() + " " + p.Unit + " (stale: " + string(r.Reason) + ")"
	}
	return strings.TrimSpace(text + r.Value.String() + " " + p.Unit)
}
