package port_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gateway/adapters/port"
	"gateway/adapters/sim"
)

func line(t *testing.T) (*sim.PTY, port.Config) {
	t.Helper()
	l, err := sim.OpenPTY(filepath.Join(t.TempDir(), "ttyUSB0"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l, port.Config{Name: l.Path(), Baud: 115200, DataBits: 7, Parity: port.ParityEven}
}

func open(t *testing.T, c port.Config) *port.Port {
	t.Helper()
	p, err := port.Open(c)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestReadKeepsItsDeadline(t *testing.T) {
	l, c := line(t)
	p := open(t, c)
	defer p.Close()
	if err := p.SetReadDeadline(time.Now().Add(time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if n, err := p.Read(make([]byte, 8)); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("%d, %v", n, err)
	}
	p.SetReadDeadline(time.Now().Add(time.Minute))
	l.Write([]byte("hello"))
	var b [5]byte
	if _, err := io.ReadFull(p, b[:]); err != nil || string(b[:]) != "hello" {
		t.Fatalf("%q, %v", b, err)
	}
	p.SetWriteDeadline(time.Now().Add(time.Minute))
	if _, err := p.Write([]byte("world")); err != nil {
		t.Fatal(err)
	}
	if err := p.Drain(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(l, b[:]); err != nil || string(b[:]) != "world" {
		t.Fatalf("%q, %v", b, err)
	}
}

func TestAWriteThatNobodyTakesEndsAtItsDeadline(t *testing.T) {
	_, c := line(t)
	p := open(t, c)
	defer p.Close()
	p.SetWriteDeadline(time.Now().Add(20 * time.Millisecond))
	if _, err := p.Write(make([]byte, 1<<20)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%v", err)
	}
}

// What flow control held back for long must not leave when it lets go. Here nobody reads, so that the driver's
// buffers are full; what has passed them has left.
func TestWhatHasNotLeftIsThrownAway(t *testing.T) {
	far, c := line(t)
	p := open(t, c)
	defer p.Close()
	p.SetWriteDeadline(time.Now().Add(time.Second)) // by which they are full
	stale, err := p.Write(make([]byte, 1<<20))
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal(err)
	}
	if err := p.Unsend(); err != nil {
		t.Fatal(err)
	}
	p.SetWriteDeadline(time.Time{})
	done := make(chan error, 1)
	go func() { _, err := p.Write([]byte("fresh")); done <- err }()
	var got []byte
	for b := make([]byte, 4096); !bytes.HasSuffix(got, []byte("fresh")); {
		n, err := far.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, b[:n]...)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if len(got) >= stale {
		t.Errorf("%d bytes left of %d that were stale", len(got), stale)
	}
}

func TestCloseEndsAWaitingRead(t *testing.T) {
	_, c := line(t)
	p := open(t, c)
	got := make(chan error)
	go func() {
		_, err := p.Read(make([]byte, 1))
		got <- err
	}()
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	if err := <-got; !errors.Is(err, os.ErrClosed) {
		t.Errorf("%v", err)
	}
}

func TestAPortIsTakenForOneAlone(t *testing.T) {
	_, c := line(t)
	p := open(t, c)
	if _, err := port.Open(c); !errors.Is(err, port.ErrBusy) {
		t.Errorf("a second opening: %v", err)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	p = open(t, c)
	p.Close()
}

func TestAVanishedPortSaysSoAndComesBack(t *testing.T) {
	l, c := line(t)
	p := open(t, c)
	got := make(chan error)
	go func() {
		_, err := p.Read(make([]byte, 1))
		got <- err
	}()
	if err := l.Unplug(); err != nil {
		t.Fatal(err)
	}
	if err := <-got; !errors.Is(err, port.ErrGone) {
		t.Errorf("a pending read: %v", err)
	}
	if _, err := p.Read(make([]byte, 1)); !errors.Is(err, port.ErrGone) {
		t.Errorf("a later read: %v", err)
	}
	p.Close()
	if _, err := port.Open(c); !errors.Is(err, port.ErrAbsent) {
		t.Errorf("opening a port that is away: %v", err)
	}
	if err := l.Return(); err != nil {
		t.Fatal(err)
	}
	p = open(t, c)
	p.Close()
}

func TestInputFromBeforeTheOpeningIsThrownAway(t *testing.T) {
	l, c := line(t)
	l.Write([]byte("old"))
	p := open(t, c)
	defer p.Close()
	l.Write([]byte("new"))
	p.SetReadDeadline(time.Now().Add(time.Minute))
	var b [3]byte
	if _, err := io.ReadFull(p, b[:]); err != nil || string(b[:]) != "new" {
		t.Errorf("%q, %v", b, err)
	}
}

func TestWhatATerminalCannotIsRefusedClearly(t *testing.T) {
	_, c := line(t)
	high := true
	for name, change := range map[string]func(*port.Config){
		"rts":   func(c *port.Config) { c.RTS = &high },
		"dtr":   func(c *port.Config) { c.DTR = &high },
		"rs485": func(c *port.Config) { c.RS485 = &port.RS485{} },
	} {
		c := c
		change(&c)
		if _, err := port.Open(c); !errors.Is(err, port.ErrUnsupported) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	p := open(t, c)
	defer p.Close()
	if _, err := p.Counts(); !errors.Is(err, port.ErrUnsupported) {
		t.Errorf("counts: %v", err)
	}
}

func TestFlowControlAndOddRatesAreSet(t *testing.T) {
	_, c := line(t)
	for _, flow := range []port.Flow{port.FlowNone, port.FlowRTSCTS, port.FlowXONXOFF} {
		c.Flow, c.Baud = flow, 123456
		p := open(t, c)
		if err := p.SetBaud(250000); err != nil {
			t.Error(err)
		}
		if p.Baud() != 250000 {
			t.Errorf("%d baud", p.Baud())
		}
		p.Close()
	}
}

func TestAFileIsNoPort(t *testing.T) {
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := port.Open(port.Config{Name: name}); !errors.Is(err, port.ErrUnsupported) || !strings.Contains(err.Error(), "not a serial port") {
		t.Errorf("%v", err)
	}
}
