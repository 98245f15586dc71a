package adapters

import (
	"container/heap"
	"time"
)

// A Schedule tells which of a bus's jobs is due. It is deterministic: a job falls due at whole
// multiples of its interval after the start, jobs due at the same moment come in the order in which
// they were added. A cycle that is missed because the bus was busy is counted and skipped, never
// made up for. Times are the monotonic ones of time.Now, so a step of the wall clock moves nothing.
//
// A Schedule is not safe for concurrent use: the goroutine that owns the bus owns it.
type Schedule struct {
	start time.Time
	jobs  jobHeap
	byID  []*job
}

type job struct {
	id       int
	interval time.Duration
	due      time.Time
	pos      int // in the heap
}

// NewSchedule returns an empty schedule whose intervals count from start.
func NewSchedule(start time.Time) *Schedule { return &Schedule{start: start} }

// Add adds a job that first falls due at start+phase and then every interval, and returns its
// number: 0 for the first, counting up. The interval must be positive.
func (s *Schedule) Add(interval, phase time.Duration) int {
	j := &job{id: len(s.byID), interval: interval, due: s.start.Add(phase)}
	s.byID = append(s.byID, j)
	heap.Push(&s.jobs, j)
	return j.id
}

// Next returns the job that falls due next and when. With no jobs ok is false.
func (s *Schedule) Next() (id int, due time.Time, ok bool) {
	if len(s.jobs) == 0 {
		return 0, time.Time{}, false
	}
	return s.jobs[0].id, s.jobs[0].due, true
}

// Due returns when job id falls due.
func (s *Schedule) Due(id int) time.Time { return s.byID[id].due }

// Done says that job id, due as Next said, was carried out and it is now now. It returns how many
// of the job's cycles have been overrun: their time came while this one, or another job, kept the
// bus busy.
func (s *Schedule) Done(id int, now time.Time) (overruns int) {
	j := s.byID[id]
	j.due = j.due.Add(j.interval)
	if late := now.Sub(j.due); late > 0 {
		overruns = int(late / j.interval)
		j.due = j.due.Add(time.Duration(overruns) * j.interval)
	}
	heap.Fix(&s.jobs, j.pos)
	return overruns
}

// Postpone puts job id off until the first multiple of its interval that is not before t. It is how
// a device that does not answer backs off without losing its place in the rhythm.
func (s *Schedule) Postpone(id int, t time.Time) {
	j := s.byID[id]
	if wait := t.Sub(j.due); wait > 0 {
		cycles := (wait + j.interval - 1) / j.interval
		j.due = j.due.Add(cycles * j.interval)
	}
	heap.Fix(&s.jobs, j.pos)
}

// Set lets job id fall due next at the first multiple of its interval that is not before t, be that
// earlier or later than it was.
func (s *Schedule) Set(id int, t time.Time) {
	j := s.byID[id]
	wait := t.Sub(j.due)
	cycles := wait / j.interval
	if cycles*j.interval < wait {
		cycles++
	}
	j.due = j.due.Add(cycles * j.interval)
	heap.Fix(&s.jobs, j.pos)
}

type jobHeap []*job

func (h jobHeap) Len() int { return len(h) }
func (h jobHeap) Less(i, k int) bool {
	if c := h[i].due.Compare(h[k].due); c != 0 {
		return c < 0
	}
	return h[i].id < h[k].id
}
func (h jobHeap) Swap(i, k int) {
	h[i], h[k] = h[k], h[i]
	h[i].pos, h[k].pos = i, k
}
func (h *jobHeap) Push(x any) {
	j := x.(*job)
	j.pos = len(*h)
	*h = append(*h, j)
}
func (h *jobHeap) Pop() any {
	old := *h
	j := old[len(old)-1]
	*h = old[:len(old)-1]
	return j
}
