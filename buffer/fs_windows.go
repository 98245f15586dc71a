package buffer

import (
	"errors"
	"io"
	"os"

	"golang.org/x/sys/windows"
)

// SyncDir does nothing: NTFS journals its names and has no call to flush a directory.
func (osFS) SyncDir(string) error { return nil }

// Lock holds an exclusive byte range far behind the file's end, so that the pid stays readable.
func (osFS) Lock(name string) (io.Closer, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o640)
	if err != nil {
		return nil, err
	}
	at := &windows.Overlapped{OffsetHigh: 1}
	err = windows.LockFileEx(windows.Handle(f.Fd()), windows.LOCKFILE_EXCLUSIVE_LOCK|windows.LOCKFILE_FAIL_IMMEDIATELY, 0, 1, 0, at)
	if errors.Is(err, windows.ERROR_LOCK_VIOLATION) {
		f.Close()
		return nil, &ErrLocked{Path: name}
	}
	if err != nil {
		f.Close()
		return nil, &os.PathError{Op: "LockFileEx", Path: name, Err: err}
	}
	return f, nil
}
