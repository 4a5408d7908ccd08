package app

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"

	"postern/internal/ca"
	"postern/internal/fail"
	"postern/internal/secret"
)

// authority is the local certificate authority. Its key lies in the safe, its
// certificate beside it as a plain file.
func (a *App) authority(ctx context.Context) (*ca.CA, error) {
	value, err := a.internal(ctx, "ca", func() ([]byte, error) {
		made, err := ca.Generate(a.o.Now())
		if err != nil {
			return nil, err
		}
		cert, key := made.PEM()
		err = key.Reveal(func(b []byte) error {
			cert = append(cert, b...)
			return nil
		})
		return cert, err
	})
	if err != nil {
		return nil, err
	}
	var authority *ca.CA
	err = value.Reveal(func(b []byte) error {
		block, key := pem.Decode(b)
		if block == nil {
			return errors.New("the authority in the safe is damaged")
		}
		authority, err = ca.Open(pem.EncodeToMemory(block), secret.New(key))
		return err
	})
	if err != nil {
		return nil, err
	}
	return authority, a.publish(a.Paths.CACert(), authority.CertPEM())
}

// publish keeps a file that everybody may read as it should be.
func (a *App) publish(path string, want []byte) error {
	if have, err := os.ReadFile(path); err == nil && bytes.Equal(have, want) {
		return nil
	}
	return replaceFile(path, want, 0o644)
}

// upstreamRoots are the roots that providers are checked against: the system's
// and those of upstream.ca_file.
func (a *App) upstreamRoots() (*x509.CertPool, error) {
	extra, err := a.Config.Upstream.RootsPEM()
	if err != nil {
		return nil, err
	}
	if extra == nil {
		return nil, nil
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	if !pool.AppendCertsFromPEM(extra) {
		return nil, fail.New(fail.Invalid, "P-E017", "upstream.ca_file holds no certificate").Because("%s was read", a.Config.Upstream.CAFile)
	}
	return pool, nil
}
