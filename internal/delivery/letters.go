package delivery

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"gateway/internal/atomicfile"
)

// A Letter is a sample that a broker refused while it took others, kept so that it can be sent again
// when the reason is mended.
//
// Each is a file of its own, NUMBER.letter, and NUMBER.retry once it is to be sent again. All numbers
// are little endian:
//
//	file   = magic "GWLETTER" version (4 bytes, now 1) length (4 bytes, of the body) body
//	         CRC-32C (4 bytes, of all before it)
//	body   = epoch (8 bytes) seq (8 bytes) bytes(reason) bytes(data) bytes(dict)
//	bytes  = length (4 bytes), content
type Letter struct {
	Number     uint64
	ID         ID
	Reason     string
	Data, Dict []byte // of the record
}

// Letters is the store of one destination: a directory, bounded by number; the oldest makes room.
// It is used by one goroutine; the command that asks for a retry is another process.
type Letters struct {
	dir    string
	max    int
	next   uint64
	out    map[uint64]bool // being sent again
	looked time.Time
}

const (
	letterMagic   = "GWLETTER"
	letterVersion = 1
	letterSuffix  = ".letter"
	retrySuffix   = ".retry"

	// MaxLetters is how many letters a store keeps unless told otherwise.
	MaxLetters = 1000

	retryEvery = 2 * time.Second
)

var errLetter = errors.New("delivery: damaged dead letter")

// LettersDir returns the directory of a destination's store below the gateway's data directory.
func LettersDir(data, destination string) string {
	return filepath.Join(data, "dead-letters", destination)
}

// OpenLetters opens the store in dir, which is made when the first letter comes.
func OpenLetters(dir string, max int) (*Letters, error) {
	if max <= 0 {
		max = MaxLetters
	}
	l := &Letters{dir: dir, max: max, next: 1, out: map[uint64]bool{}}
	for _, suffix := range []string{letterSuffix, retrySuffix} {
		numbers, err := letterNumbers(dir, suffix)
		if err != nil {
			return nil, err
		}
		if n := len(numbers); n > 0 && numbers[n-1] >= l.next {
			l.next = numbers[n-1] + 1
		}
	}
	return l, nil
}

// letterNumbers lists the letters with a suffix in ascending order.
func letterNumbers(dir, suffix string) ([]uint64, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("delivery: dead letters: %w", err)
	}
	var numbers []uint64
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), suffix)
		if n, err := strconv.ParseUint(name, 10, 64); ok && err == nil {
			numbers = append(numbers, n)
		}
	}
	slices.Sort(numbers)
	return numbers, nil
}

func (l *Letters) path(n uint64, suffix string) string {
	return filepath.Join(l.dir, strconv.FormatUint(n, 10)+suffix)
}

// Put keeps a letter durably and returns those that had to go for it.
func (l *Letters) Put(x Letter) (forgotten []Letter, err error) {
	if err := os.MkdirAll(l.dir, 0o750); err != nil {
		return nil, fmt.Errorf("delivery: dead letters: %w", err)
	}
	if err := atomicfile.Write(l.path(l.next, letterSuffix), appendLetter(nil, &x)); err != nil {
		return nil, fmt.Errorf("delivery: dead letters: %w", err)
	}
	l.next++
	numbers, err := letterNumbers(l.dir, letterSuffix)
	if err != nil {
		return nil, err
	}
	for len(numbers) > l.max {
		old, err := readLetter(l.path(numbers[0], letterSuffix))
		if err != nil {
			old = Letter{Reason: err.Error()}
		}
		if err := os.Remove(l.path(numbers[0], letterSuffix)); err != nil {
			return forgotten, fmt.Errorf("delivery: dead letters: %w", err)
		}
		forgotten = append(forgotten, old)
		numbers = numbers[1:]
	}
	return forgotten, nil
}

// Retries returns the letters that are to be sent again and are not being sent yet. It looks at the
// disk every two seconds only.
func (l *Letters) Retries() ([]Letter, error) {
	if time.Since(l.looked) < retryEvery {
		return nil, nil
	}
	l.looked = time.Now()
	numbers, err := letterNumbers(l.dir, retrySuffix)
	var letters []Letter
	for _, n := range numbers {
		if l.out[n] {
			continue
		}
		x, e := readLetter(l.path(n, retrySuffix))
		if e != nil {
			// Kept for whoever wants to see it, and not looked at again.
			err = errors.Join(err, e, os.Rename(l.path(n, retrySuffix), l.path(n, ".damaged")))
			continue
		}
		x.Number = n
		l.out[n] = true
		letters = append(letters, x)
	}
	return letters, err
}

// Delivered removes a letter that was sent again and acknowledged.
func (l *Letters) Delivered(n uint64) error {
	delete(l.out, n)
	if err := os.Remove(l.path(n, retrySuffix)); err != nil {
		return fmt.Errorf("delivery: dead letters: %w", err)
	}
	return nil
}

// Returned keeps a letter that was refused once more.
func (l *Letters) Returned(n uint64) error {
	if err := os.Rename(l.path(n, retrySuffix), l.path(n, letterSuffix)); err != nil {
		return fmt.Errorf("delivery: dead letters: %w", err)
	}
	delete(l.out, n)
	return nil
}

// ListLetters returns the letters kept in dir, oldest first, without those that are to be sent again.
func ListLetters(dir string) ([]Letter, error) {
	numbers, err := letterNumbers(dir, letterSuffix)
	if err != nil {
		return nil, err
	}
	l := &Letters{dir: dir}
	var letters []Letter
	for _, n := range numbers {
		x, err := readLetter(l.path(n, letterSuffix))
		if err != nil {
			x.Reason = err.Error()
		}
		x.Number = n
		letters = append(letters, x)
	}
	return letters, nil
}

// RetryLetters marks all letters in dir to be sent again and returns how many. A gateway that is
// running notices within seconds, another at its next start.
func RetryLetters(dir string) (int, error) {
	numbers, err := letterNumbers(dir, letterSuffix)
	if err != nil {
		return 0, err
	}
	l := &Letters{dir: dir}
	for i, n := range numbers {
		if err := os.Rename(l.path(n, letterSuffix), l.path(n, retrySuffix)); err != nil {
			return i, fmt.Errorf("delivery: dead letters: %w", err)
		}
	}
	return len(numbers), nil
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func appendLetter(b []byte, x *Letter) []byte {
	b = append(b, letterMagic...)
	b = binary.LittleEndian.AppendUint32(b, letterVersion)
	b = binary.LittleEndian.AppendUint32(b, uint32(16+3*4+len(x.Reason)+len(x.Data)+len(x.Dict)))
	b = binary.LittleEndian.AppendUint64(b, x.ID.Epoch)
	b = binary.LittleEndian.AppendUint64(b, x.ID.Seq)
	for _, part := range [][]byte{[]byte(x.Reason), x.Data, x.Dict} {
		b = binary.LittleEndian.AppendUint32(b, uint32(len(part)))
		b = append(b, part...)
	}
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

func parseLetter(b []byte) (x Letter, err error) {
	const header = len(letterMagic) + 8
	if len(b) < header+16+4 || string(b[:len(letterMagic)]) != letterMagic {
		return x, errLetter
	}
	body := b[:len(b)-4]
	if crc32.Checksum(body, castagnoli) != binary.LittleEndian.Uint32(b[len(body):]) {
		return x, errLetter
	}
	if v := binary.LittleEndian.Uint32(b[len(letterMagic):]); v != letterVersion {
		return x, fmt.Errorf("delivery: dead letter of version %d, written by a later gateway", v)
	}
	if uint64(binary.LittleEndian.Uint32(b[len(letterMagic)+4:])) != uint64(len(body)-header) {
		return x, errLetter
	}
	body = body[header:]
	x.ID = ID{Epoch: binary.LittleEndian.Uint64(body), Seq: binary.LittleEndian.Uint64(body[8:])}
	body = body[16:]
	var parts [3][]byte
	for i := range parts {
		if len(body) < 4 || uint64(binary.LittleEndian.Uint32(body)) > uint64(len(body)-4) {
			return x, errLetter
		}
		n := int(binary.LittleEndian.Uint32(body))
		parts[i], body = body[4:4+n], body[4+n:]
	}
	if len(body) != 0 {
		return x, errLetter
	}
	x.Reason, x.Data, x.Dict = string(parts[0]), parts[1], parts[2]
	return x, nil
}

func readLetter(path string) (Letter, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return Letter{}, fmt.Errorf("delivery: %w", err)
	}
	x, err := parseLetter(b)
	if err != nil {
		return x, fmt.Errorf("%w: %s", err, path)
	}
	return x, nil
}
