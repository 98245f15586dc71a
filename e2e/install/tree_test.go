package install

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"gateway/e2e/rig"
)

// run runs a program and returns what it said; the test fails when it does.
func run(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := try(10*time.Minute, name, args...)
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return out
}

func try(limit time.Duration, name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C.UTF-8")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	return out.String(), err
}

// packages builds what is released for this machine, as a version, from a repository's directory,
// into a directory that it returns.
func packages(t testing.TB, repository, version string) string {
	t.Helper()
	return packagesWith(t, nil, repository, version)
}

// packagesWith is packages for somebody who has set more of the environment; UMASK is the umask.
func packagesWith(t testing.TB, env []string, repository, version string) string {
	t.Helper()
	dist := t.TempDir()
	cmd := exec.Command("sh", "-c", `umask "${UMASK:-022}" && exec go run ./build "$@"`, "sh",
		"-targets", "linux-"+runtime.GOARCH, "-version", version, "-out", dist)
	cmd.Dir = filepath.Join(repository, "packaging")
	cmd.Env = append(os.Environ(), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("building the packages: %v\n%s", err, out)
	}
	return dist
}

var firstRelease struct {
	sync.Once
	dist string
}

// release returns the directory with what this repository releases as 1.2.3, made once for all tests.
func release(t testing.TB) string {
	t.Helper()
	firstRelease.Do(func() {
		dist, err := os.MkdirTemp("", "gateway-e2e-release-") // a test's own goes with the test
		if err != nil {
			t.Fatal(err)
		}
		if err := os.CopyFS(dist, os.DirFS(packages(t, rig.Root(), "1.2.3"))); err != nil {
			t.Fatal(err)
		}
		firstRelease.dist = dist
	})
	if firstRelease.dist == "" {
		t.Fatal("the packages could not be made; see the test before")
	}
	return firstRelease.dist
}

func TestMain(m *testing.M) {
	flag.Parse()
	code := m.Run()
	os.RemoveAll(firstRelease.dist)
	os.Exit(code)
}

// deb returns the one Debian package in a directory.
func deb(t testing.TB, dist string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dist, "*.deb"))
	if err != nil || len(found) != 1 {
		t.Fatalf("packages in %s: %v, %v", dist, found, err)
	}
	return found[0]
}

var base struct {
	sync.Once
	tar string
	err error
}

// newTree returns a directory with a small Debian in it: the release on which the current Raspberry Pi
// OS stands too, with systemd and without the gateway.
func newTree(t testing.TB) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Fatal("a Debian tree with systemd in it takes root")
	}
	mmdebstrap := rig.Need(t, "mmdebstrap", "mmdebstrap")
	base.Do(func() {
		// Made once and kept: it changes only with Debian.
		cache, err := os.UserCacheDir()
		if err != nil {
			cache = os.TempDir()
		}
		base.tar = filepath.Join(cache, "gateway-e2e", "bookworm-"+runtime.GOARCH+".tar")
		if _, err := os.Stat(base.tar); err == nil {
			return
		}
		if base.err = os.MkdirAll(filepath.Dir(base.tar), 0o755); base.err != nil {
			return
		}
		part := filepath.Join(filepath.Dir(base.tar), "part.tar")
		out, err := try(10*time.Minute, mmdebstrap, "--variant=minbase", "--aptopt=Acquire::Retries \"5\"",
			"--include=systemd,systemd-sysv,udev,kmod,dbus,mosquitto,mosquitto-clients", "bookworm", part)
		if err != nil {
			base.err = fmt.Errorf("mmdebstrap: %w\n%s", err, out)
			return
		}
		base.err = os.Rename(part, base.tar)
	})
	if base.err != nil {
		t.Fatal(base.err)
	}
	root := filepath.Join(t.TempDir(), "debian")
	if err := os.Mkdir(root, 0o755); err != nil {
		t.Fatal(err)
	}
	run(t, "tar", "-C", root, "--exclude=./dev/*", "-xf", base.tar)
	// The tree's own broker is started where a test wants it.
	run(t, "systemctl", "--root="+root, "mask", "mosquitto.service")
	return root
}

// copyInto puts a file into a tree and returns its path there.
func copyInto(t testing.TB, root, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	inside := "/root/" + filepath.Base(file)
	if err := os.WriteFile(filepath.Join(root, inside), b, 0o755); err != nil {
		t.Fatal(err)
	}
	return inside
}

// A machine is a tree in which systemd runs as process 1, with a network of its own that has nothing
// but the loopback: no route, no name server, as on a box whose cable is out.
type machine struct {
	t      testing.TB
	root   string
	leader string // its process 1, as the host counts
}

// boot starts a tree and waits until systemd says that it is up. The test's end stops it.
func boot(t testing.TB, root string) *machine {
	t.Helper()
	nspawn := rig.Need(t, "systemd-nspawn", "systemd-container")
	cmd := exec.Command(nspawn, "--directory="+root, "--boot", "--register=no", "--keep-unit",
		"--private-network", "--console=pipe", "--machine=gateway-test")
	cmd.Env = append(os.Environ(), "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1")
	cmd.Stdin = nil
	console := new(bytes.Buffer)
	cmd.Stdout, cmd.Stderr = console, console
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	m := &machine{t: t, root: root}
	t.Cleanup(func() {
		if t.Failed() && m.leader != "" {
			journal, _ := m.try("journalctl", "--no-pager", "--lines=80")
			t.Logf("the journal:\n%s", journal)
		}
		_ = cmd.Process.Signal(syscall.SIGTERM) // a clean poweroff
		stopped := time.AfterFunc(20*time.Second, func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait() // it was told to end
		stopped.Stop()
		if t.Failed() {
			t.Logf("the console:\n%s", console)
		}
	})
	rig.Eventually(t, rig.Patience, "process 1 of the tree", func() bool {
		// systemd-nspawn has other children, too, while it prepares the tree.
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", cmd.Process.Pid, cmd.Process.Pid))
		if err != nil {
			return false
		}
		for _, child := range strings.Fields(string(b)) {
			if comm, err := os.ReadFile("/proc/" + child + "/comm"); err == nil && string(comm) == "systemd\n" {
				m.leader = child
			}
		}
		return m.leader != ""
	})
	rig.Eventually(t, rig.Patience, "a system that is up", func() bool {
		state, _ := m.try("systemctl", "is-system-running")
		return state == "running" || state == "degraded"
	})
	return m
}

// step is a part of a test that those after it stand on.
func (m *machine) step(t *testing.T, name string, f func(t *testing.T, m *machine)) {
	t.Helper()
	ok := t.Run(name, func(t *testing.T) {
		inside := *m
		inside.t = t
		f(t, &inside)
	})
	if !ok {
		t.FailNow()
	}
}

// try runs a command in the machine and returns its output without the last line break.
func (m *machine) try(args ...string) (string, error) {
	out, err := try(time.Minute, "nsenter", append([]string{"--target=" + m.leader, "--all", "--"}, args...)...)
	return strings.TrimRight(out, "\n"), err
}

// run is try for a command that must succeed.
func (m *machine) run(args ...string) string {
	m.t.Helper()
	out, err := m.try(args...)
	if err != nil {
		m.t.Fatalf("in the machine: %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// property returns one of systemd's properties of the gateway's unit.
func (m *machine) property(name string) string {
	m.t.Helper()
	return m.run("systemctl", "show", "--value", "--property="+name, "gateway.service")
}

// await waits for a property of the unit.
func (m *machine) await(name, want string) {
	m.t.Helper()
	got := ""
	rig.Eventually(m.t, rig.Patience, "gateway.service with "+name+"="+want, func() bool {
		got, _ = m.try("systemctl", "show", "--value", "--property="+name, "gateway.service")
		return got == want
	})
}

// up waits until the gateway runs and its own broker listens, which may be a moment after it has said that it started.
func (m *machine) up() {
	m.t.Helper()
	m.await("ActiveState", "active")
	rig.Eventually(m.t, rig.Patience, "listener of the gateway's broker", func() bool {
		_, err := m.try("mosquitto_pub", "-h", "127.0.0.1", "-t", "knock", "-n")
		return err == nil
	})
}

// write writes a file of the machine.
func (m *machine) write(path, content string) {
	m.t.Helper()
	if err := os.WriteFile(filepath.Join("/proc", m.leader, "root", path), []byte(content), 0o644); err != nil {
		m.t.Fatal(err)
	}
}
