package delivery

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"gateway/adapters"
	"gateway/config"
	"gateway/e2e/load"
	"gateway/e2e/rig"
	"gateway/internal/clock"
	"gateway/internal/gateway"
	"gateway/mqtt"
	"gateway/mqtt/client"
)

// A shiftedClock is the machine's own clock, wrong by an offset until somebody sets it.
type shiftedClock struct {
	clock.Source
	mu     sync.Mutex
	offset time.Duration
	synced bool
	looks  int // since it was set
}

func (s *shiftedClock) Wall() (int64, adapters.Instant, bool) {
	wall, at, _ := s.Source.Wall()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.looks++
	return wall + int64(s.offset), at, s.synced
}

func (s *shiftedClock) set(offset time.Duration, synced bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.offset, s.synced, s.looks = offset, synced, 0
}

// seen tells whether whoever looks at the clock has done so since it was set, and knows: he looks again.
func (s *shiftedClock) seen() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.looks > 1
}

// A timed is a sample as a subscriber sees it.
type timed struct {
	Seq        uint64         `json:"seq"`
	Time       time.Time      `json:"time"`
	Clock      string         `json:"clock"`
	Historical bool           `json:"historical"`
	Values     map[string]int `json:"values"`
	came       time.Time
}

// A box without a real-time clock starts in 1970, measures, is set right by the network, steps once
// more, back and forth: polls keep their pace, no sample is lost, twice or out of order, what left
// before the clock was set says so, and what left after has the time at which it was measured.
func TestAGatewayThatStartsIn1970(t *testing.T) {
	mosquitto := rig.NewMosquitto(t, "")
	proxy := proxyTo(t, mosquitto.URL())
	meter, err := load.NewMeter()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(meter.Close)
	var mu sync.Mutex
	var came []timed
	done := make(chan error, 1)
	ctx, cancel := context.WithCancel(context.Background())
	cl, err := client.New(client.Options{URLs: []string{mosquitto.URL()}, Handler: func(m mqtt.Message) {
		var s timed
		if json.Unmarshal(m.Payload, &s) == nil && m.Topic == "plant/d1" {
			s.came = time.Now()
			mu.Lock()
			came = append(came, s)
			mu.Unlock()
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	go func() { done <- cl.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	if _, err := cl.Subscribe(ctx, mqtt.Subscription{Filter: "plant/#", QoS: 1}); err != nil {
		t.Fatal(err)
	}

	text := load.Config("plant", rig.DataDir(t), meter.Addr(), 1, 2, "100ms", patient, "[broker]\nenabled = false\n"+destination("cloud", proxy.URL(), ""))
	path := rig.Write(t, t.TempDir(), "gateway.toml", text)
	cfg, problems := config.Load(path)
	if problems.Failed() {
		t.Fatal(problems)
	}
	cfg.Gateway.Clock = ""
	clk := &shiftedClock{Source: clock.System(), offset: -time.Duration(time.Now().UnixNano()) + 40*time.Second}
	g, err := gateway.Open(gateway.Options{Config: cfg, ConfigFile: path, Log: slog.New(slog.DiscardHandler), Clocks: clk})
	if err != nil {
		t.Fatal(err)
	}
	pauses := rig.WatchPauses(t)
	ran := make(chan error, 1)
	run, stop := context.WithCancel(context.Background())
	go func() { ran <- g.Run(run) }()
	count := func() int {
		mu.Lock()
		defer mu.Unlock()
		return len(came)
	}
	more := func(n int) {
		t.Helper()
		n += count()
		rig.Eventually(t, rig.Patience, fmt.Sprintf("%d samples", n), func() bool { return count() >= n })
	}
	more(5)
	in1970 := count()
	proxy.Stall(true)              // what is measured from here on leaves when the clock has been set
	waiting := meter.Polls(1) + 40 // Mosquitto takes 20 of them before it acknowledges the first
	rig.Eventually(t, rig.Patience, "polls whose samples wait", func() bool { return meter.Polls(1) >= waiting })
	waiting = meter.Polls(1)
	clk.set(0, true)
	rig.Eventually(t, rig.Patience, "look at the clock", clk.seen)
	set := time.Now()
	proxy.Stall(false)
	more(25)
	for _, offset := range []time.Duration{-time.Hour, 48 * time.Hour, 0} {
		clk.set(offset, true)
		more(15)
	}
	stop()
	if err := <-ran; err != nil {
		t.Fatal(err)
	}

	mu.Lock()
	defer mu.Unlock()
	for i, s := range came {
		if want := i + 1; s.Values["n"] != want {
			t.Fatalf("place %d holds poll %d", want, s.Values["n"])
		}
		// A poll lies between the answers to the one before it and to the one after it, whoever had to wait for his turn.
		before, _ := meter.Answered(1, i)
		polled, _ := meter.Answered(1, i+1)
		after, ok := meter.Answered(1, i+2)
		if !ok {
			after = time.Now()
		}
		const accuracy = 10 * time.Millisecond
		says := func(offset time.Duration) bool {
			right := s.Time.Add(-offset)
			return right.After(before.Add(-accuracy)) && right.Before(after.Add(accuracy))
		}
		switch {
		case i < in1970 || s.Clock != "":
			if s.Time.Year() != 1970 || s.Clock != "unsynced" || polled.After(set) {
				t.Errorf("poll %d, before the clock was set: %v, clock %q", i+1, s.Time, s.Clock)
			}
		case says(0):
		case s.came.After(set) && (says(-time.Hour) || says(48*time.Hour)):
			// While the clock was wrong: it said that it was right.
		default:
			t.Errorf("poll %d is of %v, and says %v, clock %q", i+1, polled, s.Time, s.Clock)
		}
		if i > 0 {
			if pause := pauses.Between(before, polled); pause > 500*time.Millisecond {
				t.Errorf("a pause of %v before poll %d", pause, i+1)
			}
		}
	}
	corrected := 0
	for _, s := range came[in1970:min(waiting, len(came))] {
		if s.Clock == "" {
			corrected++
		}
	}
	t.Logf("%d samples, %d of them of 1970, %d put right", len(came), in1970, corrected)
	if corrected < 10 {
		t.Errorf("%d samples were put right", corrected)
	}
}
