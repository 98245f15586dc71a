// Command mutants breaks package buffer in one place at a time and checks that its tests notice. Run
// it in the module's root:
//
//	go run ./buffer/mutants [-run name]
//
// The results of the last run stand in the documentation of package buffer.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// A mutant is one way of getting it wrong: in each file, what stands there and what instead.
type mutant struct {
	name    string
	changes []change
}

type change struct{ file, old, new string }

var mutants = []mutant{
	{"no fsync", []change{{"queue.go", "if err = p.f.Sync(); err != nil {", "if _ = p; err != nil {"}}},
	{"fsync tried again after an error", []change{{"queue.go", "if err = p.f.Sync(); err != nil {", "if err = p.f.Sync(); err != nil { err = p.f.Sync() }; if err != nil {"}}},
	{"directory not synced", []change{{"queue.go", "err = q.fs.SyncDir(q.opt.Dir)", "err = nil"}}},
	{"no CRC", []change{{"frame.go", "if crc32.Update(seed, castagnoli, b[4:]) != binary.LittleEndian.Uint32(b) {", "if false {"}}},
	{"recycled content accepted", []change{
		{"segment.go", "return crc32.Checksum(b[:], castagnoli)", "return crc32.Checksum(b[:0], castagnoli)"},
	}},
	{"cursor saved after its segment was recycled", []change{
		{"room.go", "\tif err := q.saveCursors(false); err != nil {\n\t\treturn err\n\t}\n", ""},
		{"room.go", "\tif err := q.saveCursors(false); err != nil {\n\t\treturn // kept in q.failing\n\t}\n\tq.releaseDone()", "\tq.releaseDone()\n\tq.saveCursors(false)"},
	}},
	{"cursors in one slot", []change{{"cursors.go", "slot*slotSize", "0"}}},
	{"cursor not synced", []change{{"cursors.go", "return f.Sync()", "return nil"}}},
	{"a note goes over what is synced", []change{{"cursors.go", "if q.cur.gen = gen; sync {", "if q.cur.gen = gen; true {"}}},
	{"a note counts as synced", []change{{"cursors.go", "q.cur.dirty = q.cur.dirty && !sync", "q.cur.dirty = false"}}},
	{"the note of a crashed process is not synced", []change{{"cursors.go", "err = f.Sync()", "err = nil"}}},
	{"cursors stay in a file that fails", []change{{"cursors.go", "if q.cur.f == nil && q.cur.failing == nil {", "if q.cur.f == nil {"}}},
	{"a cursor forgets the epoch of a segment that is gone", []change{{"open.go", "\tq.rememberEpoch(st.consumers)\n", ""}}},
	{"cursor not set back to what survived", []change{{"open.go", "return min(at.Seq, last)", "return max(at.Seq, last)"}}},
	{"a cursor of an unknown epoch counts", []change{{"open.go", "return oldest - 1", "return at.Seq"}}},
	{"the epoch stays", []change{{"open.go", "epoch: random64(),", "epoch: 7,"}}},
	{"what a killed process left is taken for synced", []change{{"open.go", "\tq.settle()\n", ""}}},
	{"unsynced records are not written anew", []change{{"fail.go", "for i := 0; i < n && err == nil; i++ {", "for i := 0; i < 0; i++ {"}}},
	{"what memory let go counts as durable", []change{{"queue.go", "if done && doubt {", "if false && doubt {"}}},
	{"a segment that a failure ended keeps its space", []change{{"fail.go", "s.uncut = true", "s.uncut = false"}}},
	{"a file that is to be a segment is not counted", []change{{"write.go", "q.making += sp.size", "q.making += 0"}, {"write.go", "q.making -= s.fileSize", ""}}},
	{"zeroes are written over records", []change{{"ahead.go", "from := max(s.zeroed, pages(s.end))", "from := s.zeroed"}}},
	{"zeroes are written while records are", []change{{"ahead.go", "\tq.appendMu.Lock()\n\tdefer q.appendMu.Unlock()\n", ""}}},
	{"a damaged frame ends the segment", []change{{"scan.go", "if s.off, fr, n, ok = s.search(s.off + 1); !ok {", "if ok = false; !ok {"}}},
	{"dictionaries are written once", []change{{"write.go", "for range 2 {", "for range 1 {"}}},
	{"the second header is not read", []change{{"segment.go", "if size >= 2*segHeaderLen {", "if false {"}}},
	{"losses are forgotten by a crash", []change{{"cursors.go", "st.losses = slices.Clone(q.losses)", "st.losses = nil"}}},
	{"the next segment's base does not end the one before", []change{{"open.go", "s.last = next - 1", "s.last = next + 9"}}},
	{"who came during a sync takes the place of one it served", []change{{"commit.go", "c.expect = r.n + c.next.n", "c.expect = r.n"}}},
	{"a segment that grew during its sync counts as synced", []change{{"queue.go", "if p.s.end > p.end {", "if p.s.end > p.end && p.s == q.active {"}}},
	{"journal: no fsync", []change{{"journal.go", "if err = d.f.Sync(); err != nil {", "if _ = d; err != nil {"}}},
	{"journal: snapshot not synced", []change{{"journal.go", "err = jf.f.Sync()", "err = nil"}}},
	{"journal: the snapshot's name is not synced", []change{{"journal.go", "err = j.fs.SyncDir(j.dir)\n\t}\n\treturn jf", "err = nil\n\t}\n\treturn jf"}}},
	{"a short write counts as written", []change{{"write.go", "if _, err := w.seg.f.WriteAt(w.buf, w.off); err != nil {", "if _, err := w.seg.f.WriteAt(w.buf, w.off); false {"}}},
}

func main() {
	only := flag.String("run", "", "run only mutants whose name contains this")
	tests := flag.String("tests", "Power|Operation|Disk|Bit|Kill|Random|Grows|Journal|UnknownEpoch|Restored|Commit|Concurrent|BringsBack|Bound|Zeroes|Durable|Cursors|Note", "the tests to run, as for go test -run")
	flag.Parse()
	if err := run(*only, *tests); err != nil {
		fmt.Fprintln(os.Stderr, "mutants:", err)
		os.Exit(1)
	}
}

func run(only, tests string) error {
	dir, err := os.MkdirTemp("", "mutants")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	survived := 0
	for _, m := range mutants {
		if !strings.Contains(m.name, only) {
			continue
		}
		start := time.Now()
		caught, err := try(dir, m, tests)
		if err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
		if caught == "" {
			survived++
			caught = "SURVIVED"
		}
		fmt.Printf("%-56s %s (%.1fs)\n", m.name, caught, time.Since(start).Seconds())
	}
	if survived > 0 {
		return fmt.Errorf("%d survived", survived)
	}
	return nil
}

var failed = regexp.MustCompile(`(?m)^\s*--- FAIL: (\w+)`)

// try runs the tests with the mutant in place of the package and returns the test that caught it.
func try(dir string, m mutant, tests string) (string, error) {
	replace := map[string]string{}
	texts := map[string]string{}
	for i, c := range m.changes {
		path, err := filepath.Abs(filepath.Join("buffer", c.file))
		if err != nil {
			return "", err
		}
		text, ok := texts[path]
		if !ok {
			b, err := os.ReadFile(path)
			if err != nil {
				return "", err
			}
			text = string(b)
		}
		if strings.Count(text, c.old) != 1 {
			return "", fmt.Errorf("%q stands %d times in %s: adapt the list", c.old, strings.Count(text, c.old), c.file)
		}
		texts[path] = strings.Replace(text, c.old, c.new, 1)
		replace[path] = filepath.Join(dir, fmt.Sprintf("%d-%s", i, c.file))
	}
	for path, text := range texts {
		if err := os.WriteFile(replace[path], []byte(text), 0o600); err != nil {
			return "", err
		}
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	file := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(file, overlay, 0o600); err != nil {
		return "", err
	}
	out, err := exec.Command("go", "test", "-vet=off", "-failfast", "-timeout", "60s", "-overlay", file, "-run", tests, "./buffer").CombinedOutput()
	if err == nil {
		return "", nil
	}
	if f := failed.FindSubmatch(out); f != nil {
		return string(f[1]), nil
	}
	if strings.Contains(string(out), "panic: test timed out") {
		return "a test that does not end", nil
	}
	return "", fmt.Errorf("%w\n%s", err, out)
}
