package broker

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"postern/internal/broker/http1"
	"postern/internal/broker/ws"
	"postern/internal/event"
	"postern/internal/placeholder"
	"postern/internal/redact"
)

const (
	slotMessage = 64 << 10 // a message that may hold a token is read up to here
	wholeFrame  = 64 << 10 // a frame up to here is searched in one piece
	closeTime   = 5 * time.Second
)

// socket is an open WebSocket. One goroutine carries the agent's frames, one
// the upstream's; each writes whole frames only.
type socket struct {
	x       *exchange
	u       *upstream
	matcher atomic.Pointer[redact.Matcher] // newer once a token was put into a frame

	toAgent  sync.Mutex // frames to the agent, which both directions write
	message  []byte     // of the agent, being put together
	out      []byte     // frames to the upstream
	back     []byte     // frames to the agent
	sent     upload
	received int64
	hits     int
	why      string // why we ended it
}

func newSocket(x *exchange, u *upstream) *socket {
	s := &socket{x: x, u: u, sent: x.up}
	s.matcher.Store(x.view.matcher)
	return s
}

// serve carries frames until either side ends.
func (s *socket) serve(ctx context.Context) {
	x := s.x
	x.head.KeepAlive = true
	x.buffer()
	x.appendAnswerHead(false)
	x.out = append(x.out, "Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"...)
	if x.flush() == nil {
		done := make(chan struct{})
		go func() {
			defer close(done)
			s.outward(ctx)
			_ = s.u.conn.Close()
		}()
		why := s.inward()
		_ = s.u.conn.Close() // both end outward
		_ = x.conn.SetReadDeadline(time.Now())
		if <-done; s.why == "" {
			s.why = why
		}
	}
	s.u.close()
	clear(s.out[:cap(s.out)])
	clear(s.message[:cap(s.message)])
	x.up, x.got, x.hits = s.sent, s.received, x.hits+s.hits
	x.recordEnd(ctx, s.why)
	if s.why != "" {
		x.linger()
	}
}

// frames reads the frames of one direction.
type frames struct {
	r      *http1.Reader
	client bool
	order  ws.Order
}

// next reads a frame's header and says to which sort of message it belongs.
func (f *frames) next() (h ws.Header, op ws.Op, err error) {
	for {
		var size int
		h, size, err = ws.Parse(f.r.Buffered(), f.client)
		switch {
		case err == nil:
			f.r.Discard(size)
			op, err = f.order.Next(h)
			return h, op, err
		case !errors.Is(err, ws.ErrMore):
			return h, 0, err
		}
		if err := f.fill(); err != nil {
			return h, 0, err
		}
	}
}

// fill waits for more bytes; while nothing is buffered it holds no buffer.
func (f *frames) fill() error {
	if len(f.r.Buffered()) == 0 {
		return f.r.Wait()
	}
	return f.r.Fill()
}

// whole reads n bytes, which stay valid until the next read.
func (f *frames) whole(n int64) ([]byte, error) {
	for int64(len(f.r.Buffered())) < n {
		if err := f.r.Fill(); err != nil {
			return nil, err
		}
	}
	b := f.r.Buffered()[:n]
	f.r.Discard(int(n))
	return b, nil
}

// some reads at least one and at most n bytes.
func (f *frames) some(n int64) ([]byte, error) {
	if len(f.r.Buffered()) == 0 {
		if err := f.r.Fill(); err != nil {
			return nil, err
		}
	}
	b := f.r.Buffered()
	if int64(len(b)) > n {
		b = b[:n]
	}
	f.r.Discard(len(b))
	return b, nil
}

// outward carries the agent's frames.
func (s *socket) outward(ctx context.Context) {
	f := &frames{r: s.x.r, client: true}
	for {
		h, op, err := f.next()
		if err == nil {
			switch {
			case h.Op.Control():
				err = s.control(f, h)
			case s.x.host.sockets:
				err = s.gather(ctx, f, h, op)
			default:
				err = s.pass(f, h)
			}
		}
		if err != nil {
			s.fail(ctx, err)
			return
		}
	}
}

// control passes a control frame of the agent.
func (s *socket) control(f *frames, h ws.Header) error {
	payload, err := f.whole(h.Length)
	if err != nil {
		return err
	}
	ws.Mask(payload, h.Key, 0)
	s.sent.quoted = s.sent.quoted || len(placeholder.Find(payload)) > 0
	return s.send(h.Fin, h.Op, payload, h.Key)
}

func (s *socket) send(fin bool, op ws.Op, payload []byte, key [4]byte) error {
	s.out = ws.Append(s.out[:0], fin, op, payload, &key)
	_, err := s.u.conn.Write(s.out)
	return err
}

// pass passes a data frame of the agent as it comes, in frames of what each
// read delivered.
func (s *socket) pass(f *frames, h ws.Header) error {
	op, left, at := h.Op, h.Length, int64(0)
	if op != ws.Continuation {
		s.sent.scanned = 0 // the bound holds for each message
	}
	for {
		var part []byte
		if left > 0 {
			var err error
			if part, err = f.some(left); err != nil {
				return err
			}
		}
		left -= int64(len(part))
		ws.Mask(part, h.Key, at)
		at += int64(len(part))
		s.sent.look(s.x.view, part)
		if err := s.send(h.Fin && left == 0, op, part, h.Key); err != nil || left == 0 {
			return err
		}
		op = ws.Continuation
	}
}

// gather puts the agent's message together where one may hold a token, and
// sends it in one frame when it is complete.
func (s *socket) gather(ctx context.Context, f *frames, h ws.Header, op ws.Op) error {
	if op != ws.Text {
		return &closing{code: ws.CodeUnsupported, r: socketRefusal("a binary frame was sent, in which no token can be put in; use encoding=json")}
	}
	if int64(len(s.message))+h.Length > slotMessage {
		return &closing{code: ws.CodeTooBig, r: socketRefusal("a message is longer than a message with a token may be (64 KiB)")}
	}
	payload, err := f.whole(h.Length)
	if err != nil {
		return err
	}
	ws.Mask(payload, h.Key, 0)
	s.message = append(s.message, payload...)
	if !h.Fin {
		return nil
	}
	message := s.message
	s.message = s.message[:0]
	s.sent.sent += int64(len(message))
	changed, err := s.put(ctx, message)
	if err != nil {
		return err
	}
	if err := s.send(true, ws.Text, changed, h.Key); err != nil {
		return err
	}
	clear(s.out)
	return nil
}

// inward carries the upstream's frames, values taken out. It returns why it
// ended the socket, empty where the upstream did.
func (s *socket) inward() string {
	f := &frames{r: s.u.r}
	var stream *redact.Stream // of a message that came in parts
	for {
		h, op, err := f.next()
		switch {
		case err != nil:
		case h.Op.Control():
			err = s.controlBack(f, h)
		case op == ws.Binary && s.x.host.sockets:
			err = &closing{code: ws.CodeUnsupported, r: socketRefusal("the provider sent a binary frame, in which nothing can be masked")}
		case stream == nil && h.Fin && h.Length <= wholeFrame:
			err = s.passBack(f, h)
		default:
			stream, err = s.streamBack(f, h, stream)
		}
		if err != nil {
			return s.failBack(err)
		}
	}
}

// reply writes the frames in back to the agent.
func (s *socket) reply() error {
	s.toAgent.Lock()
	defer s.toAgent.Unlock()
	_, err := s.x.conn.Write(s.back)
	return err
}

func (s *socket) controlBack(f *frames, h ws.Header) error {
	payload, err := f.whole(h.Length)
	if err != nil {
		return err
	}
	clean, n := s.matcher.Load().Replace(payload)
	if s.hits += n; len(clean) > ws.MaxControl {
		clean = clean[:ws.MaxControl]
	}
	s.back = ws.Append(s.back[:0], true, h.Op, clean, nil)
	if err := s.reply(); err != nil {
		return err
	}
	if h.Op == ws.Close { // the rest is a matter of moments
		_ = s.x.conn.SetDeadline(time.Now().Add(closeTime))
		_ = s.u.conn.SetDeadline(time.Now().Add(closeTime))
	}
	return nil
}

// passBack passes a message of one frame.
func (s *socket) passBack(f *frames, h ws.Header) error {
	payload, err := f.whole(h.Length)
	if err != nil {
		return err
	}
	clean, n := s.matcher.Load().Replace(payload)
	s.hits += n
	s.received += int64(len(clean))
	s.back = ws.Append(s.back[:0], true, h.Op, clean, nil)
	return s.reply()
}

// streamBack passes a frame of a long message or of one in parts, in new frames
// of what is known to be safe. It returns the stream for the next frame.
func (s *socket) streamBack(f *frames, h ws.Header, stream *redact.Stream) (*redact.Stream, error) {
	if stream == nil {
		stream = s.matcher.Load().Stream()
	}
	op, left := h.Op, h.Length
	for {
		var part []byte
		if left > 0 {
			var err error
			if part, err = f.some(left); err != nil {
				return nil, err
			}
		}
		left -= int64(len(part))
		last := h.Fin && left == 0
		clean := stream.Write(nil, part)
		if last {
			clean = stream.Close(clean)
			s.hits += stream.Hits()
		}
		s.received += int64(len(clean))
		if len(clean) > 0 || last || op != ws.Continuation {
			s.back = ws.Append(s.back[:0], last, op, clean, nil)
			if err := s.reply(); err != nil {
				return nil, err
			}
		}
		if op = ws.Continuation; last {
			return nil, nil
		}
		if left == 0 {
			return stream, nil
		}
	}
}

// closing is a reason of ours to end the socket, said in a close frame.
type closing struct {
	code int
	r    *refusal
}

func (c *closing) Error() string { return c.r.message }

func socketRefusal(why string) *refusal {
	return &refusal{status: 400, id: "P-E112", kind: event.Refused, rule: ruleUpgrade, message: why}
}

// fail ends the socket because of what the agent sent.
func (s *socket) fail(ctx context.Context, err error) {
	var c *closing
	var broken *ws.Error
	switch {
	case errors.As(err, &c):
	case errors.As(err, &broken):
		c = &closing{code: broken.Code, r: malformed("WebSocket: " + broken.Text)}
	default:
		return
	}
	s.why = c.r.message
	s.x.e.stats.refused.Add(1)
	e := s.x.event(c.r.kind)
	e.Credential, e.Rule, e.Reason = c.r.credential, c.r.rule, c.r.message
	s.x.b.note(ctx, e)
	s.say(c.code, "postern refused: "+c.r.message)
	var key [4]byte
	_ = s.send(true, ws.Close, ws.ClosePayload(ws.CodePolicy, ""), key)
}

// failBack ends the socket because of what the upstream sent.
func (s *socket) failBack(err error) string {
	var c *closing
	var broken *ws.Error
	switch {
	case errors.As(err, &c):
	case errors.As(err, &broken):
		c = &closing{code: broken.Code, r: socketRefusal("the provider sent a " + broken.Error())}
	default:
		return ""
	}
	s.say(c.code, c.r.message)
	return c.r.message
}

// say sends a close frame to the agent.
func (s *socket) say(code int, why string) {
	frame := ws.Append(nil, true, ws.Close, ws.ClosePayload(code, why), nil)
	s.toAgent.Lock()
	defer s.toAgent.Unlock()
	_ = s.x.conn.SetWriteDeadline(time.Now().Add(closeTime))
	_, _ = s.x.conn.Write(frame)
}
