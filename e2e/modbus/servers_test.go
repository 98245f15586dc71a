package modbus_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gateway/adapters"
	"gateway/adapters/decode"
	"gateway/adapters/modbus"
	"gateway/adapters/port"
	"gateway/e2e/rig"
)

// ptys joins two pseudo-terminals by socat and returns their paths.
func ptys(t *testing.T) (ours, theirs string) {
	t.Helper()
	dir := t.TempDir()
	ours, theirs = filepath.Join(dir, "ours"), filepath.Join(dir, "theirs")
	rig.Start(t, rig.Need(t, "socat", "socat"), "pty,rawer,link="+ours, "pty,rawer,link="+theirs)
	rig.Eventually(t, rig.Patience, "two pseudo-terminals", func() bool {
		_, err1 := os.Stat(ours)
		_, err2 := os.Stat(theirs)
		return err1 == nil && err2 == nil
	})
	return ours, theirs
}

// libmodbus compiles the server of libmodbus.
func libmodbus(t *testing.T) string {
	t.Helper()
	flags, err := exec.Command(rig.Need(t, "pkg-config", "pkg-config"), "--cflags", "--libs", "libmodbus").Output()
	if err != nil {
		t.Fatalf("libmodbus is not there (Debian: libmodbus-dev): %v", err)
	}
	bin := filepath.Join(t.TempDir(), "server")
	args := append([]string{"-O2", "-Wall", "-o", bin, "testdata/server.c"}, strings.Fields(string(flags))...)
	if out, err := exec.Command(rig.Need(t, "gcc", "gcc"), args...).CombinedOutput(); err != nil {
		t.Fatalf("gcc: %v\n%s", err, out)
	}
	return bin
}

// A server is somebody else's, started for one framing.
type server struct {
	name  string
	start func(t *testing.T) modbus.Options
	part  string // functions that it lacks
}

func servers() []server {
	tcp := func(run func(t *testing.T, port string), framing modbus.Framing) func(t *testing.T) modbus.Options {
		return func(t *testing.T) modbus.Options {
			p := rig.FreePort(t)
			run(t, fmt.Sprint(p))
			addr := fmt.Sprintf("127.0.0.1:%d", p)
			rig.AwaitTCP(t, addr, rig.Patience)
			return modbus.Options{Framing: framing, Address: addr}
		}
	}
	serial := func(run func(t *testing.T, path string), framing modbus.Framing, parity port.Parity) func(t *testing.T) modbus.Options {
		return func(t *testing.T) modbus.Options {
			ours, theirs := ptys(t)
			run(t, theirs)
			return modbus.Options{Framing: framing, Port: port.Config{Name: ours, Baud: 19200, Parity: parity}}
		}
	}
	python := func(kind string) func(t *testing.T, where string) {
		return func(t *testing.T, where string) {
			rig.Start(t, debianPython(t), "testdata/server.py", kind, where)
		}
	}
	lib := func(args ...string) func(t *testing.T, where string) {
		return func(t *testing.T, where string) {
			all := append([]string{args[0], where}, args[1:]...)
			p := rig.Start(t, libmodbus(t), all...)
			p.Await(t, rig.Patience, "libmodbus to be ready", rig.HasLine("ready"))
		}
	}
	return []server{
		{name: "libmodbus tcp", start: tcp(lib("tcp"), modbus.TCP), part: "identify"},
		{name: "libmodbus rtu 8N1", start: serial(lib("rtu", "19200", "N"), modbus.RTU, port.ParityNone), part: "identify"},
		{name: "libmodbus rtu 8E1", start: serial(lib("rtu", "19200", "E"), modbus.RTU, port.ParityEven), part: "identify"},
		{name: "pymodbus tcp", start: tcp(python("tcp"), modbus.TCP)},
		{name: "pymodbus rtu over tcp", start: tcp(python("rtu-over-tcp"), modbus.RTUOverTCP)},
		{name: "pymodbus udp", start: func(t *testing.T) modbus.Options {
			p := rig.FreePort(t)
			python("udp")(t, fmt.Sprint(p))
			return modbus.Options{Framing: modbus.UDP, Address: fmt.Sprintf("127.0.0.1:%d", p)}
		}},
		{name: "pymodbus rtu", start: serial(python("rtu"), modbus.RTU, port.ParityNone)},
		{name: "pymodbus ascii", start: serial(python("ascii"), modbus.ASCII, port.ParityNone)},
	}
}

// Every function that we use, against servers that others wrote.
func TestServersOfOthersAreReadAndWritten(t *testing.T) {
	for _, s := range servers() {
		t.Run(s.name, func(t *testing.T) {
			o := s.start(t)
			c, err := modbus.NewClient(o)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			c.Timeout = 2 * time.Second
			ctx := t.Context()
			// A server of Python's takes a while until it listens on its line. Nothing below asks for three
			// registers, so that an answer that comes late is not taken for another.
			rig.Eventually(t, rig.Patience, "a first answer", func() bool {
				_, err := c.Read(ctx, 1, modbus.Holding, 0, 3)
				return err == nil
			})
			c.Timeout = rig.Patience
			readAll(t, ctx, c)
			writeAll(t, ctx, c)
			if _, err := c.Read(ctx, 1, modbus.Holding, 190, 20); err == nil || !strings.Contains(err.Error(), "exception '2'") {
				t.Errorf("beyond the end: %v", err)
			}
			if s.part != "identify" {
				id, err := c.Identify(ctx, 1)
				if err != nil || id[0] != "Pymodbus" || id[1] != "PM" {
					t.Errorf("identification: %v, %v", id, err)
				}
			}
		})
	}
}

func readAll(t *testing.T, ctx context.Context, c *modbus.Client) {
	t.Helper()
	for _, count := range []int{1, 2, 100, 125} {
		for k, base := range map[modbus.Kind]int{modbus.Holding: 1000, modbus.Input: 2000} {
			b, err := c.Read(ctx, 1, k, 7, count)
			if err != nil {
				t.Fatalf("%d of %v: %v", count, k, err)
			}
			for i := range count {
				if got := int(binary.BigEndian.Uint16(b[2*i:])); got != base+7+i {
					t.Fatalf("%v %d: %d", k, 7+i, got)
				}
			}
		}
		for k, on := range map[modbus.Kind]func(int) bool{
			modbus.Coil:     func(n int) bool { return n%2 == 1 },
			modbus.Discrete: func(n int) bool { return n%3 == 0 },
		} {
			b, err := c.Read(ctx, 1, k, 3, count)
			if err != nil {
				t.Fatalf("%d of %v: %v", count, k, err)
			}
			for i := range count {
				if got := b[i/8]>>(i%8)&1 == 1; got != on(3+i) {
					t.Fatalf("%v %d: %t", k, 3+i, got)
				}
			}
		}
	}
}

func writeAll(t *testing.T, ctx context.Context, c *modbus.Client) {
	t.Helper()
	field := func(name string) *decode.Field {
		ty, err := decode.ParseType(name)
		if err == nil && name != "bool" {
			ty, err = ty.InRegisters()
		}
		if err != nil {
			t.Fatal(err)
		}
		f, err := decode.New(decode.Spec{Type: ty})
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	for _, w := range []struct {
		function byte
		kind     modbus.Kind
		typ      string
		value    adapters.Value
	}{
		{5, modbus.Coil, "bool", adapters.BoolValue(true)},
		{15, modbus.Coil, "bool", adapters.BoolValue(false)},
		{6, modbus.Holding, "int16", adapters.IntValue(-7)},
		{16, modbus.Holding, "float32", adapters.FloatValue(21.5)},
		{22, modbus.Holding, "uint8_low", adapters.UintValue(200)},
		{23, modbus.Holding, "uint32", adapters.UintValue(123456789)},
	} {
		p := modbus.Point{Kind: w.kind, Address: 150, Field: field(w.typ), Function: w.function}
		if got, err := c.Write(ctx, 1, p, w.value); err != nil || got != w.value {
			t.Errorf("function %d: %v, %v", w.function, got, err)
		}
	}
}

// A bus polls them, too: fifty points in a sample.
func TestABusPollsServersOfOthers(t *testing.T) {
	for _, s := range servers() {
		t.Run(s.name, func(t *testing.T) {
			ty, err := decode.ParseType("uint16")
			if err != nil {
				t.Fatal(err)
			}
			f, err := decode.New(decode.Spec{Type: ty})
			if err != nil {
				t.Fatal(err)
			}
			d := modbus.Device{Name: "dev", Unit: 1, Interval: 200 * time.Millisecond, Timeout: 2 * time.Second, Backoff: adapters.Backoff{Min: 100 * time.Millisecond, Max: time.Second}}
			for i := range 50 {
				d.Points = append(d.Points, modbus.Point{Point: adapters.Point{Name: fmt.Sprint("r", i)}, Kind: modbus.Holding, Address: uint16(2 * i), Field: f})
			}
			o := s.start(t)
			o.Devices = []modbus.Device{d}
			begin := time.Now()
			o.Clock = func() adapters.Instant { return adapters.Instant(time.Since(begin)) }
			samples := make(chan adapters.Sample, 1000)
			o.Sink = adapters.SinkFunc(func(s adapters.Sample) bool { samples <- s; return true })
			b, err := modbus.New(o)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), rig.Patience)
			done := make(chan error, 1)
			go func() { done <- b.Run(ctx) }()
			good := 0
			for good < 5 {
				select {
				case s := <-samples:
					if s.Readings[0].Quality != adapters.Good {
						continue // the server is not up yet
					}
					good++
					for i, r := range s.Readings {
						if r.Value != adapters.UintValue(uint64(1000+2*i)) {
							t.Fatalf("r%d: %v %q", i, r.Value, r.Reason)
						}
					}
				case <-ctx.Done():
					t.Fatalf("%d good samples in %v; %+v", good, rig.Patience, b.Status())
				}
			}
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
}
