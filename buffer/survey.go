package buffer

import (
	"cmp"
	"path/filepath"
	"slices"
	"strings"
)

// A found is a file that looks like a segment.
type found struct {
	name string
	h    segHeader
	size int64
	ok   bool
}

// named tells whether the file has the name that goes with its header.
func (f *found) named() bool { return f.ok && f.name == segName(f.h.number) }

// byNumber orders files by their numbers. Of those with the same, all but one of them copies, the one
// that has the right name comes first.
func byNumber(a, b found) int {
	switch c := cmp.Compare(a.h.number, b.h.number); {
	case c != 0 || a.named() == b.named():
		return c
	case a.named():
		return -1
	}
	return 1
}

// A surveyed is what is in a queue's directory.
type surveyed struct {
	segs          []found
	spares, aside []spare
	unfinished    bool // a new cursors file did not get its name
}

// survey looks at every file without touching any.
func survey(fs FS, dir string, names []string) (in surveyed, err error) {
	slices.Sort(names)
	for _, name := range names {
		path := filepath.Join(dir, name)
		switch {
		case name == cursorsTemp:
			in.unfinished = true
		case strings.HasPrefix(name, quarantinePrefix):
			in.aside = append(in.aside, spare{path: path, size: sizeOf(fs, path)})
		case strings.HasPrefix(name, sparePrefix):
			in.spares = append(in.spares, spare{path: path, size: sizeOf(fs, path)})
		case isSegName(name):
			s := found{name: name}
			if f, err := fs.Open(path, false); err == nil {
				s.h, s.size, s.ok = readSegHeader(f)
				f.Close()
			}
			if s.ok && s.h.version > formatVersion {
				return in, &ErrNewer{path, s.h.version}
			}
			in.segs = append(in.segs, s)
		}
	}
	return in, nil
}

// sizeOf returns the size of a file, 0 when it cannot be told.
func sizeOf(fs FS, path string) int64 {
	f, err := fs.Open(path, false)
	if err != nil {
		return 0
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return 0
	}
	return size
}
