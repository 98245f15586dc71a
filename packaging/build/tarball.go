package main

import (
	"archive/tar"
	"compress/gzip"
	"io"
	"os"
	"path"
	"strings"
)

// tarball writes the binary and the documents below one directory, as nobody's in particular.
func (r *release) tarball(file, dir, binary string, docs []document) (err error) {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer func() {
		if e := f.Close(); err == nil {
			err = e
		}
	}()
	z, err := gzip.NewWriterLevel(f, gzip.BestCompression)
	if err != nil {
		return err
	}
	t := tar.NewWriter(z)
	dirs := map[string]bool{}
	add := func(name string, mode int64, text []byte) error {
		for i, c := range name {
			if c == '/' && !dirs[name[:i]] {
				dirs[name[:i]] = true
				h := &tar.Header{Typeflag: tar.TypeDir, Name: name[:i+1], Mode: 0o755, ModTime: r.time, Format: tar.FormatPAX}
				if err := t.WriteHeader(h); err != nil {
					return err
				}
			}
		}
		h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: int64(len(text)), ModTime: r.time, Format: tar.FormatPAX}
		if err := t.WriteHeader(h); err != nil {
			return err
		}
		_, err := t.Write(text)
		return err
	}
	program, err := os.ReadFile(binary)
	if err != nil {
		return err
	}
	if err := add(path.Join(dir, "gateway"), 0o755, program); err != nil {
		return err
	}
	for _, d := range docs {
		name := path.Join(dir, d.name)
		if strings.HasSuffix(d.name, ".md") && !strings.Contains(d.name, "/") && d.name != "README.md" {
			name = path.Join(dir, "docs", d.name)
		}
		if err := add(name, 0o644, d.text); err != nil {
			return err
		}
	}
	for _, c := range []io.Closer{t, z} {
		if err := c.Close(); err != nil {
			return err
		}
	}
	return nil
}
