//go:build board

// The UART of the emulated board is watched behind a command of its own, go test -tags board ./serial:
// at times the emulated UART stalls before its first byte, whatever is tested. That the gateway reads
// lines from it is shown in e2e/arm.

package serial

import (
	"path/filepath"
	"testing"

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

var boardSteps = []board.Step{
	{Name: "list", Command: "list", Want: []string{"/dev/ttymxc1  (imx-uart)", "exit 0"}},
	{Name: "plain", Command: "monitor --for 4s --baud 115200 /dev/ttymxc1", Want: []string{"is open", "frame of 9 bytes: ST,12.5kg", "the driver counted ", "exit 0"}},
	{Name: "points", Command: "monitor --for 4s --config /etc/gateway.toml line", Want: []string{"scale: weight = 12.5", "exit 0"}},
	{Name: "flow control", Command: "monitor --for 4s --flow rts/cts --baud 57600 /dev/ttymxc1", Want: []string{"frame of 9 bytes", "exit 0"}},
	{Name: "an odd rate", Command: "monitor --for 4s --baud 250000 /dev/ttymxc1", Want: []string{"frame of 9 bytes", "exit 0"}},
	{Name: "a rate beyond the clock", Command: "monitor --for 4s --baud 20000000 /dev/ttymxc1", Want: []string{"the driver does not take 20000000 baud", "exit 1"}},
	{Name: "absent", Command: "monitor --for 4s /dev/ttymxc7", Want: []string{"/dev/ttymxc7: not there", "exit 1"}},
}

func TestTheUARTOfAnARMBoard(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "gateway")
	if err := rig.BuildTo(binary, "arm", "7"); err != nil {
		t.Fatal(err)
	}
	b := board.Start(t, board.Options{
		Files:  map[string]string{"/bin/gateway": binary, "/etc/gateway.toml": rig.Write(t, t.TempDir(), "gateway.toml", boardConfig)},
		Script: board.Script("serial", boardSteps),
	})
	repeat(t, b.Console.Exited(), func() error { _, err := b.UART.Write([]byte("ST,12.5kg\r\n")); return err }, func() { b.UART.Close() })
	b.Check(t, "serial", boardSteps)
}
