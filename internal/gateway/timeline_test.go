package gateway

import (
	"testing"
	"time"

	"gateway/adapters"
	"gateway/internal/ledger"
)

func TestTheTimelineHoldsEachRecordBetweenTwoMarks(t *testing.T) {
	var line timeline
	at := func(seq uint64) ledger.Moment { // a record a second
		return ledger.Moment{Boot: uint32(1 + seq/30_000), At: adapters.Instant(seq%30_000) * adapters.Instant(time.Second)}
	}
	if from, to := line.span(1, 2); from != (ledger.Moment{}) || to != (ledger.Moment{}) {
		t.Errorf("an empty one knows %v to %v", from, to)
	}
	const n = 100_000 // more than a day, and three boots
	for seq := uint64(1000); seq < n; seq++ {
		line.note(seq, at(seq))
	}
	if len(line.marks) > maxMarks {
		t.Errorf("%d marks", len(line.marks))
	}
	for _, seq := range []uint64{1000, 1001, 29_999, 30_000, 77_777} {
		from, to := line.span(seq, seq+10)
		if at(seq).Before(from) || to.Before(at(seq+10)) {
			t.Errorf("%d to %d is not between %v and %v", seq, seq+10, from, to)
		}
		if from.Boot == to.Boot && to.At.Sub(from.At) > 10*time.Second+2*line.apart {
			t.Errorf("%d: from %v to %v", seq, from, to)
		}
	}
	if from, _ := line.span(999, 1000); from != (ledger.Moment{}) {
		t.Errorf("what was before the first mark is of %v", from)
	}
}
