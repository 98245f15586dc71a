package guard

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/bcrypt"
)

// Passwords is a password file: a line for each user, the name and the hash with a colon between
// them; empty lines and those that begin with # do not count.
//
//	alice:$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHRzYWx0c2FsdA$…
//	bob:$2b$10$…
//
// Hashes are argon2id in the form of the PHC string format, bcrypt, or what mosquitto_passwd makes.
type Passwords struct {
	file *watched[map[string]string]
	// Hashing takes tens of milliseconds and megabytes on purpose; strangers must not make the machine do
	// nothing else.
	turns chan struct{}

	mu    sync.Mutex
	key   [32]byte
	known map[string][32]byte // by user and hash: the keyed digest of the password that was right
}

// hashesAtOnce is how many passwords are checked at a time.
const hashesAtOnce = 2

// maxKnown bounds what is remembered.
const maxKnown = 10_000

// OpenPasswords reads a password file.
func OpenPasswords(path string, log *slog.Logger) (*Passwords, error) {
	file, err := watch(path, log, parsePasswords)
	if err != nil {
		return nil, err
	}
	p := &Passwords{file: file, turns: make(chan struct{}, hashesAtOnce)}
	rand.Read(p.key[:])
	return p, nil
}

func parsePasswords(data []byte) (map[string]string, error) {
	users := make(map[string]string)
	for i, line := range strings.Split(string(data), "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		name, hash, found := strings.Cut(line, ":")
		switch {
		case !found || name == "":
			return nil, fmt.Errorf("line %d: is not name:hash", i+1)
		case users[name] != "":
			return nil, fmt.Errorf("line %d: user %q is there twice", i+1, name)
		}
		if err := checkHash(hash); err != nil {
			return nil, fmt.Errorf("line %d: user %q: %w", i+1, name, err)
		}
		users[name] = hash
	}
	return users, nil
}

// Check tells whether a password is the user's. It waits for its turn and fails when ctx ends before.
func (p *Passwords) Check(ctx context.Context, user string, password []byte) (bool, error) {
	users := p.file.get()
	hash, found := users[user]
	mac := hmac.New(sha256.New, p.key[:])
	mac.Write(password)
	digest := [32]byte(mac.Sum(nil))
	p.mu.Lock()
	right, remembered := p.known[user+":"+hash]
	p.mu.Unlock()
	if found && remembered && subtle.ConstantTimeCompare(right[:], digest[:]) == 1 {
		return true, nil
	}
	select {
	case p.turns <- struct{}{}:
		defer func() { <-p.turns }()
	case <-ctx.Done():
		return false, fmt.Errorf("guard: too many passwords to check: %w", ctx.Err())
	}
	if !found || !matches(hash, password) {
		if !found || isMosquitto(hash) {
			// As long as for one who is there and has a hash of ours, so that the time does not tell.
			argon2.IDKey(password, make([]byte, saltBytes), argonTime, argonMemory, argonThreads, keyBytes)
		}
		return false, nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.known == nil || len(p.known) >= maxKnown {
		p.known = make(map[string][32]byte)
	}
	p.known[user+":"+hash] = digest
	return true, nil
}

// The parameters of new hashes: those that OWASP's password storage cheat sheet names first for
// argon2id, which a small ARM machine can bear.
const (
	argonTime    = 2
	argonMemory  = 19 * 1024 // KiB
	argonThreads = 1
	saltBytes    = 16
	keyBytes     = 32

	// What a file may ask for: no more than a small machine has.
	maxArgonMemory = 256 * 1024
	maxArgonTime   = 16
)

// Hash returns the hash of a password for a password file, argon2id.
func Hash(password []byte) string {
	salt := make([]byte, saltBytes)
	rand.Read(salt)
	key := argon2.IDKey(password, salt, argonTime, argonMemory, argonThreads, keyBytes)
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, argonMemory, argonTime, argonThreads,
		base64.RawStdEncoding.EncodeToString(salt), base64.RawStdEncoding.EncodeToString(key))
}

type argonHash struct {
	memory, time uint32
	threads      uint8
	salt, key    []byte
}

func parseArgon(hash string) (h argonHash, err error) {
	parts := strings.Split(hash, "$")
	if len(parts) != 6 || parts[2] != fmt.Sprintf("v=%d", argon2.Version) {
		return h, errors.New("is not an argon2id hash of version 19")
	}
	if _, err := fmt.Sscanf(parts[3], "m=%d,t=%d,p=%d", &h.memory, &h.time, &h.threads); err != nil {
		return h, fmt.Errorf("argon2id parameters %q: %w", parts[3], err)
	}
	if h.memory == 0 || h.memory > maxArgonMemory || h.time == 0 || h.time > maxArgonTime || h.threads == 0 {
		return h, fmt.Errorf("argon2id parameters %q are out of bounds (m up to %d, t up to %d)", parts[3], maxArgonMemory, maxArgonTime)
	}
	if h.salt, err = base64.RawStdEncoding.DecodeString(parts[4]); err == nil {
		h.key, err = base64.RawStdEncoding.DecodeString(parts[5])
	}
	if err != nil || len(h.salt) < 8 || len(h.key) < 16 {
		return h, errors.New("argon2id salt or key is damaged")
	}
	return h, nil
}

func checkHash(hash string) error {
	switch {
	case strings.HasPrefix(hash, "$argon2id$"):
		_, err := parseArgon(hash)
		return err
	case strings.HasPrefix(hash, "$2a$"), strings.HasPrefix(hash, "$2b$"), strings.HasPrefix(hash, "$2y$"):
		_, err := bcrypt.Cost([]byte(hash))
		return err
	case isMosquitto(hash):
		_, err := parseMosquitto(hash)
		return err
	}
	return errors.New("hash is neither argon2id nor bcrypt nor of mosquitto_passwd; make one with gateway passwd")
}

func matches(hash string, password []byte) bool {
	switch {
	case strings.HasPrefix(hash, "$2"):
		return bcrypt.CompareHashAndPassword([]byte(hash), password) == nil
	case isMosquitto(hash):
		h, err := parseMosquitto(hash)
		return err == nil && h.matches(password)
	}
	h, err := parseArgon(hash)
	if err != nil {
		return false
	}
	key := argon2.IDKey(password, h.salt, h.time, h.memory, h.threads, uint32(len(h.key)))
	return subtle.ConstantTimeCompare(key, h.key) == 1
}

// Set returns a password file's content with a user's hash set, or, where hash is empty, without the
// user. Everything else stays as it is. found tells whether the user was there.
func Set(data []byte, user, hash string) (out []byte, found bool, err error) {
	if user == "" || strings.ContainsAny(user, ":\r\n") || user[0] == '#' {
		return nil, false, fmt.Errorf("guard: user name %q: must not be empty, begin with # or hold a colon", user)
	}
	var lines [][]byte
	for line := range bytes.Lines(data) {
		if name, _, ok := bytes.Cut(bytes.TrimSpace(line), []byte(":")); ok && string(name) == user {
			found = true
			if hash != "" {
				lines = append(lines, []byte(user+":"+hash+"\n"))
			}
			continue
		}
		lines = append(lines, bytes.TrimRight(line, "\n"), []byte("\n"))
	}
	if !found && hash != "" {
		lines = append(lines, []byte(user+":"+hash+"\n"))
	}
	return bytes.Join(lines, nil), found, nil
}
