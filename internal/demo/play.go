package demo

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"gateway/adapters"
	"gateway/internal/gateway"
)

// A stage is where the demo plays: the gateway, the line to its upstream, and what has been seen.
type stage struct {
	o       Options
	gw      *gateway.Gateway
	way     *line
	started chan struct{} // closed when the gateway has been started
	begun   time.Time     // when that was

	local, up *tally
	brokers   map[string]string // by destination: the address to show

	event   string
	outages int

	mu     sync.Mutex
	ids    []identity // all that was queued
	latest map[string]adapters.Sample
	bad    int
}

// The upstream is away by itself once: from a third of the time to two thirds, or from 10 s to 20 s
// where there is no end.
func (s *stage) outage() (from, to time.Duration) {
	if s.o.For > 0 {
		return s.o.For / 3, s.o.For * 2 / 3
	}
	return 10 * time.Second, 20 * time.Second
}

// play runs the gateway, takes the upstream away and brings it back, and shows how it fares.
func (s *stage) play(ctx context.Context) error {
	// The gateway outlives ctx: whoever ends the demo within an outage is to see the line mended first.
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- s.gw.Run(running) }()
	select {
	case <-s.started:
	case err := <-ended:
		return err
	}
	s.begun = time.Now()

	every := time.Second
	if s.o.Size != nil {
		every = 200 * time.Millisecond
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	away, back := s.outage()
	view := &screen{out: s.o.Out, size: s.o.Size}
	s.event = "the devices are being read"
	for {
		elapsed := time.Since(s.begun)
		switch {
		case away > 0 && elapsed >= away:
			away = 0
			s.cut()
		case away == 0 && back > 0 && elapsed >= back:
			back = 0
			s.mend()
		}
		if s.o.For > 0 && elapsed >= s.o.For {
			break
		}
		s.show(view, elapsed)
		select {
		case err := <-ended:
			return err
		case <-ctx.Done():
		case <-tick.C:
			continue
		case key, ok := <-s.o.Keys:
			switch {
			case !ok:
				s.o.Keys = nil
				continue
			case key == 'u' && s.way.whole():
				s.cut()
				continue
			case key == 'u':
				s.mend()
				continue
			case key != 'q' && key != 3: // Ctrl-C is a key in raw mode
				continue
			}
		}
		break
	}
	// The account is to be complete: the line is mended, and the stop waits for what is left.
	s.mend()
	s.tell("stopping: the polls end, what is queued is delivered")
	s.awaitLink(running)
	stop()
	return <-ended
}

func (s *stage) cut() {
	s.way.cut()
	s.outages++
	s.tell("the upstream is away: its samples wait in the queue")
}

func (s *stage) mend() {
	if s.way.whole() {
		return
	}
	s.way.mend()
	s.tell("the upstream is back: what has waited is delivered")
}

func (s *stage) tell(event string) {
	s.event = event
	if s.o.Size == nil {
		fmt.Fprintf(s.o.Out, "%3d s   %s\n", int(time.Since(s.begun).Seconds()), event)
	}
}

// awaitLink waits until all destinations are connected. After a cut it may take the gateway a moment to
// notice that it no longer is.
func (s *stage) awaitLink(ctx context.Context) {
	await(ctx, func() bool {
		for _, d := range s.gw.Status().Destinations {
			if !d.Connected {
				return false
			}
		}
		return s.way.used()
	})
}

// settle waits until the subscribers have got what was queued: the gateway knows that the brokers have it,
// but not when they hand it on.
func (s *stage) settle(ctx context.Context) {
	await(ctx, func() bool { return s.local.against(s.ids).Lost == 0 && s.up.against(s.ids).Lost == 0 })
}

// await waits until something is so, for as long as patience lasts.
func await(ctx context.Context, so func() bool) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !so() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func (s *stage) show(view *screen, elapsed time.Duration) {
	v := s.view(elapsed)
	if s.o.Size != nil {
		view.show(v)
		return
	}
	fmt.Fprintln(s.o.Out, v.text())
}

func (s *stage) view(elapsed time.Duration) view {
	v := view{Elapsed: elapsed, Event: s.event, Keys: s.o.Keys != nil}
	if s.o.For > 0 {
		v.Left = s.o.For - elapsed
	}
	status := s.gw.Status()
	for _, b := range status.Buses {
		for _, d := range b.Devices {
			v.Devices = append(v.Devices, deviceView{Device: d.Device, Bus: b.Bus, Values: s.values(d.Device, d.Err), State: d.State.String()})
		}
	}
	for _, d := range status.Destinations {
		t, link := s.local, "in this process"
		if d.Name != "local" {
			t, link = s.up, "connected"
			if !d.Connected {
				link = "away"
				if d.RetryIn > 0 {
					link = fmt.Sprintf("away, retry in %.1f s", d.RetryIn.Seconds())
				}
			}
		}
		v.Destinations = append(v.Destinations, destinationView{
			Name: d.Name, Broker: s.brokers[d.Name], Link: link, Up: d.Connected, Delivered: t.delivered(), Waiting: d.Waiting(),
		})
	}
	return v
}

// values is a device's latest sample in a line.
func (s *stage) values(device, trouble string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	sample, ok := s.latest[device]
	if !ok {
		return "waiting for the first answer " + trouble
	}
	var parts []string
	for _, r := range sample.Readings {
		p := sample.Schema.Points[r.Point]
		text := p.Name + " "
		if r.Quality == adapters.Bad {
			text += string(r.Reason)
		} else if f, ok := r.Value.Number(); ok && p.Decimals >= 0 {
			text += strings.TrimSpace(fmt.Sprintf("%.*f %s", p.Decimals, f, p.Unit))
		} else {
			text += strings.TrimSpace(r.Value.String() + " " + p.Unit)
		}
		parts = append(parts, text)
	}
	return strings.Join(parts, "   ")
}
