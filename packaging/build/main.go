// Command build makes what is released, from the commit that is checked out: Debian packages,
// tarballs with the static binary, a bill of materials for each binary, and their checksums.
//
//	cd packaging && go run ./build -out ../dist
//
// The same commit gives the same bytes, wherever and whenever it is built with the same Go.
package main

import (
	"crypto/sha256"
	"encoding/hex"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

func main() {
	if err := run(os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "build:", err)
		os.Exit(1)
	}
}

func run(args []string, out, errs io.Writer) error {
	f := flag.NewFlagSet("build", flag.ContinueOnError)
	f.SetOutput(errs)
	root := f.String("root", "..", "the gateway's `directory`: the root of its repository")
	dist := f.String("out", "../dist", "the `directory` that the files are written to")
	only := f.String("targets", "", "a comma-separated `list` of targets; all of them when empty: "+names(targets))
	version := f.String("version", "", "the `version`; from the repository's tags when empty")
	if err := f.Parse(args); err != nil {
		return err
	}
	chosen, err := choose(*only)
	if err != nil {
		return err
	}
	r, err := newRelease(*root, *version)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(*dist, 0o755); err != nil {
		return err
	}
	work, err := os.MkdirTemp("", "gateway-build-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)

	docs, err := r.documents(work)
	if err != nil {
		return err
	}
	var made []string
	for _, t := range chosen {
		files, err := r.make(t, docs, work, *dist)
		if err != nil {
			return fmt.Errorf("%s: %w", t.name, err)
		}
		info, err := os.Stat(filepath.Join(work, "gateway-"+t.name))
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "%9d  the binary for %s, of %d at most\n", info.Size(), t.name, t.binary)
		for _, name := range files {
			info, err := os.Stat(filepath.Join(*dist, name))
			if err != nil {
				return err
			}
			fmt.Fprintf(out, "%9d  %s\n", info.Size(), name)
		}
		made = append(made, files...)
	}
	return writeSums(*dist, made)
}

// make makes what is released for one target and returns the names of the files.
func (r *release) make(t target, docs []document, work, dist string) ([]string, error) {
	binary := filepath.Join(work, "gateway-"+t.name)
	if err := r.compile(t, binary); err != nil {
		return nil, err
	}
	licenses, bom, err := r.materials(t, binary)
	if err != nil {
		return nil, err
	}
	docs = append(slices.Clone(docs), document{"THIRD-PARTY-LICENSES", licenses})

	base := fmt.Sprintf("gateway-%s-%s", r.version, t.name)
	files := []string{base + ".cdx.json", base + ".tar.gz"}
	if err := os.WriteFile(filepath.Join(dist, files[0]), bom, 0o644); err != nil {
		return nil, err
	}
	if err := r.tarball(filepath.Join(dist, files[1]), base, binary, docs); err != nil {
		return nil, err
	}
	if t.debian != "" {
		name := fmt.Sprintf("gateway_%s_%s.deb", r.version, t.debian)
		if err := r.deb(filepath.Join(dist, name), t, binary, docs); err != nil {
			return nil, err
		}
		files = append(files, name)
	}
	return files, nil
}

// writeSums writes SHA256SUMS, as sha256sum -c reads it.
func writeSums(dist string, files []string) error {
	slices.Sort(files)
	var b strings.Builder
	for _, name := range files {
		sum, err := sumOf(filepath.Join(dist, name))
		if err != nil {
			return err
		}
		fmt.Fprintf(&b, "%s  %s\n", sum, name)
	}
	return os.WriteFile(filepath.Join(dist, "SHA256SUMS"), []byte(b.String()), 0o644)
}

func sumOf(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
