package install

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gateway/e2e/rig"
)

// unit returns a copy of the unit whose program is there on this machine.
func unit(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(rig.Root(), "systemd", "gateway.service"))
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(string(b), "/usr/bin/gateway", rig.Binary(t), 1)
	path := filepath.Join(t.TempDir(), "gateway.service")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestUnitIsValid(t *testing.T) {
	analyze := rig.Need(t, "systemd-analyze", "systemd")
	if out := run(t, analyze, "verify", "--man=no", unit(t)); strings.Contains(out, "gateway.service") {
		t.Errorf("systemd-analyze verify:\n%s", out)
	}
}

// 2.0 of 10, while serial ports, I2C buses and the network work: what is left over is those, and that
// the kernel may be asked whether the clock is set. Peers' units score 9.0 to 9.6.
func TestUnitIsHardened(t *testing.T) {
	analyze := rig.Need(t, "systemd-analyze", "systemd")
	out, err := try(time.Minute, analyze, "security", "--offline=true", "--threshold=20", unit(t))
	if err != nil {
		t.Errorf("exposure above 2.0: %v\n%s", err, out)
	}
	lines := strings.Split(strings.TrimSpace(out), "\n")
	t.Log(lines[len(lines)-1])
}
