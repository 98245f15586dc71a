// Package gateway is the wiring: it makes the parts that a configuration asks for, starts them in
// order and stops them in order. It is the only package that knows all the others, and it has no
// other task.
package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"gateway/adapters"
	"gateway/buffer"
	"gateway/config"
	"gateway/internal/clock"
	"gateway/internal/ledger"
	"gateway/internal/memory"
	"gateway/internal/report"
	"gateway/internal/sample"
	"gateway/mqtt/broker"
	"gateway/systemd"
)

// Options say what gateway to open.
type Options struct {
	Config     *config.Config
	ConfigFile string // from whose directory relative names of files count
	Version    string // what the local broker says of itself
	Log        *slog.Logger
	// StopTimeout bounds an orderly stop; default 20 s.
	StopTimeout time.Duration
	// Drain bounds how long a stop waits for samples that can still be delivered; default 2 s. What is
	// not delivered by then is delivered at the next start.
	Drain time.Duration
	// Queued, if not nil, is told of every sample that was queued; it must not keep the readings.
	Queued func(id buffer.ID, s *adapters.Sample)
	// Linked, if not nil, is called once the connections have been started and before anything is
	// delivered; its error ends Run.
	Linked func(ctx context.Context) error
	// Started, if not nil, is called when all parts have been started, and the broker has tried to listen.
	Started func()
	// Clocks are where times come from; nil: the machine's own.
	Clocks clock.Source
	// Sockets listen already, at addresses of the local broker's: these it does not open. Run closes them.
	Sockets []net.Listener
	// OpenI2C replaces the opening of I2C buses; nil: the machine's own.
	OpenI2C I2COpener
}

// A Gateway is all parts that a configuration asks for, joined.
type Gateway struct {
	o            Options
	log          *slog.Logger
	clock        *clock.Clock
	queue        *buffer.Queue
	decoder      sample.Decoder // shared by the writer and all who read
	writer       *writer
	ledger       *ledger.Ledger
	timeline     timeline
	filter       *report.Filter
	broker       *broker.Broker // nil: there is none
	brokerStore  io.Closer
	destinations []*destination
	buses        []namedBus
	announced    announced
	health       systemd.Health
}

type namedBus struct {
	name string
	bus
}

// Open makes the parts and opens the queue; the configuration has been checked. The data directory
// is in use from here on: if Run is not called, Close must be.
func Open(o Options) (_ *Gateway, err error) {
	if o.StopTimeout == 0 {
		o.StopTimeout = 20 * time.Second
	}
	if o.Drain == 0 {
		o.Drain = 2 * time.Second
	}
	g := &Gateway{o: o, log: o.Log}
	if err := makeDataDir(o.Config.Gateway.Data); err != nil {
		return nil, err
	}
	if err := g.openQueue(); err != nil { // before all else: one that a newer program wrote is left untouched
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = g.Close() // the error that ended Open says more
		}
	}()
	if g.clock, err = clock.Open(clock.Options{Dir: o.Config.Gateway.Data, Source: o.Clocks, Trust: o.Config.Gateway.Clock == "trust", Logger: o.Log}); err != nil {
		o.Log.Warn("the table of boots is not as it should be", "err", err)
	}
	last, err := lastOfDevices(g.queue, &g.timeline)
	if err != nil {
		return nil, err
	}
	g.writer = newWriter(g.queue, &g.decoder, g.clock.Boot(), last, o.Log)
	if err := g.openLedger(); err != nil {
		return nil, err
	}
	if err := g.openDestinations(); err != nil {
		return nil, err
	}
	g.filter = report.New(g.writer, reportRules(o.Config.Reporting()))
	g.health.Add("the writer", 20*time.Second, g.writer.Beat)
	if err := g.openBuses(); err != nil {
		return nil, err
	}
	g.retire()
	// A configuration of thousands of points takes more memory than all that runs. From here on only
	// who we are is asked of it.
	slim := &config.Config{Gateway: o.Config.Gateway}
	slim.Gateway.At = config.Place{}
	g.o.Config = slim
	return g, nil
}

// makeDataDir makes the data directory and finds out whether it can be written to.
func makeDataDir(dir string) error {
	err := os.MkdirAll(dir, 0o700)
	if err == nil {
		var probe *os.File
		if probe, err = os.CreateTemp(dir, ".probe-"); err == nil {
			probe.Close()
			err = os.Remove(probe.Name())
		}
	}
	switch {
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("data directory %s: no permission to write as this user; give it to this user, or set [gateway] data to a directory of your own", dir)
	case err != nil && !slices.ContainsFunc(livedWith, func(e syscall.Errno) bool { return errors.Is(err, e) }):
		return fmt.Errorf("data directory %s: %w; set [gateway] data to a directory that can be written to", dir, err)
	}
	return nil
}

// livedWith are the faults of a disk that takes nothing today: the parts say so, and go on in memory.
var livedWith = []syscall.Errno{syscall.EROFS, syscall.ENOSPC, syscall.EDQUOT, syscall.EIO}

func (g *Gateway) openQueue() error {
	cfg := &g.o.Config.Queue
	dir := filepath.Join(g.o.Config.Gateway.Data, "queue")
	q, err := buffer.Open(queueOptions(cfg, dir, g.queueLost, g.queueLate, g.log))
	var locked *buffer.ErrLocked
	switch {
	case errors.As(err, &locked) && locked.Pid != 0:
		return fmt.Errorf("data directory %s is in use by another gateway, pid %d; stop that one, or set [gateway] data to another directory", g.o.Config.Gateway.Data, locked.Pid)
	case err != nil:
		return err
	}
	g.queue = q
	r := q.Recovery()
	if r.Torn || r.CursorsLost || r.Unreadable > 0 {
		g.log.Warn("the queue was not closed in order; what survived is delivered", "newest", r.Newest.Seq,
			"torn_tail", r.Torn, "cursors_lost", r.CursorsLost, "unreadable_segments", r.Unreadable)
	}
	return nil
}

// recent calls fn with the newest records.
func recent(q *buffer.Queue, fn func(buffer.Record) error) error {
	const depth = 20_000 // a device that is older than so many samples begins anew
	st := q.Stats()
	from := buffer.ID{Epoch: st.First.Epoch, Seq: st.First.Seq}
	if st.Last.Seq > depth {
		from.Seq = max(from.Seq, st.Last.Seq-depth)
	}
	return q.Records(from, fn)
}

// lastOfDevices finds the sequence of each device's latest sample, so that the next one can name it.
// It reads the newest segments only: a device that has been silent for longer begins anew.
func lastOfDevices(q *buffer.Queue, line *timeline) (map[string]uint64, error) {
	last := map[string]uint64{}
	var dec sample.Decoder
	var r sample.Record
	err := recent(q, func(rec buffer.Record) error {
		if dec.Decode(rec.Data, rec.Dict, &r) == nil { // what cannot be decoded has no device
			last[r.Sample.Schema.Device] = rec.ID.Seq
			line.note(rec.ID.Seq, ledger.Moment{Boot: r.Boot, At: r.Sample.Time})
		}
		return nil
	})
	return last, err
}

// Close lets go of the data directory; only for a Gateway that was never Run.
func (g *Gateway) Close() error {
	err := g.queue.Close()
	if err != nil {
		err = fmt.Errorf("closing the queue: %w", err)
	}
	if g.ledger != nil {
		// What became of the last records is known only now that the writer has ended.
		err = errors.Join(err, g.ledger.Keep())
	}
	if g.brokerStore != nil {
		err = errors.Join(err, g.brokerStore.Close())
	}
	return err
}

// Run reads, queues and publishes until ctx ends, and then stops in order: polls first, then the
// writer, the deliveries, the connections, and the queue last. A part that fails for good ends Run
// as well, in the same order, with its error.
func (g *Gateway) Run(ctx context.Context) error {
	g.trim() // what loading and checking the configuration took
	failure := make(chan error, 1)
	failed := func(err error) {
		select {
		case failure <- err:
		default: // the first one counts
		}
	}
	stages := []*stage{
		start(failed, part{"queue", g.queue.Run}, part{"clock", g.clock.Run}),
		start(failed, g.links()...),
	}
	if g.o.Linked != nil {
		if err := g.o.Linked(ctx); err != nil {
			return errors.Join(err, g.stop(stages))
		}
	}
	stages = append(stages,
		start(failed, g.deliveries()...),
		start(failed, part{"writer", g.writer.Run}),
		start(failed, part{"ledger", g.ledger.Run}, part{"report", g.flushReports}, part{"announcements", g.announce},
			part{"settling", g.settle}),
		start(failed, g.polls()...),
	)
	if g.o.Started != nil {
		if g.broker != nil { // who is started after us finds it listening, or learns why it is not
			select {
			case <-g.broker.Tried():
			case <-ctx.Done():
			}
		}
		g.o.Started()
	}
	var err error
	select {
	case <-ctx.Done():
		g.log.Info("stopping")
	case err = <-failure:
		g.log.Error("stopping, because a part failed", "err", err)
	}
	err = errors.Join(err, g.stop(stages))
	if err == nil {
		g.log.Info("stopped")
	}
	return err
}

// stop ends the stages in the reverse of the order in which they were started.
func (g *Gateway) stop(stages []*stage) error {
	ctx, cancel := context.WithTimeout(context.Background(), g.o.StopTimeout)
	defer cancel()
	var errs []error
	for i := len(stages) - 1; i >= 0; i-- {
		if i == deliveryStage {
			g.drain(ctx)
		}
		errs = append(errs, stages[i].stop(ctx))
	}
	return errors.Join(append(errs, g.Close())...)
}

// deliveryStage is the index of the deliveries among Run's stages.
const deliveryStage = 2

// drain gives the destinations that are connected a moment to deliver what the writer wrote last.
func (g *Gateway) drain(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, g.o.Drain)
	defer cancel()
	done := make(chan struct{}, len(g.destinations))
	for _, d := range g.destinations {
		go func() {
			if d.Status().Connected {
				_ = d.Drain(ctx) // what is left is delivered at the next start
			}
			done <- struct{}{}
		}()
	}
	for range g.destinations {
		<-done
	}
}

// settle gives back what the start took, once the first polls and connections are over.
func (g *Gateway) settle(ctx context.Context) error {
	select {
	case <-time.After(10 * time.Second):
		g.trim()
	case <-ctx.Done():
	}
	return nil
}

// trim gives memory back; that it cannot is no fault.
func (g *Gateway) trim() {
	if err := memory.Trim(); err != nil {
		g.log.Debug("memory is not given back", "err", err)
	}
}

func (g *Gateway) polls() (parts []part) {
	for _, b := range g.buses {
		parts = append(parts, part{b.name, b.Run})
	}
	return parts
}

// Health tells whether the writer and the buses make progress.
func (g *Gateway) Health() error { return g.health.Check() }
