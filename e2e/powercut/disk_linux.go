package powercut

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// command runs a program and returns what it printed.
func command(name string, args ...string) (string, error) {
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("powercut: %s %s: %w: %s", name, strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return strings.TrimSpace(string(out)), nil
}

// Format returns a fresh ext4 file system of size bytes.
func Format(dir string, size int64) ([]byte, error) {
	path := filepath.Join(dir, "fresh")
	if err := os.WriteFile(path, make([]byte, size), 0o600); err != nil {
		return nil, err
	}
	defer os.Remove(path)
	if _, err := command("mkfs.ext4", "-q", "-b", "4096", "-J", "size=4", "-E", "lazy_itable_init=0,lazy_journal_init=0,nodiscard", path); err != nil {
		return nil, err
	}
	return os.ReadFile(path)
}

// A Mounted is an ext4 file system on a loop device on a file.
type Mounted struct{ Loop, Dir string }

// Mount mounts the file system in a file.
func Mount(file, dir string) (m Mounted, err error) {
	m.Dir = dir
	if m.Loop, err = command("losetup", "--find", "--show", file); err != nil {
		return m, err
	}
	if err := unix.Mount(m.Loop, dir, "ext4", unix.MS_NOATIME, ""); err != nil {
		_, derr := command("losetup", "--detach", m.Loop)
		return m, errors.Join(fmt.Errorf("powercut: mount of %s: %w", m.Loop, err), derr)
	}
	return m, nil
}

// Unmount unmounts it and frees the loop device.
func (m Mounted) Unmount() error {
	err := unix.Unmount(m.Dir, 0)
	for range 100 { // somebody else may look into it at this moment
		if !errors.Is(err, unix.EBUSY) {
			break
		}
		time.Sleep(20 * time.Millisecond)
		err = unix.Unmount(m.Dir, 0)
	}
	if err != nil {
		err = errors.Join(err, unix.Unmount(m.Dir, unix.MNT_DETACH))
	}
	_, derr := command("losetup", "--detach", m.Loop)
	return errors.Join(err, derr)
}

const (
	sector     = 512
	superblock = 4096 // the block it lies in; ext4 itself relies on it to be written whole or not
)

// image returns what the disk may hold when the power goes after so many events: all that was
// written before the last flush, and of the rest any sectors. How many differs from image to image.
func image(base []byte, log []Event, cut int, rng *rand.Rand) []byte {
	img := bytes.Clone(base)
	flushed := cut
	for flushed > 0 && log[flushed-1].Data != nil {
		flushed--
	}
	for _, e := range log[:flushed] {
		copy(img[e.Off:], e.Data)
	}
	odds, whole := rng.IntN(5), rng.IntN(2) == 0
	for _, e := range log[flushed:cut] {
		if whole || e.Off < superblock { // writes arrive as they were sent, or not
			if rng.IntN(4) < odds {
				copy(img[e.Off:], e.Data)
			}
			continue
		}
		for i := 0; i < len(e.Data); i += sector {
			if rng.IntN(4) < odds {
				copy(img[e.Off+int64(i):], e.Data[i:min(i+sector, len(e.Data))])
			}
		}
	}
	return img
}
