package modbus_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"gateway/adapters"
	"gateway/adapters/modbus"
	"gateway/adapters/port"
	"gateway/adapters/sim"
)

// telegraf#11782, home-assistant/core#72495, neuron#1602: one offline device stalls the rest.
func TestASilentDeviceCostsItsNeighboursOneTimeoutPerBackoffStep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := sim.NewModbus()
		s := newSink()
		o := modbus.Options{Framing: modbus.RTU, Port: port.Config{Name: "p", Baud: 19200}, Open: pipeLine(t, m.ServeRTU), Sink: s}
		for unit := byte(1); unit <= 10; unit++ {
			m.Unit(unit).Set(sim.HoldingRegisters, 0, make([]uint16, 20)...)
			o.Devices = append(o.Devices, modbus.Device{
				Name: fmt.Sprint("dev", unit), Unit: unit, Interval: time.Second, Timeout: 500 * time.Millisecond, Points: registers(t, 0, 20),
			})
		}
		m.Unit(4).Always(&sim.ModbusFault{Silent: true})
		begin := time.Now()
		b, stop := start(t, o)
		time.Sleep(10*time.Minute + 500*time.Millisecond)
		asked := m.Unit(4).Count()
		if asked > 7+10 {
			t.Errorf("in ten minutes the silent device was asked %d times: seven steps up to a minute, then one a minute (less jitter)", asked)
		}
		stop()
		late := 0
		for _, sample := range s.of("dev10") {
			if sample.Time%adapters.Instant(time.Second) > adapters.Instant(450*time.Millisecond) {
				late++
			}
		}
		if late > asked {
			t.Errorf("%d late samples of a neighbour, for %d timeouts", late, asked)
		}
		if n := len(s.of("dev10")); n < 601-asked {
			t.Errorf("%d samples of a neighbour in %v", n, time.Since(begin))
		}
		for _, sample := range s.of("dev4") {
			want(t, sample, "r0", bad(adapters.ReasonTimeout))
		}
		for _, d := range b.Status().Devices {
			if offline := d.State == adapters.Offline; offline != (d.Device == "dev4") {
				t.Errorf("%s is %v", d.Device, d.State)
			}
		}
	})
}

func TestOverrunsAreCountedAndNeverPileUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := sim.NewModbus()
		m.Unit(1).Set(sim.HoldingRegisters, 0, 1).Always(&sim.ModbusFault{Delay: 2300 * time.Millisecond})
		s := newSink()
		b, stop := start(t, modbus.Options{Framing: modbus.TCP, Address: "h:1", Dial: pipeDial(t, m.ServeConn), Sink: s,
			Devices: []modbus.Device{{Name: "dev", Unit: 1, Interval: time.Second, Timeout: 5 * time.Second, Points: registers(t, 0, 1)}}})
		time.Sleep(60*time.Second + 100*time.Millisecond)
		d := b.Status().Devices[0]
		stop()
		if d.Polls+d.Overruns < 57 || d.Polls > 27 {
			t.Errorf("in 60 s of 1 s cycles that take 2.3 s: %d polls, %d overruns", d.Polls, d.Overruns)
		}
	})
}

// A recorder notes when what crossed a line.
type frameAt struct {
	at   time.Time
	size int
}

// recordedLine opens a paced line and records the requests on it.
func recordedLine(t *testing.T, char time.Duration, serve func(io.ReadWriter) error, sent, answered *[]frameAt) func(port.Config) (modbus.Line, error) {
	open := serveWires(t, char, serve)
	return func(port.Config) (modbus.Line, error) {
		w := open()
		w.out.traffic = func(at time.Time, b []byte) { *sent = append(*sent, frameAt{at, len(b)}) }
		w.in.mu.Lock()
		w.in.traffic = func(at time.Time, b []byte) { *answered = append(*answered, frameAt{at, len(b)}) }
		w.in.mu.Unlock()
		return w, nil
	}
}

// Fault 6: a fixed sleep before each answer was read took ten times what the line did. The time on the
// wire is at most 5 % above what the characters and the silences between frames take.
func TestWireTimeIsWithinFivePercentOfTheMinimum(t *testing.T) {
	for _, baud := range []int{9600, 19200, 115200} {
		for _, count := range []int{1, 10, 125} {
			t.Run(fmt.Sprint(baud, "/", count), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					m := sim.NewModbus()
					m.Unit(1).Set(sim.HoldingRegisters, 0, make([]uint16, 125)...)
					char := 11 * time.Second / time.Duration(baud) // 8E1
					gap := 7 * char / 2
					if baud > 19200 {
						gap = 1750 * time.Microsecond
					}
					var sent, answered []frameAt
					c := newClient(t, modbus.Options{Framing: modbus.RTU, Port: port.Config{Name: "p", Baud: baud, Parity: port.ParityEven},
						Open: recordedLine(t, char, m.ServeRTU, &sent, &answered)})
					begin := time.Now()
					const n = 50
					for range n {
						if _, err := c.Read(t.Context(), 1, modbus.Holding, 0, count); err != nil {
							t.Fatal(err)
						}
					}
					took := time.Since(begin)
					var least time.Duration
					for i := range n {
						least += time.Duration(sent[i].size+answered[i].size)*char + gap
					}
					least -= gap
					if over := float64(took)/float64(least) - 1; over > 0.05 {
						t.Errorf("%d exchanges of %d registers at %d baud took %v, %.1f %% above the least, %v", n, count, baud, took, 100*over, least)
					}
					for i := 1; i < n; i++ {
						silence := sent[i].at.Sub(answered[i-1].at) - time.Duration(answered[i-1].size)*char
						if silence < gap {
							t.Fatalf("only %v of silence before request %d, 3.5 characters are %v", silence, i, gap)
						}
					}
				})
			})
		}
	}
}

// mqmgateway#40, home-assistant/core#9451: some buses need a silence when the unit changes.
func TestThePauseIsKeptWhenTheUnitChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := sim.NewModbus()
		m.Unit(1).Set(sim.HoldingRegisters, 0, 1)
		m.Unit(2).Set(sim.HoldingRegisters, 0, 1)
		var sent, answered []frameAt
		c := newClient(t, modbus.Options{Framing: modbus.RTU, Port: port.Config{Name: "p"}, Pauses: modbus.Pauses{Connect: time.Second, Request: 20 * time.Millisecond, Unit: 100 * time.Millisecond},
			Open: recordedLine(t, 0, m.ServeRTU, &sent, &answered)})
		begin := time.Now()
		for _, unit := range []byte{1, 1, 2, 2, 1} {
			if _, err := c.Read(t.Context(), unit, modbus.Holding, 0, 1); err != nil {
				t.Fatal(err)
			}
		}
		if d := sent[0].at.Sub(begin); d < time.Second {
			t.Errorf("the first request came %v after opening, the pause is 1 s", d)
		}
		for i, least := range []time.Duration{0, 20, 100, 20, 100} {
			if i > 0 {
				if d := sent[i].at.Sub(answered[i-1].at); d < least*time.Millisecond || d > least*time.Millisecond+30*time.Millisecond {
					t.Errorf("request %d came after a pause of %v, want %d ms", i, d, least)
				}
			}
		}
	})
}

func TestDevicesBehindOneGatewayShareOneConnection(t *testing.T) {
	m := sim.NewModbus()
	s := newSink()
	address := tcpServer(t, m)
	var dials atomic.Int32
	o := modbus.Options{Framing: modbus.TCP, Address: address, Sink: s, Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
		dials.Add(1)
		return (&net.Dialer{}).DialContext(ctx, network, address)
	}}
	for unit := byte(1); unit <= 5; unit++ {
		m.Unit(unit).Set(sim.HoldingRegisters, 0, uint16(unit))
		o.Devices = append(o.Devices, modbus.Device{Name: fmt.Sprint("dev", unit), Unit: unit, Interval: 10 * time.Millisecond, Timeout: time.Minute, Points: registers(t, 0, 1)})
	}
	start(t, o)
	for range 50 {
		sample := s.next(t)
		want(t, sample, "r0", good(adapters.UintValue(uint64(sample.Schema.Device[3]-'0'))))
	}
	if n := dials.Load(); n != 1 {
		t.Errorf("%d connections", n)
	}
}

// node-red-contrib-modbus#192, #416, zigbee2mqtt#17809: no recovery after a USB drop.
func TestASerialPortThatVanishesIsReopenedByItsPath(t *testing.T) {
	pty, err := sim.OpenPTY(t.TempDir() + "/usb-RS485")
	if err != nil {
		t.Fatal(err)
	}
	m := sim.NewModbus()
	m.Unit(1).Set(sim.HoldingRegisters, 0, 77)
	served := make(chan error, 1)
	go func() { served <- m.ServeRTU(pty) }()
	t.Cleanup(func() {
		pty.Close()
		<-served
	})
	s := newSink()
	b, _ := start(t, modbus.Options{Framing: modbus.RTU, Port: port.Config{Name: pty.Path(), Baud: 115200}, Sink: s,
		Backoff: adapters.Backoff{Min: 5 * time.Millisecond, Max: 20 * time.Millisecond},
		Devices: []modbus.Device{{Name: "dev", Unit: 1, Interval: 10 * time.Millisecond, Timeout: 200 * time.Millisecond, Points: registers(t, 0, 1)}}})
	await := func(r adapters.Reading) {
		t.Helper()
		for range 500 {
			got := get(t, s.next(t), "r0")
			if got.Point = 0; got == r {
				return
			}
		}
		t.Fatalf("%v %v %q never came", r.Quality, r.Value, r.Reason)
	}
	for range 2 {
		await(good(adapters.UintValue(77)))
		if err := pty.Unplug(); err != nil {
			t.Fatal(err)
		}
		await(bad(adapters.ReasonAbsent))
		if b.Status().Open {
			t.Error("the bus is open without its port")
		}
		if err := pty.Return(); err != nil {
			t.Fatal(err)
		}
	}
	await(good(adapters.UintValue(77)))
}

// An hourly reading must not wait for an hour because the device was away for a minute.
func TestADeviceWithALongIntervalIsReadSoonAfterItsReturn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := sim.NewModbus()
		s := newSink()
		points := registers(t, 0, 2)
		points[1].Interval = 24 * time.Hour
		begin := time.Now()
		start(t, modbus.Options{Framing: modbus.TCP, Address: "h:1", Dial: pipeDial(t, m.ServeConn), Sink: s,
			Devices: []modbus.Device{{Name: "dev", Unit: 1, Interval: time.Hour, Timeout: 100 * time.Millisecond, Points: points}}})
		want(t, s.next(t), "r0", bad(adapters.ReasonTimeout))
		time.Sleep(20 * time.Second)
		m.Unit(1).Set(sim.HoldingRegisters, 0, 1, 2)
		var sample adapters.Sample
		for sample = s.next(t); get(t, sample, "r0").Quality != adapters.Good; sample = s.next(t) {
		}
		if since := time.Since(begin); since > 2*time.Minute {
			t.Errorf("read again after %v", since)
		}
		want(t, sample, "r1", good(adapters.UintValue(2)))
		// After that the rhythm is the old one.
		time.Sleep(time.Until(begin.Add(time.Hour + time.Second)))
		all := s.of("dev")
		if last := time.Duration(all[len(all)-1].Time); last < time.Hour || last > time.Hour+time.Second {
			t.Errorf("the sample after it came at %v", last)
		}
	})
}

func TestUDP(t *testing.T) {
	m := sim.NewModbus()
	m.Unit(1).Set(sim.HoldingRegisters, 0, 11, 22)
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- m.ServeUDP(conn) }()
	t.Cleanup(func() {
		conn.Close()
		<-done
	})
	c := newClient(t, modbus.Options{Framing: modbus.UDP, Address: conn.LocalAddr().String()})
	c.Timeout = 100 * time.Millisecond
	mustRead(t, c, modbus.Holding, 1, 22)
	// A datagram that is lost, and one that comes late, cost one exchange each and no more.
	m.Unit(1).Fault(sim.ModbusFault{Silent: true}, sim.ModbusFault{Delay: 150 * time.Millisecond})
	for range 2 {
		if _, err := c.Read(t.Context(), 1, modbus.Holding, 0, 1); err == nil {
			t.Error("an answer that was lost")
		}
	}
	mustRead(t, c, modbus.Holding, 1, 22)
	mustRead(t, c, modbus.Holding, 0, 11)
}

// What a device was asked for counts for it as told, and was read in vain when nobody listens.
func TestTheTurnUnderWayAtTheEndIsFinished(t *testing.T) {
	for name, c := range map[string]struct {
		delay time.Duration
		heard int
		takes time.Duration
	}{
		"the device answers":      {200 * time.Millisecond, 1, 100 * time.Millisecond},
		"the device takes longer": {5 * time.Second, 0, 500 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := sim.NewModbus()
				m.Unit(1).Set(sim.HoldingRegisters, 0, 7)
				m.Unit(1).Always(&sim.ModbusFault{Delay: c.delay})
				s := newSink()
				_, stop := start(t, modbus.Options{
					Framing: modbus.TCP, Address: "plc:502", Dial: pipeDial(t, m.ServeConn), Sink: s,
					Devices: []modbus.Device{{Name: "d", Unit: 1, Interval: 10 * time.Second, Timeout: 10 * time.Second, Points: registers(t, 0, 1)}},
				})
				time.Sleep(100 * time.Millisecond)
				begin := time.Now()
				stop()
				if took := time.Since(begin); took != c.takes {
					t.Errorf("the end took %v, want %v", took, c.takes)
				}
				if n := len(s.of("d")); n != c.heard || m.Unit(1).Count() != 1 {
					t.Errorf("%d samples of %d requests, want %d of 1", n, m.Unit(1).Count(), c.heard)
				}
			})
		})
	}
}
