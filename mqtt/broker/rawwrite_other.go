//go:build !unix

package broker

import "net"

// A rawWriter needs sockets that can be written to without waiting; here a goroutine writes.
type rawWriter struct{}

func newRawWriter(net.Conn) *rawWriter { return nil }

func (*rawWriter) write([]byte) (int, error) { return 0, net.ErrClosed }
