package buffer

import (
	"context"
	"encoding/binary"
	"hash/crc32"
)

// What Run does when it falls due, one by one, so that a test decides the order of operations.

func (q *Queue) Maintain()      { q.maintain() }
func (q *Queue) Note()          { q.noteCursors() }
func (q *Queue) PrepareSpares() { q.prepare(func() bool { return false }) }
func (q *Queue) Retry() error   { return q.retry() }
func (q *Queue) Report()        { q.report() }

// A versioned file has its version at 8 and its checksum at 12; both slots or headers are changed.
func MakeNewer(t interface{ Fatal(...any) }, disk interface {
	Contents(string) []byte
	Put(string, []byte)
}, path string) {
	b := disk.Contents(path)
	done := 0
	for off := 0; off+segHeaderLen <= len(b); off += 64 {
		switch string(b[off : off+8]) {
		case segMagic:
			b[off+8] = 2
			binary.LittleEndian.PutUint32(b[off+12:], headerSum(b[off:]))
			done++
		case cursorMagic:
			b[off+8] = 2
			binary.LittleEndian.PutUint32(b[off+12:], slotSum(b[off:off+int(le32(b[off+24:]))]))
			done++
		}
	}
	if done == 0 {
		t.Fatal("no header found in ", path)
	}
	disk.Put(path, b)
}

// Mend makes the checksums right, as far as that makes sense.
func Mend(seg, cur []byte) (_, _ []byte) {
	seg, cur = append([]byte(nil), seg...), append([]byte(nil), cur...)
	if len(seg) >= segHeaderLen {
		copy(seg, segMagic)
		binary.LittleEndian.PutUint32(seg[8:], formatVersion)
		binary.LittleEndian.PutUint32(seg[12:], headerSum(seg))
		if h, ok := decodeSegHeader(seg); ok {
			seed := h.seed()
			for off := segHeaderLen; off+frameHeaderLen <= len(seg); {
				n := frameLen(seg[off:])
				if n == 0 || off+n > len(seg) {
					break
				}
				binary.LittleEndian.PutUint32(seg[off:], crc32.Update(seed, castagnoli, seg[off+4:off+n]))
				off += n
			}
		}
	}
	if len(cur) >= slotHeader {
		copy(cur, cursorMagic)
		binary.LittleEndian.PutUint32(cur[8:], formatVersion)
		binary.LittleEndian.PutUint32(cur[24:], uint32(len(cur)))
		binary.LittleEndian.PutUint32(cur[12:], slotSum(cur))
	}
	return seg, cur
}

func (q *Queue) WaitDurable(ctx context.Context, seq uint64) error { return q.waitDurable(ctx, seq) }

// Committer returns a committer's commit.
func Committer(sync func() error) func(context.Context) error { return newCommitter(sync).commit }

// Ahead returns for how many bytes the active segment is zeroed, and how many still fit into it.
func (q *Queue) Ahead() (zeroed, rest int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	a := q.active
	if rest = a.limit() - a.end; a.whole() {
		return rest, rest
	}
	return a.zeroed - a.end, rest
}

// Sums returns what sums up stretches of a file.
func Sums(f File, end int64) func(seed uint32, off, end int64) uint32 { return newSums(f, end).sum }

// Failing returns why the journal needs a Snapshot before it takes records again, or nil.
func (j *Journal) Failing() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.failing
}
