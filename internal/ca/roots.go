package ca

import (
	"bytes"
	"encoding/pem"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"

	"postern/internal/fail"
)

// maxBundle bounds what is read; distributions' bundles have about 200 KB.
const maxBundle = 16 << 20

// bundleFiles are where distributions keep their bundle. Source: crypto/x509,
// root_linux.go of Go 1.26, and OpenSSL's own default file on Debian.
func bundleFiles() []string {
	return []string{
		"/etc/ssl/certs/ca-certificates.crt",                // Debian, Ubuntu, Gentoo
		"/etc/pki/tls/certs/ca-bundle.crt",                  // Fedora, RHEL 6
		"/etc/ssl/ca-bundle.pem",                            // openSUSE
		"/etc/pki/tls/cacert.pem",                           // OpenELEC
		"/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", // CentOS, RHEL 7
		"/etc/ssl/cert.pem",                                 // Alpine
		"/usr/lib/ssl/cert.pem",                             // OpenSSL on Debian
	}
}

// SystemRoots is the distribution's bundle of public roots in PEM form.
// SSL_CERT_FILE and SSL_CERT_DIR are ignored: whoever sets the environment must
// not choose whom the broker trusts.
func SystemRoots() ([]byte, error) {
	for _, path := range SystemPaths() {
		if roots, err := readBundle(path); err == nil {
			return roots, nil
		}
	}
	return nil, fail.New(fail.NotFound, "P-E117", "could not find the public root certificates of this system").
		Because("none of the usual files exists").
		Hint("apt-get install ca-certificates   or your distribution's package of that name")
}

// SystemPaths are the files of this system that hold the bundle, links resolved
// and each once: what has to be covered where another bundle shall be trusted.
func SystemPaths() []string { return existing(bundleFiles()) }

func existing(files []string) []string {
	var paths []string
	for _, file := range files {
		path, err := filepath.EvalSymlinks(file)
		if err != nil || slices.Contains(paths, path) {
			continue
		}
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			paths = append(paths, path)
		}
	}
	return paths
}

func readBundle(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	roots, err := io.ReadAll(io.LimitReader(file, maxBundle+1))
	if err != nil {
		return nil, err
	}
	if len(roots) > maxBundle {
		return nil, errors.New("the bundle is too large")
	}
	if first, _ := pem.Decode(roots); first == nil || first.Type != "CERTIFICATE" {
		return nil, errors.New("no certificate in the bundle")
	}
	return roots, nil
}

// Bundle is system with our certificate behind it, once.
func (c *CA) Bundle(system []byte) []byte {
	own := c.CertPEM()
	if bytes.Contains(system, own) {
		return slices.Clone(system)
	}
	bundle := make([]byte, 0, len(system)+len(own)+1)
	bundle = append(bundle, system...)
	if len(bundle) > 0 && bundle[len(bundle)-1] != '\n' {
		bundle = append(bundle, '\n')
	}
	return append(bundle, own...)
}
