package broker

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"postern/internal/broker/http1"
	"postern/internal/catalog"
	"postern/internal/credential"
	"postern/internal/event"
	"postern/internal/fail"
	"postern/internal/placeholder"
	"postern/internal/secret"
)

// authority issues leaves, for the agent's side and for the fake internet.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
	mu   sync.Mutex
	made map[string]*tls.Certificate
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	a := &authority{cert: cert, key: key, pool: x509.NewCertPool(), made: map[string]*tls.Certificate{}}
	a.pool.AddCert(cert)
	return a
}

func (a *authority) Leaf(_ context.Context, host string) (*tls.Certificate, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if c := a.made[host]; c != nil {
		return c, nil
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(int64(len(a.made)) + 2), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if ip := net.ParseIP(host); ip != nil {
		tmpl.IPAddresses = []net.IP{ip}
	} else {
		tmpl.DNSNames = []string{host}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, key.Public(), a.key)
	if err != nil {
		return nil, err
	}
	c := &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	a.made[host] = c
	return c, nil
}

// world is a broker with agents, credentials and an internet of its own.
type world struct {
	testing.TB
	b        *Broker
	agentCA  *authority
	internet *authority
	catalog  *catalog.Catalog

	mu       sync.Mutex
	events   []event.Event
	refuse   error // what Record returns
	values   map[string]string
	versions map[string]int
	disabled map[string]bool
	holders  map[string][]Lent
	revoked  map[string]bool
	grants   map[string]bool // "agent credential host:port"
	mode     Mode
	denied   map[string]bool // host:port
	local    map[string]bool
	ownKeys  bool
	durable  bool
	synced   int
	names    map[netip.Addr]string
}

func newWorld(t testing.TB) *world {
	t.Helper()
	c, err := catalog.Open("")
	if err != nil {
		t.Fatal(err)
	}
	w := &world{
		TB: t, agentCA: newAuthority(t), internet: newAuthority(t), catalog: c, mode: Open,
		values: map[string]string{}, versions: map[string]int{}, disabled: map[string]bool{}, holders: map[string][]Lent{},
		revoked: map[string]bool{}, grants: map[string]bool{}, denied: map[string]bool{}, local: map[string]bool{}, names: map[netip.Addr]string{},
	}
	w.b = New(Config{
		Leaser: w, Decider: w, Recorder: w, Placeholders: w, Issuer: w.agentCA,
		Authenticate: func(agent, token string) bool { return token == "token-of-"+agent },
		Dial:         map[string]string{}, RootCAs: w.internet.pool, HeaderTimeout: 5 * time.Second,
	})
	t.Cleanup(w.b.Close)
	return w
}

func (w *world) nameOf(addr netip.Addr) (string, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	name, ok := w.names[addr]
	return name, ok
}

// lend gives agent a placeholder of a fresh value, granted at hosts.
func (w *world) lend(agent, name, kindID string, hosts ...string) (placeholderText, value string) {
	w.Helper()
	kind, err := w.catalog.Kind(kindID)
	if err != nil {
		w.Fatal(err)
	}
	form := "test-{alnum:40}"
	if len(kind.Detect.Match) > 0 {
		form = kind.Detect.Match[0]
	}
	tmpl, err := catalog.ParseTemplate(form)
	if err != nil {
		w.Fatal(err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.values[name] == "" {
		if w.values[name], err = tmpl.Generate(rand.Reader); err != nil {
			w.Fatal(err)
		}
		w.versions[name] = 1
	}
	text, err := placeholder.Mint(kind, []byte(w.values[name]), rand.Reader)
	if err != nil {
		w.Fatal(err)
	}
	lent := Lent{Placeholder: text, Credential: name, Kind: kind}
	for _, h := range hosts {
		w.grants[agent+" "+name+" "+h] = true
		if kind.UserHosts {
			lent.Hosts = append(lent.Hosts, h)
		}
	}
	w.holders[agent] = append(w.holders[agent], lent)
	return text, w.values[name]
}

func (w *world) Lease(_ context.Context, _, name string) (secret.Value, credential.Version, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.disabled[name] {
		return secret.Value{}, credential.Version{}, fail.New(fail.NotAllowed, "P-E060", "could not lend %s", name).Because("it is disabled")
	}
	return secret.New([]byte(w.values[name])), credential.Version{Number: w.versions[name], Fingerprint: "fp"}, nil
}

func (w *world) Of(agent string) ([]Lent, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var list []Lent
	for _, l := range w.holders[agent] {
		if !w.revoked[l.Placeholder] {
			list = append(list, l)
		}
	}
	return list, nil
}

func (w *world) Lookup(text string) (credential.Placeholder, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for agent, lents := range w.holders {
		for _, l := range lents {
			if l.Placeholder == text || l.Kind.SecretPart(l.Placeholder) == text {
				return credential.Placeholder{Text: l.Placeholder, Agent: agent, Credential: l.Credential, Revoked: w.revoked[l.Placeholder]}, true
			}
		}
	}
	return credential.Placeholder{}, false
}

func (w *world) Decide(r Request) Decision {
	w.mu.Lock()
	defer w.mu.Unlock()
	d := Decision{Rule: "grant " + r.Credential, OwnKeys: w.ownKeys, Durable: w.durable}
	d.Allow = w.grants[r.Agent+" "+r.Credential+" "+r.Host] && !strings.HasPrefix(r.Path, "/forbidden")
	if !d.Allow {
		d.Reason, d.Fix = "no grant names it", "postern policy allow "+r.Agent+" "+r.Credential+" "+r.Host
	}
	return d
}

func (w *world) Egress(agent, hostport string) EgressDecision {
	w.mu.Lock()
	defer w.mu.Unlock()
	d := EgressDecision{Mode: w.mode, Rule: "egress " + string(w.mode), Local: w.local[hostport]}
	for grant := range w.grants {
		if strings.HasPrefix(grant, agent+" ") && strings.HasSuffix(grant, " "+hostport) {
			d.Named = true
		}
	}
	d.Allow = !w.denied[hostport] && (w.mode != Closed || d.Named || d.Local)
	if !d.Allow {
		d.Fix = "postern policy allow " + agent + " --host " + hostport
	}
	return d
}

func (w *world) Record(_ context.Context, e event.Event, durable bool) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.refuse != nil {
		return w.refuse
	}
	if durable {
		w.synced++
	}
	w.events = append(w.events, e)
	return nil
}

// kinds are the events so far of a kind.
func (w *world) recorded(kind event.Kind) []event.Event {
	w.mu.Lock()
	defer w.mu.Unlock()
	var list []event.Event
	for _, e := range w.events {
		if e.Kind == kind {
			list = append(list, e)
		}
	}
	return list
}

// eventually waits for the first event of a kind.
func (w *world) eventually(kind event.Kind) event.Event {
	w.Helper()
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); {
		if list := w.recorded(kind); len(list) > 0 {
			return list[0]
		}
		<-time.After(2 * time.Millisecond)
	}
	w.Fatalf("no record of kind %s", kind)
	return event.Event{}
}

// site serves host (port 443) on the fake internet.
func (w *world) site(host string, h http.HandlerFunc) {
	w.Helper()
	srv := &http.Server{Handler: h, ErrorLog: nil}
	ln := w.tlsSite(host)
	go func() { _ = srv.Serve(ln) }()
	w.Cleanup(func() { _ = srv.Close() })
}

func (w *world) tlsSite(host string, protocols ...string) net.Listener {
	w.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.Fatal(err)
	}
	w.b.cfg.Dial[host+":443"] = ln.Addr().String()
	w.Cleanup(func() { _ = ln.Close() })
	cert, err := w.internet.Leaf(context.Background(), host)
	if err != nil {
		w.Fatal(err)
	}
	config := &tls.Config{Certificates: []tls.Certificate{*cert}, NextProtos: protocols}
	if slices.Contains(protocols, "h2") {
		// Left alone, a server of the standard library takes a client that offers
		// HTTP/1.1 only; others end the handshake with an alert.
		config.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			if slices.Contains(hello.SupportedProtos, "h2") {
				return nil, nil
			}
			return &tls.Config{Certificates: config.Certificates, NextProtos: []string{"none"}}, nil
		}
	}
	return tls.NewListener(ln, config)
}

// rawSite answers each request head of host with what answer says, byte for
// byte, and closes the connection.
func (w *world) rawSite(host string, answer func(c net.Conn, r *http.Request)) {
	w.Helper()
	ln := w.tlsSite(host)
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = c.Close() }()
				br := bufio.NewReader(c)
				for {
					r, err := http.ReadRequest(br)
					if err != nil {
						return
					}
					_, _ = io.Copy(io.Discard, r.Body)
					answer(c, r)
				}
			}()
		}
	}()
}

// diverted is a connection whose local address is the destination that the
// agent dialled, as the kernel makes it in the agent's namespace.
type diverted struct {
	*net.TCPConn
	to *net.TCPAddr
}

func (d *diverted) LocalAddr() net.Addr { return d.to }

type divertedListener struct {
	net.Listener
	to *net.TCPAddr
}

func (l *divertedListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &diverted{TCPConn: c.(*net.TCPConn), to: l.to}, nil
}

// door is where agent's connections to host:port come in; it returns the address
// to dial in place of it. With an address as host nothing was resolved.
func (w *world) door(agent, host string, port int) string {
	w.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.Fatal(err)
	}
	to := &net.TCPAddr{IP: net.ParseIP(host), Port: port}
	if to.IP == nil {
		w.mu.Lock()
		to.IP = net.IPv4(198, 18, 0, byte(len(w.names)+1))
		w.names[netip.AddrFrom4([4]byte(to.IP.To4()))] = host
		w.mu.Unlock()
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- w.b.ServeTransparent(ctx, &divertedListener{ln, to}, agent, w.nameOf) }()
	w.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			w.Error(err)
		}
	})
	return ln.Addr().String()
}

// proxy serves ServeProxy and returns its address.
func (w *world) proxy() string {
	w.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- w.b.ServeProxy(ctx, ln) }()
	w.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			w.Error(err)
		}
	})
	return ln.Addr().String()
}

// client is the agent's HTTP client for host.
func (w *world) client(agent, host string) *http.Client {
	addr := w.door(agent, host, 443)
	tr := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "tcp", addr)
		},
		TLSClientConfig:    &tls.Config{RootCAs: w.agentCA.pool},
		DisableCompression: true,
	}
	w.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, Timeout: 20 * time.Second}
}

// raw is the agent's bare TLS connection to host.
func (w *world) raw(agent, host string) *tls.Conn {
	w.Helper()
	c, err := tls.Dial("tcp", w.door(agent, host, 443), &tls.Config{RootCAs: w.agentCA.pool, ServerName: host})
	if err != nil {
		w.Fatal(err)
	}
	_ = c.SetDeadline(time.Now().Add(15 * time.Second))
	w.Cleanup(func() { _ = c.Close() })
	return c
}

func get(t testing.TB, c *http.Client, url string, header ...string) (*http.Response, string) {
	t.Helper()
	return send(t, c, "GET", url, nil, header...)
}

func send(t testing.TB, c *http.Client, method, url string, body io.Reader, header ...string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequest(method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(b)
}

func newTestReader(b *Broker, src io.Reader) *http1.Reader { return http1.NewReader(src, &b.buffers) }
