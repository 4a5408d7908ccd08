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

// liveConn is one agent connection. The credentials are those in use right now.
type liveConn struct {
	reg   *registry
	agent string
	mu    sync.Mutex
	using []string
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

// use marks the connection as using a credential over upstream; it returns
// false once the connection has been cut.
func (l *liveConn) use(credential string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.using = append(l.using, credential)
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

func (l *liveConn) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut = true
	if l.stop != nil {
		l.stop()
	}
	for _, c := range l.ends {
		if c != nil {
			_ = c.Close()
		}
	}
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
	for _, l := range hit {
		l.end()
	}
	return len(hit)
}

// Cut closes every connection that is using the credential at this moment,
// streams and WebSockets included, and says how many. Disable or revoke the
// credential first: what starts later is refused by the lease.
func (b *Broker) Cut(credential string) int {
	return b.live.each(func(l *liveConn) bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return slices.Contains(l.using, credential)
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
