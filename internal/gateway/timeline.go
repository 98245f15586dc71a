package gateway

import (
	"sort"
	"sync"
	"time"

	"gateway/internal/ledger"
)

// A timeline knows about when each record of the queue was measured, so that a loss can be told with
// its times when the records are gone. It keeps marks some time apart, and fewer of them the longer it
// lasts. What was queued long before the start it does not know.
type timeline struct {
	mu    sync.Mutex
	marks []mark // in the order of the queue
	apart time.Duration
}

type mark struct {
	seq uint64
	at  ledger.Moment
}

const (
	maxMarks   = 4096
	marksApart = 5 * time.Second
)

// note adds a record, the newest one.
func (t *timeline) note(seq uint64, at ledger.Moment) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if n := len(t.marks); n > 0 && t.marks[n-1].at.Boot == at.Boot && at.At.Sub(t.marks[n-1].at.At) < max(t.apart, marksApart) {
		return
	}
	if len(t.marks) == maxMarks {
		for i := range maxMarks / 2 {
			t.marks[i] = t.marks[2*i]
		}
		t.marks, t.apart = t.marks[:maxMarks/2], 2*max(t.apart, marksApart)
	}
	t.marks = append(t.marks, mark{seq, at})
}

// span returns when about the records first to last were measured: not before from, not after to. The
// zero Moment is not known.
func (t *timeline) span(first, last uint64) (from, to ledger.Moment) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if i := sort.Search(len(t.marks), func(i int) bool { return t.marks[i].seq > first }); i > 0 {
		from = t.marks[i-1].at
	}
	if i := sort.Search(len(t.marks), func(i int) bool { return t.marks[i].seq >= last }); i < len(t.marks) {
		to = t.marks[i].at
	}
	return from, to
}
