// Package fake answers in place of real providers, on a loopback address, with
// certificates of an authority of its own. It is driven by the catalogue: it
// finds a credential in the slots that the kind names and answers only to the
// real keys that it was given.
//
// It misbehaves on purpose. Every answer quotes the credentials that came with
// the request, plain, in base64 and in hex: in the header x-echo, in a field
// "echo" of every JSON object that it makes, and as the body of the path /echo.
// A request may ask for more by its header x-fake:
//
//	gzip       the body comes compressed, whatever was accepted
//	429        too many requests, with Retry-After
//	redirect   to another host
//	trailer    the quotes come in a trailer as well
package fake

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"postern/internal/ca"
	"postern/internal/catalog"
)

// Kinds is the part of the catalogue that a server needs.
type Kinds interface {
	Kinds() ([]*catalog.Kind, error)
}

// Config says what a Server answers to.
type Config struct {
	Kinds Kinds
	// Keys are the real keys, by the id of a kind or, for what no kind knows, by
	// the name of a host.
	Keys map[string][]string
	// Pause is the time between the parts of a stream; 5 ms by default.
	Pause time.Duration
	// Changed, where it is set, is called after each call was counted.
	Changed func(map[string]Count)
}

// Count is what was counted for one host.
type Count struct {
	Accepted int `json:"accepted"` // answered with a real key
	Refused  int `json:"refused"`  // without one
}

// Server is a set of fake providers behind one address. Safe for concurrent use.
type Server struct {
	cfg   Config
	ca    *ca.CA
	kinds []*catalog.Kind // those with keys
	hosts []string

	mu       sync.Mutex
	counts   map[string]Count
	listener net.Listener
	http     *http.Server
	sockets  map[net.Conn]bool
	sessions map[string]string // of the gateway: session id to token
}

// resumeHost is where Discord's gateway sends those who come back.
const resumeHost = "gateway-us-east1-b.discord.gg"

// New makes a server for the hosts of all kinds that have keys; nothing is
// opened.
func New(cfg Config) (*Server, error) {
	authority, err := ca.Generate(time.Now())
	if err != nil {
		return nil, fmt.Errorf("making the fakes' authority: %w", err)
	}
	all, err := cfg.Kinds.Kinds()
	if err != nil {
		return nil, fmt.Errorf("reading the catalogue: %w", err)
	}
	if cfg.Pause == 0 {
		cfg.Pause = 5 * time.Millisecond
	}
	s := &Server{cfg: cfg, ca: authority, counts: map[string]Count{}, sockets: map[net.Conn]bool{}, sessions: map[string]string{}}
	known := map[string]bool{}
	for _, kind := range all {
		known[kind.ID] = true
		if len(cfg.Keys[kind.ID]) == 0 {
			continue
		}
		s.kinds = append(s.kinds, kind)
		for _, host := range kind.Hosts {
			if !strings.HasPrefix(host, "*") {
				s.hosts = append(s.hosts, host)
			}
		}
		if kind.ID == discordBot {
			s.hosts = append(s.hosts, resumeHost)
		}
	}
	for name := range cfg.Keys {
		switch {
		case known[name]:
		case strings.Contains(name, "."):
			s.hosts = append(s.hosts, name)
		}
	}
	slices.Sort(s.hosts)
	s.hosts = slices.Compact(s.hosts)
	return s, nil
}

// Start listens at addr ("127.0.0.1:0") and serves until Close.
func (s *Server) Start(addr string) error {
	raw, err := net.Listen("tcp", addr)
	if err != nil {
		return fmt.Errorf("listening for the fakes: %w", err)
	}
	s.listener = raw
	s.http = &http.Server{Handler: s, TLSConfig: s.tls(), ReadHeaderTimeout: 10 * time.Second, ErrorLog: quiet()}
	go func() {
		_ = s.http.ServeTLS(raw, "", "") // ends with Close
	}()
	return nil
}

func (s *Server) tls() *tls.Config {
	base := &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: []string{"h2", "http/1.1"},
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			if !s.knows(hello.ServerName) {
				return nil, errors.New("no such provider")
			}
			return s.ca.Leaf(context.Background(), hello.ServerName)
		},
	}
	plain := base.Clone()
	plain.NextProtos = []string{"http/1.1"}
	base.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if strings.HasSuffix(hello.ServerName, ".discord.gg") {
			return plain, nil // WebSockets, which are not spoken over HTTP/2 here
		}
		return nil, nil
	}
	return base
}

// knows says whether the server answers for the host.
func (s *Server) knows(host string) bool {
	return slices.ContainsFunc(s.hosts, func(one string) bool { return nameOf(one) == host }) ||
		slices.ContainsFunc(s.kinds, func(k *catalog.Kind) bool { return k.Allows(host) })
}

// nameOf is a host without its port.
func nameOf(host string) string {
	name, _, _ := strings.Cut(host, ":")
	return name
}

// Addr is where the server listens, once started.
func (s *Server) Addr() string { return s.listener.Addr().String() }

// CAPEM is the certificate that clients must trust.
func (s *Server) CAPEM() []byte { return s.ca.CertPEM() }

// Hosts are the hosts with a fixed name, sorted; "name" is port 443.
func (s *Server) Hosts() []string { return slices.Clone(s.hosts) }

// Dial leads each "host:port" to the server, as upstream.dial takes it.
func (s *Server) Dial() map[string]string {
	dial := map[string]string{}
	for _, host := range s.hosts {
		if !strings.Contains(host, ":") {
			host += ":443"
		}
		dial[host] = s.Addr()
	}
	return dial
}

// Calls are the counts so far, by host name.
func (s *Server) Calls() map[string]Count {
	s.mu.Lock()
	defer s.mu.Unlock()
	counts := make(map[string]Count, len(s.counts))
	for host, n := range s.counts {
		counts[host] = n
	}
	return counts
}

func (s *Server) count(host string, accepted bool) {
	s.mu.Lock()
	n := s.counts[host]
	if accepted {
		n.Accepted++
	} else {
		n.Refused++
	}
	s.counts[host] = n
	s.mu.Unlock()
	if s.cfg.Changed != nil {
		s.cfg.Changed(s.Calls())
	}
}

// Close ends the server and all its connections.
func (s *Server) Close() error {
	if s.http == nil {
		return nil
	}
	err := s.http.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	for conn := range s.sockets {
		_ = conn.Close()
	}
	return err
}
