package broker

import (
	"errors"
	"net"
	"time"

	"postern/internal/broker/clienthello"
)

// peeked is a connection whose first bytes were looked at before it was decided
// what becomes of it. Reads see them again.
type peeked struct {
	net.Conn
	head []byte
	leaf string // the host whose certificate is shown
}

// Read returns the looked-at bytes first.
func (p *peeked) Read(b []byte) (int, error) {
	if len(p.head) == 0 {
		return p.Conn.Read(b)
	}
	n := copy(b, p.head)
	p.head = p.head[n:]
	return n, nil
}

// CloseWrite ends one direction where the connection can.
func (p *peeked) CloseWrite() error { return closeWrite(p.Conn) }

func closeWrite(c net.Conn) error {
	if half, ok := c.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return c.Close()
}

// more reads once more behind the bytes so far.
func (p *peeked) more() error {
	if len(p.head) >= clienthello.MaxBytes {
		return errors.New("too many bytes without a decision")
	}
	at := len(p.head)
	if cap(p.head)-at < 1024 {
		p.head = append(make([]byte, 0, 2*cap(p.head)+2048), p.head...)
	}
	n, err := p.Conn.Read(p.head[at:cap(p.head)])
	p.head = p.head[:at+n]
	if n > 0 {
		return nil
	}
	return err
}

// spoken is what the first bytes of a connection are.
type spoken int

const (
	speaksTLS spoken = iota
	speaksHTTP
	speaksOther
	speaksNothing // no byte came in time
	speaksEnd     // the connection is over
)

// listen finds out what the agent speaks, waiting at most wait for the first
// byte: in some protocols the server speaks first.
func (p *peeked) listen(wait time.Duration) spoken {
	defer func() { _ = p.SetReadDeadline(time.Time{}) }()
	if len(p.head) == 0 {
		_ = p.SetReadDeadline(time.Now().Add(wait))
		if err := p.more(); err != nil {
			var slow net.Error
			if errors.As(err, &slow) && slow.Timeout() {
				return speaksNothing
			}
			return speaksEnd
		}
	}
	_ = p.SetReadDeadline(time.Now().Add(headTime))
	if clienthello.IsTLS(p.head[0]) {
		return speaksTLS
	}
	for {
		switch method, known := looksHTTP(p.head); {
		case known && method:
			return speaksHTTP
		case known:
			return speaksOther
		}
		if p.more() != nil {
			return speaksEnd
		}
	}
}

// looksHTTP says whether b begins with a method and a space, and whether that
// is certain yet.
func looksHTTP(b []byte) (yes, known bool) {
	for i, c := range b {
		switch {
		case c == ' ':
			return i > 0, true
		case c < 'A' || c > 'Z', i > maxMethod:
			return false, true
		}
	}
	return false, false
}

// serverName reads the name out of the TLS hello that has begun.
func (p *peeked) serverName() (string, error) {
	_ = p.SetReadDeadline(time.Now().Add(headTime))
	defer func() { _ = p.SetReadDeadline(time.Time{}) }()
	for {
		name, err := clienthello.ServerName(p.head)
		if !errors.Is(err, clienthello.ErrMore) {
			return name, err
		}
		if err := p.more(); err != nil {
			return "", err
		}
	}
}
