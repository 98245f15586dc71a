package gateway

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
)

// A part is something long-lived that the gateway consists of.
type part struct {
	name string
	run  func(context.Context) error
}

// A stage is a group of parts that start and stop together. Stages start from the queue outwards to
// the sensors and stop the other way round, so that no part ever hands on to one that has stopped.
type stage struct {
	cancel context.CancelFunc
	ended  chan struct{} // closed when all parts have returned

	mu   sync.Mutex
	busy map[string]bool // parts that have not returned
	errs []error
}

// start runs the parts. Failed is called for a part that returns an error before it was told to
// stop.
func start(failed func(error), parts ...part) *stage {
	ctx, cancel := context.WithCancel(context.Background())
	s := &stage{cancel: cancel, ended: make(chan struct{}), busy: map[string]bool{}}
	var all sync.WaitGroup
	for _, p := range parts {
		s.busy[p.name] = true
		all.Go(func() {
			err := p.run(ctx)
			s.mu.Lock()
			defer s.mu.Unlock()
			delete(s.busy, p.name)
			if err == nil || errors.Is(err, context.Canceled) {
				return
			}
			if !strings.HasPrefix(err.Error(), p.name+": ") { // a package's name is often the part's
				err = fmt.Errorf("%s: %w", p.name, err)
			}
			if ctx.Err() == nil {
				failed(err)
				return
			}
			s.errs = append(s.errs, err)
		})
	}
	go func() {
		all.Wait()
		close(s.ended)
	}()
	return s
}

// stop tells the parts to stop and waits for them, until ctx ends. It returns what went wrong in
// stopping, and which parts have not stopped.
func (s *stage) stop(ctx context.Context) error {
	s.cancel()
	select {
	case <-s.ended:
	case <-ctx.Done():
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	err := errors.Join(s.errs...)
	for name := range s.busy {
		err = errors.Join(err, fmt.Errorf("%s did not stop in time", name))
	}
	return err
}
