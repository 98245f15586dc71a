package buffer

import (
	"errors"
	"io"
)

// A scanner reads the frames of one segment in order and steps over what is damaged. It finds no
// frame twice and none of another segment.
type scanner struct {
	f      File
	seed   uint32
	base   uint64
	off    int64  // of the next frame
	end    int64  // reading stops here
	expect uint64 // sequence that the next frame should have
	shared bool   // somebody may be writing meanwhile

	buf    []byte // a window of the file
	bufOff int64
	ioErr  error // the disk gave nothing of the last window; its bytes read as zeroes
	vain   int64 // bytes that were summed up for what was no frame
	sums   *sums // once that was too much

	// What the last call of next stepped over.
	skipped bool // anything at all
	synced  bool // it had been synced: damage, not a torn tail
}

const window = 64 << 10

// load returns n bytes at off, which must lie before end. A page that the disk does not give reads
// as zeroes, which no frame is.
func (s *scanner) load(off int64, n int) []byte {
	if i := off - s.bufOff; i >= 0 && i+int64(n) <= int64(len(s.buf)) {
		return s.buf[i : i+int64(n)]
	}
	s.ioErr = nil
	want := int(min(int64(max(n, window)), s.end-off))
	if cap(s.buf) < want {
		s.buf = make([]byte, max(n, window))
	}
	s.buf, s.bufOff = s.buf[:want], off
	got, err := s.f.ReadAt(s.buf, off)
	if got < want {
		clear(s.buf[got:])
		if err != nil && !errors.Is(err, io.EOF) {
			s.pages(got, off, err)
		}
	}
	return s.buf[:n]
}

// pages reads the window page by page, as far as the disk gives them. When it gives none, it is the
// disk that is in trouble, not a page.
func (s *scanner) pages(got int, off int64, err error) {
	any := got > 0
	for p := got; p < len(s.buf); {
		next := min(len(s.buf), p+pageSize-int((off+int64(p))%pageSize))
		if k, err := s.f.ReadAt(s.buf[p:next], off+int64(p)); err == nil || errors.Is(err, io.EOF) {
			any = true
		} else {
			clear(s.buf[p+k : next])
		}
		p = next
	}
	if s.ioErr = nil; !any {
		s.ioErr = err
	}
}

// at returns the frame at off, if there is one that fits in with what was read so far.
func (s *scanner) at(off int64) (frame, int64, bool) {
	if s.end-off < frameHeaderLen {
		return frame{}, 0, false
	}
	h := s.load(off, frameHeaderLen)
	n := int64(frameLen(h))
	if n == 0 || n > s.end-off {
		return frame{}, 0, false
	}
	// A segment cannot hold more records than bytes, nor have been synced beyond where it was written.
	delta, synced := le32(h[8:]), le32(h[12:])
	if int64(delta) > s.end || int64(synced) > off || s.base+uint64(delta) < s.expect {
		return frame{}, 0, false
	}
	// Where somebody writes meanwhile, the sums know of what had been written when they were made: what came
	// after is left for another look.
	if s.vain > 8*s.end {
		if s.sums == nil || s.sums.end != s.end {
			s.sums = newSums(s.f, s.end)
		}
		if sum := le32(h); s.sums.sum(s.seed, off+4, off+n) != sum {
			return frame{}, 0, false
		}
	}
	fr, ok := openFrame(s.load(off, int(n)), s.seed)
	if !ok {
		s.vain += n
	}
	return fr, n, ok
}

// next returns the next intact frame, valid until the call after. ok is false at the end of what
// can be read.
func (s *scanner) next() (fr frame, ok bool) {
	s.skipped, s.synced = false, false
	fr, n, ok := s.at(s.off)
	if !ok && s.shared { // it may have been read while it was being written
		s.buf = s.buf[:0]
		fr, n, ok = s.at(s.off)
	}
	if !ok {
		bad := s.off
		if s.off, fr, n, ok = s.search(s.off + 1); !ok {
			return frame{}, false
		}
		s.skipped = true
		s.synced = int64(fr.synced) > bad
	}
	s.off += n
	return fr, true
}

// search looks for the next intact frame from off on.
func (s *scanner) search(off int64) (int64, frame, int64, bool) {
	for s.end-off >= frameHeaderLen {
		i := off - s.bufOff
		if i < 0 || int64(len(s.buf))-i < frameHeaderLen {
			s.load(off, int(min(int64(window), s.end-off)))
			i = 0
		}
		// The kind is the only byte of a header with few values; it stands fourth.
		w := s.buf[i:]
		k := kindIndex(w[4:])
		if k < 0 {
			off += int64(len(w) - 4)
			continue
		}
		off += int64(k)
		if fr, n, ok := s.at(off); ok {
			return off, fr, n, true
		}
		off++
	}
	return s.end, frame{}, 0, false
}

func kindIndex(b []byte) int {
	for i, c := range b {
		if c-kindRecords <= kindPart-kindRecords {
			return i
		}
	}
	return -1
}

func le32(b []byte) uint32 {
	return uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16 | uint32(b[3])<<24
}
