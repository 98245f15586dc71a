// Package adapterstest is the conformance suite of adapters: what the rest of the gateway relies on,
// whatever the bus. Each adapter's tests call Run with a Rig of its own.
package adapterstest

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gateway/adapters"
)

// An Adapter owns one bus.
type Adapter interface {
	Run(ctx context.Context) error
	Status() adapters.BusStatus
}

// A Rig is one adapter under test and the simulated devices that it reads. It is made anew for each
// test. A function that is nil says that the bus knows no such thing, and the tests of it do not
// exist.
type Rig struct {
	// New returns an adapter that is not running, with at least two devices. Each of them gives a
	// sample at least every Interval.
	New      func(sink adapters.Sink, clock adapters.Clock) (Adapter, error)
	Devices  []string
	Interval time.Duration

	Silence func(device string) // the device does not answer from now on
	Restore func(device string) // it does again
	Unplug  func()              // the bus is gone: port, wire, host
	Plug    func()              // it is back
}

// patience is how long a test waits for what must come: many intervals, and any backoff.
func (r *Rig) patience() time.Duration { return 20*r.Interval + 2*time.Minute }

// Run runs the suite. With bubble set each test runs in a bubble of testing/synctest, where time is
// simulated and goroutines that stay behind are found; it is for adapters whose rig has no real
// input or output. Without it the rig's timeouts and backoffs should be short.
func Run(t *testing.T, bubble bool, setup func(t *testing.T) *Rig) {
	present := setup(t)
	for _, c := range []struct {
		name  string
		there bool
		test  func(*harness)
	}{
		{"NewOpensNothingAndStatusIsThereBeforeRun", true, idle},
		{"EveryDeviceGivesWellFormedSamples", true, samples},
		{"RunEndsWithNilWhenItsContextDoes", true, ends},
		{"RunEndsAtOnceWhenItsContextHasEndedBefore", true, endsBefore},
		{"ASampleBelongsToTheSink", true, owned},
		{"ARefusedSampleIsCountedAndTheBusGoesOn", true, refuses},
		{"TheLoopShowsThatItIsAlive", true, beats},
		{"ASilentDeviceIsBadWithAReasonAndHurtsNobody", present.Silence != nil, silent},
		{"ADeviceThatReturnsIsReadAgain", present.Silence != nil && present.Restore != nil, returns},
		{"ABusThatIsAbsentAtTheStartIsWaitedFor", present.Unplug != nil && present.Plug != nil, absent},
		{"ABusThatVanishesComesBackByItself", present.Unplug != nil && present.Plug != nil, vanishes},
		{"RunEndsWhileTheBusIsGone", present.Unplug != nil, endsUnplugged},
	} {
		if !c.there {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			if bubble {
				synctest.Test(t, func(t *testing.T) { c.test(newHarness(t, setup(t))) })
			} else {
				c.test(newHarness(t, setup(t)))
			}
		})
	}
}

// A harness runs the adapter of one test and looks at all that it gives.
type harness struct {
	t     *testing.T
	rig   *Rig
	clock adapters.Clock
	begin time.Time

	mu      sync.Mutex
	refuse  bool
	got     map[string][]adapters.Sample
	schemas map[string]*adapters.Schema
	news    chan struct{}

	adapter Adapter
	cancel  context.CancelFunc
	ended   chan error
}

func newHarness(t *testing.T, r *Rig) *harness {
	h := &harness{t: t, rig: r, begin: time.Now(), got: map[string][]adapters.Sample{}, schemas: map[string]*adapters.Schema{}, news: make(chan struct{}, 1)}
	h.clock = func() adapters.Instant { return adapters.Instant(time.Since(h.begin)) + 1 }
	if len(r.Devices) < 2 {
		t.Fatal("a rig has at least two devices")
	}
	a, err := r.New(h, h.clock)
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	h.adapter = a
	return h
}

// Offer checks a sample and keeps it.
func (h *harness) Offer(s adapters.Sample) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.check(s); err != nil {
		h.t.Error(err)
	}
	// Owning the readings, the sink may do with them what it likes.
	kept := s
	kept.Readings = slices.Clone(s.Readings)
	for i := range s.Readings {
		s.Readings[i] = adapters.Reading{Point: -1}
	}
	if h.refuse {
		return false
	}
	h.got[s.Schema.Device] = append(h.got[s.Schema.Device], kept)
	select {
	case h.news <- struct{}{}:
	default:
	}
	return true
}

// check tells what is wrong with a sample.
func (h *harness) check(s adapters.Sample) error {
	if s.Schema == nil {
		return fmt.Errorf("a sample without a schema")
	}
	dev := s.Schema.Device
	if !slices.Contains(h.rig.Devices, dev) {
		return fmt.Errorf("a sample of an unknown device %q", dev)
	}
	if s.Schema.Bus != h.adapter.Status().Bus {
		return fmt.Errorf("%s: the schema says bus %q", dev, s.Schema.Bus)
	}
	if len(s.Readings) == 0 {
		return fmt.Errorf("%s: a sample without readings", dev)
	}
	before := -1
	for _, r := range s.Readings {
		if r.Point <= before || r.Point >= len(s.Schema.Points) {
			return fmt.Errorf("%s: point %d after %d of %d: ascending, each once", dev, r.Point, before, len(s.Schema.Points))
		}
		before = r.Point
		name := s.Schema.Points[r.Point].Name
		switch {
		case name == "":
			return fmt.Errorf("%s: point %d has no name", dev, r.Point)
		case r.Quality == adapters.Good && (r.Value.Kind() == adapters.None || r.Reason != ""):
			return fmt.Errorf("%s/%s: good with value %v and reason %q", dev, name, r.Value, r.Reason)
		case r.Quality == adapters.Bad && (r.Value.Kind() != adapters.None || r.Reason == ""):
			return fmt.Errorf("%s/%s: bad with value %v and reason %q", dev, name, r.Value, r.Reason)
		case r.Quality == adapters.Stale && (r.Value.Kind() == adapters.None || r.Reason == ""):
			return fmt.Errorf("%s/%s: stale with value %v and reason %q", dev, name, r.Value, r.Reason)
		}
	}
	if now := h.clock(); s.Time <= 0 || s.Time > now {
		return fmt.Errorf("%s: time %v, it is %v", dev, s.Time, now)
	}
	if all := h.got[dev]; len(all) > 0 && s.Time < all[len(all)-1].Time {
		return fmt.Errorf("%s: time %v after %v", dev, s.Time, all[len(all)-1].Time)
	}
	if first, ok := h.schemas[dev]; ok && first != s.Schema {
		return fmt.Errorf("%s: a schema is shared by all samples of a device", dev)
	}
	h.schemas[dev] = s.Schema
	return nil
}

// run starts the adapter; it is stopped with the test.
func (h *harness) run() {
	ctx, cancel := context.WithCancel(context.Background())
	h.cancel, h.ended = cancel, make(chan error, 1)
	go func() { h.ended <- h.adapter.Run(ctx) }()
	h.t.Cleanup(h.stop)
}

// stop ends the adapter and checks how it ended.
func (h *harness) stop() {
	if h.cancel == nil {
		return
	}
	h.cancel()
	h.cancel = nil
	select {
	case err := <-h.ended:
		if err != nil {
			h.t.Errorf("Run: %v", err)
		}
	case <-time.After(5 * time.Second):
		h.t.Fatal("Run has not ended 5 s after its context")
	}
}

// until waits until cond holds; it is looked at whenever something happens, and now and then.
func (h *harness) until(what string, cond func() bool) {
	h.t.Helper()
	end := time.Now().Add(h.rig.patience())
	tick := time.NewTicker(max(h.rig.Interval/4, time.Millisecond))
	defer tick.Stop()
	for !cond() {
		select {
		case <-h.news:
		case <-tick.C:
		case err := <-h.ended:
			h.ended <- err
			h.t.Fatalf("Run ended (%v) while waiting: %s", err, what)
		}
		if time.Now().After(end) {
			h.t.Fatalf("in %v it did not come: %s; status %+v", h.rig.patience(), what, h.adapter.Status())
		}
	}
}

// count returns how many samples of a device came that have a good reading, and how many that have
// none.
func (h *harness) count(device string) (good, bad int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, s := range h.got[device] {
		if slices.ContainsFunc(s.Readings, func(r adapters.Reading) bool { return r.Quality == adapters.Good }) {
			good++
		} else {
			bad++
		}
	}
	return good, bad
}

// more waits until every one of the devices has given n more good samples.
func (h *harness) more(n int, devices ...string) {
	h.t.Helper()
	for _, d := range devices {
		before, _ := h.count(d)
		h.until(fmt.Sprintf("%d more good samples of %s", n, d), func() bool { now, _ := h.count(d); return now >= before+n })
	}
}

// state returns what the status says of a device.
func (h *harness) state(device string) adapters.DeviceStatus {
	h.t.Helper()
	for _, d := range h.adapter.Status().Devices {
		if d.Device == device {
			return d
		}
	}
	h.t.Fatalf("the status does not know %s", device)
	return adapters.DeviceStatus{}
}
