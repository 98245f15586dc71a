package service

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
)

// Apply does the steps in order, says each to w, and stops at the first that fails. In a system that
// is not live commands are only said, but for those that concern files, where its root is ours.
func Apply(ctx context.Context, w io.Writer, root string, live bool, steps []Step) error {
	for _, s := range steps {
		var err error
		if s.Command == nil {
			fmt.Fprintln(w, s)
			err = s.file(root)
		} else if !live && !(s.Offline && ours(root)) {
			fmt.Fprintln(w, "later:", s)
		} else {
			fmt.Fprintln(w, s)
			cmd := exec.CommandContext(ctx, s.Command[0], s.Command[1:]...)
			cmd.Stdout, cmd.Stderr = w, w
			err = cmd.Run()
		}
		switch {
		case err != nil && s.Tolerate:
			fmt.Fprintf(w, "        (%v; going on)\n", err)
		case err != nil:
			return fmt.Errorf("service: %s: %w", s, err)
		}
	}
	return nil
}

// ours tells whether a root directory is that of this process.
func ours(root string) bool { return filepath.Clean(root) == string(filepath.Separator) }

// file does a step that is no command.
func (s Step) file(root string) error {
	path := filepath.Join(root, filepath.FromSlash(s.Path))
	if s.Remove {
		if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	if s.Link != "" {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return os.Symlink(s.Link, path)
	}
	if s.Content == nil && s.Copy == "" {
		if err := os.MkdirAll(path, s.Mode); err != nil {
			return err
		}
		return os.Chmod(path, s.Mode) // whatever the umask
	}
	if _, err := os.Stat(path); s.Keep && err == nil {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	content := s.Content
	if s.Copy != "" {
		var err error
		if content, err = os.ReadFile(s.Copy); err != nil {
			return err
		}
	}
	// Written beside and renamed: a program that runs cannot be written to, and a box that loses power
	// meanwhile has the old file or the new one.
	f, err := os.CreateTemp(filepath.Dir(path), ".gateway-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // gone already when all went well
	_, err = f.Write(content)
	if err == nil {
		err = f.Chmod(s.Mode)
	}
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
