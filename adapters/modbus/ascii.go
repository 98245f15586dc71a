package modbus

import "bytes"

// An ASCII frame is a colon, the unit id, the PDU and an LRC in hexadecimal digits, CR and LF
// [SL 2.5.2].

// receiveASCII looks for the answer among the frames that come.
func (l *link) receiveASCII(req []byte) ([]byte, error) {
	l.have = 0
	in := l.buf[:]
	var asked, answered [256]byte
	n := unhex(asked[:], req[1:len(req)-2])
	unit, pdu := asked[0], asked[1:n-1]
	echoed := false
	var last error
	for {
		if err := l.fill(in); err != nil {
			if err == ErrTimeout && last != nil {
				return nil, last
			}
			return nil, err
		}
		for {
			end := bytes.Index(in[:l.have], []byte("\r\n"))
			if end < 0 {
				break
			}
			frame := in[:end+2]
			start := bytes.LastIndexByte(frame, ':') // a colon begins anew, wherever it comes
			ok := false
			if start >= 0 {
				l.traffic.Stray += uint64(start)
				frame = frame[start:]
				n := unhex(answered[:], frame[1:len(frame)-2])
				switch {
				case n < 4 || 2*n != len(frame)-3 || lrc(answered[:n]) != 0:
					last = silence{ErrChecksum}
					if n > 1 && answered[0] == unit && answered[1]&^exceptionBit == pdu[0] {
						last = ErrChecksum
						if err := l.hasten(); err != nil {
							return nil, err
						}
					}
				case answered[0] != unit:
					last = silence{foreign(unit, answered[0])}
				case !echoed && string(frame) == string(req) && (l.echo || readOnly(pdu)):
					l.echo, echoed = true, true
				default:
					last = checkAnswer(pdu, answered[1:n-1])
					ok = last == nil
				}
			}
			if ok {
				if end+2 < l.have {
					l.traffic.Stray += uint64(l.have - end - 2)
					l.dirty = true
				}
				return frame, nil
			}
			l.have = copy(in, in[end+2:l.have])
		}
	}
}

// lrc is the checksum of ASCII frames [SL 6.2.1]: the sum of all bytes, that of the checksum among
// them, is zero.
func lrc(b []byte) byte {
	var sum byte
	for _, c := range b {
		sum += c
	}
	return sum
}

// unhex decodes hexadecimal digits until dst is full or something else comes, and returns how many
// bytes it decoded.
func unhex(dst, src []byte) int {
	n := 0
	for ; n < len(dst) && 2*n+1 < len(src); n++ {
		hi, lo := digit(src[2*n]), digit(src[2*n+1])
		if hi > 15 || lo > 15 {
			break
		}
		dst[n] = hi<<4 | lo
	}
	return n
}

func digit(c byte) byte {
	switch {
	case c >= '0' && c <= '9':
		return c - '0'
	case c >= 'A' && c <= 'F':
		return c - 'A' + 10
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10
	}
	return 255
}
