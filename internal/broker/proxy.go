package broker

import (
	"bytes"
	"context"
	"encoding/base64"
	"net"
	"slices"
	"strings"

	"postern/internal/broker/http1"
	"postern/internal/event"
	"postern/internal/placeholder"
)

// ServeProxy serves clients that speak to ln knowingly: as a proxy, by CONNECT
// or with an absolute address, with the agent's name and token as the proxy's
// user and password; or with a base URL whose first path segment names a
// provider (/anthropic/v1/messages), where the placeholder itself says who is
// calling. It returns nil when ctx ends, and then all its connections are closed.
func (b *Broker) ServeProxy(ctx context.Context, ln net.Listener) error {
	return b.accept(ctx, ln, func(ctx context.Context, c net.Conn, l *liveConn) {
		x := b.newExchange(nil, c, http1.NewReader(c, &b.buffers), l)
		x.bind, x.connect = bindProxied, connectProxied
		x.serve(ctx)
	})
}

// bindProxied binds one request to its caller and its one host.
func bindProxied(_ context.Context, x *exchange) *refusal {
	x.e, x.t = nil, target{}
	if x.head.Target[0] == '/' {
		return x.bindBase()
	}
	scheme, rest, ok := bytes.Cut(x.head.Target, []byte("://"))
	usual := 443
	switch {
	case ok && http1.EqualFold(scheme, "https"):
		x.secure = true
	case ok && http1.EqualFold(scheme, "http"):
		x.secure, usual = false, 80
	default:
		return malformed("the target is neither a path nor an http address")
	}
	e, r := x.caller()
	if r != nil {
		return r
	}
	authority, path := splitAuthority(rest)
	t, err := parseTarget(string(authority), usual)
	if err != nil {
		return malformed("the target's host is not a host name in its plain form")
	}
	x.e, x.t, x.target = e, t, path
	x.live.owner(e.name)
	if !t.matches(x.head.Host, usual) {
		return misdirected("Host names another host than the target, which is " + t.key)
	}
	return nil
}

// caller is the agent that the proxy's user and password stand for.
func (x *exchange) caller() (*agentEntry, *refusal) {
	unknown := &refusal{
		status: 407, id: "P-E110", kind: event.Refused, rule: ruleIdentity,
		message: "the proxy's user and password must be an agent's name and token", next: "postern run -- COMMAND",
	}
	var value []byte
	for _, f := range x.head.Fields {
		if http1.EqualFold(f.Name, "proxy-authorization") {
			if value != nil {
				return nil, unknown
			}
			value = f.Value
		}
	}
	scheme, encoded, _ := bytes.Cut(value, []byte(" "))
	if !http1.EqualFold(scheme, "basic") || x.b.cfg.Authenticate == nil {
		return nil, unknown
	}
	pair, err := base64.StdEncoding.Strict().DecodeString(string(bytes.TrimLeft(encoded, " ")))
	agent, token, ok := strings.Cut(string(pair), ":")
	if err != nil || !ok || agent == "" || token == "" || !x.b.cfg.Authenticate(agent, token) {
		return nil, unknown
	}
	return x.b.entry(agent), nil
}

// connectProxied serves a CONNECT. What is wrong with the request itself is said
// in the answer to it; what the policy refuses is said inside the tunnel, where
// the agent's program shows it.
func connectProxied(ctx context.Context, x *exchange) {
	x.method = "CONNECT"
	e, r := x.caller()
	if r != nil {
		x.refuse(ctx, r)
		return
	}
	x.e = e
	x.live.owner(e.name)
	t, err := parseTarget(string(x.head.Target), 0)
	switch {
	case err != nil:
		r = malformed("CONNECT names something that is not a host in its plain form with a port")
	case x.head.Host != nil && !t.matches(x.head.Host, 443):
		r = misdirected("Host names another host than CONNECT, which is for " + t.key)
	case x.head.Framing != http1.NoBody:
		r = malformed("CONNECT has a body")
	}
	if r != nil {
		x.refuse(ctx, r)
		return
	}
	if _, err := x.conn.Write([]byte("HTTP/1.1 200 Connection established\r\n\r\n")); err != nil {
		return
	}
	early := append([]byte(nil), x.r.Buffered()...)
	x.r.Drop()
	x.release()
	s := &session{b: x.b, e: e, c: &peeked{Conn: x.conn, head: early}, live: x.live, t: t, named: true}
	s.serve(ctx)
}

// bindBase binds a request of a client whose base URL points at us. The first
// path segment is the provider, and the placeholder in the head says which
// agent is calling with which credential, and so for which host.
func (x *exchange) bindBase() *refusal {
	provider, rest, _ := bytes.Cut(x.head.Target[1:], []byte("/"))
	if cut := bytes.IndexByte(provider, '?'); cut >= 0 {
		provider, rest = provider[:cut], nil
	}
	unknown := &refusal{
		status: 401, id: "P-E111", kind: event.Refused, rule: ruleIdentity,
		message: "a base URL of postern needs an agent's placeholder of that provider in the request", next: "postern agent ls",
	}
	for _, text := range x.shownPlaceholders() {
		e, l, err := x.b.holder(text)
		if err != nil {
			return unavailable(ruleIdentity, "the agent's placeholders cannot be read: "+reason(err))
		}
		if l == nil || !providerIs(l, string(provider)) {
			continue
		}
		if t, ok := baseTarget(l); ok {
			x.e, x.t, x.secure = e, t, true
			x.live.owner(e.name)
			x.target = append([]byte("/"), rest...)
			return nil
		}
	}
	return unknown
}

// holder is the agent that holds a placeholder, by the views of the agents seen
// so far or else by the store; nil where nobody does.
func (b *Broker) holder(text string) (*agentEntry, *Lent, error) {
	b.mu.Lock()
	for _, e := range b.agents {
		if v := e.view.Load(); v != nil && v.byText[text] != nil {
			b.mu.Unlock()
			return e, &v.byText[text].Lent, nil
		}
	}
	b.mu.Unlock()
	known, ok := b.cfg.Placeholders.Lookup(text)
	if !ok || known.Revoked {
		return nil, nil, nil
	}
	of, err := b.cfg.Placeholders.Of(known.Agent)
	if err != nil {
		return nil, nil, err
	}
	for _, l := range of {
		if l.Credential == known.Credential {
			return b.entry(known.Agent), &l, nil
		}
	}
	return nil, nil, nil
}

// shownPlaceholders are the placeholders in the head, those of Basic included.
func (x *exchange) shownPlaceholders() []string {
	var texts []string
	add := func(b []byte) {
		for _, span := range placeholder.Find(b) {
			texts = append(texts, string(b[span[0]:span[1]]))
		}
	}
	add(x.head.Raw())
	for _, f := range x.head.Fields {
		scheme, encoded, _ := bytes.Cut(f.Value, []byte(" "))
		if http1.EqualFold(f.Name, "authorization") && http1.EqualFold(scheme, "basic") {
			if pair, err := base64.StdEncoding.DecodeString(string(encoded)); err == nil {
				add(pair)
			}
		}
	}
	return texts
}

// providerIs says whether the credential's kind is one of the provider's file.
func providerIs(l *Lent, provider string) bool {
	id, _, _ := strings.Cut(l.Kind.ID, ".")
	return id == provider
}

// baseTarget is the host that a provider's base URL stands for: the first that
// is written out, of the kind or of the user.
func baseTarget(l *Lent) (target, bool) {
	for _, host := range slices.Concat(l.Kind.Hosts, l.Hosts) {
		if t, err := parseTarget(host, 443); err == nil && !strings.HasPrefix(host, "*") {
			return t, true
		}
	}
	return target{}, false
}
