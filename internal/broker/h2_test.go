package broker

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"postern/internal/event"
)

// http2World is echoWorld with a site that offers HTTP/2 only.
func http2World(t testing.TB, h func(w http.ResponseWriter, r *http.Request, value string)) (w *world, text, value string) {
	w = newWorld(t)
	text, value = w.lend("bot", "key", "anthropic.api", anthropicHost+":443")
	srv := &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor != 2 {
			t.Errorf("the upstream was spoken to by %s", r.Proto)
		}
		h(rw, r, value)
	})}
	srv.Protocols = new(http.Protocols)
	srv.Protocols.SetHTTP2(true)
	ln := w.tlsSite(anthropicHost, "h2")
	go func() { _ = srv.Serve(ln) }()
	t.Cleanup(func() { _ = srv.Close() })
	return w, text, value
}

func TestHTTP2Upstream(t *testing.T) {
	t.Parallel()
	var conns atomic.Int32
	remotes := make(chan string, 100)
	w, text, value := http2World(t, func(rw http.ResponseWriter, r *http.Request, v string) {
		conns.Add(1)
		remotes <- r.RemoteAddr
		if r.Header.Get("X-Api-Key") != v || r.Header.Get("Connection") != "" || r.Host != anthropicHost || r.Header.Get("User-Agent") != "agent/1" {
			rw.WriteHeader(401)
		}
		rw.Header().Set("Trailer", "X-Echo")
		rw.Header().Set("X-Head", v)
		b, _ := io.ReadAll(r.Body)
		_, _ = rw.Write(append(b, v...))
		rw.Header().Set("X-Echo", v)
	})
	c := w.client("bot", anthropicHost)
	for _, size := range []int{0, 5, 8 << 10, 200 << 10} {
		for _, chunked := range []bool{false, true} {
			var body io.Reader = bytes.NewReader(bytes.Repeat([]byte("a"), size))
			if chunked {
				body = io.MultiReader(body)
			}
			res, got := send(t, c, "POST", anthropicURL+"?a=%20b", body, "X-Api-Key", text, "User-Agent", "agent/1")
			if res.StatusCode != 200 || got != strings.Repeat("a", size)+text || res.Header.Get("X-Head") != text || res.Trailer.Get("X-Echo") != text {
				t.Fatalf("%d bytes, chunked %v: got %d, %d bytes, %v %v", size, chunked, res.StatusCode, len(got), res.Header, res.Trailer)
			}
			if strings.Contains(got, value) {
				t.Fatal("the value came back")
			}
		}
	}
	first := <-remotes
	for len(remotes) > 0 {
		if again := <-remotes; again != first {
			t.Error("the streams are not on one connection")
		}
	}
	if res, _ := send(t, c, "HEAD", anthropicURL, nil, "X-Api-Key", text, "User-Agent", "agent/1"); res.StatusCode != 200 {
		t.Errorf("HEAD: got %d", res.StatusCode)
	}
	w.eventually(event.Redacted)
}

func TestHTTP2StreamIsNotDelayed(t *testing.T) {
	t.Parallel()
	step := make(chan bool)
	w, text, value := http2World(t, func(rw http.ResponseWriter, _ *http.Request, v string) {
		for range 3 {
			_, _ = io.WriteString(rw, "data: "+v+"\n\n")
			rw.(http.Flusher).Flush()
			<-step
		}
	})
	req, _ := http.NewRequest("GET", anthropicURL, nil)
	req.Header.Set("X-Api-Key", text)
	res, err := w.client("bot", anthropicHost).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	for range 3 {
		got := make([]byte, len("data: "+text+"\n\n"))
		if _, err := io.ReadFull(res.Body, got); err != nil || strings.Contains(string(got), value) {
			t.Errorf("got %q %v", got, err)
			close(step)
			return
		}
		step <- true
	}
}

func TestHTTP2CutAndHang(t *testing.T) {
	t.Parallel()
	release := make(chan bool)
	t.Cleanup(func() { close(release) })
	w, text, _ := http2World(t, func(rw http.ResponseWriter, r *http.Request, _ string) {
		if r.URL.Path == "/hang" {
			select {
			case <-release:
			case <-r.Context().Done():
			}
			return
		}
		_, _ = io.WriteString(rw, "data: 1\n\n")
		rw.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	w.b.cfg.HeaderTimeout = 300 * time.Millisecond
	c := w.client("bot", anthropicHost)
	if res, body := get(t, c, "https://"+anthropicHost+"/hang", "X-Api-Key", text); res.StatusCode != 504 {
		t.Errorf("hang: got %d %s", res.StatusCode, body)
	}
	// An upload that never ends does not keep the answer from being said.
	if res, body := send(t, c, "POST", "https://"+anthropicHost+"/hang", &endless{stop: release}, "X-Api-Key", text); res.StatusCode != 504 {
		t.Errorf("hang with a body: got %d %s", res.StatusCode, body)
	}
	req, _ := http.NewRequest("GET", anthropicURL, nil)
	req.Header.Set("X-Api-Key", text)
	res, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(res.Body, make([]byte, 9)); err != nil {
		t.Fatal(err)
	}
	if n := w.b.Cut("key"); n != 1 {
		t.Errorf("Cut: %d", n)
	}
	if _, err := io.ReadAll(res.Body); err == nil {
		t.Error("the stream ended as if it were complete")
	}
}

// endless gives a few bytes and then nothing.
type endless struct {
	stop  chan bool
	given bool
}

func (e *endless) Read(b []byte) (int, error) {
	if e.given {
		<-e.stop
		return 0, io.EOF
	}
	e.given = true
	return copy(b, "begin"), nil
}
