package http1

import (
	"bytes"
	"errors"
	"io"
)

// Field is one header or trailer field. Both parts point into the head's own
// memory and live until the head is read again.
type Field struct{ Name, Value []byte }

// Framing says where a body ends.
type Framing int

// The framings.
const (
	NoBody   Framing = iota
	Length           // Head.Length bytes
	Chunked          // chunks, then trailers
	UntilEnd         // the connection's end (responses only)
)

// Head is the head of one message, of a request or of a response. Reuse one
// per connection.
type Head struct {
	raw []byte

	Method, Target []byte // of a request
	Status         int    // of a response
	Reason         []byte // of a response

	Minor     int // 1 for HTTP/1.1, 0 for HTTP/1.0
	Fields    []Field
	Framing   Framing
	Length    int64
	KeepAlive bool
	Host      []byte // of a request, as sent
	Upgrade   []byte // value of Upgrade where Connection names it
	Expect    bool   // Expect: 100-continue
	nominated [][]byte
}

// Get is the value of the first field called name (lower case), nil without.
func (h *Head) Get(name string) []byte {
	for _, f := range h.Fields {
		if EqualFold(f.Name, name) {
			return f.Value
		}
	}
	return nil
}

// Raw is the whole head as it came, the empty line included.
func (h *Head) Raw() []byte { return h.raw }

// Hop says whether a field belongs to this connection only and is not sent on:
// the fixed list of RFC 9110 §7.6.1, framing, and what Connection names.
func (h *Head) Hop(name []byte) bool {
	switch len(name) {
	case 2:
		return EqualFold(name, "te")
	case 7:
		return EqualFold(name, "upgrade") || EqualFold(name, "trailer")
	case 10:
		if EqualFold(name, "connection") || EqualFold(name, "keep-alive") {
			return true
		}
	case 14:
		if EqualFold(name, "content-length") {
			return true
		}
	case 16:
		if EqualFold(name, "proxy-connection") {
			return true
		}
	case 17:
		if EqualFold(name, "transfer-encoding") {
			return true
		}
	case 18:
		if EqualFold(name, "proxy-authenticate") {
			return true
		}
	case 19:
		if EqualFold(name, "proxy-authorization") {
			return true
		}
	}
	for _, n := range h.nominated {
		if bytes.EqualFold(n, name) {
			return true
		}
	}
	return false
}

// ReadRequest reads the head of the next request. It returns ErrEnd where the
// peer closed before a byte of it.
func (r *Reader) ReadRequest(h *Head) error {
	if err := r.take(h); err != nil {
		return err
	}
	rest, err := h.requestLine(h.raw)
	if err != nil {
		return err
	}
	if err := h.fields(rest, &valueByte); err != nil {
		return err
	}
	return h.finishRequest()
}

// ReadResponse reads the head of the next response. headOnly says that the
// request was HEAD, so that no body follows.
func (r *Reader) ReadResponse(h *Head, headOnly bool) error {
	if err := r.take(h); err != nil {
		return err
	}
	rest, err := h.statusLine(h.raw)
	if err != nil {
		return err
	}
	if err := h.fields(rest, &looseByte); err != nil {
		return err
	}
	return h.finishResponse(headOnly)
}

// take copies the next head out of the buffer, so that the body may be read
// while the head is still in use.
func (r *Reader) take(h *Head) error {
	n, err := r.headLength()
	if err != nil {
		if errors.Is(err, io.EOF) {
			return ErrEnd
		}
		return err
	}
	h.reset()
	h.raw = append(h.raw, (*r.buf)[:n]...)
	r.r = n
	return nil
}

func (h *Head) reset() {
	clear(h.raw)
	*h = Head{raw: h.raw[:0], Fields: h.Fields[:0], nominated: h.nominated[:0]}
}

func (h *Head) requestLine(b []byte) ([]byte, error) {
	end := bytes.IndexByte(b, '\r')
	line, rest := b[:end], b[end:]
	first := bytes.IndexByte(line, ' ')
	last := bytes.LastIndexByte(line, ' ')
	if first <= 0 || first == last {
		return nil, bad("the request line is not METHOD TARGET VERSION")
	}
	h.Method, h.Target = line[:first], line[first+1:last]
	for _, c := range h.Method {
		if (c < 'A' || c > 'Z') && c != '-' {
			return nil, bad("the method is not made of upper-case letters")
		}
	}
	if len(h.Target) == 0 || !all(h.Target, &targetByte) {
		return nil, bad("the target holds a byte that may not stand there")
	}
	minor, ok := version(line[last+1:])
	if !ok {
		return nil, bad("the version is neither HTTP/1.1 nor HTTP/1.0")
	}
	h.Minor = minor
	return rest[2:], afterLine(rest)
}

func (h *Head) statusLine(b []byte) ([]byte, error) {
	end := bytes.IndexByte(b, '\r')
	line, rest := b[:end], b[end:]
	if len(line) < 12 || line[8] != ' ' || len(line) > 12 && line[12] != ' ' {
		return nil, bad("the status line is not VERSION STATUS REASON")
	}
	minor, ok := version(line[:8])
	if !ok {
		return nil, bad("the version is neither HTTP/1.1 nor HTTP/1.0")
	}
	h.Minor = minor
	for _, c := range line[9:12] {
		if c < '0' || c > '9' {
			return nil, bad("the status is not a number")
		}
		h.Status = h.Status*10 + int(c-'0')
	}
	if h.Status < 100 {
		return nil, bad("the status is below 100")
	}
	if len(line) > 13 {
		h.Reason = line[13:]
	}
	if !all(h.Reason, &looseByte) {
		return nil, bad("the reason holds a control character")
	}
	return rest[2:], afterLine(rest)
}

// afterLine refuses a CR that is not the one of CRLF.
func afterLine(rest []byte) error {
	if rest[1] != '\n' {
		return bad("a CR stands inside a line")
	}
	return nil
}

func version(b []byte) (minor int, ok bool) {
	switch string(b) {
	case "HTTP/1.1":
		return 1, true
	case "HTTP/1.0":
		return 0, true
	}
	return 0, false
}

// fields reads name: value lines up to the empty line.
func (h *Head) fields(b []byte, values *class) error {
	for {
		end := bytes.IndexByte(b, '\r')
		if end < 0 || end+1 >= len(b) || b[end+1] != '\n' {
			return bad("a CR stands inside a line")
		}
		if end == 0 {
			return nil
		}
		line := b[:end]
		b = b[end+2:]
		if line[0] == ' ' || line[0] == '\t' {
			return bad("a field is folded over two lines")
		}
		colon := bytes.IndexByte(line, ':')
		if colon <= 0 || !all(line[:colon], &tokenByte) {
			return bad("a field name holds a byte that may not stand there")
		}
		value := trim(line[colon+1:])
		if !all(value, values) {
			return bad("a field value holds a byte that may not stand there")
		}
		if len(h.Fields) == MaxFields {
			return bad("more than %d fields", MaxFields)
		}
		h.Fields = append(h.Fields, Field{line[:colon], value})
	}
}
