package modbus_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gateway/adapters"
	"gateway/adapters/modbus"
	"gateway/adapters/port"
	"gateway/adapters/sim"
)

// The faults of goburrow/modbus v0.1.0 and of pollers built like it, one test for each. They run over
// lines in memory, in simulated time.

// ask returns a client to a simulated line in one framing.
func ask(t *testing.T, f modbus.Framing, m *sim.Modbus) *modbus.Client {
	t.Helper()
	o := modbus.Options{Framing: f, Address: "h:1", Port: port.Config{Name: "p"}}
	switch f {
	case modbus.TCP:
		o.Dial = pipeDial(t, m.ServeConn)
	case modbus.RTUOverTCP:
		o.Dial = pipeDial(t, m.ServeRTU)
	case modbus.RTU:
		o.Open = pipeLine(t, m.ServeRTU)
	case modbus.ASCII:
		o.Open = pipeLine(t, m.ServeASCII)
	}
	return newClient(t, o)
}

func newClient(t *testing.T, o modbus.Options) *modbus.Client {
	t.Helper()
	c, err := modbus.NewClient(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// each runs a test over every framing, in simulated time.
func each(t *testing.T, framings []modbus.Framing, test func(t *testing.T, m *sim.Modbus, u *sim.ModbusUnit, c *modbus.Client)) {
	for _, f := range framings {
		t.Run(f.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := sim.NewModbus()
				u := m.Unit(1).Set(sim.HoldingRegisters, 0, 100, 101, 102, 103, 104, 105, 106, 107).Set(sim.InputRegisters, 0, 200, 201, 202, 203)
				test(t, m, u, ask(t, f, m))
			})
		})
	}
}

var (
	all     = []modbus.Framing{modbus.TCP, modbus.RTU, modbus.RTUOverTCP, modbus.ASCII}
	onLine  = []modbus.Framing{modbus.RTU, modbus.RTUOverTCP, modbus.ASCII}
	rtuOnly = []modbus.Framing{modbus.RTU, modbus.RTUOverTCP}
	tcpOnly = []modbus.Framing{modbus.TCP}
)

// mustRead reads one register and compares it.
func mustRead(t *testing.T, c *modbus.Client, k modbus.Kind, address, want uint16) {
	t.Helper()
	b, err := c.Read(context.Background(), 1, k, address, 1)
	if err != nil {
		t.Fatalf("%v %d: %v", k, address, err)
	}
	if got := binary.BigEndian.Uint16(b); got != want {
		t.Fatalf("%v %d: %d, want %d", k, address, got, want)
	}
}

// Fault 1, and goburrow#8, simonvetter#40: "a late reply poisons later reads".
func TestALateReplyIsNotTakenForTheNextOne(t *testing.T) {
	each(t, all, func(t *testing.T, m *sim.Modbus, u *sim.ModbusUnit, c *modbus.Client) {
		c.Timeout = 200 * time.Millisecond
		u.Fault(sim.ModbusFault{Delay: 260 * time.Millisecond})
		if _, err := c.Read(t.Context(), 1, modbus.Holding, 0, 1); !errors.Is(err, modbus.ErrTimeout) {
			t.Fatalf("late by 60 ms: %v", err)
		}
		for n := range uint16(8) {
			mustRead(t, c, modbus.Holding, n, 100+n)
		}
	})
}

// Fault 2: a late reply of another function was "exception 2", on TCP too.
func TestALateReplyOfAnotherFunctionIsNoException(t *testing.T) {
	each(t, all, func(t *testing.T, m *sim.Modbus, u *sim.ModbusUnit, c *modbus.Client) {
		c.Timeout = 200 * time.Millisecond
		u.Fault(sim.ModbusFault{Delay: 260 * time.Millisecond})
		if _, err := c.Read(t.Context(), 1, modbus.Holding, 0, 1); !errors.Is(err, modbus.ErrTimeout) {
			t.Fatalf("late by 60 ms: %v", err)
		}
		mustRead(t, c, modbus.Input, 3, 203)
	})
}

// An answer of another function to this very request is a fault of protocol, never an exception.
func TestAnAnswerOfAnotherFunctionIsAProtocolError(t *testing.T) {
	each(t, all, func(t *testing.T, m *sim.Modbus, u *sim.ModbusUnit, c *modbus.Client) {
		u.Fault(sim.ModbusFault{WrongFunc: 4})
		_, err := c.Read(t.Context(), 1, modbus.Holding, 0, 1)
		if !errors.Is(err, modbus.ErrProtocol) {
			t.Fatalf("function 4 for 3: %v", err)
		}
		mustRead(t, c, modbus.Holding, 1, 101)
	})
}

// Fault 3: an exception that came in two parts was a checksum error, and broke the next answer.
func TestAnExceptionInTwoPartsIsAnException(t *testing.T) {
	each(t, all, func(t *testing.T, m *sim.Modbus, u *sim.ModbusUnit, c *modbus.Client) {
		for split := 1; split < 5; split++ {
			u.Fault(sim.ModbusFault{Exception: 2, Split: split})
			if _, err := c.Read(t.Context(), 1, modbus.Holding, 0, 8); err == nil || !strings.Contains(err.Error(), "exception '2'") {
				t.Fatalf("split after %d: %v", split, err)
			}
			mustRead(t, c, modbus.Holding, 1, 101)
		}
	})
}

// Fault 4: a line that was unplugged in the middle of an answer was read for ever.
func TestALineLostInTheMiddleOfAnAnswerIsAnErrorAtOnce(t *testing.T) {
	each(t, all, func(t *testing.T, m *sim.Modbus, u *sim.ModbusUnit, c *modbus.Client) {
		u.Fault(sim.ModbusFault{Cut: 4, Disconnect: true}, sim.ModbusFault{Cut: 4, Disconnect: true})
		begin := time.Now()
		if _, err := c.Read(t.Context(), 1, modbus.Holding, 0, 8); !errors.Is(err, modbus.ErrLost) {
			t.Fatalf("lost: %v", err)
		}
		if took := time.Since(begin); took > 200*time.Millisecond {
			t.Errorf("it took %v to see that the line is gone", took)
		}
	})
}

// Fault 5, and thingsboard-gateway#905, #1841, device-modbus-go#685, telegraf#7523: commands and polls
// from many goroutines collided on the line.
func TestManyWritersAndThePollShareOneLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := sim.NewModbus()
		m.Unit(1).Set(sim.HoldingRegisters, 0, make([]uint16, 40)...)
		points := registers(t, 0, 40)
		for i := range points {
			points[i].Writable = true
		}
		s := newSink()
		b, _ := start(t, modbus.Options{Framing: modbus.RTU, Port: port.Config{Name: "p", Baud: 115200}, Open: pipeLine(t, m.ServeRTU), Sink: s,
			Devices: []modbus.Device{{Name: "dev", Unit: 1, Interval: 50 * time.Millisecond, Points: points}}})
		var wg sync.WaitGroup
		for i := range 40 {
			wg.Go(func() {
				v := adapters.UintValue(uint64(1000 + i))
				if got, err := b.Write(t.Context(), "dev", "r"+itoa(i), v); got != v || err != nil {
					t.Errorf("write %d: %v, %v", i, got, err)
				}
			})
		}
		wg.Wait()
		for i := range 40 {
			if got := m.Unit(1).Get(sim.HoldingRegisters, uint16(i)); got != uint16(1000+i) {
				t.Errorf("register %d: %d", i, got)
			}
		}
	})
}

// Fault 7: the timeout was per read, so a device that trickled held the line for seconds.
func TestATricklingDeviceIsHeldToOneDeadline(t *testing.T) {
	each(t, rtuOnly, func(t *testing.T, m *sim.Modbus, u *sim.ModbusUnit, c *modbus.Client) {
		c.Timeout = 150 * time.Millisecond
		u.Fault(sim.ModbusFault{Trickle: 100 * time.Millisecond})
		begin := time.Now()
		if _, err := c.Read(t.Context(), 1, modbus.Holding, 0, 8); err == nil {
			t.Fatal("an answer")
		}
		if took := time.Since(begin); took > 200*time.Millisecond {
			t.Errorf("the line was held for %v", took)
		}
	})
}

// Fault 8: garbage ahead of an answer, behind it, or from before the request.
func TestGarbageAroundAnAnswerDoesNotHurtIt(t *testing.T) {
	each(t, onLine, func(t *testing.T, m *sim.Modbus, u *sim.ModbusUnit, c *modbus.Client) {
		for _, f := range []sim.ModbusFault{
			{Before: []byte{0x00, 0xff}},
			{Before: []byte{1, 3}},       // looks like the head of the answer
			{Before: []byte{1, 3, 2, 0}}, // even more so
			{Before: []byte(":0103")},
			{After: []byte{0, 0, 0}},
			{After: []byte{1, 3, 2, 0, 9}},
		} {
			u.Fault(f)
			mustRead(t, c, modbus.Holding, 2, 102)
			mustRead(t, c, modbus.Holding, 3, 103)
		}
	})
}

func TestADamagedAnswerIsAChecksumErrorAndTheNextIsRead(t *testing.T) {
	each(t, onLine, func(t *testing.T, m *sim.Modbus, u *sim.ModbusUnit, c *modbus.Client) {
		u.Fault(sim.ModbusFault{Corrupt: true})
		begin := time.Now()
		if _, err := c.Read(t.Context(), 1, modbus.Holding, 0, 1); !errors.Is(err, modbus.ErrChecksum) {
			t.Fatalf("damaged: %v", err)
		}
		if took := time.Since(begin); took > 1100*time.Millisecond {
			t.Errorf("it took %v", took)
		}
		mustRead(t, c, modbus.Holding, 1, 101)
	})
}

func TestAnAnswerOfAnotherUnitIsNotTaken(t *testing.T) {
	each(t, all, func(t *testing.T, m *sim.Modbus, u *sim.ModbusUnit, c *modbus.Client) {
		u.Fault(sim.ModbusFault{WrongUnit: 9})
		if _, err := c.Read(t.Context(), 1, modbus.Holding, 0, 1); !errors.Is(err, modbus.ErrProtocol) || !strings.Contains(err.Error(), "unit 9 answered") {
			t.Fatalf("wrong unit: %v", err)
		}
		mustRead(t, c, modbus.Holding, 1, 101)
	})
}

func TestHalfAFrameIsNoAnswerAndTheNextIsRead(t *testing.T) {
	each(t, all, func(t *testing.T, m *sim.Modbus, u *sim.ModbusUnit, c *modbus.Client) {
		c.Timeout = 100 * time.Millisecond
		for cut := 1; cut < 12; cut++ {
			u.Fault(sim.ModbusFault{Cut: cut})
			if b, err := c.Read(t.Context(), 1, modbus.Holding, 0, 8); err == nil {
				t.Fatalf("%d bytes of a frame gave % x", cut, b)
			}
			mustRead(t, c, modbus.Holding, 2, 102)
		}
	})
}

// echoing is a line that gives back what is sent, as RS-485 adapters do that hear themselves.
type echoing struct {
	io.ReadWriter
}

func (e *echoing) Read(b []byte) (int, error) {
	n, err := e.ReadWriter.Read(b)
	if n > 0 {
		if _, err := e.ReadWriter.Write(b[:n]); err != nil {
			return 0, err
		}
	}
	return n, err
}

func TestALineThatEchoesIsUnderstood(t *testing.T) {
	for _, f := range onLine {
		t.Run(f.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := sim.NewModbus()
				m.Unit(1).Set(sim.HoldingRegisters, 0, 100, 101)
				serve := func(line io.ReadWriter) error { return m.ServeRTU(&echoing{ReadWriter: line}) }
				if f == modbus.ASCII {
					serve = func(line io.ReadWriter) error { return m.ServeASCII(&echoing{ReadWriter: line}) }
				}
				c := newClient(t, modbus.Options{Framing: f, Address: "h:1", Port: port.Config{Name: "p"}, Open: pipeLine(t, serve), Dial: pipeDial(t, serve)})
				p := point("x", modbus.Holding, 1, field(t, "uint16"))
				if v, err := c.Write(t.Context(), 1, p, adapters.UintValue(7)); v != adapters.UintValue(7) || err != nil {
					t.Errorf("write: %v, %v", v, err)
				}
				// The echo of a write looks like its answer: a device that is gone must not seem to obey.
				m.Remove(1)
				if _, err := c.Write(t.Context(), 1, p, adapters.UintValue(8)); !errors.Is(err, modbus.ErrTimeout) {
					t.Errorf("write to nobody: %v", err)
				}
				c.Close() // on a line that was just opened neither
				if _, err := c.Write(t.Context(), 1, p, adapters.UintValue(8)); !errors.Is(err, modbus.ErrTimeout) || strings.Contains(err.Error(), "written") {
					t.Errorf("write to nobody: %v", err)
				}
			})
		})
	}
}

// Fault 9: a broadcast, which nobody answers, always timed out.
func TestABroadcastReturnsAtOnce(t *testing.T) {
	each(t, onLine, func(t *testing.T, m *sim.Modbus, u *sim.ModbusUnit, c *modbus.Client) {
		m.Unit(0).Set(sim.HoldingRegisters, 5, 0)
		for _, function := range []byte{6, 16} {
			begin := time.Now()
			p := point("x", modbus.Holding, 5, field(t, "uint16"))
			p.Function = function
			if _, err := c.Write(t.Context(), 0, p, adapters.UintValue(9)); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(begin); took > 300*time.Millisecond {
				t.Errorf("it took %v", took)
			}
		}
		mustRead(t, c, modbus.Holding, 1, 101)
		if got := m.Unit(0).Get(sim.HoldingRegisters, 5); got != 9 {
			t.Errorf("the broadcast has not arrived: %d", got)
		}
	})
}

// Fault 10: ReadFIFOQueue refused correct answers.
func TestAFIFOQueueIsRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// The example of the specification [AP 6.18]: two registers in the queue.
		answer := []byte{1, 0x18, 0x00, 0x06, 0x00, 0x02, 0x01, 0xb8, 0x12, 0x84}
		answer = binary.LittleEndian.AppendUint16(answer, crc(answer))
		c := newClient(t, modbus.Options{Framing: modbus.RTU, Port: port.Config{Name: "p"}, Open: pipeLine(t, func(line io.ReadWriter) error {
			if _, err := io.ReadFull(line, make([]byte, 6)); err != nil {
				return err
			}
			_, err := line.Write(answer)
			return err
		})})
		got, err := c.Do(t.Context(), 1, []byte{0x18, 0x04, 0xde})
		if err != nil || !bytes.Equal(got, answer[2:len(answer)-2]) {
			t.Errorf("% x, %v", got, err)
		}
	})
}

// crc is the checksum, bit by bit.
func crc(b []byte) uint16 {
	c := uint16(0xffff)
	for _, v := range b {
		c ^= uint16(v)
		for range 8 {
			odd := c & 1
			if c >>= 1; odd != 0 {
				c ^= 0xa001
			}
		}
	}
	return c
}

// Fault 11, and goburrow#64: after one timeout TCP was one transaction behind for ever.
func TestTCPIsNotOneTransactionBehindAfterATimeout(t *testing.T) {
	each(t, tcpOnly, func(t *testing.T, m *sim.Modbus, u *sim.ModbusUnit, c *modbus.Client) {
		c.Timeout = 100 * time.Millisecond
		u.Fault(sim.ModbusFault{Delay: 150 * time.Millisecond}, sim.ModbusFault{Delay: 90 * time.Millisecond})
		if _, err := c.Read(t.Context(), 1, modbus.Holding, 0, 1); !errors.Is(err, modbus.ErrTimeout) {
			t.Fatal(err)
		}
		c.Timeout = time.Second
		for n := range uint16(8) {
			mustRead(t, c, modbus.Holding, n, 100+n)
		}
	})
}

func TestAWrongTransactionIDIsThrownAway(t *testing.T) {
	each(t, tcpOnly, func(t *testing.T, m *sim.Modbus, u *sim.ModbusUnit, c *modbus.Client) {
		c.Timeout = 100 * time.Millisecond
		u.Fault(sim.ModbusFault{WrongTx: 7})
		if _, err := c.Read(t.Context(), 1, modbus.Holding, 0, 1); !errors.Is(err, modbus.ErrTimeout) {
			t.Fatal(err)
		}
		mustRead(t, c, modbus.Holding, 1, 101)
	})
}

// Fault 11, second half: once the server had closed the connection it was EOF, then broken pipe, for
// ever. Servers close connections that are idle: that costs no reading.
func TestAConnectionClosedByTheServerIsMadeAnew(t *testing.T) {
	each(t, all, func(t *testing.T, m *sim.Modbus, u *sim.ModbusUnit, c *modbus.Client) {
		mustRead(t, c, modbus.Holding, 0, 100)
		for n := range uint16(5) {
			u.Fault(sim.ModbusFault{Silent: true, Disconnect: true})
			mustRead(t, c, modbus.Holding, n, 100+n)
		}
	})
}

// A write is not repeated: nobody knows whether the device has carried it out.
func TestAWriteIsNotRepeatedWhenTheConnectionIsLost(t *testing.T) {
	each(t, tcpOnly, func(t *testing.T, m *sim.Modbus, u *sim.ModbusUnit, c *modbus.Client) {
		mustRead(t, c, modbus.Holding, 0, 100)
		u.Requests()
		u.Fault(sim.ModbusFault{Silent: true, Disconnect: true})
		if _, err := c.Write(t.Context(), 1, point("x", modbus.Holding, 0, field(t, "uint16")), adapters.UintValue(1)); !errors.Is(err, modbus.ErrLost) {
			t.Fatalf("%v", err)
		}
		if got := len(u.Requests()); got != 1 {
			t.Errorf("the device was asked %d times", got)
		}
	})
}

// Fault 12: two registers were asked for, one came, and nobody minded.
func TestAnAnswerThatIsTooShortIsRefused(t *testing.T) {
	each(t, all, func(t *testing.T, m *sim.Modbus, u *sim.ModbusUnit, c *modbus.Client) {
		c.Timeout = 100 * time.Millisecond
		u.Fault(sim.ModbusFault{Short: 2})
		if b, err := c.Read(t.Context(), 1, modbus.Holding, 0, 2); err == nil {
			t.Fatalf("two registers: % x", b)
		}
		mustRead(t, c, modbus.Holding, 1, 101)
	})
}

func TestABusyDeviceIsAskedAgainWithPatience(t *testing.T) {
	each(t, all, func(t *testing.T, m *sim.Modbus, u *sim.ModbusUnit, c *modbus.Client) {
		u.Fault(sim.ModbusFault{Exception: 6}, sim.ModbusFault{Exception: 5}, sim.ModbusFault{Exception: 6})
		mustRead(t, c, modbus.Holding, 1, 101)
		u.Always(&sim.ModbusFault{Exception: 6})
		if _, err := c.Read(t.Context(), 1, modbus.Holding, 0, 1); err == nil || !strings.Contains(err.Error(), "busy") {
			t.Errorf("busy for ever: %v", err)
		}
	})
}

func TestCancellationEndsAnExchangeAtOnce(t *testing.T) {
	each(t, all, func(t *testing.T, m *sim.Modbus, u *sim.ModbusUnit, c *modbus.Client) {
		c.Timeout = time.Minute
		u.Always(&sim.ModbusFault{Silent: true})
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
		defer cancel()
		begin := time.Now()
		if _, err := c.Read(ctx, 1, modbus.Holding, 0, 1); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v", err)
		}
		if took := time.Since(begin); took > 100*time.Millisecond {
			t.Errorf("it took %v", took)
		}
	})
}

func TestDeviceIdentificationIsReadInSeveralParts(t *testing.T) {
	each(t, all, func(t *testing.T, m *sim.Modbus, u *sim.ModbusUnit, c *modbus.Client) {
		long := strings.Repeat("x", 150)
		u.Identify(0, "ACME").Identify(1, long).Identify(2, "1.2").Identify(4, long).Identify(5, "M-1")
		id, err := c.Identify(t.Context(), 1)
		if err != nil {
			t.Fatal(err)
		}
		for object, text := range map[byte]string{0: "ACME", 1: long, 2: "1.2", 4: long, 5: "M-1"} {
			if id[object] != text {
				t.Errorf("%s: %q, want %q", modbus.ObjectName(object), id[object], text)
			}
		}
	})
}

// A device that always takes a little longer than the timeout: its answers come late for ever, of
// the same shape as those that are waited for. None may be taken for the value of another register,
// whether requests are repeated or not.
func TestADeviceThatIsAlwaysLateNeverGivesAWrongValue(t *testing.T) {
	for _, f := range all {
		for _, retries := range []int{0, 1, 3} {
			for _, delay := range []time.Duration{110, 150, 190, 350, 990, 1050, 1450, 2030, 5060} {
				t.Run(fmt.Sprintf("%v, %d retries, %d ms", f, retries, delay), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) { alwaysLate(t, f, retries, delay*time.Millisecond) })
				})
			}
		}
	}
}

func alwaysLate(t *testing.T, f modbus.Framing, retries int, delay time.Duration) {
	m := sim.NewModbus()
	u := m.Unit(1).Set(sim.HoldingRegisters, 0, 100, 101, 102, 103, 104, 105, 106)
	m.Unit(2).Set(sim.HoldingRegisters, 0, 7)
	d := modbus.Device{Name: "late", Unit: 1, Interval: time.Second, Timeout: 100 * time.Millisecond, Retries: retries, Hole: -1}
	for _, at := range []uint16{0, 2, 4, 6} {
		d.Points = append(d.Points, point("r"+itoa(int(at)), modbus.Holding, at, field(t, "uint16")))
	}
	other := modbus.Device{Name: "other", Unit: 2, Interval: 300 * time.Millisecond, Points: registers(t, 0, 1)}
	s := newSink()
	o := modbus.Options{Framing: f, Address: "h:1", Port: port.Config{Name: "p"}, Sink: s, Devices: []modbus.Device{d, other}}
	serve := map[modbus.Framing]func(io.ReadWriter) error{modbus.TCP: m.ServeConn, modbus.RTU: m.ServeRTU, modbus.RTUOverTCP: m.ServeRTU, modbus.ASCII: m.ServeASCII}[f]
	o.Dial, o.Open = pipeDial(t, serve), pipeLine(t, serve)
	_, stop := start(t, o)
	for n := 0; n < 3; {
		sample := s.next(t)
		if sample.Schema.Device == "late" && sample.Readings[0].Quality == adapters.Good {
			n++
		}
	}
	u.Always(&sim.ModbusFault{Delay: delay})
	time.Sleep(5 * time.Minute)
	stop()
	good := 0
	for _, sample := range append(s.of("late"), s.of("other")...) {
		for _, r := range sample.Readings {
			right := adapters.UintValue(100 + uint64(2*r.Point))
			if sample.Schema.Device == "other" {
				right = adapters.UintValue(7)
			}
			if r.Quality == adapters.Good {
				good++
				if r.Value != right {
					t.Fatalf("%s: point %d is %v, want %v", sample.Schema.Device, r.Point, r.Value, right)
				}
			}
		}
	}
	if least := 500; good < least && delay*time.Duration(retries+1) < 2*time.Second { // the simulated line carries nothing while an answer is delayed
		t.Errorf("only %d good readings of both devices, want %d", good, least)
	}
}

// The answer to a write says what was written: one that came late is not taken for the next one's.
func TestALateAnswerToAWriteIsNotTakenForTheNextOne(t *testing.T) {
	each(t, all, func(t *testing.T, m *sim.Modbus, u *sim.ModbusUnit, c *modbus.Client) {
		p, q := point("x", modbus.Holding, 0, field(t, "uint16")), point("y", modbus.Holding, 1, field(t, "uint16"))
		mustRead(t, c, modbus.Holding, 0, 100)
		c.Timeout = 200 * time.Millisecond
		for n := range uint64(3) {
			u.Fault(sim.ModbusFault{Delay: 260 * time.Millisecond})
			if _, err := c.Write(t.Context(), 1, p, adapters.UintValue(n)); !errors.Is(err, modbus.ErrTimeout) {
				t.Fatalf("late by 60 ms: %v", err)
			}
			if v, err := c.Write(t.Context(), 1, q, adapters.UintValue(10+n)); err != nil || v != adapters.UintValue(10+n) {
				t.Fatalf("%v, %v", v, err)
			}
			mustRead(t, c, modbus.Holding, 0, uint16(n))
		}
	})
}

// Some relay boards know how to be written and nothing else.
func TestADeviceThatAnswersOnlyWritesIsWritten(t *testing.T) {
	each(t, onLine, func(t *testing.T, m *sim.Modbus, u *sim.ModbusUnit, c *modbus.Client) {
		u.Mute(sim.HoldingRegisters, 0)
		p := point("x", modbus.Holding, 0, field(t, "uint16"))
		if _, err := c.Write(t.Context(), 1, p, adapters.UintValue(9)); err == nil || !strings.Contains(err.Error(), "written, but not read back") {
			t.Errorf("%v", err)
		}
		if got := u.Get(sim.HoldingRegisters, 0); got != 9 {
			t.Errorf("the register holds %d", got)
		}
	})
}

// One caller's context does not end the exchanges of the next one.
func TestAContextEndsItsOwnExchangeOnly(t *testing.T) {
	each(t, all, func(t *testing.T, m *sim.Modbus, u *sim.ModbusUnit, c *modbus.Client) {
		c.Timeout = 10 * time.Second
		first, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := c.Read(first, 1, modbus.Holding, 0, 1); err != nil {
			t.Fatal(err)
		}
		u.Fault(sim.ModbusFault{Delay: 2 * time.Second})
		mustRead(t, c, modbus.Holding, 1, 101)
		u.Always(&sim.ModbusFault{Silent: true})
		third, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
		defer cancel()
		begin := time.Now()
		if _, err := c.Read(third, 1, modbus.Holding, 0, 1); !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) > 100*time.Millisecond {
			t.Errorf("%v after %v", err, time.Since(begin))
		}
	})
}

// rtsLine is a line with an RTS that is recorded.
type rtsLine struct {
	*wire
	events *[]string
}

func (r rtsLine) SetRTS(high bool) error {
	*r.events = append(*r.events, map[bool]string{true: "up", false: "down"}[high])
	return nil
}
func (r rtsLine) Drain() error { *r.events = append(*r.events, "drain"); return nil }
func (r rtsLine) Write(b []byte) (int, error) {
	*r.events = append(*r.events, "write")
	return r.wire.Write(b)
}

func TestRTSTurnsTheTransceiverAround(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := sim.NewModbus()
		m.Unit(1).Set(sim.HoldingRegisters, 0, 100)
		var events []string
		open := serveWires(t, 0, m.ServeRTU)
		c := newClient(t, modbus.Options{Framing: modbus.RTU, Port: port.Config{Name: "p"}, RTS: &modbus.RTS{Before: time.Millisecond, After: time.Millisecond},
			Open: func(port.Config) (modbus.Line, error) { return rtsLine{open(), &events}, nil }})
		mustRead(t, c, modbus.Holding, 0, 100)
		if got := strings.Join(events, " "); got != "up write drain down" {
			t.Errorf("%s", got)
		}
	})
}
