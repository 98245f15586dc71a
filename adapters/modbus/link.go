package modbus

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"gateway/adapters"
)

// A Line is an open serial port or connection. Read returns at least one byte, or fails with
// os.ErrDeadlineExceeded, or says that the line is gone; Close and the deadlines end a Read that
// waits. *port.Port and net.Conn are Lines.
type Line interface {
	io.ReadWriteCloser
	SetReadDeadline(time.Time) error
	SetWriteDeadline(time.Time) error
}

// Pauses are silences that a bus wants beyond what the specification does.
type Pauses struct {
	Connect time.Duration // after opening
	Request time.Duration // between an answer and the next request
	Unit    time.Duration // the same where the next request goes to another unit
}

// A linkConfig is what a link needs to know.
type linkConfig struct {
	framing  Framing
	pauses   Pauses
	open     func(context.Context) (Line, error)
	baud     int // 0: the speed of the line is not known or does not matter
	charBits int
	rts      *RTS
	beat     func() // called at least once between two things that take time; nil: nobody listens
}

// A link carries one exchange at a time over a line that it opens when it is needed. It is
// goburrow's Transporter; since that knows neither context nor timeout, the caller sets ctx and
// timeout before each call. It is used by one goroutine.
type link struct {
	linkConfig
	ctx     context.Context
	timeout time.Duration // from the end of the request to the first byte of the answer

	line    Line
	hooked  context.Context // whose end ends a read that waits
	unhook  func() bool
	opened  time.Time
	free    time.Time // when the line may be used again
	unit    byte      // of the last exchange
	reused  bool      // an exchange has succeeded on this line
	dirty   bool      // something may still come that nobody asked for
	mute    int       // exchanges in a row that nobody answered
	echo    bool      // the line gives back what is sent (RS-485 adapters that listen to themselves)
	txid    uint16
	due     time.Time       // when the answer must be complete
	buf     [600]byte       // ASCII frames have up to 513 characters
	have    int             // bytes in buf that belong to the next frame
	owed    map[byte][]debt // by unit: the answers to requests that were given up
	gaveUp  time.Time       // when that was last
	traffic adapters.Traffic
}

// muteLimit is how many exchanges in a row may go unanswered until a connection is taken for dead.
const muteLimit = 3

func (l *link) connect() error {
	if l.line != nil {
		return nil
	}
	if err := l.ctx.Err(); err != nil {
		return err
	}
	line, err := l.open(l.ctx)
	if err != nil {
		if cause := l.ctx.Err(); cause != nil {
			return cause
		}
		return fmt.Errorf("%w: %w", ErrAbsent, err)
	}
	l.line, l.hooked = line, nil
	l.opened = time.Now()
	l.traffic.Opened++
	l.free = l.opened.Add(l.pauses.Connect)
	l.have, l.reused, l.dirty, l.mute, l.echo = 0, false, false, 0, false
	return nil
}

// hook lets the end of the caller's context end a read that waits. Who reads looks at the context
// after it has set a deadline.
func (l *link) hook() {
	if l.hooked == l.ctx {
		return
	}
	if l.hooked != nil {
		l.unhook()
	}
	line := l.line
	l.hooked = l.ctx
	l.unhook = context.AfterFunc(l.ctx, func() {
		past := time.Unix(1, 0)
		line.SetReadDeadline(past)
		line.SetWriteDeadline(past)
	})
}

// close closes the line; the next exchange opens it again.
func (l *link) close() error {
	if l.line == nil {
		return nil
	}
	if l.hooked != nil {
		l.unhook()
		l.hooked = nil
	}
	err := l.line.Close()
	l.line = nil
	if err != nil {
		return fmt.Errorf("modbus: close: %w", err)
	}
	return nil
}

// Send carries out one exchange: goburrow's Transporter. The answer is valid until the next call. Its
// frame is whole, intact, from the unit that was asked, of the function that was asked or an
// exception to it, and of the length that the request calls for.
func (l *link) Send(req []byte) ([]byte, error) {
	resp, err := l.exchange(req)
	if err != nil && errors.Is(err, ErrLost) && l.ctx.Err() == nil && l.wasIdle() && readOnly(l.pduOf(req)) {
		// The other side closes connections that it finds idle; that is no reason to lose a reading.
		resp, err = l.exchange(req)
	}
	return resp, err
}

// wasIdle tells whether the line that was just lost had carried something before.
func (l *link) wasIdle() bool {
	was := l.reused
	l.reused = false
	return was
}

// exchange carries out an exchange, and before it what makes its answer unmistakable.
func (l *link) exchange(req []byte) ([]byte, error) {
	if err := l.settle(req); err != nil {
		return nil, err
	}
	return l.carry(req)
}

// carry sends a request and receives its answer.
func (l *link) carry(req []byte) ([]byte, error) {
	if err := l.transmit(req); err != nil {
		return nil, err
	}
	if l.broadcast(l.unit) {
		// Nobody answers a broadcast [SL 2.1]. The devices are given the time to obey; goburrow's
		// Client is given the answer that it expects of a write.
		l.free = l.free.Add(turnaround)
		return l.acknowledged(req), nil
	}
	var resp []byte
	var err error
	switch l.framing {
	case TCP, UDP:
		resp, err = l.receiveMBAP(req)
	case ASCII:
		resp, err = l.receiveASCII(req)
	default:
		resp, err = l.receiveRTU(req)
	}
	l.free = time.Now().Add(max(l.gap(), l.pauses.Request))
	if err == nil {
		l.reused, l.mute = true, 0
		l.paid(req, resp)
		return resp, nil
	}
	l.owe(req)
	if errors.Is(err, ErrTimeout) {
		l.traffic.Unanswered++
	}
	// What came during a timeout instead of an answer is damage, too, but for another unit's good answer.
	if errors.Is(err, ErrChecksum) || errors.Is(err, ErrProtocol) && !errors.Is(err, ErrTimeout) {
		l.traffic.Damaged++
	}
	switch {
	case errors.Is(err, ErrLost):
		l.close()
	case errors.Is(err, ErrTimeout):
		l.dirty = l.have > 0
		l.mute++
		if !l.framing.serial() && l.mute >= muteLimit || l.framing == TCP && l.dirty {
			// Nobody behind this connection answers: it may be half open. Or a frame broke off, and
			// what comes next would be taken for the rest of it.
			l.close()
		}
	case errors.Is(err, ErrProtocol) && l.framing == TCP:
		l.close() // where one frame ends and the next begins is not known any more
	default:
		l.dirty = true
	}
	return resp, err
}

// alive says that the loop goes on, however long a device takes.
func (l *link) alive() {
	if l.beat != nil {
		l.beat()
	}
}

// transmit sends a request once the line is free, and sets the deadline for its answer.
func (l *link) transmit(req []byte) error {
	l.alive()
	if err := l.connect(); err != nil {
		return err
	}
	l.hook()
	l.alive()
	unit := l.unitOf(req)
	free := l.free
	if l.unit != unit && l.traffic.Exchanges > 0 {
		free = free.Add(max(0, l.pauses.Unit-max(l.gap(), l.pauses.Request)))
	}
	if err := sleep(l.ctx, time.Until(free)); err != nil {
		return err
	}
	l.alive()
	if err := l.clear(); err != nil {
		return err
	}
	l.unit = unit
	l.traffic.Exchanges++
	l.traffic.Out += uint64(len(req))
	if l.framing == TCP || l.framing == UDP {
		// The transaction id is the connection's, not the device's: several devices share it.
		l.txid++
		req[0], req[1] = byte(l.txid>>8), byte(l.txid)
	}
	out := l.chars(len(req))
	now := time.Now()
	l.line.SetWriteDeadline(now.Add(l.timeout + 2*out))
	l.due = now.Add(out + l.timeout + l.chars(l.longest(req)))
	l.line.SetReadDeadline(l.due)
	if err := l.ctx.Err(); err != nil {
		return err
	}
	if err := l.send(req, out); err != nil {
		return err
	}
	l.free = time.Now().Add(out + l.gap())
	return nil
}

// send writes a request, with the transceiver turned around where that is ours to do.
func (l *link) send(req []byte, out time.Duration) error {
	if l.rts == nil {
		if _, err := l.line.Write(req); err != nil {
			return l.ioError("write", err)
		}
		return nil
	}
	line, ok := l.line.(interface {
		SetRTS(bool) error
		Drain() error
	})
	if !ok {
		return fmt.Errorf("%w: the line has no RTS", ErrAbsent)
	}
	if err := line.SetRTS(!l.rts.Invert); err != nil {
		return l.ioError("rts", err)
	}
	if err := sleep(l.ctx, l.rts.Before); err != nil {
		return err
	}
	begin := time.Now()
	if _, err := l.line.Write(req); err != nil {
		return l.ioError("write", err)
	}
	if err := line.Drain(); err != nil {
		return l.ioError("drain", err)
	}
	// Adapters that buffer say that all has left before it has.
	if err := sleep(l.ctx, max(0, out-time.Since(begin))+l.rts.After); err != nil {
		return err
	}
	if err := line.SetRTS(l.rts.Invert); err != nil {
		return l.ioError("rts", err)
	}
	return nil
}

// fill reads more of the answer into what is left of in, a part of buf.
func (l *link) fill(in []byte) error {
	if l.have == len(in) {
		return protocolError("more than %d bytes without an answer among them", len(in))
	}
	n, err := l.line.Read(in[l.have:])
	l.alive()
	l.have += n
	l.traffic.In += uint64(n)
	if n == 0 && err != nil {
		return l.ioError("read", err)
	}
	return nil
}

// hasten brings the deadline near: as much as was asked for is here, and it is damaged, so only what a
// slow adapter still holds back is waited for.
func (l *link) hasten() error {
	if soon := time.Now().Add(max(l.gap(), quietTime)); soon.Before(l.due) {
		l.line.SetReadDeadline(soon)
	}
	return l.ctx.Err()
}

// ioError tells a deadline from a cancellation and from the loss of the line.
func (l *link) ioError(what string, err error) error {
	if cause := l.ctx.Err(); cause != nil {
		return cause
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return ErrTimeout
	}
	l.close()
	return fmt.Errorf("%w: %s: %w", ErrLost, what, err)
}

func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
