package delivery

import (
	"testing"
	"time"
)

// Mosquitto holds acknowledgements back until TCP has acknowledged the first of them, for which it needs
// something from us: where a live sample's lets nothing go, the others came 40 ms later.
func TestAnAcknowledgementIsAnsweredByAMessage(t *testing.T) {
	var p pace
	p.reset(20)
	for _, c := range []struct {
		onTheirWay  int
		heard, want bool
	}{
		{14, false, true}, {15, false, false},
		{15, true, true}, {16, true, true}, {17, true, false}, // a new sample still finds room
	} {
		if got := p.room(c.onTheirWay, c.heard); got != c.want {
			t.Errorf("%d on their way, heard %t: %t", c.onTheirWay, c.heard, got)
		}
	}

	// A thin link: what came in a millisecond takes two seconds now.
	now := time.Now()
	p.answered(time.Millisecond, now)
	p.answered(2*time.Second, now.Add(5*time.Second))
	for n := range 20 {
		if p.room(n, true) != p.room(n, false) {
			t.Errorf("%d on their way on a thin link: an acknowledgement adds to the backlog", n)
		}
	}
	if p.room(15, true) {
		t.Error("the pace did not slow down")
	}
}
