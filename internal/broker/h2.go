package broker

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"sync"
	"time"

	"postern/internal/broker/http1"
)

// overHTTP2 sends the request on a stream of u and passes the answer on. The
// answer is read as if it had come by HTTP/1.1, so that there is one parser and
// one way through redaction.
func (x *exchange) overHTTP2(ctx context.Context, u *upstream) bool {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	body := &agentBody{x: x, r: bodyReader{body: &x.body}}
	req, r := x.httpRequest(ctx, body)
	if r == nil && !x.live.stream(cancel) {
		r = forbidden(ruleLease, "the connection was cut")
	}
	if r != nil {
		x.b.pool.put(u)
		x.refuse(ctx, r)
		return false
	}
	x.watchFor(closer(cancel))
	defer x.unwatch()
	timer := time.AfterFunc(x.b.cfg.HeaderTimeout, cancel)
	res, err := u.h2.RoundTrip(req)
	if late := !timer.Stop(); err != nil {
		sent := body.end()
		r = badGateway(ruleUpstream, x.t.key+" did not answer: "+plainError(err))
		if late {
			r.status, r.message = 504, x.t.key+" did not answer in time"
		}
		if x.live.wasCut() {
			r = forbidden(ruleLease, "the connection was cut")
		}
		if !sent && body.err != nil && !errors.Is(body.err, os.ErrDeadlineExceeded) {
			r = brokenBody(body.err)
		}
		x.refuse(context.WithoutCancel(ctx), r)
		return false
	}
	defer func() { _ = res.Body.Close() }()
	source := http1.NewReader(newAnswerSource(res), &x.b.buffers)
	defer source.Drop()
	err = source.ReadResponse(&x.resp, x.method == "HEAD")
	if err == nil {
		x.resp.KeepAlive = true
		r, err = x.respond(&upstream{r: source})
	}
	if r == nil && err != nil && !x.began {
		r = x.answerRefusal(err)
	}
	cancel()
	sent := body.end()
	ctx = context.WithoutCancel(ctx)
	if r != nil {
		x.refuse(ctx, r)
		x.recordEnd(ctx, r.message)
		return false
	}
	x.recordEnd(ctx, x.ending(err))
	return err == nil && sent && x.keepAlive()
}

// closer ends a stream by its context.
type closer func()

func (c closer) Close() error { c(); return nil }

// httpRequest is the request as the HTTP/2 client takes it, read back from the
// head that would go out by HTTP/1.1.
func (x *exchange) httpRequest(ctx context.Context, body *agentBody) (*http.Request, *refusal) {
	x.buffer()
	var err error
	if x.out, err = x.appendHead(x.out, false); err != nil {
		return nil, unavailable(ruleLease, "the value of "+x.matches[0].lent.Credential+" cannot be used: "+err.Error())
	}
	req, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(x.out)))
	if err != nil {
		return nil, malformed("the request cannot be sent by HTTP/2")
	}
	req = req.WithContext(ctx)
	req.RequestURI, req.URL.Scheme, req.URL.Host = "", "https", req.Host
	req.TransferEncoding = nil
	if req.Header.Get("User-Agent") == "" {
		req.Header["User-Agent"] = []string{""} // none, rather than the library's
	}
	req.Body, req.ContentLength = body, -1
	switch x.head.Framing {
	case http1.NoBody:
		req.Body, req.ContentLength = http.NoBody, 0
		body.done = true
	case http1.Length:
		req.ContentLength = x.head.Length
	}
	if x.head.Expect && !body.done && x.head.Minor == 1 {
		if _, err := x.conn.Write([]byte("HTTP/1.1 100 Continue\r\n\r\n")); err != nil {
			return nil, brokenBody(err)
		}
	}
	return req, nil
}

// agentBody is the agent's body as the HTTP/2 client reads it, on a goroutine
// of its own.
type agentBody struct {
	x    *exchange
	mu   sync.Mutex
	r    bodyReader
	done bool
	over bool
	err  error
}

func (a *agentBody) Read(p []byte) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.over {
		return 0, io.ErrClosedPipe
	}
	n, err := a.r.Read(p)
	a.x.up.look(a.x.view, p[:n])
	switch {
	case err == io.EOF:
		a.done = true
	case err != nil:
		a.err = err
	}
	return n, err
}

// Close leaves the ending to end.
func (a *agentBody) Close() error { return nil }

// end waits until nobody reads any more, and says whether all was read.
func (a *agentBody) end() bool {
	if a.mu.TryLock() {
		a.over = true
		a.mu.Unlock()
	} else {
		_ = a.x.conn.SetReadDeadline(time.Now())
		a.mu.Lock()
		a.over = true
		a.mu.Unlock()
	}
	return a.done || a.x.body.Done()
}

// answerSource writes an answer out as HTTP/1.1.
type answerSource struct {
	res     *http.Response
	chunked bool
	out     []byte // written and not yet read
	buf     []byte
	err     error
}

func newAnswerSource(res *http.Response) *answerSource {
	a := &answerSource{res: res, chunked: res.ContentLength < 0 || len(res.Trailer) > 0, buf: make([]byte, chunkSize/2)}
	a.out = http1.AppendStatus(nil, res.StatusCode, []byte(http.StatusText(res.StatusCode)))
	for name, values := range res.Header {
		switch name {
		case "Connection", "Keep-Alive", "Transfer-Encoding", "Upgrade", "Proxy-Connection":
			continue // has no meaning in HTTP/2
		case "Content-Length":
			if a.chunked {
				continue
			}
		}
		for _, v := range values {
			a.out = http1.AppendField(a.out, []byte(name), []byte(v))
		}
	}
	if a.chunked {
		a.out = append(a.out, "Transfer-Encoding: chunked\r\n"...)
	}
	a.out = append(a.out, "\r\n"...)
	return a
}

func (a *answerSource) Read(p []byte) (int, error) {
	if len(a.out) == 0 && a.err == nil {
		var n int
		n, a.err = a.res.Body.Read(a.buf)
		switch {
		case !a.chunked:
			a.out = append(a.out[:0], a.buf[:n]...)
		default:
			a.out = appendChunk(a.out[:0], a.buf[:n])
			if a.err == io.EOF {
				a.out = http1.AppendEnd(a.out, a.trailers())
			}
		}
	}
	if len(a.out) == 0 {
		return 0, a.err
	}
	n := copy(p, a.out)
	a.out = a.out[n:]
	return n, nil
}

func (a *answerSource) trailers() []http1.Field {
	var list []http1.Field
	for name, values := range a.res.Trailer {
		for _, v := range values {
			list = append(list, http1.Field{Name: []byte(name), Value: []byte(v)})
		}
	}
	return list
}
