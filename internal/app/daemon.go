package app

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"postern/internal/api"
	"postern/internal/client"
	"postern/internal/event"
	"postern/internal/fail"
)

const daemonSocket = "postern.sock"

// Serve is the daemon: it holds the safe open and serves agents until ctx ends.
// proxy, where given, is an address for clients outside `run`.
func (a *App) Serve(ctx context.Context, proxy string, say func(format string, args ...any)) error {
	if a.daemonStatus(ctx).Running {
		return fail.New(fail.Conflict, "P-E150", "a daemon is running already").Hint("postern status")
	}
	listener, err := a.listenLocal()
	if err != nil {
		return err
	}
	defer listener.Close()
	s := &server{a: a, sessions: map[*session]bool{}}
	d, err := a.openDoor(ctx, say)
	if err != nil {
		return err
	}
	defer d.close()
	s.door = d
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var work sync.WaitGroup
	if proxy != "" {
		ln, err := net.Listen("tcp", proxy)
		if err != nil {
			return fail.New(fail.Unavailable, "P-E151", "the proxy address cannot be used").Wrap(err)
		}
		work.Go(func() { _ = d.broker.ServeProxy(ctx, ln) })
		say("proxy on %s", ln.Addr())
	}
	work.Go(func() { <-ctx.Done(); _ = listener.Close() })
	say("serving on %s", listener.Addr())
	notifyReady(a.o.Getenv)
	s.accept(ctx, listener, &work)
	cancel()
	s.closeAll()
	work.Wait()
	return nil
}

// listenLocal opens the daemon's socket, mode 0600, in a directory that is ours.
func (a *App) listenLocal() (*net.UnixListener, error) {
	if err := a.Paths.MakeRuntime(); err != nil {
		return nil, err
	}
	path, err := a.Paths.Socket(daemonSocket)
	if err != nil {
		return nil, err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("removing the socket of a daemon that ended: %w", err)
	}
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fail.New(fail.Unavailable, "P-E151", "the daemon's socket cannot be made").Wrap(err)
	}
	return listener, errors.Join(os.Chmod(path, 0o600))
}

// notifyReady tells systemd that the daemon serves, where it asked to be told.
func notifyReady(getenv func(string) string) {
	name := getenv("NOTIFY_SOCKET")
	if name == "" {
		return
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		return
	}
	defer conn.Close()
	_, _ = conn.Write([]byte("READY=1"))
}

// server is the daemon's side of the socket.
type server struct {
	a    *App
	door *door

	mu       sync.Mutex
	sessions map[*session]bool
}

func (s *server) accept(ctx context.Context, listener *net.UnixListener, work *sync.WaitGroup) {
	for {
		conn, err := listener.AcceptUnix()
		if err != nil {
			return
		}
		if !ownPeer(conn) {
			_ = conn.Close()
			continue
		}
		c := &session{server: s, conn: conn, wire: api.NewConn(conn)}
		s.mu.Lock()
		s.sessions[c] = true
		s.mu.Unlock()
		work.Go(func() {
			c.serve(ctx)
			s.mu.Lock()
			delete(s.sessions, c)
			s.mu.Unlock()
		})
	}
}

func (s *server) closeAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.sessions {
		_ = c.conn.Close()
	}
}

// ownPeer says whether the other end belongs to this user, or to root.
func ownPeer(conn *net.UnixConn) bool {
	raw, err := conn.SyscallConn()
	if err != nil {
		return false
	}
	var who *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		who, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil || credErr != nil {
		return false
	}
	return who.Uid == 0 || int(who.Uid) == os.Geteuid()
}

// daemonStatus asks the daemon how it is.
func (a *App) daemonStatus(ctx context.Context) DaemonStatus {
	c, err := a.dialDaemon(ctx)
	if err != nil {
		return DaemonStatus{}
	}
	defer c.Close()
	status, err := c.Status(ctx)
	if err != nil {
		return DaemonStatus{}
	}
	return DaemonStatus{Running: true, PID: status.PID, Safe: status.Safe}
}

func (a *App) dialDaemon(ctx context.Context) (*client.Client, error) {
	path, err := a.Paths.Socket(daemonSocket)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	return client.Dial(ctx, path)
}

// LockDaemon makes the daemon forget the keys.
func LockDaemon(ctx context.Context, o Options) error {
	return withDaemon(ctx, o, func(_ *App, c *client.Client) error { return c.Lock(ctx) })
}

// UnlockDaemon gives the daemon what opens the safe again.
func UnlockDaemon(ctx context.Context, o Options) error {
	return withDaemon(ctx, o, func(a *App, c *client.Client) error {
		if a.Safe.RootKind() != "passphrase" {
			return c.Unlock(ctx, nil)
		}
		value, err := o.Passphrase("Passphrase of the safe:")
		if err != nil {
			return err
		}
		return value.Reveal(func(b []byte) error { return c.Unlock(ctx, b) })
	})
}

func withDaemon(ctx context.Context, o Options, use func(*App, *client.Client) error) error {
	a, err := OpenLocked(ctx, o)
	if err != nil {
		return err
	}
	defer a.Close()
	c, err := a.dialDaemon(ctx)
	if err != nil {
		return fail.New(fail.Unavailable, "P-E152", "no daemon is running").Because("commands open the safe by themselves then, so there is nothing to lock").Hint("postern serve")
	}
	defer c.Close()
	return use(a, c)
}

// recordLock notes that the daemon's safe was locked or unlocked.
func (a *App) recordLock(ctx context.Context, kind event.Kind) error {
	return a.Record(ctx, event.Event{Kind: kind, Detail: map[string]string{"by": "daemon"}})
}
