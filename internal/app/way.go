package app

import (
	"context"
	"net"
	"os"
	"sync"

	"postern/internal/broker"
	"postern/internal/client"
	"postern/internal/run"
)

// way is who serves a sandbox: the daemon, or a broker in this process.
type way interface {
	// serve takes the listening socket over.
	serve(ctx context.Context, listener *os.File, agent string, names broker.Names) error
	// filter masks one stream of output.
	filter() (run.Filter, error)
	// close ends everything; more than once does no harm.
	close()
}

// openWay takes the daemon where one is running with an open safe.
func (a *App) openWay(ctx context.Context, agent string, say func(format string, args ...any)) (way, error) {
	if c, err := a.dialDaemon(ctx); err == nil {
		status, err := c.Status(ctx)
		if err == nil && status.Safe == "unlocked" {
			return &daemonWay{a: a, c: c, ctx: ctx, agent: agent}, nil
		}
		_ = c.Close()
	}
	if a.Safe.Locked() { // the daemon went away just now
		if err := a.unlockSafe(ctx); err != nil {
			return nil, err
		}
	}
	d, err := a.openDoor(ctx, say)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	return &ownWay{a: a, d: d, ctx: ctx, cancel: cancel, agent: agent}, nil
}

// ownWay serves in this process.
type ownWay struct {
	a      *App
	d      *door
	ctx    context.Context
	cancel context.CancelFunc
	agent  string
	once   sync.Once
	work   sync.WaitGroup
}

func (w *ownWay) serve(_ context.Context, listener *os.File, agent string, names broker.Names) error {
	ln, err := net.FileListener(listener)
	_ = listener.Close()
	if err != nil {
		return err
	}
	w.work.Go(func() { _ = w.d.broker.ServeTransparent(w.ctx, run.Original(ln), agent, names) })
	return nil
}

func (w *ownWay) filter() (run.Filter, error) { return w.a.filter(w.ctx, w.agent) }

func (w *ownWay) close() {
	w.once.Do(func() {
		w.cancel()
		w.work.Wait()
		w.d.close()
	})
}

// daemonWay lets the daemon serve; this process never sees a value.
type daemonWay struct {
	a     *App
	c     *client.Client
	ctx   context.Context
	agent string
	once  sync.Once
}

func (w *daemonWay) serve(ctx context.Context, listener *os.File, agent string, names broker.Names) error {
	defer listener.Close()
	return w.c.Serve(ctx, agent, listener, names)
}

func (w *daemonWay) filter() (run.Filter, error) {
	c, err := w.a.dialDaemon(w.ctx)
	if err != nil {
		return nil, err
	}
	return c.Redact(w.ctx, w.agent)
}

func (w *daemonWay) close() {
	w.once.Do(func() {
		_ = w.c.Close()
		w.a.daemonStatus(context.WithoutCancel(w.ctx)) // it notes first uses before it answers
	})
}
