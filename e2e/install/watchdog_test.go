package install

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gateway/e2e/rig"
)

// disk returns a directory on a file system of its own, and what freezes and thaws it: whoever writes
// to one that is frozen waits, as at a card that hangs.
func disk(t *testing.T) (dir string, freeze, thaw func()) {
	t.Helper()
	image, dir := filepath.Join(t.TempDir(), "image"), filepath.Join(t.TempDir(), "disk")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	run(t, "truncate", "--size=128M", image)
	run(t, "mkfs.ext4", "-q", image)
	run(t, "mount", "-o", "loop", image, dir)
	t.Cleanup(func() { run(t, "umount", dir) })
	t.Cleanup(func() { _, _ = try(time.Minute, "fsfreeze", "--unfreeze", dir) }) // it is frozen only where the test failed
	return dir, func() { run(t, "fsfreeze", "--freeze", dir) }, func() { run(t, "fsfreeze", "--unfreeze", dir) }
}

// A manager is the service manager's end of the notification socket.
type manager struct {
	t *testing.T
	c *net.UnixConn
}

func newManager(t *testing.T) (m *manager, socket string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "sd") // the path of a socket is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket = filepath.Join(dir, "notify")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &manager{t, c}, socket
}

// hears returns the first message within d that contains text, and whether there was one.
func (m *manager) hears(text string, d time.Duration) (string, bool) {
	m.t.Helper()
	if err := m.c.SetReadDeadline(time.Now().Add(d)); err != nil {
		m.t.Fatal(err)
	}
	b := make([]byte, 4096)
	for {
		n, err := m.c.Read(b)
		if err != nil {
			return "", false
		}
		if got := string(b[:n]); strings.Contains(got, text) {
			return got, true
		}
	}
}

func (m *manager) mustHear(text string, d time.Duration) string {
	m.t.Helper()
	got, ok := m.hears(text, d)
	if !ok {
		m.t.Fatalf("within %v the service manager did not hear %q", d, text)
	}
	return got
}

// A destination that is away is nothing that a restart mends: the watchdog is fed. A writer that stands
// still is: it is fed no more, though the process lives and its timers run, until the writer moves again.
func TestWatchdogIsTiedToTheWriterAndNotToTheLink(t *testing.T) {
	t.Parallel() // it waits most of its time
	data, freeze, thaw := disk(t)
	m, socket := newManager(t)
	config := settings(filepath.Join(data, "gateway"), "mqtt://127.0.0.1:1", rig.FreePort(t)) + counters(t)
	cmd := exec.Command(rig.Binary(t), "run", "--config", rig.Write(t, t.TempDir(), "gateway.toml", config))
	const interval = 3 * time.Second
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+socket, fmt.Sprintf("WATCHDOG_USEC=%d", interval.Microseconds()))
	g := rig.StartCmd(t, cmd)

	m.mustHear("READY=1", rig.Patience)
	for range 3 {
		m.mustHear("WATCHDOG=1", rig.Patience)
	}
	freeze()
	said := m.mustHear("standing still", rig.Patience)
	if !strings.Contains(said, "the writer") || strings.Contains(said, "modbus") {
		t.Errorf("what stands still: %s", said)
	}
	if _, ok := m.hears("WATCHDOG=1", 2*interval); ok {
		t.Error("the watchdog is fed while the writer stands still")
	}
	thaw()
	m.mustHear("running again", rig.Patience)
	m.mustHear("WATCHDOG=1", rig.Patience)
	if code := g.Stop(t, rig.Patience); code != 0 {
		t.Errorf("it ended with %d: %s", code, g.Stderr())
	}
}
