// Package ws reads and writes WebSocket frames strictly, without extensions:
// what two parsers could read in two ways is an error with the code that the
// connection closes with.
//
// Source: RFC 6455 §5 (framing) and §7.4.1 (codes), November 2026.
package ws

import (
	"encoding/binary"
	"errors"
)

// Op is a frame's opcode.
type Op byte

// The opcodes.
const (
	Continuation Op = 0
	Text         Op = 1
	Binary       Op = 2
	Close        Op = 8
	Ping         Op = 9
	Pong         Op = 10
)

// Control says whether frames of the opcode stand between those of a message.
func (o Op) Control() bool { return o >= 8 }

// The codes that a connection is closed with by us.
const (
	CodeProtocol    = 1002
	CodeUnsupported = 1003
	CodePolicy      = 1008
	CodeTooBig      = 1009
	CodeInternal    = 1011
)

// MaxControl bounds the payload of a control frame.
const MaxControl = 125

// ErrMore means that the bytes so far are the beginning of a header.
var ErrMore = errors.New("ws: more bytes are needed")

// Error is a frame that breaks the protocol.
type Error struct {
	Code int
	Text string
}

// Error is the fault.
func (e *Error) Error() string { return "malformed frame: " + e.Text }

func bad(text string) error { return &Error{Code: CodeProtocol, Text: text} }

// Header is the head of one frame.
type Header struct {
	Fin    bool
	Op     Op
	Masked bool
	Key    [4]byte
	Length int64
}

// Parse reads the header at the beginning of b and its size. Frames of a client
// must be masked, those of a server must not.
func Parse(b []byte, client bool) (h Header, size int, err error) {
	if len(b) < 2 {
		return h, 0, ErrMore
	}
	h.Fin, h.Op, h.Masked = b[0]&0x80 != 0, Op(b[0]&0x0f), b[1]&0x80 != 0
	switch {
	case b[0]&0x70 != 0:
		return h, 0, bad("a reserved bit is set, although no extension was agreed on")
	case h.Op > Binary && h.Op < Close, h.Op > Pong:
		return h, 0, bad("the opcode is reserved")
	case h.Masked != client:
		return h, 0, bad("a client's frame is not masked, or a server's is")
	}
	size = 2
	switch short := b[1] & 0x7f; {
	case h.Op.Control() && (short > MaxControl || !h.Fin):
		return h, 0, bad("a control frame is long or fragmented")
	case short < 126:
		h.Length = int64(short)
	case short == 126:
		if size = 4; len(b) < size {
			return h, 0, ErrMore
		}
		if h.Length = int64(binary.BigEndian.Uint16(b[2:])); h.Length < 126 {
			return h, 0, bad("a length is written longer than needed")
		}
	default:
		if size = 10; len(b) < size {
			return h, 0, ErrMore
		}
		long := binary.BigEndian.Uint64(b[2:])
		if long < 1<<16 || long >= 1<<63 {
			return h, 0, bad("a length is written longer than needed, or is negative")
		}
		h.Length = int64(long)
	}
	if !h.Masked {
		return h, size, nil
	}
	if len(b) < size+4 {
		return h, 0, ErrMore
	}
	copy(h.Key[:], b[size:])
	return h, size + 4, nil
}

// Order checks that frames make up messages. The zero Order is at a beginning.
type Order struct {
	open bool
	op   Op
}

// Next takes the next header and returns the opcode of the message to which a
// data frame belongs.
func (o *Order) Next(h Header) (Op, error) {
	switch {
	case h.Op.Control():
		return h.Op, nil
	case h.Op == Continuation && !o.open:
		return 0, bad("a continuation of nothing")
	case h.Op != Continuation && o.open:
		return 0, bad("a message begins inside another one")
	case h.Op != Continuation:
		o.op = h.Op
	}
	o.open = !h.Fin
	return o.op, nil
}

// AppendHeader appends the header of a frame of n bytes, masked where key is
// not nil.
func AppendHeader(dst []byte, fin bool, op Op, n int, key *[4]byte) []byte {
	first, mask := byte(op), byte(0)
	if fin {
		first |= 0x80
	}
	if key != nil {
		mask = 0x80
	}
	switch {
	case n < 126:
		dst = append(dst, first, mask|byte(n))
	case n < 1<<16:
		dst = binary.BigEndian.AppendUint16(append(dst, first, mask|126), uint16(n))
	default:
		dst = binary.BigEndian.AppendUint64(append(dst, first, mask|127), uint64(n))
	}
	if key != nil {
		dst = append(dst, key[:]...)
	}
	return dst
}

// Append appends a whole frame. With a key the payload is masked.
func Append(dst []byte, fin bool, op Op, payload []byte, key *[4]byte) []byte {
	dst = AppendHeader(dst, fin, op, len(payload), key)
	at := len(dst)
	dst = append(dst, payload...)
	if key != nil {
		Mask(dst[at:], *key, 0)
	}
	return dst
}

// Mask masks or unmasks b in place, the part of a payload that begins at offset.
func Mask(b []byte, key [4]byte, offset int64) {
	at := int(offset & 3)
	turned := [4]byte{key[at], key[(at+1)&3], key[(at+2)&3], key[(at+3)&3]}
	word := uint64(binary.LittleEndian.Uint32(turned[:]))
	word |= word << 32
	for len(b) >= 8 {
		binary.LittleEndian.PutUint64(b, binary.LittleEndian.Uint64(b)^word)
		b = b[8:]
	}
	for i := range b {
		b[i] ^= turned[i&3]
	}
}

// ClosePayload is the payload of a close frame, with the reason cut to fit.
func ClosePayload(code int, reason string) []byte {
	p := binary.BigEndian.AppendUint16(nil, uint16(code))
	if len(reason) > MaxControl-2 {
		reason = reason[:MaxControl-2]
	}
	return append(p, reason...)
}
