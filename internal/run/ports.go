package run

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"postern/internal/fail"
)

// carry serves a listening socket that was made inside by connecting to the
// host's service at the same address.
func carry(fd int, to netip.AddrPort) (stop func(), err error) {
	inside, err := listener(fd)
	if err != nil {
		return nil, err
	}
	go accept(inside, func() (net.Conn, error) { return net.DialTimeout("tcp", to.String(), 10*time.Second) })
	return func() { _ = inside.Close() }, nil
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
			join(conn, other)
		}()
	}
}

// join copies both ways until both ends are done.
func join(a, b net.Conn) {
	defer b.Close()
	var both sync.WaitGroup
	for _, way := range [][2]net.Conn{{a, b}, {b, a}} {
		both.Go(func() {
			_, _ = io.Copy(way[0], way[1])
			if tcp, ok := way[0].(*net.TCPConn); ok {
				_ = tcp.CloseWrite()
			}
		})
	}
	both.Wait()
}

// publish opens the host's side of the published ports.
func (p *Process) publish() error {
	for _, port := range p.spec.Publish {
		ln, err := net.Listen("tcp", port.Host.String())
		if err != nil {
			p.kill()
			return fail.New(fail.Unavailable, "P-E125", "port %s cannot be published", port.Host).Wrap(err).Hint("--publish ADDR:PORT   another address or port")
		}
		p.closers = append(p.closers, func() { _ = ln.Close() })
		go accept(ln, func() (net.Conn, error) { return p.dialInside(port.Port) })
	}
	return nil
}

// dialInside connects to a loopback port of the command.
func (p *Process) dialInside(port uint16) (net.Conn, error) {
	id, box := p.newJob()
	defer p.forget(id)
	if err := p.send(message{Dial: port, Job: id}); err != nil {
		return nil, err
	}
	select {
	case a := <-box:
		if len(a.files) != 1 {
			return nil, errors.New(a.message.Error)
		}
		file := os.NewFile(uintptr(a.files[0]), "published")
		defer file.Close()
		return net.FileConn(file)
	case <-p.ended:
		return nil, errors.New("the command has ended")
	}
}

func (p *Process) forget(id int) {
	p.jobs.Lock()
	defer p.jobs.Unlock()
	delete(p.waiting, id)
}

// Exec starts one more command in the same sandbox, with files as its standard
// descriptors, and gives its exit code. signals are passed on to it.
func (p *Process) Exec(command []string, dir string, env []string, files [3]*os.File, signals <-chan int) (int, error) {
	id, box := p.newJob()
	defer p.forget(id)
	m := message{Exec: &exec{Command: command, Dir: dir, Env: env, User: p.spec.User}, Job: id}
	if err := p.send(m, int(files[0].Fd()), int(files[1].Fd()), int(files[2].Fd())); err != nil {
		return 125, ownFailure(err)
	}
	for {
		select {
		case a := <-box:
			return a.message.Code, nil
		case number, more := <-signals:
			if !more {
				signals = nil
				continue
			}
			_ = p.send(message{Signal: number, Job: id})
		case <-p.ended:
			return 125, ownFailure(errors.New("the sandbox has ended"))
		}
	}
}
