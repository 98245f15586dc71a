// Package modbus_test runs the Modbus adapter against servers that others wrote, and our simulated
// devices against clients that others wrote.
package modbus_test

import (
	"net"
	"os/exec"
	"strings"
	"testing"

	"gateway/adapters/sim"
	"gateway/e2e/rig"
)

// simulated returns a line with the registers of the other servers.
func simulated() *sim.Modbus {
	m := sim.NewModbus()
	u := m.Unit(1)
	for i := range uint16(200) {
		u.Set(sim.HoldingRegisters, i, 1000+i).Set(sim.InputRegisters, i, 2000+i).Set(sim.Coils, i, i%2)
	}
	return m
}

// mbpoll asks once, waits for the answer as long as it can be told to (10 s), and returns what it printed.
func mbpoll(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command(rig.Need(t, "mbpoll", "mbpoll"), append([]string{"-1", "-q", "-0", "-o", "10"}, args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("mbpoll %v: %v\n%s", args, err, out)
	}
	return string(out)
}

func check(t *testing.T, out string, lines ...string) {
	t.Helper()
	flat := strings.Join(strings.Fields(out), " ")
	for _, l := range lines {
		if !strings.Contains(flat, l) {
			t.Errorf("mbpoll has no %q:\n%s", l, out)
		}
	}
}

// The simulated devices, by which everything else is tested, are what a client of another maker
// expects.
func TestMbpollReadsOurSimulatedDevices(t *testing.T) {
	m := simulated()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- m.ServeTCP(l) }()
	t.Cleanup(func() {
		l.Close()
		<-served
	})
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	tcp := []string{"-m", "tcp", "-p", port, "-a", "1"}

	ours, theirs := ptys(t)
	serial := serve(t, theirs, m)
	t.Cleanup(serial)
	rtu := []string{"-m", "rtu", "-b", "19200", "-P", "none", "-a", "1"}

	for name, line := range map[string]struct {
		flags []string
		where string
	}{"tcp": {tcp, "127.0.0.1"}, "rtu": {rtu, ours}} {
		t.Run(name, func(t *testing.T) {
			ask := func(args ...string) string {
				return mbpoll(t, append(append(append([]string{}, line.flags...), args...), line.where)...)
			}
			check(t, ask("-r", "10", "-c", "3", "-t", "4"), "[10]: 1010", "[11]: 1011", "[12]: 1012")
			check(t, ask("-r", "5", "-c", "2", "-t", "3"), "[5]: 2005", "[6]: 2006")
			check(t, ask("-r", "4", "-c", "2", "-t", "0"), "[4]: 0", "[5]: 1")
		})
	}
}
