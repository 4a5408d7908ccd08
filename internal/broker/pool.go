package broker

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"postern/internal/broker/http1"
)

const (
	idleTime    = 90 * time.Second
	idlePerHost = 256 // Go's default of 2 costs 4.4 times the CPU at 8 connections
	sessionsMax = 256
	silence     = 15 * time.Minute // of a provider in the middle of an answer
)

// upstreamKey says which connections may stand in for one another: never the
// credential, because headers carry identity and connections do not.
type upstreamKey struct {
	hostport string
	tls      bool
}

// upstream is one connection to a provider.
type upstream struct {
	key    upstreamKey
	conn   net.Conn
	raw    syscall.RawConn // of the socket below TLS
	r      *http1.Reader
	h2     *http.ClientConn
	reused bool
	since  time.Time
	source patient
}

// patient reads from an upstream that may be silent for limit at most, where
// that is not zero.
type patient struct {
	conn  net.Conn
	limit time.Duration
}

func (p *patient) Read(b []byte) (int, error) {
	if p.limit > 0 {
		_ = p.conn.SetReadDeadline(time.Now().Add(p.limit))
	}
	return p.conn.Read(b)
}

// socket is the connection below TLS: closing it never waits for the peer.
func (u *upstream) socket() net.Conn {
	if secure, ok := u.conn.(*tls.Conn); ok {
		return secure.NetConn()
	}
	return u.conn
}

// close ends the connection; one of HTTP/2 goes on, for its other streams.
func (u *upstream) close() {
	if u.h2 != nil {
		return
	}
	u.r.Drop()
	_ = u.conn.Close()
}

// pool keeps idle connections, the newest first, and one HTTP/2 connection for
// each host that offers nothing else.
type pool struct {
	b        *Broker
	sessions tls.ClientSessionCache

	mu     sync.Mutex
	idle   map[upstreamKey][]*upstream
	shared map[upstreamKey]*upstream
	reaper *time.Timer
	closed bool
}

func (p *pool) init(b *Broker) {
	p.b = b
	p.sessions = tls.NewLRUClientSessionCache(sessionsMax)
	p.idle, p.shared = map[upstreamKey][]*upstream{}, map[upstreamKey]*upstream{}
}

// get returns an idle connection that is still open, or dials one. With fresh
// it always dials.
func (p *pool) get(ctx context.Context, t target, secure, fresh bool) (*upstream, error) {
	key := upstreamKey{t.key, secure}
	if u := p.stream(key); u != nil {
		return u, nil
	}
	for !fresh {
		u := p.pop(key)
		if u == nil {
			break
		}
		if u.usable() {
			u.reused = true
			return u, nil
		}
		u.close()
	}
	raw, err := p.b.dial(ctx, t, false)
	if err != nil {
		return nil, err
	}
	u := &upstream{key: key, conn: raw}
	if s, ok := raw.(syscall.Conn); ok {
		u.raw, _ = s.SyscallConn()
	}
	if secure {
		if err := p.secure(ctx, u, raw, t); err != nil {
			return nil, err
		}
	}
	if u.h2 == nil {
		u.source.conn = u.conn
		u.r = http1.NewReader(&u.source, &p.b.buffers)
	}
	return u, nil
}

// stream is the host's HTTP/2 connection with a stream reserved, if it has one.
func (p *pool) stream(key upstreamKey) *upstream {
	p.mu.Lock()
	u := p.shared[key]
	p.mu.Unlock()
	if u == nil || u.h2.Reserve() != nil {
		return nil
	}
	return u
}

// secure offers HTTP/1.1, which is the cheaper of the two, and
// HTTP/2 only where the provider has nothing else.
func (p *pool) secure(ctx context.Context, u *upstream, raw net.Conn, t target) error {
	p.mu.Lock()
	_, only2 := p.shared[u.key]
	p.mu.Unlock()
	if !only2 {
		c, err := p.b.secure(ctx, raw, t.host, "http/1.1")
		if err == nil {
			u.conn = c
			return nil
		}
		if !noProtocol(err) {
			return err
		}
		if raw, err = p.b.dial(ctx, t, false); err != nil {
			return err
		}
	}
	c, err := p.b.secure(ctx, raw, t.host, "h2")
	if err != nil {
		return err
	}
	if c.ConnectionState().NegotiatedProtocol != "h2" { // it has learned HTTP/1.1 since
		u.conn = c
		p.mu.Lock()
		delete(p.shared, u.key)
		p.mu.Unlock()
		return nil
	}
	u.conn = c
	return p.share(u)
}

// share makes u the host's HTTP/2 connection. One that it replaces ends with its
// streams.
func (p *pool) share(u *upstream) error {
	only2 := new(http.Protocols)
	only2.SetHTTP2(true)
	tr := &http.Transport{
		DialTLSContext: func(context.Context, string, string) (net.Conn, error) { return u.conn, nil },
		Protocols:      only2, DisableCompression: true, MaxResponseHeaderBytes: http1.MaxHead, IdleConnTimeout: idleTime,
		HTTP2: &http.HTTP2Config{SendPingTimeout: pingAfter},
	}
	h2, err := tr.NewClientConn(context.Background(), "https", u.key.hostport)
	if err == nil {
		err = h2.Reserve()
	}
	if err != nil {
		_ = u.conn.Close()
		return err
	}
	u.h2 = h2
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return net.ErrClosed
	}
	p.shared[u.key] = u
	return nil
}

// pingAfter is after how much silence an HTTP/2 connection is asked for life.
const pingAfter = 30 * time.Second

// noProtocol says whether the peer's alert was no_application_protocol (RFC 7301
// §3.2). The type of a received alert is not exported, its text is.
func noProtocol(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "remote error" && op.Err.Error() == tls.AlertError(120).Error()
}

func (p *pool) pop(key upstreamKey) *upstream {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := p.idle[key]
	if len(list) == 0 {
		return nil
	}
	u := list[len(list)-1]
	list[len(list)-1] = nil
	p.idle[key] = list[:len(list)-1]
	return u
}

// put keeps a connection whose last response was read to its end.
func (p *pool) put(u *upstream) {
	if u.h2 != nil { // a stream of it is reserved that nobody uses
		u.h2.Release()
		return
	}
	if len(u.r.Buffered()) > 0 { // an answer that nobody asked for
		u.close()
		return
	}
	u.r.Release()
	u.source.limit = 0
	_ = u.conn.SetDeadline(time.Time{})
	u.since = time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	list := p.idle[u.key]
	if p.closed || len(list) >= idlePerHost {
		u.close()
		return
	}
	p.idle[u.key] = append(list, u)
	if p.reaper == nil {
		p.reaper = time.AfterFunc(idleTime, p.reap)
	}
}

// usable says whether the peer has neither closed nor sent anything: whatever
// can be read from an idle connection makes it useless.
func (u *upstream) usable() bool {
	if time.Since(u.since) > idleTime {
		return false
	}
	if u.raw == nil {
		return true
	}
	quiet := false
	err := u.raw.Control(func(fd uintptr) {
		set := [1]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN | unix.POLLRDHUP}}
		n, err := unix.Poll(set[:], 0)
		quiet = n == 0 && err == nil
	})
	return err == nil && quiet
}

// reap closes what has been idle for too long.
func (p *pool) reap() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.reaper = nil
	left := false
	for key, list := range p.idle {
		keep := list[:0]
		for _, u := range list {
			if time.Since(u.since) >= idleTime {
				u.close()
			} else {
				keep = append(keep, u)
			}
		}
		clear(list[len(keep):])
		if len(keep) == 0 {
			delete(p.idle, key)
			continue
		}
		p.idle[key], left = keep, true
	}
	if left && !p.closed {
		p.reaper = time.AfterFunc(idleTime/2, p.reap)
	}
}

func (p *pool) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	if p.reaper != nil {
		p.reaper.Stop()
	}
	for _, list := range p.idle {
		for _, u := range list {
			u.close()
		}
	}
	clear(p.idle)
	for _, u := range p.shared {
		_ = u.h2.Close()
	}
	clear(p.shared)
}
