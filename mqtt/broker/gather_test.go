package broker

import (
	"testing"
	"time"
)

// gathering feeds a gatherer batches of n packets, each at a distance from the one before, and returns
// after how many of them it had the client wait.
func gathering(g *gatherer, batches int, n int64, apart time.Duration) (waits int) {
	for range batches {
		if g.after(n, g.last+int64(apart)) {
			waits++
		}
	}
	return waits
}

func TestGathering(t *testing.T) {
	for _, c := range []struct {
		what    string
		packets int64
		apart   time.Duration
		waits   int // after 650 batches
	}{
		{"a client that waits for each answer is read at once", 1, 10 * time.Microsecond, 0},
		{"so is one that sends bursts now and then", 50, time.Millisecond, 0},
		{"one that gains nothing is tried once in 65 batches", 5, 20 * time.Microsecond, 10},
		{"one that sends without a break is left to gather", 20, 75 * time.Microsecond, 650},
	} {
		t.Run(c.what, func(t *testing.T) {
			g := &gatherer{last: int64(time.Hour)}
			if got := gathering(g, 650, c.packets, c.apart); got != c.waits {
				t.Errorf("waited %d times, want %d", got, c.waits)
			}
		})
	}
}

// TestGatheringEnds: what a wait brought tells whether to wait again, not how long it took.
func TestGatheringEnds(t *testing.T) {
	g := new(gatherer)
	gathering(g, 10, 20, 75*time.Microsecond)
	if gathering(g, 1, gatherYield, time.Second) != 1 {
		t.Error("a wait that brought enough was not followed by another")
	}
	if gathering(g, gatherRest+1, gatherYield-1, 10*time.Microsecond) != 0 {
		t.Error("a wait that brought too little was followed by another")
	}
	if gathering(g, 1, 2, 10*time.Microsecond) != 1 {
		t.Error("after its rest it was not tried again")
	}
}
