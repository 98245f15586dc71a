package gateway

import (
	"context"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gateway/adapters"
	"gateway/config"
	"gateway/internal/delivery"
	"gateway/mqtt"
)

// quietBus is a bus with devices that nobody reads.
type quietBus struct {
	name    string
	devices []string
}

func (quietBus) Run(context.Context) error { return nil }

func (b quietBus) Status() adapters.BusStatus {
	s := adapters.BusStatus{Bus: b.name}
	for _, d := range b.devices {
		s.Devices = append(s.Devices, adapters.DeviceStatus{Device: d})
	}
	return s
}

// retained is a broker that keeps what it is given, and refuses all of it while it is told to.
type retained struct {
	mu     sync.Mutex
	refuse bool
	got    []string
}

func (r *retained) Publish(_ context.Context, m *mqtt.Message, done func(error)) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.refuse {
		done(&mqtt.ReasonError{Op: "publish", Code: mqtt.NotAuthorized})
		return nil
	}
	if !m.Retain {
		return os.ErrInvalid
	}
	r.got = append(r.got, m.Topic+"="+string(m.Payload))
	done(nil)
	return nil
}

// live opens what announces of a gateway, lets it run for some minutes and returns what was published.
func live(t *testing.T, data, id string, broker *retained, buses ...quietBus) (got []string) {
	synctest.Test(t, func(t *testing.T) {
		broker.got = nil
		log := slog.New(slog.DiscardHandler)
		d := &destination{name: "cloud", announcer: delivery.NewAnnouncer(broker, log)}
		g := &Gateway{o: Options{Config: &config.Config{}}, log: log, destinations: []*destination{d}}
		g.o.Config.Gateway.ID, g.o.Config.Gateway.Data = id, data
		for _, b := range buses {
			g.buses = append(g.buses, namedBus{b.name, b})
		}
		g.retire()
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- d.announcer.Run(ctx) }()
		for range 3 {
			time.Sleep(time.Minute)
			synctest.Wait()
			g.cleared()
		}
		stop()
		<-ended
		got = broker.got
	})
	slices.Sort(got)
	return got
}

// A broker keeps what is retained for ever, of a device that was renamed, too.
func TestWhatLeftTheConfigurationIsClearedOnce(t *testing.T) {
	data, broker := t.TempDir(), &retained{}
	wants := func(what string, got []string, want ...string) {
		t.Helper()
		if !slices.Equal(got, want) {
			t.Errorf("%s: got %q, want %q", what, got, want)
		}
	}
	wants("at first", live(t, data, "g", broker, quietBus{"meters", []string{"a", "b"}}, quietBus{"plc", []string{"c"}}))
	wants("unchanged", live(t, data, "g", broker, quietBus{"meters", []string{"a", "b"}}, quietBus{"plc", []string{"c"}}))
	broker.refuse = true
	wants("refused", live(t, data, "g", broker, quietBus{"meters", []string{"a"}}))
	broker.refuse = false
	wants("allowed", live(t, data, "g", broker, quietBus{"meters", []string{"a"}}), "g/b/state=", "g/c/state=", "g/gateway/bus/plc=")
	wants("once", live(t, data, "g", broker, quietBus{"meters", []string{"a"}}))
	wants("below another id, which may be another gateway's by now", live(t, data, "h", broker, quietBus{"meters", []string{"a"}}))
	kept, err := os.ReadFile(announcedPath(data))
	if err != nil || strings.Contains(string(kept), `"g/`) || !strings.Contains(string(kept), `"h/a/state"`) {
		t.Errorf("%s, %v", kept, err)
	}
}

func TestADamagedListOfWhatWasAnnouncedIsBegunAnew(t *testing.T) {
	data, broker := t.TempDir(), &retained{}
	if err := os.WriteFile(announcedPath(data), []byte(`{"cloud":["g/`), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := live(t, data, "g", broker, quietBus{"meters", []string{"a"}}); len(got) > 0 {
		t.Errorf("%q", got)
	}
	if a, err := readAnnounced(announcedPath(data)); err != nil || len(a["cloud"]) != 4 {
		t.Errorf("%v, %v", a, err)
	}
}
