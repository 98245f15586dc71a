//go:build unix

package broker

import (
	"net"
	"syscall"
)

// A rawWriter writes to a socket what fits without waiting.
type rawWriter struct {
	conn syscall.RawConn
	try  func(fd uintptr) bool
	b    []byte
	n    int
	err  error
}

// newRawWriter returns nil where nc is not a socket itself.
func newRawWriter(nc net.Conn) *rawWriter {
	switch nc.(type) {
	case *net.TCPConn, *net.UnixConn:
	default:
		return nil
	}
	rc, err := nc.(syscall.Conn).SyscallConn()
	if err != nil {
		return nil
	}
	w := &rawWriter{conn: rc}
	w.try = func(fd uintptr) bool {
		for {
			w.n, w.err = syscall.Write(int(fd), w.b)
			if w.err != syscall.EINTR {
				return true
			}
		}
	}
	return w
}

// write writes what fits. Only one goroutine may be in it.
func (w *rawWriter) write(b []byte) (int, error) {
	w.b, w.n, w.err = b, 0, nil
	err := w.conn.Write(w.try)
	n := max(w.n, 0)
	w.b = nil
	switch {
	case err != nil:
		return n, err
	case w.err == syscall.EAGAIN:
		return n, nil
	}
	return n, w.err
}
