package demo

import (
	"io"
	"net"
	"sync"
)

// A line is the network between the gateway and its upstream broker: it forwards TCP connections, and can
// be cut and mended. While it is cut, the connections are gone and new ones end at once. Its port it keeps
// for as long as it lives: somebody else might take it meanwhile.
type line struct {
	listener net.Listener // where the gateway connects
	to       string       // where the broker is

	mu        sync.Mutex
	broken    bool
	conns     map[net.Conn]bool
	forwards  sync.WaitGroup // begun with mu held and the line whole
	accepting sync.WaitGroup
}

// newLine returns a line that is whole, from a listener that is its own from now on.
func newLine(listener net.Listener, to string) *line {
	l := &line{listener: listener, to: to, conns: map[net.Conn]bool{}}
	l.accepting.Go(l.accept)
	return l
}

func (l *line) accept() {
	for {
		near, err := l.listener.Accept()
		if err != nil {
			return // closed
		}
		if !l.take(near, func() { l.forward(near) }) {
			near.Close()
		}
	}
}

// take makes the connection one of those that a cut ends, and carries it on. It returns false where the line is cut.
func (l *line) take(c net.Conn, on func()) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.broken {
		return false
	}
	l.conns[c] = true
	l.forwards.Go(func() {
		on()
		c.Close()
		l.mu.Lock()
		delete(l.conns, c)
		l.mu.Unlock()
	})
	return true
}

// forward passes on what comes, both ways, until either end is lost.
func (l *line) forward(near net.Conn) {
	far, err := net.Dial("tcp", l.to)
	if err != nil {
		return
	}
	back := make(chan struct{})
	if !l.take(far, func() {
		defer close(back)
		_, _ = io.Copy(near, far)
		near.Close()
	}) {
		far.Close()
		return
	}
	_, _ = io.Copy(far, near)
	far.Close()
	<-back
}

// cut takes the line away, and all connections with it.
func (l *line) cut() {
	l.mu.Lock()
	l.broken = true
	for c := range l.conns {
		c.Close()
	}
	l.mu.Unlock()
	l.forwards.Wait()
}

// mend makes the line whole.
func (l *line) mend() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.broken = false
}

func (l *line) whole() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.broken
}

// used tells whether the line carries a connection: after a cut a new one.
func (l *line) used() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.conns) > 0
}

// close cuts the line for good and lets go of its port.
func (l *line) close() {
	l.listener.Close()
	l.cut()
	l.accepting.Wait()
}
