package run

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"postern/internal/fail"
)

// dialHost connects to a service of the host.
func dialHost(at netip.AddrPort) func() (net.Conn, error) {
	return func() (net.Conn, error) { return net.DialTimeout("tcp", at.String(), 10*time.Second) }
}

// accept joins every connection of ln with one that dial opens.
func accept(ln net.Listener, dial func() (net.Conn, error)) {
	for {
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			other, err := dial()
			if err != nil {
				return
			}
			defer other.Close()
			copyBoth(conn, other)
		}()
	}
}

// copyBoth copies both ways until both ends are done; between two sockets the
// kernel does it.
func copyBoth(a, b net.Conn) {
	var both sync.WaitGroup
	for _, way := range [][2]net.Conn{{a, b}, {b, a}} {
		both.Go(func() {
			_, err := io.Copy(way[0], way[1])
			if tcp, isTCP := way[0].(*net.TCPConn); isTCP && err == nil {
				_ = tcp.CloseWrite()
				return
			}
			_ = a.Close()
			_ = b.Close()
		})
	}
	both.Wait()
}

// publish opens the host's side of the published ports.
func (p *Process) publish() error {
	for _, port := range p.spec.Publish {
		ln, err := net.Listen("tcp", port.Host.String())
		if err != nil {
			return fail.New(fail.Unavailable, "P-E125", "port %s cannot be published", port.Host).Wrap(err).Hint("--publish ADDR:PORT   another address or port")
		}
		p.onClose(func() { _ = ln.Close() })
		go accept(ln, func() (net.Conn, error) { return p.dialInside(port.Port) })
	}
	return nil
}

// dialInside connects to a loopback port of the command.
func (p *Process) dialInside(port uint16) (net.Conn, error) {
	id, box := p.newJob()
	defer p.forget(id)
	if err := p.control.send(message{Dial: port, Job: id}); err != nil {
		return nil, err
	}
	a, lives := p.hear(box)
	if !lives {
		return nil, errors.New("the command has ended")
	}
	defer closeAll(a.files)
	if len(a.files) != 1 {
		return nil, errors.New(a.message.Error)
	}
	return net.FileConn(a.files[0])
}
