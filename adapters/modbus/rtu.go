package modbus

// An RTU frame is the unit id, the PDU and a CRC; nothing in it says how long it is, so the answer's
// length follows from the request's [SL 2.5.1].

// receiveRTU looks for the answer in all that comes: garbage, echoes and frames of other units are
// slid over, for a byte from before must not cost the answer behind it.
func (l *link) receiveRTU(req []byte) ([]byte, error) {
	l.have = 0
	in := l.buf[:]
	pdu := req[1 : len(req)-2]
	from := 0 // before it there is no answer
	hurry := false
	for {
		if err := l.fill(in); err != nil {
			if err == ErrTimeout && l.have > 0 {
				return nil, l.damaged(req, in[:l.have])
			}
			return nil, err
		}
		if from == 0 && l.have >= len(req) && string(in[:len(req)]) == string(req) && (l.echo || readOnly(pdu)) {
			// The line gives back what was sent. The answer to a write looks just like its echo, so
			// it takes a read to learn that.
			l.echo = true
			from = len(req)
		}
		if l.echo && l.have < len(req) && string(in[:l.have]) == string(req[:l.have]) {
			continue
		}
		for at := from; at+2 <= l.have; at++ {
			size, ok := sizeRTU(req, in[at:l.have])
			if !ok {
				continue
			}
			if size == 0 || at+size > l.have {
				continue // it may be the answer, once there is more of it
			}
			frame := in[at : at+size]
			if !crcGood(frame) {
				continue
			}
			l.traffic.Stray += uint64(at - from)
			if at+size < l.have {
				l.traffic.Stray += uint64(l.have - at - size)
				l.dirty = true
			}
			return frame, nil
		}
		if want := l.longest(req); !hurry && l.have >= want {
			hurry = true
			if err := l.hasten(); err != nil {
				return nil, err
			}
		}
	}
}

// sizeRTU tells whether an answer to req could begin at b, and how long it is; 0 where there is too
// little of it to tell.
func sizeRTU(req, b []byte) (int, bool) {
	if b[0] != req[0] {
		return 0, false
	}
	switch b[1] {
	case req[1] | exceptionBit:
		return 5, true
	case req[1]:
	default:
		return 0, false
	}
	n := answerLen(req[1 : len(req)-2])
	if n < 0 {
		switch req[1] {
		case fnEncapsulated:
			n = encapsulatedLen(b[1:])
		case 24:
			if len(b) >= 4 {
				n = 3 + int(b[2])<<8 + int(b[3])
			}
		default:
			return 0, false
		}
		if n <= 0 {
			return 0, true
		}
		return n + 3, true
	}
	if counted(req[1]) && len(b) >= 3 && int(b[2]) != n-2 {
		return 0, false
	}
	if same := min(1+repeated(req[1]), len(b)); string(b[:same]) != string(req[:same]) {
		return 0, false // it answers an earlier write
	}
	return n + 3, true
}

// damaged says what was wrong with bytes among which there was no answer.
func (l *link) damaged(req, got []byte) error {
	if l.echo && len(got) == len(req) {
		return ErrTimeout
	}
	if crcGood(got) {
		switch {
		case got[0] != req[0]:
			return silence{foreign(req[0], got[0])}
		case got[1] != req[1]:
			return protocolError("function %d was asked, %d answered", req[1], got[1])
		case l.owes(got[0], got[1], len(got)-3):
			l.traffic.Late++
			return ErrTimeout
		}
		return protocolError("%d bytes, where the request asks for %d", len(got), l.longest(req))
	}
	for at := 0; at+2 <= len(got); at++ {
		if got[at] == req[0] && got[at+1]&^exceptionBit == req[1] {
			return ErrChecksum
		}
	}
	return silence{ErrChecksum}
}
