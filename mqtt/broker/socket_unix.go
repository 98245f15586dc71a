//go:build unix

package broker

import (
	"crypto/tls"
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

// socketOf returns the socket that a connection is, bare, or that its TLS or WebSocket stands on; nil where
// there is none.
func socketOf(nc net.Conn) (socket syscall.RawConn, bare bool) {
	switch nc := nc.(type) {
	case *net.TCPConn, *net.UnixConn:
		rc, err := nc.(syscall.Conn).SyscallConn()
		if err != nil {
			return nil, false
		}
		return rc, true
	case *tls.Conn:
		socket, _ = socketOf(nc.NetConn())
	case *wsConn:
		socket, _ = socketOf(nc.below)
	}
	return socket, false
}

// unread tells whether a read would bring something at once: bytes, or the end of the stream.
func unread(socket syscall.RawConn) bool {
	var b [1]byte
	var err error
	if ctl := socket.Control(func(fd uintptr) {
		for {
			if _, _, err = syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK); err != syscall.EINTR {
				return
			}
		}
	}); ctl != nil {
		return false
	}
	return err == nil
}

func newRawWriter(rc syscall.RawConn) *rawWriter {
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
