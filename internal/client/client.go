// Package client speaks to the daemon.
package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"postern/internal/api"
	"postern/internal/fail"
)

// patience bounds the wait for an answer where the caller sets no bound.
const patience = 30 * time.Second

// Client is one connection to the daemon. It serves one request after another,
// and only one where that request takes the connection over (Serve, Redact).
type Client struct {
	conn *net.UnixConn
	wire *api.Conn
}

// Dial connects to the socket at path.
func Dial(ctx context.Context, path string) (*Client, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return nil, fail.New(fail.Unavailable, "P-E152", "no daemon is running").Wrap(err).Hint("postern serve")
	}
	unixConn := conn.(*net.UnixConn)
	return &Client{conn: unixConn, wire: api.NewConn(unixConn)}, nil
}

// Close ends the connection, and with it what was served over it.
func (c *Client) Close() error { return c.conn.Close() }

func (c *Client) call(ctx context.Context, r api.Request, files ...*os.File) (api.Answer, error) {
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(patience)
	}
	if err := c.conn.SetDeadline(deadline); err != nil {
		return api.Answer{}, gone(err)
	}
	stop := context.AfterFunc(ctx, func() { _ = c.conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := c.wire.Send(r, files...); err != nil {
		return api.Answer{}, gone(err)
	}
	var answer api.Answer
	if _, err := c.wire.Receive(&answer, 0); err != nil {
		return api.Answer{}, gone(err)
	}
	if answer.Error != "" {
		refused := fail.New(answer.Kind, "P-E153", "the daemon said no").Because("%s", answer.Error)
		if answer.ID != "" {
			refused.Hint("postern help %s", answer.ID)
		}
		return answer, refused
	}
	return answer, c.conn.SetDeadline(time.Time{})
}

func gone(err error) error {
	return fail.New(fail.Unavailable, "P-E154", "the daemon went away").Wrap(err).Hint("postern status")
}

// Status asks how the daemon is.
func (c *Client) Status(ctx context.Context) (api.Status, error) {
	answer, err := c.call(ctx, api.Request{Op: api.OpStatus})
	if err == nil && answer.Status == nil {
		err = gone(errors.New("its answer says nothing"))
	}
	if err != nil {
		return api.Status{}, err
	}
	return *answer.Status, nil
}

// Lock makes the daemon forget the keys.
func (c *Client) Lock(ctx context.Context) error {
	_, err := c.call(ctx, api.Request{Op: api.OpLock})
	return err
}

// Unlock lets the daemon open the safe, with a passphrase where it needs one.
func (c *Client) Unlock(ctx context.Context, passphrase []byte) error {
	_, err := c.call(ctx, api.Request{Op: api.OpUnlock, Passphrase: passphrase})
	return err
}

// Fingerprint is the keyed fingerprint of a value, as the safe makes it.
func (c *Client) Fingerprint(ctx context.Context, value []byte) (string, error) {
	answer, err := c.call(ctx, api.Request{Op: api.OpPrint, Value: value})
	return answer.Print, err
}

// Serve hands a listening socket over; the daemon serves it for agent until the
// client is closed. names answers which name an address inside stands for.
func (c *Client) Serve(ctx context.Context, agent string, listener *os.File, names func(netip.Addr) (string, bool)) error {
	if _, err := c.call(ctx, api.Request{Op: api.OpServe, Agent: agent}, listener); err != nil {
		return err
	}
	go func() {
		for {
			var q api.Lookup
			if _, err := c.wire.Receive(&q, 0); err != nil {
				return
			}
			var answer api.Name
			if addr, err := netip.ParseAddr(q.Addr); err == nil {
				answer.Name, answer.OK = names(addr)
			}
			if err := c.wire.Send(answer); err != nil {
				return
			}
		}
	}()
	return nil
}

// Redactor masks a stream of bytes with what the daemon knows. It fails closed:
// after an error nothing more comes out.
type Redactor struct {
	c   *Client
	err error
}

// Redact turns the connection into a stream for the values of agent.
func (c *Client) Redact(ctx context.Context, agent string) (*Redactor, error) {
	if _, err := c.call(ctx, api.Request{Op: api.OpRedact, Agent: agent}); err != nil {
		return nil, err
	}
	return &Redactor{c: c}, nil
}

// Write appends to dst what of chunk, and of what was held back, may go out.
func (r *Redactor) Write(dst, chunk []byte) []byte {
	const piece = 64 << 10
	for len(chunk) > piece {
		dst = r.exchange(dst, api.ChunkData, chunk[:piece])
		chunk = chunk[piece:]
	}
	return r.exchange(dst, api.ChunkData, chunk)
}

// Flush appends what may go out although more could follow.
func (r *Redactor) Flush(dst []byte) []byte { return r.exchange(dst, api.ChunkFlush, nil) }

// Close appends the rest and ends the stream.
func (r *Redactor) Close(dst []byte) []byte {
	dst = r.exchange(dst, api.ChunkClose, nil)
	_ = r.c.Close()
	return dst
}

func (r *Redactor) exchange(dst []byte, sort byte, chunk []byte) []byte {
	if r.err != nil {
		return dst
	}
	var out []byte
	r.err = r.c.conn.SetDeadline(time.Now().Add(patience))
	if r.err == nil {
		r.err = r.c.wire.SendChunk(sort, chunk)
	}
	if r.err == nil {
		_, out, r.err = r.c.wire.ReceiveChunk()
	}
	if r.err != nil {
		return append(dst, fmt.Sprintf("\npostern: output stopped: %v\n", gone(r.err))...)
	}
	return append(dst, out...)
}
