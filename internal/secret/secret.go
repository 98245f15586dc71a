// Package secret finds and reads the files and variables that hold passwords and keys. They never stand in the
// configuration, and never pass through a log: errors of this package name places, not contents.
package secret

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// Credential is the name under which the unit hands the directory of credentials to the service
// (LoadCredential=credentials:/etc/gateway/credentials); systemd puts it before each file's name.
const Credential = "credentials"

// maxSize bounds what is read: the largest key and chain of certificates is far below it.
const maxSize = 1 << 20

// Path returns where the file is that a configuration names.
//
// A name without a directory is a credential: what the service manager loaded for the service, by
// systemd.exec(5) in $CREDENTIALS_DIRECTORY, or else the file of that name in the directory
// "credentials" beside the configuration. Any other path is taken as it is, a relative one from the
// configuration's directory. getenv is os.Getenv outside of tests.
func Path(name, configFile string, getenv func(string) string) string {
	if name == "" || filepath.IsAbs(name) {
		return name
	}
	dir := filepath.Dir(configFile)
	if abs, err := filepath.Abs(dir); err == nil {
		dir = abs // an error that names the file says where it is
	}
	if filepath.Base(name) != name {
		return filepath.Join(dir, name)
	}
	if loaded := getenv("CREDENTIALS_DIRECTORY"); loaded != "" {
		for _, n := range []string{Credential + "_" + name, name} {
			if p := filepath.Join(loaded, n); exists(p) {
				return p
			}
		}
	}
	return filepath.Join(dir, "credentials", name)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// Read reads the file that Path finds. One line break at the end, which editors and echo leave
// behind, is no part of a password.
func Read(name, configFile string, getenv func(string) string) ([]byte, error) {
	f, err := os.Open(Path(name, configFile, getenv))
	if err != nil {
		return nil, fmt.Errorf("secret: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	if err != nil {
		return nil, fmt.Errorf("secret: %w", err)
	}
	if len(b) > maxSize {
		return nil, fmt.Errorf("secret: %s is larger than %d bytes; is it the right file?", f.Name(), maxSize)
	}
	s := strings.TrimSuffix(string(b), "\n")
	return []byte(strings.TrimSuffix(s, "\r")), nil
}

// Variable reads a secret from the environment, as containers are given theirs. Processes of the same user can see
// it there, which a file can prevent. lookup is os.LookupEnv outside of tests.
func Variable(name string, lookup func(string) (string, bool)) ([]byte, error) {
	v, set := lookup(name)
	switch {
	case !set:
		return nil, fmt.Errorf("secret: the environment has no variable %s; set it for the process, or use a file", name)
	case v == "":
		return nil, fmt.Errorf("secret: the variable %s of the environment is empty", name)
	}
	return []byte(v), nil
}
