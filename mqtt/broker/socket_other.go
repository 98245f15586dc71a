//go:build !unix

package broker

import (
	"net"
	"syscall"
)

// socketOf finds no socket: here none can be looked at or written to without waiting.
func socketOf(net.Conn) (socket syscall.RawConn, bare bool) { return nil, false }

func unread(syscall.RawConn) bool { return false }

// A rawWriter needs sockets that can be written to without waiting; here a goroutine writes.
type rawWriter struct{}

func newRawWriter(syscall.RawConn) *rawWriter { return nil }

func (*rawWriter) write([]byte) (int, error) { return 0, net.ErrClosed }
