package demo

import (
	"context"
	"io"
	"net"
	"sync"
)

// A line is the network between the gateway and its upstream broker: it forwards TCP connections,
// and can be cut and mended. While it is cut, connections are gone and new ones are refused.
type line struct {
	addr string // where the gateway connects
	to   string // where the broker is

	mu       sync.Mutex
	listener net.Listener // nil while the line is cut
	conns    map[net.Conn]bool
	active   sync.WaitGroup
}

// newLine returns a line that is whole.
func newLine(addr, to string) (*line, error) {
	l := &line{addr: addr, to: to, conns: map[net.Conn]bool{}}
	return l, l.mend()
}

// mend makes the line whole.
func (l *line) mend() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.listener != nil {
		return nil
	}
	listener, err := net.Listen("tcp", l.addr)
	if err != nil {
		return err
	}
	l.listener, l.addr = listener, listener.Addr().String()
	l.active.Go(func() {
		for {
			near, err := listener.Accept()
			if err != nil {
				return // cut
			}
			l.active.Go(func() { l.forward(near) })
		}
	})
	return nil
}

// cut takes the line away, and all connections with it.
func (l *line) cut() {
	l.mu.Lock()
	if l.listener != nil {
		l.listener.Close()
		l.listener = nil
	}
	for c := range l.conns {
		c.Close()
	}
	l.mu.Unlock()
	l.active.Wait()
}

func (l *line) whole() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.listener != nil
}

func (l *line) forward(near net.Conn) {
	defer near.Close()
	far, err := (&net.Dialer{}).DialContext(context.Background(), "tcp", l.to)
	if err != nil {
		return
	}
	defer far.Close()
	l.mu.Lock()
	if l.listener == nil {
		l.mu.Unlock()
		return
	}
	l.conns[near], l.conns[far] = true, true
	l.mu.Unlock()
	var up sync.WaitGroup
	up.Go(func() {
		_, _ = io.Copy(far, near) // either end's loss ends both
		far.Close()
		near.Close()
	})
	_, _ = io.Copy(near, far)
	far.Close()
	near.Close()
	up.Wait()
	l.mu.Lock()
	delete(l.conns, near)
	delete(l.conns, far)
	l.mu.Unlock()
}
