package main

import (
	"context"
	"fmt"
	"math"
	"slices"
	"time"
)

const (
	killHeader = "load             kills  missed polls, a device and kill (most)  pause s: p50 (most)  lost polls  came twice, a kill"
	killLine   = "%-16s %-6d %-6.2f (%d)                           %-6.2f (%.2f)        %-11d %.1f\n"
)

const (
	interval = time.Second // of the polls
	// betweenKills is how long a gateway lives. It is no multiple of the interval, so that each kill finds
	// another moment of the cycle.
	betweenKills = 4130 * time.Millisecond
)

// kill kills the gateway again and again and starts it at once, as a service manager does. It counts what
// the devices saw of it, and what became of the polls: one whose answer the process had not handed to the
// queue when it died is lost, for nobody had been promised it.
func (p *plant) kill(ctx context.Context, name string, kills int) error {
	var died []time.Time
	for range kills {
		gateway, err := p.start(ctx)
		if err != nil {
			return err
		}
		err = pause(ctx, gateway.ended, betweenKills)
		died = append(died, time.Now())
		gateway.kill()
		if err != nil {
			return err
		}
	}
	gateway, err := p.start(ctx)
	if err != nil {
		return err
	}
	defer gateway.kill()
	if err := pause(ctx, gateway.ended, betweenKills); err != nil {
		return err
	}
	if err := gateway.stop(); err != nil {
		return err
	}
	p.settle(ctx)

	missed, most := 0, 0
	var pauses []time.Duration
	for unit := 1; unit <= p.r.devices-p.r.silent; unit++ {
		for _, at := range died {
			gap := p.around(byte(unit), at)
			n := missedIn(gap)
			missed, most = missed+n, max(most, n)
			pauses = append(pauses, gap)
		}
	}
	slices.Sort(pauses)
	fmt.Printf(killLine, name, kills, float64(missed)/float64(len(pauses)), most, pauses[len(pauses)/2].Seconds(), pauses[len(pauses)-1].Seconds(),
		p.r.lost, float64(p.r.twice)/float64(kills))
	return nil
}

// around is how long a unit was not polled around a moment.
func (p *plant) around(unit byte, at time.Time) time.Duration {
	var before time.Time
	for n := 1; ; n++ {
		t, ok := p.meter.Answered(unit, n)
		switch {
		case !ok:
			return time.Since(at) // it was not polled again
		case t.After(at):
			return t.Sub(before)
		}
		before = t
	}
}

// missedIn is how many polls should have been between two that are so far apart. A tenth of an interval
// is no delay.
func missedIn(gap time.Duration) int {
	return max(0, int(math.Ceil(gap.Seconds()/interval.Seconds()-0.1))-1)
}
