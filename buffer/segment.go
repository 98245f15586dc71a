package buffer

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"strings"
)

// A segment's header stands at its beginning and once more at its end, so that no single sector
// takes the whole segment with it.
const (
	segHeaderLen = 64
	segMagic     = "gwq-seg\n"
	segSuffix    = ".seg"

	minSegment = 64 << 10
	maxSegment = 8 << 20
	pageSize   = 4096
	markEvery  = 128 << 10

	maxSeq = 1 << 62 // nobody gets that far; what says so is not ours
)

type segHeader struct {
	version uint32
	number  uint64 // counts up for ever
	epoch   uint64
	base    uint64 // sequence of the first record
	salt    uint64 // random, secret: no payload can contain a frame that passes
	size    int64  // of the file, both headers included
	span    int64  // seconds of running time from born, after which no record was added; 0: no bound
	born    int64  // nanoseconds of running time of the queue
}

func (h *segHeader) seed() uint32 {
	var b [24]byte
	binary.LittleEndian.PutUint64(b[0:], h.salt)
	binary.LittleEndian.PutUint64(b[8:], h.number)
	binary.LittleEndian.PutUint64(b[16:], h.epoch)
	return crc32.Checksum(b[:], castagnoli)
}

func (h *segHeader) encode() []byte {
	b := make([]byte, segHeaderLen)
	copy(b, segMagic)
	binary.LittleEndian.PutUint32(b[8:], h.version)
	binary.LittleEndian.PutUint64(b[16:], h.number)
	binary.LittleEndian.PutUint64(b[24:], h.epoch)
	binary.LittleEndian.PutUint64(b[32:], h.base)
	binary.LittleEndian.PutUint64(b[40:], h.salt)
	binary.LittleEndian.PutUint32(b[48:], uint32(h.size))
	binary.LittleEndian.PutUint32(b[52:], uint32(h.span))
	binary.LittleEndian.PutUint64(b[56:], uint64(h.born))
	binary.LittleEndian.PutUint32(b[12:], headerSum(b))
	return b
}

// headerSum is the same for every version: magic, version and checksum keep their places, which is
// how an older program knows an intact newer header.
func headerSum(b []byte) uint32 {
	return crc32.Update(crc32.Checksum(b[:12], castagnoli), castagnoli, b[16:segHeaderLen])
}

// decodeSegHeader returns false for anything but an intact header of any version.
func decodeSegHeader(b []byte) (segHeader, bool) {
	if len(b) < segHeaderLen || string(b[:8]) != segMagic || binary.LittleEndian.Uint32(b[12:]) != headerSum(b) {
		return segHeader{}, false
	}
	h := segHeader{
		version: binary.LittleEndian.Uint32(b[8:]),
		number:  binary.LittleEndian.Uint64(b[16:]),
		epoch:   binary.LittleEndian.Uint64(b[24:]),
		base:    binary.LittleEndian.Uint64(b[32:]),
		salt:    binary.LittleEndian.Uint64(b[40:]),
		size:    int64(binary.LittleEndian.Uint32(b[48:])),
		span:    int64(binary.LittleEndian.Uint32(b[52:])),
		born:    int64(binary.LittleEndian.Uint64(b[56:])),
	}
	return h, h.version > formatVersion || h.size >= 2*segHeaderLen && h.base > 0 && h.base <= maxSeq
}

// readSegHeader reads the header of a segment file, from its end when the beginning is damaged.
func readSegHeader(f File) (h segHeader, size int64, ok bool) {
	size, err := f.Size()
	if err != nil {
		return h, 0, false
	}
	var b [segHeaderLen]byte
	if n, _ := f.ReadAt(b[:], 0); n == segHeaderLen {
		if h, ok = decodeSegHeader(b[:]); ok {
			return h, size, true
		}
	}
	if size >= 2*segHeaderLen {
		if n, _ := f.ReadAt(b[:], size-segHeaderLen); n == segHeaderLen {
			h, ok = decodeSegHeader(b[:])
		}
	}
	return h, size, ok
}

func segName(number uint64) string { return fmt.Sprintf("%016x%s", number, segSuffix) }

func isSegName(name string) bool { return strings.HasSuffix(name, segSuffix) }

// A segment is one file of the queue. What changes after it is sealed (last, marks, dicts, dropped)
// is guarded by Queue.mu.
type segment struct {
	segHeader
	path string
	f    File   // open while it is written or not yet synced
	last uint64 // sequence of the last record; base-1 when there is none
	end  int64  // where the next frame goes, or where reading stops

	synced   int64 // this much is durable
	zeroed   int64 // up to here it was written before, with zeroes or records; and the last page, with a header
	fileSize int64 // what it takes of the bound
	ended    int64 // running time of its last append

	tail bool // near the end of an epoch: what it lacks may never have been synced

	seedv   uint32
	marks   []mark
	dicts   map[uint32]*dictionary
	numbers map[uint64]uint32 // hash to number, for the writer

	dropped     bool // released or dropped: the file may already be another segment
	quarantined bool
	settled     bool // a frame says that something of it was synced
	uncut       bool // sealed by a failure, with the unused rest of its file
	unread      int  // attempts to read it that the disk refused
}

// A mark says where the frame that starts with a sequence is found. All dictionaries that stand
// before it are in dicts.
type mark struct {
	seq uint64
	off int64
}

// over tells whether the segment takes no more records, being too old for more.
func (s *segment) over(now int64) bool { return s.span > 0 && now-s.born > s.span*1e9 }

func (s *segment) limit() int64 { return s.size - segHeaderLen }

// whole tells whether all of the file was written before.
func (s *segment) whole() bool { return s.zeroed >= s.size-pageSize }

func (s *segment) mark(seq uint64, off int64) {
	if n := len(s.marks); n == 0 && off-segHeaderLen >= markEvery || n > 0 && off-s.marks[n-1].off >= markEvery {
		s.marks = append(s.marks, mark{seq, off})
	}
}

// find returns where to start looking for seq.
func (s *segment) find(seq uint64) mark {
	best := mark{s.base, segHeaderLen}
	for _, m := range s.marks {
		if m.seq > seq {
			break
		}
		best = m
	}
	return best
}

// writeHeader writes both copies.
func (s *segment) writeHeader() error {
	b := s.encode()
	if _, err := s.f.WriteAt(b, 0); err != nil {
		return err
	}
	_, err := s.f.WriteAt(b, s.limit())
	return err
}

// zeroFill writes zeroes from off to size and asks stop now and then. It does so page by page: what is
// written at once a kernel may keep as one large page, all of which each later write makes dirty.
func zeroFill(f File, off, size int64, stop func() bool) error {
	for off < size {
		if off%(256<<10) == 0 && stop() {
			return io.ErrUnexpectedEOF
		}
		n := min(pageSize-off%pageSize, size-off)
		if _, err := f.WriteAt(zeroes[:n], off); err != nil {
			return err
		}
		off += n
	}
	return nil
}

var zeroes [pageSize]byte
