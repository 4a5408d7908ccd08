package broker

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"postern/internal/event"
)

// quietWorld is a world that keeps no records and whose anthropic site answers
// every request with 2 KB of JSON, with as little work as can be.
func quietWorld(b testing.TB) (w *world, text string) {
	w = newWorld(b)
	text, value := w.lend("bot", "key", "anthropic.api", anthropicHost+":443")
	ln := w.tlsSite(anthropicHost)
	answer := []byte("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nDate: Mon, 23 Nov 2026 10:00:00 GMT\r\nRequest-Id: 1234567890\r\nContent-Length: 2048\r\n\r\n" + strings.Repeat(`{"some":"json"} `, 128))
	denied := []byte("HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n")
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = c.Close() }()
				buf := make([]byte, 32<<10)
				for have := 0; ; {
					n, err := c.Read(buf[have:])
					if err != nil {
						return
					}
					have += n
					end := bytes.Index(buf[:have], []byte("\r\n\r\n"))
					if end < 0 || have < end+4+8<<10 {
						continue
					}
					out := denied
					if bytes.Contains(buf[:end], []byte(value)) {
						out = answer
					}
					if _, err := c.Write(out); err != nil {
						return
					}
					have = 0
				}
			}()
		}
	}()
	w.b.cfg.Recorder = discard{}
	return w, text
}

type discard struct{}

func (discard) Record(context.Context, event.Event, bool) error { return nil }

// caller sends the same request of 8 KB over and over on one connection.
type caller struct {
	c       net.Conn
	br      *bufio.Reader
	request []byte
	body    []byte
}

func newCaller(w *world, door, text string) *caller {
	c, err := tls.Dial("tcp", door, &tls.Config{RootCAs: w.agentCA.pool, ServerName: anthropicHost})
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { _ = c.Close() })
	head := fmt.Sprintf("POST /v1/messages HTTP/1.1\r\nHost: %s\r\nUser-Agent: bench\r\nAccept: application/json\r\nAccept-Encoding: gzip, deflate\r\nContent-Type: application/json\r\nX-Api-Key: %s\r\nAnthropic-Version: 2023-06-01\r\nContent-Length: %d\r\n\r\n", anthropicHost, text, 8<<10)
	return &caller{c: c, br: bufio.NewReaderSize(c, 32<<10), request: append([]byte(head), bytes.Repeat([]byte("a words "), 1<<10)...), body: make([]byte, 2048)}
}

func (c *caller) call() error {
	if _, err := c.c.Write(c.request); err != nil {
		return err
	}
	first := true
	for {
		line, err := c.br.ReadSlice('\n')
		if err != nil {
			return err
		}
		if first && !bytes.HasPrefix(line, []byte("HTTP/1.1 200")) {
			return fmt.Errorf("got %s", line)
		}
		if first = false; len(line) == 2 {
			break
		}
	}
	_, err := io.ReadFull(c.br, c.body)
	return err
}

func BenchmarkJSONCall(b *testing.B) {
	w, text := quietWorld(b)
	c := newCaller(w, w.door("bot", anthropicHost, 443), text)
	if err := c.call(); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if err := c.call(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkJSONCallParallel8(b *testing.B) {
	w, text := quietWorld(b)
	door := w.door("bot", anthropicHost, 443)
	b.SetParallelism(4)
	b.ReportAllocs()
	b.RunParallel(func(p *testing.PB) {
		c := newCaller(w, door, text)
		for p.Next() {
			if err := c.call(); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

// maxAllocations is what one call may allocate, in broker, client and upstream
// of this test together.
const maxAllocations = 24

func TestAllocationsPerCall(t *testing.T) {
	w, text := quietWorld(t)
	c := newCaller(w, w.door("bot", anthropicHost, 443), text)
	for range 10 {
		if err := c.call(); err != nil {
			t.Fatal(err)
		}
	}
	got := testing.AllocsPerRun(200, func() {
		if err := c.call(); err != nil {
			t.Fatal(err)
		}
	})
	if got > maxAllocations {
		t.Errorf("%.0f allocations per call, more than %d", got, maxAllocations)
	}
	t.Logf("%.0f allocations per call", got)
}
