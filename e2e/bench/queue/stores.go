//go:build linux

package main

import (
	"context"
	"database/sql"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"gateway/buffer"

	"github.com/cockroachdb/pebble"
	"github.com/nsqio/go-diskqueue"
	"github.com/tidwall/wal"
	bolt "go.etcd.io/bbolt"
	_ "modernc.org/sqlite"
)

// A store takes batches of records, in order.
type store interface {
	// append hands a batch over; with sync it is durable on return.
	append(batch [][]byte, sync bool) error
	close() error
}

// stores are the contenders; bare, the limit, comes first.
var stores = []struct {
	name string
	open func(dir string) (store, error)
}{
	{"bare", openBare},
	{"buffer", openBuffer},
	{"buffer, a new one", openNewBuffer},
	{"tidwall/wal", openWAL},
	{"tidwall/wal, a call a record", openWALSingly},
	{"bbolt", openBolt},
	{"sqlite", openSQLite},
	{"pebble", openPebble},
	{"nsq diskqueue", openDiskqueue},
}

// bare writes the records into a zeroed file and syncs: nothing that keeps them can do less.
type bare struct {
	f   *os.File
	off int64
	buf []byte
}

const bareSize = 32 << 20

func openBare(dir string) (store, error) {
	f, err := os.Create(filepath.Join(dir, "bare"))
	if err != nil {
		return nil, err
	}
	if _, err := f.Write(make([]byte, bareSize)); err != nil {
		return nil, err
	}
	return &bare{f: f}, f.Sync()
}

func (b *bare) append(batch [][]byte, sync bool) error {
	b.buf = b.buf[:0]
	for _, r := range batch {
		b.buf = append(b.buf, r...)
	}
	if b.off+int64(len(b.buf)) > bareSize {
		b.off = 0
	}
	if _, err := b.f.WriteAt(b.buf, b.off); err != nil {
		return err
	}
	b.off += int64(len(b.buf))
	if sync {
		return syscall.Fdatasync(int(b.f.Fd()))
	}
	return nil
}

func (b *bare) close() error { return b.f.Close() }

// ours is package buffer with the gateway's defaults but for a bound that fits on the volume. A new one
// zeroes its space in the background, ahead of the records; later, segments are used again.
type ours struct {
	q       *buffer.Queue
	entries []buffer.Entry
	stop    context.CancelFunc
	ran     chan error
}

func openBuffer(dir string) (store, error) {
	o, err := openNewBuffer(dir)
	if err != nil {
		return nil, err
	}
	q := o.(*ours).q
	for batch := batchOf(256); q.Stats().First.Seq <= 1; { // until the first segment is used again
		if err := o.append(batch, false); err != nil {
			return nil, err
		}
	}
	return o, q.Sync(context.Background())
}

func openNewBuffer(dir string) (store, error) {
	q, err := buffer.Open(buffer.Options{Dir: filepath.Join(dir, "queue"), MaxBytes: 40 << 20, SegmentBytes: 8 << 20, SyncWindow: time.Hour, SyncBytes: 1 << 30})
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	o := &ours{q: q, stop: stop, ran: make(chan error, 1)}
	go func() { o.ran <- q.Run(ctx) }()
	return o, nil
}

func (o *ours) append(batch [][]byte, sync bool) error {
	o.entries = o.entries[:0]
	for _, r := range batch {
		o.entries = append(o.entries, buffer.Entry{Data: r})
	}
	if _, err := o.q.AppendBatch(o.entries); err != nil {
		return err
	}
	if sync {
		return o.q.Sync(context.Background())
	}
	return nil
}

func (o *ours) close() error {
	o.stop()
	<-o.ran
	return o.q.Close()
}

type tidwall struct {
	l      *wal.Log
	next   uint64
	b      wal.Batch
	singly bool
}

func openWALSingly(dir string) (store, error) {
	l, err := wal.Open(filepath.Join(dir, "wal"), &wal.Options{NoSync: true, SegmentSize: 20 << 20})
	return &tidwall{l: l, singly: true}, err
}

func openWAL(dir string) (store, error) {
	l, err := wal.Open(filepath.Join(dir, "wal"), &wal.Options{NoSync: true, SegmentSize: 20 << 20, NoCopy: true})
	return &tidwall{l: l}, err
}

func (t *tidwall) append(batch [][]byte, sync bool) error {
	if t.singly {
		for _, r := range batch {
			t.next++
			if err := t.l.Write(t.next, r); err != nil {
				return err
			}
		}
		if !sync {
			return nil
		}
		return t.l.Sync()
	}
	t.b.Clear()
	for _, r := range batch {
		t.next++
		t.b.Write(t.next, r)
	}
	if err := t.l.WriteBatch(&t.b); err != nil || !sync {
		return err
	}
	return t.l.Sync()
}

func (t *tidwall) close() error { return t.l.Close() }

type bbolt struct {
	db   *bolt.DB
	next uint64
}

func openBolt(dir string) (store, error) {
	db, err := bolt.Open(filepath.Join(dir, "bolt"), 0o600, nil)
	if err != nil {
		return nil, err
	}
	return &bbolt{db: db}, db.Update(func(tx *bolt.Tx) error {
		_, err := tx.CreateBucket([]byte("q"))
		return err
	})
}

func (b *bbolt) append(batch [][]byte, sync bool) error {
	b.db.NoSync = !sync
	return b.db.Update(func(tx *bolt.Tx) error {
		q := tx.Bucket([]byte("q"))
		q.FillPercent = 0.95
		for _, r := range batch {
			b.next++
			if err := q.Put(binary.BigEndian.AppendUint64(nil, b.next), r); err != nil {
				return err
			}
		}
		return nil
	})
}

func (b *bbolt) close() error { return b.db.Close() }

type sqlite struct {
	db   *sql.DB
	full bool
}

func openSQLite(dir string) (store, error) {
	db, err := sql.Open("sqlite", filepath.Join(dir, "sqlite"))
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1)
	for _, s := range []string{"PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL", "CREATE TABLE q (id INTEGER PRIMARY KEY, data BLOB)"} {
		if _, err := db.Exec(s); err != nil {
			return nil, err
		}
	}
	return &sqlite{db: db, full: true}, nil
}

func (s *sqlite) append(batch [][]byte, sync bool) error {
	if sync != s.full {
		if _, err := s.db.Exec(strings.Replace("PRAGMA synchronous=X", "X", map[bool]string{true: "FULL", false: "OFF"}[sync], 1)); err != nil {
			return err
		}
		s.full = sync
	}
	tx, err := s.db.Begin()
	if err != nil {
		return err
	}
	insert, err := tx.Prepare("INSERT INTO q (data) VALUES (?)")
	if err != nil {
		return err
	}
	for _, r := range batch {
		if _, err := insert.Exec(r); err != nil {
			return err
		}
	}
	return tx.Commit()
}

func (s *sqlite) close() error { return s.db.Close() }

type lsm struct {
	db   *pebble.DB
	next uint64
}

type quiet struct{}

func (quiet) Infof(string, ...any)  {}
func (quiet) Errorf(string, ...any) {}
func (quiet) Fatalf(f string, a ...any) {
	panic("pebble: " + f)
}

func openPebble(dir string) (store, error) {
	db, err := pebble.Open(filepath.Join(dir, "pebble"), &pebble.Options{Logger: quiet{}})
	return &lsm{db: db}, err
}

func (l *lsm) append(batch [][]byte, sync bool) error {
	b := l.db.NewBatch()
	for _, r := range batch {
		l.next++
		if err := b.Set(binary.BigEndian.AppendUint64(nil, l.next), r, nil); err != nil {
			return err
		}
	}
	if sync {
		return b.Commit(pebble.Sync)
	}
	return b.Commit(pebble.NoSync)
}

func (l *lsm) close() error { return l.db.Close() }

// A diskqueue syncs after a fixed number of records, so there is one for each size of batch.
type diskq struct {
	dir    string
	queues map[string]diskqueue.Interface
}

func openDiskqueue(dir string) (store, error) {
	return &diskq{dir, map[string]diskqueue.Interface{}}, nil
}

func (d *diskq) append(batch [][]byte, sync bool) error {
	every := int64(1 << 40)
	if sync {
		every = int64(len(batch))
	}
	name := fmt.Sprint("q", every)
	q := d.queues[name]
	if q == nil {
		q = diskqueue.New(name, d.dir, 64<<20, 1, 1<<20, every, time.Hour, func(diskqueue.LogLevel, string, ...any) {})
		d.queues[name] = q
	}
	for _, r := range batch {
		if err := q.Put(r); err != nil {
			return err
		}
	}
	if sync {
		q.Depth() // answered after the sync
	}
	return nil
}

func (d *diskq) close() error {
	for _, q := range d.queues {
		if err := q.Close(); err != nil {
			return err
		}
	}
	return nil
}
