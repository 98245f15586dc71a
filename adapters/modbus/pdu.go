package modbus

import "encoding/binary"

// Function codes that are read here beside goburrow's.
const fnEncapsulated = 0x2b // Encapsulated Interface Transport [AP 6.19]

const exceptionBit = 0x80

// answerLen returns how long the answer to a request is, both as PDUs, or -1 where only the answer
// itself can tell. Both PDUs are of the same function.
func answerLen(req []byte) int {
	if len(req) < 3 {
		return -1
	}
	switch req[0] {
	case 1, 2:
		if len(req) >= 5 {
			return 2 + (int(binary.BigEndian.Uint16(req[3:]))+7)/8
		}
	case 3, 4, 23:
		if len(req) >= 5 {
			return 2 + 2*int(binary.BigEndian.Uint16(req[3:]))
		}
	case 5, 6, 15, 16:
		return 5
	case 22:
		return 7
	}
	return -1
}

// counted tells whether the second byte of the function's answer counts the bytes that follow.
func counted(function byte) bool {
	return function >= 1 && function <= 4 || function == 23
}

// repeated is how many bytes at the start of its answer a write request has in common with it.
func repeated(function byte) int {
	switch function {
	case 5, 6, 15, 16:
		return 5
	case 22:
		return 7
	}
	return 1
}

// checkAnswer tells whether a PDU answers a request: of its function or an exception to it, and of
// the length that was asked for. goburrow's Client relies on it: it takes every other function for an
// exception, and believes whatever length it is given.
func checkAnswer(req, resp []byte) error {
	if len(resp) < 2 {
		return protocolError("%d bytes", len(resp))
	}
	if resp[0] == req[0]|exceptionBit {
		if len(resp) != 2 {
			return protocolError("an exception of %d bytes, not 2", len(resp))
		}
		return nil
	}
	if resp[0] != req[0] {
		return protocolError("function %d was asked, %d answered", req[0], resp[0])
	}
	want := answerLen(req)
	if want >= 0 && len(resp) != want {
		return protocolError("%d bytes, where the request asks for %d", len(resp), want)
	}
	if n := min(repeated(resp[0]), len(req), len(resp)); string(resp[:n]) != string(req[:n]) {
		return protocolError("the answer says that % x was written, not % x", resp[1:n], req[1:n])
	}
	if counted(resp[0]) && int(resp[1]) != len(resp)-2 {
		return protocolError("a byte count of %d with %d bytes", resp[1], len(resp)-2)
	}
	return nil
}

// encapsulatedLen returns the length of a Read Device Identification answer [AP 6.21] once enough of
// it is there to tell, or 0. b begins with the function code.
func encapsulatedLen(b []byte) int {
	// function, MEI type, code, conformity, more follows, next object, number of objects, then for
	// each object: id, length, value
	if len(b) < 7 {
		return 0
	}
	at := 7
	for range b[6] {
		if len(b) < at+2 {
			return 0
		}
		at += 2 + int(b[at+1])
	}
	return at
}

// readOnly tells whether a request may be repeated without being asked for.
func readOnly(pdu []byte) bool {
	return len(pdu) > 0 && (pdu[0] >= 1 && pdu[0] <= 4 || pdu[0] == fnEncapsulated)
}
