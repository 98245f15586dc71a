package delivery

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"sync"
	"testing"
	"time"

	"gateway/e2e/rig"
	"gateway/mqtt"
	"gateway/mqtt/packet"
)

// An oddBroker answers as no good broker does. It keeps nothing but counts.
type oddBroker struct {
	// connack answers CONNECT; nil: success.
	connack func() packet.Connack
	// publish answers a PUBLISH of QoS 1; an answer of nil ends the connection.
	publish func(p *packet.Publish) *packet.Puback

	l   net.Listener
	all sync.WaitGroup

	mu       sync.Mutex
	conns    map[net.Conn]bool
	attempts int            // CONNECT packets
	acked    map[string]int // by topic: answers of success
	broken   int            // connections ended by publish
}

func (b *oddBroker) start(t *testing.T) *oddBroker {
	t.Helper()
	var err error
	if b.l, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	b.conns, b.acked = map[net.Conn]bool{}, map[string]int{}
	b.all.Go(func() {
		for {
			nc, err := b.l.Accept()
			if err != nil {
				return
			}
			b.mu.Lock()
			b.conns[nc] = true
			b.mu.Unlock()
			b.all.Go(func() { b.serve(nc) })
		}
	})
	t.Cleanup(func() {
		b.l.Close()
		b.mu.Lock()
		for nc := range b.conns {
			nc.Close()
		}
		b.mu.Unlock()
		b.all.Wait()
	})
	return b
}

func (b *oddBroker) url() string { return fmt.Sprintf("mqtt://%s", b.l.Addr()) }

// count reads a counter.
func (b *oddBroker) count(f func() int) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return f()
}

func (b *oddBroker) serve(nc net.Conn) {
	defer func() {
		nc.Close()
		b.mu.Lock()
		delete(b.conns, nc)
		b.mu.Unlock()
	}()
	r := packet.NewReader(nc, 1<<20, nil)
	v := mqtt.V311
	for {
		f, err := r.Next()
		if err != nil {
			return
		}
		var answer packet.Packet
		switch f.Type {
		case packet.CONNECT:
			var p packet.Connect
			if p.Decode(f, v) != nil {
				return
			}
			v = p.Version
			ack := packet.Connack{}
			if b.connack != nil {
				ack = b.connack()
			}
			answer = &ack
			b.mu.Lock()
			b.attempts++
			b.mu.Unlock()
		case packet.PUBLISH:
			var p packet.Publish
			if p.Decode(f, v) != nil {
				return
			}
			if p.QoS == 0 {
				continue
			}
			ack := b.publish(&p)
			b.mu.Lock()
			if ack == nil {
				b.broken++
			} else if !ack.Code.IsError() {
				b.acked[p.Topic]++
			}
			b.mu.Unlock()
			if ack == nil {
				return
			}
			answer = ack
		case packet.PINGREQ:
			answer = &packet.Pingresp{}
		default:
			continue
		}
		buf, err := answer.Append(nil, v)
		if err != nil {
			return
		}
		if _, err := nc.Write(buf); err != nil {
			return
		}
	}
}

// A paper is a certificate with its key, as files.
type paper struct {
	cert              *x509.Certificate
	key               *ecdsa.PrivateKey
	certFile, keyFile string
}

// issue makes a certificate for 127.0.0.1 that by has signed, or an authority where by is nil.
func issue(t *testing.T, by *paper, until time.Time) *paper {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: until}
	p := &paper{key: key}
	parent, signer := tmpl, key
	if by == nil {
		tmpl.Subject, tmpl.IsCA, tmpl.BasicConstraintsValid, tmpl.KeyUsage = pkix.Name{CommonName: "an authority of the test"}, true, true, x509.KeyUsageCertSign
	} else {
		tmpl.Subject, tmpl.IPAddresses = pkix.Name{CommonName: "127.0.0.1"}, []net.IP{net.IPv4(127, 0, 0, 1)}
		parent, signer = by.cert, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	if p.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	k, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	p.certFile = rig.Write(t, dir, "cert.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	p.keyFile = rig.Write(t, dir, "key.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: k})))
	return p
}
