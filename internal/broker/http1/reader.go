package http1

import (
	"bytes"
	"errors"
	"io"
	"sync"
)

// Buffers lends read buffers to the connections that are not idle.
type Buffers struct{ pool sync.Pool }

func (b *Buffers) get() *[]byte {
	if p, ok := b.pool.Get().(*[]byte); ok {
		return p
	}
	p := make([]byte, bufferSize)
	return &p
}

func (b *Buffers) put(p *[]byte) {
	if cap(*p) == bufferSize {
		b.pool.Put(p)
	}
}

// Reader reads messages from one connection. Not for concurrent use.
type Reader struct {
	src     io.Reader
	buffers *Buffers
	buf     *[]byte
	r, w    int
	first   [1]byte
}

// NewReader reads from src with buffers of pool.
func NewReader(src io.Reader, pool *Buffers) *Reader { return &Reader{src: src, buffers: pool} }

// Buffered is what was read and not yet used. It is valid until the next call.
func (r *Reader) Buffered() []byte {
	if r.buf == nil {
		return nil
	}
	return (*r.buf)[r.r:r.w]
}

// Discard drops the first n buffered bytes.
func (r *Reader) Discard(n int) { r.r += n }

// Wait blocks until one byte has come, without holding a buffer, so that an
// idle connection costs none. It returns io.EOF where the peer closed.
func (r *Reader) Wait() error {
	if r.r < r.w {
		return nil
	}
	r.Release()
	n, err := r.src.Read(r.first[:])
	for n == 0 && err == nil {
		n, err = r.src.Read(r.first[:])
	}
	if n == 0 {
		return err
	}
	r.buf = r.buffers.get()
	(*r.buf)[0] = r.first[0]
	r.r, r.w = 0, 1
	return nil
}

// Release gives the buffer back if nothing in it is still needed.
func (r *Reader) Release() {
	if r.buf != nil && r.r == r.w {
		clear((*r.buf)[:r.w])
		r.buffers.put(r.buf)
		r.buf, r.r, r.w = nil, 0, 0
	}
}

// Drop gives the buffer back whatever is in it; the connection is over.
func (r *Reader) Drop() { r.r = r.w; r.Release() }

// Fill reads once. It returns io.EOF only when nothing more comes.
func (r *Reader) Fill() error {
	if r.buf == nil {
		r.buf = r.buffers.get()
	}
	buf := *r.buf
	if r.r == r.w {
		r.r, r.w = 0, 0
	}
	if r.w == len(buf) {
		if r.r > 0 {
			r.w = copy(buf, buf[r.r:r.w])
			r.r = 0
		} else {
			grown := make([]byte, 2*len(buf))
			copy(grown, buf)
			r.buf, buf = &grown, grown
		}
	}
	n, err := r.src.Read(buf[r.w:])
	for n == 0 && err == nil {
		n, err = r.src.Read(buf[r.w:])
	}
	r.w += n
	if n > 0 {
		return nil
	}
	return err
}

// headLength finds the end of the head that begins at the reader's position
// and reads until it is there. Every line must end in CRLF.
func (r *Reader) headLength() (int, error) {
	if r.buf == nil {
		if err := r.Fill(); err != nil {
			return 0, err
		}
	}
	if r.r > 0 {
		buf := *r.buf
		r.w = copy(buf, buf[r.r:r.w])
		r.r = 0
	}
	line := 0 // where the current line begins
	for scan := 0; ; {
		at := bytes.IndexByte((*r.buf)[scan:r.w], '\n')
		if at < 0 {
			if r.w > MaxHead {
				return 0, bad("the head is longer than %d bytes", MaxHead)
			}
			scan = r.w
			if err := r.Fill(); err != nil {
				return 0, r.cut(err)
			}
			continue
		}
		at += scan
		if at == line || (*r.buf)[at-1] != '\r' {
			return 0, bad("a line does not end in CRLF")
		}
		if at+1 > MaxHead {
			return 0, bad("the head is longer than %d bytes", MaxHead)
		}
		if at == line+1 {
			return at + 1, nil
		}
		line, scan = at+1, at+1
	}
}

// cut names the end of a connection inside a head.
func (r *Reader) cut(err error) error {
	if errors.Is(err, io.EOF) && r.w > r.r {
		return io.ErrUnexpectedEOF
	}
	return err
}
