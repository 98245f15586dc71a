package modbus

import "encoding/binary"

// An MBAP header [AP, Messaging on TCP/IP 3.1.3] is the transaction id, the protocol id 0, the length
// of what follows it, and the unit id, which that length includes.
const (
	mbapSize = 7
	mbapMax  = 260
)

// receiveMBAP reads frames until the one that answers req. Answers to earlier requests, which came
// too late, have another transaction id and are thrown away.
func (l *link) receiveMBAP(req []byte) ([]byte, error) {
	if l.framing == UDP {
		l.have = 0
	}
	var other error
	for {
		frame, err := l.frameMBAP()
		if err != nil {
			if other != nil && err == ErrTimeout {
				return nil, silence{other}
			}
			return nil, err
		}
		switch {
		case binary.BigEndian.Uint16(frame) != binary.BigEndian.Uint16(req):
			l.traffic.Late++
			continue
		case frame[6] != req[6]:
			l.traffic.Stray += uint64(len(frame))
			other = foreign(req[6], frame[6])
			continue
		}
		if err := checkAnswer(req[mbapSize:], frame[mbapSize:]); err != nil {
			return nil, err
		}
		return frame, nil
	}
}

// frameMBAP takes the next frame from the line. Part of one that the deadline cut off stays in the
// buffer, so that the stream never loses its place. The frame is moved to the last mbapMax bytes of
// the buffer; what comes after it begins at the front.
func (l *link) frameMBAP() ([]byte, error) {
	in := l.buf[:len(l.buf)-mbapMax]
	for {
		if l.have >= mbapSize {
			length := int(binary.BigEndian.Uint16(in[4:]))
			switch protocol := binary.BigEndian.Uint16(in[2:]); {
			case protocol != 0:
				return nil, protocolError("protocol id %d: this is not Modbus TCP", protocol)
			case length < 3 || length > mbapMax-6:
				return nil, protocolError("a length of %d in the header; 3 to %d are possible", length, mbapMax-6)
			}
			if size := 6 + length; l.have >= size {
				frame := l.buf[len(in) : len(in)+size]
				copy(frame, in)
				l.have = copy(in, in[size:l.have])
				return frame, nil
			}
		}
		if err := l.fill(in); err != nil {
			return nil, err
		}
	}
}
