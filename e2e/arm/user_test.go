package arm

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"gateway/e2e/bench/footprint"
	"gateway/e2e/rig"
)

// Each architecture's binary keeps within 16 MB, polls ten Modbus devices, queues what they say and
// publishes it, under qemu's emulation of the processor.
func TestBinariesOfEachArchitecture(t *testing.T) {
	for _, c := range []struct{ goarch, goarm, qemu string }{
		{"arm", "6", "qemu-arm-static"},
		{"arm64", "", "qemu-aarch64-static"},
		{"riscv64", "", "qemu-riscv64-static"},
	} {
		t.Run(c.goarch, func(t *testing.T) {
			qemu := rig.Need(t, c.qemu, "qemu-user-static")
			program := binary(t, c.goarch, c.goarm)
			info, err := os.Stat(program)
			if err != nil {
				t.Fatal(err)
			}
			if info.Size() > 16_000_000 {
				t.Errorf("the stripped binary has %d bytes, above its budget of 16 MB", info.Size())
			}
			upstream := rig.NewMosquitto(t, "")
			sub := upstream.Subscribe(t, "watcher", "emulated/+")
			modbus := fmt.Sprintf("127.0.0.1:%d", footprint.Plant(t))
			config := footprint.Configuration("emulated", filepath.Join(t.TempDir(), "data"), modbus, upstream.URL())
			file := rig.Write(t, t.TempDir(), "gateway.toml", config)
			g := rig.Start(t, qemu, program, "run", "--config", file)
			sub.Await(t, rig.Patience, "three samples of each device", func(lines []string) bool {
				for d := range footprint.Devices {
					if len(rig.Samples(t, lines, fmt.Sprintf("emulated/d%d", d))) < 3 {
						return false
					}
				}
				return true
			})
			if code := g.Stop(t, rig.Patience); code != 0 {
				t.Errorf("it ended with %d", code)
			}
		})
	}
}
