package buffer_test

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"syscall"
	"testing"

	"gateway/buffer"
	"gateway/buffer/buffertest"
)

// A readOnly disk takes nothing, as a root that is mounted read-only, until it is mounted anew. Its
// directories are absent or, with what an earlier opening left in them, there.
type readOnly struct {
	*buffertest.Disk
	off    bool // it takes what it is given
	absent bool
}

func newReadOnly(d *buffertest.Disk, absent bool) *readOnly {
	r := &readOnly{Disk: d, absent: absent}
	d.Fault(func(int, buffertest.Op, string) error {
		if !r.off {
			return syscall.EROFS
		}
		return nil
	})
	return r
}

func (r *readOnly) MkdirAll(dir string) error {
	if r.absent && !r.off {
		return &fs.PathError{Op: "mkdir", Path: dir, Err: syscall.EROFS}
	}
	return r.Disk.MkdirAll(dir)
}

func (r *readOnly) ReadDir(dir string) ([]string, error) {
	if r.absent && !r.off {
		return nil, &fs.PathError{Op: "open", Path: dir, Err: fs.ErrNotExist}
	}
	return r.Disk.ReadDir(dir)
}

func (r *readOnly) Lock(name string) (io.Closer, error) {
	if !r.off {
		return nil, &fs.PathError{Op: "open", Path: name, Err: syscall.EROFS}
	}
	return r.Disk.Lock(name)
}

// numbers delivers what a queue holds.
func numbers(t *testing.T, q *buffer.Queue) (all []int) {
	t.Helper()
	if err := q.Records(buffer.ID{}, func(r buffer.Record) error {
		all = append(all, number(t, r.Data))
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return all
}

func TestAQueueOpensOnADiskThatTakesNothing(t *testing.T) {
	for _, absent := range []bool{true, false} {
		t.Run(fmt.Sprint("absent ", absent), func(t *testing.T) {
			disk := buffertest.NewDisk(1)
			want := []int{}
			if !absent {
				q := open(t, buffer.Options{Dir: "/q", FS: disk})
				appendN(t, q, 0, 3)
				closeQueue(t, q)
				want = []int{0, 1, 2}
			}
			r := newReadOnly(disk, absent)
			q := open(t, buffer.Options{Dir: "/q", FS: r})
			if q.Stats().Failing == nil {
				t.Error("it does not say that the disk takes nothing")
			}
			appendN(t, q, 3, 1) // to memory
			want = append(want, 3)
			if err := q.Retry(); !errors.Is(err, syscall.EROFS) {
				t.Errorf("tried again: %v", err)
			}
			r.off = true
			if err := q.Retry(); err != nil {
				t.Fatal(err)
			}
			if _, err := buffer.Open(buffer.Options{Dir: "/q", FS: r}); err == nil {
				t.Error("two have the directory")
			}
			closeQueue(t, q)
			q = open(t, buffer.Options{Dir: "/q", FS: disk})
			if got := numbers(t, q); fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("it holds %v, want %v", got, want)
			}
			closeQueue(t, q)
		})
	}
}

// A disk that is mounted late may bring a queue of its own, which must not be written over.
func TestAQueueThatAppearsLateIsLeftUntouched(t *testing.T) {
	disk := buffertest.NewDisk(1)
	r := newReadOnly(disk, true)
	q := open(t, buffer.Options{Dir: "/q", FS: r})
	appendN(t, q, 7, 1) // to memory
	disk.Put("/q/0000000000000001.seg", []byte("of another time"))
	r.off = true
	if err := q.Retry(); err == nil || !strings.Contains(err.Error(), "start anew") {
		t.Errorf("it says %v", err)
	}
	if got := string(disk.Contents("/q/0000000000000001.seg")); got != "of another time" {
		t.Errorf("it holds %q", got)
	}
}

func TestAJournalOpensOnADiskThatTakesNothing(t *testing.T) {
	for _, absent := range []bool{true, false} {
		t.Run(fmt.Sprint("absent ", absent), func(t *testing.T) {
			disk := buffertest.NewDisk(1)
			var want []string
			if !absent {
				j, _, _ := openJournal(t, buffer.JournalOptions{Dir: "/j", FS: disk})
				if err := j.Append([]byte("before")); err != nil {
					t.Fatal(err)
				}
				if err := j.Close(); err != nil {
					t.Fatal(err)
				}
				want = []string{"before"}
			}
			r := newReadOnly(disk, absent)
			j, got, _ := openJournal(t, buffer.JournalOptions{Dir: "/j", FS: r})
			if strings.Join(got, " ") != strings.Join(want, " ") {
				t.Errorf("replayed %q, want %q", got, want)
			}
			if j.Failing() == nil || j.Append([]byte("x")) == nil {
				t.Error("it takes a record that it cannot keep")
			}
			snapshot := func(emit func([]byte) error) error { return emit([]byte("state")) }
			if err := j.Snapshot(snapshot); !errors.Is(err, syscall.EROFS) {
				t.Errorf("tried again: %v", err)
			}
			r.off = true
			if err := j.Snapshot(snapshot); err != nil {
				t.Fatal(err)
			}
			if err := j.Close(); err != nil {
				t.Fatal(err)
			}
			j, got, _ = openJournal(t, buffer.JournalOptions{Dir: "/j", FS: disk})
			if len(got) != 1 || got[0] != "state" {
				t.Errorf("it holds %q", got)
			}
			if err := j.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}
