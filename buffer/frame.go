package buffer

import (
	"encoding/binary"
	"hash/crc32"
)

const (
	formatVersion = 1

	frameHeaderLen = 16
	frameTarget    = 4096 // a frame of several records ends before it grows beyond this
	maxPayload     = 1<<24 - 1

	kindRecords = 0xA1
	kindDict    = 0xA2
	kindEnd     = 0xA3 // the last frame of a journal's snapshot
	kindPart    = 0xA4 // of a journal's records that are too large for a frame
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// A frame is what is written and checked as one; see the package comment for its bytes.
type frame struct {
	kind    byte
	delta   uint32 // sequence of its first record (or of the next one), less the segment's base
	synced  uint32 // the segment was known to be synced up to this offset when the frame was written
	payload []byte
}

// sealFrame fills in the header of the frame that b holds: frameHeaderLen bytes of room, then the
// payload. The checksum starts from the segment's seed, so that a frame of another segment, or of
// an earlier life of this file, does not pass.
func sealFrame(b []byte, seed uint32, kind byte, delta, synced uint32) {
	n := len(b) - frameHeaderLen
	binary.LittleEndian.PutUint32(b[4:], uint32(kind)|uint32(n)<<8)
	binary.LittleEndian.PutUint32(b[8:], delta)
	binary.LittleEndian.PutUint32(b[12:], synced)
	binary.LittleEndian.PutUint32(b[0:], crc32.Update(seed, castagnoli, b[4:]))
}

// frameLen tells from a frame's header how long the frame is, 0 when this cannot be a header.
func frameLen(h []byte) int {
	switch h[4] {
	case kindRecords, kindDict, kindEnd, kindPart:
		return frameHeaderLen + int(binary.LittleEndian.Uint32(h[4:])>>8)
	}
	return 0
}

// openFrame checks the frame that b holds exactly.
func openFrame(b []byte, seed uint32) (frame, bool) {
	if crc32.Update(seed, castagnoli, b[4:]) != binary.LittleEndian.Uint32(b) {
		return frame{}, false
	}
	return frame{
		kind:    b[4],
		delta:   binary.LittleEndian.Uint32(b[8:]),
		synced:  binary.LittleEndian.Uint32(b[12:]),
		payload: b[frameHeaderLen:],
	}, true
}

// recordLen is what a record takes in a frame's payload.
func recordLen(dict uint32, n int) int { return uvarintLen(uint64(dict)) + uvarintLen(uint64(n)) + n }

func uvarintLen(v uint64) int {
	n := 1
	for v >= 0x80 {
		v >>= 7
		n++
	}
	return n
}

func appendRecord(b []byte, dict uint32, data []byte) []byte {
	b = binary.AppendUvarint(b, uint64(dict))
	b = binary.AppendUvarint(b, uint64(len(data)))
	return append(b, data...)
}

// cutRecord takes the first record off a payload whose checksum was right. ok is false when the
// payload is empty or, which only a program that writes another format could bring about, malformed.
func cutRecord(p []byte) (dict uint32, data, rest []byte, ok bool) {
	d, n := binary.Uvarint(p)
	if n <= 0 || d > 1<<32-1 {
		return 0, nil, nil, false
	}
	l, m := binary.Uvarint(p[n:])
	p = p[min(n+max(m, 0), len(p)):]
	if m <= 0 || l > uint64(len(p)) {
		return 0, nil, nil, false
	}
	return uint32(d), p[:l:l], p[l:], true
}

// A dict frame's payload: the dictionary's number in this segment, its hash, its bytes.
func appendDict(b []byte, no uint32, d *dictionary) []byte {
	b = binary.AppendUvarint(b, uint64(no))
	b = binary.LittleEndian.AppendUint64(b, d.hash)
	return append(b, d.data...)
}

func cutDict(p []byte) (no uint32, hash uint64, data []byte, ok bool) {
	v, n := binary.Uvarint(p)
	if n <= 0 || v == 0 || v > 1<<32-1 || len(p) < n+8 {
		return 0, 0, nil, false
	}
	return uint32(v), binary.LittleEndian.Uint64(p[n:]), p[n+8:], true
}

func dictFrameLen(no uint32, d *dictionary) int {
	return frameHeaderLen + uvarintLen(uint64(no)) + 8 + len(d.data)
}

// A dictionary is a Dict as the queue keeps it, one copy for all segments and readers.
type dictionary struct {
	hash uint64
	data []byte
}
