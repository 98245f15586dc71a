package gateway

import (
	"encoding/hex"
	"log/slog"

	"gateway/buffer"
	"gateway/config"
	"gateway/internal/clock"
)

// queueOptions translates the table [queue].
func queueOptions(cfg *config.Queue, dir string, lost func(buffer.Loss), late func(string, buffer.LossReason, int64), log *slog.Logger) buffer.Options {
	o := buffer.Options{
		Dir: dir, OnLoss: lost, OnLate: late, Logger: log,
		MaxBytes: int64(cfg.MaxBytes), MaxAge: cfg.MaxAge, Preallocate: cfg.Preallocate, SyncWindow: cfg.Sync.Window,
	}
	if cfg.WhenFull == config.RefuseNewest {
		o.Full = buffer.RefuseNewest
	}
	if id, err := clock.System().BootID(); err == nil {
		o.BootID = hex.EncodeToString(id[:])
	} else {
		log.Warn("the boot of this machine has no name: a crash of the process cannot be told from a power cut", "err", err)
	}
	return o
}
