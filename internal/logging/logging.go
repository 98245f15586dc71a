// Package logging is where the gateway's log lines go: to the journal with their priorities, to a
// terminal with the time of day, to anything else with the full time. A fault that persists is said
// once and then summarised.
package logging

import (
	"bytes"
	"context"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Style is the form of a line.
type Style uint8

const (
	Plain    Style = iota // 2026-11-23T16:00:00.123Z WARN message key=value
	Terminal              // 16:00:00.123 WARN message key=value
	Journal               // <4>message key=value, as sd-daemon(3) has it: the journal keeps time and level
)

// StyleOf tells what a file wants. getenv is os.Getenv outside of tests.
func StyleOf(f *os.File, getenv func(string) string) Style {
	info, err := f.Stat()
	if err != nil {
		return Plain
	}
	// The variable names the device and the inode of the stream, so that a program that was started
	// with its output redirected does not take the file for the journal (systemd.exec(5)).
	if s := getenv("JOURNAL_STREAM"); s != "" && s == deviceAndInode(info) {
		return Journal
	}
	if info.Mode()&fs.ModeCharDevice != 0 {
		return Terminal
	}
	return Plain
}

// New returns the logger of the program: f's style, at level and above, persisting faults summarised.
func New(f *os.File, level slog.Leveler, getenv func(string) string) *slog.Logger {
	return slog.New(Summarise(NewHandler(f, StyleOf(f, getenv), level)))
}

// NewHandler returns a handler that writes each record as one line, in one call of Write.
func NewHandler(w io.Writer, style Style, level slog.Leveler) slog.Handler {
	h := &handler{sink: &sink{w: w}, style: style}
	h.attrs = slog.NewTextHandler(&h.sink.line, &slog.HandlerOptions{Level: level, ReplaceAttr: bare})
	return h
}

// A handler writes the head of a line itself and leaves the attributes to a slog.TextHandler.
type handler struct {
	*sink
	style Style
	attrs slog.Handler
}

// A sink is what all handlers made from one share.
type sink struct {
	mu   sync.Mutex
	w    io.Writer
	line bytes.Buffer
}

// bare takes away what the head of the line says already.
func bare(groups []string, a slog.Attr) slog.Attr {
	if len(groups) == 0 {
		switch a.Key {
		case slog.TimeKey, slog.LevelKey, slog.MessageKey:
			return slog.Attr{}
		}
	}
	return a
}

func (h *handler) Enabled(ctx context.Context, level slog.Level) bool {
	return h.attrs.Enabled(ctx, level)
}

func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &handler{h.sink, h.style, h.attrs.WithAttrs(attrs)}
}

func (h *handler) WithGroup(name string) slog.Handler {
	return &handler{h.sink, h.style, h.attrs.WithGroup(name)}
}

func (h *handler) Handle(ctx context.Context, r slog.Record) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.line.Reset()
	switch {
	case h.style == Journal:
		h.line.WriteString(priority(r.Level))
	case r.Time.IsZero(): // slog.Handler: a record without a time is written without one
	case h.style == Terminal:
		h.line.WriteString(r.Time.Format("15:04:05.000 "))
	default:
		h.line.WriteString(r.Time.UTC().Format("2006-01-02T15:04:05.000Z "))
	}
	if h.style != Journal {
		h.line.WriteString(r.Level.String())
		h.line.WriteByte(' ')
	}
	h.line.WriteString(oneLine(r.Message))
	h.line.WriteByte(' ')
	if err := h.attrs.Handle(ctx, r); err != nil {
		return err
	}
	if line := h.line.Bytes(); bytes.HasSuffix(line, []byte(" \n")) { // no attributes
		h.line.Truncate(len(line) - 2)
		h.line.WriteByte('\n')
	}
	_, err := h.w.Write(h.line.Bytes())
	return err
}

// priority is the prefix of sd-daemon(3): the numbers of syslog(3).
func priority(l slog.Level) string {
	switch {
	case l >= slog.LevelError:
		return "<3>"
	case l >= slog.LevelWarn:
		return "<4>"
	case l >= slog.LevelInfo:
		return "<6>"
	}
	return "<7>"
}

// oneLine quotes a message that would not be one line, or that holds what a terminal might obey.
func oneLine(s string) string {
	if strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return strconv.Quote(s)
	}
	return s
}

// ago says how long something lasts, to three figures at most.
func ago(d time.Duration) string {
	switch {
	case d < time.Minute:
		d = d.Round(time.Second)
	case d < time.Hour:
		d = d.Round(time.Minute)
	default:
		d = d.Round(time.Hour)
	}
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = s[:len(s)-2]
	}
	if strings.HasSuffix(s, "h0m") {
		s = s[:len(s)-2]
	}
	return s
}
