package broker

import (
	"errors"
	"io"

	"postern/internal/broker/http1"
	"postern/internal/broker/inflate"
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

// decoded is the plain form of a body that came compressed although identity
// was asked for, nil for one that did not. It waits for the first bytes, so that
// a wrong coding is found before the head goes out.
func decoded(h *http1.Head, body io.Reader) (*inflate.Reader, *refusal) {
	coding, fields := "", 0
	for _, f := range h.Fields {
		if http1.EqualFold(f.Name, "content-encoding") {
			coding = string(f.Value)
			fields++
		}
	}
	if fields == 0 || coding == "" || http1.EqualFold([]byte(coding), "identity") && fields == 1 {
		return nil, nil
	}
	if fields > 1 {
		return nil, badGateway(ruleEncoding, "the answer is compressed more than once")
	}
	in, err := inflate.Open(coding, body)
	switch {
	case err == nil:
		return in, nil
	case errors.Is(err, inflate.ErrUnknown):
		return nil, badGateway(ruleEncoding, "the answer is compressed in a form that is not known")
	case errors.Is(err, inflate.ErrDamaged), errors.Is(err, io.ErrUnexpectedEOF):
		return nil, badGateway(ruleEncoding, "the answer says that it is compressed and cannot be decoded")
	}
	return nil, badGateway(ruleUpstream, "the answer broke off: "+plainError(err))
}
