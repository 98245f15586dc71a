package buffer_test

import (
	"encoding/binary"
	"hash/crc32"
	"math/rand/v2"
	"testing"

	"gateway/buffer"
	"gateway/buffer/buffertest"
)

func TestSumsOfStretches(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	b := make([]byte, 20_000)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	disk := buffertest.NewDisk(1)
	disk.Put("f", b)
	f, err := disk.Open("f", false)
	if err != nil {
		t.Fatal(err)
	}
	sum := buffer.Sums(f, int64(len(b)))
	for range 2000 {
		off := rng.IntN(len(b) + 1)
		end := off + rng.IntN(len(b)-off+1)
		seed := rng.Uint32()
		if got, want := sum(seed, int64(off), int64(end)), crc32.Update(seed, crc32.MakeTable(crc32.Castagnoli), b[off:end]); got != want {
			t.Fatalf("from %d to %d: %x, want %x", off, end, got, want)
		}
	}
}

// Each header in the damaged record claims what follows up to the end of the segment. With each of them
// summed up this would take minutes.
func TestADamagedSegmentFullOfForgedHeadersIsReadInTime(t *testing.T) {
	disk := buffertest.NewDisk(1)
	const size = 4 << 20
	o := buffer.Options{Dir: "q", FS: disk, SegmentBytes: size, MaxBytes: 64 << 20}
	q := open(t, o)
	const at = 64 + 16 + 4 // where the record begins: headers of the segment, the frame, the record
	forged := make([]byte, size-200_000)
	for i := 0; i+16 <= len(forged); i += 16 {
		binary.LittleEndian.PutUint32(forged[i+4:], 0xA1|uint32(len(forged)-i-32)<<8)
	}
	if _, err := q.Append(forged, nil); err != nil {
		t.Fatal(err)
	}
	appendN(t, q, 0, 10)
	closeQueue(t, q)
	disk.Flip("q/0000000000000001.seg", at*8)
	v, err := buffer.Look("q", disk)
	if err != nil {
		t.Fatal(err)
	}
	var viewed []int
	err = v.Walk(func(r buffer.Record) error { viewed = append(viewed, number(t, r.Data)); return nil }, nil)
	if err != nil {
		t.Fatal(err)
	}
	wantRun(t, viewed, 0, 10)
	q = open(t, o)
	_, got := drain(t, consumer(t, q, "a", buffer.Oldest()), buffer.Live)
	wantRun(t, got, 0, 10)
	closeQueue(t, q)
}
