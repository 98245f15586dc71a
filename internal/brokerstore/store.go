// Package brokerstore keeps a broker's persistent sessions and retained messages in a journal of
// package buffer: a snapshot, and a log of what changed since. What the records hold is the broker's affair;
// how they lie on the disk, survive a power cut and are checked is buffer's.
package brokerstore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"gateway/buffer"
)

// A Store is a directory with a journal; it implements broker.Store.
type Store struct {
	opt     buffer.JournalOptions
	journal *buffer.Journal
}

// New returns a Store for a directory, which Replay opens, and makes if need be. A nil fs is the real file
// system, a nil logger is silent.
func New(dir string, fs buffer.FS, logger *slog.Logger) *Store {
	return &Store{opt: buffer.JournalOptions{Dir: dir, FS: fs, Logger: logger}}
}

var errNotOpen = errors.New("brokerstore: not open: Replay comes first")

// dying is how long a process that was killed may take to be gone.
const dying = time.Second

// Replay opens the journal and calls fn with each record. It fails where another process has the
// directory, or a later version wrote it; damaged records are left out, logged and counted.
func (s *Store) Replay(fn func(rec []byte) error) error {
	if s.journal != nil {
		return errors.New("brokerstore: is open already")
	}
	j, found, err := buffer.OpenJournal(s.opt, fn)
	// Nothing was replayed where the directory is locked. A process that has just been killed holds it for
	// another moment; whoever starts the next at once need not fail.
	locked := new(buffer.ErrLocked)
	for deadline := time.Now().Add(dying); errors.As(err, &locked) && time.Now().Before(deadline); {
		<-time.After(dying / 50)
		j, found, err = buffer.OpenJournal(s.opt, fn)
	}
	if err != nil {
		return fmt.Errorf("brokerstore: %s: %w", s.opt.Dir, err)
	}
	s.journal = j
	if (found.Lost > 0 || found.Unreadable > 0) && s.opt.Logger != nil {
		s.opt.Logger.Error("the broker's store was damaged: some sessions or messages may be lost", "dir", s.opt.Dir,
			"records", found.Records, "lost", found.Lost, "unreadable_files", found.Unreadable)
	}
	return nil
}

// Append hands a record to the operating system.
func (s *Store) Append(rec []byte) error {
	if s.journal == nil {
		return errNotOpen
	}
	return s.journal.Append(rec)
}

// Sync returns when all that was appended before is on the disk.
func (s *Store) Sync() error {
	if s.journal == nil {
		return errNotOpen
	}
	return s.journal.Sync(context.Background())
}

// Snapshot replaces what was appended so far by what write puts.
func (s *Store) Snapshot(write func(put func(rec []byte) error) error) error {
	if s.journal == nil {
		return errNotOpen
	}
	return s.journal.Snapshot(write)
}

// Size is how many bytes were appended since the newest snapshot.
func (s *Store) Size() int64 {
	if s.journal == nil {
		return 0
	}
	_, log := s.journal.Size()
	return log
}

// Close syncs and lets go of the directory. The broker must have ended.
func (s *Store) Close() error {
	if s.journal == nil {
		return nil
	}
	return s.journal.Close()
}
