package http1

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"

	"pgregory.net/rapid"
)

func readRequest(t testing.TB, src io.Reader) (*Reader, *Head, error) {
	t.Helper()
	r, h := NewReader(src, &Buffers{}), &Head{}
	return r, h, r.ReadRequest(h)
}

// readBody reads a whole body.
func readBody(b *Body) (string, error) {
	var all []byte
	for {
		piece, step, err := b.Next()
		if err != nil {
			return string(all), err
		}
		switch step {
		case Data:
			all = append(all, piece...)
		case End:
			return string(all), nil
		case More:
			if err := b.Fill(); err != nil {
				return string(all), err
			}
		}
	}
}

func TestRequest(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, message string
		framing       Framing
		body          string
		keep          bool
	}{
		{"plain", "GET /a?b HTTP/1.1\r\nHost: x\r\n\r\n", NoBody, "", true},
		{"length", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello", Length, "hello", true},
		{"chunked", "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n", Chunked, "hello world", true},
		{"trailers", "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: Chunked\r\n\r\n0\r\nX: y\r\n\r\n", Chunked, "", true},
		{"close", "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", NoBody, "", false},
		{"1.0", "GET / HTTP/1.0\r\nHost: x\r\n\r\n", NoBody, "", false},
		{"zero length", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", NoBody, "", true},
	} {
		for _, slow := range []bool{false, true} {
			var src io.Reader = strings.NewReader(tt.message)
			if slow {
				src = iotest.OneByteReader(src)
			}
			r, h, err := readRequest(t, src)
			if err != nil || h.Framing != tt.framing || h.KeepAlive != tt.keep || string(h.Host) != "x" {
				t.Errorf("%s: got %+v %v", tt.name, h, err)
				continue
			}
			var b Body
			b.Start(r, h, true)
			if got, err := readBody(&b); err != nil || got != tt.body || !b.Done() {
				t.Errorf("%s: body %q %v", tt.name, got, err)
			}
			if err := r.ReadRequest(h); !errors.Is(err, ErrEnd) {
				t.Errorf("%s: after it: %v", tt.name, err)
			}
		}
	}
}

func TestHeadFields(t *testing.T) {
	t.Parallel()
	_, h, err := readRequest(t, strings.NewReader("GET / HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, X-Mine, Upgrade\r\nX-Mine: 1\r\nUpgrade: websocket\r\nTE: trailers\r\nX-Other:  a b \t\r\nExpect: 100-Continue\r\n\r\n"))
	if err != nil {
		t.Fatal(err)
	}
	for name, hop := range map[string]bool{"X-Mine": true, "te": true, "Upgrade": true, "Connection": true, "Proxy-Authorization": true, "X-Other": false, "Host": false} {
		if h.Hop([]byte(name)) != hop {
			t.Errorf("Hop(%s) is not %v", name, hop)
		}
	}
	if string(h.Get("x-other")) != "a b" || string(h.Upgrade) != "websocket" || !h.Expect {
		t.Errorf("got %+v", h)
	}
}

func TestResponse(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, message string
		headOnly      bool
		body          string
		keep          bool
	}{
		{"length", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", false, "ok", true},
		{"no reason", "HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok", false, "ok", true},
		{"until the end", "HTTP/1.1 200 OK\r\n\r\nall of it", false, "all of it", false},
		{"chunk extension", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2 ; a=b\r\nok\r\n0\r\nX: y\r\n\r\n", false, "ok", true},
		{"head", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", true, "", true},
		{"204", "HTTP/1.1 204 No Content\r\n\r\n", false, "", true},
		{"304", "HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n", false, "", true},
		{"latin-1", "HTTP/1.1 200 \xc4\r\nX: \xe4\r\nContent-Length: 0\r\n\r\n", false, "", true},
	} {
		r, h := NewReader(iotest.OneByteReader(strings.NewReader(tt.message)), &Buffers{}), &Head{}
		if err := r.ReadResponse(h, tt.headOnly); err != nil || h.KeepAlive != tt.keep {
			t.Errorf("%s: %+v %v", tt.name, h, err)
			continue
		}
		var b Body
		b.Start(r, h, false)
		if got, err := readBody(&b); err != nil || got != tt.body {
			t.Errorf("%s: body %q %v", tt.name, got, err)
		}
	}
}

func TestBodyThatBreaksOff(t *testing.T) {
	t.Parallel()
	for _, rest := range []string{"Content-Length: 5\r\n\r\nhel", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n", "Transfer-Encoding: chunked\r\n\r\n5"} {
		r, h, err := readRequest(t, strings.NewReader("POST / HTTP/1.1\r\nHost: x\r\n"+rest))
		if err != nil {
			t.Fatal(err)
		}
		var b Body
		b.Start(r, h, true)
		if _, err := readBody(&b); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%q: got %v", rest, err)
		}
	}
}

// What is written as chunks is read back, whatever the pieces are.
func TestChunksRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		pieces := rapid.SliceOfN(rapid.SliceOfN(rapid.Byte(), 0, 300), 0, 5).Draw(t, "pieces")
		wire, want := []byte("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"), []byte(nil)
		for _, p := range pieces {
			var start int
			wire, start = OpenChunk(wire)
			wire = CloseChunk(append(wire, p...), start)
			want = append(want, p...)
		}
		wire = AppendEnd(wire, []Field{{[]byte("X"), []byte("y")}})
		res, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(wire)), nil)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(res.Body); err != nil || !bytes.Equal(got, want) || res.Trailer.Get("X") != "y" {
			t.Fatalf("got %q %v", got, err)
		}
	})
}

func TestBuffersAreGivenBackWiped(t *testing.T) {
	t.Parallel()
	pool := &Buffers{}
	r := NewReader(strings.NewReader("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), pool)
	if err := r.Wait(); err != nil {
		t.Fatal(err)
	}
	buf := r.buf
	if err := r.ReadRequest(&Head{}); err != nil {
		t.Fatal(err)
	}
	r.Release()
	if r.buf != nil || bytes.ContainsAny(*buf, "GETHost") {
		t.Error("a buffer was kept, or still holds the message")
	}
}

// FuzzReadRequest holds the parser against the standard library's: what ours
// lets through must mean the same to the other.
func FuzzReadRequest(f *testing.F) {
	f.Add([]byte("POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"))
	f.Add([]byte("POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nA: b\r\n\r\n"))
	f.Add([]byte("GET http://x/ HTTP/1.0\r\nhost:x\r\nConnection: close, te\r\n\r\n"))
	f.Add([]byte("GET / HTTP/1.1\nHost: x\n\n"))
	f.Fuzz(func(t *testing.T, message []byte) {
		r, h, err := readRequest(t, bytes.NewReader(message))
		if err != nil {
			return
		}
		var b Body
		b.Start(r, h, true)
		body, err := readBody(&b)
		if err != nil {
			return
		}
		std, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(message)))
		if err != nil {
			return // stricter than ours in the target: nothing two-faced
		}
		want, err := io.ReadAll(std.Body)
		if err != nil || string(want) != body {
			t.Errorf("the bodies differ: %q and %q (%v)", body, want, err)
		}
		if std.Method != string(h.Method) || std.RequestURI != string(h.Target) {
			t.Errorf("the request lines differ: %s %s and %s %s", h.Method, h.Target, std.Method, std.RequestURI)
		}
		fields := 0
		for _, values := range std.Header {
			fields += len(values)
		}
		if std.Host != "" {
			fields++
		}
		if std.Header.Get("Content-Length") == "" && std.ContentLength >= 0 && h.Get("content-length") != nil {
			fields++
		}
		if len(std.TransferEncoding) > 0 {
			fields++
		}
		if fields > len(h.Fields) {
			t.Errorf("%d fields and %d", len(h.Fields), fields)
		}
	})
}

func FuzzReadResponse(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"))
	f.Add([]byte("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;a\r\nok\r\n0\r\nX: y\r\n\r\n"))
	f.Add([]byte("HTTP/1.0 302 Found\r\n\r\nrest"))
	f.Fuzz(func(t *testing.T, message []byte) {
		r, h := NewReader(bytes.NewReader(message), &Buffers{}), &Head{}
		if r.ReadResponse(h, false) != nil || h.Status < 200 {
			return
		}
		var b Body
		b.Start(r, h, false)
		body, err := readBody(&b)
		if err != nil {
			return
		}
		std, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(message)), nil)
		if err != nil {
			return
		}
		if want, err := io.ReadAll(std.Body); err == nil && string(want) != body {
			t.Errorf("the bodies differ: %q and %q", body, want)
		}
		if std.StatusCode != h.Status {
			t.Errorf("the statuses differ: %d and %d", h.Status, std.StatusCode)
		}
	})
}

func BenchmarkReadRequest(b *testing.B) {
	message := []byte("POST /v1/messages HTTP/1.1\r\nHost: api.example\r\nUser-Agent: test\r\nAccept: application/json\r\nContent-Type: application/json\r\nContent-Length: 0\r\n\r\n")
	src := bytes.NewReader(message)
	r, h := NewReader(src, &Buffers{}), &Head{}
	b.ReportAllocs()
	for b.Loop() {
		src.Reset(message)
		if err := r.ReadRequest(h); err != nil {
			b.Fatal(fmt.Sprint(err))
		}
	}
}
