package modbus_test

import (
	"context"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"gateway/adapters"
	"gateway/adapters/decode"
	"gateway/adapters/modbus"
	"gateway/adapters/port"
	"gateway/adapters/sim"
)

// field returns a field of a type, with the order and scale that the options set.
func field(t testing.TB, typ string, options ...func(*decode.Spec)) *decode.Field {
	t.Helper()
	ty, err := decode.ParseType(typ)
	if err != nil {
		t.Fatal(err)
	}
	if typ != "bool" {
		if ty, err = ty.InRegisters(); err != nil {
			t.Fatal(err)
		}
	}
	s := decode.Spec{Type: ty}
	for _, o := range options {
		o(&s)
	}
	f, err := decode.New(s)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func point(name string, k modbus.Kind, address uint16, f *decode.Field) modbus.Point {
	return modbus.Point{Point: adapters.Point{Name: name}, Kind: k, Address: address, Field: f}
}

// registers returns n points of one holding register each, named r0, r1, …
func registers(t testing.TB, from uint16, n int) []modbus.Point {
	t.Helper()
	f := field(t, "uint16")
	var all []modbus.Point
	for i := range n {
		all = append(all, point("r"+itoa(i), modbus.Holding, from+uint16(i), f))
	}
	return all
}

func itoa(n int) string {
	if n >= 10 {
		return itoa(n/10) + itoa(n%10)
	}
	return string(rune('0' + n))
}

// A sink keeps the samples it is offered.
type sink struct {
	mu      sync.Mutex
	samples []adapters.Sample
	come    chan struct{} // a token for each
}

func newSink() *sink { return &sink{come: make(chan struct{}, 100000)} }

func (s *sink) Offer(sample adapters.Sample) bool {
	s.mu.Lock()
	s.samples = append(s.samples, sample)
	s.mu.Unlock()
	s.come <- struct{}{}
	return true
}

// next waits for one more sample and returns it.
func (s *sink) next(t testing.TB) adapters.Sample {
	t.Helper()
	select {
	case <-s.come:
	case <-time.After(2 * time.Minute):
		t.Fatal("no sample in two minutes")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	n := len(s.come)
	return s.samples[len(s.samples)-1-n]
}

// of returns the samples of one device so far.
func (s *sink) of(device string) []adapters.Sample {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []adapters.Sample
	for _, x := range s.samples {
		if x.Schema.Device == device {
			all = append(all, x)
		}
	}
	return all
}

// get returns the reading of a point in a sample.
func get(t testing.TB, s adapters.Sample, name string) adapters.Reading {
	t.Helper()
	for _, r := range s.Readings {
		if s.Schema.Points[r.Point].Name == name {
			return r
		}
	}
	t.Fatalf("the sample of %s has no %s", s.Schema.Device, name)
	return adapters.Reading{}
}

func good(v adapters.Value) adapters.Reading {
	return adapters.Reading{Quality: adapters.Good, Value: v}
}
func bad(r adapters.Reason) adapters.Reading {
	return adapters.Reading{Quality: adapters.Bad, Reason: r}
}

// want compares the reading of a point.
func want(t testing.TB, s adapters.Sample, name string, w adapters.Reading) {
	t.Helper()
	g := get(t, s, name)
	g.Point = 0
	if g != w {
		t.Errorf("%s: %s %v %q, want %s %v %q", name, g.Quality, g.Value, g.Reason, w.Quality, w.Value, w.Reason)
	}
}

// start counts running time from the moment when it is called.
func clock() adapters.Clock {
	start := time.Now()
	return func() adapters.Instant { return adapters.Instant(time.Since(start)) }
}

// start runs a bus until the test ends.
func start(t testing.TB, o modbus.Options) (*modbus.Bus, context.CancelFunc) {
	t.Helper()
	if o.Clock == nil {
		o.Clock = clock()
	}
	b, err := modbus.New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	stop := sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(stop)
	return b, stop
}

// tcpServer serves a simulated line on the loopback.
func tcpServer(t testing.TB, m *sim.Modbus) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- m.ServeTCP(l) }()
	t.Cleanup(func() {
		l.Close()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return l.Addr().String()
}

// pipeLine returns what opens a line to serve, in memory.
func pipeLine(t testing.TB, serve func(io.ReadWriter) error) func(port.Config) (modbus.Line, error) {
	open := serveWires(t, 0, serve)
	return func(port.Config) (modbus.Line, error) { return open(), nil }
}

// pipeDial is pipeLine for connections.
func pipeDial(t testing.TB, serve func(io.ReadWriter) error) func(context.Context, string, string) (net.Conn, error) {
	open := serveWires(t, 0, serve)
	return func(context.Context, string, string) (net.Conn, error) { return connection{open()}, nil }
}

// A connection is a wire that cannot discard what came.
type connection struct{ net.Conn }
