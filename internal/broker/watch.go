package broker

import (
	"crypto/tls"
	"io"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// watchEvery is how often a waiting call looks whether its agent is still there.
const watchEvery = 2 * time.Second

// agentGone is the reason of an outcome.
const agentGone = "the agent went away before the end of the answer"

// watch ends a call whose agent has hung up, because providers go on working,
// and charging, until their own connection closes. The exchange's lock guards it.
type watch struct {
	agent    syscall.RawConn // nil: not watched
	upstream io.Closer       // nil: nothing is waited for
	timer    *time.Timer
	gone     bool
}

// rawOf is the socket below an agent's TLS. A connection in the clear is not
// watched: there are clients that close their half after the request.
func rawOf(c net.Conn) syscall.RawConn {
	secure, ok := c.(*tls.Conn)
	if !ok {
		return nil
	}
	c = secure.NetConn()
	if p, ok := c.(*peeked); ok {
		c = p.Conn
	}
	socket, ok := c.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return nil
	}
	return raw
}

// watchFor closes upstream when the agent hangs up before unwatch.
func (x *exchange) watchFor(upstream io.Closer) {
	if x.watch.agent == nil {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.watch.upstream, x.watch.gone = upstream, false
	if x.watch.timer == nil {
		x.watch.timer = time.AfterFunc(watchEvery, x.lookAtAgent)
	} else {
		x.watch.timer.Reset(watchEvery)
	}
}

// unwatch ends the watch and says whether the agent has hung up.
func (x *exchange) unwatch() bool {
	if x.watch.agent == nil {
		return false
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.watch.timer != nil {
		x.watch.timer.Stop()
	}
	x.watch.upstream = nil
	return x.watch.gone
}

func (x *exchange) lookAtAgent() {
	x.mu.Lock()
	defer x.mu.Unlock()
	switch {
	case x.watch.upstream == nil:
	case hungUp(x.watch.agent):
		x.watch.gone = true
		_ = x.watch.upstream.Close()
	default:
		x.watch.timer.Reset(watchEvery)
	}
}

// hungUp says whether the peer has closed its side.
func hungUp(raw syscall.RawConn) bool {
	over := false
	err := raw.Control(func(fd uintptr) {
		set := [1]unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
		n, err := unix.Poll(set[:], 0)
		over = err == nil && n > 0
	})
	return over || err != nil
}
