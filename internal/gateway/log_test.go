package gateway

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"gateway/adapters"
	"gateway/config"
	"gateway/internal/sample"
)

// text is a log that tells when it holds something.
type text struct {
	mu    sync.Mutex
	bytes bytes.Buffer
	wrote chan struct{}
}

func (l *text) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n, err := l.bytes.Write(b)
	select {
	case l.wrote <- struct{}{}:
	default:
	}
	return n, err
}

func (l *text) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.bytes.String()
}

// Without it the faults of two buses were one in the log, and told once.
func TestALogLineOfAModbusBusNamesTheBus(t *testing.T) {
	cfg, problems := config.Parse("gateway.toml", modbusTable(`address = "127.0.0.1:1"`, // nobody is there: a port of ours might be taken by another
		"unit = 1", `{ name = "x", holding = 1 }`))
	if problems.Failed() {
		t.Fatal(problems)
	}
	log := &text{wrote: make(chan struct{}, 1)}
	b, err := newModbus(&cfg.Modbus[0], busEnv{
		Sink: newWriter(&shelf{}, &sample.Decoder{}, 1, nil, slog.New(slog.DiscardHandler)), Clock: func() adapters.Instant { return 1 }, Log: slog.New(slog.NewTextHandler(log, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	ended := make(chan error)
	go func() { ended <- b.Run(ctx) }()
	select {
	case <-log.wrote:
	case <-ctx.Done():
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	for line := range strings.Lines(log.String()) {
		if !strings.Contains(line, "bus=b") {
			t.Error(line)
		}
	}
	if log.String() == "" {
		t.Error("nothing was said of a bus that is not there")
	}
}
