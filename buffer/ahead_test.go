package buffer_test

import (
	"context"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"gateway/buffer"
	"gateway/buffer/buffertest"
)

// A meter is an FS that counts the bytes written to segments and spares.
type meter struct {
	*buffertest.Disk
	before  func(b []byte) // called before each write, when set
	mu      sync.Mutex
	written int64
}

func (m *meter) Create(name string) (buffer.File, error) {
	f, err := m.Disk.Create(name)
	return m.count(f, name), err
}

func (m *meter) Open(name string, write bool) (buffer.File, error) {
	f, err := m.Disk.Open(name, write)
	return m.count(f, name), err
}

func (m *meter) count(f buffer.File, name string) buffer.File {
	if f == nil || strings.HasSuffix(name, "cursors") {
		return f
	}
	return metered{f, m}
}

func (m *meter) take() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.written
	m.written = 0
	return n
}

type metered struct {
	buffer.File
	m *meter
}

func (f metered) WriteAt(b []byte, off int64) (int, error) {
	if f.m.before != nil {
		f.m.before(b)
	}
	f.m.mu.Lock()
	f.m.written += int64(len(b))
	f.m.mu.Unlock()
	return f.File.WriteAt(b, off)
}

// paced appends records of size bytes at a rate for some seconds, with Run beside, and calls each after
// every second.
func paced(t *testing.T, q *buffer.Queue, size, rate, seconds int, each func(second int)) {
	ctx, stop := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- q.Run(ctx) }()
	for second := range seconds {
		for range rate {
			if _, err := q.Append(make([]byte, size), nil); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second / time.Duration(rate))
		}
		synctest.Wait()
		each(second)
	}
	stop()
	<-ran
}

// An SD card is worn by what is zeroed as by what is written.
func TestLittleIsZeroedWhereFewRecordsCome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &meter{Disk: buffertest.NewDisk(1)}
		q := open(t, buffer.Options{Dir: "q", FS: m, MaxBytes: 1 << 30})
		const payload = 10 * 100
		paced(t, q, 100-18, 10, 300, func(second int) {
			if second == 29 {
				if n := m.take(); n > 30*payload+64<<10 {
					t.Errorf("%d bytes written in the first half minute, for %d of records", n, 30*payload)
				}
			}
		})
		if n := m.take(); n > 270*payload*2+32<<10 {
			t.Errorf("%d bytes written in the minutes after, for %d of records", n, 270*payload)
		}
		closeQueue(t, q)
	})
}

func TestZeroesAreAheadOfRecordsAtAnyPace(t *testing.T) {
	for _, rate := range []int{10, 1000, 20000} { // 1.2 KB, 120 KB and 2.4 MB a second
		synctest.Test(t, func(t *testing.T) {
			q := open(t, buffer.Options{Dir: "q", FS: buffertest.NewDisk(1), MaxBytes: 1 << 30})
			paced(t, q, 100, rate, 15, func(second int) {
				// It comes to its end with the segment, and begins anew within a second.
				if ahead, rest := q.Ahead(); second > 2 && ahead < min(int64(rate)*120, rest) {
					t.Errorf("at %d records a second, after %d s: zeroed for %d bytes", rate, second, ahead)
				}
			})
			closeQueue(t, q)
		})
	}
}

// A segment that is used again has its space, and nothing of it is zeroed.
func TestNothingIsZeroedOnceSegmentsAreUsedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &meter{Disk: buffertest.NewDisk(1)}
		q := open(t, buffer.Options{Dir: "q", FS: m, SegmentBytes: 64 << 10})
		c := consumer(t, q, "a", buffer.Oldest())
		var all int64
		paced(t, q, 100-18, 100, 60, func(second int) {
			for {
				r, ok, err := c.TryNext(buffer.Live)
				if err != nil {
					t.Fatal(err)
				}
				if !ok {
					break
				}
				c.Ack(r.ID)
			}
			if n := m.take(); second >= 30 {
				all += n
			}
		})
		if records := int64(30 * 100 * 100); all > records+records/50 {
			t.Errorf("%d bytes written for %d of records", all, records)
		}
		closeQueue(t, q)
	})
}

func TestZeroesAndRecordsKeepClearOfEachOther(t *testing.T) {
	m := &meter{Disk: buffertest.NewDisk(1)}
	q := open(t, buffer.Options{Dir: "q", FS: m, SegmentBytes: 64 << 10})
	const each, n = 100, 30
	for i := range n {
		appendN(t, q, i*each, each/2)
		var wg sync.WaitGroup
		var once sync.Once
		m.before = func(b []byte) {
			if len(b) == 4096 && b[0] == 0 { // the first page of several, records wait for the last
				once.Do(func() {
					wg.Go(func() { appendN(t, q, i*each+each/2, each/2) })
					for range 1000 {
						runtime.Gosched()
					}
				})
			}
		}
		q.PrepareSpares()
		once.Do(func() { appendN(t, q, i*each+each/2, each/2) }) // nothing was to be zeroed
		wg.Wait()
		m.before = nil
	}
	_, got := drain(t, consumer(t, q, "a", buffer.Oldest()), buffer.Live)
	wantRun(t, got, 0, n*each)
	closeQueue(t, q)
}

// A disk that has no space for zeroes may have some for records.
func TestADiskWithoutSpaceForZeroesTakesRecords(t *testing.T) {
	disk := buffertest.NewDisk(1)
	q := open(t, buffer.Options{Dir: "q", FS: disk, SegmentBytes: 64 << 10})
	appendN(t, q, 0, 10)
	disk.Fault(failing(".seg", syscall.ENOSPC, buffertest.Write))
	q.PrepareSpares()
	disk.Fault(nil)
	appendN(t, q, 10, 10)
	if !q.Durable() {
		t.Error("records go to memory")
	}
	_, got := drain(t, consumer(t, q, "a", buffer.Oldest()), buffer.Live)
	wantRun(t, got, 0, 20)
	closeQueue(t, q)
}

// While a spare is being made it is neither a spare nor room for one.
func TestARefusingQueueWaitsForTheSpareThatIsBeingMade(t *testing.T) {
	m := &meter{Disk: buffertest.NewDisk(1)}
	o := small(m, 0)
	o.Full = buffer.RefuseNewest
	n := 0
	for q := open(t, o); ; n++ { // until there is room for one more segment only
		if st := q.Stats(); st.Segments == 13 { // two are for the quarantine
			closeQueue(t, q)
			break
		}
		appendN(t, q, n, 1)
	}
	o.Preallocate = true
	q := open(t, o)
	var wg sync.WaitGroup
	var once sync.Once
	m.before = func([]byte) {
		once.Do(func() {
			wg.Go(func() { appendN(t, q, n, 1) })
			for range 1000 {
				runtime.Gosched()
			}
		})
	}
	q.PrepareSpares()
	wg.Wait()
	if !q.Durable() {
		t.Error("the record went to memory")
	}
	closeQueue(t, q)
}
