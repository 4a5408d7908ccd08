package broker

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
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

// proxied is the agent's client that goes through the proxy as user.
func (w *world) proxied(user *url.Userinfo) *http.Client {
	proxy := &url.URL{Scheme: "http", Host: w.proxy(), User: user}
	tr := &http.Transport{Proxy: http.ProxyURL(proxy), TLSClientConfig: &tls.Config{RootCAs: w.agentCA.pool}}
	w.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 20 * time.Second}
}

func TestConnectIntercepts(t *testing.T) {
	t.Parallel()
	w, text, value := echoWorld(t, func(rw http.ResponseWriter, r *http.Request, v string) {
		if r.Header.Get("X-Api-Key") != v || r.Header.Get("Proxy-Authorization") != "" {
			rw.WriteHeader(401)
		}
		_, _ = io.WriteString(rw, v)
	})
	c := w.proxied(url.UserPassword("bot", "token-of-bot"))
	for range 2 {
		if res, body := get(t, c, anthropicURL, "X-Api-Key", text); res.StatusCode != 200 || body != text || strings.Contains(body, value) {
			t.Errorf("got %d %s", res.StatusCode, body)
		}
	}
}

// Python's http.client before 3.12 speaks so.
func TestConnectWithoutHost(t *testing.T) {
	t.Parallel()
	w, text, _ := echoWorld(t, func(rw http.ResponseWriter, _ *http.Request, _ string) { _, _ = io.WriteString(rw, "ok") })
	c, err := net.Dial("tcp", w.proxy())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	_, _ = fmt.Fprintf(c, "CONNECT %s:443 HTTP/1.0\r\nProxy-Authorization: Basic %s\r\n\r\n", anthropicHost, base64.StdEncoding.EncodeToString([]byte("bot:token-of-bot")))
	br := bufio.NewReader(c)
	if res, err := http.ReadResponse(br, nil); err != nil || res.StatusCode != 200 {
		t.Fatalf("got %v %v", res, err)
	}
	secure := tls.Client(c, &tls.Config{RootCAs: w.agentCA.pool, ServerName: anthropicHost})
	_, _ = fmt.Fprintf(secure, "GET / HTTP/1.1\r\nHost: %s\r\nX-Api-Key: %s\r\n\r\n", anthropicHost, text)
	if res, err := http.ReadResponse(bufio.NewReader(secure), nil); err != nil || res.StatusCode != 200 {
		t.Errorf("got %v %v", res, err)
	}
}

func TestConnectIsRefused(t *testing.T) {
	t.Parallel()
	auth := func(s string) string {
		return "Proxy-Authorization: " + s + "\r\n"
	}
	good := auth("Basic " + base64.StdEncoding.EncodeToString([]byte("bot:token-of-bot")))
	tests := []struct {
		name, target, head string
		status             int
	}{
		{"no caller", "api.anthropic.com:443", "", 407},
		{"wrong token", "api.anthropic.com:443", auth("Basic " + base64.StdEncoding.EncodeToString([]byte("bot:x"))), 407},
		{"no colon", "api.anthropic.com:443", auth("Basic " + base64.StdEncoding.EncodeToString([]byte("bot"))), 407},
		{"empty", "api.anthropic.com:443", auth("Basic " + base64.StdEncoding.EncodeToString([]byte(":"))), 407},
		{"not base64", "api.anthropic.com:443", auth("Basic !!!"), 407},
		{"bearer", "api.anthropic.com:443", auth("Bearer token-of-bot"), 407},
		{"twice", "api.anthropic.com:443", good + good, 407},
		{"no port", "api.anthropic.com", good, 400},
		{"port 0", "api.anthropic.com:0", good, 400},
		{"user in the name", "user@api.anthropic.com:443", good, 400},
		{"percent code", "api.anthropic.com%00.evil.example:443", good, 400},
		{"decimal address", "2130706433:443", good, 400},
		{"hexadecimal address", "0x7f.1:443", good, 400},
		{"short address", "127.1:443", good, 400},
		{"zone", "[fe80::1%25eth0]:443", good, 400},
		{"double dot", "api..anthropic.com:443", good, 400},
		{"other Host", "evil.example:443", good + "Host: api.anthropic.com:443\r\n", 421},
		{"body", "api.anthropic.com:443", good + "Content-Length: 5\r\n", 400},
	}
	w, _, _ := echoWorld(t, func(http.ResponseWriter, *http.Request, string) { t.Error("the upstream was reached") })
	addr := w.proxy()
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = c.Close() }()
			host := "Host: " + tt.target + "\r\n"
			if strings.Contains(tt.head, "Host:") {
				host = ""
			}
			_, _ = fmt.Fprintf(c, "CONNECT %s HTTP/1.1\r\n%s%s\r\n", tt.target, host, tt.head)
			res, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil {
				t.Fatal(err)
			}
			b, _ := io.ReadAll(res.Body)
			if res.StatusCode != tt.status || !strings.Contains(string(b), "postern_refused") {
				t.Errorf("got %d %s", res.StatusCode, b)
			}
			if tt.status == 407 && res.Header.Get("Proxy-Authenticate") == "" {
				t.Error("407 without Proxy-Authenticate")
			}
		})
	}
}

func TestBaseURL(t *testing.T) {
	t.Parallel()
	paths := make(chan string, 1)
	w, text, value := echoWorld(t, func(rw http.ResponseWriter, r *http.Request, v string) {
		paths <- r.Host + r.URL.RequestURI()
		_, _ = io.WriteString(rw, r.Header.Get("X-Api-Key"))
	})
	base := "http://" + w.proxy()
	res, body := get(t, http.DefaultClient, base+"/anthropic/v1/messages?beta=true", "X-Api-Key", text)
	if res.StatusCode != 200 || body != text || strings.Contains(body, value) {
		t.Errorf("got %d %s", res.StatusCode, body)
	}
	if got := <-paths; got != "api.anthropic.com/v1/messages?beta=true" {
		t.Errorf("the upstream got %q", got)
	}
	for _, tt := range [][2]string{{"/openai/v1/models", text}, {"/anthropic/v1/messages", "sk-something"}, {"/", text}, {"/anthropic/v1/messages", ""}, {"/anthropic?x", "x"}} {
		if res, body := get(t, http.DefaultClient, base+tt[0], "X-Api-Key", tt[1]); res.StatusCode != 401 || !strings.Contains(body, "P-E111") {
			t.Errorf("%s: got %d %s", tt[0], res.StatusCode, body)
		}
	}
}

func TestAbsoluteForm(t *testing.T) {
	t.Parallel()
	w, text, _ := echoWorld(t, func(rw http.ResponseWriter, r *http.Request, _ string) { _, _ = io.WriteString(rw, r.Host+r.URL.Path) })
	plain, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(rw, "plain "+r.Host+r.URL.Path) })}
	go func() { _ = srv.Serve(plain) }()
	t.Cleanup(func() { _ = srv.Close() })
	w.b.cfg.Dial["plain.example:80"] = plain.Addr().String()
	w.b.cfg.Dial[anthropicHost+":80"] = plain.Addr().String()
	addr := w.proxy()
	auth := "Proxy-Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte("bot:token-of-bot")) + "\r\n"
	tests := []struct {
		name, target, head string
		status             int
		body               string
	}{
		{"plain", "http://plain.example/a?b", "Host: plain.example\r\n" + auth, 200, "plain plain.example/a"},
		{"over TLS", "https://api.anthropic.com/a", "Host: api.anthropic.com\r\n" + auth, 200, "api.anthropic.com/a"},
		{"no caller", "http://plain.example/a", "Host: plain.example\r\n", 407, "P-E110"},
		{"other Host", "http://plain.example/a", "Host: api.anthropic.com\r\n" + auth, 421, "P-E101"},
		{"key over plain http", "http://api.anthropic.com/a", "Host: api.anthropic.com\r\nX-Api-Key: " + text + "\r\n" + auth, 403, "plain http"},
		{"other scheme", "ftp://plain.example/a", "Host: plain.example\r\n" + auth, 400, "P-E100"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = c.Close() }()
			_, _ = fmt.Fprintf(c, "GET %s HTTP/1.1\r\n%s\r\n", tt.target, tt.head)
			res, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil {
				t.Fatal(err)
			}
			b, _ := io.ReadAll(res.Body)
			if res.StatusCode != tt.status || !strings.Contains(string(b), tt.body) {
				t.Errorf("got %d %s", res.StatusCode, b)
			}
		})
	}
}

// rawTunnelSite answers lines in upper case, on any port, without TLS.
func (w *world) lineSite(hostport, greeting string) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.Fatal(err)
	}
	w.b.cfg.Dial[hostport] = ln.Addr().String()
	w.Cleanup(func() { _ = ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = c.Close() }()
				_, _ = io.WriteString(c, greeting)
				for s := bufio.NewScanner(c); s.Scan(); {
					_, _ = io.WriteString(c, strings.ToUpper(s.Text())+"\n")
				}
			}()
		}
	}()
}

func TestOpenTunnels(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.lineSite("smtp.example:25", "220 hello\n")
	w.lineSite("git.example:22", "")
	w.lineSite("db.example:5432", "")
	w.local["db.example:5432"], w.mode = true, Open
	for _, tt := range []struct {
		host, greeting string
		port           int
	}{{"smtp.example", "220 hello\n", 25}, {"git.example", "", 22}, {"db.example", "", 5432}} {
		c, err := net.Dial("tcp", w.door("bot", tt.host, tt.port))
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		br := bufio.NewReader(c)
		if tt.greeting != "" { // before the agent has said anything
			if line, err := br.ReadString('\n'); line != tt.greeting {
				t.Fatalf("%s: got %q %v", tt.host, line, err)
			}
		}
		_, _ = io.WriteString(c, "SSH-2.0-test\n")
		if line, err := br.ReadString('\n'); line != "SSH-2.0-TEST\n" {
			t.Fatalf("%s: got %q %v", tt.host, line, err)
		}
		_ = c.(*net.TCPConn).CloseWrite()
		if _, err := br.ReadByte(); err != io.EOF {
			t.Errorf("%s: the tunnel did not end: %v", tt.host, err)
		}
		_ = c.Close()
	}
	out := w.eventually(event.Outcome)
	if out.BytesOut == 0 || out.BytesIn == 0 || out.Host == "" {
		t.Errorf("outcome: %+v", out)
	}
}

func TestOpenTunnelsTLSUntouched(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.site("news.example", func(rw http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(rw, "hello") })
	c := w.client("bot", "news.example")
	c.Transport.(*http.Transport).TLSClientConfig.RootCAs = w.internet.pool // the site's own certificate
	if res, body := get(t, c, "https://news.example/"); res.StatusCode != 200 || body != "hello" {
		t.Errorf("got %d %s", res.StatusCode, body)
	}
	if e := w.eventually(event.Egress); e.Host != "news.example:443" || e.Agent != "bot" {
		t.Errorf("egress: %+v", e)
	}
}

func TestInspectLooksInside(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.mode = Inspect
	text, value := w.lend("bot", "key", "anthropic.api", anthropicHost+":443")
	w.site("news.example", func(rw http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(rw, "hello") })
	c := w.client("bot", "news.example")
	if res, body := get(t, c, "https://news.example/"); res.StatusCode != 200 || body != "hello" {
		t.Errorf("got %d %s", res.StatusCode, body)
	}
	for name, head := range map[string][]string{
		"placeholder in a slot":   {"Authorization", "Bearer " + text},
		"placeholder in its slot": {"X-Api-Key", text},
		"the real value":          {"X-Anything", value},
	} {
		if res, body := get(t, c, "https://news.example/", head...); res.StatusCode != 403 || !strings.Contains(body, "P-E102") || strings.Contains(body, value) {
			t.Errorf("%s: got %d %s", name, res.StatusCode, body)
		}
	}
	if e := w.eventually(event.Tripwire); e.Agent != "bot" || e.Host != "news.example:443" {
		t.Errorf("tripwire: %+v", e)
	}
	if res, _ := send(t, c, "POST", "https://news.example/", strings.NewReader("quoting "+text), "Cookie", "a="+text); res.StatusCode != 200 {
		t.Errorf("a quoted placeholder was not passed: %d", res.StatusCode)
	}
	w.eventually(event.Quoted)
}

func TestClosedRefusesInside(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.mode = Closed
	res, body := get(t, w.client("bot", "news.example"), "https://news.example/")
	if res.StatusCode != 403 || !strings.Contains(body, "postern policy allow") || res.Header.Get("X-Postern-Refused") == "" {
		t.Errorf("got %d %s", res.StatusCode, body)
	}
	res, body = get(t, w.proxied(url.UserPassword("bot", "token-of-bot")), "https://news.example/")
	if res.StatusCode != 403 || !strings.Contains(body, "P-E108") {
		t.Errorf("by CONNECT: got %d %s", res.StatusCode, body)
	}
	c, err := net.Dial("tcp", w.door("bot", "git.example", 22))
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(c, "SSH-2.0-x\r\n")
	if b, err := io.ReadAll(c); len(b) > 0 || err != nil && !strings.Contains(err.Error(), "reset") {
		t.Errorf("got %q %v", b, err)
	}
}

// The agent dialled an address of its own choosing and names a host in the TLS
// hello: the host is resolved by us, the address is never dialled.
func TestAddressIsNotDialled(t *testing.T) {
	t.Parallel()
	w, text, _ := echoWorld(t, func(rw http.ResponseWriter, r *http.Request, v string) {
		if r.Header.Get("X-Api-Key") == v {
			_, _ = io.WriteString(rw, "the real one")
		}
	})
	addr := w.door("bot", "203.0.113.9", 443)
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: w.agentCA.pool}, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "tcp", addr)
	}}
	t.Cleanup(tr.CloseIdleConnections)
	if _, body := get(t, &http.Client{Transport: tr}, anthropicURL, "X-Api-Key", text); body != "the real one" {
		t.Errorf("got %s", body)
	}
}

func TestPrivateAddressIsRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, addr := range []string{"127.0.0.1", "169.254.169.254", "10.0.0.1", "100.64.0.1", "::1", "fd00::1", "64:ff9b::7f00:1", "2002:7f00:1::", "0.0.0.0"} {
		res, body := get(t, w.client("bot", addr), "https://"+net.JoinHostPort(addr, "443")+"/")
		if res.StatusCode != 403 || !strings.Contains(body, "P-E109") {
			t.Errorf("%s: got %d %s", addr, res.StatusCode, body)
		}
	}
}
