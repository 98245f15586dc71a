package modbus

import (
	"errors"
	"os"
	"time"
)

// What may still be on the line from before must not be taken for the answer to what is asked next.
// Over TCP and UDP the transaction id tells; elsewhere the line is emptied, and waited for.

// quietTime is how long a line must be silent until nothing more is expected: USB adapters and
// serial servers hand on what they received every 16 ms and more.
const quietTime = 50 * time.Millisecond

// A debt is an answer that was given up, and may still come.
type debt struct {
	until    time.Time
	function byte
	size     int
}

// clear throws away what came since the last exchange.
func (l *link) clear() error {
	if l.framing == TCP {
		return nil // the transaction id tells what is old
	}
	l.have = 0
	if l.dirty {
		if err := l.drain(); err != nil {
			return err
		}
		l.dirty = false
	}
	if d, ok := l.line.(interface{ Discard() error }); ok {
		if err := d.Discard(); err != nil {
			return l.ioError("discard", err)
		}
		return nil
	}
	return l.flush()
}

// flush reads what waits in a connection, which cannot be discarded otherwise, for as long as an
// answer that was given up may turn up there.
func (l *link) flush() error {
	for !l.gaveUp.IsZero() && time.Since(l.gaveUp) < time.Minute {
		l.line.SetReadDeadline(time.Now().Add(time.Millisecond))
		if err := l.ctx.Err(); err != nil {
			return err
		}
		n, err := l.line.Read(l.buf[:])
		l.traffic.stray += uint64(n)
		if n == 0 {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				return l.ctx.Err()
			}
			return l.ioError("read", err)
		}
	}
	return nil
}

// drain reads until the line has been silent for a while: what is under way belongs to a request
// that was given up. A line that never falls silent is given a bounded time.
func (l *link) drain() error {
	quiet := max(l.gap(), quietTime)
	end := time.Now().Add(quiet + max(l.chars(256), time.Second))
	for time.Now().Before(end) {
		l.line.SetReadDeadline(time.Now().Add(quiet))
		if err := l.ctx.Err(); err != nil {
			return err
		}
		n, err := l.line.Read(l.buf[:])
		l.traffic.stray += uint64(n)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return l.ctx.Err()
		case err != nil:
			return l.ioError("read", err)
		}
	}
	return nil
}

// owe notes that the answer to a request was given up.
func (l *link) owe(req []byte) {
	if l.framing == TCP || l.framing == UDP {
		return // the transaction id tells what is old
	}
	if l.owed == nil {
		l.owed = map[byte]debt{}
	}
	l.gaveUp = time.Now()
	l.owed[l.unit] = debt{l.gaveUp.Add(l.timeout), l.function(req), l.longest(req)}
}

// outwait listens for an answer that a unit still owes, where it would look like the answer to the
// request that is about to be sent. Other units, and other requests, are not held up by it.
func (l *link) outwait(unit byte, req []byte) error {
	d, owes := l.owed[unit]
	if !owes {
		return nil
	}
	delete(l.owed, unit)
	if d.function != l.function(req) || d.size != l.longest(req) {
		return nil
	}
	l.line.SetReadDeadline(d.until)
	if err := l.ctx.Err(); err != nil {
		return err
	}
	n, err := l.line.Read(l.buf[:])
	l.traffic.stray += uint64(n)
	switch {
	case n > 0:
		l.traffic.late++
		return l.drain()
	case errors.Is(err, os.ErrDeadlineExceeded):
		return l.ctx.Err()
	}
	return l.ioError("read", err)
}
