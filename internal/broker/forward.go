package broker

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"time"

	"postern/internal/broker/http1"
)

// maxInterim is how many 1xx answers may come before the final one.
const maxInterim = 16

// forward sends the admitted request and passes the answer on; false ends the
// agent's connection.
func (x *exchange) forward(ctx context.Context) bool {
	if r := x.lend(ctx); r != nil {
		x.refuse(ctx, r)
		return false
	}
	if x.head.Upgrade != nil {
		return x.upgrade(ctx)
	}
	u, r := x.reach(ctx, false)
	if r != nil {
		x.refuse(ctx, r)
		return false
	}
	if r := x.recordStart(ctx); r != nil {
		x.b.pool.put(u)
		x.refuse(ctx, r)
		return false
	}
	if u.h2 != nil {
		return x.overHTTP2(ctx, u)
	}
	if r := x.build(); r != nil {
		x.b.pool.put(u)
		x.refuse(ctx, r)
		return false
	}
	for again := false; ; again = true {
		err := x.roundTrip(u)
		if err == nil {
			break
		}
		gone := x.unwatch()
		u.close()
		r = x.answerRefusal(err)
		if gone {
			x.endUpload(u)
			x.recordEnd(ctx, agentGone)
			return false
		}
		if !again && u.reused && x.unanswered(err) {
			var fresh *upstream
			if fresh, r = x.reach(ctx, true); r == nil && fresh.h2 == nil {
				u = fresh
				continue
			} else if r == nil {
				x.b.pool.put(fresh)
				r = x.answerRefusal(err)
			}
		}
		x.endUpload(u)
		x.refuse(ctx, r)
		return false
	}
	return x.answer(ctx, u)
}

// reach gets a connection to the upstream and makes it cuttable.
func (x *exchange) reach(ctx context.Context, fresh bool) (*upstream, *refusal) {
	u, err := x.b.pool.get(ctx, x.t, x.secure, fresh)
	if err != nil {
		return nil, dialRefusal(err, x.t)
	}
	if u.h2 == nil && !x.live.upstream(u.socket()) {
		u.close()
		return nil, forbidden(ruleLease, "the connection was cut")
	}
	return u, nil
}

// build puts the head and what has come of the body into out. Expect is
// answered here, because by now the request is allowed.
func (x *exchange) build() *refusal {
	x.buffer()
	var err error
	if x.out, err = x.appendHead(x.out, false); err != nil {
		return unavailable(ruleLease, "the value of "+x.matches[0].lent.Credential+" cannot be used: "+err.Error())
	}
	if x.head.Expect && !x.body.Done() && x.head.Minor == 1 {
		if _, err := x.conn.Write([]byte("HTTP/1.1 100 Continue\r\n\r\n")); err != nil {
			return brokenBody(err)
		}
	}
	if x.out, x.whole, err = x.appendBody(&x.up, x.out); err != nil {
		return brokenBody(err)
	}
	return nil
}

// errNotSent is a request of which no byte went out.
var errNotSent = errors.New("nothing was sent")

// roundTrip sends the request and reads the head of the final answer.
func (x *exchange) roundTrip(u *upstream) error {
	n, err := u.conn.Write(x.out)
	if err != nil && n == 0 {
		return errors.Join(errNotSent, err)
	}
	x.mu.Lock()
	x.answered = false
	x.mu.Unlock()
	x.watchFor(u.socket())
	if err == nil && !x.whole && x.upload == nil {
		x.upload = make(chan upload, 1)
		go x.sendRest(u, x.up, make([]byte, 0, outBuffer))
	} else {
		_ = u.conn.SetReadDeadline(time.Now().Add(x.b.cfg.HeaderTimeout))
	}
	if err := x.readAnswer(u); err != nil {
		return err
	}
	x.mu.Lock()
	x.answered = true
	u.source.limit = silence
	x.mu.Unlock()
	return nil
}

// readAnswer reads heads until a final one. Interim answers are not passed on:
// nothing in them is needed, and anything could stand in them.
func (x *exchange) readAnswer(u *upstream) error {
	for range maxInterim {
		if err := u.r.ReadResponse(&x.resp, x.method == "HEAD"); err != nil {
			return err
		}
		switch {
		case x.resp.Status >= 200:
			return nil
		case x.resp.Status == 101:
			return errSwitch
		}
	}
	return errInterim
}

var (
	errSwitch  = errors.New("it switched to another protocol without being asked")
	errInterim = errors.New("it sent interim answers without end")
)

// unanswered says whether err means that the upstream had closed the idle
// connection, and the request may be sent once more.
func (x *exchange) unanswered(err error) bool {
	if errors.Is(err, errNotSent) {
		return x.whole
	}
	closed := errors.Is(err, http1.ErrEnd) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
	return closed && x.replayable()
}

// answerRefusal says why there is no answer of the upstream.
func (x *exchange) answerRefusal(err error) *refusal {
	var why *http1.Error
	switch {
	case x.live.wasCut():
		return forbidden(ruleLease, "the connection was cut")
	case errors.As(err, &why):
		return badGateway(ruleUpstream, x.t.key+" sent an answer that cannot be read safely: "+why.Text)
	case errors.Is(err, errSwitch), errors.Is(err, errInterim), errors.Is(err, errHandshake):
		return badGateway(ruleUpstream, x.t.key+" cannot be used: "+err.Error())
	case errors.Is(err, os.ErrDeadlineExceeded):
		r := badGateway(ruleUpstream, x.t.key+" did not answer in time")
		r.status = 504
		return r
	case errors.Is(err, http1.ErrEnd), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return badGateway(ruleUpstream, x.t.key+" closed the connection before it answered")
	}
	return badGateway(ruleUpstream, x.t.key+" did not answer: "+plainError(err))
}

// answer passes the answer on, whose head is in x.resp, and settles the call.
func (x *exchange) answer(ctx context.Context, u *upstream) bool {
	r, err := x.respond(u)
	gone := x.unwatch()
	if r == nil && err != nil && !x.began && !gone {
		r = x.answerRefusal(err)
	}
	if r != nil {
		u.close()
		x.endUpload(u)
		x.refuse(ctx, r)
		x.recordEnd(ctx, r.message)
		return false
	}
	sent := x.endUpload(u)
	if err == nil && sent && x.resp.KeepAlive && x.respBody.Done() && !x.live.wasCut() {
		x.b.pool.put(u)
	} else {
		u.close()
	}
	why := x.ending(err)
	if gone {
		why = agentGone
	}
	x.recordEnd(ctx, why)
	if err == nil && !sent {
		x.linger()
	}
	return err == nil && sent && x.keepAlive()
}

// keepAlive says whether the agent's connection goes on after the answer.
func (x *exchange) keepAlive() bool { return x.head.KeepAlive && x.head.Minor == 1 }

// ending is the reason of an outcome, empty for a good end.
func (x *exchange) ending(err error) string {
	switch {
	case x.live.wasCut():
		return "the connection was cut"
	case err == nil:
		return ""
	case errors.Is(err, net.ErrClosed), errors.Is(err, syscall.EPIPE), errors.Is(err, syscall.ECONNRESET):
		return "the connection broke"
	}
	return plainError(err)
}
