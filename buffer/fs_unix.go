//go:build unix

package buffer

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

func (osFS) SyncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

// Lock uses flock: the kernel lets go of it when the process ends, however it ends.
func (osFS) Lock(name string) (io.Closer, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o640)
	if errors.Is(err, unix.EROFS) || errors.Is(err, unix.ENOSPC) {
		if there, rerr := os.Open(name); rerr == nil {
			f, err = there, nil
		}
	}
	if err != nil {
		return nil, err
	}
	switch err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); {
	case errors.Is(err, unix.EWOULDBLOCK):
		pid := lockedBy(f)
		f.Close()
		return nil, &ErrLocked{Path: name, Pid: pid}
	case err != nil:
		f.Close()
		return nil, &fs.PathError{Op: "flock", Path: name, Err: err}
	}
	// The pid only helps whoever is turned away, so a full disk must not fail the lock.
	if f.Truncate(0) == nil {
		_, _ = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	return f, nil
}

func lockedBy(f *os.File) int {
	b := make([]byte, 20)
	n, _ := f.ReadAt(b, 0)
	pid, _ := strconv.Atoi(strings.TrimSpace(string(b[:n])))
	return pid
}
