// Package buffertest has a file system in memory that behaves like a disk at its worst: what was
// not synced is lost, torn or reordered when the power goes, and any operation can fail. It is for
// the tests of whoever keeps things in files of package buffer.
package buffertest

import (
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"syscall"

	"gateway/buffer"
)

// ErrPowerCut is returned by every operation after the power went.
var ErrPowerCut = errors.New("buffertest: the power is gone")

// An Op is a kind of operation that changes something, or waits for a change to be durable.
type Op string

// The operations that are counted and can be made to fail.
const (
	Create   Op = "create"
	Write    Op = "write"
	Truncate Op = "truncate"
	Sync     Op = "sync"
	SyncDir  Op = "syncdir"
	Rename   Op = "rename"
	Remove   Op = "remove"
)

// A Disk is a file system in memory. It implements buffer.FS.
type Disk struct {
	mu    sync.Mutex
	now   map[string]*inode // the names as a running system sees them
	safe  map[string]*inode // the names that are durable
	moves []move            // what leads from safe to now
	locks map[string]bool
	rng   *rand.Rand

	ops   int
	cutAt int // the operation at which the power goes; negative: never
	dead  bool
	fault func(n int, op Op, name string) error
	trace func(n int, op Op, name string)
	busy  func()
}

type inode struct {
	data    []byte
	safe    []byte
	pending []change
}

// A change of a file that is not durable.
type change struct {
	off  int64
	data []byte
	size int64 // of a truncation; -1: a write
}

// A move is a change of names that is not durable.
type move struct {
	op       Op
	from, to string
	node     *inode
}

// NewDisk returns an empty disk. The seed decides what survives where that is open.
func NewDisk(seed uint64) *Disk {
	return &Disk{now: map[string]*inode{}, safe: map[string]*inode{}, locks: map[string]bool{}, cutAt: -1, rng: rand.New(rand.NewPCG(seed, 1))}
}

// Ops returns how many operations there were.
func (d *Disk) Ops() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.ops
}

// CutAt makes the power go at operation n, counted from 0 since the disk was made.
func (d *Disk) CutAt(n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.cutAt = n
}

// Fault has f decide which operations fail, and how; nil: none. An io.ErrShortWrite makes a write
// stop halfway with ENOSPC.
func (d *Disk) Fault(f func(n int, op Op, name string) error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fault = f
}

// Trace has f called with each operation.
func (d *Disk) Trace(f func(n int, op Op, name string)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.trace = f
}

// DuringSync has f called while a sync of a file is under way: what it writes is not covered.
func (d *Disk) DuringSync(f func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.busy = f
}

// begin counts an operation. With cut the power goes at this one.
func (d *Disk) begin(op Op, name string) (cut bool, err error) {
	if d.dead {
		return false, ErrPowerCut
	}
	n := d.ops
	d.ops++
	if d.trace != nil {
		d.trace(n, op, filepath.Base(name))
	}
	if n == d.cutAt {
		d.dead = true
		return true, nil
	}
	if d.fault != nil {
		if err := d.fault(n, op, filepath.Base(name)); err != nil {
			return false, err
		}
	}
	return false, nil
}

func after(cut bool) error {
	if cut {
		return ErrPowerCut
	}
	return nil
}

func pathError(op Op, name string, err error) error {
	return &fs.PathError{Op: string(op), Path: name, Err: err}
}

// MkdirAll implements buffer.FS; directories are not modelled.
func (d *Disk) MkdirAll(string) error { return nil }

// ReadDir implements buffer.FS.
func (d *Disk) ReadDir(dir string) (names []string, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.dead {
		return nil, ErrPowerCut
	}
	for name := range d.now {
		if filepath.Dir(name) == dir {
			names = append(names, filepath.Base(name))
		}
	}
	slices.Sort(names)
	return names, nil
}

// Open implements buffer.FS.
func (d *Disk) Open(name string, write bool) (buffer.File, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.dead {
		return nil, ErrPowerCut
	}
	n := d.now[name]
	if n == nil {
		return nil, pathError("open", name, fs.ErrNotExist)
	}
	return &file{d: d, n: n, name: name, write: write}, nil
}

// Create implements buffer.FS.
func (d *Disk) Create(name string) (buffer.File, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	cut, err := d.begin(Create, name)
	if err != nil {
		return nil, pathError(Create, name, err)
	}
	if d.now[name] != nil {
		return nil, pathError(Create, name, fs.ErrExist)
	}
	n := &inode{}
	d.now[name] = n
	d.moves = append(d.moves, move{op: Create, to: name, node: n})
	return &file{d: d, n: n, name: name, write: true}, after(cut)
}

// Rename implements buffer.FS.
func (d *Disk) Rename(from, to string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	cut, err := d.begin(Rename, to)
	if err != nil {
		return pathError(Rename, from, err)
	}
	n := d.now[from]
	if n == nil {
		return pathError(Rename, from, fs.ErrNotExist)
	}
	delete(d.now, from)
	d.now[to] = n
	d.moves = append(d.moves, move{op: Rename, from: from, to: to, node: n})
	return after(cut)
}

// Remove implements buffer.FS.
func (d *Disk) Remove(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	cut, err := d.begin(Remove, name)
	if err != nil {
		return pathError(Remove, name, err)
	}
	n := d.now[name]
	if n == nil {
		return pathError(Remove, name, fs.ErrNotExist)
	}
	delete(d.now, name)
	d.moves = append(d.moves, move{op: Remove, from: name, node: n})
	return after(cut)
}

// SyncDir implements buffer.FS: all changes of names become durable.
func (d *Disk) SyncDir(dir string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	cut, err := d.begin(SyncDir, dir)
	if err != nil || cut {
		return pathError(SyncDir, dir, errors.Join(err, after(cut)))
	}
	for _, m := range d.moves {
		m.apply(d.safe)
	}
	d.moves = nil
	return nil
}

func (m move) apply(names map[string]*inode) {
	if m.from != "" {
		delete(names, m.from)
	}
	if m.to != "" {
		names[m.to] = m.node
	}
}

// Lock implements buffer.FS.
func (d *Disk) Lock(name string) (io.Closer, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.dead {
		return nil, ErrPowerCut
	}
	if d.locks[name] {
		return nil, &buffer.ErrLocked{Path: name, Pid: 1}
	}
	d.locks[name] = true
	return unlock(func() error {
		d.mu.Lock()
		defer d.mu.Unlock()
		delete(d.locks, name)
		return nil
	}), nil
}

type unlock func() error

func (u unlock) Close() error { return u() }

type file struct {
	d     *Disk
	n     *inode
	name  string
	write bool
}

func (f *file) Close() error { return nil }

func (f *file) Size() (int64, error) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	return int64(len(f.n.data)), nil
}

func (f *file) ReadAt(b []byte, off int64) (int, error) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if f.d.dead {
		return 0, ErrPowerCut
	}
	if off >= int64(len(f.n.data)) {
		return 0, io.EOF
	}
	n := copy(b, f.n.data[off:])
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func (f *file) WriteAt(b []byte, off int64) (int, error) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if !f.write {
		return 0, pathError(Write, f.name, syscall.EBADF)
	}
	cut, err := f.d.begin(Write, f.name)
	if errors.Is(err, io.ErrShortWrite) {
		f.n.change(change{off: off, data: slices.Clone(b[:len(b)/2]), size: -1})
		return len(b) / 2, pathError(Write, f.name, syscall.ENOSPC)
	}
	if err != nil {
		return 0, pathError(Write, f.name, err)
	}
	f.n.change(change{off: off, data: slices.Clone(b), size: -1})
	if cut {
		return 0, ErrPowerCut
	}
	return len(b), nil
}

func (f *file) Truncate(size int64) error {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	cut, err := f.d.begin(Truncate, f.name)
	if err != nil {
		return pathError(Truncate, f.name, err)
	}
	f.n.change(change{size: size})
	return after(cut)
}

// Reserve implements buffer.File; space is not modelled.
func (f *file) Reserve(size int64) error { return f.Truncate(size) }

// Sync makes the file's changes durable. When it fails, what was pending is as good as gone: later
// syncs find nothing to write.
func (f *file) Sync() error {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	cut, err := f.d.begin(Sync, f.name)
	if cut {
		return ErrPowerCut
	}
	if err != nil {
		f.n.pending = slices.DeleteFunc(f.n.pending, func(c change) bool { return c.size < 0 })
		return pathError(Sync, f.name, err)
	}
	for _, c := range f.n.pending {
		f.n.safe = c.apply(f.n.safe)
	}
	f.n.pending = nil
	if busy := f.d.busy; busy != nil {
		f.d.mu.Unlock()
		busy()
		f.d.mu.Lock()
	}
	return nil
}

func (n *inode) change(c change) {
	n.data = c.apply(n.data)
	n.pending = append(n.pending, c)
}

func (c change) apply(b []byte) []byte {
	if c.size >= 0 {
		if c.size <= int64(len(b)) {
			return b[:c.size:c.size]
		}
		return append(b, make([]byte, c.size-int64(len(b)))...)
	}
	if end := c.off + int64(len(c.data)); end > int64(len(b)) {
		b = append(b, make([]byte, end-int64(len(b)))...)
	}
	copy(b[c.off:], c.data)
	return b
}

// Fate says what happens to what was not synced.
type Fate int

// The fates.
const (
	Lost   Fate = iota // nothing of it survives
	Kept               // all of it does
	Chance             // pieces of sectors and names survive at random
)

// Crash returns the disk as it is found after the power came back. The disk itself stays as it is.
func (d *Disk) Crash(fate Fate, seed uint64) *Disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	rng := rand.New(rand.NewPCG(seed, 2))
	out := NewDisk(seed)
	names := map[string]*inode{}
	for name, n := range d.safe {
		names[name] = n
	}
	lost := map[any]bool{}
	for _, m := range d.moves {
		// A change of names that builds on a lost one is lost, too.
		gone := fate == Lost || lost[m.node] || m.from != "" && lost[m.from] || m.to != "" && lost[m.to] || fate == Chance && rng.IntN(3) == 0
		if gone {
			lost[m.node], lost[m.from], lost[m.to] = true, true, true
			continue
		}
		m.apply(names)
	}
	made := map[*inode]*inode{}
	for _, name := range sorted(names) {
		n := names[name]
		if made[n] == nil {
			b := n.crash(fate, rng)
			made[n] = &inode{data: b, safe: slices.Clone(b)}
		}
		out.now[name], out.safe[name] = made[n], made[n]
	}
	return out
}

func sorted(m map[string]*inode) (keys []string) {
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

const sector = 512

func (n *inode) crash(fate Fate, rng *rand.Rand) []byte {
	b := slices.Clone(n.safe)
	odds := 1 + rng.IntN(4) // some files lose little, some much
	keep := func() bool { return fate == Kept || fate == Chance && rng.IntN(5) >= odds }
	for _, c := range n.pending {
		if c.size >= 0 {
			if keep() {
				b = c.apply(b)
			}
			continue
		}
		for off := c.off; off < c.off+int64(len(c.data)); {
			end := min(off-off%sector+sector, c.off+int64(len(c.data)))
			if rng.IntN(8) == 0 { // not even sectors are atomic on every disk
				end = off + 1 + rng.Int64N(end-off)
			}
			if keep() {
				b = change{off: off, data: c.data[off-c.off : end-c.off], size: -1}.apply(b)
			}
			off = end
		}
	}
	return b
}

// Kill ends the process that uses the disk: its locks are free, and what it wrote stays where it is,
// synced or not.
func (d *Disk) Kill() {
	d.mu.Lock()
	defer d.mu.Unlock()
	clear(d.locks)
}

// Files returns the names of the files in dir with their sizes.
func (d *Disk) Files(dir string) map[string]int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := map[string]int64{}
	for name, n := range d.now {
		if filepath.Dir(name) == dir {
			out[filepath.Base(name)] = int64(len(n.data))
		}
	}
	return out
}

// Flip inverts one bit of a file, in what is durable and in what is not.
func (d *Disk) Flip(name string, bit int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := d.now[name]
	for _, b := range [][]byte{n.data, n.safe} {
		if bit/8 < int64(len(b)) {
			b[bit/8] ^= 1 << (bit % 8)
		}
	}
}

// Clone returns a copy of the disk as it stands, all of it durable.
func (d *Disk) Clone() *Disk { return d.Crash(Kept, 0) }

// Contents returns a copy of a file's bytes.
func (d *Disk) Contents(name string) []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	if n := d.now[name]; n != nil {
		return slices.Clone(n.data)
	}
	return nil
}

// Put makes a file with these bytes, durable at once, in place of any of that name.
func (d *Disk) Put(name string, b []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := &inode{data: slices.Clone(b), safe: slices.Clone(b)}
	d.now[name], d.safe[name] = n, n
}
