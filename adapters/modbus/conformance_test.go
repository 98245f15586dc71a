package modbus_test

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"gateway/adapters"
	"gateway/adapters/adapterstest"
	"gateway/adapters/modbus"
	"gateway/adapters/port"
	"gateway/adapters/sim"
)

// A socket is where lines are plugged in: openings fail while nothing is plugged in, and unplugging
// cuts those that are open.
type socket struct {
	mu    sync.Mutex
	out   bool
	open  []*wire
	serve func(io.ReadWriter) error
}

func (s *socket) dial(context.Context, string, string) (net.Conn, error) {
	w, err := s.connect()
	if err != nil {
		return nil, err
	}
	return connection{w}, nil
}

func (s *socket) connect() (*wire, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.out {
		return nil, errors.New("nothing there")
	}
	near, far := newWire(0)
	s.open = append(s.open, far)
	go func() {
		s.serve(far)
		far.Close()
	}()
	return near, nil
}

func (s *socket) port(port.Config) (modbus.Line, error) {
	w, err := s.connect()
	if err != nil {
		return nil, err
	}
	return w, nil
}

func (s *socket) plug(in bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.out = !in
	for _, c := range s.open {
		c.Close()
	}
	s.open = nil
}

func TestConformance(t *testing.T) {
	for _, f := range []modbus.Framing{modbus.TCP, modbus.RTU, modbus.ASCII, modbus.RTUOverTCP} {
		t.Run(f.String(), func(t *testing.T) {
			adapterstest.Run(t, true, func(t *testing.T) *adapterstest.Rig {
				m := sim.NewModbus()
				for unit := range byte(3) {
					m.Unit(unit+1).Set(sim.HoldingRegisters, 0, 10, 20, 30)
				}
				s := &socket{serve: m.ServeConn}
				switch f {
				case modbus.RTU, modbus.RTUOverTCP:
					s.serve = m.ServeRTU
				case modbus.ASCII:
					s.serve = m.ServeASCII
				}
				o := modbus.Options{Name: "bus", Framing: f, Address: "h:1", Dial: s.dial, Port: port.Config{Name: "p"}, Open: s.port}
				rig := &adapterstest.Rig{Interval: time.Second, Plug: func() { s.plug(true) }, Unplug: func() { s.plug(false) }}
				unit := map[string]byte{}
				for i, name := range []string{"alpha", "beta", "gamma"} {
					unit[name] = byte(i + 1)
					rig.Devices = append(rig.Devices, name)
					o.Devices = append(o.Devices, modbus.Device{Name: name, Unit: unit[name], Interval: time.Second, Timeout: 200 * time.Millisecond, Points: registers(t, 0, 3)})
				}
				rig.New = func(sink adapters.Sink, clock adapters.Clock) (adapterstest.Adapter, error) {
					o.Sink, o.Clock = sink, clock
					return modbus.New(o)
				}
				rig.Silence = func(device string) { m.Unit(unit[device]).Always(&sim.ModbusFault{Silent: true}) }
				rig.Restore = func(device string) { m.Unit(unit[device]).Always(nil) }
				return rig
			})
		})
	}
}
