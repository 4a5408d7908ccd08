package broker

import (
	"bytes"
	"context"
	"errors"
	"net"
	"slices"
	"sync"
	"time"

	"postern/internal/broker/http1"
	"postern/internal/event"
)

const (
	agentIdle  = 15 * time.Minute // between two requests of an agent
	headTime   = 30 * time.Second // from a head's first byte to its last
	outBuffer  = 32 << 10
	outRelease = 128 << 10 // larger buffers are not kept
	maxMethod  = 32
)

// exchange is one connection of an agent that speaks HTTP, with the request
// that is under way on it. Its buffers are used again by the next request.
type exchange struct {
	b    *Broker
	e    *agentEntry
	conn net.Conn
	r    *http1.Reader
	live *liveConn

	// what the connection, or for a proxy the request, is bound to
	t       target
	secure  bool // the upstream is spoken to by TLS
	egress  EgressDecision
	bind    func(context.Context, *exchange) *refusal // per request; nil: fixed by the connection
	connect func(context.Context, *exchange)          // serves a CONNECT; nil: refused
	only    *refusal                                  // what every request is answered with

	// the request
	head    http1.Head
	body    http1.Body
	target  []byte // origin form
	id      string
	method  string
	path    string // for policy and record
	views   []string
	view    *view
	host    *hostView
	fresh   bool // the view was rebuilt for this request
	matches []match
	marks   int // placeholders in the head, those of Basic and of escapes apart
	scratch []byte
	start   time.Time
	rule    string // the policy's, of the last use that it allowed
	durable bool
	up      upload
	whole   bool // out holds all of the request

	// the response
	resp     http1.Head
	respBody http1.Body
	out      []byte
	got      int64 // body bytes to the agent
	hits     int
	began    bool // a byte of the response went out
	parsed   bool // the request's head was read to its end
	upload   chan upload

	mu       sync.Mutex // between forward, the rest of an upload and the watch
	answered bool       // the upstream's response has begun
	watch    watch
}

// newExchange serves conn, whose bytes come from r, as agent e.
func (b *Broker) newExchange(e *agentEntry, conn net.Conn, r *http1.Reader, l *liveConn) *exchange {
	return &exchange{b: b, e: e, conn: conn, r: r, live: l, watch: watch{agent: rawOf(conn)}}
}

// serve answers requests until the connection ends.
func (x *exchange) serve(ctx context.Context) {
	defer x.r.Drop()
	for x.next(ctx) {
		x.live.idle()
		x.r.Release()
		x.release()
	}
	x.release()
}

// release gives the output buffer back, wiped.
func (x *exchange) release() {
	if x.out == nil {
		return
	}
	clear(x.out[:cap(x.out)])
	if cap(x.out) <= outRelease {
		buf := x.out[:0]
		x.b.outs.Put(&buf)
	}
	x.out = nil
	clear(x.scratch)
	x.scratch = x.scratch[:0]
}

func (x *exchange) buffer() {
	if x.out != nil {
		x.out = x.out[:0]
		return
	}
	if p, ok := x.b.outs.Get().(*[]byte); ok {
		x.out = (*p)[:0]
		return
	}
	x.out = make([]byte, 0, outBuffer+1024)
}

// next serves one request; false ends the connection.
func (x *exchange) next(ctx context.Context) bool {
	_ = x.conn.SetReadDeadline(time.Now().Add(agentIdle))
	if err := x.r.Wait(); err != nil {
		return false
	}
	_ = x.conn.SetReadDeadline(time.Now().Add(headTime))
	x.reset()
	err := x.r.ReadRequest(&x.head)
	x.parsed = err == nil
	if err != nil {
		if http1.Refused(err) {
			var why *http1.Error
			errors.As(err, &why)
			x.refuse(ctx, malformed(why.Text))
		}
		return false
	}
	_ = x.conn.SetReadDeadline(time.Time{})
	x.body.Start(x.r, &x.head, true)
	if x.connect != nil && string(x.head.Method) == "CONNECT" {
		x.connect(ctx, x)
		return false
	}
	if r := x.admit(ctx); r != nil {
		x.refuse(ctx, r)
		return false
	}
	return x.forward(ctx)
}

func (x *exchange) reset() {
	x.buffer()
	x.id, x.start = x.b.ids.new(), x.b.cfg.Now()
	x.method, x.path, x.views, x.target = "", "", nil, nil
	x.view, x.host, x.fresh, x.matches = nil, nil, false, x.matches[:0]
	x.scratch = x.scratch[:0]
	x.up, x.whole, x.upload, x.rule, x.durable = upload{}, false, nil, "", false
	x.got, x.hits, x.began, x.parsed, x.answered = 0, 0, false, false, false
}

// admit binds, parses and decides; it returns why the request is refused.
func (x *exchange) admit(ctx context.Context) *refusal {
	if x.method = methodName(x.head.Method); len(x.method) > maxMethod {
		x.method = ""
		return malformed("the method is longer than that of any server")
	}
	if x.only != nil {
		return x.only
	}
	switch x.method {
	case "CONNECT", "TRACE", "TRACK":
		r := malformed("the method " + x.method + " is not passed")
		r.status, r.rule = 405, ruleMethod
		return r
	}
	if r := x.bindRequest(ctx); r != nil {
		return r
	}
	return x.decide(ctx)
}

// bindRequest makes sure that the request is for the one name that the
// connection stands for.
func (x *exchange) bindRequest(ctx context.Context) *refusal {
	if x.bind != nil {
		return x.bind(ctx, x)
	}
	x.target = x.head.Target
	usual := 443
	if !x.secure {
		usual = 80
	}
	if x.target[0] != '/' && !(string(x.target) == "*" && x.method == "OPTIONS") {
		scheme, rest, _ := bytes.Cut(x.target, []byte("://"))
		if !http1.EqualFold(scheme, map[bool]string{true: "https", false: "http"}[x.secure]) {
			return malformed("the target is neither a path nor an address of this host")
		}
		authority, path := splitAuthority(rest)
		if !x.t.matches(authority, usual) {
			return misdirected("the target names another host than the connection")
		}
		x.target = path
	}
	if !x.t.matches(x.head.Host, usual) {
		return misdirected("Host names another host than the connection, which is for " + x.t.key)
	}
	return nil
}

// splitAuthority cuts what follows "://" into authority and origin form.
func splitAuthority(rest []byte) (authority, path []byte) {
	cut := bytes.IndexAny(rest, "/?")
	switch {
	case cut < 0:
		return rest, []byte("/")
	case rest[cut] == '?':
		return rest[:cut], append([]byte("/"), rest[cut:]...)
	}
	return rest[:cut], rest[cut:]
}

// decide finds the placeholders and asks the policy about each of them.
func (x *exchange) decide(ctx context.Context) *refusal {
	x.e.stats.requests.Add(1)
	if x.egress = x.b.cfg.Decider.Egress(x.e.name, x.t.key); !x.egress.Allow {
		return egressRefusal(x.egress, x.t.key)
	}
	if up := x.head.Upgrade; up != nil && !http1.EqualFold(up, "websocket") || x.head.Get("http2-settings") != nil {
		r := malformed("a switch to a protocol other than websocket was asked for")
		r.rule = ruleUpgrade
		return r
	}
	if r := x.look(ctx); r != nil {
		return r
	}
	if len(x.matches) == 0 {
		return x.carried()
	}
	if !x.secure {
		return cleartext(x.matches[0].lent.Credential)
	}
	if x.views == nil {
		return &refusal{status: 400, id: "P-E100", kind: event.Malformed, rule: rulePath, message: errPath.Error()}
	}
	if overridden(&x.head, x.target) {
		return &refusal{status: 400, id: "P-E100", kind: event.Malformed, rule: ruleMethod, message: "the request names a second method"}
	}
	for _, m := range x.matches {
		if r := x.ask(m.lent.Credential); r != nil {
			return r
		}
	}
	return nil
}

// carried judges a request that uses no placeholder but may carry a real value
// all the same: where no grant names the host, it does not leave in the head.
func (x *exchange) carried() *refusal {
	if len(x.host.lents) > 0 || x.view.matcher.Empty() {
		return nil
	}
	if _, hits := x.view.matcher.Replace(x.head.Raw()); hits > 0 {
		return tripwire("", "a real value of the agent's credentials stands in a request to "+x.t.key)
	}
	return nil
}

// ask asks the policy about one credential, for every reading of the path. The
// use is marked first, so that a change of policy in between is not missed.
func (x *exchange) ask(credential string) *refusal {
	if !x.live.use(liveUse{credential, x.t.key, x.method, x.views}) {
		return x.cutRefusal(credential)
	}
	for _, path := range x.views {
		d := x.b.cfg.Decider.Decide(Request{Agent: x.e.name, Credential: credential, Host: x.t.key, Method: x.method, Path: path})
		if !d.Allow {
			return policyRefusal(d, credential, x.t.key)
		}
		x.durable = x.durable || d.Durable
		x.rule = d.Rule
	}
	return nil
}

// look finds the request's placeholders with the agent's current view, and
// once more with a new view where the store knows more.
func (x *exchange) look(ctx context.Context) *refusal {
	for {
		v, err := x.b.viewOf(ctx, x.e)
		if err != nil {
			return unavailable(ruleReady, "the agent's values cannot be read, so nothing could be masked: "+reason(err))
		}
		x.view, x.host = v, v.at(x.t)
		x.readPath(nil)
		r, err := x.find()
		if errors.Is(err, errStale) {
			x.e.view.CompareAndSwap(v, nil)
			x.fresh = true
			continue
		}
		if r == nil {
			if slices.ContainsFunc(x.matches, func(m match) bool { return m.place == inPath }) {
				x.readPath(x.matches)
			}
			x.up.quoted = x.quotedHead()
		}
		return r
	}
}

// readPath sets path and views, with the token of a path slot taken out.
func (x *exchange) readPath(matches []match) {
	path, _, _ := bytes.Cut(x.target, []byte("?"))
	for _, m := range matches {
		if m.place == inPath {
			path = append(append(append([]byte{}, path[:m.from]...), tokenView...), path[m.to:]...)
		}
	}
	views, err := pathViews(path)
	if err != nil {
		x.views, x.path = nil, maskPath(x.host, x.view, path)
		return
	}
	x.views, x.path = views, views[0]
}

// maskPath is the path as a record may show it: without what stands in the
// place of a token, and without any known value.
func maskPath(h *hostView, v *view, path []byte) string {
	for _, slot := range h.paths {
		if rest, ok := bytes.CutPrefix(path, []byte(slot.before)); ok && slot.before != "/" {
			if cut := bytes.IndexByte(rest, '/'); cut >= 0 {
				return slot.before + tokenView + string(rest[cut:])
			}
			return slot.before + tokenView
		}
	}
	masked, _ := v.matcher.Replace(path)
	return string(masked)
}

// quotedHead says whether a placeholder stands in the head outside the slots.
func (x *exchange) quotedHead() bool {
	plain := 0
	for _, m := range x.matches {
		if m.place != inBasic {
			plain++
		}
	}
	return x.marks > plain
}

// overridden says whether a header or the query names a second method.
func overridden(h *http1.Head, target []byte) bool {
	for _, f := range h.Fields {
		if len(f.Name) >= 13 && (http1.EqualFold(f.Name, "x-http-method-override") || http1.EqualFold(f.Name, "x-http-method") || http1.EqualFold(f.Name, "x-method-override")) {
			return true
		}
	}
	_, query, _ := bytes.Cut(target, []byte("?"))
	return bytes.HasPrefix(query, []byte("_method=")) || bytes.Contains(query, []byte("&_method="))
}

// methodName is the method as a string, without an allocation for the usual ones.
func methodName(m []byte) string {
	switch string(m) {
	case "GET":
		return "GET"
	case "POST":
		return "POST"
	case "PUT":
		return "PUT"
	case "PATCH":
		return "PATCH"
	case "DELETE":
		return "DELETE"
	case "HEAD":
		return "HEAD"
	case "OPTIONS":
		return "OPTIONS"
	}
	return string(m)
}
