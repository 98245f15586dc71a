package adapters_test

import (
	"testing"
	"time"

	"gateway/adapters"
)

// at runs the schedule for a bus on which each job takes cost, and returns the jobs in the order in
// which they were carried out, with their lateness.
func at(s *adapters.Schedule, start time.Time, until, cost time.Duration) (order []int, overruns int) {
	now := start
	for {
		id, due, ok := s.Next()
		if !ok || due.Sub(start) >= until {
			return order, overruns
		}
		if due.After(now) {
			now = due
		}
		order = append(order, id)
		now = now.Add(cost)
		overruns += s.Done(id, now)
	}
}

func TestJobsFallDueAtMultiplesOfTheirInterval(t *testing.T) {
	start := time.Now()
	s := adapters.NewSchedule(start)
	s.Add(2*time.Second, 0)
	s.Add(time.Second, 0)
	order, overruns := at(s, start, 4*time.Second, time.Millisecond)
	want := []int{0, 1, 1, 0, 1, 1}
	if len(order) != len(want) {
		t.Fatalf("got %v, want %v", order, want)
	}
	for i := range want {
		if order[i] != want[i] {
			t.Fatalf("got %v, want %v", order, want)
		}
	}
	if overruns != 0 {
		t.Errorf("%d overruns on an idle bus", overruns)
	}
}

func TestAnOverrunIsCountedAndSkippedNeverPiledUp(t *testing.T) {
	start := time.Now()
	s := adapters.NewSchedule(start)
	s.Add(time.Second, 0)
	order, overruns := at(s, start, 10*time.Second, 2500*time.Millisecond)
	if len(order)+overruns < 9 || len(order) > 5 {
		t.Errorf("%d cycles and %d overruns in 10 s of 1 s cycles that take 2.5 s", len(order), overruns)
	}
	if _, due, _ := s.Next(); due.Sub(start)%time.Second != 0 {
		t.Errorf("the rhythm was lost: due at %v", due.Sub(start))
	}
}

func TestAPostponedJobKeepsItsRhythm(t *testing.T) {
	start := time.Now()
	s := adapters.NewSchedule(start)
	s.Add(time.Second, 300*time.Millisecond)
	s.Postpone(0, start.Add(4500*time.Millisecond))
	if _, due, _ := s.Next(); due.Sub(start) != 5300*time.Millisecond {
		t.Errorf("due at %v, want 5.3s", due.Sub(start))
	}
}

func TestBackoffGrowsToItsCapAndStartsAnew(t *testing.T) {
	b := adapters.Backoff{Min: time.Second, Max: time.Minute}
	for i := range 40 {
		full := min(time.Second<<min(i, 10), time.Minute)
		if d := b.Fail(); d > full || d < full-full/4 {
			t.Fatalf("failure %d: pause %v, want %v less at most a quarter", i+1, d, full)
		}
	}
	b.Reset()
	if d := b.Fail(); d > time.Second {
		t.Errorf("pause %v after a success", d)
	}
}

func TestAJobIsSetEarlierOrLaterOnItsMultiples(t *testing.T) {
	start := time.Unix(1000, 0)
	s := adapters.NewSchedule(start)
	id := s.Add(10*time.Second, 0)
	for _, c := range []struct{ to, due time.Duration }{
		{25 * time.Second, 30 * time.Second}, {30 * time.Second, 30 * time.Second}, {11 * time.Second, 20 * time.Second},
		{10 * time.Second, 10 * time.Second}, {time.Hour + 1, time.Hour + 10*time.Second}, {0, 0},
	} {
		s.Set(id, start.Add(c.to))
		if _, due, _ := s.Next(); due != start.Add(c.due) {
			t.Errorf("set to %v it is due at %v, want %v", c.to, due.Sub(start), c.due)
		}
	}
}
