package buffer

import (
	"io"
	"os"
)

// FS is all that this package asks of a file system. Names are paths as the os package takes them.
//
// What it assumes of one, and no more: a Sync that returned nil has made the file's bytes and its
// size durable; a SyncDir that returned nil has made the names in that directory durable; a rename
// is atomic; a write that was not synced may survive in any part, in pieces of a sector, in any
// order.
type FS interface {
	MkdirAll(dir string) error
	// ReadDir returns the names of the files in dir, in any order.
	ReadDir(dir string) ([]string, error)
	// Open opens an existing file for reading, and for writing when write is set.
	Open(name string, write bool) (File, error)
	// Create makes a new, empty file for reading and writing; it fails if there is one.
	Create(name string) (File, error)
	Rename(from, to string) error
	Remove(name string) error
	SyncDir(dir string) error
	// Lock takes the lock file name for this process, creating it when needed. When another process
	// has it, the error is an *ErrLocked.
	Lock(name string) (io.Closer, error)
}

// A File is an open file of an FS.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	Truncate(size int64) error
	// Reserve makes the file size bytes long, none of them written. Where the file system can do that, and
	// has it, their space is taken.
	Reserve(size int64) error
	Size() (int64, error)
	// Sync makes the file's bytes and size durable (fdatasync where there is one).
	Sync() error
}

// OS is the operating system's file system.
var OS FS = osFS{}

type osFS struct{}

func (osFS) MkdirAll(dir string) error { return os.MkdirAll(dir, 0o750) }

func (osFS) ReadDir(dir string) ([]string, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.Readdirnames(-1)
}

func (osFS) Open(name string, write bool) (File, error) {
	flag := os.O_RDONLY
	if write {
		flag = os.O_RDWR
	}
	f, err := os.OpenFile(name, flag, 0)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

func (osFS) Create(name string) (File, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o640)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

func (osFS) Rename(from, to string) error { return os.Rename(from, to) }
func (osFS) Remove(name string) error     { return os.Remove(name) }

type osFile struct{ *os.File }

func (f osFile) Size() (int64, error) {
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return st.Size(), nil
}

func (f osFile) Reserve(size int64) error {
	if reserve(f.File, size) == nil {
		return nil
	}
	// What little there was is given back: others may need it before this file does.
	if err := f.Truncate(0); err != nil {
		return err
	}
	return f.Truncate(size)
}

func (f osFile) Sync() error { return datasync(f.File) }
