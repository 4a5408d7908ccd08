// Package clienthello reads the server name out of the first bytes of a TLS
// connection without taking part in it.
//
// Source: RFC 8446 §4.1.2 and §5.1, RFC 6066 §3, November 2026.
package clienthello

import (
	"encoding/binary"
	"errors"
)

// MaxBytes bounds what is looked at: a hello with post-quantum key shares and a
// resumption ticket has 2 to 4 KB.
const MaxBytes = 16 << 10

// ErrMore means that the bytes so far are the beginning of a hello.
var ErrMore = errors.New("clienthello: more bytes are needed")

var errBad = errors.New("clienthello: not a well-formed TLS client hello")

// IsTLS says whether a connection whose first byte is b speaks TLS.
func IsTLS(b byte) bool { return b == 0x16 }

// ServerName is the host name that the hello in b asks for, "" where it asks
// for none. It returns ErrMore while b is incomplete. A hello with two names,
// an empty or an over-long one is refused. An encrypted hello (ECH) shows its
// outer name, which is then the one that counts.
func ServerName(b []byte) (string, error) {
	hello, err := handshake(b)
	if err != nil {
		return "", err
	}
	return fromHello(hello)
}

// handshake joins the records that carry the first handshake message.
func handshake(b []byte) ([]byte, error) {
	var message []byte
	for total := 0; ; {
		if len(b) < 5 {
			if len(b) > 0 && b[0] != 0x16 || len(b) > 1 && b[1] != 3 {
				return nil, errBad
			}
			return nil, ErrMore
		}
		size := int(binary.BigEndian.Uint16(b[3:]))
		if b[0] != 0x16 || b[1] != 3 || size == 0 || size > 1<<14 {
			return nil, errBad
		}
		if total += 5 + size; total > MaxBytes {
			return nil, errBad
		}
		if len(b) < 5+size {
			return nil, ErrMore
		}
		message = append(message, b[5:5+size]...)
		b = b[5+size:]
		if len(message) < 4 {
			continue
		}
		length := int(message[1])<<16 | int(message[2])<<8 | int(message[3])
		if message[0] != 1 || length > MaxBytes {
			return nil, errBad
		}
		if len(message) >= 4+length {
			return message[4 : 4+length], nil
		}
	}
}

// reader takes length-prefixed parts off the front; ok turns false for good
// when one does not fit.
type reader struct {
	b  []byte
	ok bool
}

func (r *reader) take(n int) []byte {
	if !r.ok || n > len(r.b) {
		r.ok = false
		return nil
	}
	part := r.b[:n]
	r.b = r.b[n:]
	return part
}

func (r *reader) prefixed(width int) []byte {
	n := 0
	for _, x := range r.take(width) {
		n = n<<8 | int(x)
	}
	return r.take(n)
}

func fromHello(hello []byte) (string, error) {
	r := reader{b: hello, ok: true}
	r.take(2 + 32)
	r.prefixed(1) // session id
	r.prefixed(2) // cipher suites
	r.prefixed(1) // compression methods
	if r.ok && len(r.b) == 0 {
		return "", nil // no extensions at all
	}
	extensions := reader{b: r.prefixed(2), ok: r.ok}
	if !r.ok || len(r.b) != 0 {
		return "", errBad
	}
	name, found := "", false
	for extensions.ok && len(extensions.b) > 0 {
		kind := extensions.take(2)
		body := extensions.prefixed(2)
		if !extensions.ok || kind[0] != 0 || kind[1] != 0 {
			continue
		}
		if found {
			return "", errBad
		}
		var err error
		if name, err = fromExtension(body); err != nil {
			return "", err
		}
		found = true
	}
	if !extensions.ok {
		return "", errBad
	}
	return name, nil
}

// fromExtension reads a server_name extension, which must hold one host name.
func fromExtension(body []byte) (string, error) {
	r := reader{b: body, ok: true}
	list := reader{b: r.prefixed(2), ok: r.ok}
	kind := list.take(1)
	name := list.prefixed(2)
	if !list.ok || len(r.b) != 0 || len(list.b) != 0 || kind[0] != 0 || len(name) == 0 || len(name) > 255 {
		return "", errBad
	}
	for _, c := range name {
		if c <= 0x20 || c >= 0x7f {
			return "", errBad
		}
	}
	return string(name), nil
}
