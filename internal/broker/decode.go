package broker

import (
	"bufio"
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"errors"
	"io"

	"postern/internal/broker/http1"
)

// bodyReader reads a body as a stream.
type bodyReader struct {
	body *http1.Body
	rest []byte
}

func (r *bodyReader) Read(p []byte) (int, error) {
	for len(r.rest) == 0 {
		piece, step, err := r.body.Next()
		switch {
		case err != nil:
			return 0, err
		case step == http1.Data:
			r.rest = piece
		case step == http1.End:
			return 0, io.EOF
		default:
			if err := r.body.Fill(); err != nil {
				return 0, err
			}
		}
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// The bounds of what a compressed answer may become: above bombSize it may not
// have grown by more than bombRatio.
const (
	bombSize  = 64 << 20
	bombRatio = 200
)

var errBomb = errors.New("a compressed answer grew beyond all measure")

// decoded is the plain form of a body that came compressed although identity
// was asked for. It waits for the first bytes, so that a wrong coding is found
// before the head goes out.
func decoded(h *http1.Head, body io.Reader) (io.Reader, *refusal) {
	var coding []byte
	codings := 0
	for _, f := range h.Fields {
		if http1.EqualFold(f.Name, "content-encoding") {
			http1.List(f.Value, func(m []byte) bool {
				coding = m
				codings++
				return true
			})
		}
	}
	if codings == 0 || codings == 1 && http1.EqualFold(coding, "identity") {
		return nil, nil
	}
	if codings > 1 {
		return nil, badGateway(ruleEncoding, "the answer is compressed more than once")
	}
	counted := &counter{from: body}
	in := bufio.NewReaderSize(counted, chunkSize/2)
	if _, err := in.Peek(1); errors.Is(err, io.EOF) {
		return bytes.NewReader(nil), nil
	}
	out, err := decoder(coding, in)
	if err != nil {
		return nil, badGateway(ruleEncoding, "the answer says that it is compressed and cannot be decoded, or in a form that is not known")
	}
	return &bounded{from: out, in: counted}, nil
}

func decoder(coding []byte, in *bufio.Reader) (io.Reader, error) {
	switch {
	case http1.EqualFold(coding, "gzip"), http1.EqualFold(coding, "x-gzip"):
		return gzip.NewReader(in)
	case http1.EqualFold(coding, "deflate"):
		if b, err := in.Peek(2); err == nil && b[0]&0x0f == 8 && (int(b[0])<<8|int(b[1]))%31 == 0 {
			return zlib.NewReader(in)
		}
		return flate.NewReader(in), nil
	}
	return nil, errors.ErrUnsupported
}

type counter struct {
	from io.Reader
	n    int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.from.Read(p)
	c.n += int64(n)
	return n, err
}

// bounded ends a stream that grows beyond all measure.
type bounded struct {
	from io.Reader
	in   *counter
	n    int64
}

func (b *bounded) Read(p []byte) (int, error) {
	n, err := b.from.Read(p)
	if b.n += int64(n); b.n > bombSize && b.n/bombRatio > b.in.n {
		return 0, errBomb
	}
	return n, err
}
