package buffer

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"syscall"
)

// A home is the directory of a queue or a journal: made, and locked for this process. On a disk that
// takes nothing (a root that is mounted read-only, one that is full) its owner starts all the same and
// claims it as soon as the disk lets it.
type home struct {
	fs  FS
	dir string

	lock   io.Closer // nil: not claimed yet
	absent bool      // it was not there when its owner started
}

// claim makes and locks the directory, unless that was done before.
func (h *home) claim() error {
	if h.lock != nil {
		return nil
	}
	if err := h.fs.MkdirAll(h.dir); err != nil {
		return fmt.Errorf("buffer: %w", err)
	}
	lock, err := h.fs.Lock(filepath.Join(h.dir, lockName))
	var locked *ErrLocked
	if errors.As(err, &locked) {
		return err
	}
	if err != nil {
		return fmt.Errorf("buffer: %w", err)
	}
	if h.absent { // what was mounted there in the meantime must not be written over
		names, err := h.list()
		if err == nil && len(names) > 0 {
			err = fmt.Errorf("buffer: %s was not there at the start and now holds %s: start anew to go on with it", h.dir, names[0])
		}
		if err != nil {
			lock.Close()
			return err
		}
		h.absent = false
	}
	h.lock = lock
	return nil
}

// list returns the names of the files in the directory, but for the lock's.
func (h *home) list() ([]string, error) {
	names, err := h.fs.ReadDir(h.dir)
	if errors.Is(err, fs.ErrNotExist) {
		h.absent = true
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("buffer: %w", err)
	}
	others := names[:0]
	for _, name := range names {
		if name != lockName {
			others = append(others, name)
		}
	}
	return others, nil
}

// leave lets go of the directory.
func (h *home) leave() error {
	if h.lock == nil {
		return nil
	}
	return h.lock.Close()
}

const lockName = "lock"

// unwritable tells whether an error is that of a disk that takes nothing today and may tomorrow.
func unwritable(err error) bool {
	for _, e := range []error{syscall.EROFS, syscall.ENOSPC, syscall.EDQUOT, syscall.EIO} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
