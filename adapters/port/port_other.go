//go:build !linux

package port

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"sync/atomic"
	"time"

	"go.bug.st/serial"
)

// A system is what is added where there is no second descriptor: a read deadline made of short
// timeouts, since the library's Close must not overtake a Read.
type system struct {
	deadline atomic.Int64 // Unix nanoseconds; 0 is none
	closing  atomic.Bool
	reading  chan struct{} // holds a token while nobody reads
}

// step is how long a Read stays in the library at most.
const step = 50 * time.Millisecond

func (s *system) before(string) error { return nil }
func (s *system) after() error        { return nil }

func (s *system) opened(lib serial.Port) error {
	s.reading = make(chan struct{}, 1)
	s.reading <- struct{}{}
	return lib.SetReadTimeout(step)
}

func (s *system) close(lib serial.Port) error {
	if s.closing.Swap(true) {
		return nil
	}
	<-s.reading // the reader is back, and will not go again
	return lib.Close()
}

func (s *system) read(lib serial.Port, b []byte) (int, error) {
	if s.closing.Load() {
		return 0, os.ErrClosed
	}
	select {
	case <-s.reading:
	default:
		return 0, errors.New("port: two goroutines read")
	}
	defer func() { s.reading <- struct{}{} }()
	for !s.closing.Load() {
		timeout := step
		if d := s.deadline.Load(); d != 0 {
			left := time.Until(time.Unix(0, d))
			if left <= 0 {
				return 0, os.ErrDeadlineExceeded
			}
			timeout = min(timeout, left)
		}
		if err := lib.SetReadTimeout(timeout); err != nil {
			return 0, err
		}
		if n, err := lib.Read(b); n != 0 || err != nil {
			if err != nil {
				err = fmt.Errorf("port: %w", explain("", err))
			}
			return n, err
		}
	}
	return 0, os.ErrClosed
}

func (s *system) write(lib serial.Port, b []byte) (n int, err error) {
	for n < len(b) && err == nil {
		if s.closing.Load() {
			return n, os.ErrClosed
		}
		var k int
		k, err = lib.Write(b[n:])
		n += k
	}
	if err != nil {
		err = fmt.Errorf("port: %w", explain("", err))
	}
	return n, err
}

func (s *system) setReadDeadline(t time.Time) error {
	if t.IsZero() {
		s.deadline.Store(0)
	} else {
		s.deadline.Store(t.UnixNano())
	}
	return nil
}

func (s *system) setWriteDeadline(time.Time) error { return nil }

func (s *system) setFlow(flow Flow) error {
	if flow == "" || flow == FlowNone {
		return nil
	}
	return fmt.Errorf("flow control %s: %w on %s", flow, ErrUnsupported, runtime.GOOS)
}

func (s *system) setRS485(r *RS485) error {
	if r == nil {
		return nil
	}
	return fmt.Errorf("rs485: %w on %s", ErrUnsupported, runtime.GOOS)
}

func (s *system) verify(*serial.Mode) error { return nil }

func (s *system) counts() (Counts, error) {
	return Counts{}, fmt.Errorf("%w on %s", ErrUnsupported, runtime.GOOS)
}

func explainErrno(_ string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return ErrAbsent
	case errors.Is(err, fs.ErrPermission):
		return permission("")
	}
	return err
}

func permission(string) error {
	return fmt.Errorf("%w: the gateway's user may not open it", ErrPermission)
}

func holders(string) string { return "another program has it" }
