package systemd

import (
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
)

func env(kv ...string) func(string) string {
	return func(key string) string {
		for i := 0; i < len(kv); i += 2 {
			if kv[i] == key {
				return kv[i+1]
			}
		}
		return ""
	}
}

// manager is the socket of a service manager; next returns the datagram that came.
func manager(t *testing.T, name string) (next func() string) {
	t.Helper()
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return func() string {
		t.Helper()
		c.SetReadDeadline(time.Now().Add(time.Minute))
		buf := make([]byte, 4096)
		n, err := c.Read(buf)
		if err != nil {
			t.Fatalf("the service manager heard nothing: %v", err)
		}
		return string(buf[:n])
	}
}

// socketPath is a path short enough for a socket's address (108 bytes).
func socketPath(t *testing.T) string {
	dir, err := os.MkdirTemp("", "sd")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "notify")
}

func TestNotifierTellsStates(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Log("there are no datagram sockets in the file system here, and no service manager that uses them")
		return
	}
	names := map[string]string{"path": socketPath(t)}
	if runtime.GOOS == "linux" {
		names["abstract"] = "@gateway-test-" + strconv.Itoa(os.Getpid())
	}
	for kind, name := range names {
		t.Run(kind, func(t *testing.T) {
			next := manager(t, name)
			n, err := NewNotifier(env("NOTIFY_SOCKET", name))
			if err != nil || n.addr == nil {
				t.Fatalf("NewNotifier: listening %t, %v", n.addr != nil, err)
			}
			for _, c := range []struct {
				send func() error
				want string
			}{
				{func() error { return n.Ready("3 devices on 2 buses") }, "READY=1\nSTATUS=3 devices on 2 buses\n"},
				{func() error { return n.Ready("") }, "READY=1\n"},
				{func() error { return n.Status("two\nlines\x00") }, "STATUS=two lines \n"},
				{func() error { return n.Alive() }, "WATCHDOG=1\n"},
				{func() error { return n.Stopping("draining") }, "STOPPING=1\nSTATUS=draining\n"},
			} {
				if err := c.send(); err != nil {
					t.Fatalf("sending %q: %v", c.want, err)
				}
				if got := next(); got != c.want {
					t.Errorf("the manager heard %q, want %q", got, c.want)
				}
			}
		})
	}
}

func TestNobodyListens(t *testing.T) {
	n, err := NewNotifier(env())
	if err != nil || n.addr != nil || n.watchdog != 0 {
		t.Fatalf("without NOTIFY_SOCKET: listening %t, watchdog %v, %v", n.addr != nil, n.watchdog, err)
	}
	if err := n.Ready("started"); err != nil {
		t.Errorf("Ready without a manager: %v", err)
	}
	if err := new(Notifier).Alive(); err != nil {
		t.Errorf("the zero Notifier: %v", err)
	}
}

func TestAManagerThatIsGoneIsAnError(t *testing.T) {
	n, err := NewNotifier(env("NOTIFY_SOCKET", socketPath(t)))
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Ready(""); err == nil || !strings.HasPrefix(err.Error(), "systemd: ") {
		t.Errorf("Ready to a socket that nobody holds: %v", err)
	}
}

func TestWatchdogEnvironment(t *testing.T) {
	pid := strconv.Itoa(os.Getpid())
	for _, c := range []struct {
		name, usec, pid string
		want            time.Duration
		fault           string
	}{
		{"asked for", "30000000", pid, 30 * time.Second, ""},
		{"no pid given", "30000000", "", 30 * time.Second, ""},
		{"for another process", "30000000", "1", 0, ""},
		{"not asked for", "", pid, 0, ""},
		{"not a number", "30s", pid, 0, "WATCHDOG_USEC"},
		{"zero", "0", pid, 0, "WATCHDOG_USEC"},
		{"overflows", "9223372036854775807", pid, 0, "WATCHDOG_USEC"},
	} {
		n, err := NewNotifier(env("NOTIFY_SOCKET", "/run/x", "WATCHDOG_USEC", c.usec, "WATCHDOG_PID", c.pid))
		if n.watchdog != c.want {
			t.Errorf("%s: interval %v, want %v", c.name, n.watchdog, c.want)
		}
		if (err != nil) != (c.fault != "") || err != nil && !strings.Contains(err.Error(), c.fault) {
			t.Errorf("%s: error %v, want one about %q", c.name, err, c.fault)
		}
		if n.addr == nil {
			t.Errorf("%s: the manager hears nothing", c.name)
		}
	}
	if _, err := NewNotifier(env("NOTIFY_SOCKET", "vsock:2:1234")); err == nil {
		t.Error("a kind of socket that is not served is not reported")
	}
}
