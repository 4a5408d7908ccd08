package broker

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"postern/internal/broker/http1"
	"postern/internal/event"
)

const (
	firstWait = 300 * time.Millisecond // for an agent's first byte, where the server may speak first
	tlsTime   = 30 * time.Second       // for a handshake with the agent
	fullWait  = 100 * time.Millisecond // when no descriptor is left
)

// ServeTransparent serves the connections that agent's namespace sends to ln,
// where a connection's local address is the destination the agent dialled. It
// returns nil when ctx ends, and then all its connections are closed.
func (b *Broker) ServeTransparent(ctx context.Context, ln net.Listener, agent string, names Names) error {
	e := b.entry(agent)
	return b.accept(ctx, ln, func(ctx context.Context, c net.Conn, l *liveConn) {
		l.owner(agent)
		b.transparent(ctx, e, c, l, names)
	})
}

// shareOfFiles is how much of the descriptors one listener's connections may
// take up, in hundredths: each has two, and other agents need theirs.
const shareOfFiles = 45

// connectionLimit is how many connections one listener serves at a time; more
// wait in the kernel's queue.
func connectionLimit() int {
	const least = 256
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) != nil {
		return least
	}
	return int(max(least, min(limit.Cur, 1<<20)*shareOfFiles/100))
}

// accept serves each connection of ln on a goroutine of its own.
func (b *Broker) accept(ctx context.Context, ln net.Listener, serve func(context.Context, net.Conn, *liveConn)) error {
	stop := context.AfterFunc(ctx, func() { _ = ln.Close() })
	defer stop()
	var open sync.WaitGroup
	defer open.Wait()
	free := make(chan struct{}, b.limit)
	for {
		select {
		case free <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		c, err := ln.Accept()
		switch {
		case err == nil:
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE), errors.Is(err, syscall.ECONNABORTED):
			select {
			case <-ctx.Done():
			case <-time.After(fullWait):
			}
			<-free
			continue
		default:
			return err
		}
		open.Go(func() {
			defer func() { _ = c.Close(); <-free }()
			l := b.live.open(c)
			defer l.close()
			defer context.AfterFunc(ctx, func() { l.end() })()
			serve(ctx, c, l)
		})
	}
}

// transparent binds a connection to the name that the agent resolved, or where
// it dialled an address by itself, to that address.
func (b *Broker) transparent(ctx context.Context, e *agentEntry, c net.Conn, l *liveConn, names Names) {
	to, ok := c.LocalAddr().(*net.TCPAddr)
	if !ok {
		return
	}
	addr, _ := netip.AddrFromSlice(to.IP)
	addr = addr.Unmap()
	t, named := newTarget(addr.String(), to.Port), false
	if names != nil {
		if name, ok := names(addr); ok {
			host, err := canonicalHost(name)
			if err != nil {
				return
			}
			t, named = newTarget(host, to.Port), true
		}
	}
	s := &session{b: b, e: e, c: &peeked{Conn: c}, live: l, t: t, named: named}
	s.serve(ctx)
}

// session is a connection of an agent to one destination.
type session struct {
	b      *Broker
	e      *agentEntry
	c      *peeked
	live   *liveConn
	t      target
	named  bool // t is what the agent asked for by name
	egress EgressDecision
}

// passes says whether the connection may go through as it is, uninspected.
func (s *session) passes() bool {
	return s.egress.Allow && (s.egress.Local || s.egress.Mode == Open && !s.egress.Named)
}

// serve decides what becomes of the connection: a tunnel, or an exchange that
// is looked into. A connection that is refused is answered inside, so that the
// agent's program shows why.
func (s *session) serve(ctx context.Context) {
	s.egress = s.b.cfg.Decider.Egress(s.e.name, s.t.key)
	if s.egress.Allow && s.egress.Local {
		s.tunnel(ctx, false)
		return
	}
	wait := headTime
	if s.passes() && s.t.port != 443 && s.t.port != 80 {
		wait = firstWait
	}
	switch s.c.listen(wait) {
	case speaksTLS:
		s.overTLS(ctx)
	case speaksHTTP:
		if !s.passes() || !s.tunnel(ctx, true) {
			s.exchange(ctx, s.c, false, nil)
		}
	case speaksOther, speaksNothing:
		if s.egress.Allow && (s.passes() || s.egress.Mode == Open) {
			s.tunnel(ctx, false)
			return
		}
		s.drop(ctx)
	}
}

// overTLS goes by the name of the hello, which must be the one that the
// connection is for. Where the agent dialled an address by itself, the name
// counts and is resolved anew: the address is never dialled.
func (s *session) overTLS(ctx context.Context) {
	name, err := s.c.serverName()
	if err == nil && name != "" {
		name, err = canonicalHost(name)
	}
	if err != nil {
		s.note(ctx, event.Malformed, ruleStrict, "the TLS hello is not well-formed, or names something that is no host")
		return
	}
	s.c.leaf = s.t.host
	if name != "" && name != s.t.host {
		s.c.leaf = name
		if s.named {
			s.intercept(ctx, misdirected("the TLS name is another than that of the connection, which is for "+s.t.key))
			return
		}
		s.t, s.named = newTarget(name, s.t.port), true
		s.egress = s.b.cfg.Decider.Egress(s.e.name, s.t.key)
	}
	if s.passes() && s.tunnel(ctx, true) {
		return
	}
	s.intercept(ctx, nil)
}

// intercept ends the agent's TLS here, with a certificate for the one host.
func (s *session) intercept(ctx context.Context, only *refusal) {
	if s.c.leaf == "" {
		s.c.leaf = s.t.host
	}
	c := tls.Server(s.c, s.e.serverTLS(s.b))
	_ = s.c.SetDeadline(time.Now().Add(tlsTime))
	if err := c.HandshakeContext(ctx); err != nil {
		s.note(ctx, event.Refused, ruleIdentity, "the agent did not accept the certificate, or speaks no HTTP/1.1: "+plainError(err))
		return
	}
	_ = s.c.SetDeadline(time.Time{})
	s.exchange(ctx, c, true, only)
	_ = c.Close()
}

func (s *session) exchange(ctx context.Context, c net.Conn, secure bool, only *refusal) {
	x := s.b.newExchange(s.e, c, http1.NewReader(c, &s.b.buffers), s.live)
	x.t, x.secure, x.only = s.t, secure, only
	x.serve(ctx)
}

// drop records a connection that is closed without an answer, because nothing
// could be said in its protocol.
func (s *session) drop(ctx context.Context) {
	r := egressRefusal(s.egress, s.t.key)
	if s.egress.Allow {
		r = forbidden(ruleStrict, "what the agent speaks to "+s.t.key+" can only be passed uninspected, which its egress mode does not allow")
	}
	s.note(ctx, event.Refused, r.rule, r.message)
}

func (s *session) note(ctx context.Context, kind event.Kind, rule, why string) {
	s.e.stats.refused.Add(1)
	s.b.note(ctx, event.Event{
		Time: s.b.cfg.Now().UTC(), Kind: kind, Request: s.b.ids.new(), Agent: s.e.name, Host: s.t.key, Rule: rule, Reason: why,
	})
}

// serverTLS is how the agent's connections are served. Each agent has its own
// ticket keys, so that no agent resumes the session of another.
func (e *agentEntry) serverTLS(b *Broker) *tls.Config {
	e.tlsOnce.Do(func() {
		e.tls = &tls.Config{
			MinVersion: tls.VersionTLS12,
			NextProtos: []string{"http/1.1", "http/1.0"},
			// The agent is on this machine: a post-quantum share buys nothing here.
			CurvePreferences: []tls.CurveID{tls.X25519, tls.CurveP256},
			GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
				p, ok := hello.Conn.(*peeked)
				if !ok {
					return nil, errors.New("broker: a connection of another origin")
				}
				return b.cfg.Issuer.Leaf(hello.Context(), p.leaf)
			},
		}
	})
	return e.tls
}
