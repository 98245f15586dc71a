package modbus

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"testing"
	"time"
)

// played is a line on which given bytes come, in pieces, and then nothing more.
type played struct {
	in    []byte
	piece int
}

func (p *played) Read(b []byte) (int, error) {
	if len(p.in) == 0 {
		return 0, os.ErrDeadlineExceeded
	}
	n := copy(b, p.in[:min(len(p.in), max(1, p.piece))])
	p.in = p.in[n:]
	return n, nil
}
func (p *played) Write(b []byte) (int, error)      { return len(b), nil }
func (p *played) Close() error                     { return nil }
func (p *played) SetReadDeadline(time.Time) error  { return nil }
func (p *played) SetWriteDeadline(time.Time) error { return nil }

// receiving returns a link that is about to receive what is played.
func receiving(f Framing, in []byte, piece int) *link {
	l := &link{ctx: context.Background(), timeout: time.Second}
	l.framing = f
	l.line = &played{in, piece}
	return l
}

// request returns a request as a framing has it.
func request(f Framing, unit byte, pdu []byte) []byte {
	switch f {
	case TCP:
		return append([]byte{0, 9, 0, 0, 0, byte(len(pdu) + 1), unit}, pdu...)
	case ASCII:
		b := append([]byte{unit}, pdu...)
		return fmt.Appendf(nil, ":%X%02X\r\n", b, -lrc(b))
	}
	b := append([]byte{unit}, pdu...)
	return binary.LittleEndian.AppendUint16(b, crc16(b))
}

func (l *link) receive(req []byte) ([]byte, error) {
	switch l.framing {
	case TCP:
		return l.receiveMBAP(req)
	case ASCII:
		return l.receiveASCII(req)
	}
	return l.receiveRTU(req)
}

// Whatever comes over a line: nothing panics, and what is taken for the answer is one.
func FuzzReceive(f *testing.F) {
	read := []byte{3, 0, 0, 0, 2}
	for _, framing := range []Framing{TCP, RTU, ASCII} {
		f.Add(byte(framing), byte(1), read, request(framing, 1, []byte{3, 4, 1, 2, 3, 4}), byte(3))
		f.Add(byte(framing), byte(1), read, request(framing, 1, []byte{0x83, 2}), byte(1))
		f.Add(byte(framing), byte(1), []byte{43, 14, 1, 0}, request(framing, 1, []byte{43, 14, 1, 1, 0, 0, 1, 0, 2, 'A', 'B'}), byte(200))
		f.Add(byte(framing), byte(1), []byte{24, 0, 4}, request(framing, 1, []byte{24, 0, 4, 0, 1, 7, 7}), byte(200))
	}
	f.Fuzz(func(t *testing.T, framing, unit byte, pdu, in []byte, piece byte) {
		fr := []Framing{TCP, RTU, ASCII}[framing%3]
		if len(pdu) < 1 || len(pdu) > 253 {
			return
		}
		req := request(fr, unit, pdu)
		l := receiving(fr, in, int(piece))
		frame, err := l.receive(req)
		if err != nil {
			return
		}
		p := packager(fr, unit)
		if err := p.Verify(req, frame); err != nil {
			t.Fatalf("% x: %v", frame, err)
		}
		got, err := p.Decode(frame)
		if err != nil {
			t.Fatalf("% x: %v", frame, err)
		}
		if got.FunctionCode&^exceptionBit != pdu[0]&^exceptionBit {
			t.Fatalf("function %d for %d", got.FunctionCode, pdu[0])
		}
		if n := answerLen(pdu); n >= 0 && got.FunctionCode == pdu[0] && len(got.Data)+1 != n {
			t.Fatalf("%d bytes where %d were asked for", len(got.Data)+1, n)
		}
	})
}

// The frames of the specification's examples.
func TestChecksums(t *testing.T) {
	// [SL 6.2.2]: the frame 02 07 has the checksum 41 12.
	if got := crc16([]byte{2, 7}); got != 0x1241 {
		t.Errorf("crc %04x", got)
	}
	// [SL 6.2.1]: the sum of a frame and its checksum is zero.
	if got := lrc([]byte{0xf7, 3, 0x13, 0x89, 0, 0x0a, 0x60}); got != 0 {
		t.Errorf("lrc %02x", got)
	}
	req := request(RTU, 17, []byte{3, 0, 0x6b, 0, 3})
	if !bytes.Equal(req, []byte{0x11, 3, 0, 0x6b, 0, 3, 0x76, 0x87}) {
		t.Errorf("% x", req)
	}
}
