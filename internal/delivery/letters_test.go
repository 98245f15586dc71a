package delivery

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"gateway/internal/atomicfile"
	"gateway/internal/format"
	"gateway/mqtt"
)

// Letters marked to be sent again are older than those that came since. After a restart the next one
// took the number of the newest, and replaced it.
func TestALetterNeverTakesTheNumberOfAnother(t *testing.T) {
	dir := t.TempDir()
	put := func(reason string) {
		t.Helper()
		if err := openLetters(t, dir, 0).Put([]Letter{{Reason: reason}}); err != nil {
			t.Fatal(err)
		}
	}
	put("first")
	if _, err := RetryLetters(dir); err != nil {
		t.Fatal(err)
	}
	put("second")
	put("third")
	letters, err := ListLetters(dir)
	if err != nil || len(letters) != 2 || letters[0].Reason != "second" || letters[1].Reason != "third" {
		t.Errorf("%+v, %v", letters, err)
	}
}

func openLetters(t *testing.T, dir string, limit int) *Letters {
	t.Helper()
	l, err := OpenLetters(dir, limit)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// someLetters returns n that are numbered by their reasons and sequences.
func someLetters(first, n int) (list []Letter) {
	for i := first; i < first+n; i++ {
		list = append(list, Letter{ID: ID{Epoch: 7, Seq: uint64(i)}, Reason: fmt.Sprint(i), Data: fmt.Append(nil, "data ", i), Dict: []byte("dict")})
	}
	return list
}

func files(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestLettersPutTogetherShareAFile(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "dead-letters", "cloud")
	l := openLetters(t, dir, 0)
	for _, n := range []int{1, 3} {
		if err := l.Put(someLetters(int(l.next), n)); err != nil {
			t.Fatal(err)
		}
	}
	if got := files(t, dir); !slices.Equal(got, []string{"1.letter", "2-4.letter"}) {
		t.Error(got)
	}
	list, err := ListLetters(dir)
	if err != nil || len(list) != 4 {
		t.Fatal(list, err)
	}
	for i, x := range someLetters(1, 4) {
		got := list[i]
		if got.Number != uint64(i+1) || got.ID != x.ID || got.Reason != x.Reason || !bytes.Equal(got.Data, x.Data) || !bytes.Equal(got.Dict, x.Dict) {
			t.Errorf("%+v", got)
		}
	}
	if next := openLetters(t, dir, 0).next; next != 5 {
		t.Errorf("the next is number %d", next)
	}
}

// Whoever is told that letters make room finds them still there: only what the account knows is removed.
func TestTheOldestLettersMakeRoomOnceThatIsKnown(t *testing.T) {
	dir := t.TempDir()
	l := openLetters(t, dir, 5)
	for range 3 {
		if err := l.Put(someLetters(int(l.next), 2)); err != nil {
			t.Fatal(err)
		}
	}
	old, err := l.Surplus()
	if err != nil || len(old) != 2 || old[0].ID.Seq != 1 || old[1].ID.Seq != 2 {
		t.Fatal(old, err)
	}
	if list, _ := ListLetters(dir); len(list) != 6 {
		t.Errorf("%d letters before", len(list))
	}
	if err := l.Discard(); err != nil {
		t.Fatal(err)
	}
	if list, _ := ListLetters(dir); len(list) != 4 || list[0].ID.Seq != 3 {
		t.Errorf("%+v after", list)
	}
}

// A process that dies in between sends all letters of the file again.
func TestAFileOfLettersGoesWhenAllInItAreSettled(t *testing.T) {
	dir := t.TempDir()
	if err := openLetters(t, dir, 0).Put(someLetters(1, 3)); err != nil {
		t.Fatal(err)
	}
	if n, err := RetryLetters(dir); n != 3 || err != nil {
		t.Fatal(n, err)
	}
	for range 2 {
		l := openLetters(t, dir, 0)
		list, err := l.Retries()
		if err != nil || len(list) != 3 {
			t.Fatal(list, err)
		}
		for _, x := range list[:2] {
			if err := l.Settled(x.Number); err != nil {
				t.Fatal(err)
			}
		}
		if got := files(t, dir); !slices.Equal(got, []string{"1-3.retry"}) {
			t.Fatal(got)
		}
	}
	l := openLetters(t, dir, 0)
	list, _ := l.Retries()
	for _, x := range list {
		if err := l.Settled(x.Number); err != nil {
			t.Fatal(err)
		}
	}
	if got := files(t, dir); len(got) != 0 {
		t.Error(got)
	}
}

func TestWhatIsBeforeTheDamageInAFileOfLettersIsSentAgain(t *testing.T) {
	dir := t.TempDir()
	if err := openLetters(t, dir, 0).Put(someLetters(1, 3)); err != nil {
		t.Fatal(err)
	}
	if _, err := RetryLetters(dir); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "1-3.retry")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)/2] ^= 1
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	l := openLetters(t, dir, 0)
	list, err := l.Retries()
	if !errors.Is(err, errLetter) || len(list) != 1 {
		t.Fatal(list, err)
	}
	if err := l.Settled(1); err != nil {
		t.Fatal(err)
	}
	if got := files(t, dir); !slices.Equal(got, []string{"1-3.damaged"}) {
		t.Error(got)
	}
	if next := openLetters(t, dir, 0).next; next != 4 {
		t.Errorf("the next is number %d", next)
	}
}

func FuzzLetters(f *testing.F) {
	x := someLetters(1, 2)
	f.Add(appendLetter(appendLetter(nil, &x[0]), &x[1]))
	f.Add([]byte(letterMagic))
	f.Fuzz(func(t *testing.T, b []byte) {
		x, rest, err := cutLetter(b)
		if err != nil {
			return
		}
		if again := append(appendLetter(nil, &x), rest...); !bytes.Equal(again, b) {
			t.Errorf("%x is read as %x", b, again)
		}
	})
}

// refusing is a destination that takes samples of the device "a" and refuses those of "bad".
func refusing() *fakeBroker {
	b := newFakeBroker(time.Millisecond)
	b.set(func(m *mqtt.Message) error {
		if m.Topic == "g/bad" {
			return refusedBy(mqtt.PayloadFormatInvalid)
		}
		return nil
	})
	return b
}

// Each sample set aside cost four syncs of its own: a file and its directory, and the account and its. A
// destination that refuses a thousand a second stood still for it, and wore the card.
func TestManySamplesSetAsideShareTheWritesOfTheDisk(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		letters := openLetters(t, dir, 100_000)
		writes, accounts, told := 0, 0, 0
		letters.write = func(path string, data []byte) error {
			writes++
			return atomicfile.Write(path, data)
		}
		q, b := newFakeQueue(), refusing()
		d := run(t, Options{Letters: letters, Order: OldestFirst, Aside: func(ID, string) { told++ }, Keep: func() error { accounts++; return nil }}, q, b, format.Options{})
		const n = 1000
		for i := range n { // ten seconds
			q.append("bad", i+1)
			q.append("a", i+1)
			time.Sleep(10 * time.Millisecond)
		}
		drain(t, d, time.Minute)
		synctest.Wait()
		wantInOrder(t, b.numbers(t, "a"), n)
		if list, err := ListLetters(dir); err != nil || len(list) != n || told != n {
			t.Errorf("%d letters, %d told, %v", len(list), told, err)
		}
		if writes > 15 || accounts > 15 {
			t.Errorf("%d writes of letters and %d of the account in ten seconds", writes, accounts)
		}
	})
}

// A single one is not kept waiting.
func TestALonelySampleIsSetAsideAtOnce(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		q, b := newFakeQueue(), newFakeBroker(time.Millisecond)
		run(t, Options{Letters: openLetters(t, dir, 0)}, q, b, format.Options{})
		q.appendRaw([]byte("junk"), nil)
		synctest.Wait()
		if live, _ := q.Depth(); live != 0 {
			t.Error("it is still in the queue")
		}
	})
}

// However the process ends, a sample is in the queue or it is among the letters and in the account.
func TestASampleStaysInTheQueueUntilItsLetterAndTheAccountAreOnTheDisk(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		letters := openLetters(t, dir, 0)
		var noLetter, noAccount atomic.Bool
		full := func(disk *atomic.Bool) error {
			if disk.Load() {
				return errors.New("disk full")
			}
			return nil
		}
		noLetter.Store(true)
		noAccount.Store(true)
		letters.write = func(path string, data []byte) error {
			if err := full(&noLetter); err != nil {
				return err
			}
			return atomicfile.Write(path, data)
		}
		var told []string
		q, b := newFakeQueue(), newFakeBroker(time.Millisecond)
		d := run(t, Options{Letters: letters, Aside: func(id ID, _ string) { told = append(told, idText(id)) }, Keep: func() error { return full(&noAccount) }}, q, b, format.Options{})
		left := func(want int64) {
			t.Helper()
			time.Sleep(5 * time.Second)
			synctest.Wait()
			if live, _ := q.Depth(); live != want {
				t.Errorf("%d in the queue, want %d", live, want)
			}
		}
		q.appendRaw([]byte("junk"), nil)
		q.append("a", 1)
		q.appendRaw([]byte("more"), nil)
		left(2)
		if len(told) > 0 || len(files(t, dir)) > 0 {
			t.Errorf("told %v before there were letters", told)
		}
		noLetter.Store(false)
		left(2)
		if len(files(t, dir)) != 1 {
			t.Error("the letters are not written")
		}
		q.append("a", 2)
		left(2)
		noAccount.Store(false)
		left(0)
		if !slices.Equal(told, []string{idOf(1), idOf(3)}) {
			t.Errorf("told %v", told)
		}
		if list, err := ListLetters(dir); err != nil || len(list) != 2 {
			t.Errorf("%v, %v", list, err)
		}
		wantInOrder(t, b.numbers(t, "a"), 2)
		if s := d.Status(); s.Aside != 2 {
			t.Errorf("%+v", s)
		}
	})
}

// What is refused once more is in the store anew before its old file goes, and it is lost once only.
func TestALetterThatIsRefusedOnceMoreIsKeptAnew(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		told := 0
		q, b := newFakeQueue(), refusing()
		d := run(t, Options{Letters: openLetters(t, dir, 0), Order: OldestFirst, Aside: func(ID, string) { told++ }}, q, b, format.Options{})
		more := func(from int) {
			for i := range 20 {
				q.append("a", from+i)
				time.Sleep(time.Second)
			}
		}
		for i := range 5 {
			q.append("bad", i+1)
		}
		more(1)
		for range 2 {
			if n, err := RetryLetters(dir); n != 5 || err != nil {
				t.Fatal(n, err)
			}
			more(21)
			synctest.Wait()
		}
		list, err := ListLetters(dir)
		if err != nil || len(list) != 5 || told != 5 {
			t.Errorf("%d letters, told %d times, %v", len(list), told, err)
		}
		if names := files(t, dir); slices.ContainsFunc(names, func(n string) bool { return strings.HasSuffix(n, retrySuffix) }) {
			t.Error(names)
		}
		drain(t, d, time.Minute)
	})
}
