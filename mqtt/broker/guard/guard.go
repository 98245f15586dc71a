// Package guard decides who may use a broker and for what: passwords, client certificates, an access
// control list, and the TLS configuration that certificates come with. Its files are read again when they
// change; a new version that cannot be read is reported and the old one stays in force.
package guard

import (
	"context"
	"crypto/x509"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"gateway/mqtt"
	"gateway/mqtt/broker"
)

// A CertName says which name in a client's certificate is its user name.
type CertName uint8

const (
	NoCertName  CertName = iota // certificates do not name users
	CommonName                  // the subject's common name
	SubjectName                 // the first of: URI, DNS name, e-mail address among the alternative names
)

// Users authenticates clients: by certificate where that names users, otherwise by password.
type Users struct {
	Passwords *Passwords // nil: nobody has one
	Cert      CertName
}

// Authenticate implements broker.Authenticator.
func (u *Users) Authenticate(ctx context.Context, c *broker.Client, username string, password []byte) (string, error) {
	if u.Cert != NoCertName && c.Certificate != nil {
		name := u.Cert.of(c.Certificate)
		if name == "" {
			return "", &mqtt.ReasonError{Op: "connect", Code: mqtt.NotAuthorized, Detail: "the certificate names no user"}
		}
		// Who shows a certificate is who it says, whatever else is claimed.
		if username != "" && username != name {
			return "", &mqtt.ReasonError{Op: "connect", Code: mqtt.BadUserNameOrPassword, Detail: "the user name is not that of the certificate"}
		}
		return name, nil
	}
	if u.Passwords == nil || username == "" {
		return "", &mqtt.ReasonError{Op: "connect", Code: mqtt.NotAuthorized, Detail: "no user name that could be checked"}
	}
	ok, err := u.Passwords.Check(ctx, username, password)
	if err != nil {
		return "", err
	}
	if !ok {
		return "", &mqtt.ReasonError{Op: "connect", Code: mqtt.BadUserNameOrPassword}
	}
	return username, nil
}

func (n CertName) of(c *x509.Certificate) string {
	switch {
	case n == CommonName:
		return c.Subject.CommonName
	case len(c.URIs) > 0:
		return c.URIs[0].String()
	case len(c.DNSNames) > 0:
		return c.DNSNames[0]
	case len(c.EmailAddresses) > 0:
		return c.EmailAddresses[0]
	}
	return ""
}

// A watched is what a file says, read again when the file changes.
type watched[T any] struct {
	path  string
	parse func(data []byte) (T, error)
	log   *slog.Logger

	mu      sync.Mutex
	value   T
	looked  time.Time
	mtime   time.Time
	size    int64
	version int // counts the times it was read
}

// lookEvery is how often a file is looked at, at most.
const lookEvery = time.Second

func watch[T any](path string, log *slog.Logger, parse func([]byte) (T, error)) (*watched[T], error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	w := &watched[T]{path: path, parse: parse, log: log}
	if err := w.read(); err != nil {
		return nil, err
	}
	w.looked = time.Now()
	return w, nil
}

func (w *watched[T]) read() error {
	info, err := os.Stat(w.path)
	if err != nil {
		return fmt.Errorf("guard: %w", err)
	}
	w.mtime, w.size = info.ModTime(), info.Size()
	data, err := os.ReadFile(w.path)
	if err != nil {
		return fmt.Errorf("guard: %w", err)
	}
	v, err := w.parse(data)
	if err != nil {
		return fmt.Errorf("guard: %s: %w", w.path, err)
	}
	w.value = v
	w.version++
	return nil
}

// get returns the newest value that could be read.
func (w *watched[T]) get() T {
	w.mu.Lock()
	defer w.mu.Unlock()
	if time.Since(w.looked) < lookEvery {
		return w.value
	}
	w.looked = time.Now()
	info, err := os.Stat(w.path)
	if err != nil || info.ModTime().Equal(w.mtime) && info.Size() == w.size {
		return w.value
	}
	if err := w.read(); err != nil {
		w.log.Error("a changed file cannot be used; what it said before stays in force", "err", err)
		return w.value
	}
	w.log.Info("read again", "file", w.path)
	return w.value
}
