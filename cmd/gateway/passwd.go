package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/term"

	"gateway/mqtt/broker/guard"
)

var passwdCommand = command{
	name:    "passwd",
	usage:   "[--delete] FILE USER",
	summary: "Set or delete a user's password in the broker's password file.",
	run:     runPasswd,
}

func runPasswd(_ context.Context, c call) error {
	f := c.flags(`
The password is asked for twice on a terminal; otherwise it is the first line of the standard input.
The file keeps a hash of it only (argon2id). A running broker takes the change over by itself.

Example: gateway passwd /etc/gateway/broker.passwords alice`)
	remove := f.Bool("delete", false, "delete the user")
	if err := c.parse(f, 2, 2); err != nil {
		return err
	}
	path, user := f.Arg(0), f.Arg(1)
	data, err := os.ReadFile(path)
	if err != nil && (*remove || !errors.Is(err, fs.ErrNotExist)) {
		return err
	}
	hash := ""
	if !*remove {
		password, err := readPassword(c, user)
		if err != nil {
			return err
		}
		hash = guard.Hash(password)
	}
	out, found, err := guard.Set(data, user, hash)
	if err != nil {
		return usagef("%w", err)
	}
	if *remove && !found {
		return fmt.Errorf("%s has no user %q", path, user)
	}
	return replaceFile(path, out)
}

// readPassword asks for a password, or reads it where nobody can be asked.
func readPassword(c call, user string) ([]byte, error) {
	in, ok := c.in.(*os.File)
	if !ok || !term.IsTerminal(int(in.Fd())) {
		line, err := bufio.NewReader(c.in).ReadBytes('\n')
		line = bytes.TrimRight(line, "\r\n")
		if len(line) == 0 {
			if err == nil {
				err = errors.New("it is empty")
			}
			return nil, fmt.Errorf("no password on the standard input: %w", err)
		}
		return line, nil
	}
	ask := func(prompt string) ([]byte, error) {
		fmt.Fprint(c.err, prompt)
		defer fmt.Fprintln(c.err)
		return term.ReadPassword(int(in.Fd()))
	}
	first, err := ask("New password of " + user + ": ")
	if err != nil {
		return nil, err
	}
	again, err := ask("Once more: ")
	switch {
	case err != nil:
		return nil, err
	case len(first) == 0:
		return nil, errors.New("the password is empty")
	case !bytes.Equal(first, again):
		return nil, errors.New("the two are not the same; nothing was changed")
	}
	return first, nil
}

// replaceFile puts a new version in the place of a file at once, with the mode and the owner that the old one had.
func replaceFile(path string, data []byte) error {
	mode := fs.FileMode(0o600)
	info, err := os.Stat(path)
	if err == nil {
		mode = info.Mode().Perm()
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+strings.TrimPrefix(filepath.Base(path), ".")+".*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(data)
	if err == nil {
		err = tmp.Chmod(mode)
	}
	if err == nil && info != nil {
		err = keepOwner(tmp, info)
	}
	if err == nil {
		err = tmp.Sync()
	}
	if closeErr := tmp.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return err
	}
	return os.Rename(tmp.Name(), path)
}
