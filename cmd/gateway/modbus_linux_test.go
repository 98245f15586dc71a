package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gateway/adapters/port"
	"gateway/adapters/sim"
)

// modbusLine puts simulated devices on a serial line and returns its port.
func modbusLine(t *testing.T, m *sim.Modbus) string {
	t.Helper()
	return rtuLine(t, m.ServeRTU)
}

// rtuLine lets something answer on a serial line and returns its port.
func rtuLine(t *testing.T, serve func(io.ReadWriter) error) string {
	t.Helper()
	pty, err := sim.OpenPTY(filepath.Join(t.TempDir(), "line"))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- serve(pty) }()
	t.Cleanup(func() {
		pty.Close()
		<-done
	})
	return pty.Path()
}

func TestModbusToolsWorkOnASerialLine(t *testing.T) {
	t.Parallel() // it waits for devices that are not there
	m := sim.NewModbus()
	m.Unit(7).Set(sim.InputRegisters, 1, 305, 546).Set(sim.HoldingRegisters, 0, 1)
	line := modbusLine(t, m)
	code, out, stderr := run(t, "modbus", "scan", "--port", line, "--units", "6-8", "--baud", "9600", "--parity", "none", "--timeout", "1s")
	if code != 0 || !strings.Contains(out, "9600 baud, parity none, unit 7 answers") || !strings.Contains(out, `profile = "xy-md02"`) || strings.Contains(out, "unit 6 ") {
		t.Errorf("exit %d: %s%s", code, out, stderr)
	}
	code, out, stderr = run(t, "modbus", "read", "--port", line, "--unit", "7", "input", "1", "2")
	if code != 0 || !strings.Contains(out, "305") {
		t.Errorf("exit %d: %s%s", code, out, stderr)
	}
	code, out, stderr = run(t, "modbus", "write", "--port", line, "--unit", "7", "holding", "0", "9")
	if code != 0 || out != "holding 0 (40001) of unit 7: 9\n" {
		t.Errorf("exit %d: %s%s", code, out, stderr)
	}
}

// A bus of the configuration is talked on with its settings.
func TestModbusToolsTakeTheLineFromTheConfiguration(t *testing.T) {
	m := sim.NewModbus()
	m.Unit(7).Set(sim.HoldingRegisters, 0, 42)
	line := rtuLine(t, m.ServeASCII)
	file := filepath.Join(t.TempDir(), "gateway.toml")
	toml := fmt.Sprintf("[broker]\nenabled = true\n[[modbus]]\nname = \"meters\"\nport = %q\nframing = \"ascii\"\nbaud = 19200\nparity = \"even\"\n"+
		"[[modbus.device]]\nname = \"d\"\nunit = 7\npoints = [{ name = \"x\", holding = 0 }]\n", line)
	if err := os.WriteFile(file, []byte(toml), 0o600); err != nil {
		t.Fatal(err)
	}
	code, out, stderr := run(t, "modbus", "read", "--config", file, "--bus", "meters", "--unit", "7", "holding", "0")
	if code != 0 || !strings.Contains(out, "42") {
		t.Errorf("exit %d: %s%s", code, out, stderr)
	}
	code, out, stderr = run(t, "modbus", "write", "--config", file, "--bus", "meters", "--unit", "7", "holding", "0", "43")
	if code != 0 || !strings.Contains(out, ": 43") {
		t.Errorf("exit %d: %s%s", code, out, stderr)
	}
	code, out, stderr = run(t, "modbus", "scan", "--config", file, "--bus", "meters", "--units", "7", "--timeout", "1s")
	if code != 0 || !strings.Contains(out, "19200 baud, parity even, unit 7 answers") || strings.Contains(out, "9600 baud, parity none") {
		t.Errorf("exit %d: %s%s", code, out, stderr)
	}
	code, _, stderr = run(t, "modbus", "read", "--config", file, "--bus", "meter", "holding", "0")
	if code != exitUsage || !strings.Contains(stderr, `did you mean "meters"`) {
		t.Errorf("exit %d: %s", code, stderr)
	}
}

// turning is a line that gives a byte of noise whenever its transceiver turns around.
type turning struct{ io.ReadWriter }

func (l turning) Read(b []byte) (int, error) {
	n, err := l.ReadWriter.Read(b)
	if n > 0 {
		if _, err := l.ReadWriter.Write([]byte{0}); err != nil {
			return 0, err
		}
	}
	return n, err
}

func TestModbusScanTakesNoNoiseForADevice(t *testing.T) {
	t.Parallel() // it waits for devices that are not there
	m := sim.NewModbus()
	m.Unit(7).Set(sim.InputRegisters, 0, 1)
	line := rtuLine(t, func(l io.ReadWriter) error { return m.ServeRTU(turning{l}) })
	code, out, stderr := run(t, "modbus", "scan", "--port", line, "--units", "6-8", "--baud", "9600", "--parity", "none", "--timeout", "1s")
	if code != 0 || !strings.Contains(out, "unit 7 answers") || strings.Contains(out, "unit 6 ") || strings.Contains(out, "unit 8 ") {
		t.Errorf("exit %d: %s%s", code, out, stderr)
	}
}

func TestModbusToolsSayThatThePortIsInUse(t *testing.T) {
	line := modbusLine(t, sim.NewModbus())
	p, err := port.Open(port.Config{Name: line})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	for _, args := range [][]string{{"read", "--port", line, "holding", "0"}, {"scan", "--port", line}} {
		code, _, stderr := run(t, append([]string{"modbus"}, args...)...)
		if code != exitFailure || !strings.Contains(stderr, "in use") || !strings.Contains(stderr, "systemctl stop gateway") {
			t.Errorf("exit %d: %s", code, stderr)
		}
	}
}

func TestModbusToolsSayThatThePortIsNotThere(t *testing.T) {
	code, _, stderr := run(t, "modbus", "read", "--port", "/dev/ttyNothing", "holding", "0")
	if code != exitFailure || !strings.Contains(stderr, "not there") {
		t.Errorf("exit %d: %s", code, stderr)
	}
}
