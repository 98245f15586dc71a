package modbus_test

import (
	"os/exec"
	"testing"

	"gateway/adapters/port"
	"gateway/adapters/sim"
)

// serve lets a simulated line answer on a serial port until the function it returns is called.
func serve(t *testing.T, path string, m *sim.Modbus) func() {
	t.Helper()
	p, err := port.Open(port.Config{Name: path, Baud: 19200})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- m.ServeRTU(p) }()
	return func() {
		p.Close()
		<-done
	}
}

// debianPython returns Debian's interpreter, which has Debian's pymodbus: another one may come first
// on the path.
func debianPython(t *testing.T) string {
	t.Helper()
	const path = "/usr/bin/python3"
	if out, err := exec.Command(path, "-c", "import pymodbus.server").CombinedOutput(); err != nil {
		t.Fatalf("pymodbus is missing; apt-get install python3-pymodbus python3-serial-asyncio: %v\n%s", err, out)
	}
	return path
}
