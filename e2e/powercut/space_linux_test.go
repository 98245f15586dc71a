package powercut_test

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"gateway/buffer"
	"gateway/e2e/powercut"
)

// A queue reserves the space of a segment. Of a disk that has less it takes nothing that records do not
// need, for others have files there; and it takes records until nothing is left.
func TestANearlyFullDiskIsLeftToOthers(t *testing.T) {
	tmp := t.TempDir()
	fresh, err := powercut.Format(tmp, 16<<20)
	if err != nil {
		t.Fatal(err)
	}
	file, dir := filepath.Join(tmp, "image"), filepath.Join(tmp, "mnt")
	if err := os.WriteFile(file, fresh, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	m, err := powercut.Mount(file, dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := m.Unmount(); err != nil {
			t.Error(err)
		}
	}()
	free := func() int64 {
		var s syscall.Statfs_t
		if err := syscall.Statfs(dir, &s); err != nil {
			t.Fatal(err)
		}
		return int64(s.Bavail) * int64(s.Bsize)
	}
	if err := os.WriteFile(filepath.Join(dir, "others"), make([]byte, free()-3<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	q, err := buffer.Open(buffer.Options{Dir: filepath.Join(dir, "queue"), SyncWindow: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close() // with records in memory only: its error is not the matter here
	record := make([]byte, 1000)
	if _, err := q.Append(record, nil); err != nil {
		t.Fatal(err)
	}
	if err := q.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left := free(); left < 2<<20 {
		t.Errorf("a segment with one record leaves %d bytes of 3 MiB", left)
	}
	n := 0
	for ; q.Durable(); n++ {
		if _, err := q.Append(record, nil); err != nil {
			t.Fatal(err)
		}
	}
	if n < 2000 {
		t.Errorf("%d records of a kilobyte went into 3 MiB", n)
	}
}
