package broker

import (
	"net"
	"slices"
	"sync"
)

// registry knows what is under way, so that it can be cut.
type registry struct {
	mu    sync.Mutex
	conns map[*liveConn]struct{}
}

// liveUse is what the policy allowed, to be asked again when it changes.
type liveUse struct {
	credential, host, method string
	paths                    []string
}

// liveConn is one agent connection. The uses are those of right now.
type liveConn struct {
	reg   *registry
	mu    sync.Mutex
	agent string
	using []liveUse
	to    string      // "name:port", of a tunnel
	ends  [2]net.Conn // the agent's and the upstream's
	stop  func()      // ends a stream of an HTTP/2 upstream
	cut   bool
}

func (r *registry) init() { r.conns = map[*liveConn]struct{}{} }

func (r *registry) open(c net.Conn) *liveConn {
	l := &liveConn{reg: r}
	l.ends[0] = c
	r.mu.Lock()
	r.conns[l] = struct{}{}
	r.mu.Unlock()
	return l
}

func (l *liveConn) close() {
	l.reg.mu.Lock()
	delete(l.reg.conns, l)
	l.reg.mu.Unlock()
}

// owner says whose connection it is, once that is known.
func (l *liveConn) owner(agent string) {
	l.mu.Lock()
	l.agent = agent
	l.mu.Unlock()
}

// use marks the connection as using a credential; it returns false once the
// connection has been cut.
func (l *liveConn) use(u liveUse) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.using = append(l.using, u)
	return !l.cut
}

// tunnel marks the connection as going through to a destination uninspected.
func (l *liveConn) tunnel(to string, upstream net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.to, l.ends[1] = to, upstream
	return !l.cut
}

func (l *liveConn) upstream(c net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ends[1] = c
	return !l.cut
}

// stream is upstream for a stream that is ended by stop.
func (l *liveConn) stream(stop func()) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stop = stop
	return !l.cut
}

func (l *liveConn) idle() {
	l.mu.Lock()
	l.using, l.ends[1], l.stop = l.using[:0], nil, nil
	l.mu.Unlock()
}

func (l *liveConn) wasCut() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cut
}

// end cuts the connection and says whether it had not been cut before.
func (l *liveConn) end() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	before := l.cut
	l.cut = true
	if l.stop != nil {
		l.stop()
	}
	for _, c := range l.ends {
		if c != nil {
			_ = c.Close()
		}
	}
	return !before
}

func (r *registry) each(match func(*liveConn) bool) int {
	r.mu.Lock()
	var hit []*liveConn
	for l := range r.conns {
		if match(l) {
			hit = append(hit, l)
		}
	}
	r.mu.Unlock()
	n := 0
	for _, l := range hit {
		if l.end() {
			n++
		}
	}
	return n
}

// Cut closes every connection that is using the credential at this moment,
// streams and WebSockets included, and says how many. Disable or revoke the
// credential first: what starts later is refused by the lease.
func (b *Broker) Cut(credential string) int {
	return b.live.each(func(l *liveConn) bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return slices.ContainsFunc(l.using, func(u liveUse) bool { return u.credential == credential })
	})
}

// Recheck asks the policy again about all that is under way, closes what it no
// longer allows, and says how many. Call it after a change of policy.
func (b *Broker) Recheck() int {
	return b.live.each(func(l *liveConn) bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.to != "" && !b.cfg.Decider.Egress(l.agent, l.to).Allow {
			return true
		}
		for _, u := range l.using {
			for _, path := range u.paths {
				r := Request{Agent: l.agent, Credential: u.credential, Host: u.host, Method: u.method, Path: path}
				if !b.cfg.Decider.Decide(r).Allow {
					return true
				}
			}
		}
		return false
	})
}

// CutAgent closes every connection of the agent, tunnels included.
func (b *Broker) CutAgent(agent string) int {
	return b.live.each(func(l *liveConn) bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.agent == agent
	})
}
