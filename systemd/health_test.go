package systemd

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestHealthIsTheProgressOfTheLoops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var writer, bus atomic.Uint64
		var h Health
		if err := h.Check(); err != nil {
			t.Fatalf("without loops: %v", err)
		}
		h.Add("the writer", 5*time.Second, writer.Load)
		h.Add(`modbus "meters"`, 20*time.Second, bus.Load)

		time.Sleep(5 * time.Second)
		if err := h.Check(); err != nil {
			t.Errorf("at the limit: %v", err)
		}
		time.Sleep(time.Second)
		err := h.Check()
		if err == nil || !strings.Contains(err.Error(), "the writer has not moved for 6s") || strings.Contains(err.Error(), "meters") {
			t.Errorf("a writer that stands still for 6 s: %v", err)
		}
		writer.Add(1)
		if err := h.Check(); err != nil {
			t.Errorf("after it moved: %v", err)
		}
		time.Sleep(30 * time.Second)
		if err := h.Check(); err == nil || !strings.Contains(err.Error(), "writer") || !strings.Contains(err.Error(), "meters") {
			t.Errorf("both stand still: %v", err)
		}
	})
}

func TestWatchdogIsFedByHealthAndNotByATimerAlone(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Log("there is no service manager with a watchdog here")
		return
	}
	socket := socketPath(t)
	next := manager(t, socket)
	n, err := NewNotifier(env("NOTIFY_SOCKET", socket, "WATCHDOG_USEC", "30000"))
	if err != nil {
		t.Fatal(err)
	}
	var sick atomic.Bool
	var log bytes.Buffer
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() {
		done <- n.Watch(ctx, func() error {
			if sick.Load() {
				return errors.New("the writer has not moved for 6s")
			}
			return nil
		}, slog.New(slog.NewTextHandler(&log, nil)))
	}()
	for range 3 {
		if got := next(); got != "WATCHDOG=1\n" {
			t.Fatalf("healthy: the manager heard %q", got)
		}
	}
	sick.Store(true)
	got := next()
	for got == "WATCHDOG=1\n" { // those sent before it fell ill
		got = next()
	}
	if got != "STATUS=standing still: the writer has not moved for 6s\n" {
		t.Fatalf("ill: the manager heard %q", got)
	}
	sick.Store(false)
	// Whatever comes next comes after the recovery: while it was ill there was no sign of life.
	if got := next(); got != "STATUS=running again after a loop stood still\n" {
		t.Fatalf("recovered: the manager heard %q", got)
	}
	if got := next(); got != "WATCHDOG=1\n" {
		t.Fatalf("recovered: the manager heard %q", got)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if strings.Count(log.String(), "level=ERROR") != 1 || !strings.Contains(log.String(), "the writer has not moved") {
		t.Errorf("the journal does not say once why:\n%s", log.String())
	}
}

func TestWatchWithoutWatchdogWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
		defer cancel()
		if err := new(Notifier).Watch(ctx, func() error { t.Error("asked for health"); return nil }, slog.Default()); err != nil {
			t.Error(err)
		}
		if ctx.Err() == nil {
			t.Error("Watch returned before its context ended")
		}
	})
}
