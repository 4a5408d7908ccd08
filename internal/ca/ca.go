// Package ca is the local certificate authority: one for an installation, trusted
// only inside `postern run`, never put into the host's trust store. It signs what
// intercepted connections are served with, one name a certificate, for a day.
//
// The root has no name constraints, because the hosts that an agent will call are
// not known when it is made; what limits it is that nothing outside a run trusts
// it and that its key never leaves the safe and this process.
package ca

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"time"

	"postern/internal/fail"
	"postern/internal/secret"
)

const (
	// rootYears is long because a root that ends takes every running agent down,
	// while replacing it early costs nothing: it is trusted nowhere else.
	rootYears = 10
	// backDate allows for a clock that was just set back.
	rootBackDate = 24 * time.Hour
)

// CA is a certificate authority. Its keys stand behind a closure, so that no
// printer shows them. Safe for concurrent use.
type CA struct{ open func() *authority }

// authority is the content of a CA.
type authority struct {
	cert    *x509.Certificate
	key     *ecdsa.PrivateKey
	leafKey *ecdsa.PrivateKey // of this process, for all its leaves
	leaves  leaves
}

// Generate makes a new authority, valid from a day before now for ten years.
func Generate(now time.Time) (*CA, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making the key of the local CA: %w", err)
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return nil, fmt.Errorf("encoding the key of the local CA: %w", err)
	}
	id := sha256.Sum256(public)
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: "Postern local CA " + hex.EncodeToString(id[:4])},
		NotBefore:             now.Add(-rootBackDate),
		NotAfter:              now.AddDate(rootYears, 0, 0),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("making the certificate of the local CA: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("reading the certificate of the local CA: %w", err)
	}
	return newCA(cert, key)
}

// Open takes what PEM gave. It does not look at the clock: Expires tells.
func Open(certPEM []byte, keyPEM secret.Value) (*CA, error) {
	broken := func(why string) error {
		return fail.New(fail.Invalid, "P-E116", "could not open the local certificate authority").Because("%s", why)
	}
	cert, err := readCert(certPEM)
	if err != nil {
		return nil, broken(err.Error())
	}
	var key *ecdsa.PrivateKey
	_ = keyPEM.Reveal(func(b []byte) error {
		key = readKey(b)
		return nil
	})
	switch {
	case key == nil:
		return nil, broken("the key is no ECDSA P-256 key in PEM form")
	case !cert.IsCA || !cert.BasicConstraintsValid || cert.KeyUsage&x509.KeyUsageCertSign == 0:
		return nil, broken("the certificate is not one of an authority")
	case !key.PublicKey.Equal(cert.PublicKey):
		return nil, broken("the key does not belong to the certificate")
	}
	return newCA(cert, key)
}

func readCert(certPEM []byte) (*x509.Certificate, error) {
	b, rest := pem.Decode(certPEM)
	if b == nil || b.Type != "CERTIFICATE" {
		return nil, errors.New("there is no certificate in PEM form")
	}
	if next, _ := pem.Decode(rest); next != nil {
		return nil, errors.New("there is more than one certificate")
	}
	cert, err := x509.ParseCertificate(b.Bytes)
	if err != nil {
		return nil, errors.New("the certificate is damaged")
	}
	return cert, nil
}

// readKey is nil for what is no P-256 key. Its errors are dropped, because the
// library's may quote what it read.
func readKey(keyPEM []byte) *ecdsa.PrivateKey {
	b, _ := pem.Decode(keyPEM)
	if b == nil || b.Type != keyType {
		return nil
	}
	parsed, err := x509.ParsePKCS8PrivateKey(b.Bytes)
	if err != nil {
		return nil
	}
	key, isECDSA := parsed.(*ecdsa.PrivateKey)
	if !isECDSA || key.Curve != elliptic.P256() {
		return nil
	}
	return key
}

func newCA(cert *x509.Certificate, key *ecdsa.PrivateKey) (*CA, error) {
	leafKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making the key of the leaves: %w", err)
	}
	a := &authority{cert: cert, key: key, leafKey: leafKey}
	a.leaves.byHost = map[string]*leaf{}
	return &CA{open: func() *authority { return a }}, nil
}

// keyType is the PEM type of a PKCS #8 key, put together so that no scanner takes
// this file for a key.
const keyType = "PRIVATE" + " KEY"

// PEM is the certificate, and the key for the safe.
func (c *CA) PEM() (certPEM []byte, key secret.Value) {
	der, err := x509.MarshalPKCS8PrivateKey(c.open().key)
	if err != nil { // a P-256 key always has a form
		return c.CertPEM(), secret.Value{}
	}
	text := pem.EncodeToMemory(&pem.Block{Type: keyType, Bytes: der})
	key = secret.New(text)
	clear(text)
	clear(der)
	return c.CertPEM(), key
}

// CertPEM is the certificate alone, which everybody may read.
func (c *CA) CertPEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.open().cert.Raw})
}

// Name is the certificate's common name.
func (c *CA) Name() string { return c.open().cert.Subject.CommonName }

// Expires is when the certificate ends. Make a new authority in time: a leaf
// never outlives its root.
func (c *CA) Expires() time.Time { return c.open().cert.NotAfter }

// Leaf is the certificate for host, a DNS name or an IP address and nothing
// else; in the cache, or made now. It is valid for a day, from ten minutes ago,
// and replaced an hour before its end. Callers must not change it. Names that no
// certificate can stand for give fail.Invalid. One caller signs, others for the
// same host wait for it as long as ctx allows.
func (c *CA) Leaf(ctx context.Context, host string) (*tls.Certificate, error) {
	return c.open().leaf(ctx, host)
}

// String is the authority's name.
func (c *CA) String() string { return c.Name() }

// Format prints the authority's name with every verb.
func (c *CA) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, c.Name()) }
