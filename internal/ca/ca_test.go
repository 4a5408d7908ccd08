package ca

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"postern/internal/fail"
	"postern/internal/secret"
)

func generate(t testing.TB) *CA {
	t.Helper()
	c, err := Generate(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func leafOf(t testing.TB, c *CA, host string) *tls.Certificate {
	t.Helper()
	cert, err := c.Leaf(context.Background(), host)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func TestRoot(t *testing.T) {
	now := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	c, err := Generate(now)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := readCert(c.CertPEM())
	if err != nil {
		t.Fatal(err)
	}
	if !cert.IsCA || cert.MaxPathLen != 0 || !cert.MaxPathLenZero {
		t.Errorf("CA %v, path length %d (%v), want an authority over leaves only", cert.IsCA, cert.MaxPathLen, cert.MaxPathLenZero)
	}
	if cert.KeyUsage != x509.KeyUsageCertSign|x509.KeyUsageCRLSign {
		t.Errorf("key usage %v", cert.KeyUsage)
	}
	if !regexp.MustCompile(`^Postern local CA [0-9a-f]{8}$`).MatchString(c.Name()) || c.String() != c.Name() {
		t.Errorf("name %q", c.Name())
	}
	if got := cert.NotBefore; !got.Equal(now.AddDate(0, 0, -1)) {
		t.Errorf("valid from %v", got)
	}
	if got := c.Expires(); !got.Equal(now.AddDate(10, 0, 0)) {
		t.Errorf("valid until %v", got)
	}
	if n := cert.SerialNumber.BitLen(); n < 100 {
		t.Errorf("serial of %d bits", n)
	}
	if generate(t).Name() == c.Name() {
		t.Error("two authorities have one name")
	}
}

func TestOpenTakesWhatPEMGave(t *testing.T) {
	c := generate(t)
	certPEM, key := c.PEM()
	again, err := Open(certPEM, key)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(c.CertPEM())
	if _, err := leafOf(t, again, "api.example").Leaf.Verify(x509.VerifyOptions{DNSName: "api.example", Roots: roots}); err != nil {
		t.Errorf("a leaf of the opened authority does not verify: %v", err)
	}
}

func TestOpenRefuses(t *testing.T) {
	certPEM, key := generate(t).PEM()
	otherCert, otherKey := generate(t).PEM()
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8 := func(key any) secret.Value {
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		return secret.New(pem.EncodeToMemory(&pem.Block{Type: keyType, Bytes: der}))
	}
	leaf := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leafOf(t, generate(t), "a.example").Certificate[0]})
	damaged := bytes.Replace(certPEM, []byte("MII"), []byte("MIA"), 1)
	tests := []struct {
		name string
		cert []byte
		key  secret.Value
		want string
	}{
		{"nothing", nil, secret.Value{}, "no certificate"},
		{"no key", certPEM, secret.Value{}, "no ECDSA P-256 key"},
		{"garbage for a key", certPEM, secret.New([]byte("garbage")), "no ECDSA P-256 key"},
		{"the certificate for a key", certPEM, secret.New(certPEM), "no ECDSA P-256 key"},
		{"an RSA key", certPEM, pkcs8(rsaKey), "no ECDSA P-256 key"},
		{"another curve", certPEM, pkcs8(p384), "no ECDSA P-256 key"},
		{"another authority's key", certPEM, otherKey, "does not belong"},
		{"a leaf", leaf, key, "not one of an authority"},
		{"two certificates", append(bytes.Clone(certPEM), otherCert...), key, "more than one"},
		{"a damaged certificate", damaged, key, "damaged"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := Open(test.cert, test.key)
			if err == nil || !strings.Contains(err.Error(), test.want) || !fail.Is(err, fail.Invalid) {
				t.Errorf("got %v, want one with %q", err, test.want)
			}
		})
	}
}

func TestLeafStandsForOneName(t *testing.T) {
	c := generate(t)
	tests := []struct {
		host, dns, ip string
	}{
		{"api.example", "api.example", ""},
		{"API.Example.", "api.example", ""},
		{"localhost", "localhost", ""},
		{"under_score.example", "under_score.example", ""},
		{"xn--bcher-kva.example", "xn--bcher-kva.example", ""},
		{strings.Repeat("a.", 120) + "example", strings.Repeat("a.", 120) + "example", ""},
		{"192.0.2.7", "", "192.0.2.7"},
		{"::ffff:192.0.2.7", "", "192.0.2.7"},
		{"2001:db8::1", "", "2001:db8::1"},
		{"[2001:DB8:0::1]", "", "2001:db8::1"},
	}
	for _, test := range tests {
		t.Run(test.host, func(t *testing.T) {
			cert := leafOf(t, c, test.host)
			var got []string
			for _, ip := range cert.Leaf.IPAddresses {
				got = append(got, "ip "+ip.String())
			}
			for _, name := range cert.Leaf.DNSNames {
				got = append(got, "dns "+name)
			}
			want := []string{"dns " + test.dns}
			if test.ip != "" {
				want = []string{"ip " + test.ip}
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("names (-want +got):\n%s", diff)
			}
			if cert.Leaf.IsCA || cert.Leaf.KeyUsage != x509.KeyUsageDigitalSignature {
				t.Errorf("CA %v, key usage %v", cert.Leaf.IsCA, cert.Leaf.KeyUsage)
			}
			if life := cert.Leaf.NotAfter.Sub(cert.Leaf.NotBefore); life != 24*time.Hour {
				t.Errorf("valid for %v", life)
			}
			if len(cert.Certificate) != 1 {
				t.Errorf("a chain of %d certificates", len(cert.Certificate))
			}
		})
	}
}

func TestLeafRefusesWhatIsNoName(t *testing.T) {
	c := generate(t)
	for _, host := range []string{
		"", ".", "..", "a..b", "*.example", "a b", "a\x00b", "a\nb", "user@host", "host:443", "-a.example", "a-.example", "a/b",
		"bücher.example", "1.2.3", "127.1", "0x7f.1", "a.0x7f000001", "2130706433", "fe80::1%eth0", "[::1", "::1]", "[127.0.0.1]", "[a.example]",
		strings.Repeat("a", 64) + ".example", strings.Repeat("a.", 130) + "example", "%41.example",
	} {
		if cert, err := c.Leaf(context.Background(), host); err == nil || !fail.Is(err, fail.Invalid) {
			t.Errorf("%q: got %v, %v", host, cert, err)
		}
	}
}

func TestOnlyTheNamedHostVerifies(t *testing.T) {
	c := generate(t)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(c.CertPEM())
	leaf := leafOf(t, c, "api.example").Leaf
	for name, want := range map[string]bool{"api.example": true, "example": false, "x.api.example": false, "192.0.2.1": false} {
		if _, err := leaf.Verify(x509.VerifyOptions{DNSName: name, Roots: roots}); (err == nil) != want {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestARealClientTrustsTheBundleOnly(t *testing.T) {
	c := generate(t)
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		return c.Leaf(hello.Context(), hello.ServerName)
	}})
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.NotFoundHandler(), ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError), ReadHeaderTimeout: time.Minute}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { _ = server.Close() })
	get := func(bundle []byte) error {
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(bundle)
		transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, listener.Addr().String())
		}}
		defer transport.CloseIdleConnections()
		answer, err := (&http.Client{Transport: transport}).Get("https://api.example/")
		if err != nil {
			return err
		}
		_, _ = io.Copy(io.Discard, answer.Body)
		return answer.Body.Close()
	}
	if err := get(c.Bundle(generate(t).CertPEM())); err != nil {
		t.Errorf("with the bundle: %v", err)
	}
	if err := get(generate(t).CertPEM()); err == nil {
		t.Error("without our certificate the client trusts us")
	}
}

func TestLeafIsCachedAndRenewedEarly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := generate(t)
		first := leafOf(t, c, "api.example")
		if leafOf(t, c, "API.example.") != first {
			t.Error("two spellings of a name have two certificates")
		}
		time.Sleep(22*time.Hour + 49*time.Minute)
		if leafOf(t, c, "api.example") != first {
			t.Error("renewed more than an hour before the end")
		}
		time.Sleep(time.Minute)
		second := leafOf(t, c, "api.example")
		if second == first || !second.Leaf.NotAfter.After(first.Leaf.NotAfter) {
			t.Error("not renewed an hour before the end")
		}
		if second.Leaf.SerialNumber.Cmp(first.Leaf.SerialNumber) == 0 {
			t.Error("the serial number was used twice")
		}
	})
}

func TestALeafNeverOutlivesItsRoot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, err := Generate(time.Now().AddDate(-10, 0, 0).Add(2 * time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		if leaf := leafOf(t, c, "a.example").Leaf; !leaf.NotAfter.Equal(c.Expires()) {
			t.Errorf("the leaf ends %v, the root %v", leaf.NotAfter, c.Expires())
		}
		time.Sleep(3 * time.Hour)
		if _, err := c.Leaf(context.Background(), "b.example"); !fail.Is(err, fail.Unavailable) {
			t.Errorf("after the end: %v", err)
		}
	})
}

func TestOneSignatureForManyCallers(t *testing.T) {
	c := generate(t)
	var wg sync.WaitGroup
	certs := make([]*tls.Certificate, 32)
	for i := range certs {
		wg.Go(func() { certs[i], _ = c.Leaf(context.Background(), "api.example") })
	}
	wg.Wait()
	for _, cert := range certs {
		if cert == nil || cert != certs[0] {
			t.Fatal("two callers got two certificates")
		}
	}
}

func TestAWaitingCallerMayGiveUp(t *testing.T) {
	c := generate(t)
	a := c.open()
	l, isMine := a.leaves.takeOrStart("slow.example", time.Now())
	if !isMine {
		t.Fatal("somebody else signs")
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := c.Leaf(ctx, "slow.example"); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	l.err = errors.New("no randomness")
	a.leaves.finish(l)
	leafOf(t, c, "slow.example") // the failure is not kept
}

func TestTheCacheIsBounded(t *testing.T) {
	c := generate(t)
	a := c.open()
	first := leafOf(t, c, "first.example")
	now := time.Now()
	for i := range maxLeaves - 1 {
		l, _ := a.leaves.takeOrStart(fmt.Sprintf("h%d.example", i), now)
		l.cert = first
		a.leaves.finish(l)
	}
	if leafOf(t, c, "first.example") != first {
		t.Error("dropped before the cache was full")
	}
	leafOf(t, c, "one-more.example")
	if n := a.leaves.order.Len(); n != maxLeaves || len(a.leaves.byHost) != maxLeaves {
		t.Errorf("%d in order, %d by host", n, len(a.leaves.byHost))
	}
	if leafOf(t, c, "first.example") != first {
		t.Error("the one used last was dropped")
	}
	if a.leaves.take("h0.example", now) != nil {
		t.Error("the one least recently used was kept")
	}
}

func TestNoPrinterShowsAKey(t *testing.T) {
	c := generate(t)
	_, key := c.PEM()
	var marks []string
	a := c.open()
	for _, k := range []*ecdsa.PrivateKey{a.key, a.leafKey} {
		scalar, err := k.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		marks = append(marks, string(scalar), hex.EncodeToString(scalar), strings.ToUpper(hex.EncodeToString(scalar)), new(big.Int).SetBytes(scalar).String(), fmt.Sprint(scalar))
	}
	var body string
	_ = key.Reveal(func(b []byte) error { body = strings.Split(string(b), "\n")[1]; return nil })
	marks = append(marks, body)
	holder := struct {
		c *CA
		v CA
		k secret.Value
	}{c, *c, key}
	var out strings.Builder
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
		for _, thing := range []any{c, *c, holder, &holder, []any{c}, map[string]any{"ca": *c}} {
			fmt.Fprintf(&out, verb, thing)
		}
	}
	slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "ca", c, "holder", holder)
	slog.New(slog.NewTextHandler(&out, nil)).Info("x", "ca", c, "holder", holder)
	for i, mark := range marks {
		if strings.Contains(out.String(), mark) {
			t.Errorf("a printer shows mark %d", i)
		}
	}
}

func TestBundle(t *testing.T) {
	c := generate(t)
	own := string(c.CertPEM())
	for name, test := range map[string]struct{ system, want string }{
		"empty":          {"", own},
		"with line end":  {"roots\n", "roots\n" + own},
		"without one":    {"roots", "roots\n" + own},
		"already has it": {"roots\n" + own, "roots\n" + own},
	} {
		system := []byte(test.system)
		if diff := cmp.Diff(test.want, string(c.Bundle(system))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestSystemRootsIgnoreTheEnvironment(t *testing.T) {
	if len(SystemPaths()) == 0 {
		t.Skip("this system has no bundle: install ca-certificates")
	}
	other := filepath.Join(t.TempDir(), "other.pem")
	if err := os.WriteFile(other, generate(t).CertPEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SSL_CERT_FILE", other)
	roots, err := SystemRoots()
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for rest := roots; ; n++ {
		var b *pem.Block
		if b, rest = pem.Decode(rest); b == nil {
			break
		}
	}
	if n < 50 {
		t.Errorf("%d certificates", n)
	}
}

func TestExistingResolvesLinksAndNamesEachOnce(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	file, link, folder, loop := filepath.Join(dir, "a.crt"), filepath.Join(dir, "link"), filepath.Join(dir, "d"), filepath.Join(dir, "loop")
	if err := errors.Join(os.WriteFile(file, nil, 0o600), os.Symlink(file, link), os.Mkdir(folder, 0o700), os.Symlink(loop, loop)); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{file}, existing([]string{link, file, folder, loop, filepath.Join(dir, "none")})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestReadBundleRefuses(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string][]byte{
		"empty":     nil,
		"text":      []byte("no certificate here"),
		"a key":     pem.EncodeToMemory(&pem.Block{Type: keyType, Bytes: []byte("x")}),
		"too large": bytes.Repeat([]byte("\n"), maxBundle+1),
	} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := readBundle(path); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
}

func FuzzCanonical(f *testing.F) {
	for _, name := range []string{"a.example", "[::1]", "127.0.0.1", "*.x", "A.B.", "0x7f.1", "::ffff:1.2.3.4"} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		host, ip, err := canonical(name)
		if err != nil {
			return
		}
		again, ip2, err := canonical(host)
		if err != nil || again != host || !ip.Equal(ip2) {
			t.Errorf("%q became %q, which became %q, %v", name, host, again, err)
		}
	})
}

func BenchmarkLeafMade(b *testing.B) {
	a := generate(b).open()
	now := time.Now()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := a.sign("api.example", nil, now); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkLeafCached(b *testing.B) {
	c := generate(b)
	leafOf(b, c, "api.example")
	b.ReportAllocs()
	for b.Loop() {
		leafOf(b, c, "api.example")
	}
}
