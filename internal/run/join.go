package run

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"postern/internal/fail"
)

// Join starts one more command in the sandbox that listens at Socket: of s only
// Command, Dir, Env, the streams and Filter count. The command waits until
// Release; it ends with the sandbox at the latest. Without a sandbox there the
// error's kind is NotFound.
func Join(ctx context.Context, s Spec) (*Process, error) {
	if len(s.Command) == 0 {
		return nil, fail.New(fail.Invalid, "P-E124", "there is no command to start")
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unixpacket", s.Socket)
	if err != nil {
		return nil, fail.New(fail.NotFound, "P-E129", "no sandbox is running there").Wrap(err)
	}
	p := newProcess(s, &channel{conn: conn.(*net.UnixConn)})
	p.job(0)
	go p.listen()
	return p, nil
}

// serveJoins lets other runs of the same user start commands in the sandbox.
func (p *Process) serveJoins() error {
	if p.spec.Socket == "" {
		return nil
	}
	// Left over by a run that was killed: a live one would have been joined.
	if err := os.Remove(p.spec.Socket); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return ownFailure(err)
	}
	old := unix.Umask(0o177)
	ln, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: p.spec.Socket, Net: "unixpacket"})
	unix.Umask(old)
	if err != nil {
		return ownFailure(err)
	}
	p.onClose(func() { _ = ln.Close() })
	go func() {
		for {
			conn, err := ln.AcceptUnix()
			if err != nil {
				return
			}
			go p.serveJoin(&channel{conn: conn})
		}
	}()
	return nil
}

// serveJoin carries the messages of one more command, until either side ends.
func (p *Process) serveJoin(other *channel) {
	defer other.close()
	if !sameUser(other.conn) {
		return
	}
	m, files, err := other.receive()
	if err != nil || !m.Exec {
		closeAll(files)
		return
	}
	id, box := p.newJob()
	defer p.forget(id)
	err = p.control.send(message{Exec: true, Job: id}, files...)
	closeAll(files)
	if err != nil {
		return
	}
	go func() {
		for {
			m, files, err := other.receive()
			closeAll(files)
			if err != nil {
				_ = p.control.send(message{Signal: int(syscall.SIGKILL), Group: true, Job: id})
				return
			}
			if m.Signal != 0 {
				_ = p.control.send(message{Signal: m.Signal, Group: m.Group, Job: id})
			}
		}
	}()
	for {
		a, lives := p.hear(box)
		if !lives {
			return
		}
		a.message.Job = 0
		err := other.send(a.message, a.files...)
		closeAll(a.files)
		if err != nil || a.message.Done {
			return
		}
	}
}

// sameUser says whether the other end of a local socket is ours, or root's.
func sameUser(conn *net.UnixConn) bool {
	raw, err := conn.SyscallConn()
	if err != nil {
		return false
	}
	same := false
	err = raw.Control(func(fd uintptr) {
		peer, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
		same = err == nil && (peer.Uid == 0 || int(peer.Uid) == os.Geteuid())
	})
	return err == nil && same
}
