package buffer

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// reserve takes the space without writing it (fallocate). What is written there first changes less of
// the metadata than what is written to a hole.
func reserve(f *os.File, size int64) error { return unix.Fallocate(int(f.Fd()), 0, 0, size) }

// datasync is fdatasync: an overwrite inside the file costs no update of its metadata.
func datasync(f *os.File) error {
	for {
		err := syscall.Fdatasync(int(f.Fd()))
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			return &os.PathError{Op: "fdatasync", Path: f.Name(), Err: err}
		}
		return nil
	}
}
