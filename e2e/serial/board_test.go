//go:build board

// The UART of the emulated board is watched behind a command of its own, go test -tags board ./serial:
// at times the emulated UART stalls before its first byte, whatever is tested. That the gateway reads
// lines from it is shown in e2e/arm.

package serial

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"gateway/e2e/board"
	"gateway/e2e/rig"
)

// What a pseudo-terminal cannot do and the kernel's UART driver can: the driver's counters, modem
// lines, hardware flow control, seven bits with parity read back as they were set.
const boardConfig = `
[[serial]]
name = "line"
port = "/dev/ttymxc1"
baud = 19200
data_bits = 7
parity = "even"
stop_bits = 2
rts = true
dtr = true

  [[serial.device]]
  name = "scale"
  match = '^ST,(?P<weight>[-+0-9.]+)kg'
`

var boardSteps = []struct {
	name, command string
	want          []string
}{
	{"list", "list", []string{"/dev/ttymxc1  (imx-uart)", "exit 0"}},
	{"plain", "monitor --for 4s --baud 115200 /dev/ttymxc1", []string{"is open", "frame of 9 bytes: ST,12.5kg", "the driver counted ", "exit 0"}},
	{"points", "monitor --for 4s --config /etc/gateway.toml line", []string{"scale: weight = 12.5", "exit 0"}},
	{"flow control", "monitor --for 4s --flow rts/cts --baud 57600 /dev/ttymxc1", []string{"frame of 9 bytes", "exit 0"}},
	{"an odd rate", "monitor --for 4s --baud 250000 /dev/ttymxc1", []string{"frame of 9 bytes", "exit 0"}},
	{"a rate beyond the clock", "monitor --for 4s --baud 20000000 /dev/ttymxc1", []string{"the driver does not take 20000000 baud", "exit 1"}},
	{"absent", "monitor --for 4s /dev/ttymxc7", []string{"/dev/ttymxc7: not there", "exit 1"}},
}

func TestTheUARTOfAnARMBoard(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "gateway")
	if err := rig.BuildTo(binary, "arm", "7"); err != nil {
		t.Fatal(err)
	}
	script := "sleep 1\n"
	for _, s := range boardSteps {
		script += "echo '== " + s.name + "'; gateway serial " + s.command + " 2>&1; echo exit $?\n"
	}
	b := board.Start(t, board.Options{
		Files:  map[string]string{"/bin/gateway": binary, "/etc/gateway.toml": rig.Write(t, t.TempDir(), "gateway.toml", boardConfig)},
		Script: script + "echo '== end'",
	})
	repeat(t, b.Console.Exited(), func() error { _, err := b.UART.Write([]byte("ST,12.5kg\r\n")); return err }, func() { b.UART.Close() })
	b.Console.Await(t, 3*time.Minute, "the end of the script", rig.HasLine("== end"))

	lines := b.Console.Lines()
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], "\r ")
	}
	for _, s := range boardSteps {
		from := slices.Index(lines, "== "+s.name)
		if from < 0 {
			t.Errorf("%s did not run", s.name)
			continue
		}
		out := lines[from+1:]
		if to := slices.IndexFunc(out, func(l string) bool { return strings.HasPrefix(l, "== ") }); to >= 0 {
			out = out[:to]
		}
		for _, want := range s.want {
			if !slices.ContainsFunc(out, func(l string) bool { return strings.Contains(l, want) }) {
				t.Errorf("gateway serial %s: no line with %q in\n%s", s.command, want, strings.Join(out, "\n"))
			}
		}
	}
	if t.Failed() {
		t.Log(strings.Join(lines, "\n"))
	}
}
