package buffer_test

import (
	"fmt"
	"strings"
	"testing"

	"gateway/buffer"
	"gateway/buffer/buffertest"
)

// A view sees damage wherever it is, also behind the last intact record of a segment.
func TestAViewCountsWhatIsMissingAtTheEndOfASegment(t *testing.T) {
	for _, restart := range []bool{false, true} {
		disk := buffertest.NewDisk(1)
		o := small(disk, 8)
		q := open(t, o)
		appendN(t, q, 0, 60)
		if err := q.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
		if restart {
			closeQueue(t, q)
			q = open(t, o)
			appendN(t, q, 60, 1)
		}
		closeQueue(t, q)
		for name := range disk.Files("q") {
			if !strings.HasSuffix(name, ".seg") {
				continue
			}
			b := disk.Contents("q/" + name)
			damaged := disk.Clone()
			last := len(b) - 64 // where the frames end
			for last > 0 && b[last-1] == 0 {
				last--
			}
			damaged.Flip("q/"+name, int64(last-20)*8)
			v, err := buffer.Look("q", damaged)
			if err != nil {
				t.Fatal(err)
			}
			var missing, bad int64
			if err := v.Walk(nil, func(r buffer.SegmentReport) error {
				missing += r.Missing
				bad += r.Damaged
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			if missing != 1 || bad != 1 {
				t.Errorf("the last record of %s: %d missing, %d damaged, want 1 and 1", name, missing, bad)
			}
		}
	}
}

// Segments tells from headers what Walk tells from reading.
func TestAViewTellsSegmentsWithoutReadingThem(t *testing.T) {
	disk := buffertest.NewDisk(1)
	q := open(t, small(disk, 8))
	appendN(t, q, 0, 200)
	v, err := buffer.Look("q", disk)
	if err != nil {
		t.Fatal(err)
	}
	var walked []buffer.SegmentReport
	if err := v.Walk(nil, func(r buffer.SegmentReport) error {
		r.Bytes = 0
		walked = append(walked, r)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	told, err := v.Segments()
	if err != nil {
		t.Fatal(err)
	}
	told[len(told)-1].Bytes = 0
	if len(told) < 5 || fmt.Sprint(told) != fmt.Sprint(walked) {
		t.Errorf("told\n%+v, read\n%+v", told, walked)
	}
	closeQueue(t, q)
}
