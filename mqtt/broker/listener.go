package broker

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"time"

	"gateway/mqtt/packet"
)

// open starts to listen.
func (b *Broker) open(ctx context.Context, l Listener) (net.Listener, error) {
	ln := l.Socket
	if ln == nil {
		var err error
		if ln, err = bind(ctx, l); err != nil {
			return nil, err
		}
	}
	switch {
	case l.WebSocket:
		return listenWebSocket(ln, l.TLS, b.opt.Limits.Pending, b.opt.Limits.ConnectTimeout, b.turnedAway), nil
	case l.TLS != nil:
		return tls.NewListener(ln, l.TLS), nil
	}
	return ln, nil
}

// bind opens the socket of a listener.
func bind(ctx context.Context, l Listener) (net.Listener, error) {
	if l.network() == "unix" {
		if err := removeStale(l.Address); err != nil {
			return nil, err
		}
	}
	// Dead peers are the keep alive's affair; TCP's probes would only wake idle machines.
	lc := net.ListenConfig{KeepAlive: -1}
	ln, err := lc.Listen(ctx, l.network(), l.Address)
	if err != nil {
		return nil, fmt.Errorf("broker: listening on %s: %w", l.Address, err)
	}
	return ln, nil
}

const (
	minListenPause = time.Second
	maxListenPause = 10 * time.Second
)

// listen serves one listener of the Options, and goes on trying while its address is taken.
func (b *Broker) listen(ctx context.Context, i int, tried func()) {
	l := b.opt.Listen[i]
	pause := minListenPause
	last := ""
	for ctx.Err() == nil {
		ln, err := b.open(ctx, l)
		if err == nil {
			pause, last = minListenPause, ""
			b.log.Info("listening", "address", ln.Addr(), "tls", l.TLS != nil, "websocket", l.WebSocket)
			b.setAddr(i, ln.Addr(), nil)
			tried()
			err = b.Serve(ln)
			b.setAddr(i, nil, err)
			if errors.Is(err, ErrClosed) {
				return
			}
		}
		if ctx.Err() != nil {
			return
		}
		if err.Error() != last {
			last = err.Error()
			args := []any{"err", err, "retry_in", pause}
			if holder := b.holder(l); holder != "" {
				args = append(args, "held_by", holder)
				err = fmt.Errorf("%w (held by %s)", err, holder)
			}
			b.log.Error("cannot listen; going on without", args...)
			b.setAddr(i, nil, err)
		}
		tried()
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		pause = min(2*pause, maxListenPause)
	}
}

// holder says who has a port that is taken.
func (b *Broker) holder(l Listener) string {
	_, port, splitErr := net.SplitHostPort(l.Address)
	n, convErr := strconv.Atoi(port)
	if b.opt.PortHolder == nil || splitErr != nil || convErr != nil || l.network() == "unix" {
		return ""
	}
	return b.opt.PortHolder(n)
}

func (b *Broker) setAddr(i int, a net.Addr, fault error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.addrs[i], b.faults[i] = a, fault
}

// Faults returns why addresses of Options.Listen are not listened on at the moment, nil where they are.
func (b *Broker) Faults() []error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.faults)
}

// Addrs returns the addresses of Options.Listen as they are listened on, nil where that is not possible at the
// moment.
func (b *Broker) Addrs() []net.Addr {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.addrs)
}

// removeStale removes the socket that a broker left behind that was killed; one that answers stays.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	if err != nil || info.Mode().Type() != os.ModeSocket {
		return nil // listening will say what is wrong, if anything is
	}
	if nc, err := net.DialTimeout("unix", path, time.Second); err == nil {
		nc.Close()
		return fmt.Errorf("broker: listening on %s: another process does already", path)
	}
	return os.Remove(path)
}

// Serve accepts connections from ln until the broker stops, which closes ln; then it returns ErrClosed.
func (b *Broker) Serve(ln net.Listener) error {
	b.mu.Lock()
	if b.closed.Load() {
		b.mu.Unlock()
		ln.Close()
		return ErrClosed
	}
	b.listeners[ln] = struct{}{}
	b.mu.Unlock()
	defer func() {
		b.mu.Lock()
		delete(b.listeners, ln)
		b.mu.Unlock()
		ln.Close()
	}()
	for pause := 5 * time.Millisecond; ; {
		nc, err := ln.Accept()
		switch {
		case b.closed.Load():
			if err == nil {
				nc.Close()
			}
			return ErrClosed
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("broker: accepting on %s: %w", ln.Addr(), err)
		case err != nil:
			// Out of descriptors, mostly: it passes.
			b.refused("cannot accept a connection", "address", ln.Addr(), "err", err)
			select {
			case <-b.ctx.Done():
			case <-time.After(pause):
			}
			pause = min(2*pause, time.Second)
			continue
		}
		pause = 5 * time.Millisecond
		b.awaitRoom()
		b.ServeConn(nc)
	}
}

// roomPause is how long a connection beyond the limit waits before it is turned away.
const roomPause = 250 * time.Millisecond

// awaitRoom waits, at the limit, for a connection to end, or to get past its CONNECT: a client that left and came back at once is not to
// be turned away for the sake of its own former connection. Who waits behind it would be turned away, too.
func (b *Broker) awaitRoom() {
	if b.hasRoom() {
		return
	}
	late := time.NewTimer(roomPause)
	defer late.Stop()
	for !b.hasRoom() {
		select {
		case <-b.room:
		case <-late.C:
			return
		case <-b.ctx.Done():
			return
		}
	}
}

// roomMade wakes one who waits for room.
func (b *Broker) roomMade() {
	select {
	case b.room <- struct{}{}:
	default:
	}
}

func (b *Broker) hasRoom() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.hasRoomLocked()
}

// hasRoomLocked tells whether another connection is within the limits. It needs b.mu.
func (b *Broker) hasRoomLocked() bool {
	l := &b.opt.Limits
	return len(b.conns) < l.Connections && b.pending.Load() < int64(l.Pending)
}

func (b *Broker) turnedAway(nc net.Conn) {
	b.stats.turnedAway.Add(1)
	b.refused("too many connections", "address", nc.RemoteAddr())
}

// ServeConn serves one connection on a goroutine of its own and returns at once. What is no socket, such
// as one end of a net.Pipe, counts as this machine's own.
func (b *Broker) ServeConn(nc net.Conn) {
	c := b.newConn(nc)
	b.mu.Lock()
	if b.closed.Load() || !b.hasRoomLocked() {
		b.mu.Unlock()
		b.turnedAway(nc)
		nc.Close()
		return
	}
	b.conns[c] = struct{}{} // from here on shutdown may stop it
	b.pending.Add(1)
	b.tasks.Add(1)
	b.mu.Unlock()
	go func() {
		defer b.tasks.Done()
		c.serve()
		b.mu.Lock()
		delete(b.conns, c)
		b.mu.Unlock()
		b.roomMade()
	}()
}

func (b *Broker) newConn(nc net.Conn) *conn {
	c := &conn{b: b, client: &Client{Addr: nc.RemoteAddr()}, idle: make(chan struct{})}
	c.nc = nc
	c.quiet.L = &c.mu
	var bare bool
	if c.socket, bare = socketOf(nc); bare {
		c.raw = newRawWriter(c.socket)
	}
	if t, ok := nc.(interface{ SetNoDelay(bool) error }); ok {
		t.SetNoDelay(true) // each write is a batch already
	}
	c.reader = packet.NewReader(&countingReader{nc: nc, n: &b.stats.bytesReceived}, 0, &b.readers)
	return c
}
