// Package serial reads sensors that talk over a serial line: those that talk by themselves and those
// that answer when they are asked. It owns the port, cuts what comes into frames (package frame),
// takes the points out of them (package parse) and offers samples.
package serial

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"regexp"
	"sync"
	"time"

	"gateway/adapters"
	"gateway/adapters/port"
	"gateway/adapters/serial/frame"
	"gateway/adapters/serial/parse"
)

// A Conn is an open line: a *port.Port, or a net.Conn to a port server. It may also have Discard,
// Unsend, SetBaud, Baud, Break and Counts, as a *port.Port does.
type Conn interface {
	io.ReadWriteCloser
	SetReadDeadline(time.Time) error
	SetWriteDeadline(time.Time) error
}

// Options say what is on the line. Sink, Clock and Logger are required.
type Options struct {
	Name string                                  // of the bus
	Open func(ctx context.Context) (Conn, error) // ctx ends after 5 s

	Frame   frame.Spec
	Devices []Device

	Pause  time.Duration // silence on the line before a request; 0: none
	Settle time.Duration // after opening, before the first request: many boards reset when the port opens

	Sink   adapters.Sink
	Clock  adapters.Clock
	Logger *slog.Logger
	Trace  func(Event) // for the monitor; nil: nobody looks
}

// A Device gives points, in one or more messages. If its messages have something to send it is
// polled, otherwise it talks by itself.
type Device struct {
	Name   string
	Labels []adapters.Label
	Points []Point

	// Polled: the cycle in which all messages are asked for. Talking: 0 gives a sample for each
	// message, as it comes; otherwise one sample in each interval, with the latest of each point.
	Interval time.Duration

	// Polled: how long to wait for each answer. Talking: after so long without a message the device
	// is offline; 0: it may be silent for ever.
	Timeout time.Duration

	Messages []Message
}

// A Point is a quantity of a device.
type Point struct {
	adapters.Point
	Interval time.Duration // at least as long between two readings of it; 0: each
}

// A Message is a frame from a device, and how to have it.
type Message struct {
	Send     []byte // the request; nil: it comes by itself
	NoAnswer bool   // nothing comes back: only the Wait counts

	Parse   parse.Spec     // its Fields are the points; with no Fields and no Match any frame is the answer
	Points  []int          // Parse.Fields[i] is Device.Points[Points[i]]
	Refused *regexp.Regexp // an answer by which the device refuses; nil: none
	Frame   *frame.Spec    // how this answer is framed, where not as all on the line

	Break    time.Duration // hold the line in a break before the request (SDI-12)
	Baud     int           // the rate from this request on; 0: unchanged
	ThenBaud int           // the rate from its end on (IEC 62056-21 mode C)
	Wait     time.Duration // pause after the answer, for a device that measures meanwhile
	Timeout  time.Duration // for this answer; 0: Device.Timeout
}

// An Event is something that a monitor wants to see.
type Event struct {
	At     time.Time
	Sent   []byte       // a request
	Got    []byte       // bytes as they came
	Frame  *frame.Frame // what the cutter made of them
	Device string       // whose frame it was
	Sample *adapters.Sample
	Err    error // the port failed or could not be opened
}

// Stats are counters of a bus, since it was made.
type Stats struct {
	Bytes, Sent              uint64 // received, sent
	Frames                   uint64 // cut
	Unclaimed                uint64 // frames that no device took
	Garbage, Checksum, Other uint64 // runs of bytes that were no frame
	Requests, Unanswered     uint64 // sent; of them, those without an answer in time
	Opened                   uint64 // times that the port was opened
	Line                     port.Counts
}

// since returns what was counted after the earlier counts b.
func (s Stats) since(b Stats) Stats {
	return Stats{
		s.Bytes - b.Bytes, s.Sent - b.Sent, s.Frames - b.Frames, s.Unclaimed - b.Unclaimed,
		s.Garbage - b.Garbage, s.Checksum - b.Checksum, s.Other - b.Other,
		s.Requests - b.Requests, s.Unanswered - b.Unanswered, s.Opened - b.Opened, s.Line.Sub(b.Line),
	}
}

// A Bus is one serial line and the devices on it.
type Bus struct {
	o       Options
	cutter  *frame.Cutter
	devices []*device

	mu     sync.Mutex
	status adapters.BusStatus
	stats  Stats
}

// A device is what the bus knows of a Device.
type device struct {
	Device
	index    int // in Bus.devices
	schema   *adapters.Schema
	messages []*message
	polled   bool
	backoff  adapters.Backoff

	results []parse.Result // of each point, collected for the next sample
	fresh   []bool         // results that came since the last sample
	next    []time.Time    // when each point is due again; zero: at once
	first   adapters.Instant
	heard   time.Time // when the last message came
	told    bool      // its absence has been told by a sample
	before  Stats     // of the bus, when the last message came
}

type message struct {
	Message
	parser *parse.Parser // nil: any frame will do
	cutter *frame.Cutter // nil: the line's
	out    []parse.Result
}

// A DeviceError is what is impossible about one device, or one of its messages.
type DeviceError struct {
	Device  int // index into Options.Devices
	Message int // index into its Messages, or -1
	Err     error
}

func (e *DeviceError) Error() string { return e.Err.Error() }
func (e *DeviceError) Unwrap() error { return e.Err }

// New returns the bus, or all that is impossible about it.
func New(o Options) (*Bus, error) {
	b := &Bus{o: o}
	var errs []error
	var err error
	if b.cutter, err = frame.New(o.Frame); err != nil {
		errs = append(errs, fmt.Errorf("serial: %w", err))
	}
	b.status.Bus = o.Name
	for i := range o.Devices {
		d, err := newDevice(o.Name, o.Devices[i])
		if err != nil {
			for _, err := range adapters.Joined(err) {
				var de *DeviceError
				if !errors.As(err, &de) {
					de = &DeviceError{Message: -1, Err: err}
				}
				errs = append(errs, &DeviceError{i, de.Message, fmt.Errorf("serial: device %q: %w", o.Devices[i].Name, de.Err)})
			}
			continue
		}
		if !d.polled && !o.Frame.Recovers() {
			errs = append(errs, fmt.Errorf("serial: device %q talks by itself: frames of a fixed or announced length cannot be found again after a lost byte: give a start, a checksum or a silence", d.Name))
		}
		d.index = len(b.devices)
		b.devices = append(b.devices, d)
		b.status.Devices = append(b.status.Devices, adapters.DeviceStatus{Device: d.Name})
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return b, nil
}

func newDevice(bus string, o Device) (*device, error) {
	d := &device{Device: o, schema: &adapters.Schema{Bus: bus, Device: o.Name, Labels: o.Labels}}
	for _, p := range o.Points {
		d.schema.Points = append(d.schema.Points, p.Point)
	}
	n := len(o.Points)
	d.results, d.fresh, d.next = make([]parse.Result, n), make([]bool, n), make([]time.Time, n)
	if len(o.Messages) == 0 || n == 0 {
		return nil, errors.New("it has no points; name a group in match, as in (?P<weight>[0-9.]+), or add points")
	}
	taken := make([]bool, n)
	var wrong []error
	for i, m := range o.Messages {
		d.polled = d.polled || m.Send != nil
		if d.polled != (m.Send != nil) {
			return nil, errors.New("it is asked for some messages and sends others by itself; make it two devices")
		}
		for _, p := range m.Points {
			if p < 0 || p >= n {
				return nil, &DeviceError{Message: i, Err: fmt.Errorf("there is no point %d", p)}
			}
			taken[p] = true
		}
		in, err := d.newMessage(m)
		if err != nil {
			for _, err := range adapters.Joined(err) {
				wrong = append(wrong, &DeviceError{Message: i, Err: err})
			}
		}
		d.messages = append(d.messages, in)
	}
	if err := errors.Join(wrong...); err != nil {
		return nil, err
	}
	names := map[string]bool{}
	for i, ok := range taken {
		name := o.Points[i].Name
		switch {
		case !ok:
			return nil, fmt.Errorf("point %q is in no message", name)
		case names[name]:
			return nil, fmt.Errorf("two points are called %q", name)
		}
		names[name] = true
	}
	if d.polled && d.Interval <= 0 {
		return nil, errors.New("how often to ask is not said")
	}
	if d.polled {
		d.backoff = adapters.Backoff{Min: d.Interval, Max: max(time.Minute, d.Interval)}
	}
	return d, nil
}

func (d *device) newMessage(o Message) (*message, error) {
	m := &message{Message: o, out: make([]parse.Result, len(o.Parse.Fields))}
	if m.Timeout == 0 {
		m.Timeout = d.Timeout
	}
	var err error
	switch {
	case len(o.Points) != len(o.Parse.Fields):
		return nil, fmt.Errorf("%d fields for %d points", len(o.Parse.Fields), len(o.Points))
	case d.polled && m.Timeout <= 0 && !m.NoAnswer:
		return nil, errors.New("how long to wait for the answer is not said")
	case d.polled && m.NoAnswer && len(m.Points) > 0:
		return nil, errors.New("without an answer there are no points")
	case len(o.Parse.Fields) > 0 || o.Parse.Match != "":
		if m.parser, err = newParser(o.Parse); err != nil {
			return nil, err
		}
	case !d.polled:
		return nil, errors.New("nothing is to be taken from it")
	}
	if o.Frame != nil {
		if m.cutter, err = frame.New(*o.Frame); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// newParser returns the parser of a message; one without fields only looks whether a frame matches.
func newParser(s parse.Spec) (*parse.Parser, error) {
	if len(s.Fields) == 0 {
		s.Format = parse.Regex
	}
	return parse.New(s)
}

// steady is how long a port must have been open to count as one that works: a port server that takes
// connections only to close them is backed off from.
const steady = 10 * time.Second

// Run reads the devices until ctx ends and the exchange under way is over. A port that is not there, or
// vanishes, is waited for.
func (b *Bus) Run(ctx context.Context) error {
	backoff := adapters.Backoff{Min: 250 * time.Millisecond, Max: 5 * time.Second}
	for ctx.Err() == nil {
		conn, err := b.open(ctx)
		if err == nil {
			began := time.Now()
			b.opened()
			err = b.session(ctx, conn)
			err = errors.Join(err, conn.Close())
			if time.Since(began) > steady {
				backoff.Reset()
			}
		}
		if ctx.Err() != nil {
			break
		}
		b.lost(err)
		if !b.wait(ctx, backoff.Fail()) {
			break
		}
	}
	b.mu.Lock()
	b.status.Open = false
	b.mu.Unlock()
	return nil
}

// open opens the line within a heartbeat: a port server whose host is gone would keep the loop for minutes.
func (b *Bus) open(ctx context.Context) (Conn, error) {
	b.beat()
	ctx, cancel := context.WithTimeout(ctx, heartbeat)
	defer cancel()
	return b.o.Open(ctx)
}

// wait waits for d, which is short, and reports whether ctx is still good.
func (b *Bus) wait(ctx context.Context, d time.Duration) bool {
	b.beat()
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func (b *Bus) beat() {
	b.mu.Lock()
	b.status.Beat++
	b.mu.Unlock()
}

func (b *Bus) opened() {
	b.mu.Lock()
	b.status.Open, b.status.Err = true, ""
	b.stats.Opened++
	b.mu.Unlock()
	b.o.Logger.Info("bus open", "bus", b.o.Name)
}

// lost says that there is no line: in the log when the reason is a new one, and with a sample of each
// device when it goes away.
func (b *Bus) lost(err error) {
	b.trace(Event{Err: err})
	b.mu.Lock()
	news := b.status.Err != err.Error()
	went := b.status.Open || b.status.Err == ""
	b.status.Open, b.status.Err = false, err.Error()
	b.mu.Unlock()
	if news {
		b.o.Logger.Warn("bus not usable; waiting for it", "bus", b.o.Name, "err", err)
	}
	if went {
		for _, d := range b.devices {
			b.fail(d, adapters.ReasonAbsent, err)
		}
	}
}

// Status tells how the bus and its devices fare.
func (b *Bus) Status() adapters.BusStatus {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.status
	s.Devices = append([]adapters.DeviceStatus(nil), s.Devices...)
	n := &b.stats
	s.Traffic = adapters.Traffic{
		Opened: n.Opened, Exchanges: n.Requests, Unanswered: n.Unanswered, Damaged: n.Checksum + n.Garbage + n.Other,
		Out: n.Sent, In: n.Bytes,
	}
	return s
}

// Stats returns the counters of the bus.
func (b *Bus) Stats() Stats {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.stats
}

func (b *Bus) trace(e Event) {
	if b.o.Trace != nil {
		e.At = time.Now()
		b.o.Trace(e)
	}
}
