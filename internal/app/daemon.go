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
	"postern/internal/config"
	"postern/internal/event"
	"postern/internal/fail"
	"postern/internal/safe"
	"postern/internal/secret"
)

const daemonSocket = "postern.sock"

// Serve is the daemon: it holds the safe open and serves agents until ctx ends.
// Where nobody can be asked for the passphrase it begins locked. proxy, where
// given, is an address for clients outside `run`.
func (a *App) Serve(ctx context.Context, proxy string, say func(format string, args ...any)) error {
	if a.daemonStatus(ctx).Running {
		return fail.New(fail.Conflict, "P-E150", "a daemon is running already").Hint("postern status")
	}
	listener, err := a.listenLocal()
	if err != nil {
		return err
	}
	defer listener.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s := &server{a: a, ctx: ctx, say: say, sessions: map[*session]bool{}}
	if proxy != "" {
		if s.proxy, err = net.Listen("tcp", proxy); err != nil {
			return fail.New(fail.Unavailable, "P-E151", "the proxy address cannot be used").Wrap(err)
		}
		say("proxy on %s", s.proxy.Addr())
	}
	if err := s.begin(ctx); err != nil {
		return err
	}
	s.work.Go(func() { <-ctx.Done(); _ = listener.Close() })
	say("serving on %s", listener.Addr())
	notifyReady(a.o.Getenv)
	s.accept(listener)
	cancel()
	s.closeAll()
	s.work.Wait()
	if d := s.current(); d != nil {
		d.close()
	}
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
	a     *App
	ctx   context.Context // of the daemon's life
	say   func(format string, args ...any)
	proxy net.Listener // nil without one
	work  sync.WaitGroup

	mu       sync.Mutex
	door     *door // nil until the safe is unlocked for the first time
	sessions map[*session]bool
}

func (s *server) current() *door {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.door
}

// begin opens the safe, or begins locked where that takes a passphrase which
// nobody can type.
func (s *server) begin(ctx context.Context) error {
	err := s.unlock(ctx, nil)
	var why *fail.Error
	if err == nil || s.a.Safe.RootKind() != config.RootPassphrase || !errors.As(err, &why) || why.ID != "P-E003" {
		return err
	}
	s.say("the safe is locked: calls with secrets are refused   next  postern safe unlock")
	return s.a.openLedger(ctx)
}

// unlock opens the safe with a passphrase that came over the socket, or by the way
// of this machine, and the door with it.
func (s *server) unlock(ctx context.Context, passphrase []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.a.unlockWith(ctx, passphrase); err != nil {
		return err
	}
	if s.door != nil {
		s.door.broker.ReloadAll()
		return s.a.recordLock(ctx, event.Unlocked)
	}
	if err := s.a.openLedger(ctx); err != nil {
		return err
	}
	d, err := s.a.openDoor(s.ctx, s.say)
	if err != nil {
		return err
	}
	s.door = d
	if s.proxy != nil {
		s.work.Go(func() { _ = d.broker.ServeProxy(s.ctx, s.proxy) })
	}
	return s.a.recordLock(ctx, event.Unlocked)
}

// lock forgets the keys and cuts what is using them.
func (s *server) lock(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.a.recordLock(ctx, event.LockedNow); err != nil {
		return err
	}
	lent := s.a.lentNow(ctx)
	s.a.Safe.Lock()
	if s.door != nil {
		s.door.broker.ReloadAll()
		for name := range lent {
			s.door.broker.Cut(name)
		}
	}
	return nil
}

func (s *server) status(ctx context.Context) api.Answer {
	if d := s.current(); d != nil {
		d.noteFirstUse(ctx)
	}
	state := "unlocked"
	if s.a.Safe.Locked() {
		state = "locked"
	}
	return api.Answer{Status: &api.Status{PID: os.Getpid(), Safe: state}}
}

// unlockWith opens the safe with a passphrase, or with the key that lies on this
// machine.
func (a *App) unlockWith(ctx context.Context, passphrase []byte) error {
	if len(passphrase) == 0 {
		return a.unlockSafe(ctx)
	}
	value := secret.New(passphrase)
	clear(passphrase)
	return a.Safe.Unlock(ctx, safe.Passphrase(func() (secret.Value, error) { return value, nil }))
}

func (s *server) accept(listener *net.UnixListener) {
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
		s.work.Go(func() {
			c.serve(s.ctx)
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
		if a.Safe.RootKind() != config.RootPassphrase {
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
