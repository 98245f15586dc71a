package modbus_test

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"time"
)

// A wire is one end of a line in memory, as good as a socket or, with a time per character, as a
// serial line: bytes that are under way arrive one after the other. All waiting is on channels, so
// that it is at home in a bubble of synctest.
type wire struct {
	in, out  *lane
	read     time.Time // deadline
	mu       *sync.Mutex
	deadline chan struct{} // closed and replaced when the deadline changes
}

// A lane is one direction of a wire.
type lane struct {
	mu      sync.Mutex
	char    time.Duration
	bytes   []byte
	arrival []time.Time
	last    time.Time
	closed  bool
	change  chan struct{} // closed and replaced when something happens
	traffic func(at time.Time, b []byte)
}

// newWire returns both ends of a line on which a character takes as long.
func newWire(char time.Duration) (near, far *wire) {
	a := &lane{char: char, change: make(chan struct{})}
	b := &lane{char: char, change: make(chan struct{})}
	end := func(in, out *lane) *wire {
		return &wire{in: in, out: out, mu: &sync.Mutex{}, deadline: make(chan struct{})}
	}
	return end(a, b), end(b, a)
}

func (l *lane) changed() {
	close(l.change)
	l.change = make(chan struct{})
}

// take returns what has arrived, or when the next byte does.
func (l *lane) take(b []byte, now time.Time) (n int, next time.Time, change chan struct{}, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for n < len(b) && n < len(l.bytes) && !l.arrival[n].After(now) {
		b[n] = l.bytes[n]
		n++
	}
	l.bytes, l.arrival = l.bytes[n:], l.arrival[n:]
	switch {
	case n > 0:
	case len(l.bytes) > 0:
		next = l.arrival[0]
	case l.closed:
		err = io.EOF
	}
	return n, next, l.change, err
}

func (w *wire) Read(b []byte) (int, error) {
	for {
		w.mu.Lock()
		end, moved := w.read, w.deadline
		w.mu.Unlock()
		now := time.Now()
		if !end.IsZero() && !now.Before(end) {
			return 0, os.ErrDeadlineExceeded
		}
		n, next, change, err := w.in.take(b, now)
		if n > 0 || err != nil {
			return n, err
		}
		if next.IsZero() || !end.IsZero() && end.Before(next) {
			next = end
		}
		var alarm <-chan time.Time
		if !next.IsZero() {
			t := time.NewTimer(time.Until(next))
			defer t.Stop()
			alarm = t.C
		}
		select {
		case <-change:
		case <-moved:
		case <-alarm:
		}
	}
}

func (w *wire) Write(b []byte) (int, error) {
	l := w.out
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return 0, errors.New("closed")
	}
	now := time.Now()
	if l.last.Before(now) {
		l.last = now
	}
	for range b {
		l.last = l.last.Add(l.char)
		l.arrival = append(l.arrival, l.last)
	}
	l.bytes = append(l.bytes, b...)
	if l.traffic != nil {
		l.traffic(now, b)
	}
	l.changed()
	return len(b), nil
}

func (w *wire) Close() error {
	for _, l := range []*lane{w.in, w.out} {
		l.mu.Lock()
		if !l.closed {
			l.closed = true
			l.changed()
		}
		l.mu.Unlock()
	}
	return nil
}

func (w *wire) SetReadDeadline(t time.Time) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.read = t
	close(w.deadline)
	w.deadline = make(chan struct{})
	return nil
}

func (w *wire) SetWriteDeadline(time.Time) error { return nil }

// Discard throws away what has arrived, as a serial port's driver does.
func (w *wire) Discard() error {
	var b [64]byte
	for {
		n, _, _, err := w.in.take(b[:], time.Now())
		if n == 0 || err != nil {
			return nil
		}
	}
}

// What net.Conn has beyond a Line.
func (w *wire) SetDeadline(t time.Time) error { return w.SetReadDeadline(t) }
func (w *wire) LocalAddr() net.Addr           { return nil }
func (w *wire) RemoteAddr() net.Addr          { return nil }

// serveWires returns what opens new wires to serve, and waits for the servers when the test ends.
func serveWires(t testing.TB, char time.Duration, serve func(io.ReadWriter) error) func() *wire {
	var wg sync.WaitGroup
	t.Cleanup(wg.Wait)
	return func() *wire {
		near, far := newWire(char)
		wg.Go(func() {
			serve(far)
			far.Close()
		})
		return near
	}
}
