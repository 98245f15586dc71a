package delivery

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"gateway/mqtt"
)

func TestAnAnnouncerPublishesWhatChangedAndAllAfterAReconnect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var got []string
		fail := false
		failing := func(on bool) {
			mu.Lock()
			defer mu.Unlock()
			fail = on
		}
		a := NewAnnouncer(publisherFunc(func(m *mqtt.Message, done func(error)) {
			if !m.Retain || m.QoS != 1 {
				t.Errorf("%+v", m)
			}
			mu.Lock()
			got = append(got, m.Topic+"="+string(m.Payload))
			refuse := fail
			mu.Unlock()
			if refuse {
				done(errors.New("refused"))
			} else {
				done(nil)
			}
		}), slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- a.Run(ctx) }()
		want := func(list ...string) {
			t.Helper()
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			if strings.Join(got, " ") != strings.Join(list, " ") {
				t.Errorf("got %q, want %q", got, list)
			}
			got = nil
		}
		a.Set("b", "1")
		want("b=1")
		a.Set("a", "1")
		want("a=1")
		a.Set("a", "1")
		want()
		a.Set("a", "2")
		want("a=2")
		a.Link(false)
		a.Set("b", "2")
		a.Set("b", "3")
		want()
		a.Link(true)
		want("a=2", "b=3")
		failing(true)
		a.Set("c", "1")
		want("c=1")
		time.Sleep(retryAnnouncement + time.Second)
		want("c=1")
		failing(false)
		time.Sleep(retryAnnouncement)
		want("c=1")
		time.Sleep(10 * retryAnnouncement)
		want()
		a.Clear("old") // what an earlier configuration announced
		want("old=")
		if gone := a.Cleared(); len(gone) != 1 || gone[0] != "old" {
			t.Errorf("cleared: %q", gone)
		}
		a.Link(false)
		a.Link(true)
		want("a=2", "b=3", "c=1")
		if gone := a.Cleared(); len(gone) > 0 {
			t.Errorf("cleared again: %q", gone)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// The publisher keeps what is not acknowledged through reconnects. A broker that accepts connections
// and acknowledges nothing must not gather one more message of each topic with every one of them.
func TestOneAnnouncementOfATopicIsOnItsWayAtATime(t *testing.T) {
	var got []string
	var pending []func(error)
	a := NewAnnouncer(publisherFunc(func(m *mqtt.Message, done func(error)) {
		got = append(got, m.Topic+"="+string(m.Payload))
		pending = append(pending, done)
	}), slog.New(slog.DiscardHandler))
	want := func(list ...string) {
		t.Helper()
		a.publish(t.Context())
		if strings.Join(got, " ") != strings.Join(list, " ") {
			t.Errorf("got %q, want %q", got, list)
		}
		got = nil
	}
	a.Set("state", "online")
	want("state=online")
	for range breaksToQuiet - 1 {
		a.Link(false)
		a.Link(true)
		want()
	}
	a.Set("state", "stale")
	a.Set("state", "newest")
	want()
	pending[0](nil)
	want("state=newest")
	pending[1](nil)
	want()
	a.Link(true)
	want("state=newest")
	a.Clear("state")
	want() // the one before it might arrive after it, and stay
	pending[2](nil)
	want("state=")
	pending[3](nil)
	if gone := a.Cleared(); len(gone) != 1 {
		t.Errorf("cleared: %q", gone)
	}
}

// AWS IoT Core hangs up on a topic that its policy does not allow. Samples must get through all the same.
func TestABrokerThatHangsUpOnAnnouncementsGetsNoneForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var a *Announcer
		connections := 0
		var allowed atomic.Bool
		a = NewAnnouncer(publisherFunc(func(_ *mqtt.Message, done func(error)) {
			if allowed.Load() {
				done(nil)
				return
			}
			a.Link(false)
			done(errors.New("given back"))
			time.AfterFunc(time.Second, func() {
				connections++
				a.Link(true)
			})
		}), slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- a.Run(ctx) }()
		a.Set("state", "online")
		time.Sleep(time.Hour)
		synctest.Wait()
		if connections < 5 || connections > 20 {
			t.Errorf("%d connections broken in an hour", connections)
		}
		allowed.Store(true)
		time.Sleep(11 * time.Minute)
		synctest.Wait()
		a.mu.Lock()
		if !a.topics["state"].told || a.hush.breaks != 0 {
			t.Errorf("not announced where it is allowed: %+v", a.topics["state"])
		}
		a.mu.Unlock()
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}
