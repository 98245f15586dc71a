package buffer

import (
	"errors"
	"fmt"
)

var (
	// ErrFull refuses an append under RefuseNewest while the queue is at its bound.
	ErrFull = errors.New("buffer: the queue is full and its policy is to refuse the newest; raise max_bytes or let the destinations catch up")
	// ErrTooLarge refuses a record that does not fit into a segment.
	ErrTooLarge = errors.New("buffer: the record is too large for a segment")
	// ErrClosed is returned by whatever is called after Close.
	ErrClosed = errors.New("buffer: closed")

	errDoubt = errors.New("buffer: a sync failed, and memory was too small to write the record once more")
)

// ErrLocked says that another process has the directory open.
type ErrLocked struct {
	Path string
	Pid  int // 0 when the system does not tell
}

func (e *ErrLocked) Error() string {
	if e.Pid == 0 {
		return fmt.Sprintf("buffer: %s is held by another process: stop it first", e.Path)
	}
	return fmt.Sprintf("buffer: %s is held by process %d: stop it first", e.Path, e.Pid)
}

// ErrNewer says that a file was written by a later version of this package. Nothing was touched.
type ErrNewer struct {
	Path    string
	Version uint32
}

func (e *ErrNewer) Error() string {
	return fmt.Sprintf("buffer: %s has format version %d and this program knows up to %d: run the newer program, or move the directory away to start with an empty one", e.Path, e.Version, formatVersion)
}

// A DiskError says that what was appended could not be made durable. The record itself is kept in
// memory for as long as that lasts, delivered from there, and written as soon as the disk takes it
// again, unless Refused is set: then nothing of it was kept.
type DiskError struct {
	Refused bool
	Err     error
}

func (e *DiskError) Error() string {
	if e.Refused {
		return fmt.Sprintf("buffer: the disk does not take records, refused: %v", e.Err)
	}
	return fmt.Sprintf("buffer: the disk does not take records, kept in memory: %v", e.Err)
}

func (e *DiskError) Unwrap() error { return e.Err }
