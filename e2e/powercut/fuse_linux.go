package powercut

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// A Volume is one file, served over FUSE, that remembers every write and every flush in the order in
// which they came. A loop device on it is a disk whose power can be cut at any of them.
//
// The protocol is that of the kernel's include/uapi/linux/fuse.h, version 7.31; only what a file
// system of one file needs is answered.
type Volume struct {
	dir  string
	dev  *os.File
	done chan struct{}

	model Model

	mu   sync.Mutex
	data []byte
	base []byte
	log  []Event
}

// A Model says how slow the disk is, one request at a time. The zero Model is as fast as memory.
type Model struct {
	Write, Flush time.Duration // of each
	BytesPerSec  int           // 0: no bound
	Forget       bool          // keep no log
}

func (m *Model) write(n int) {
	d := m.Write
	if m.BytesPerSec > 0 {
		d += time.Duration(n) * time.Second / time.Duration(m.BytesPerSec)
	}
	if d > 0 {
		time.Sleep(d)
	}
}

// An Event is a write to the volume or, without data, a flush.
type Event struct {
	Off  int64
	Data []byte
}

const (
	opLookup     = 1
	opForget     = 2
	opGetattr    = 3
	opSetattr    = 4
	opOpen       = 14
	opRead       = 15
	opWrite      = 16
	opStatfs     = 17
	opRelease    = 18
	opFsync      = 20
	opFlush      = 25
	opInit       = 26
	opOpendir    = 27
	opReaddir    = 28
	opReleasedir = 29
	opAccess     = 34
	opInterrupt  = 36
	opDestroy    = 38
	opFallocate  = 43

	rootNode = 1
	fileNode = 2
	maxWrite = 128 << 10
	fileName = "volume"
)

// ServeVolume mounts a volume that begins with the given content on the directory dir.
func ServeVolume(dir string, content []byte, model Model) (*Volume, error) {
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("powercut: /dev/fuse: %w", err)
	}
	opts := fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0", fd)
	if err := unix.Mount("powercut", dir, "fuse.powercut", unix.MS_NOSUID|unix.MS_NODEV, opts); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("powercut: mount of a FUSE file system: %w", err)
	}
	v := &Volume{model: model, dir: dir, dev: os.NewFile(uintptr(fd), "/dev/fuse"), done: make(chan struct{}), base: content, data: append([]byte(nil), content...)}
	go v.serve(fd)
	return v, nil
}

// Path is the volume's file.
func (v *Volume) Path() string { return filepath.Join(v.dir, fileName) }

// Mark returns how many events there have been.
func (v *Volume) Mark() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return len(v.log)
}

// Log returns the content at the beginning and all events since.
func (v *Volume) Log() ([]byte, []Event) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.base, v.log
}

// Close unmounts the volume, which nobody may use any more.
func (v *Volume) Close() error {
	err := unix.Unmount(v.dir, 0)
	if err != nil {
		err = errors.Join(err, unix.Unmount(v.dir, unix.MNT_DETACH|unix.MNT_FORCE))
	}
	<-v.done
	return err
}

// serve answers requests until the file system is unmounted.
func (v *Volume) serve(fd int) {
	defer close(v.done)
	defer v.dev.Close()
	buf := make([]byte, maxWrite+4096)
	for {
		n, err := unix.Read(fd, buf)
		switch {
		case err == unix.EINTR, err == unix.EAGAIN, err == unix.ENOENT:
			continue
		case err != nil: // ENODEV: unmounted
			return
		}
		reply, errno, answer := v.handle(buf[:n])
		if !answer {
			continue
		}
		out := make([]byte, 16, 16+len(reply))
		out = append(out, reply...)
		binary.LittleEndian.PutUint32(out, uint32(len(out)))
		binary.LittleEndian.PutUint32(out[4:], uint32(-int32(errno)))
		copy(out[8:16], buf[8:16]) // the request's number
		if _, err := unix.Write(fd, out); err != nil && err != unix.ENOENT {
			return
		}
	}
}

// handle carries out one request: a header of 40 bytes and its body.
func (v *Volume) handle(req []byte) (reply []byte, errno unix.Errno, answer bool) {
	le := binary.LittleEndian
	op, node, body := le.Uint32(req[4:]), le.Uint64(req[16:]), req[40:]
	switch op {
	case opInit:
		b := make([]byte, 64)
		le.PutUint32(b[0:], 7)
		le.PutUint32(b[4:], 31)
		le.PutUint32(b[8:], le.Uint32(body[8:])) // read-ahead as offered
		le.PutUint32(b[12:], 1<<5)               // FUSE_BIG_WRITES
		le.PutUint16(b[16:], 16)
		le.PutUint16(b[18:], 16)
		le.PutUint32(b[20:], maxWrite)
		le.PutUint32(b[24:], 1)
		return b, 0, true
	case opLookup:
		if node != rootNode || string(body[:len(body)-1]) != fileName {
			return nil, unix.ENOENT, true
		}
		b := make([]byte, 40, 128)
		le.PutUint64(b[0:], fileNode)
		le.PutUint64(b[16:], 3600) // the entry stays valid, as do the attributes
		le.PutUint64(b[24:], 3600)
		return append(b, v.attr(fileNode)...), 0, true
	case opGetattr, opSetattr:
		b := make([]byte, 16, 104)
		le.PutUint64(b, 3600)
		return append(b, v.attr(node)...), 0, true
	case opOpen, opOpendir:
		return make([]byte, 16), 0, true
	case opRead:
		off, size := int64(le.Uint64(body[8:])), int64(le.Uint32(body[16:]))
		v.mu.Lock()
		defer v.mu.Unlock()
		off = min(off, int64(len(v.data)))
		return append([]byte(nil), v.data[off:min(off+size, int64(len(v.data)))]...), 0, true
	case opWrite:
		off, data := int64(le.Uint64(body[8:])), append([]byte(nil), body[40:40+le.Uint32(body[16:])]...)
		v.model.write(len(data))
		v.mu.Lock()
		defer v.mu.Unlock()
		if off+int64(len(data)) > int64(len(v.data)) {
			return nil, unix.ENOSPC, true
		}
		copy(v.data[off:], data)
		if !v.model.Forget {
			v.log = append(v.log, Event{off, data})
		}
		b := make([]byte, 8)
		le.PutUint32(b, uint32(len(data)))
		return b, 0, true
	case opFsync:
		time.Sleep(v.model.Flush)
		v.mu.Lock()
		defer v.mu.Unlock()
		if !v.model.Forget {
			v.log = append(v.log, Event{})
		}
		return nil, 0, true
	case opStatfs:
		return make([]byte, 80), 0, true
	case opRelease, opReleasedir, opFlush, opAccess, opReaddir, opDestroy:
		return nil, 0, true
	case opForget, opInterrupt, 42: // 42: several forgets at once
		return nil, 0, false
	case opFallocate: // a discard by the loop device
		return nil, unix.EOPNOTSUPP, true
	}
	return nil, unix.ENOSYS, true
}

func (v *Volume) attr(node uint64) []byte {
	le := binary.LittleEndian
	b := make([]byte, 88)
	le.PutUint64(b[0:], node)
	mode, size := uint32(unix.S_IFDIR|0o755), uint64(0)
	if node == fileNode {
		mode, size = unix.S_IFREG|0o600, uint64(len(v.base))
	}
	le.PutUint64(b[8:], size)
	le.PutUint64(b[16:], (size+511)/512)
	le.PutUint32(b[60:], mode)
	le.PutUint32(b[64:], 1)
	le.PutUint32(b[80:], 4096)
	return b
}
