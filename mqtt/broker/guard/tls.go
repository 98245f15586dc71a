package guard

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"os"
)

// TLSFiles are the files of a TLS listener, in PEM.
type TLSFiles struct {
	Certificate, Key string // the server's, with the chain; read again when they change
	CA               string // who signs clients' certificates; empty: none are asked for
	CRL              string // certificate revocation lists of those CAs; empty: none; read again when it changes
	Require          bool   // clients must show a certificate
}

// TLS makes the configuration of a listener: TLS 1.2 and 1.3.
func TLS(f TLSFiles, log *slog.Logger) (*tls.Config, error) {
	own, err := watch(f.Certificate, log, func([]byte) (*tls.Certificate, error) {
		c, err := tls.LoadX509KeyPair(f.Certificate, f.Key)
		return &c, err
	})
	if err != nil {
		return nil, err
	}
	c := &tls.Config{
		MinVersion:     tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return own.get(), nil },
	}
	if f.CA == "" {
		if f.Require || f.CRL != "" {
			return nil, errors.New("guard: client certificates need a CA file to be checked with")
		}
		return c, nil
	}
	data, err := os.ReadFile(f.CA)
	if err != nil {
		return nil, fmt.Errorf("guard: %w", err)
	}
	cas, err := certificates(data)
	if err != nil {
		return nil, fmt.Errorf("guard: %s: %w", f.CA, err)
	}
	c.ClientCAs = x509.NewCertPool()
	for _, ca := range cas {
		c.ClientCAs.AddCert(ca)
	}
	c.ClientAuth = tls.VerifyClientCertIfGiven
	if f.Require {
		c.ClientAuth = tls.RequireAndVerifyClientCert
	}
	if f.CRL != "" {
		lists, err := watch(f.CRL, log, func(data []byte) (*revoked, error) { return parseCRLs(data, cas) })
		if err != nil {
			return nil, err
		}
		// Called for resumed sessions, too.
		c.VerifyConnection = func(s tls.ConnectionState) error { return lists.get().check(s.VerifiedChains) }
	}
	return c, nil
}

func certificates(data []byte) ([]*x509.Certificate, error) {
	var list []*x509.Certificate
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		list = append(list, c)
	}
	if len(list) == 0 {
		return nil, errors.New("holds no certificate in PEM")
	}
	return list, nil
}

// revoked are certificates by issuer (its raw name) and serial number.
type revoked struct {
	serials map[string]map[string]bool
}

func parseCRLs(data []byte, cas []*x509.Certificate) (*revoked, error) {
	r := &revoked{serials: make(map[string]map[string]bool)}
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			break
		}
		if block.Type != "X509 CRL" {
			continue
		}
		list, err := x509.ParseRevocationList(block.Bytes)
		if err != nil {
			return nil, err
		}
		signed := false
		for _, ca := range cas {
			signed = signed || list.CheckSignatureFrom(ca) == nil
		}
		if !signed {
			return nil, fmt.Errorf("the revocation list of %q is signed by none of the CAs", list.Issuer)
		}
		issuer := string(list.RawIssuer)
		if r.serials[issuer] == nil {
			r.serials[issuer] = make(map[string]bool)
		}
		for _, e := range list.RevokedCertificateEntries {
			r.serials[issuer][e.SerialNumber.String()] = true
		}
	}
	if len(r.serials) == 0 {
		return nil, errors.New("holds no revocation list in PEM")
	}
	return r, nil
}

// check refuses a certificate that is revoked. A list that is out of date still counts: a machine
// without a clock, or long offline, must not lock everybody out.
func (r *revoked) check(chains [][]*x509.Certificate) error {
	for _, chain := range chains {
		for _, c := range chain {
			if r.serials[string(c.RawIssuer)][c.SerialNumber.String()] {
				return fmt.Errorf("guard: certificate %s of %q is revoked", c.SerialNumber, c.Subject.CommonName)
			}
		}
	}
	return nil
}
