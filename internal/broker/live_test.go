package broker

import (
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"postern/internal/event"
)

func TestBasicAndQuerySlots(t *testing.T) {
	t.Parallel()
	basic := func(user, password string) string {
		return "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
	}
	tests := []struct {
		name, kind, host string
		url              func(p string) string
		header           func(p string) string
		want             func(r *http.Request, v string) bool
	}{
		{
			"basic user", "stripe.secret", "api.stripe.com", func(string) string { return "/v1/charges" }, func(p string) string { return basic(p, "") },
			func(r *http.Request, v string) bool { u, p, _ := r.BasicAuth(); return u == v && p == "" },
		},
		{
			"basic password", "generic", "self.example", func(string) string { return "/" }, func(p string) string { return basic("someone", p) },
			func(r *http.Request, v string) bool { u, p, _ := r.BasicAuth(); return u == "someone" && p == v },
		},
		{
			"query", "google.gemini", "generativelanguage.googleapis.com", func(p string) string { return "/v1/models?a=1&key=" + p + "&b=2" }, nil,
			func(r *http.Request, v string) bool {
				return r.URL.RawQuery == "a=1&key="+url.QueryEscape(v)+"&b=2"
			},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			text, value := w.lend("bot", "key", tt.kind, tt.host+":443")
			w.site(tt.host, func(rw http.ResponseWriter, r *http.Request) {
				if !tt.want(r, value) {
					rw.WriteHeader(401)
				}
				_, _ = io.WriteString(rw, r.Header.Get("Authorization")+r.URL.RawQuery)
			})
			var header []string
			if tt.header != nil {
				header = []string{"Authorization", tt.header(text)}
			}
			res, body := get(t, w.client("bot", tt.host), "https://"+tt.host+tt.url(text), header...)
			if res.StatusCode != 200 {
				t.Errorf("got %d %s", res.StatusCode, body)
			}
			if plain, _ := base64.StdEncoding.DecodeString(strings.TrimPrefix(body, "Basic ")); strings.Contains(string(plain)+body, value) {
				t.Error("the echo was not redacted")
			}
			if use := w.eventually(event.Use); strings.Contains(fmt.Sprint(use), text) || strings.Contains(fmt.Sprint(use), value) {
				t.Errorf("the record shows a token: %+v", use)
			}
		})
	}
}

func TestNewVersionIsUsedAndMasked(t *testing.T) {
	t.Parallel()
	w, text, _ := echoWorld(t, func(rw http.ResponseWriter, r *http.Request, _ string) {
		_, _ = io.WriteString(rw, r.Header.Get("X-Api-Key"))
	})
	c := w.client("bot", anthropicHost)
	if _, body := get(t, c, anthropicURL, "X-Api-Key", text); body != text {
		t.Fatalf("got %s", body)
	}
	w.mu.Lock()
	w.values["key"], w.versions["key"] = strings.Repeat("new-value", 5), 2
	w.mu.Unlock()
	if _, body := get(t, c, anthropicURL, "X-Api-Key", text); body != text { // without Reload
		t.Errorf("got %s", body)
	}
	uses := w.recorded(event.Use)
	if len(uses) != 2 || uses[0].Version != 1 || uses[1].Version != 2 {
		t.Errorf("uses: %+v", uses)
	}
}

func TestDisabledAndEnabledAgain(t *testing.T) {
	t.Parallel()
	w, text, _ := echoWorld(t, func(rw http.ResponseWriter, r *http.Request, v string) {
		_, _ = io.WriteString(rw, r.Header.Get("X-Api-Key"))
	})
	w.disabled["key"] = true
	c := w.client("bot", anthropicHost)
	if res, body := get(t, c, anthropicURL, "X-Api-Key", text); res.StatusCode != 403 || !strings.Contains(body, "disabled") {
		t.Errorf("got %d %s", res.StatusCode, body)
	}
	w.mu.Lock()
	w.disabled["key"] = false
	w.mu.Unlock()
	// The view was built without the value: it must be masked all the same.
	if _, body := get(t, c, anthropicURL, "X-Api-Key", text); body != text {
		t.Errorf("got %s", body)
	}
}

func TestRevokedPlaceholderAfterReload(t *testing.T) {
	t.Parallel()
	w, text, _ := echoWorld(t, func(rw http.ResponseWriter, r *http.Request, _ string) {})
	c := w.client("bot", anthropicHost)
	if res, _ := get(t, c, anthropicURL, "X-Api-Key", text); res.StatusCode != 200 {
		t.Fatalf("got %d", res.StatusCode)
	}
	w.mu.Lock()
	w.revoked[text] = true
	w.mu.Unlock()
	w.b.Reload("bot")
	if res, body := get(t, c, anthropicURL, "X-Api-Key", text); res.StatusCode != 403 || !strings.Contains(body, "revoked") {
		t.Errorf("got %d %s", res.StatusCode, body)
	}
	// A new one works at once, without Reload.
	again, _ := w.lend("bot", "key", "anthropic.api", anthropicHost+":443")
	if res, body := get(t, c, anthropicURL, "X-Api-Key", again); res.StatusCode != 200 {
		t.Errorf("got %d %s", res.StatusCode, body)
	}
}

func TestLedgerThatRecovers(t *testing.T) {
	t.Parallel()
	w, text, _ := echoWorld(t, func(rw http.ResponseWriter, r *http.Request, _ string) {})
	w.durable = true
	c := w.client("bot", anthropicHost)
	for _, tt := range []struct {
		err    error
		status int
	}{{nil, 200}, {errors.New("read-only file system"), 503}, {nil, 200}} {
		w.mu.Lock()
		w.refuse = tt.err
		w.mu.Unlock()
		if res, _ := get(t, c, anthropicURL, "X-Api-Key", text); res.StatusCode != tt.status {
			t.Errorf("with %v: got %d", tt.err, res.StatusCode)
		}
		if tt.err != nil { // what carries no secret goes on
			if res, _ := get(t, c, anthropicURL); res.StatusCode != 200 {
				t.Errorf("without a credential: got %d", res.StatusCode)
			}
		}
	}
	if w.synced != 2 {
		t.Errorf("%d durable records", w.synced)
	}
	if w.b.Stats().RecordErrors == 0 {
		t.Error("the lost records were not counted")
	}
}

func TestStats(t *testing.T) {
	t.Parallel()
	w, text, _ := echoWorld(t, func(rw http.ResponseWriter, _ *http.Request, v string) { _, _ = io.WriteString(rw, v) })
	c := w.client("bot", anthropicHost)
	get(t, c, anthropicURL, "X-Api-Key", text)
	get(t, c, anthropicURL, "X-Api-Key", "sk-other")
	w.eventually(event.Refused)
	w.eventually(event.Redacted)
	s := w.b.Stats()
	if got := s.Agents["bot"]; s.Requests != 2 || got.Injections != 1 || got.Refused != 1 || got.Redactions != 1 || got.FirstUse.IsZero() || got.FirstUseHost != anthropicHost+":443" {
		t.Errorf("got %+v", s)
	}
}

// Many callers at once need many upstream connections, and one after the other
// the same one.
func TestUpstreamConnectionsAreReused(t *testing.T) {
	t.Parallel()
	const callers = 64
	remotes := make(chan string, 4*callers)
	w, text, _ := echoWorld(t, func(rw http.ResponseWriter, r *http.Request, _ string) { remotes <- r.RemoteAddr })
	c := w.client("bot", anthropicHost)
	c.Transport.(*http.Transport).MaxIdleConnsPerHost = callers
	for range 2 {
		done := make(chan bool)
		for range callers {
			go func() {
				get(t, c, anthropicURL, "X-Api-Key", text)
				done <- true
			}()
		}
		for range callers {
			<-done
		}
	}
	seen := map[string]bool{}
	for len(remotes) > 0 {
		seen[<-remotes] = true
	}
	if len(seen) > callers {
		t.Errorf("%d upstream connections for %d callers", len(seen), callers)
	}
}

// One agent cannot use up the descriptors of all.
func TestConnectionsBeyondTheLimitWait(t *testing.T) {
	t.Parallel()
	w, text, _ := echoWorld(t, func(http.ResponseWriter, *http.Request, string) {})
	w.b.limit = 1
	door := w.door("bot", anthropicHost, 443)
	idle, err := net.Dial("tcp", door)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() {
		c, err := tls.Dial("tcp", door, &tls.Config{RootCAs: w.agentCA.pool, ServerName: anthropicHost})
		if err == nil {
			err = c.Close()
		}
		served <- err
	}()
	select {
	case err := <-served:
		t.Fatalf("served beyond the limit: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	if res, _ := get(t, w.client("bot", anthropicHost), anthropicURL, "X-Api-Key", text); res.StatusCode != 200 {
		t.Errorf("another listener answered with %d", res.StatusCode)
	}
	_ = idle.Close()
	if err := <-served; err != nil {
		t.Errorf("not served when there was room: %v", err)
	}
}

func TestSlowHeadIsBounded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	client, server := net.Pipe()
	t.Cleanup(func() { _ = client.Close() })
	deadlines := make(chan time.Time, 100)
	timed := &timedConn{Conn: server, set: deadlines}
	l := w.b.live.open(timed)
	p := &peeked{Conn: timed}
	done := make(chan spoken)
	go func() { done <- p.listen(time.Minute) }()
	_, _ = client.Write([]byte("GE"))
	_, _ = client.Write([]byte("T / HTTP/1.1\r\n"))
	if got := <-done; got != speaksHTTP {
		t.Fatalf("got %v", got)
	}
	x := w.b.newExchange(w.b.entry("bot"), p, newTestReader(w.b, p), l)
	x.t = newTarget("x.example", 80)
	go func() {
		x.next(t.Context())
		close(done)
	}()
	_, _ = client.Write([]byte("Host: x.example\r\n"))
	_ = client.Close()
	<-done
	for {
		select {
		case at := <-deadlines:
			if !at.IsZero() && time.Until(at) > agentIdle {
				t.Errorf("a deadline of %v", time.Until(at))
			}
			continue
		default:
		}
		break
	}
	if timed.unbounded {
		t.Error("a head was read without a deadline")
	}
}

// timedConn notes reads that have no deadline.
type timedConn struct {
	net.Conn
	set       chan time.Time
	now       time.Time
	unbounded bool
}

func (c *timedConn) SetReadDeadline(t time.Time) error {
	c.now = t
	c.set <- t
	return c.Conn.SetReadDeadline(t)
}

func (c *timedConn) Read(b []byte) (int, error) {
	c.unbounded = c.unbounded || c.now.IsZero()
	return c.Conn.Read(b)
}
