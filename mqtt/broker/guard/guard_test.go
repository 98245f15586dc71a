package guard

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"
	"pgregory.net/rapid"

	"gateway/mqtt"
	"gateway/mqtt/broker"
)

func file(t testing.TB, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestPasswords(t *testing.T) {
	quick, err := bcrypt.GenerateFromPassword([]byte("bobs"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	p, err := OpenPasswords(file(t, "users", "# users\n\nalice:"+Hash([]byte("alices"))+"\nbob:"+string(quick)+"\n"), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		user, password string
		want           bool
	}{
		{"alice", "alices", true},
		{"alice", "alices", true}, // remembered
		{"alice", "bobs", false},
		{"alice", "", false},
		{"bob", "bobs", true},
		{"bob", "bobs ", false},
		{"carol", "alices", false},
	} {
		if got, err := p.Check(t.Context(), c.user, []byte(c.password)); got != c.want || err != nil {
			t.Errorf("%s with %q: %t, %v", c.user, c.password, got, err)
		}
	}
}

// A password file of Mosquitto's can be moved as it is: these two were made by mosquitto_passwd 2.0.11, the second with -H sha512.
func TestPasswordsOfMosquitto(t *testing.T) {
	p, err := OpenPasswords(file(t, "users", `alice:$7$101$2E0wfsi1XpkTZjUP$COWYAAES4HBR+pDWT1eVTdEoBTHb8EL1c8r36/lUfu88ljH7DY+eAhdkMv2O2erod5tkm41tBxBW1aF2RfFdLg==
bob:$6$cYahefo2My+V+Qiw$ukDwwIyuGNGWyn0WmOYVHOPM9nxyOMTb3EPzTgRo8sxAyYqrvk+qqcei9ZaKy/53fzR93PqnS78S0xa9VPekMA==
`), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, user := range []string{"alice", "bob"} {
		for password, want := range map[string]bool{"secret": true, "Secret": false, "": false} {
			if got, err := p.Check(t.Context(), user, []byte(password)); got != want || err != nil {
				t.Errorf("%s with %q: %t, %v", user, password, got, err)
			}
		}
	}
}

func TestPasswordsAreReadAgain(t *testing.T) {
	path := file(t, "users", "alice:"+Hash([]byte("old"))+"\n")
	p, err := OpenPasswords(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	check := func(password string) bool {
		p.file.mu.Lock()
		p.file.looked = time.Time{} // as if a second had passed
		p.file.mu.Unlock()
		ok, err := p.Check(t.Context(), "alice", []byte(password))
		if err != nil {
			t.Error(err)
		}
		return ok
	}
	if !check("old") {
		t.Fatal("the password is not taken")
	}
	data, _, err := Set([]byte("bob:"+Hash([]byte("x"))+"\n"), "alice", Hash([]byte("new")))
	if err != nil {
		t.Fatal(err)
	}
	os.WriteFile(path, data, 0o600)
	if check("old") || !check("new") {
		t.Error("a changed file is not read again, or what was remembered counts on")
	}
	os.WriteFile(path, []byte("damaged"), 0o600)
	if !check("new") {
		t.Error("a damaged file locks everybody out")
	}
}

func TestPasswordFilesThatCannotBeUsed(t *testing.T) {
	good := Hash([]byte("x"))
	for content, want := range map[string]string{
		"alice\n":                     "line 1: is not name:hash",
		":" + good:                    "line 1: is not name:hash",
		"a:plaintext\n":               "neither argon2id nor bcrypt",
		"a:$7$101$x$y":                "damaged",
		"a:$7$101$c2FsdHNhbHRzYWx0":   "not a whole hash",
		"a:$7$0$c2FsdHNhbHQ=$eA==":    `"0" is not 1 to 1000000`,
		"a:$7$9999999$c2FsdA==$eA==":  `"9999999" is not 1 to 1000000`,
		"a:$6$":                       "not a whole hash",
		"a:$6$c2FsdHNhbHQ=$":          "damaged",
		"a:$6$101$c2FsdHNhbHQ=$eA==":  "not a whole hash",
		"a:" + good + "\n\na:" + good: `line 3: user "a" is there twice`,
		"a:$argon2id$v=19$m=9999999,t=2,p=1$c2FsdHNhbHRzYWx0$c2FsdHNhbHRzYWx0c2FsdA": "out of bounds",
		"a:$argon2id$v=19$m=1024,t=2,p=1$!$c2FsdHNhbHRzYWx0c2FsdA":                   "damaged",
		"a:$argon2id$v=16$x": "version 19",
		"a:$2b$x":            "",
	} {
		if _, err := OpenPasswords(file(t, "users", content), nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", content, err, want)
		}
	}
}

func TestCheckingPasswordsIsBounded(t *testing.T) {
	p, err := OpenPasswords(file(t, "users", ""), nil)
	if err != nil {
		t.Fatal(err)
	}
	for range hashesAtOnce {
		p.turns <- struct{}{}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := p.Check(ctx, "x", nil); !errors.Is(err, context.Canceled) {
		t.Errorf("with all turns taken: %v", err)
	}
}

const aclText = `
topic read public/#

user alice
topic readwrite plant/#
topic deny plant/secret/#
topic a b/c

client panel-7
topic write panel/state

all
topic read news
pattern readwrite home/%u/#
pattern write devices/%c/+
`

func TestACL(t *testing.T) {
	acl, err := OpenACL(file(t, "acl", aclText), nil)
	if err != nil {
		t.Fatal(err)
	}
	const P, S, R = broker.Publish, broker.Subscribe, broker.Receive
	for _, c := range []struct {
		user, id string
		access   broker.Access
		topic    string
		want     bool
	}{
		{"", "x", R, "public/a", true},
		{"", "x", P, "public/a", false},
		{"", "x", S, "public/#", true},
		{"", "x", S, "#", true}, // what it may not have is not sent
		{"", "x", R, "plant/a", false},
		{"", "x", S, "plant/#", false},
		{"alice", "x", R, "public/a", false}, // is not anonymous
		{"alice", "x", P, "plant/a/b", true},
		{"alice", "x", P, "plant", true},
		{"alice", "x", P, "plant/secret/a", false},
		{"alice", "x", R, "plant/secret", false},
		{"alice", "x", S, "plant/secret/+", false},
		{"alice", "x", S, "plant/+/a", true},
		{"alice", "x", P, "a b/c", true}, // a filter with a space
		{"bob", "x", P, "plant/a", false},
		{"bob", "panel-7", P, "panel/state", true},
		{"bob", "panel-7", R, "panel/state", false},
		{"bob", "panel-8", P, "panel/state", false},
		{"bob", "x", R, "news", true},
		{"", "x", R, "news", true},
		{"bob", "x", P, "home/bob/light", true},
		{"bob", "x", P, "home/alice/light", false},
		{"", "x", P, "home//light", false}, // no name
		{"+", "x", S, "home/alice/light", false},
		{"a/b", "x", P, "home/a/b/light", false},
		{"bob", "d1", P, "devices/d1/t", true},
		{"bob", "d1", P, "devices/d2/t", false},
		{"bob", "d1", R, "devices/d1/t", false},
	} {
		client := &broker.Client{ID: c.id, Username: c.user}
		if got := acl.Allow(client, c.access, c.topic); got != c.want {
			t.Errorf("user %q, client %q, access %d, %s: %t", c.user, c.id, c.access, c.topic, got)
		}
	}
	if acl.Changed() {
		t.Error("it says that it has changed")
	}
}

func TestACLsThatCannotBeUsed(t *testing.T) {
	for content, want := range map[string]string{
		"user":               "line 1: user has no name",
		"\nclient ":          "line 2: client has no identifier",
		"all x":              "nothing can follow all",
		"topics a":           `"topics" is not one of`,
		"topic read a/#/b":   "# must be the whole of the last level",
		"topic":              "is empty",
		"pattern write a+/b": "+ must be the whole of a level",
	} {
		if _, err := OpenACL(file(t, "acl", content), nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", content, err, want)
		}
	}
}

func TestOverlapAndCover(t *testing.T) {
	level := rapid.SampledFrom([]string{"a", "b", "+", "#", ""})
	name := rapid.SampledFrom([]string{"a", "b", ""})
	join := func(l []string) string { return strings.Join(l, "/") }
	filters := rapid.Map(rapid.SliceOfN(level, 1, 4), join).Filter(mqtt.ValidTopicFilter)
	names := rapid.Map(rapid.SliceOfN(name, 1, 4), join).Filter(mqtt.ValidTopicName)
	rapid.Check(t, func(t *rapid.T) {
		a, b, n := filters.Draw(t, "a"), filters.Draw(t, "b"), names.Draw(t, "name")
		ma, mb := mqtt.Match(a, n), mqtt.Match(b, n)
		if ma && mb && !overlap(a, b) {
			t.Fatalf("%q matches both %q and %q, which are said not to overlap", n, a, b)
		}
		if mb && !ma && covers(a, b) {
			t.Fatalf("%q matches %q and not %q, which is said to cover it", n, b, a)
		}
		if !covers(a, a) || !overlap(a, a) {
			t.Fatalf("%q does not cover itself", a)
		}
	})
}

// certs makes a CA and what it signs.
type certs struct {
	t   testing.TB
	ca  *x509.Certificate
	key *ecdsa.PrivateKey
	n   int64
}

func newCerts(t testing.TB) *certs {
	c := &certs{t: t, n: 1}
	c.key = newKey(t)
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test CA"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, SubjectKeyId: []byte{1}}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &c.key.PublicKey, c.key)
	if err != nil {
		t.Fatal(err)
	}
	c.ca, _ = x509.ParseCertificate(der)
	return c
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func (c *certs) sign(name string) (tls.Certificate, *x509.Certificate) {
	c.n++
	key := newKey(c.t)
	uri, _ := url.Parse("urn:user:" + name)
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(c.n), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		DNSNames: []string{"localhost"}, URIs: []*url.URL{uri}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, c.ca, &key.PublicKey, c.key)
	if err != nil {
		c.t.Fatal(err)
	}
	leaf, _ := x509.ParseCertificate(der)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, leaf
}

func pemOf(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

func (c *certs) crl(serials ...*big.Int) string {
	list := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: time.Now().Add(-time.Hour), NextUpdate: time.Now().Add(time.Hour)}
	for _, s := range serials {
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: s, RevocationTime: time.Now()})
	}
	der, err := x509.CreateRevocationList(rand.Reader, list, c.ca, c.key)
	if err != nil {
		c.t.Fatal(err)
	}
	return pemOf("X509 CRL", der)
}

func TestClientCertificates(t *testing.T) {
	ca := newCerts(t)
	server, _ := ca.sign("broker")
	key, err := x509.MarshalECPrivateKey(server.PrivateKey.(*ecdsa.PrivateKey))
	if err != nil {
		t.Fatal(err)
	}
	alice, _ := ca.sign("alice")
	mallory, revoked := ca.sign("mallory")
	stranger, _ := newCerts(t).sign("alice")
	conf, err := TLS(TLSFiles{
		Certificate: file(t, "cert", pemOf("CERTIFICATE", server.Certificate[0])),
		Key:         file(t, "key", pemOf("EC PRIVATE KEY", key)),
		CA:          file(t, "ca", pemOf("CERTIFICATE", ca.ca.Raw)),
		CRL:         file(t, "crl", ca.crl(revoked.SerialNumber)),
		Require:     true,
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(ca.ca)
	shake := func(certs ...tls.Certificate) (*x509.Certificate, error) {
		near, far := net.Pipe()
		defer near.Close()
		defer far.Close()
		client := tls.Client(near, &tls.Config{RootCAs: pool, ServerName: "localhost", Certificates: certs})
		go func() {
			client.Handshake()
			client.Read(make([]byte, 1))
		}()
		s := tls.Server(far, conf)
		if err := s.Handshake(); err != nil {
			return nil, err
		}
		return s.ConnectionState().VerifiedChains[0][0], nil
	}
	leaf, err := shake(alice)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := shake(); err == nil {
		t.Error("a client without a certificate is let in")
	}
	if _, err := shake(stranger); err == nil {
		t.Error("a certificate of another CA is taken")
	}
	if _, err := shake(mallory); err == nil || !strings.Contains(err.Error(), "revoked") {
		t.Errorf("a revoked certificate: %v", err)
	}

	for cert, want := range map[CertName]string{CommonName: "alice", SubjectName: "urn:user:alice"} {
		u := &Users{Cert: cert}
		c := &broker.Client{Certificate: leaf}
		if got, err := u.Authenticate(t.Context(), c, "", nil); got != want || err != nil {
			t.Errorf("user %q, %v, want %q", got, err, want)
		}
		if _, err := u.Authenticate(t.Context(), c, "bob", nil); err == nil {
			t.Error("a certificate of alice lets bob in")
		}
		if _, err := u.Authenticate(t.Context(), &broker.Client{}, "alice", []byte("x")); err == nil {
			t.Error("without a certificate and without passwords somebody is let in")
		}
	}
}

func TestTLSFilesThatCannotBeUsed(t *testing.T) {
	ca, other := newCerts(t), newCerts(t)
	server, _ := ca.sign("broker")
	key, _ := x509.MarshalECPrivateKey(server.PrivateKey.(*ecdsa.PrivateKey))
	f := TLSFiles{Certificate: file(t, "c", pemOf("CERTIFICATE", server.Certificate[0])), Key: file(t, "k", pemOf("EC PRIVATE KEY", key))}
	for want, edit := range map[string]func(f *TLSFiles){
		"need a CA":             func(f *TLSFiles) { f.Require = true },
		"no certificate in PEM": func(f *TLSFiles) { f.CA = file(t, "ca", "nothing") },
		"signed by none of the CAs": func(f *TLSFiles) {
			f.CA = file(t, "ca", pemOf("CERTIFICATE", ca.ca.Raw))
			f.CRL = file(t, "crl", other.crl())
		},
		"no revocation list": func(f *TLSFiles) { f.CA = file(t, "ca", pemOf("CERTIFICATE", ca.ca.Raw)); f.CRL = file(t, "crl", "") },
		"no such file":       func(f *TLSFiles) { f.Certificate = "/nonexistent" },
		"private key does not match": func(f *TLSFiles) {
			k, _ := x509.MarshalECPrivateKey(newKey(t))
			f.Key = file(t, "k", pemOf("EC PRIVATE KEY", k))
		},
	} {
		g := f
		edit(&g)
		if _, err := TLS(g, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

func TestSet(t *testing.T) {
	const before = "# kept\nalice:old\n\nbob:x"
	out, found, err := Set([]byte(before), "alice", "new")
	if err != nil || !found || string(out) != "# kept\nalice:new\n\nbob:x\n" {
		t.Errorf("%q, %t, %v", out, found, err)
	}
	out, found, err = Set([]byte(before), "alice", "")
	if err != nil || !found || string(out) != "# kept\n\nbob:x\n" {
		t.Errorf("%q, %t, %v", out, found, err)
	}
	out, found, err = Set(nil, "carol", "new")
	if err != nil || found || string(out) != "carol:new\n" {
		t.Errorf("%q, %t, %v", out, found, err)
	}
	for _, user := range []string{"", "a:b", "#x", "a\nb"} {
		if _, _, err := Set(nil, user, "x"); err == nil {
			t.Errorf("user name %q is taken", user)
		}
	}
}
