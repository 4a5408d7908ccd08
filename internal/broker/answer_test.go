package broker

import (
	"bufio"
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"context"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/zstd"

	"postern/internal/event"
	"postern/internal/redact"
	"postern/internal/secret"
)

// echoWorld is a world whose anthropic site answers by h, with one credential.
func echoWorld(t testing.TB, h func(w http.ResponseWriter, r *http.Request, value string)) (w *world, text, value string) {
	w = newWorld(t)
	text, value = w.lend("bot", "key", "anthropic.api", anthropicHost+":443")
	w.site(anthropicHost, func(rw http.ResponseWriter, r *http.Request) { h(rw, r, value) })
	return w, text, value
}

const anthropicURL = "https://" + anthropicHost + "/v1/messages"

func TestRedactsHeadBodyAndTrailers(t *testing.T) {
	t.Parallel()
	w, text, value := echoWorld(t, func(rw http.ResponseWriter, _ *http.Request, v string) {
		rw.Header().Set("Location", "https://example.com/?key="+url.QueryEscape(v))
		rw.Header().Set("Set-Cookie", "k="+base64.StdEncoding.EncodeToString([]byte(v)))
		rw.Header()["X-"+v] = []string{"named"}
		rw.Header().Set("Alt-Svc", `h3=":443"`)
		rw.Header().Set("X-Postern-Refused", "spoofed")
		rw.Header().Set("Trailer", "X-Echo")
		_, _ = io.WriteString(rw, "raw "+v+" hex "+hex.EncodeToString([]byte(v))+" b64 "+base64.StdEncoding.EncodeToString([]byte("a"+v)))
		rw.Header().Set("X-Echo", v)
	})
	res, body := get(t, w.client("bot", anthropicHost), anthropicURL, "X-Api-Key", text)
	if !strings.Contains(body, "raw "+text+" hex "+hex.EncodeToString([]byte(text))) {
		t.Errorf("body: %s", body)
	}
	all := body + fmt.Sprint(res.Header) + fmt.Sprint(res.Trailer)
	for _, form := range []string{value, hex.EncodeToString([]byte(value)), base64.StdEncoding.EncodeToString([]byte(value)), base64.StdEncoding.EncodeToString([]byte("a" + value))[4:]} {
		if strings.Contains(strings.ToLower(all), strings.ToLower(form)) {
			t.Errorf("a form of the value came through")
		}
	}
	if res.Trailer.Get("X-Echo") != text {
		t.Errorf("trailer: got %q", res.Trailer.Get("X-Echo"))
	}
	if res.Header.Get("Alt-Svc") != "" || res.Header.Get("X-Postern-Refused") != "" {
		t.Errorf("headers that lead elsewhere were passed on: %v", res.Header)
	}
	if got := w.eventually(event.Redacted); got.Detail["hits"] == "" {
		t.Errorf("redacted record: %+v", got)
	}
}

func TestStreamIsNotDelayed(t *testing.T) {
	t.Parallel()
	step := make(chan bool)
	w, text, value := echoWorld(t, func(rw http.ResponseWriter, _ *http.Request, v string) {
		rw.Header().Set("Content-Type", "text/event-stream")
		f := rw.(http.Flusher)
		for i := range 3 {
			_, _ = fmt.Fprintf(rw, "data: %d %s\n\n", i, v)
			f.Flush()
			<-step
		}
	})
	req, _ := http.NewRequest("POST", anthropicURL, strings.NewReader(`{"stream":true}`))
	req.Header.Set("X-Api-Key", text)
	res, err := w.client("bot", anthropicHost).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	br := bufio.NewReader(res.Body)
	for i := range 3 { // the upstream sends the next event only after this one was read
		for range 2 {
			line, err := br.ReadString('\n')
			if err != nil || strings.Contains(line, value) {
				t.Fatalf("event %d: %q %v", i, line, err)
			}
		}
		step <- true
	}
	if _, err := br.ReadByte(); err != io.EOF {
		t.Errorf("the stream did not end: %v", err)
	}
}

func TestCompressedAnswerIsDecoded(t *testing.T) {
	t.Parallel()
	compress := map[string]func(io.Writer) io.WriteCloser{
		"gzip":    func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) },
		"deflate": func(w io.Writer) io.WriteCloser { return zlib.NewWriter(w) },
		"br":      func(w io.Writer) io.WriteCloser { return brotli.NewWriter(w) },
		"zstd":    func(w io.Writer) io.WriteCloser { z, _ := zstd.NewWriter(w); return z },
		"raw": func(w io.Writer) io.WriteCloser {
			f, _ := flate.NewWriter(w, 5)
			return f
		},
	}
	for name, by := range compress {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, text, value := echoWorld(t, func(rw http.ResponseWriter, _ *http.Request, v string) {
				coding := name
				if name == "raw" {
					coding = "deflate"
				}
				rw.Header().Set("Content-Encoding", coding)
				z := by(rw)
				_, _ = io.WriteString(z, strings.Repeat("some text ", 5000)+v)
				_ = z.Close()
			})
			res, body := get(t, w.client("bot", anthropicHost), anthropicURL, "X-Api-Key", text)
			if res.Header.Get("Content-Encoding") != "" || !strings.HasSuffix(body, "text "+text) || strings.Contains(body, value) {
				t.Errorf("got %v, %d bytes", res.Header, len(body))
			}
		})
	}
}

func TestCompressionThatCannotBeSearched(t *testing.T) {
	t.Parallel()
	for name, coding := range map[string]string{"twice": "gzip, gzip", "unknown": "compress", "wrong": "gzip"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, text, value := echoWorld(t, func(rw http.ResponseWriter, _ *http.Request, v string) {
				rw.Header().Set("Content-Encoding", coding)
				_, _ = io.WriteString(rw, v)
			})
			res, body := get(t, w.client("bot", anthropicHost), anthropicURL, "X-Api-Key", text)
			if res.StatusCode != 502 || strings.Contains(body, value) || !strings.Contains(body, "compressed") {
				t.Errorf("got %d %s", res.StatusCode, body)
			}
		})
	}
}

func TestEmptyAnswers(t *testing.T) {
	t.Parallel()
	w, text, _ := echoWorld(t, func(rw http.ResponseWriter, r *http.Request, _ string) {
		switch r.URL.Path {
		case "/204":
			rw.WriteHeader(204)
		case "/304":
			rw.WriteHeader(304)
		case "/head":
			rw.Header().Set("Content-Length", "12345")
		case "/empty":
		}
	})
	c := w.client("bot", anthropicHost)
	tests := []struct {
		method, path string
		status       int
		length       int64
	}{{"GET", "/204", 204, 0}, {"GET", "/304", 304, 0}, {"HEAD", "/head", 200, 12345}, {"GET", "/empty", 200, 0}, {"POST", "/empty", 200, 0}}
	reused := 0
	for _, tt := range tests {
		req, _ := http.NewRequest(tt.method, "https://"+anthropicHost+tt.path, nil)
		req.Header.Set("X-Api-Key", text)
		req = req.WithContext(httptrace.WithClientTrace(req.Context(), &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) {
			if i.Reused {
				reused++
			}
		}}))
		res, err := c.Do(req)
		if err != nil {
			t.Fatalf("%s %s: %v", tt.method, tt.path, err)
		}
		b, _ := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if res.StatusCode != tt.status || len(b) != 0 || res.ContentLength != tt.length {
			t.Errorf("%s %s: got %d, %d bytes, length %d", tt.method, tt.path, res.StatusCode, len(b), res.ContentLength)
		}
	}
	if reused != len(tests)-1 {
		t.Errorf("the agent's connection was reused %d times of %d", reused, len(tests)-1)
	}
}

func TestBodiesOfEverySize(t *testing.T) {
	t.Parallel()
	conns := map[string]bool{}
	w, text, _ := echoWorld(t, func(rw http.ResponseWriter, r *http.Request, _ string) {
		conns[r.RemoteAddr] = true
		b, _ := io.ReadAll(r.Body)
		_, _ = rw.Write(b)
	})
	c := w.client("bot", anthropicHost)
	for _, chunked := range []bool{false, true} {
		for _, size := range []int{0, 1, 8 << 10, 32 << 10, 64 << 10, 65<<10 + 1, 3 << 20} {
			data := bytes.Repeat([]byte("0123456789abcde\n"), size/16+1)[:size]
			var body io.Reader = bytes.NewReader(data)
			if chunked {
				body = io.MultiReader(body) // hides the length
			}
			res, got := send(t, c, "POST", anthropicURL, body, "X-Api-Key", text)
			if res.StatusCode != 200 || got != string(data) {
				t.Errorf("chunked %v, %d bytes: got %d and %d bytes", chunked, size, res.StatusCode, len(got))
			}
		}
	}
	if len(conns) > 2 {
		t.Errorf("%d upstream connections for requests one after the other", len(conns))
	}
}

func TestExpectContinue(t *testing.T) {
	t.Parallel()
	w, text, _ := echoWorld(t, func(rw http.ResponseWriter, r *http.Request, _ string) {
		b, _ := io.ReadAll(r.Body)
		_, _ = rw.Write(b)
	})
	c := w.raw("bot", anthropicHost)
	head := "POST /v1/messages HTTP/1.1\r\nHost: " + anthropicHost + "\r\nExpect: 100-continue\r\nContent-Length: 5\r\nX-Api-Key: %s\r\n\r\n"
	_, _ = fmt.Fprintf(c, head, text)
	br := bufio.NewReader(c)
	if line, _ := textproto.NewReader(br).ReadLine(); line != "HTTP/1.1 100 Continue" {
		t.Fatalf("got %q", line)
	}
	_, _ = br.ReadString('\n')
	_, _ = io.WriteString(c, "hello")
	res, err := http.ReadResponse(br, nil)
	if err != nil {
		t.Fatal(err)
	}
	if b, _ := io.ReadAll(res.Body); string(b) != "hello" {
		t.Errorf("got %q", b)
	}
	// Refused, the body is never asked for.
	_, _ = fmt.Fprintf(c, head, "sk-of-somebody-else")
	if res, err = http.ReadResponse(br, nil); err != nil || res.StatusCode != 403 {
		t.Errorf("got %v %v", res, err)
	}
}

func TestEarlyAnswerEndsTheUpload(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	text, _ := w.lend("bot", "key", "anthropic.api", anthropicHost+":443")
	ln := w.tlsSite(anthropicHost)
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = c.Close() }()
				if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
					_, _ = io.WriteString(c, "HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig")
				}
			}()
		}
	}()
	res, body := send(t, w.client("bot", anthropicHost), "POST", anthropicURL, io.LimitReader(zeros{}, 2<<20), "X-Api-Key", text)
	if res.StatusCode != 413 || body != "big" {
		t.Errorf("got %d %q", res.StatusCode, body)
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

func TestUpstreamThatClosesIdleConnections(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	text, _ := w.lend("bot", "key", "anthropic.api", anthropicHost+":443")
	var calls atomic.Int32
	w.rawSite(anthropicHost, func(c net.Conn, _ *http.Request) {
		calls.Add(1)
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		_ = c.Close() // without having said so
	})
	c := w.client("bot", anthropicHost)
	for range 5 {
		if res, body := get(t, c, anthropicURL, "X-Api-Key", text); res.StatusCode != 200 || body != "ok" {
			t.Fatalf("got %d %s", res.StatusCode, body)
		}
	}
	if calls.Load() != 5 {
		t.Errorf("%d calls", calls.Load())
	}
}

func TestAnswerWithoutLength(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	text, value := w.lend("bot", "key", "anthropic.api", anthropicHost+":443")
	w.rawSite(anthropicHost, func(c net.Conn, _ *http.Request) {
		for _, b := range []byte("HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\n<" + value + ">") {
			_, _ = c.Write([]byte{b})
		}
		_ = c.Close()
	})
	if res, body := get(t, w.client("bot", anthropicHost), anthropicURL, "X-Api-Key", text); res.StatusCode != 200 || body != "<"+text+">" {
		t.Errorf("got %d %s", res.StatusCode, body)
	}
}

func TestEverySplitOfAnEcho(t *testing.T) {
	t.Parallel()
	w, text, value := echoWorld(t, func(rw http.ResponseWriter, r *http.Request, v string) {
		var at int
		_, _ = fmt.Sscan(r.URL.Query().Get("at"), &at)
		full := `{"key":"` + v + `"}`
		_, _ = io.WriteString(rw, full[:at])
		rw.(http.Flusher).Flush()
		_, _ = io.WriteString(rw, full[at:])
	})
	c := w.client("bot", anthropicHost)
	for at := range len(value) + 10 {
		if _, body := get(t, c, fmt.Sprintf("%s?at=%d", anthropicURL, at), "X-Api-Key", text); body != `{"key":"`+text+`"}` {
			t.Fatalf("split at %d: %s", at, body)
		}
	}
}

// Replacements may be much longer than the values: no chunk may overflow.
func TestAnswerThatGrows(t *testing.T) {
	t.Parallel()
	const value = "value-of-sixteen"
	replacement := strings.Repeat("r", 300)
	w, text, _ := echoWorld(t, func(rw http.ResponseWriter, _ *http.Request, _ string) {
		for range 20 {
			_, _ = io.WriteString(rw, strings.Repeat(value+"\n", 1000))
		}
	})
	w.b.cfg.Known = func(context.Context, string) ([]redact.Known, error) {
		return []redact.Known{{Value: secret.New([]byte(value)), Replacement: replacement}}, nil
	}
	if _, body := get(t, w.client("bot", anthropicHost), anthropicURL, "X-Api-Key", text); body != strings.Repeat(replacement+"\n", 20000) {
		t.Errorf("got %d bytes", len(body))
	}
}

func TestTrailersOfRequestsGoNoFurther(t *testing.T) {
	t.Parallel()
	trailers := make(chan http.Header, 1)
	w, text, _ := echoWorld(t, func(_ http.ResponseWriter, r *http.Request, _ string) {
		_, _ = io.Copy(io.Discard, r.Body)
		trailers <- r.Trailer
	})
	c := w.raw("bot", anthropicHost)
	_, _ = fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: %s\r\nTransfer-Encoding: chunked\r\nTrailer: X-Api-Key\r\n\r\n2\r\n{}\r\n0\r\nX-Api-Key: %s\r\n\r\n", anthropicHost, text)
	if got := <-trailers; len(got) != 0 {
		t.Errorf("got %v", got)
	}
}
