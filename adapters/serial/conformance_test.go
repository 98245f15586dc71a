package serial_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"gateway/adapters"
	"gateway/adapters/adapterstest"
	"gateway/adapters/port"
	"gateway/adapters/serial"
)

// A line is a simulated one with the devices a and b on it, in memory. They answer their name followed
// by a carriage return, or talk by themselves each second.
type line struct {
	talking bool

	mu     sync.Mutex
	silent map[string]bool
	away   bool
	end    net.Conn // the devices' end, while open
	stop   chan struct{}
}

func (l *line) open(context.Context) (serial.Conn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.away {
		return nil, fmt.Errorf("port: /dev/ttyUSB0: %w", port.ErrAbsent)
	}
	ours, theirs := net.Pipe()
	l.end = theirs
	if l.talking {
		go l.talk(theirs)
	} else {
		go answer(theirs, func(request string) string {
			if l.isSilent(request) {
				return ""
			}
			return request + "=1.5\n"
		})
	}
	return ours, nil
}

func (l *line) talk(end net.Conn) {
	for {
		select {
		case <-time.After(time.Second):
		case <-l.stop:
			return
		}
		for _, name := range []string{"a", "b"} {
			if !l.isSilent(name) {
				if _, err := fmt.Fprintf(end, "%s=1.5\n", name); err != nil {
					return
				}
			}
		}
	}
}

func (l *line) isSilent(name string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.silent[name]
}

func (l *line) set(name string, silent bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.silent[name] = silent
}

func (l *line) plug(in bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.away = !in
	if !in && l.end != nil {
		l.end.Close()
	}
}

func TestConformance(t *testing.T) {
	for _, talking := range []bool{false, true} {
		name := map[bool]string{false: "asked", true: "talking"}[talking]
		t.Run(name, func(t *testing.T) {
			adapterstest.Run(t, true, func(t *testing.T) *adapterstest.Rig { return newRig(t, talking) })
		})
	}
}

func newRig(t *testing.T, talking bool) *adapterstest.Rig {
	l := &line{talking: talking, silent: map[string]bool{}, stop: make(chan struct{})}
	t.Cleanup(func() {
		close(l.stop)
		l.plug(false)
	})
	return &adapterstest.Rig{
		Devices:  []string{"a", "b"},
		Interval: time.Second,
		New: func(sink adapters.Sink, clock adapters.Clock) (adapterstest.Adapter, error) {
			o := serial.Options{
				Name: "line", Open: l.open, Frame: lines, Sink: sink, Clock: clock, Logger: slog.New(slog.DiscardHandler),
			}
			for _, name := range []string{"a", "b"} {
				d := device(name, "^"+name+"=(?P<x>.*)$")
				d.Timeout = 5 * time.Second
				if !talking {
					d = polled(name, time.Second, 200*time.Millisecond, name+"\r", "^"+name+"=(?P<x>.*)$")
				}
				o.Devices = append(o.Devices, d)
			}
			return serial.New(o)
		},
		Silence: func(name string) { l.set(name, true) },
		Restore: func(name string) { l.set(name, false) },
		Unplug:  func() { l.plug(false) },
		Plug:    func() { l.plug(true) },
	}
}
