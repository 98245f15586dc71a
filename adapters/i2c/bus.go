package i2c

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	periph "periph.io/x/conn/v3/i2c"

	"gateway/adapters"
)

// Options are what a Bus is made of.
type Options struct {
	Name    string        // as samples and messages call the bus
	Path    string        // /dev/i2c-1; opened by OpenLinux unless Open is given
	Timeout time.Duration // of one transaction, in the kernel; 0: as the driver has it. See OpenLinux
	Open    func() (periph.BusCloser, error)

	Devices []Device

	Sink   adapters.Sink
	Clock  adapters.Clock
	Logger *slog.Logger // nil: silent

	// MaxBackoff bounds the pauses between attempts at a chip or a bus that does not answer; 0 is a
	// minute.
	MaxBackoff time.Duration
}

// A Bus reads the chips of one I²C bus.
type Bus struct {
	o       Options
	log     *slog.Logger
	devices []*device

	port     periph.BusCloser // nil while the bus is not open
	mux      muxState
	schedule *adapters.Schedule
	timeouts int  // transactions in a row that timed out, with none that worked between them
	worked   bool // a transaction has, since the bus was opened

	mu     sync.Mutex // guards what Status shows
	status adapters.BusStatus
}

// New checks the options and returns a Bus. It opens nothing.
func New(o Options) (*Bus, error) {
	if o.Sink == nil || o.Clock == nil {
		return nil, errors.New("i2c: a sink and a clock are needed")
	}
	if o.Open == nil {
		if o.Path == "" {
			return nil, errors.New("i2c: a path such as /dev/i2c-1 is needed")
		}
		path, timeout := o.Path, o.Timeout
		o.Open = func() (periph.BusCloser, error) { return OpenLinux(path, timeout) }
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.MaxBackoff == 0 {
		o.MaxBackoff = time.Minute
	}
	b := &Bus{o: o, log: o.Logger.With("bus", o.Name)}
	b.status.Bus = o.Name
	var errs []error
	for i := range o.Devices {
		d, err := newDevice(b, o.Devices[i])
		if err != nil {
			for _, err := range adapters.Joined(err) {
				errs = append(errs, &DeviceError{Index: i, Device: o.Devices[i].Name, Err: err})
			}
			continue
		}
		b.devices = append(b.devices, d)
		b.status.Devices = append(b.status.Devices, adapters.DeviceStatus{Device: d.cfg.Name})
	}
	errs = append(errs, checkAddresses(o.Devices)...)
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return b, nil
}

// A DeviceError is what is wrong with the configuration of one device. New joins all of them.
type DeviceError struct {
	Index  int // in Options.Devices
	Device string
	Err    error
}

func (e *DeviceError) Error() string { return fmt.Sprintf("i2c: device %q: %v", e.Device, e.Err) }
func (e *DeviceError) Unwrap() error { return e.Err }

// A FieldError is what is wrong with one field of a Device or of one of its points.
type FieldError struct {
	Point int    // index into Device.Points; -1: the device itself
	Key   string // chip, address, mux, interval, settings, from, min; "": the point as a whole
	Err   error
}

func (e *FieldError) Error() string { return e.Err.Error() }
func (e *FieldError) Unwrap() error { return e.Err }

func ofDevice(key string, err error) error { return &FieldError{-1, key, err} }

// Status returns how the bus and its devices fare. It may be called from any goroutine.
func (b *Bus) Status() adapters.BusStatus {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.status
	s.Devices = append([]adapters.DeviceStatus(nil), s.Devices...)
	return s
}

func (b *Bus) update(f func(*adapters.BusStatus)) {
	b.mu.Lock()
	f(&b.status)
	b.mu.Unlock()
}

// Run reads the chips until ctx ends, and then returns nil. A bus that is not there, or that vanishes,
// is waited for.
func (b *Bus) Run(ctx context.Context) error {
	now := time.Now()
	b.schedule = adapters.NewSchedule(now)
	for _, d := range b.devices {
		d.job = b.schedule.Add(d.pace, 0) // its index
		d.start(now)
	}
	defer b.close()
	reopen := adapters.Backoff{Min: time.Second, Max: min(b.o.MaxBackoff, 30*time.Second)}
	away := false
	for ctx.Err() == nil {
		if err := b.open(); err != nil {
			b.absent(err)
			away = true
			b.pause(ctx, reopen.Fail())
			continue
		}
		now := time.Now()
		for _, d := range b.devices {
			if away || !b.schedule.Due(d.job).After(now) {
				d.again(now)
			}
		}
		away = false
		err := b.serve(ctx)
		if b.worked {
			reopen.Reset()
		}
		if err == nil {
			break
		}
		b.close()
		b.log.Warn("bus lost; opening it again", "err", err)
		b.update(func(s *adapters.BusStatus) { s.Open, s.Err = false, err.Error() })
		if !b.worked { // opening it anew did not help: it may for long not
			b.pause(ctx, reopen.Fail())
		}
	}
	return nil
}

func (b *Bus) open() error {
	port, err := b.o.Open()
	if err != nil {
		return err
	}
	b.port, b.mux, b.timeouts, b.worked = port, muxState{}, 0, false
	for _, d := range b.devices {
		// A process before this one may have left a channel open.
		if m := d.cfg.Mux; m != nil && !slices.Contains(b.mux.used, m.Address) {
			b.mux.used = append(b.mux.used, m.Address)
		}
	}
	b.log.Info("bus open", "port", port.String())
	b.update(func(s *adapters.BusStatus) {
		s.Open, s.Err = true, ""
		s.Traffic.Opened++
	})
	return nil
}

func (b *Bus) close() {
	for _, d := range b.devices {
		d.abandon()
	}
	if b.port != nil {
		if err := b.port.Close(); err != nil {
			b.log.Warn("bus does not close", "err", err)
		}
		b.port = nil
	}
}

// absent tells of a bus that cannot be opened: in the log when the reason is a new one, and at each
// attempt in the samples of its devices.
func (b *Bus) absent(err error) {
	news := false
	b.update(func(s *adapters.BusStatus) {
		news = s.Err != err.Error()
		s.Open, s.Err = false, err.Error()
	})
	if news {
		b.log.Warn("bus not usable; waiting for it", "err", err)
	}
	now := time.Now()
	for _, d := range b.devices {
		d.missed(now, adapters.ReasonAbsent, err)
	}
}

// serve reads the chips until ctx ends (nil) or the bus must be opened anew.
func (b *Bus) serve(ctx context.Context) error {
	for {
		d, at := b.next()
		if !b.sleep(ctx, at) {
			return nil
		}
		if d == nil || time.Now().Before(at) {
			continue // a beat
		}
		if err := d.turn(); err != nil {
			return err
		}
	}
}

// next returns the device whose turn is next, and when: one that waits for its chip, or one whose
// cycle falls due. A conversion that has ended goes first, so that a cycle's time is that of its
// measurement.
func (b *Bus) next() (*device, time.Time) {
	var first *device
	var at time.Time
	for _, d := range b.devices {
		if d.running() && (first == nil || d.resume.Before(at)) {
			first, at = d, d.resume
		}
	}
	for {
		id, due, ok := b.schedule.Next()
		if !ok || first != nil && !due.Before(at) {
			return first, at
		}
		d := b.devices[id]
		if !d.running() {
			return d, due
		}
		// The cycle before is still under way: this one is lost.
		b.schedule.Done(id, due)
		d.overrun(1)
	}
}

// pause lets d pass, or ctx end.
func (b *Bus) pause(ctx context.Context, d time.Duration) {
	for end := time.Now().Add(d); time.Now().Before(end); {
		if !b.sleep(ctx, end) {
			return
		}
	}
}

// sleep waits until at, or for five seconds if that is sooner, so that the loop's beat goes on. It
// reports whether ctx is still alive.
func (b *Bus) sleep(ctx context.Context, at time.Time) bool {
	b.update(func(s *adapters.BusStatus) { s.Beat++ })
	wait := 5 * time.Second
	if !at.IsZero() {
		wait = min(wait, time.Until(at))
	}
	if wait <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// stuckAfter is how many transactions in a row may time out before the bus is opened anew.
const stuckAfter = 4

// tx carries out one transaction for a device, and watches over the health of the bus.
func (b *Bus) tx(m *Mux, addr uint16, w, r []byte) error {
	err := b.mux.choose(b.port, m)
	if err == nil {
		err = b.port.Tx(addr, w, r)
	}
	fault, _ := FaultOf(err)
	b.update(func(s *adapters.BusStatus) {
		t := &s.Traffic
		t.Exchanges++
		t.Out += uint64(len(w))
		switch {
		case err == nil:
			t.In += uint64(len(r))
		case fault == FaultTimeout, fault == FaultNoAck:
			t.Unanswered++
		}
	})
	switch {
	case err == nil:
		b.timeouts, b.worked = 0, true
	case fault == FaultTimeout:
		b.timeouts++
	case fault == FaultNoAck, fault == FaultRemote:
		b.timeouts = 0 // the lines are free
	}
	if err != nil {
		b.mux.open = nil // a multiplexer that lost its power has forgotten its channel
	}
	return err
}

// lost returns why the bus must be opened anew, or nil.
func (b *Bus) lost(err error) error {
	if f, ok := FaultOf(err); ok && f == FaultGone {
		return err
	}
	if b.timeouts >= stuckAfter {
		b.timeouts = 0
		return fmt.Errorf("i2c: the bus seems stuck, %d transactions in a row timed out: %w", stuckAfter, err)
	}
	return nil
}
