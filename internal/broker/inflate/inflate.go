// Package inflate reads compressed bodies of answers, so that what they hold can
// be redacted. It decodes as the bytes come: memory is bounded by the window of
// the coding, never by the body, and what the sender flushed is delivered without
// waiting for more.
package inflate

import (
	"bufio"
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/zstd"
)

var (
	// ErrUnknown is for a coding that this package does not read, and for several
	// codings on top of each other.
	ErrUnknown = errors.New("a coding that is not known")
	// ErrDamaged is for bytes that are not in the coding that they claim.
	ErrDamaged = errors.New("the compressed bytes are damaged")
	// ErrBomb is for a body that grew beyond all measure.
	ErrBomb = errors.New("the compressed bytes grew beyond all measure")
)

const (
	bufferBytes = 16 << 10
	// maxWindow is what a sender of zstd may ask for: RFC 9659, section 3. The
	// window of brotli ends at 16 MiB by its format, that of the others at 32 KiB.
	maxWindow = 8 << 20
	// A body is a bomb when it is larger than freeBytes and more than maxRatio
	// times its compressed form. Repetitive event streams reach 20 to 1, logs 100.
	freeBytes = 64 << 20
	maxRatio  = 200
)

// Reader gives the plain bytes of a body. Not safe for concurrent use.
type Reader struct {
	from    io.Reader
	in      *counted
	release func()
	plain   int64
	free    int64 // bytes that may come whatever the ratio
	err     error // the last answer, which stays
}

// Open starts to decode body. The coding is the value of Content-Encoding:
// gzip, x-gzip, deflate (with or without the zlib frame), br or zstd, in any
// case, or identity or nothing for a body that is as it is. It reads the first
// bytes of body, so that a body that is not in its coding is an error here where
// the coding has a mark (all but br and bare deflate) and not in the middle. An
// empty body is empty in every coding. Errors are ErrUnknown, ErrDamaged, and
// those of body.
func Open(coding string, body io.Reader) (*Reader, error) {
	in := &counted{from: body}
	r := &Reader{in: in, release: func() {}, free: freeBytes}
	coding = strings.ToLower(strings.TrimSpace(coding))
	open := r.opener(coding)
	if open == nil {
		return nil, fmt.Errorf("%w: %.40q", ErrUnknown, coding)
	}
	buffered := bufio.NewReaderSize(in, bufferBytes)
	if _, err := buffered.Peek(1); errors.Is(err, io.EOF) {
		r.from = bytes.NewReader(nil)
		return r, nil
	}
	if err := open(buffered); err != nil {
		if err = in.explain(err); errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF // the body ends within its first mark
		}
		return nil, err
	}
	return r, nil
}

func (r *Reader) opener(coding string) func(*bufio.Reader) error {
	switch coding {
	case "", "identity":
		return func(in *bufio.Reader) error { r.from = in; return nil }
	case "gzip", "x-gzip":
		return r.openGzip
	case "deflate":
		return r.openDeflate
	case "br":
		return func(in *bufio.Reader) error { r.from = brotli.NewReader(in); return nil }
	case "zstd":
		return r.openZstd
	}
	return nil
}

func (r *Reader) openGzip(in *bufio.Reader) error {
	z, err := gzip.NewReader(in)
	if err != nil {
		return err
	}
	z.Multistream(false)
	r.from = &members{in: in, gzip: z}
	return nil
}

// openDeflate tells the zlib frame by its header, as browsers do: RFC 1950,
// section 2.2, a method of 8 and a sum that 31 divides.
func (r *Reader) openDeflate(in *bufio.Reader) error {
	if b, err := in.Peek(2); err == nil && b[0]&0x0f == 8 && binary.BigEndian.Uint16(b)%31 == 0 {
		z, err := zlib.NewReader(in)
		r.from = z
		return err
	}
	r.from = flate.NewReader(in)
	return nil
}

// openZstd looks at the mark itself, because the library reads nothing until it
// is asked for bytes: RFC 8878, section 3.1, a frame or one that is skipped.
func (r *Reader) openZstd(in *bufio.Reader) error {
	b, err := in.Peek(4)
	if err != nil {
		return err
	}
	if mark := binary.LittleEndian.Uint32(b); mark != 0xFD2FB528 && mark>>4 != 0x184D2A5 {
		return ErrDamaged
	}
	z, err := zstd.NewReader(in, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxWindow))
	if err != nil {
		return err
	}
	r.from, r.release = z, z.Close
	return nil
}

// Read gives plain bytes. Errors are io.EOF, io.ErrUnexpectedEOF for a body that
// was cut off, ErrDamaged, ErrBomb and those of the body; after one nothing more
// comes. Bytes that came with it are good.
func (r *Reader) Read(p []byte) (int, error) {
	if r.err != nil || len(p) == 0 {
		return 0, r.err
	}
	n, err := r.from.Read(p)
	r.plain += int64(n)
	switch {
	case r.plain > r.free && r.plain/maxRatio > r.in.n:
		n, r.err = 0, ErrBomb
	case err != nil:
		r.err = r.in.explain(err)
	}
	return n, r.err
}

// Close gives the memory back; the body itself is the caller's. Nothing can be
// read afterwards.
func (r *Reader) Close() error {
	r.release()
	r.release = func() {}
	if r.err == nil {
		r.err = io.ErrClosedPipe
	}
	return nil
}

// members reads the members of a gzip body one after the other. The library's own
// loop holds the last bytes of a member back until the next one has begun.
type members struct {
	in   *bufio.Reader
	gzip *gzip.Reader
	done bool // the member at hand has ended
}

func (m *members) Read(p []byte) (int, error) {
	for {
		if m.done {
			if _, err := m.in.Peek(1); err != nil {
				return 0, err
			}
			if err := m.gzip.Reset(m.in); err != nil {
				return 0, err
			}
			m.gzip.Multistream(false)
			m.done = false
		}
		n, err := m.gzip.Read(p)
		if !errors.Is(err, io.EOF) {
			return n, err
		}
		if m.done = true; n > 0 {
			return n, nil
		}
	}
}

// counted counts what comes in and keeps its error apart from the decoder's.
type counted struct {
	from io.Reader
	n    int64
	err  error
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.from.Read(p)
	c.n += int64(n)
	if err != nil && !errors.Is(err, io.EOF) {
		c.err = err
	}
	return n, err
}

// explain is the error of the body where there is one, the end as it is, and
// ErrDamaged for whatever else a decoder says; what it says may quote the bytes.
func (c *counted) explain(err error) error {
	switch {
	case c.err != nil:
		return c.err
	case errors.Is(err, io.EOF):
		return io.EOF
	case errors.Is(err, io.ErrUnexpectedEOF):
		return io.ErrUnexpectedEOF
	}
	return ErrDamaged
}
