package gateway

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func waits(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

func TestAStageStopsAllItsPartsAndWaitsForThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := func(ctx context.Context) error {
			<-ctx.Done()
			<-time.After(time.Second) // of the fake clock
			return nil
		}
		s := start(func(err error) { t.Error(err) }, part{"a", waits}, part{"b", slow})
		begun := time.Now()
		if err := s.stop(t.Context()); err != nil {
			t.Error(err)
		}
		if d := time.Since(begun); d != time.Second {
			t.Errorf("stopped after %v", d)
		}
	})
}

func TestAPartThatFailsIsTold(t *testing.T) {
	failure := make(chan error, 1)
	s := start(func(err error) { failure <- err }, part{"a", waits}, part{"b", func(context.Context) error { return errors.New("broken") }})
	if err := <-failure; err.Error() != "b: broken" {
		t.Error(err)
	}
	if err := s.stop(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestAPartThatDoesNotStopIsNamedAtTheDeadline(t *testing.T) {
	release := make(chan struct{})
	s := start(func(err error) { t.Error(err) }, part{"a", waits}, part{"stuck", func(context.Context) error { <-release; return nil }})
	deadline, cancel := context.WithCancel(t.Context())
	cancel()
	err := s.stop(deadline)
	if err == nil {
		t.Fatal("no error")
	}
	close(release)
	if err := s.stop(t.Context()); err != nil {
		t.Errorf("after its release: %v", err)
	}
}
