package modbus

import (
	"encoding/binary"
	"errors"
	"os"
	"slices"
	"time"
)

// What may still be on the line from before must not be taken for the answer to what is asked next.
// Over TCP and UDP the transaction id tells; elsewhere the line is emptied, and a device that owes an
// answer is asked something else first.

// quietTime is how long a line must be silent until nothing more is expected: USB adapters and
// serial servers hand on what they received every 16 ms and more.
const quietTime = 50 * time.Millisecond

// A debt is an answer that was given up, and may still come.
type debt struct {
	since    time.Time
	function byte
	size     int // of the PDU, as answerLen has it
}

// owedFor is how late an answer may come: longer than any device takes, and as long as a radio link
// between serial servers may hold back what it is to carry.
const owedFor = time.Minute

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
	if l.gaveUp.IsZero() || time.Since(l.gaveUp) > owedFor {
		return nil
	}
	for end := time.Now().Add(time.Second); time.Now().Before(end); {
		l.line.SetReadDeadline(time.Now().Add(time.Millisecond))
		if err := l.ctx.Err(); err != nil {
			return err
		}
		n, err := l.line.Read(l.buf[:])
		l.traffic.Stray += uint64(n)
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
		l.traffic.Stray += uint64(n)
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
		l.owed = map[byte][]debt{}
	}
	l.gaveUp = time.Now()
	pdu := l.pduOf(req)
	d := debt{l.gaveUp, pdu[0], answerLen(pdu)}
	l.owed[l.unit] = append(l.still(l.unit, d), d)
}

// still returns what a unit owes and may yet send, without debts of the same look as d.
func (l *link) still(unit byte, d debt) []debt {
	return slices.DeleteFunc(l.owed[unit], func(o debt) bool { return o.alike(d) || time.Since(o.since) > owedFor })
}

// alike tells whether two answers look the same until their data.
func (d debt) alike(o debt) bool { return d.function == o.function && d.size == o.size }

// owes tells whether a unit may yet send an answer that looks like this.
func (l *link) owes(unit, function byte, size int) bool {
	return slices.ContainsFunc(l.owed[unit], debt{function: function, size: size}.alike)
}

// paid notes that an answer came. A device answers in order, so nothing from before is under way any
// more; but an exception may be the one to an earlier request of the same function.
func (l *link) paid(req, resp []byte) {
	if len(l.owed[l.unit]) == 0 {
		return
	}
	function := l.pduOf(req)[0]
	if l.pduOf(resp)[0] != function && l.owesOf(l.unit, function) {
		l.owe(req)
		return
	}
	delete(l.owed, l.unit)
}

// settle makes sure that an answer which is still owed is not taken for the one to req. Where it could
// be, a request goes ahead whose answer looks different; once that has come all is well. It costs an
// exchange after a timeout, and no waiting.
func (l *link) settle(req []byte) error {
	unit := l.unitOf(req)
	if len(l.owed[unit]) == 0 {
		return nil
	}
	l.owed[unit] = l.still(unit, debt{})
	pdu := l.pduOf(req)
	if pdu[0] < 1 || pdu[0] > 4 || len(pdu) != 5 {
		return nil // what answers a write says what was written
	}
	// Some devices do not answer functions that they do not know. So the same function comes first, and
	// only where it is answered by an exception, which might be an old one, another.
	for _, probe := range [...]func(byte, []byte) []byte{l.otherCount, l.otherFunction} {
		if !l.owes(unit, pdu[0], answerLen(pdu)) {
			return nil
		}
		if p := probe(unit, pdu); p != nil {
			if _, err := l.carry(l.frame(append([]byte{unit}, p...))); err != nil {
				return err
			}
		}
	}
	if l.owes(unit, pdu[0], answerLen(pdu)) {
		return ErrTimeout
	}
	return nil
}

// otherCount returns a read request that differs in how many elements it asks for: as near as possible
// to what is wanted, rather less than more. nil: there is none whose answer looks like none that is owed.
func (l *link) otherCount(unit byte, pdu []byte) []byte {
	at, count := int(binary.BigEndian.Uint16(pdu[1:])), int(binary.BigEndian.Uint16(pdu[3:]))
	step, most := 1, Holding.limit()
	if pdu[0] <= 2 {
		step, most = 8, Coil.limit() // the answer counts bytes
	}
	most = min(most, 1<<16-at)
	probe := slices.Clone(pdu)
	for n := step; n < most; n += step {
		// Two registers less or more rather than one: some devices do not give half a number.
		for _, c := range [...]int{count - 2*n, count + 2*n, count - n, count + n} {
			if c < 1 || c > most {
				continue
			}
			binary.BigEndian.PutUint16(probe[3:], uint16(c))
			if !l.owes(unit, pdu[0], answerLen(probe)) {
				return probe
			}
		}
	}
	return nil
}

// otherFunction returns a read request of a function of which nothing is owed, nil if there is none.
func (l *link) otherFunction(unit byte, pdu []byte) []byte {
	for _, k := range kinds {
		if !l.owesOf(unit, k.read) {
			return []byte{k.read, pdu[1], pdu[2], 0, 1}
		}
	}
	return nil
}

// owesOf tells whether a unit may yet answer a request of a function.
func (l *link) owesOf(unit, function byte) bool {
	return slices.ContainsFunc(l.owed[unit], func(d debt) bool { return d.function == function })
}
