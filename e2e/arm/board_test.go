// Package arm runs the released binaries on ARM and RISC-V: the gateway on an emulated ARM board with
// the real kernel's drivers, and each architecture's binary under qemu's user emulation.
package arm

import (
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"gateway/e2e/board"
	"gateway/e2e/rig"
)

// binary builds the gateway for an architecture.
func binary(t testing.TB, goarch, goarm string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "gateway-"+goarch)
	if err := rig.BuildTo(path, goarch, goarm); err != nil {
		t.Fatal(err)
	}
	return path
}

// The binary that a Raspberry Pi 1 gets (ARMv6, static, stripped) reads a temperature through
// /dev/i2c-0 and lines through /dev/ttymxc1, and Mosquitto on the host receives both. The board has no
// clock and nobody sets one, so every sample says that its time is not to be trusted.
func TestTheBoardReadsI2CAndUARTAndPublishes(t *testing.T) {
	host := rig.NewMosquitto(t, "")
	sub := host.Subscribe(t, "watcher", "board/#")
	config := rig.Write(t, t.TempDir(), "gateway.toml", fmt.Sprintf(`
[gateway]
id = "board"
data = "/var/lib/gateway"

[queue]
max_bytes = "64 MiB"

[[destination]]
name = "host"
url = "mqtt://10.0.2.2:%d"

[[i2c]]
name = "header"
bus = 0

  [[i2c.device]]
  name = "roof"
  chip = "tmp75"
  address = 0x48
  interval = "1s"

[[serial]]
name = "line"
port = "/dev/ttymxc1"
baud = 115200
frame = { line = "\n" }

  [[serial.device]]
  name = "scale"
  match = '^ST,(?P<count>\d+),(?P<weight>[-+0-9.]+)kg'
`, host.Port))
	b := board.Start(t, board.Options{
		Files:   map[string]string{"/bin/gateway": binary(t, "arm", "6"), "/etc/gateway.toml": config},
		Devices: []string{"tmp105,id=thermometer,bus=i2c-bus.0,address=0x48"},
		Script:  `gateway run --config /etc/gateway.toml 2>&1`,
	})
	b.Set(t, "thermometer", "temperature", 21500)
	b.Console.Await(t, board.Patience, "a board that is up", rig.HasLine("the board is up"))

	// A scale that talks by itself, as long as the test runs; whoever listens late misses the beginning.
	done := make(chan struct{})
	talking := make(chan struct{})
	go func() {
		defer close(talking)
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		for n := 0; ; n++ {
			if _, err := fmt.Fprintf(b.UART, "ST,%d,%+.1fkg\n", n, float64(n)/10); err != nil {
				return // the board is off
			}
			select {
			case <-done:
				return
			case <-tick.C:
			}
		}
	}()
	t.Cleanup(func() { close(done); b.UART.Close(); <-talking })

	sub.Await(t, board.Patience, "21.5 degrees", func(lines []string) bool {
		return slices.ContainsFunc(rig.Samples(t, lines, "board/roof"), func(m rig.Sample) bool { return m.Values["temperature"] == 21.5 })
	})
	b.Set(t, "thermometer", "temperature", -7250)
	sub.Await(t, board.Patience, "-7.25 degrees", func(lines []string) bool {
		return slices.ContainsFunc(rig.Samples(t, lines, "board/roof"), func(m rig.Sample) bool { return m.Values["temperature"] == -7.25 })
	})
	sub.Await(t, board.Patience, "20 lines of the scale", func(lines []string) bool {
		return len(rig.Samples(t, lines, "board/scale")) >= 20
	})

	// Every line since the first, each once, each with the value that the scale sent.
	scale := rig.Samples(t, sub.Lines(), "board/scale")
	for i, m := range scale {
		count, _ := m.Values["count"].(float64)
		if m.Clock != "unsynced" {
			t.Errorf("line %v has the time %v, and of the clock it says %q", count, m.Time, m.Clock)
		}
		if weight := m.Values["weight"]; weight != count/10 {
			t.Errorf("line %v weighs %v", count, weight)
		}
		if i > 0 {
			before := scale[i-1]
			if was, _ := before.Values["count"].(float64); count != was+1 {
				t.Errorf("after line %v came %v", was, count)
			}
			if m.Prev == nil || *m.Prev != before.Seq {
				t.Errorf("sample %d says that %v was before it, it was %d", m.Seq, m.Prev, before.Seq)
			}
		}
	}
}
