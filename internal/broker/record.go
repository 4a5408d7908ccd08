package broker

import (
	"context"
	"errors"
	"strconv"
	"time"

	"postern/internal/event"
	"postern/internal/fail"
)

// maxShownPath bounds the path of a record.
const maxShownPath = 2 << 10

// event is the beginning of a record about the request that is under way.
func (x *exchange) event(kind event.Kind) event.Event {
	e := event.Event{Time: x.b.cfg.Now().UTC(), Kind: kind, Request: x.id, Host: x.t.key, Method: x.method, Path: x.path}
	if len(e.Path) > maxShownPath {
		e.Path = e.Path[:maxShownPath] + "…"
	}
	if x.e != nil {
		e.Agent = x.e.name
	}
	return e
}

// note writes a record on which no use depends; one that the ledger does not
// take is counted.
func (b *Broker) note(ctx context.Context, e event.Event) {
	if err := b.cfg.Recorder.Record(context.WithoutCancel(ctx), e, false); err != nil {
		b.stats.recordErrors.Add(1)
	}
}

// recordStart writes the record without which nothing leaves: a use for each
// credential, or one egress. An egress carries no secret, so that it does not
// depend on the ledger.
func (x *exchange) recordStart(ctx context.Context) *refusal {
	if len(x.matches) == 0 {
		e := x.event(event.Egress)
		e.Rule = x.egress.Rule
		x.b.note(ctx, e)
		return nil
	}
	for i := range x.matches {
		if r := x.recordUse(ctx, &x.matches[i]); r != nil {
			return r
		}
	}
	return nil
}

func (x *exchange) recordUse(ctx context.Context, m *match) *refusal {
	e := x.event(event.Use)
	e.Credential, e.Version, e.Fingerprint, e.Rule = m.lent.Credential, m.version.Number, m.version.Fingerprint, x.rule
	if err := x.b.cfg.Recorder.Record(ctx, e, x.durable); err != nil {
		r := unavailable(ruleLedger, "the ledger could not be written, so that no credential is used: "+reason(err))
		r.credential, r.next = m.lent.Credential, "postern doctor"
		return r
	}
	x.e.stats.injections.Add(1)
	return nil
}

// recordEnd writes how the call ended, and what was seen on its way.
func (x *exchange) recordEnd(ctx context.Context, why string) {
	e := x.event(event.Outcome)
	e.Status, e.BytesOut, e.BytesIn, e.Duration, e.Reason = x.resp.Status, x.up.sent, x.got, x.b.cfg.Now().Sub(x.start), why
	if len(x.matches) > 0 {
		e.Credential = x.matches[0].lent.Credential
	}
	x.b.note(ctx, e)
	if x.up.quoted {
		q := x.event(event.Quoted)
		q.Reason = "a placeholder stands in the request outside the slots; it was passed unchanged"
		x.b.note(ctx, q)
	}
	if x.up.known {
		k := x.event(event.Tripwire)
		k.Rule, k.Reason = ruleReady, "a real value of the agent's credentials stands in the body of a request"
		x.b.note(ctx, k)
	}
	if x.hits > 0 {
		x.e.stats.redactions.Add(int64(x.hits))
		r := x.event(event.Redacted)
		r.Detail = map[string]string{"hits": strconv.Itoa(x.hits)}
		x.b.note(ctx, r)
	}
	if len(x.matches) > 0 && x.resp.Status >= 200 && x.resp.Status < 400 && x.e.stats.first.Load() == nil {
		x.e.stats.first.CompareAndSwap(nil, &firstUse{at: x.b.cfg.Now(), host: x.t.key})
	}
}

// refuse records the refusal, answers with it, and lets the agent read it
// before the connection closes.
func (x *exchange) refuse(ctx context.Context, r *refusal) {
	if x.e != nil {
		x.e.stats.refused.Add(1)
	}
	e := x.event(r.kind)
	e.Credential, e.Rule, e.Reason, e.Status = r.credential, r.rule, r.message, r.status
	x.b.note(ctx, e)
	if x.began {
		return
	}
	x.buffer()
	x.out = appendRefusal(x.out, r, x.id, x.method == "HEAD")
	_ = x.conn.SetWriteDeadline(time.Now().Add(headTime))
	if _, err := x.conn.Write(x.out); err == nil && !(x.parsed && x.body.Done()) {
		x.linger()
	}
}

const (
	lingerTime  = 2 * time.Second
	lingerBytes = 4 << 20
)

// linger reads on for a moment after an early answer: closing a connection with
// unread bytes resets it, and the agent would lose the answer.
func (x *exchange) linger() {
	if half, ok := x.conn.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
	_ = x.conn.SetReadDeadline(time.Now().Add(lingerTime))
	for read := 0; read < lingerBytes; {
		read += len(x.r.Buffered())
		x.r.Discard(len(x.r.Buffered()))
		if x.r.Fill() != nil {
			return
		}
	}
}

// reason is what an error of another room may say to the agent.
func reason(err error) string {
	var known *fail.Error
	if errors.As(err, &known) {
		return known.Error()
	}
	return err.Error()
}

// nextOf is the command that an error of another room names, or other.
func nextOf(err error, other string) string {
	var known *fail.Error
	if errors.As(err, &known) && len(known.Next) > 0 {
		return known.Next[0]
	}
	return other
}
