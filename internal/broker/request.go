package broker

import (
	"context"
	"encoding/base64"
	"errors"
	"net"
	"time"

	"postern/internal/broker/http1"
	"postern/internal/event"
	"postern/internal/fail"
	"postern/internal/placeholder"
)

const (
	wholeBody = 64 << 10 // a body up to here is read before anything is sent
	scanBytes = 64 << 10 // of a body are looked at for placeholders
)

// errValue is a stored value that cannot stand where its kind puts it.
var errValue = errors.New("the stored value holds a character that may not be sent there")

// lend fills in the real values. Where a value is newer than the agent's view,
// the view is made anew first, so that the answer is searched for that value.
func (x *exchange) lend(ctx context.Context) *refusal {
	for i := range x.matches {
		if r := x.lendOne(ctx, &x.matches[i]); r != nil {
			return r
		}
	}
	return nil
}

func (x *exchange) lendOne(ctx context.Context, m *match) *refusal {
	name := m.lent.Credential
	for range 3 {
		value, version, err := x.b.cfg.Leaser.Lease(ctx, x.e.name, name)
		if err != nil {
			return leaseRefusal(err, name)
		}
		m.value, m.version = value, version
		if now := x.view.byText[m.lent.token]; now != nil && now.version == version.Number && now.mark == version.Fingerprint {
			return nil
		}
		x.e.view.CompareAndSwap(x.view, nil)
		v, err := x.b.viewOf(ctx, x.e)
		if err != nil {
			return unavailable(ruleReady, "the agent's values cannot be read, so that nothing could be masked: "+reason(err))
		}
		x.view = v
	}
	r := unavailable(ruleLease, "the value of "+name+" is being replaced just now; try again")
	r.credential = name
	return r
}

func (x *exchange) cutRefusal(credential string) *refusal {
	r := forbidden(ruleLease, "the use of "+credential+" was cut")
	r.credential = credential
	return r
}

func leaseRefusal(err error, credential string) *refusal {
	why := "credential " + credential + " is not lent out: " + reason(err)
	r := unavailable(ruleLease, why)
	switch {
	case fail.Is(err, fail.NotAllowed), fail.Is(err, fail.NotFound):
		r = forbidden(ruleLease, why)
		r.next = nextOf(err, "postern secret show "+credential)
	case fail.Is(err, fail.Locked):
		r.next = nextOf(err, "postern safe unlock")
	}
	r.credential = credential
	return r
}

// put appends the match's real value in the form that its place asks for. The
// memory of dst belongs to the exchange, which wipes it.
func (m *match) put(dst []byte) ([]byte, error) {
	err := m.value.Reveal(func(b []byte) error {
		part := m.lent.part(b)
		switch {
		case len(part) == 0:
			return errValue
		case m.place == inHeader:
			if !http1.ValidValue(part) {
				return errValue
			}
			dst = append(dst, part...)
		case m.place == inBasic:
			pair := make([]byte, 0, len(part)+len(m.other)+1)
			if m.user {
				pair = append(append(append(pair, part...), ':'), m.other...)
			} else {
				pair = append(append(append(pair, m.other...), ':'), part...)
			}
			dst = base64.StdEncoding.AppendEncode(dst, pair)
			clear(pair)
		case m.place == inFrame:
			dst = appendJSON(dst, part)
		default:
			dst = appendEscaped(dst, part)
		}
		return nil
	})
	return dst, err
}

// appendTarget appends the origin form with the values of path and query slots.
func (x *exchange) appendTarget(dst []byte) ([]byte, error) {
	at := 0
	for i := range x.matches { // in the order of the target
		m := &x.matches[i]
		if m.place != inPath && m.place != inQuery {
			continue
		}
		dst = append(dst, x.target[at:m.from]...)
		var err error
		if dst, err = m.put(dst); err != nil {
			return dst, err
		}
		at = m.to
	}
	return append(dst, x.target[at:]...), nil
}

// appendHead appends the request's head as it goes to the upstream: for the one
// host, with the real values in their slots, without what belongs to the
// agent's own connection, and asking for an answer that can be searched.
func (x *exchange) appendHead(dst []byte, upgrade bool) ([]byte, error) {
	dst = append(append(dst, x.head.Method...), ' ')
	dst, err := x.appendTarget(dst)
	if err != nil {
		return dst, err
	}
	usual := 443
	if !x.secure {
		usual = 80
	}
	dst = append(dst, " HTTP/1.1\r\nHost: "...)
	dst = append(x.t.appendHost(dst, usual), "\r\n"...)
	for i, f := range x.head.Fields {
		if x.head.Hop(f.Name) || ours(f.Name) || upgrade && http1.EqualFold(f.Name, "sec-websocket-extensions") {
			continue
		}
		m := x.matchAt(i)
		if m == nil {
			dst = http1.AppendField(dst, f.Name, f.Value)
			continue
		}
		dst = append(append(dst, f.Name...), ": "...)
		if m.place == inHeader {
			dst = append(dst, f.Value[:m.from]...)
		} else {
			dst = append(dst, "Basic "...)
		}
		if dst, err = m.put(dst); err != nil {
			return dst, err
		}
		if m.place == inHeader {
			dst = append(dst, f.Value[m.to:]...)
		}
		dst = append(dst, "\r\n"...)
	}
	if upgrade {
		return append(dst, "Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"...), nil
	}
	dst = append(dst, "Accept-Encoding: identity\r\n"...)
	switch {
	case x.head.Framing == http1.Chunked:
		dst = append(dst, "Transfer-Encoding: chunked\r\n"...)
	case x.head.Framing == http1.Length:
		dst = http1.AppendLength(dst, x.head.Length)
	case x.method == "POST", x.method == "PUT", x.method == "PATCH":
		dst = append(dst, "Content-Length: 0\r\n"...)
	}
	return append(dst, "\r\n"...), nil
}

// ours says whether we write the field ourselves, or answer it.
func ours(name []byte) bool {
	switch len(name) {
	case 4:
		return http1.EqualFold(name, "host")
	case 6:
		return http1.EqualFold(name, "expect")
	case 15:
		return http1.EqualFold(name, "accept-encoding")
	}
	return false
}

func (x *exchange) matchAt(field int) *match {
	for i := range x.matches {
		if m := &x.matches[i]; m.field == field && (m.place == inHeader || m.place == inBasic) {
			return m
		}
	}
	return nil
}

// upload is the agent's body on its way, as far as it got.
type upload struct {
	sent    int64 // bytes of the body
	scanned int
	quoted  bool // a placeholder stands outside the slots
	known   bool // a real value stands in the body
	err     error
	agent   bool // err is the agent's fault
}

// look counts a piece of the body and looks for what should not stand there.
func (u *upload) look(v *view, piece []byte) {
	u.sent += int64(len(piece))
	if u.scanned >= scanBytes {
		return
	}
	piece = piece[:min(len(piece), scanBytes-u.scanned)]
	u.scanned += len(piece)
	u.quoted = u.quoted || len(placeholder.Find(piece)) > 0
	if !u.known {
		_, hits := v.matcher.Replace(piece)
		u.known = hits > 0
	}
}

// appendBody appends what has come of the body, framed as the head says; small
// bodies are waited for. It returns true at the body's end.
func (x *exchange) appendBody(u *upload, dst []byte) ([]byte, bool, error) {
	wait := x.head.Framing == http1.Length && x.head.Length <= wholeBody
	for {
		piece, step, err := x.body.Next()
		switch {
		case err != nil:
			return dst, false, err
		case step == http1.Data:
			u.look(x.view, piece)
			if x.head.Framing == http1.Chunked {
				dst = appendChunk(dst, piece)
			} else {
				dst = append(dst, piece...)
			}
		case step == http1.End:
			if x.head.Framing == http1.Chunked {
				dst = http1.AppendEnd(dst, nil) // trailers of a request go no further
			}
			return dst, true, nil
		case !wait:
			return dst, false, nil
		default:
			if err := x.body.Fill(); err != nil {
				return dst, false, err
			}
		}
	}
}

// appendChunk appends data as one chunk or several.
func appendChunk(dst, data []byte) []byte {
	for len(data) > 0 {
		n := min(len(data), chunkSize)
		var start int
		dst, start = http1.OpenChunk(dst)
		dst = http1.CloseChunk(append(dst, data[:n]...), start)
		data = data[n:]
	}
	return dst
}

// chunkSize is the most that is put into one chunk.
const chunkSize = 32 << 10

// sendRest sends what is left of the body while forward reads the answer.
func (x *exchange) sendRest(u *upstream, up upload, buf []byte) {
	for up.err == nil {
		if up.err = x.body.Fill(); up.err != nil {
			up.agent = true
			break
		}
		var done bool
		if buf, done, up.err = x.appendBody(&up, buf[:0]); up.err != nil {
			up.agent = true
			break
		}
		if len(buf) > 0 {
			_, up.err = u.conn.Write(buf)
		}
		if done {
			break
		}
	}
	x.mu.Lock()
	if !x.answered {
		wait := x.b.cfg.HeaderTimeout
		if up.agent {
			wait = 0 // no answer is worth waiting for
		}
		_ = u.conn.SetReadDeadline(time.Now().Add(wait))
	}
	x.mu.Unlock()
	x.upload <- up
}

// endUpload waits for sendRest; where the answer was complete before the body,
// the rest is given up. It says whether all of the body was sent.
func (x *exchange) endUpload(u *upstream) bool {
	if x.upload == nil {
		return x.whole
	}
	grace := time.NewTimer(uploadGrace)
	defer grace.Stop()
	select {
	case x.up = <-x.upload:
	case <-grace.C:
		_ = x.conn.SetReadDeadline(time.Now())
		_ = u.conn.SetDeadline(time.Now())
		x.up = <-x.upload
		x.up.err = net.ErrClosed
	}
	x.upload = nil
	return x.up.err == nil
}

// uploadGrace is how long an upload may still run when the answer is complete.
const uploadGrace = 100 * time.Millisecond

// replayable says whether the request may be sent a second time when the
// provider closed an idle connection just as it was sent.
func (x *exchange) replayable() bool {
	switch x.method {
	case "GET", "HEAD", "OPTIONS":
		return x.whole
	}
	return x.whole && (x.head.Get("idempotency-key") != nil || x.head.Get("x-idempotency-key") != nil)
}

// brokenBody is the refusal for a body that could not be read.
func brokenBody(err error) *refusal {
	var why *http1.Error
	if errors.As(err, &why) {
		return malformed(why.Text)
	}
	r := malformed("the body ended early")
	r.kind = event.Refused
	return r
}
