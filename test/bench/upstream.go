package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

const (
	provider   = "api.anthropic.com"
	keyHeader  = "x-api-key"
	requestLen = 8 << 10
	answerLen  = 2 << 10
	events     = 200
	download   = 10 << 20

	pathJSON     = "/v1/messages"
	pathStream   = "/v1/messages/stream"
	pathDownload = "/v1/messages/download"
)

// answers are the only bodies that count as correct.
type answers struct{ json, event, block []byte }

func newAnswers() answers {
	text := strings.Repeat("an answer that a model might give, word by word; ", 60)
	head := `{"id":"msg_1","type":"message","usage":{"input_tokens":2000,"output_tokens":500},"text":"`
	a := answers{json: []byte(head + text[:answerLen-len(head)-2] + `"}`)}
	a.event = []byte("event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"some words more \"}}\n\n")
	a.block = make([]byte, 64<<10)
	for i := range a.block {
		a.block[i] = byte(i*7 + i>>8)
	}
	return a
}

// upstream is the provider: 401 unless the real key arrives.
type upstream struct {
	answers
	key  string
	addr string // 127.0.0.1:port
	dir  string // has ca.pem, cert.pem, key.pem and both.pem
	echo string // answers each byte, plain TCP
	bulk string // sends until it is closed, plain TCP
}

func (u *upstream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	n, _ := io.Copy(io.Discard, r.Body)
	if subtle.ConstantTimeCompare([]byte(r.Header.Get(keyHeader)), []byte(u.key)) != 1 || n != requestLen {
		http.Error(w, "no such key", http.StatusUnauthorized)
		return
	}
	h := w.Header()
	switch r.URL.Path {
	case pathJSON:
		h.Set("Content-Type", "application/json")
		h.Set("Content-Length", strconv.Itoa(len(u.json)))
		_, _ = w.Write(u.json)
	case pathStream:
		h.Set("Content-Type", "text/event-stream")
		flush := http.NewResponseController(w)
		for range events {
			_, _ = w.Write(u.event)
			_ = flush.Flush()
		}
	case pathDownload:
		h.Set("Content-Type", "application/octet-stream")
		h.Set("Content-Length", strconv.Itoa(download))
		for sent := 0; sent < download; sent += len(u.block) {
			if _, err := w.Write(u.block); err != nil {
				return
			}
		}
	default:
		http.NotFound(w, r)
	}
}

// serveUpstream serves on loopback for as long as the process lives.
func serveUpstream(dir, key string) (*upstream, error) {
	u := &upstream{answers: newAnswers(), key: key, dir: dir}
	cert, err := certificates(dir)
	if err != nil {
		return nil, err
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	u.addr = ln.Addr().String()
	server := &http.Server{Handler: u, TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}}, ReadHeaderTimeout: time.Minute}
	go func() { _ = server.ServeTLS(ln, "", "") }()
	if u.echo, err = serveTCP(func(c net.Conn) { _, _ = io.Copy(c, c) }); err != nil {
		return nil, err
	}
	u.bulk, err = serveTCP(func(c net.Conn) {
		if _, err := c.Read(make([]byte, 1)); err != nil {
			return
		}
		for block := bytes.Repeat(u.block, 4); ; {
			if _, err := c.Write(block); err != nil {
				return
			}
		}
	})
	return u, err
}

func serveTCP(serve func(net.Conn)) (string, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() { serve(c); _ = c.Close() }()
		}
	}()
	return ln.Addr().String(), nil
}

// certificates makes an authority and a leaf of it for the provider.
func certificates(dir string) (tls.Certificate, error) {
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "bench"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey)
	if err != nil {
		return tls.Certificate{}, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: provider}, DNSNames: []string{provider, "localhost"},
		NotBefore: ca.NotBefore, NotAfter: ca.NotAfter, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, ca, key.Public(), caKey)
	if err != nil {
		return tls.Certificate{}, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return tls.Certificate{}, err
	}
	encode := func(kind string, der []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}) }
	certPEM, keyPEM := encode("CERTIFICATE", der), encode("PRIVATE KEY", keyDER)
	for name, data := range map[string][]byte{
		"ca.pem": encode("CERTIFICATE", caDER), "cert.pem": certPEM, "key.pem": keyPEM, "both.pem": append(certPEM[:len(certPEM):len(certPEM)], keyPEM...),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			return tls.Certificate{}, fmt.Errorf("writing certificates: %w", err)
		}
	}
	return tls.X509KeyPair(certPEM, keyPEM)
}
