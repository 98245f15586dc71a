package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// A release is the commit that is released.
type release struct {
	root    string
	version string // as Debian orders versions
	commit  string
	changed bool      // the directory holds what the commit does not
	time    time.Time // of the commit: every date in every file
}

func newRelease(root, version string) (*release, error) {
	root, err := filepath.Abs(root)
	if err != nil {
		return nil, err
	}
	r := &release{root: root, version: version}
	head, err := r.git("log", "-1", "--format=%H %ct")
	if err != nil {
		return nil, err
	}
	commit, seconds, _ := strings.Cut(head, " ")
	r.commit = commit
	unix, err := strconv.ParseInt(seconds, 10, 64)
	if err != nil {
		return nil, fmt.Errorf("git log: %w", err)
	}
	r.time = time.Unix(unix, 0).UTC()
	changes, err := r.git("status", "--porcelain")
	if err != nil {
		return nil, err
	}
	r.changed = changes != ""
	if r.version == "" {
		// No tag at all is no fault: describe fails, and the version is that of a time before the first.
		tag, err := r.git("describe", "--tags", "--match=v[0-9]*", "--abbrev=0")
		if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
			return nil, err
		}
		exact, _ := r.git("describe", "--tags", "--match=v[0-9]*", "--exact-match")
		r.version = versionOf(tag, exact == tag && tag != "", r.time, commit)
		if r.changed {
			r.version += "+changed"
		}
	}
	if !debianVersion.MatchString(r.version) {
		return nil, fmt.Errorf("%q is no version; write it as 1.2.3", r.version)
	}
	return r, nil
}

// debianVersion is what deb-version(7) lets stand in an upstream version, without epoch and revision.
var debianVersion = regexp.MustCompile(`^[0-9][A-Za-z0-9.+~]*$`)

// versionOf is the version of a commit: that of its tag, or, after the latest tag and before the next
// one in dpkg's order, one with the commit's date and hash.
func versionOf(tag string, exact bool, at time.Time, commit string) string {
	v := strings.ReplaceAll(strings.TrimPrefix(tag, "v"), "-", "~") // v1.0.0-rc1 comes before v1.0.0
	if exact {
		return v
	}
	if v == "" {
		v = "0.0.0"
	}
	return fmt.Sprintf("%s+git%s.%.12s", v, at.Format("20060102150405"), commit)
}

// origin is what `gateway version` says of the binary.
func (r *release) origin() string {
	changed := ""
	if r.changed {
		changed = " with changes"
	}
	return fmt.Sprintf("%s commit %.12s%s of %s", r.version, r.commit, changed, r.time.Format(time.RFC3339))
}

func (r *release) git(args ...string) (string, error) {
	out, err := r.output("git", args...)
	return strings.TrimSpace(string(out)), err
}

func (r *release) output(name string, args ...string) ([]byte, error) {
	cmd := exec.Command(name, args...)
	cmd.Dir = r.root
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return out, fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, stderr.Bytes())
	}
	return out, nil
}

// A document is a text that is released beside the binary.
type document struct {
	name string // with slashes
	text []byte
}

// documents returns the licence, docs/ and examples/, and the manual page.
func (r *release) documents(work string) ([]document, error) {
	var docs []document
	add := func(name string) error {
		text, err := os.ReadFile(filepath.Join(r.root, filepath.FromSlash(name)))
		docs = append(docs, document{strings.TrimPrefix(name, "docs/"), text})
		return err
	}
	for _, name := range []string{"LICENSE", "README.md"} {
		if err := add(name); err != nil {
			return nil, err
		}
	}
	tree := os.DirFS(r.root)
	for _, dir := range []string{"docs", "examples"} {
		err := fs.WalkDir(tree, dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			return add(path)
		})
		if err != nil {
			return nil, err
		}
	}
	page, err := r.manual(work)
	return append(docs, document{"gateway.1", page}), err
}
