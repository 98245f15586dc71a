package adapterstest

import (
	"context"
	"time"

	"gateway/adapters"
)

func idle(h *harness) {
	s := h.adapter.Status()
	if s.Open || s.Bus == "" {
		h.t.Errorf("before Run: open %t, bus %q", s.Open, s.Bus)
	}
	for _, d := range h.rig.Devices {
		if st := h.state(d); st.State != adapters.Unknown || st.Polls != 0 {
			h.t.Errorf("before Run: %+v", st)
		}
	}
}

func samples(h *harness) {
	h.run()
	h.more(3, h.rig.Devices...)
	if s := h.adapter.Status(); !s.Open || s.Err != "" {
		h.t.Errorf("a bus that works: open %t, %q", s.Open, s.Err)
	}
	for _, d := range h.rig.Devices {
		st := h.state(d)
		if st.State != adapters.Online || st.Err != "" || st.Polls < 3 {
			h.t.Errorf("a device that works: %+v", st)
		}
	}
}

func ends(h *harness) {
	h.run()
	h.more(1, h.rig.Devices[0])
	h.stop()
	before, _ := h.count(h.rig.Devices[0])
	time.Sleep(2 * h.rig.Interval) // of the fake clock
	if after, _ := h.count(h.rig.Devices[0]); after != before {
		h.t.Error("a sample came after Run had ended")
	}
}

func endsBefore(h *harness) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	ended := make(chan error, 1)
	go func() { ended <- h.adapter.Run(ctx) }()
	select {
	case err := <-ended:
		if err != nil {
			h.t.Errorf("Run: %v", err)
		}
	case <-time.After(5 * time.Second):
		h.t.Fatal("Run goes on with a context that has ended")
	}
}

func owned(h *harness) {
	// Offer overwrites the readings of each sample it is given: the next must be whole again, which
	// its check finds.
	h.run()
	h.more(4, h.rig.Devices...)
}

func refuses(h *harness) {
	h.refuse = true
	h.run()
	h.until("refused samples to be counted", func() bool { return h.adapter.Status().Refused >= 3 })
	h.mu.Lock()
	h.refuse = false
	h.mu.Unlock()
	h.more(1, h.rig.Devices...)
}

func beats(h *harness) {
	h.run()
	h.more(1, h.rig.Devices[0])
	for range 3 {
		before, at := h.adapter.Status().Beat, time.Now()
		h.until("a beat", func() bool { return h.adapter.Status().Beat > before })
		if took := time.Since(at); took > 10*time.Second+h.rig.Interval/4 {
			h.t.Errorf("%v between beats, at most 10 s", took)
		}
	}
}

func silent(h *harness) {
	victim, others := h.rig.Devices[0], h.rig.Devices[1:]
	h.run()
	h.more(2, h.rig.Devices...)
	h.rig.Silence(victim)
	_, before := h.count(victim)
	h.until("a bad sample of "+victim, func() bool { _, now := h.count(victim); return now > before })
	h.until(victim+" to be offline", func() bool { return h.state(victim).State == adapters.Offline })
	if st := h.state(victim); st.Err == "" || st.Failures == 0 {
		h.t.Errorf("a silent device: %+v", st)
	}
	if n := h.adapter.Status().Traffic; n.In == 0 || n.Exchanges > 0 && n.Unanswered == 0 {
		h.t.Errorf("a silent device on a bus with traffic: %+v", n)
	}
	h.more(10, others...)
	for _, d := range others {
		if st := h.state(d); st.State != adapters.Online {
			h.t.Errorf("a neighbour of a silent device: %+v", st)
		}
	}
}

func returns(h *harness) {
	victim := h.rig.Devices[0]
	h.run()
	h.more(1, h.rig.Devices...)
	h.rig.Silence(victim)
	h.until(victim+" to be offline", func() bool { return h.state(victim).State == adapters.Offline })
	h.rig.Restore(victim)
	h.more(3, victim)
	if st := h.state(victim); st.State != adapters.Online || st.Err != "" {
		h.t.Errorf("a device that is back: %+v", st)
	}
}

func absent(h *harness) {
	h.rig.Unplug()
	h.run()
	h.until("the status to say that the bus is not there", func() bool { s := h.adapter.Status(); return !s.Open && s.Err != "" })
	h.rig.Plug()
	h.more(2, h.rig.Devices...)
	if s := h.adapter.Status(); !s.Open || s.Err != "" {
		h.t.Errorf("a bus that is there: open %t, %q", s.Open, s.Err)
	}
}

func vanishes(h *harness) {
	h.run()
	h.more(2, h.rig.Devices...)
	h.rig.Unplug()
	h.until("the status to say that the bus is gone", func() bool { s := h.adapter.Status(); return !s.Open && s.Err != "" })
	for _, d := range h.rig.Devices {
		h.until(d+" to be offline", func() bool { return h.state(d).State == adapters.Offline })
	}
	before := h.adapter.Status().Beat
	h.until("a beat while the bus is gone", func() bool { return h.adapter.Status().Beat > before })
	opened := h.adapter.Status().Traffic.Opened
	h.rig.Plug()
	h.more(3, h.rig.Devices...)
	if now := h.adapter.Status().Traffic.Opened; opened == 0 || now <= opened {
		h.t.Errorf("a bus that came back counts as opened %d times, before that %d times", now, opened)
	}
}

func endsUnplugged(h *harness) {
	h.run()
	h.more(1, h.rig.Devices[0])
	h.rig.Unplug()
	h.until("the status to say that the bus is gone", func() bool { return !h.adapter.Status().Open })
	h.stop()
}
