package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	mochi "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/hooks/auth"
	"github.com/mochi-mqtt/server/v2/listeners"
)

// serveMochi is the first argument with which this program becomes a mochi-mqtt broker.
const serveMochi = "serve-mochi"

// runMochi serves until it is killed, and returns only why it cannot.
func runMochi(addr string) error {
	s := mochi.New(&mochi.Options{Logger: slog.New(slog.DiscardHandler)})
	if err := s.AddHook(new(auth.AllowHook), nil); err != nil {
		return err
	}
	if err := s.AddListener(listeners.NewTCP(listeners.Config{ID: "t", Address: addr})); err != nil {
		return err
	}
	if err := s.Serve(); err != nil {
		return err
	}
	select {}
}

type gatewayBinary struct{ dir, path string }

// buildGateway builds the gateway as it is shipped.
func buildGateway() (gatewayBinary, error) {
	dir, err := os.MkdirTemp("", "bench-broker-")
	if err != nil {
		return gatewayBinary{}, err
	}
	root, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "gateway").Output()
	if err != nil {
		return gatewayBinary{}, fmt.Errorf("finding the gateway's module (run from e2e/): %w", err)
	}
	b := gatewayBinary{dir, filepath.Join(dir, "gateway")}
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", b.path, "./cmd/gateway")
	cmd.Dir = strings.TrimSpace(string(root))
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return b, fmt.Errorf("building the gateway: %w\n%s", err, out)
	}
	return b, nil
}

// A server is a broker at work.
type server struct {
	cmd  *exec.Cmd
	addr string
}

func (b *bench) start(ctx context.Context, name string) (*server, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	addr := ln.Addr().String()
	_, port, _ := net.SplitHostPort(addr)
	ln.Close()
	var cmd *exec.Cmd
	switch name {
	case "gateway":
		cmd = exec.CommandContext(ctx, b.binary.path, "broker", "--listen", addr)
	case "mosquitto":
		conf := filepath.Join(b.binary.dir, "mosquitto.conf")
		text := "listener " + port + " 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\npersistence false\nlog_type none\nuser root\n"
		if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
			return nil, err
		}
		cmd = exec.CommandContext(ctx, "mosquitto", "-c", conf)
	case "mochi":
		cmd = exec.CommandContext(ctx, os.Args[0], serveMochi, addr)
	default:
		return nil, fmt.Errorf("unknown server %q", name)
	}
	cmd.Stdout, cmd.Stderr = io.Discard, io.Discard
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	s := &server{cmd, addr}
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		nc, err := net.Dial("tcp", addr)
		if err == nil {
			nc.Close()
			return s, nil
		}
		if time.Now().After(deadline) {
			s.stop()
			return nil, fmt.Errorf("%s does not listen: %w", name, err)
		}
	}
}

func (s *server) stop() {
	s.cmd.Process.Signal(syscall.SIGKILL)
	s.cmd.Wait()
}

// cpu is the processor time that the server has used.
func (s *server) cpu() (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	_, rest, found := strings.Cut(string(b), ") ")
	f := strings.Fields(rest)
	if !found || len(f) < 13 {
		return 0, errors.New("unexpected form of /proc/PID/stat")
	}
	user, err1 := strconv.ParseInt(f[11], 10, 64)
	system, err2 := strconv.ParseInt(f[12], 10, 64)
	return time.Duration(user+system) * 10 * time.Millisecond, errors.Join(err1, err2) // USER_HZ is 100
}

// rss is the server's resident memory in bytes.
func (s *server) rss() (float64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kib, err := strconv.ParseFloat(strings.Fields(v)[0], 64)
			return kib * 1024, err
		}
	}
	return 0, errors.New("no VmRSS in /proc/PID/status")
}
