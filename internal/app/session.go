package app

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"

	"postern/internal/api"
	"postern/internal/fail"
	"postern/internal/run"
	"postern/internal/secret"
)

// session is one connection of a client to the daemon.
type session struct {
	server *server
	conn   *net.UnixConn
	wire   *api.Conn
}

func (c *session) serve(ctx context.Context) {
	defer c.conn.Close()
	for {
		var r api.Request
		files, err := c.wire.Receive(&r, 1)
		if err != nil {
			return
		}
		switch r.Op {
		case api.OpServe:
			c.serveSocket(ctx, r.Agent, files)
			return
		case api.OpRedact:
			c.redact(ctx, r.Agent)
			return
		}
		for _, f := range files {
			_ = f.Close()
		}
		if err := c.wire.Send(c.answer(ctx, r)); err != nil {
			return
		}
	}
}

func (c *session) answer(ctx context.Context, r api.Request) api.Answer {
	switch r.Op {
	case api.OpStatus:
		return c.server.status(ctx)
	case api.OpLock:
		return refusal(c.server.lock(ctx))
	case api.OpUnlock:
		return refusal(c.server.unlock(ctx, r.Passphrase))
	case api.OpPrint:
		print, err := c.server.a.Safe.Fingerprint(secret.New(r.Value))
		clear(r.Value)
		answer := refusal(err)
		answer.Print = print
		return answer
	}
	return refusal(errors.New("the operation is not known to this version"))
}

func refusal(err error) api.Answer {
	if err == nil {
		return api.Answer{}
	}
	var known *fail.Error
	if errors.As(err, &known) {
		return api.Answer{Error: known.Error(), ID: known.ID, Kind: known.Kind}
	}
	return api.Answer{Error: err.Error(), Kind: fail.KindOf(err)}
}

// serveSocket serves the listening socket of a sandbox until the client goes.
func (c *session) serveSocket(ctx context.Context, agent string, files []*os.File) {
	if len(files) != 1 {
		_ = c.wire.Send(api.Answer{Error: "no socket came with the request"})
		return
	}
	ln, err := net.FileListener(files[0])
	_ = files[0].Close()
	if err == nil {
		_, err = c.server.a.Agents.Get(ctx, agent)
	}
	d := c.server.current()
	if err == nil && d == nil {
		err = fail.New(fail.Locked, "P-E155", "the safe of the daemon is locked").Hint("postern safe unlock")
	}
	if err != nil {
		_ = c.wire.Send(refusal(err))
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	answers := make(chan api.Name)
	go func() {
		defer cancel()
		for {
			var name api.Name
			if _, err := c.wire.Receive(&name, 0); err != nil {
				return
			}
			select {
			case answers <- name:
			case <-ctx.Done():
				return
			}
		}
	}()
	if err := c.wire.Send(api.Answer{}); err != nil {
		_ = ln.Close()
		return
	}
	_ = d.broker.ServeTransparent(ctx, run.Original(ln), agent, remembered(c.names(ctx, answers), c.server.a.o.Now))
}

// names asks the sandbox for the name of an address, one question at a time.
func (c *session) names(ctx context.Context, answers <-chan api.Name) func(netip.Addr) (string, bool) {
	var mu sync.Mutex
	return func(addr netip.Addr) (string, bool) {
		mu.Lock()
		defer mu.Unlock()
		if err := c.wire.Send(api.Lookup{Addr: addr.String()}); err != nil {
			return "", false
		}
		select {
		case answer := <-answers:
			return answer.Name, answer.OK
		case <-ctx.Done():
			return "", false
		}
	}
}

// redact masks the output of a command.
func (c *session) redact(ctx context.Context, agent string) {
	filter, err := c.server.a.filter(ctx, agent)
	if err != nil {
		_ = c.wire.Send(refusal(err))
		return
	}
	if err := c.wire.Send(api.Answer{}); err != nil {
		return
	}
	for {
		sort, chunk, err := c.wire.ReceiveChunk()
		if err != nil {
			return
		}
		var out []byte
		switch sort {
		case api.ChunkData:
			out = filter.Write(nil, chunk)
		case api.ChunkFlush:
			out = filter.Flush(nil)
		default:
			out = filter.Close(nil)
		}
		if err := c.wire.SendChunk(sort, out); err != nil || sort == api.ChunkClose {
			return
		}
	}
}
