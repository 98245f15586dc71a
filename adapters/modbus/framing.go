package modbus

import (
	"encoding/binary"
	"fmt"
	"time"
)

// Framing is how requests are packed and carried.
type Framing uint8

const (
	TCP        Framing = iota // MBAP header over TCP
	RTU                       // binary with a CRC, over a serial port
	RTUOverTCP                // the same through a transparent serial server
	ASCII                     // hexadecimal with an LRC, over a serial port
	UDP                       // MBAP header in datagrams
)

func (f Framing) String() string {
	switch f {
	case TCP:
		return "tcp"
	case RTU:
		return "rtu"
	case RTUOverTCP:
		return "rtu over tcp"
	case ASCII:
		return "ascii"
	case UDP:
		return "udp"
	}
	return "invalid"
}

// serial tells whether the framing needs a serial port.
func (f Framing) serial() bool { return f == RTU || f == ASCII }

// pduOf returns the PDU in a request.
func (l *link) pduOf(adu []byte) []byte {
	switch l.framing {
	case TCP, UDP:
		return adu[7:]
	case ASCII:
		var pdu [253]byte
		return pdu[:unhex(pdu[:], adu[3:len(adu)-4])]
	}
	return adu[1 : len(adu)-2]
}

// turnaround is what the devices have to obey a broadcast [SL 2.4.1].
const turnaround = 200 * time.Millisecond

// broadcast tells whether a unit id means all devices: 0 does on serial lines.
func (l *link) broadcast(unit byte) bool {
	return unit == 0 && l.framing != TCP && l.framing != UDP
}

// acknowledged returns the answer of a device that has done what a write request says.
func (l *link) acknowledged(req []byte) []byte {
	pdu := append([]byte{0}, l.pduOf(req)...)
	if n := answerLen(pdu[1:]); n > 0 && n < len(pdu) {
		pdu = pdu[:n+1]
	}
	return l.frame(pdu)
}

// frame packs a unit id and a PDU for a serial line.
func (l *link) frame(b []byte) []byte {
	if l.framing == ASCII {
		return fmt.Appendf(nil, ":%X%02X\r\n", b, -lrc(b))
	}
	return binary.LittleEndian.AppendUint16(b, crc16(b))
}

func (l *link) unitOf(req []byte) byte {
	switch l.framing {
	case TCP, UDP:
		return req[6]
	case ASCII:
		var b [1]byte
		unhex(b[:], req[1:3])
		return b[0]
	}
	return req[0]
}

// longest is how many bytes the answer to a request has at most.
func (l *link) longest(req []byte) int {
	n := answerLen(l.pduOf(req))
	if n < 0 {
		n = 253
	}
	if l.framing == ASCII {
		return 2*n + 7
	}
	if l.echo {
		n += len(req)
	}
	return n + 3
}

// chars is how long n characters take on the wire.
func (l *link) chars(n int) time.Duration {
	if l.baud <= 0 {
		return 0
	}
	return time.Duration(n*l.charBits) * time.Second / time.Duration(l.baud)
}

// gap is the silence between frames.
func (l *link) gap() time.Duration {
	if l.framing == RTU || l.framing == RTUOverTCP {
		return frameGap(l.baud, l.charBits)
	}
	return 0
}

// frameGap is the silence that separates RTU frames [SL 2.5.1.1]: 3.5 characters, and 1.75 ms above
// 19200 baud.
func frameGap(baud, bits int) time.Duration {
	switch {
	case baud <= 0:
		return 0
	case baud > 19200:
		return 1750 * time.Microsecond
	}
	return time.Duration(7*bits) * time.Second / time.Duration(2*baud)
}
