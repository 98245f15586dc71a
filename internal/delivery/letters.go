package delivery

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"gateway/internal/atomicfile"
)

// Letters is the store of one destination: a directory, bounded by the number of letters; the oldest
// make room. It is used by one goroutine; the command that asks for a retry is another process.
//
// Letters that were set aside together share a file and its sync: FIRST-LAST.letter, by their numbers,
// or NUMBER.letter where it is one; .retry instead of .letter once they are to be sent again.
type Letters struct {
	dir     string
	max     int
	next    uint64
	surplus []letterFile
	out     map[uint64]*retried // being sent again, by the letter's number
	looked  time.Time
	write   func(path string, data []byte) error // durable when it returns nil
}

// A letterFile is the name of a file of letters.
type letterFile struct {
	first, last uint64
	suffix      string
}

func (f letterFile) count() int { return int(f.last - f.first + 1) }

func (f letterFile) name() string {
	name := strconv.FormatUint(f.first, 10)
	if f.last > f.first {
		name += "-" + strconv.FormatUint(f.last, 10)
	}
	return name + f.suffix
}

// retried is a file whose letters are being sent again.
type retried struct {
	letterFile
	left    int // letters of which nobody knows yet what becomes of them
	damaged bool
}

const (
	letterSuffix  = ".letter"
	retrySuffix   = ".retry"
	damagedSuffix = ".damaged"

	// MaxLetters is how many letters a store keeps unless told otherwise.
	MaxLetters = 1000

	retryEvery = 2 * time.Second
)

// LettersDir returns the directory of a destination's store below the gateway's data directory.
func LettersDir(data, destination string) string {
	return filepath.Join(data, "dead-letters", destination)
}

// OpenLetters opens the store in dir, which is made when the first letter comes.
func OpenLetters(dir string, limit int) (*Letters, error) {
	if limit <= 0 {
		limit = MaxLetters
	}
	l := &Letters{dir: dir, max: limit, next: 1, out: map[uint64]*retried{}, write: atomicfile.Write}
	for _, suffix := range []string{letterSuffix, retrySuffix, damagedSuffix} {
		files, err := letterFiles(dir, suffix)
		if err != nil {
			return nil, err
		}
		for _, f := range files {
			l.next = max(l.next, f.last+1)
		}
	}
	return l, nil
}

// letterFiles lists the files with a suffix, the oldest first.
func letterFiles(dir, suffix string) ([]letterFile, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("delivery: dead letters: %w", err)
	}
	var files []letterFile
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), suffix)
		if !ok {
			continue
		}
		first, last, several := strings.Cut(name, "-")
		if !several {
			last = first
		}
		a, e1 := strconv.ParseUint(first, 10, 64)
		b, e2 := strconv.ParseUint(last, 10, 64)
		if e1 == nil && e2 == nil && a <= b {
			files = append(files, letterFile{a, b, suffix})
		}
	}
	slices.SortFunc(files, func(a, b letterFile) int { return cmp.Compare(a.first, b.first) })
	return files, nil
}

func (l *Letters) path(f letterFile) string { return filepath.Join(l.dir, f.name()) }

// together is how many letters should go into a file at most: a whole file makes room at a time.
func (l *Letters) together() int { return max(1, l.max/4) }

// Put keeps letters durably, in one file.
func (l *Letters) Put(letters []Letter) error {
	var data []byte
	for i := range letters {
		data = appendLetter(data, &letters[i])
	}
	f := letterFile{l.next, l.next + uint64(len(letters)) - 1, letterSuffix}
	err := atomicfile.MkdirAll(l.dir, 0o750)
	if err == nil {
		err = l.write(l.path(f), data)
	}
	if err != nil {
		return fmt.Errorf("delivery: dead letters: %w", err)
	}
	l.next = f.last + 1
	return nil
}

// Surplus returns the oldest letters, those that are too many; Discard removes them.
func (l *Letters) Surplus() (old []Letter, err error) {
	files, err := letterFiles(l.dir, letterSuffix)
	if err != nil {
		return nil, err
	}
	n := 0
	for _, f := range files {
		n += f.count()
	}
	l.surplus = l.surplus[:0]
	for _, f := range files {
		if n <= l.max {
			break
		}
		letters, err := readLetters(l.path(f), f.first)
		for len(letters) < f.count() {
			letters = append(letters, Letter{Number: f.first + uint64(len(letters)), Reason: err.Error()})
		}
		old = append(old, letters...)
		l.surplus = append(l.surplus, f)
		n -= f.count()
	}
	return old, nil
}

// Discard removes what Surplus returned.
func (l *Letters) Discard() error {
	for _, f := range l.surplus {
		if err := os.Remove(l.path(f)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("delivery: dead letters: %w", err)
		}
	}
	l.surplus = l.surplus[:0]
	return nil
}

// Retries returns the letters that are to be sent again and are not being sent yet. It looks at the
// disk every two seconds only.
func (l *Letters) Retries() ([]Letter, error) {
	if time.Since(l.looked) < retryEvery {
		return nil, nil
	}
	l.looked = time.Now()
	files, err := letterFiles(l.dir, retrySuffix)
	var letters []Letter
	for _, f := range files {
		if l.out[f.first] != nil {
			continue
		}
		found, e := readLetters(l.path(f), f.first)
		r := &retried{f, len(found), e != nil}
		if err = errors.Join(err, e); len(found) == 0 {
			err = errors.Join(err, l.remove(r))
		}
		for i := range found {
			l.out[found[i].Number] = r
		}
		letters = append(letters, found...)
	}
	return letters, err
}

// Settled notes that a letter that was sent again is acknowledged, or is in the store anew. Its file
// goes when that is so of all letters in it.
func (l *Letters) Settled(number uint64) error {
	r := l.out[number]
	if r == nil {
		return nil
	}
	if r.left--; r.left > 0 {
		return nil
	}
	for n := r.first; n <= r.last; n++ {
		delete(l.out, n)
	}
	return l.remove(r)
}

// remove removes a file that is done with. One with damage is kept for whoever wants to see it, and
// not looked at again.
func (l *Letters) remove(r *retried) (err error) {
	if r.damaged {
		kept := r.letterFile
		kept.suffix = damagedSuffix
		err = os.Rename(l.path(r.letterFile), l.path(kept))
	} else {
		err = os.Remove(l.path(r.letterFile))
	}
	if err != nil {
		return fmt.Errorf("delivery: dead letters: %w", err)
	}
	return nil
}

// ListLetters returns the letters kept in dir, oldest first, without those that are to be sent again.
func ListLetters(dir string) ([]Letter, error) {
	files, err := letterFiles(dir, letterSuffix)
	if err != nil {
		return nil, err
	}
	var letters []Letter
	for _, f := range files {
		found, err := readLetters(filepath.Join(dir, f.name()), f.first)
		if letters = append(letters, found...); err != nil {
			letters = append(letters, Letter{Number: f.first + uint64(len(found)), Reason: err.Error()})
		}
	}
	return letters, nil
}

// RetryLetters marks all letters in dir to be sent again and returns how many. A gateway that is
// running notices within seconds, another at its next start.
func RetryLetters(dir string) (n int, err error) {
	files, err := letterFiles(dir, letterSuffix)
	if err != nil {
		return 0, err
	}
	for _, f := range files {
		to := f
		to.suffix = retrySuffix
		if err := os.Rename(filepath.Join(dir, f.name()), filepath.Join(dir, to.name())); err != nil {
			return n, fmt.Errorf("delivery: dead letters: %w", err)
		}
		n += f.count()
	}
	return n, nil
}
