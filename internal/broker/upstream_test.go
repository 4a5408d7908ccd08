package broker

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"postern/internal/event"
)

func TestHostileUpstream(t *testing.T) {
	t.Parallel()
	ok := "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
	tests := []struct {
		name, answer, want string
	}{
		{"endless headers", "HTTP/1.1 200 OK\r\n" + strings.Repeat("X-A: "+strings.Repeat("a", 1000)+"\r\n", 100), "longer than"},
		{"many headers", "HTTP/1.1 200 OK\r\n" + strings.Repeat("X: a\r\n", 300) + "\r\n", "more than"},
		{"one endless line", strings.Repeat("a", 100<<10), "longer than"},
		{"not HTTP", "SSH-2.0-server\r\n\r\n", "VERSION STATUS"},
		{"two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nokk", "two Content-Length"},
		{"length and chunked", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "both"},
		{"bare LF", "HTTP/1.1 200 OK\nContent-Length: 2\n\nok", "CRLF"},
		{"CR in a value", "HTTP/1.1 200 OK\r\nX: a\rb\r\n\r\n", "CR"},
		{"folded field", "HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n", "folded"},
		{"endless interim", strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", 40), "interim"},
		{"unasked switch", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", "another protocol"},
		{"early end", "HTTP/1.1 200", "closed the connection"},
		{"nothing", "", "closed the connection"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			text, value := w.lend("bot", "key", "anthropic.api", anthropicHost+":443")
			w.rawSite(anthropicHost, func(c net.Conn, r *http.Request) {
				if r.URL.Path == "/good" {
					_, _ = io.WriteString(c, ok)
					return
				}
				_, _ = io.WriteString(c, tt.answer)
				_ = c.Close()
			})
			c := w.client("bot", anthropicHost)
			if res, _ := get(t, c, "https://"+anthropicHost+"/good", "X-Api-Key", text); res.StatusCode != 200 {
				t.Fatalf("got %d", res.StatusCode)
			}
			res, body := send(t, c, "POST", anthropicURL, strings.NewReader("{}"), "X-Api-Key", text)
			if res.StatusCode != 502 || !strings.Contains(body, tt.want) || strings.Contains(body, value) {
				t.Errorf("got %d %s", res.StatusCode, body)
			}
		})
	}
}

// What follows a complete answer must not become the next answer.
func TestAnswerThatNobodyAskedFor(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	text, _ := w.lend("bot", "key", "anthropic.api", anthropicHost+":443")
	w.rawSite(anthropicHost, func(c net.Conn, _ *http.Request) {
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
	})
	c := w.client("bot", anthropicHost)
	for range 5 {
		if _, body := get(t, c, anthropicURL, "X-Api-Key", text); body != "ok" {
			t.Fatalf("got %q", body)
		}
	}
}

func TestUpstreamThatHangs(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.b.cfg.HeaderTimeout = 50 * time.Millisecond
	text, _ := w.lend("bot", "key", "anthropic.api", anthropicHost+":443")
	hang := make(chan bool)
	t.Cleanup(func() { close(hang) })
	w.rawSite(anthropicHost, func(net.Conn, *http.Request) { <-hang })
	for _, body := range []io.Reader{strings.NewReader("{}"), io.LimitReader(zeros{}, 1<<20)} {
		if res, text := send(t, w.client("bot", anthropicHost), "POST", anthropicURL, body, "X-Api-Key", text); res.StatusCode != 504 {
			t.Errorf("got %d %s", res.StatusCode, text)
		}
	}
}

func TestAnswerThatBreaksOff(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]string{
		"length":      "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\nshort",
		"chunked":     "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n",
		"broken size": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nshort\r\nxyz\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			text, _ := w.lend("bot", "key", "anthropic.api", anthropicHost+":443")
			w.rawSite(anthropicHost, func(c net.Conn, _ *http.Request) {
				_, _ = io.WriteString(c, answer)
				_ = c.Close()
			})
			req, _ := http.NewRequest("GET", anthropicURL, nil)
			req.Header.Set("X-Api-Key", text)
			res, err := w.client("bot", anthropicHost).Do(req)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadAll(res.Body); err == nil && res.StatusCode != 502 {
				t.Error("the agent took half an answer for a whole one")
			}
			_ = res.Body.Close()
			if w.eventually(event.Outcome).Reason == "" {
				t.Error("the outcome does not say that it broke off")
			}
		})
	}
}

func TestAgentThatHangsUp(t *testing.T) {
	t.Parallel()
	ended := make(chan bool)
	w, text, _ := echoWorld(t, func(_ http.ResponseWriter, r *http.Request, _ string) {
		_, _ = io.Copy(io.Discard, r.Body) // from then on the server notices the end
		<-r.Context().Done()
		close(ended)
	})
	w.b.cfg.HeaderTimeout = time.Minute
	c := w.raw("bot", anthropicHost)
	_, _ = fmt.Fprintf(c, "POST /v1/messages HTTP/1.1\r\nHost: %s\r\nX-Api-Key: %s\r\nContent-Length: 2\r\n\r\n{}", anthropicHost, text)
	w.eventually(event.Use)
	_ = c.Close()
	select {
	case <-ended:
	case <-time.After(3 * watchEvery):
		t.Fatal("the provider goes on working for nobody")
	}
	if out := w.eventually(event.Outcome); out.Reason != agentGone {
		t.Errorf("outcome: %+v", out)
	}
	if n := len(w.recorded(event.Refused)); n != 0 {
		t.Errorf("%d refusals recorded", n)
	}
}
