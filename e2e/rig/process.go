// Package rig starts the foreign parts of a test and the gateway itself, each as a process of its
// own on loopback ports of its own, and ends what it started. A part that the machine lacks fails
// the test with the package that has it.
package rig

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Patience is how long anything may take before a test fails. It keeps a test from hanging and proves nothing: on a
// machine that is shared a program may wait long for its turn, and all of it stand still for seconds.
const Patience = 2 * time.Minute

// Process is a program that the test started.
type Process struct {
	cmd    *exec.Cmd
	exited chan struct{}

	mu     sync.Mutex
	stderr bytes.Buffer
	stdout []string
	fresh  chan struct{} // closed and replaced when a line of output arrives
}

// Need returns the path of a program, or fails the test with the Debian package that has it.
func Need(t testing.TB, program, debianPackage string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		path, err = exec.LookPath(filepath.Join("/usr/sbin", program))
	}
	if err != nil {
		t.Fatalf("%s is missing; apt-get install %s", program, debianPackage)
	}
	return path
}

// Start starts a program; the test's end kills it if it still runs.
func Start(t testing.TB, name string, args ...string) *Process {
	t.Helper()
	return StartCmd(t, exec.Command(name, args...))
}

// StartCmd is Start for a command with an environment, a directory or an input of its own.
func StartCmd(t testing.TB, cmd *exec.Cmd) *Process {
	t.Helper()
	p := &Process{cmd: cmd, exited: make(chan struct{}), fresh: make(chan struct{})}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = writerFunc(func(b []byte) (int, error) {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.stderr.Len() < 1<<20 {
			p.stderr.Write(b)
		}
		return len(b), nil
	})
	if err := cmd.Start(); err != nil {
		t.Fatalf("%s: %v", cmd.Path, err)
	}
	lines := make(chan struct{})
	go func() {
		defer close(lines)
		p.read(out)
	}()
	go func() {
		<-lines
		_ = cmd.Wait() // the exit status is asked for by ExitCode
		close(p.exited)
	}()
	t.Cleanup(func() {
		p.Kill()
		if t.Failed() {
			t.Logf("%s said:\n%s", filepath.Base(cmd.Path), tail(p.Stderr(), 4000))
		}
	})
	return p
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

func tail(s string, n int) string {
	if len(s) > n {
		return "… " + s[len(s)-n:]
	}
	return s
}

func (p *Process) read(r io.Reader) {
	scanner := bufio.NewScanner(r)
	scanner.Buffer(nil, 1<<20)
	for scanner.Scan() {
		p.mu.Lock()
		p.stdout = append(p.stdout, scanner.Text())
		close(p.fresh)
		p.fresh = make(chan struct{})
		p.mu.Unlock()
	}
}

// PID returns the process id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Lines returns the lines of standard output so far.
func (p *Process) Lines() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.stdout...)
}

// Stderr returns what was written to standard error so far.
func (p *Process) Stderr() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stderr.String()
}

// Await waits until the lines of standard output satisfy ok, or fails the test after d.
func (p *Process) Await(t testing.TB, d time.Duration, what string, ok func(lines []string) bool) {
	t.Helper()
	deadline := time.After(d)
	for {
		p.mu.Lock()
		lines, fresh := p.stdout[:len(p.stdout):len(p.stdout)], p.fresh
		p.mu.Unlock()
		if ok(lines) {
			return
		}
		select {
		case <-fresh:
		case <-p.exited:
			if !ok(p.Lines()) {
				t.Fatalf("%s ended before %s; it said:\n%s", p.cmd.Path, what, tail(p.Stderr(), 4000))
			}
			return
		case <-deadline:
			t.Fatalf("%s: no %s within %v; %d lines so far", p.cmd.Path, what, d, len(lines))
		}
	}
}

// Signal sends a signal.
func (p *Process) Signal(s os.Signal) { _ = p.cmd.Process.Signal(s) }

// Kill ends the process at once (SIGKILL) and waits for it.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill()
	<-p.exited
}

// Stop asks the process to end (SIGTERM), waits at most d, and returns its exit code.
func (p *Process) Stop(t testing.TB, d time.Duration) int {
	t.Helper()
	p.Signal(syscall.SIGTERM)
	return p.Wait(t, d)
}

// Wait waits at most d for the process to end and returns its exit code.
func (p *Process) Wait(t testing.TB, d time.Duration) int {
	t.Helper()
	select {
	case <-p.exited:
	case <-time.After(d):
		p.Kill()
		t.Fatalf("%s did not end within %v; it said:\n%s", p.cmd.Path, d, tail(p.Stderr(), 4000))
	}
	return p.cmd.ProcessState.ExitCode()
}

// Exited is closed when the process has ended.
func (p *Process) Exited() <-chan struct{} { return p.exited }

// FreePort returns a loopback TCP port that nobody listens on and that is nobody else's while the test runs: a socket
// is bound to it and does not listen, so that the kernel gives it to no one who asks for any port. Who asks for this one
// gets it, as long as SO_REUSEADDR is set, and again after an end.
func FreePort(t testing.TB) int {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		t.Fatal(err)
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return name.(*unix.SockaddrInet4).Port
}

// AwaitTCP waits until something listens on the address.
func AwaitTCP(t testing.TB, addr string, d time.Duration) {
	t.Helper()
	Eventually(t, d, "a listener on "+addr, func() bool {
		c, err := net.DialTimeout("tcp", addr, time.Second)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
}

// Eventually asks ok every 20 ms until it is true, or fails the test after d.
func Eventually(t testing.TB, d time.Duration, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(d)
	for tick := time.NewTicker(20 * time.Millisecond); ; <-tick.C {
		if ok() {
			tick.Stop()
			return
		}
		if time.Now().After(deadline) {
			tick.Stop()
			t.Fatalf("no %s within %v", what, d)
		}
	}
}

// Write puts a file into the test's directory and returns its path.
func Write(t testing.TB, dir, name, content string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

var build struct {
	sync.Once
	path string
	err  error
}

// Binary builds the gateway once per test binary, as it is released (CGO off, stripped), and returns
// its path, which is the same for all of this checkout.
func Binary(t testing.TB) string {
	t.Helper()
	build.Do(func() {
		dir := filepath.Join(Root(), "e2e", ".bin")
		build.path = filepath.Join(dir, "gateway")
		build.err = buildInto(dir, build.path)
	})
	if build.err != nil {
		t.Fatal(build.err)
	}
	return build.path
}

// buildInto builds beside path and puts the result in its place, where the tests of another package may be running one.
func buildInto(dir, path string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	own, err := os.MkdirTemp(dir, "")
	if err != nil {
		return err
	}
	defer os.RemoveAll(own)
	fresh := filepath.Join(own, "gateway")
	if err := BuildTo(fresh, "", ""); err != nil {
		return err
	}
	return os.Rename(fresh, path)
}

// BuildTo builds the gateway for an architecture (and GOARM, where it has one) to path; empty means
// this machine's.
func BuildTo(path, goarch, goarm string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", path, "gateway/cmd/gateway")
	cmd.Dir = Root()
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if goarch != "" {
		cmd.Env = append(cmd.Env, "GOOS=linux", "GOARCH="+goarch, "GOARM="+goarm)
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w\n%s", err, out)
	}
	return nil
}

// Root returns the directory of the gateway's own module.
func Root() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Dir(filepath.Dir(filepath.Dir(file)))
}

// HasLine returns a condition for Await: some line contains the text.
func HasLine(text string) func([]string) bool {
	return func(lines []string) bool {
		for _, l := range lines {
			if strings.Contains(l, text) {
				return true
			}
		}
		return false
	}
}

// Python returns Debian's Python, which has Debian's modules; another one may come first in PATH.
func Python(t testing.TB) string {
	t.Helper()
	return Need(t, "/usr/bin/python3", "python3")
}
