package broker

import (
	"io"
	"net/http"
	"strconv"

	"postern/internal/broker/http1"
	"postern/internal/broker/inflate"
	"postern/internal/redact"
)

// respond passes the answer on with every known value taken out. It returns a
// refusal where nothing of the answer may go out, and an error where it broke
// off in the middle; then the agent's connection has to close.
func (x *exchange) respond(u *upstream) (*refusal, error) {
	x.buffer()
	x.respBody.Start(u.r, &x.resp, false)
	var source *inflate.Reader
	if coding := x.resp.Get("content-encoding"); coding != nil && !x.respBody.Done() && !x.view.matcher.Empty() {
		var r *refusal
		if source, r = decoded(&x.resp, &bodyReader{body: &x.respBody}); r != nil {
			return r, nil
		}
	}
	if source != nil {
		defer func() { _ = source.Close() }()
	}
	x.appendAnswerHead(source != nil)
	switch {
	case source != nil:
		return nil, x.passDecoded(source)
	case x.resp.Framing == http1.NoBody:
		x.appendNoBody()
		return nil, x.flush()
	case x.resp.Framing == http1.Length && x.resp.Length <= chunkSize:
		return nil, x.passWhole()
	}
	return nil, x.passStream()
}

// flush writes out to the agent.
func (x *exchange) flush() error {
	if len(x.out) == 0 {
		return nil
	}
	x.began = true
	_, err := x.conn.Write(x.out)
	x.out = x.out[:0]
	return err
}

// appendAnswerHead appends the status line and the fields that are passed on.
func (x *exchange) appendAnswerHead(isDecoded bool) {
	m := x.view.matcher
	_, hits := m.Replace(x.resp.Raw())
	if hits == 0 {
		x.out = http1.AppendStatus(x.out, x.resp.Status, x.resp.Reason)
	} else {
		reason, n := m.Replace(x.resp.Reason)
		x.hits += n
		x.out = http1.AppendStatus(x.out, x.resp.Status, reason)
	}
	for _, f := range x.resp.Fields {
		if x.resp.Hop(f.Name) || dropped(f.Name, isDecoded) {
			continue
		}
		value := f.Value
		if hits > 0 {
			_, inName := m.Replace(f.Name)
			var n int
			value, n = m.Replace(f.Value)
			if x.hits += n + inName; inName > 0 {
				continue // a name cannot be another one
			}
		}
		x.out = http1.AppendField(x.out, f.Name, value)
	}
	if !x.keepAlive() {
		x.out = append(x.out, "Connection: close\r\n"...)
	}
}

// dropped says which fields of an answer go no further beside those of the
// connection: Alt-Svc leads to QUIC, past the broker, and our own names may not
// be spoken by others.
func dropped(name []byte, isDecoded bool) bool {
	switch {
	case len(name) == 7:
		return http1.EqualFold(name, "alt-svc")
	case len(name) == 16:
		return isDecoded && http1.EqualFold(name, "content-encoding")
	case len(name) > 10:
		return http1.EqualFold(name[:10], "x-postern-")
	}
	return false
}

func (x *exchange) appendNoBody() {
	switch {
	case x.method == "HEAD":
		if length := x.resp.Get("content-length"); length != nil {
			x.out = http1.AppendLength(x.out, x.resp.Length)
		}
	case x.resp.Status == http.StatusNoContent, x.resp.Status == http.StatusNotModified:
	default:
		x.out = append(x.out, "Content-Length: 0\r\n"...)
	}
	x.out = append(x.out, "\r\n"...)
}

// passWhole passes a short body on in one piece with its head, so that its
// length can be said and one write is enough.
func (x *exchange) passWhole() error {
	body := x.scratchBody()
	for {
		piece, step, err := x.respBody.Next()
		switch {
		case err != nil:
			return err
		case step == http1.Data && len(body) == 0 && x.respBody.Done():
			return x.sendWhole(piece)
		case step == http1.Data:
			body = append(body, piece...)
		case step == http1.End:
			x.scratch = body
			return x.sendWhole(body)
		default:
			if err := x.respBody.Fill(); err != nil {
				return err
			}
		}
	}
}

// scratchBody is the scratch memory, no longer needed once the request is out.
func (x *exchange) scratchBody() []byte {
	clear(x.scratch)
	return x.scratch[:0]
}

func (x *exchange) sendWhole(body []byte) error {
	clean, hits := x.view.matcher.Replace(body)
	x.hits += hits
	x.got = int64(len(clean))
	x.out = append(http1.AppendLength(x.out, x.got), "\r\n"...)
	x.out = append(x.out, clean...)
	return x.flush()
}

// outlet frames the answer's body for the agent, with its values taken out.
type outlet struct {
	x      *exchange
	stream *redact.Stream
	open   bool // a chunk is open
	start  int  // of that chunk in out
}

// outlet ends the head for a body whose length is not known.
func (x *exchange) outlet() *outlet {
	o := &outlet{x: x, stream: x.view.matcher.Stream()}
	if x.head.Minor == 1 {
		x.out = append(x.out, "Transfer-Encoding: chunked\r\n\r\n"...)
	} else {
		x.out = append(x.out, "\r\n"...) // ended by the connection
	}
	return o
}

// write puts a piece in; what is safe of it is sent when send is called, or
// when much has gathered.
func (o *outlet) write(piece []byte) error {
	for len(piece) > 0 {
		n := min(len(piece), chunkSize/2)
		o.begin()
		o.x.out = o.stream.Write(o.x.out, piece[:n])
		piece = piece[n:]
		if len(o.x.out)-o.start >= chunkSize {
			if err := o.send(); err != nil {
				return err
			}
		}
	}
	return nil
}

func (o *outlet) begin() {
	if o.open {
		return
	}
	o.open, o.start = true, len(o.x.out)
	if o.x.head.Minor == 1 {
		o.x.out, o.start = http1.OpenChunk(o.x.out)
	}
}

// end closes the open chunk.
func (o *outlet) end() {
	if !o.open {
		return
	}
	o.open = false
	x := o.x
	if x.head.Minor != 1 {
		x.got += int64(len(x.out) - o.start)
		return
	}
	data := x.out[o.start+http1.ChunkRoom:]
	x.got += int64(len(data))
	if len(data) > http1.MaxChunk { // replacements may be much longer than the values
		x.out = appendChunk(x.out[:o.start], append([]byte(nil), data...))
		return
	}
	x.out = http1.CloseChunk(x.out, o.start)
}

func (o *outlet) send() error {
	o.end()
	return o.x.flush()
}

// close sends what was held back and ends the body.
func (o *outlet) close(trailers []http1.Field) error {
	o.begin()
	o.x.out = o.stream.Close(o.x.out)
	o.end()
	o.x.hits += o.stream.Hits()
	if o.x.head.Minor == 1 {
		o.x.out = http1.AppendEnd(o.x.out, trailers)
	}
	return o.x.flush()
}

// passStream passes the body on as it comes. What one read delivered goes out
// before the next read, so that nothing waits.
func (x *exchange) passStream() error {
	o := x.outlet()
	for {
		piece, step, err := x.respBody.Next()
		if err != nil {
			return err
		}
		switch step {
		case http1.Data:
			err = o.write(piece)
		case http1.End:
			return o.close(x.trailers())
		default:
			if err = o.send(); err == nil {
				err = x.respBody.Fill()
			}
		}
		if err != nil {
			return err
		}
	}
}

// trailers are those of the answer that are passed on, values taken out.
func (x *exchange) trailers() []http1.Field {
	kept := x.respBody.Trailers[:0]
	for _, f := range x.respBody.Trailers {
		_, inName := x.view.matcher.Replace(f.Name)
		value, n := x.view.matcher.Replace(f.Value)
		x.hits += n + inName
		if inName == 0 && !x.resp.Hop(f.Name) && !dropped(f.Name, true) && !http1.EqualFold(f.Name, "set-cookie") && !http1.EqualFold(f.Name, "host") {
			kept = append(kept, http1.Field{Name: f.Name, Value: value})
		}
	}
	return kept
}

// passDecoded passes a body on that came compressed.
func (x *exchange) passDecoded(source io.Reader) error {
	o := x.outlet()
	buf := make([]byte, chunkSize/2)
	defer clear(buf)
	for {
		n, err := source.Read(buf)
		if n > 0 {
			if werr := o.write(buf[:n]); werr != nil {
				return werr
			}
			if serr := o.send(); serr != nil {
				return serr
			}
		}
		if err == io.EOF {
			return o.close(nil)
		}
		if err != nil {
			return err
		}
	}
}

func itoa(n int) string { return strconv.Itoa(n) }
