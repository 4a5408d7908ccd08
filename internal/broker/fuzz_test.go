package broker

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"postern/internal/broker/http1"
)

// scripted is a connection whose peer sends fixed bytes and reads everything.
type scripted struct {
	*bytes.Reader
	written bytes.Buffer
}

func (s *scripted) Write(b []byte) (int, error)      { return s.written.Write(b) }
func (s *scripted) Close() error                     { return nil }
func (s *scripted) LocalAddr() net.Addr              { return nil }
func (s *scripted) RemoteAddr() net.Addr             { return nil }
func (s *scripted) SetDeadline(time.Time) error      { return nil }
func (s *scripted) SetReadDeadline(time.Time) error  { return nil }
func (s *scripted) SetWriteDeadline(time.Time) error { return nil }

// FuzzAgentBytes feeds any bytes to the three ways in. Nothing may panic, and
// a real value may never be written back.
func FuzzAgentBytes(f *testing.F) {
	w := newWorld(f)
	w.mode = Inspect
	text, value := w.lend("bot", "key", "anthropic.api", anthropicHost+":443")
	w.b.resolve = func(context.Context, string) ([]netip.Addr, error) { return nil, errors.New("no such name") }
	head := "Host: " + anthropicHost + "\r\nX-Api-Key: " + text + "\r\n\r\n"
	f.Add([]byte("GET / HTTP/1.1\r\n" + head))
	f.Add([]byte("CONNECT " + anthropicHost + ":443 HTTP/1.1\r\nProxy-Authorization: Basic Ym90OnRva2VuLW9mLWJvdA==\r\n" + head))
	f.Add([]byte("GET /anthropic/v1?a=%41 HTTP/1.1\r\n" + head))
	f.Add([]byte("GET http://" + anthropicHost + "/ HTTP/1.1\r\nProxy-Authorization: Basic Ym90OnRva2VuLW9mLWJvdA==\r\n" + head))
	f.Add([]byte("GET /a/../b?key=" + text + " HTTP/1.1\r\nAuthorization: Basic " + text + "\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" + head))
	f.Add([]byte("\x16\x03\x01\x00\x05hello"))
	f.Fuzz(func(t *testing.T, b []byte) {
		for way := range 3 {
			c := &scripted{Reader: bytes.NewReader(b)}
			l := w.b.live.open(c)
			switch way {
			case 0:
				x := w.b.newExchange(w.b.entry("bot"), c, http1.NewReader(c, &w.b.buffers), l)
				x.t, x.secure = newTarget(anthropicHost, 443), true
				x.serve(t.Context())
			case 1:
				x := w.b.newExchange(nil, c, http1.NewReader(c, &w.b.buffers), l)
				x.bind, x.connect = bindProxied, connectProxied
				x.serve(t.Context())
			case 2:
				s := &session{b: w.b, e: w.b.entry("bot"), c: &peeked{Conn: c}, live: l, t: newTarget(anthropicHost, 443), named: true}
				s.serve(t.Context())
			}
			l.close()
			if out := c.written.String(); strings.Contains(out, value) || out != "" && !strings.HasPrefix(out, "HTTP/1.1 ") && way < 2 {
				t.Errorf("way %d wrote %q", way, out)
			}
		}
		w.mu.Lock()
		w.events = nil
		w.mu.Unlock()
	})
}
