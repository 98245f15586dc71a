package modbus

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"testing"
	"time"

	gb "github.com/goburrow/modbus"

	"gateway/adapters"
	"gateway/adapters/decode"
)

// canned is a Transporter that answers without doing anything: what goburrow's Client itself costs.
type canned struct{ answer []byte }

func (c *canned) Send(req []byte) ([]byte, error) {
	copy(c.answer, req[:2]) // the transaction id
	return c.answer, nil
}

func answerOf(registers int) []byte {
	b := make([]byte, 9+2*registers)
	binary.BigEndian.PutUint16(b[4:], uint16(3+2*registers))
	b[6], b[7], b[8] = 1, 3, byte(2*registers)
	return b
}

// loopback returns a connection to a server that answers requests for a number of registers and
// allocates nothing.
func loopback(t testing.TB, registers int) net.Conn {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		answer := answerOf(registers)
		req := make([]byte, 12)
		for {
			if _, err := io.ReadFull(conn, req); err != nil {
				return
			}
			copy(answer, req[:2])
			if _, err := conn.Write(answer); err != nil {
				return
			}
		}
	}()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		conn.Close()
		l.Close()
		<-done
	})
	return conn
}

// over returns goburrow's Client over our link on a connection.
func over(conn net.Conn) gb.Client {
	l := &link{ctx: context.Background(), timeout: time.Second}
	l.open = func(context.Context) (Line, error) { return conn, nil }
	return gb.NewClient2(packager(TCP, 1), l)
}

func TestAnExchangeAllocatesNothingBeyondGoburrowsClient(t *testing.T) {
	const n = 100
	bare := gb.NewClient2(packager(TCP, 1), &canned{answerOf(n)})
	ours := over(loopback(t, n))
	run := func(c gb.Client) float64 {
		return testing.AllocsPerRun(200, func() {
			if _, err := c.ReadHoldingRegisters(0, n); err != nil {
				t.Fatal(err)
			}
		})
	}
	if b, o := run(bare), run(ours); o > b {
		t.Errorf("%v allocations an exchange, goburrow's Client alone makes %v", o, b)
	}
}

func BenchmarkExchange(b *testing.B) {
	const n = 100
	for _, c := range []struct {
		name   string
		client gb.Client
	}{
		{"goburrow's Client alone", gb.NewClient2(packager(TCP, 1), &canned{answerOf(n)})},
		{"over our link and loopback TCP", over(loopback(b, n))},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := c.client.ReadHoldingRegisters(0, n); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// turnOf returns what carries out one cycle of a device with as many registers.
func turnOf(t testing.TB, registers int) func() {
	t.Helper()
	ty, err := decode.ParseType("uint16")
	if err != nil {
		t.Fatal(err)
	}
	f, err := decode.New(decode.Spec{Type: ty, Scale: 0.1})
	if err != nil {
		t.Fatal(err)
	}
	d := Device{Name: "dev", Unit: 1, Interval: time.Second}
	for i := range registers {
		d.Points = append(d.Points, Point{Point: adapters.Point{Name: "r"}, Kind: Holding, Address: uint16(i), Field: f})
	}
	conn := loopback(t, registers)
	good := 0
	b, err := New(Options{Name: "bus", Address: "h:1", Devices: []Device{d},
		Clock: func() adapters.Instant { return 1 },
		Sink: adapters.SinkFunc(func(s adapters.Sample) bool {
			if s.Readings[0].Quality == adapters.Good {
				good++
			}
			return true
		}),
		Dial: func(context.Context, string, string) (net.Conn, error) { return conn, nil }})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	schedule := adapters.NewSchedule(now)
	schedule.Add(time.Second, 0)
	b.devices[0].start(now)
	ctx := context.Background()
	return func() {
		before := good
		b.devices[0].groups[0].next = now
		b.turn(ctx, schedule, 0, now)
		if good != before+1 {
			t.Fatal("no good sample")
		}
	}
}

func TestACycleAllocatesOnlyItsReadings(t *testing.T) {
	turn := turnOf(t, 100)
	client := gb.NewClient2(packager(TCP, 1), &canned{answerOf(100)})
	bare := testing.AllocsPerRun(200, func() { client.ReadHoldingRegisters(0, 100) })
	if got := testing.AllocsPerRun(200, turn); got > bare+1 {
		t.Errorf("%v allocations a cycle; goburrow's Client makes %v, and the readings, which the sink owns, are one", got, bare)
	}
}

func BenchmarkCycle(b *testing.B) {
	turn := turnOf(b, 100)
	b.ReportAllocs()
	for b.Loop() {
		turn()
	}
}
