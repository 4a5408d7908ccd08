package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/http"
	"os"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/elazarl/goproxy"
)

// serveGoproxy is the peer goproxy, as a program of its own: args are the address,
// the file of the roots and the file of the real key.
func serveGoproxy(args []string) error {
	if len(args) != 3 {
		return errors.New("usage: goproxy ADDR CA KEYFILE")
	}
	pem, err := os.ReadFile(args[1])
	if err != nil {
		return err
	}
	key, err := os.ReadFile(args[2])
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	p := goproxy.NewProxyHttpServer()
	p.Tr = &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, MaxIdleConnsPerHost: 256}
	p.CertStore = &certStore{held: map[string]*tls.Certificate{}}
	p.OnRequest().HandleConnect(goproxy.AlwaysMitm)
	p.OnRequest().DoFunc(func(r *http.Request, _ *goproxy.ProxyCtx) (*http.Request, *http.Response) {
		r.Header.Set(keyHeader, string(key))
		return r, nil
	})
	server := &http.Server{Addr: args[0], Handler: p, ReadHeaderTimeout: time.Minute}
	return server.ListenAndServe()
}

// certStore keeps the leaves, so that goproxy makes each only once.
type certStore struct {
	mu   sync.Mutex
	held map[string]*tls.Certificate
}

func (s *certStore) Fetch(host string, generate func() (*tls.Certificate, error)) (*tls.Certificate, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.held[host]; c != nil {
		return c, nil
	}
	c, err := generate()
	if err == nil {
		s.held[host] = c
	}
	return c, err
}

func goproxyVersion() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "?"
	}
	for _, d := range info.Deps {
		if strings.HasSuffix(d.Path, "/goproxy") {
			return strings.TrimPrefix(d.Version, "v")
		}
	}
	return "?"
}
