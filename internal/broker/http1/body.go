package http1

import (
	"bytes"
	"errors"
	"io"
)

// Step says what a body needs next.
type Step int

// The steps of Body.Next.
const (
	Data Step = iota // a piece of the body was returned
	More             // nothing buffered: call Fill, which may block
	End              // the body and its trailers are complete
)

type phase int

const (
	inSize phase = iota
	inData
	afterData
	inTrailer
	atEnd
)

// Body reads the body that follows a head, in the reader's own buffer.
type Body struct {
	r       *Reader
	framing Framing
	left    int64
	phase   phase
	strict  bool // a request: no extension, no white space in a chunk size

	Trailers []Field // after End; they live until the next Start
	raw      []byte
}

// Start begins the body of h, which was read from r. strict holds for requests.
func (b *Body) Start(r *Reader, h *Head, strict bool) {
	clear(b.raw)
	*b = Body{r: r, framing: h.Framing, left: h.Length, strict: strict, Trailers: b.Trailers[:0], raw: b.raw[:0]}
	switch h.Framing {
	case NoBody:
		b.phase = atEnd
	case Length, UntilEnd:
		b.phase = inData
	}
}

// Done says whether the whole body was read.
func (b *Body) Done() bool { return b.phase == atEnd }

// Next returns the next buffered piece. The piece is valid until Fill. It never
// blocks: More asks for Fill, before which a caller gives out what it holds.
func (b *Body) Next() ([]byte, Step, error) {
	for {
		switch b.phase {
		case atEnd:
			return nil, End, nil
		case inData:
			return b.data()
		}
		ok, err := b.between()
		if err != nil {
			return nil, End, err
		}
		if !ok {
			return nil, More, nil
		}
	}
}

// Fill reads once more from the connection.
func (b *Body) Fill() error {
	err := b.r.Fill()
	if !errors.Is(err, io.EOF) {
		return err
	}
	if b.framing == UntilEnd {
		b.phase = atEnd
		return nil
	}
	return io.ErrUnexpectedEOF
}

func (b *Body) data() ([]byte, Step, error) {
	piece := b.r.Buffered()
	if len(piece) == 0 {
		return nil, More, nil
	}
	if b.framing == UntilEnd {
		b.r.Discard(len(piece))
		return piece, Data, nil
	}
	if int64(len(piece)) > b.left {
		piece = piece[:b.left]
	}
	b.left -= int64(len(piece))
	b.r.Discard(len(piece))
	if b.left == 0 {
		b.phase = atEnd
		if b.framing == Chunked {
			b.phase = afterData
		}
	}
	return piece, Data, nil
}

// between reads what stands between two pieces of a chunked body. It returns
// false where a line is not complete yet.
func (b *Body) between() (bool, error) {
	buf := b.r.Buffered()
	if b.phase == afterData {
		if len(buf) > 0 && buf[0] != '\r' || len(buf) > 1 && buf[1] != '\n' {
			return false, bad("a chunk does not end in CRLF")
		}
		if len(buf) < 2 {
			return false, nil
		}
		b.r.Discard(2)
		b.phase = inSize
		return true, nil
	}
	end := bytes.IndexByte(buf, '\n')
	limit := maxLine
	if b.phase == inTrailer {
		limit = MaxHead
	}
	if end < 0 && len(buf) > limit || end > limit {
		return false, bad("a chunk line is too long")
	}
	if end < 0 {
		return false, nil
	}
	if end == 0 || buf[end-1] != '\r' {
		return false, bad("a chunk line does not end in CRLF")
	}
	line := buf[:end-1]
	b.r.Discard(end + 1)
	if b.phase == inTrailer {
		return true, b.trailer(line)
	}
	return true, b.size(line)
}

// size reads a chunk-size line.
func (b *Body) size(line []byte) error {
	var n int64
	digits := 0
	for digits < len(line) && hex(line[digits]) >= 0 {
		n = n<<4 | int64(hex(line[digits]))
		if digits++; digits > 15 {
			return bad("a chunk size is too large")
		}
	}
	if digits == 0 {
		return bad("a chunk size is not a number")
	}
	if rest := line[digits:]; len(rest) > 0 {
		if b.strict {
			return bad("a chunk size carries an extension")
		}
		if rest = trim(rest); len(rest) > 0 && rest[0] != ';' || !all(rest, &looseByte) {
			return bad("a chunk size carries something odd")
		}
	}
	b.left, b.phase = n, inData
	if n == 0 {
		b.phase = inTrailer
	}
	return nil
}

func hex(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'a' && c <= 'f':
		return int(c-'a') + 10
	case c >= 'A' && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

// trailer keeps one trailer line; the lines are split into fields at the end,
// because their memory may move until then.
func (b *Body) trailer(line []byte) error {
	if len(b.raw)+len(line)+4 > MaxHead {
		return bad("the trailers are longer than %d bytes", MaxHead)
	}
	b.raw = append(append(b.raw, line...), "\r\n"...)
	if len(line) > 0 {
		return nil
	}
	b.phase = atEnd
	values := &looseByte
	if b.strict {
		values = &valueByte
	}
	h := Head{Fields: b.Trailers}
	err := h.fields(b.raw, values)
	b.Trailers = h.Fields
	return err
}
