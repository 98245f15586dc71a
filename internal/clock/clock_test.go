package clock

import (
	"bytes"
	"context"
	"errors"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gateway/adapters"
)

// fake is a machine: its running time is set by the test, its wall clock is an offset from it.
type fake struct {
	mu     sync.Mutex
	id     BootID
	now    adapters.Instant
	offset int64
	synced bool
}

func (f *fake) BootID() (BootID, error) { return f.id, nil }
func (f *fake) Now() adapters.Instant   { f.mu.Lock(); defer f.mu.Unlock(); return f.now }
func (f *fake) Wall() (int64, adapters.Instant, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return int64(f.now) + f.offset, f.now, f.synced
}
func (f *fake) set(now adapters.Instant, wall time.Time, synced bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.now, f.offset, f.synced = now, wall.UnixNano()-int64(now), synced
}

var (
	y1970 = time.Date(1970, 1, 1, 0, 0, 30, 0, time.UTC)
	y2026 = time.Date(2026, 11, 23, 16, 0, 0, 0, time.UTC)
)

const sec = adapters.Instant(time.Second)

func open(t *testing.T, dir string, f *fake, trust bool) *Clock {
	t.Helper()
	c, err := Open(Options{Dir: dir, Source: f, Trust: trust})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func wantWall(t *testing.T, c *Clock, boot uint32, at adapters.Instant, want time.Time, state State) {
	t.Helper()
	got, s := c.Wall(boot, at)
	if s != state || (state != Unknown && got != want.UnixNano()) {
		t.Errorf("boot %d, instant %v: %v %v, want %v %v", boot, time.Duration(at), time.Unix(0, got).UTC(), s, want, state)
	}
}

func TestASampleOf1970IsPutRightWhenTheClockIsSet(t *testing.T) {
	f := &fake{id: BootID{1}}
	f.set(30*sec, y1970, false)
	c := open(t, t.TempDir(), f, false)
	sampled := 30 * sec
	wantWall(t, c, c.Boot(), sampled, y1970, Unsynced)

	f.set(90*sec, y2026, true) // the network came a minute later
	c.look()
	wantWall(t, c, c.Boot(), sampled, y2026.Add(-time.Minute), Synced)
}

func TestSamplesOfEarlierBootsAreJoinedToTheirOwnAnchor(t *testing.T) {
	dir := t.TempDir()
	first := &fake{id: BootID{1}}
	first.set(10*sec, y1970, false)
	a := open(t, dir, first, false)
	first.set(20*sec, y2026, true)
	a.look()
	if err := a.save(); err != nil {
		t.Fatal(err)
	}

	never := &fake{id: BootID{2}} // a boot that nobody gave the time
	never.set(5*sec, y1970, false)
	b := open(t, dir, never, false)

	third := &fake{id: BootID{3}}
	third.set(7*sec, y2026.Add(time.Hour), true)
	c := open(t, dir, third, false)

	if a.Boot() == b.Boot() || b.Boot() == c.Boot() {
		t.Fatal("boots share a number")
	}
	wantWall(t, c, a.Boot(), 15*sec, y2026.Add(-5*time.Second), Synced)
	wantWall(t, c, b.Boot(), 6*sec, y1970.Add(time.Second), Unsynced)
	wantWall(t, c, c.Boot(), 8*sec, y2026.Add(time.Hour+time.Second), Synced)
	wantWall(t, c, c.Boot()+1, 0, time.Time{}, Unknown)
	wantWall(t, c, 0, 0, time.Time{}, Unknown)
}

func TestARestartOfTheProcessKeepsTheBootAndItsAnchor(t *testing.T) {
	dir := t.TempDir()
	f := &fake{id: BootID{1}}
	f.set(10*sec, y2026, true)
	a := open(t, dir, f, false)
	f.set(60*sec, y2026.Add(50*time.Second), false) // the time service is being restarted as well
	b := open(t, dir, f, false)
	if a.Boot() != b.Boot() {
		t.Errorf("boot %d became %d", a.Boot(), b.Boot())
	}
	wantWall(t, b, b.Boot(), 10*sec, y2026, Synced)
}

func TestStepsMoveTheAnchorAndNeverTheRunningTime(t *testing.T) {
	f := &fake{id: BootID{1}}
	f.set(10*sec, y2026, true)
	c := open(t, t.TempDir(), f, false)
	for i, step := range []time.Duration{time.Hour, -2 * time.Hour, -40 * 365 * 24 * time.Hour, 3 * time.Millisecond} {
		now := adapters.Instant(20+i) * sec
		f.set(now, y2026.Add(step), true)
		c.look()
		if c.Now() != now {
			t.Fatalf("step %v: running time %v", step, c.Now())
		}
		wantWall(t, c, c.Boot(), now, y2026.Add(step), Synced)
		// Order within the boot is that of the running time, whatever the wall clock did.
		early, _ := c.Wall(c.Boot(), now-1)
		late, _ := c.Wall(c.Boot(), now)
		if late-early != 1 {
			t.Errorf("step %v: a nanosecond became %d", step, late-early)
		}
	}
}

func TestTimesDoNotJitterWithTheReadingOfTheClocks(t *testing.T) {
	f := &fake{id: BootID{1}}
	f.set(10*sec, y2026, true)
	c := open(t, t.TempDir(), f, false)
	before, _ := c.Wall(c.Boot(), 10*sec)
	f.set(11*sec, y2026.Add(time.Second+700*time.Microsecond), true)
	c.look()
	if after, _ := c.Wall(c.Boot(), 10*sec); after != before {
		t.Errorf("moved by %v", time.Duration(after-before))
	}
}

func TestATrustedClockIsSynchronisedFromTheStart(t *testing.T) {
	f := &fake{id: BootID{1}}
	f.set(10*sec, y2026, false)
	c := open(t, t.TempDir(), f, true)
	wantWall(t, c, c.Boot(), 10*sec, y2026, Synced)
	f.set(20*sec, y2026.Add(time.Hour), false)
	c.look()
	wantWall(t, c, c.Boot(), 20*sec, y2026.Add(time.Hour), Synced)
}

func TestRunNoticesTheClockBeingSet(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		f := &fake{id: BootID{1}}
		f.set(10*sec, y1970, false)
		c := open(t, dir, f, false)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- c.Run(ctx) }()
		f.set(12*sec, y2026, true)
		time.Sleep(1500 * time.Millisecond) // of the bubble's time
		synctest.Wait()
		if !c.Synced() {
			t.Error("not noticed within 1.5 s")
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	if boots, err := readTable(tablePath(dir)); err != nil || len(boots) != 1 || !boots[0].anchor.synced {
		t.Errorf("on disk: %v, %v", boots, err)
	}
}

func TestADamagedTableIsSetAsideAndSaid(t *testing.T) {
	whole := appendTable(nil, []boot{{number: 4, id: BootID{9}, known: true, anchor: anchor{at: 1, wall: 2, synced: true}}})
	for name, damage := range map[string]func([]byte) []byte{
		"empty":     func(b []byte) []byte { return nil },
		"cut":       func(b []byte) []byte { return b[:len(b)-1] },
		"bit":       func(b []byte) []byte { b[20] ^= 1; return b },
		"long":      func(b []byte) []byte { return append(b, 0) },
		"not ours":  func(b []byte) []byte { return []byte("hello, this is another file") },
		"all zeros": func(b []byte) []byte { return make([]byte, len(b)) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(tablePath(dir), damage(bytes.Clone(whole)), 0o600); err != nil {
				t.Fatal(err)
			}
			f := &fake{id: BootID{1}}
			f.set(10*sec, y2026, true)
			c, err := Open(Options{Dir: dir, Source: f})
			if c == nil || !errors.Is(err, errDamaged) {
				t.Fatalf("%v, %v", c, err)
			}
			if _, err := os.Stat(tablePath(dir) + ".unreadable"); err != nil {
				t.Error(err)
			}
			if boots, err := readTable(tablePath(dir)); err != nil || len(boots) != 1 {
				t.Errorf("new table: %v, %v", boots, err)
			}
		})
	}
}

func TestTheTableIsBounded(t *testing.T) {
	dir := t.TempDir()
	for i := range maxBoots + 3 {
		f := &fake{id: BootID{byte(i), byte(i >> 8), 1}}
		f.set(sec, y2026, true)
		boots, _ := readTable(tablePath(dir))
		if i < maxBoots-2 { // most boots are put there without the file system's help
			boots = append(boots, boot{number: uint32(i + 1), id: f.id})
			if err := os.WriteFile(tablePath(dir), appendTable(nil, boots), 0o600); err != nil {
				t.Fatal(err)
			}
			continue
		}
		open(t, dir, f, false)
	}
	boots, err := readTable(tablePath(dir))
	if err != nil || len(boots) != maxBoots || boots[len(boots)-1].number != maxBoots+3 {
		t.Errorf("%d boots, %v", len(boots), err)
	}
}

func TestTheSystemsClocks(t *testing.T) {
	s := System()
	id, err := s.BootID()
	if err != nil || id == (BootID{}) {
		t.Errorf("boot id %x, %v", id, err)
	}
	a := s.Now()
	wall, at, _ := s.Wall()
	b := s.Now()
	if a > at || at > b || a <= 0 {
		t.Errorf("running time went %d, %d, %d", a, at, b)
	}
	if d := time.Since(time.Unix(0, wall)); d < 0 || d > time.Minute {
		t.Errorf("the wall clock is %v away", d)
	}
}

func FuzzTable(f *testing.F) {
	f.Add(appendTable(nil, nil))
	f.Add(appendTable(nil, []boot{{number: 1, id: BootID{1}}, {number: 2, known: true, anchor: anchor{at: 5, wall: -1, synced: true}}}))
	f.Fuzz(func(t *testing.T, data []byte) {
		boots, err := parseTable(data)
		if err != nil {
			return
		}
		again, err := parseTable(appendTable(nil, boots))
		if err != nil || len(again) != len(boots) {
			t.Fatalf("%v: %v", again, err)
		}
	})
}

func BenchmarkWall(b *testing.B) {
	c, err := Open(Options{})
	if err != nil {
		b.Fatal(err)
	}
	boot := c.Boot()
	for b.Loop() {
		c.Wall(boot, 5)
	}
}

// nameless is a machine whose kernel tells no boot id: a container with /proc/sys hidden.
type nameless struct{ *fake }

func (nameless) BootID() (BootID, error) { return BootID{}, os.ErrNotExist }

func TestABootWithoutANameHasTimesAllTheSame(t *testing.T) {
	dir := t.TempDir()
	f := &fake{}
	f.set(5*sec, y2026, true)
	first, err := Open(Options{Dir: dir, Source: nameless{f}})
	if first == nil || !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("%v, %v", first, err)
	}
	wantWall(t, first, first.Boot(), 6*sec, y2026.Add(time.Second), Synced)
	second, _ := Open(Options{Dir: dir, Source: nameless{f}})
	if second.Boot() == first.Boot() {
		t.Error("two starts of which nobody knows whether they are of one boot count as one")
	}
}
