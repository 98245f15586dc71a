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
}

func (s *shiftedClock) Wall() (int64, adapters.Instant, bool) {
	wall, at, _ := s.Source.Wall()
	s.mu.Lock()
	defer s.mu.Unlock()
	return wall + int64(s.offset), at, s.synced
}

func (s *shiftedClock) set(offset time.Duration, synced bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.offset, s.synced = offset, synced
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

	text := load.Config("plant", rig.DataDir(t), meter.Addr(), 1, 2, "100ms", "[broker]\nenabled = false\n"+destination("cloud", proxy.URL(), ""))
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
		rig.Eventually(t, 20*time.Second, fmt.Sprintf("%d samples", n), func() bool { return count() >= n })
	}
	more(5)
	in1970 := count()
	proxy.Stall(true) // what is measured from here on leaves when the clock has been set
	time.Sleep(1500 * time.Millisecond)
	clk.set(0, true)
	time.Sleep(1500 * time.Millisecond) // it is looked at every second
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
		polled, _ := meter.Answered(1, i+1)
		switch late := s.Time.Sub(polled); {
		case i < in1970 || s.Clock != "":
			if s.Time.Year() != 1970 || s.Clock != "unsynced" || s.came.After(set.Add(time.Second)) {
				t.Errorf("poll %d, before the clock was set: %v, clock %q", i+1, s.Time, s.Clock)
			}
		case late.Abs() < 100*time.Millisecond:
		case s.came.After(set) && (late+time.Hour).Abs() < 100*time.Millisecond, s.came.After(set) && (late-48*time.Hour).Abs() < 100*time.Millisecond:
			// While the clock was wrong: it said that it was right.
		default:
			t.Errorf("poll %d is of %v, and says %v, clock %q", i+1, polled, s.Time, s.Clock)
		}
		if i > 0 {
			before, _ := meter.Answered(1, i)
			if pause := polled.Sub(before); pause > 500*time.Millisecond {
				t.Errorf("a pause of %v before poll %d", pause, i+1)
			}
		}
	}
	corrected := 0
	for _, s := range came[in1970:] {
		if s.Clock == "" && s.came.Before(set.Add(time.Second)) {
			corrected++
		}
	}
	t.Logf("%d samples, %d of them of 1970, %d put right", len(came), in1970, corrected)
	if corrected < 10 {
		t.Errorf("%d samples were put right", corrected)
	}
}
