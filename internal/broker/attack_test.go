package broker

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"postern/internal/event"
)

// attackWorld is a world whose two granted hosts fail the test when a real
// value reaches the wrong one.
func attackWorld(t testing.TB) (w *world, text, value string, reached *atomic.Int32) {
	reached = &atomic.Int32{}
	w, text, value = echoWorld(t, func(rw http.ResponseWriter, r *http.Request, v string) {
		reached.Add(1)
		_, _ = io.WriteString(rw, "reached")
	})
	return w, text, value, reached
}

// roundTripRaw sends bytes on a fresh intercepted connection and returns all
// that comes back until the broker closes.
func (w *world) roundTripRaw(host, message string) string {
	w.Helper()
	c := w.raw("bot", host)
	go func() { _, _ = io.WriteString(c, message) }()
	b, err := io.ReadAll(c)
	var slow net.Error
	if errors.As(err, &slow) && slow.Timeout() {
		w.Fatalf("the connection was not closed after: %q", b)
	}
	return string(b)
}

func TestAmbiguousMessagesAreRefused(t *testing.T) {
	t.Parallel()
	w, text, _, reached := attackWorld(t)
	host := "Host: " + anthropicHost + "\r\n"
	key := "X-Api-Key: " + text + "\r\n"
	long := strings.Repeat("a", 70<<10)
	tests := map[string]string{
		"two lengths":             "POST / HTTP/1.1\r\n" + host + "Content-Length: 5\r\nContent-Length: 6\r\n\r\n",
		"same length twice":       "POST / HTTP/1.1\r\n" + host + "Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
		"length list":             "POST / HTTP/1.1\r\n" + host + "Content-Length: 5, 5\r\n\r\nhello",
		"length with a sign":      "POST / HTTP/1.1\r\n" + host + "Content-Length: +5\r\n\r\nhello",
		"negative length":         "POST / HTTP/1.1\r\n" + host + "Content-Length: -5\r\n\r\nhello",
		"hexadecimal length":      "POST / HTTP/1.1\r\n" + host + "Content-Length: 0x5\r\n\r\nhello",
		"empty length":            "POST / HTTP/1.1\r\n" + host + "Content-Length: \r\n\r\n",
		"huge length":             "POST / HTTP/1.1\r\n" + host + "Content-Length: 99999999999999999999\r\n\r\n",
		"length and chunked":      "POST / HTTP/1.1\r\n" + host + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"chunked, identity":       "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
		"identity":                "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: identity\r\n\r\n",
		"chunked twice":           "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"obfuscated chunked":      "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
		"space before colon":      "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
		"chunked in 1.0":          "POST / HTTP/1.0\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"chunk extension":         "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n0\r\n\r\n",
		"chunk size overflow":     "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nhello\r\n0\r\n\r\n",
		"chunk size with 0x":      "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n",
		"bare LF in chunk":        "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n5\nhello\n0\n\n",
		"chunk that is too long":  "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n5\r\nhelloX\r\n0\r\n\r\n",
		"bare LF":                 "GET / HTTP/1.1\n" + "Host: " + anthropicHost + "\n\n",
		"bare LF in a field":      "GET / HTTP/1.1\r\nHost: " + anthropicHost + "\r\nX: a\nY: b\r\n\r\n",
		"CR in a value":           "GET / HTTP/1.1\r\n" + host + "X: a\rb\r\n\r\n",
		"NUL in a value":          "GET / HTTP/1.1\r\n" + host + "X: a\x00b\r\n\r\n",
		"byte above 7f":           "GET / HTTP/1.1\r\n" + host + "X: a\xffb\r\n\r\n",
		"folded field":            "GET / HTTP/1.1\r\n" + host + "X: a\r\n b\r\n\r\n",
		"space in front":          "GET / HTTP/1.1\r\n " + host + "\r\n",
		"no Host":                 "GET / HTTP/1.1\r\n\r\n",
		"two Hosts":               "GET / HTTP/1.1\r\n" + host + host + "\r\n",
		"long head":               "GET / HTTP/1.1\r\n" + host + "X: " + long + "\r\n\r\n",
		"many fields":             "GET / HTTP/1.1\r\n" + host + strings.Repeat("X: a\r\n", 201) + "\r\n",
		"lower-case method":       "get / HTTP/1.1\r\n" + host + "\r\n",
		"long method":             "GET" + strings.Repeat("T", 100) + " / HTTP/1.1\r\n" + host + "\r\n",
		"HTTP/2 by prior knowing": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
		"HTTP/0.9":                "GET /\r\n\r\n",
		"garbage":                 "\x00\x01\x02\x03\r\n\r\n",
		"space in the target":     "GET /a b HTTP/1.1\r\n" + host + "\r\n",
		"fragment":                "GET /a#b HTTP/1.1\r\n" + host + "\r\n",
		"authority form":          "GET api.anthropic.com:443 HTTP/1.1\r\n" + host + "\r\n",
		"hop-by-hop key":          "GET / HTTP/1.1\r\n" + host + key + "Connection: x-api-key\r\n\r\n",
		"other expectation":       "GET / HTTP/1.1\r\n" + host + "Expect: 200-maybe\r\n\r\n",
		"TRACE":                   "TRACE / HTTP/1.1\r\n" + host + key + "\r\n",
		"CONNECT inside":          "CONNECT api.anthropic.com:443 HTTP/1.1\r\n" + host + "\r\n",
		"h2c":                     "GET / HTTP/1.1\r\n" + host + "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
		"method override":         "POST / HTTP/1.1\r\n" + host + key + "X-HTTP-Method-Override: DELETE\r\nContent-Length: 0\r\n\r\n",
		"method in the query":     "POST /?_method=delete HTTP/1.1\r\n" + host + key + "Content-Length: 0\r\n\r\n",
	}
	for name, message := range tests {
		t.Run(name, func(t *testing.T) {
			answer := w.roundTripRaw(anthropicHost, message+"GET /second HTTP/1.1\r\n"+host+"\r\n")
			if n := strings.Count(answer, "X-Postern-Request"); n != 1 || !strings.HasPrefix(answer, "HTTP/1.1 4") {
				t.Errorf("got %d answers: %.300q", n, answer)
			}
			if strings.Contains(answer, text) {
				t.Errorf("the answer quotes the message: %q", answer)
			}
		})
	}
	if n := reached.Load(); n != 0 {
		t.Errorf("%d of these reached the upstream", n)
	}
}

func TestOneNameForAll(t *testing.T) {
	t.Parallel()
	w, text, _, reached := attackWorld(t)
	w.site("evil.example", func(http.ResponseWriter, *http.Request) { t.Error("the other host was reached") })
	w.mode = Inspect
	key := "X-Api-Key: " + text + "\r\n\r\n"
	for name, tt := range map[string]struct{ host, message string }{
		"Host of another":           {anthropicHost, "GET / HTTP/1.1\r\nHost: evil.example\r\n" + key},
		"granted Host elsewhere":    {"evil.example", "GET / HTTP/1.1\r\nHost: " + anthropicHost + "\r\n" + key},
		"absolute target":           {anthropicHost, "GET https://evil.example/ HTTP/1.1\r\nHost: " + anthropicHost + "\r\n" + key},
		"absolute with user":        {anthropicHost, "GET https://api.anthropic.com@evil.example/ HTTP/1.1\r\nHost: " + anthropicHost + "\r\n" + key},
		"absolute target, http":     {anthropicHost, "GET http://" + anthropicHost + "/ HTTP/1.1\r\nHost: " + anthropicHost + "\r\n" + key},
		"other port":                {anthropicHost, "GET / HTTP/1.1\r\nHost: " + anthropicHost + ":8443\r\n" + key},
		"suffix":                    {anthropicHost, "GET / HTTP/1.1\r\nHost: " + anthropicHost + ".evil.example\r\n" + key},
		"NUL":                       {anthropicHost, "GET / HTTP/1.1\r\nHost: " + anthropicHost + "\x00.evil.example\r\n" + key},
		"two dots":                  {anthropicHost, "GET / HTTP/1.1\r\nHost: " + anthropicHost + "..\r\n" + key},
		"placeholder at wrong host": {"evil.example", "GET / HTTP/1.1\r\nHost: evil.example\r\n" + key},
	} {
		t.Run(name, func(t *testing.T) {
			answer := w.roundTripRaw(tt.host, tt.message)
			if !strings.HasPrefix(answer, "HTTP/1.1 4") {
				t.Errorf("got %.200q", answer)
			}
		})
	}
	if n := reached.Load(); n != 0 {
		t.Errorf("%d of these reached the upstream", n)
	}
	for _, same := range []string{anthropicHost, anthropicHost + ":443", "API.Anthropic.com", anthropicHost + "."} {
		answer := w.roundTripRaw(anthropicHost, "GET / HTTP/1.1\r\nConnection: close\r\nHost: "+same+"\r\n"+key)
		if !strings.HasPrefix(answer, "HTTP/1.1 200") {
			t.Errorf("%s: got %.200q", same, answer)
		}
	}
}

func TestTLSNameOfAnother(t *testing.T) {
	t.Parallel()
	w, text, _, reached := attackWorld(t)
	c, err := tls.Dial("tcp", w.door("bot", anthropicHost, 443), &tls.Config{RootCAs: w.agentCA.pool, ServerName: "evil.example"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	_, _ = fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: evil.example\r\nX-Api-Key: %s\r\n\r\n", text)
	if b, _ := io.ReadAll(c); !strings.HasPrefix(string(b), "HTTP/1.1 421") {
		t.Errorf("got %.200q", b)
	}
	// The same in a tunnel: the name decides about deny rules.
	w.site("open.example", func(http.ResponseWriter, *http.Request) { reached.Add(1) })
	c, err = tls.Dial("tcp", w.door("bot", "open.example", 443), &tls.Config{RootCAs: w.agentCA.pool, ServerName: "evil.example"})
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n")
	if b, _ := io.ReadAll(c); !strings.HasPrefix(string(b), "HTTP/1.1 421") {
		t.Errorf("got %.200q", b)
	}
	_ = c.Close()
	if reached.Load() != 0 {
		t.Error("the upstream was reached")
	}
}

func TestCredentialsInTheWrongPlace(t *testing.T) {
	t.Parallel()
	w, text, value, reached := attackWorld(t)
	other, _ := w.lend("other", "theirs", "anthropic.api", anthropicHost+":443")
	telegram, _ := w.lend("bot", "tg", "telegram.bot", "api.telegram.org:443")
	gone, _ := w.lend("bot", "gone", "anthropic.api", anthropicHost+":443")
	forged, _ := newWorld(t).lend("bot", "x", "anthropic.api")
	w.revoked[gone] = true
	swapped := []byte(text)
	swapped[20] ^= 1
	tests := []struct {
		name   string
		header []string
		want   string
		kind   event.Kind
	}{
		{"another agent's", []string{"X-Api-Key", other}, "another agent", event.Tripwire},
		{"revoked", []string{"X-Api-Key", gone}, "revoked", event.Tripwire},
		{"forged", []string{"X-Api-Key", forged}, "never handed out", event.Tripwire},
		{"another provider's", []string{"X-Api-Key", telegram}, "may not go to", event.Tripwire},
		{"foreign key", []string{"X-Api-Key", value}, "not a placeholder", event.Refused},
		{"foreign bearer", []string{"Authorization", "Bearer sk-of-a-stranger"}, "not a placeholder", event.Refused},
		{"foreign basic", []string{"Authorization", "Basic dXNlcjpwdw=="}, "not a placeholder", event.Refused},
		{"broken", []string{"X-Api-Key", string(swapped)}, "not a placeholder", event.Refused},
		{"cut short", []string{"X-Api-Key", text[:len(text)-1]}, "not a placeholder", event.Refused},
		{"longer", []string{"X-Api-Key", text + "x"}, "not a placeholder", event.Refused},
		{"other case", []string{"X-Api-Key", strings.ToUpper(text)}, "not a placeholder", event.Refused},
		{"unknown scheme", []string{"Authorization", "Custom " + text}, "does not name", event.Tripwire},
		{"header of another kind", []string{"X-Goog-Api-Key", text}, "does not name", event.Tripwire},
		{"another agent's in a header of another kind", []string{"X-Goog-Api-Key", other}, "another agent", event.Tripwire},
		{"beside a stranger's", []string{"X-Api-Key", text, "Authorization", "Bearer sk-of-a-stranger"}, "not a placeholder", event.Refused},
		{"in two slots", []string{"X-Api-Key", text, "Authorization", "Bearer " + text}, "two places", event.Refused},
		{"underscored name", []string{"X_Api_Key", text}, "hyphens", event.Malformed},
	}
	c := w.client("bot", anthropicHost)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			before := len(w.recorded(tt.kind))
			req, _ := http.NewRequest("GET", anthropicURL, nil)
			for i := 0; i < len(tt.header); i += 2 {
				req.Header[tt.header[i]] = []string{tt.header[i+1]}
			}
			res, err := c.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			b, _ := io.ReadAll(res.Body)
			_ = res.Body.Close()
			if res.StatusCode/100 != 4 || !strings.Contains(string(b), tt.want) || strings.Contains(string(b), value) {
				t.Errorf("got %d %s", res.StatusCode, b)
			}
			if len(w.recorded(tt.kind)) != before+1 {
				t.Errorf("no record of kind %s", tt.kind)
			}
		})
	}
	if n := reached.Load(); n != 0 {
		t.Errorf("%d of these reached the upstream", n)
	}
	w.ownKeys = true
	if res, body := get(t, c, anthropicURL, "X-Api-Key", "sk-of-a-user"); res.StatusCode != 200 {
		t.Errorf("own_keys: got %d %s", res.StatusCode, body)
	}
}

func TestQuotedIsPassedUnchanged(t *testing.T) {
	t.Parallel()
	got := make(chan string, 1)
	w, text, value := echoWorld(t, func(rw http.ResponseWriter, r *http.Request, _ string) {
		b, _ := io.ReadAll(r.Body)
		got <- string(b) + r.Header.Get("Cookie") + r.Header.Get("Referer") + r.URL.RawQuery
	})
	c := w.client("bot", anthropicHost)
	res, _ := send(t, c, "POST", anthropicURL+"?q="+text, strings.NewReader(`{"messages":"my key is `+text+`"}`),
		"X-Api-Key", text, "Cookie", "c="+text, "Referer", "https://x/"+text)
	if res.StatusCode != 200 {
		t.Fatalf("got %d", res.StatusCode)
	}
	if echo := <-got; strings.Contains(echo, value) || strings.Count(echo, text) != 4 {
		t.Errorf("the upstream got %s", echo)
	}
	w.eventually(event.Quoted)
}

func TestPathsAndPolicy(t *testing.T) {
	t.Parallel()
	w, text, _, reached := attackWorld(t)
	host := "Host: " + anthropicHost + "\r\nX-Api-Key: " + text + "\r\n\r\n"
	for _, path := range []string{
		"/forbidden", "/a/../forbidden", "/a/%2e%2e/forbidden", "//forbidden", "/%66orbidden", "/forbidden;x", "/;/forbidden", "/./forbidden",
		"/a%2f..%2fforbidden", "/a%5cb", "/a%00", "/%252e%252e/forbidden", "/forbidden.", "/forbidden%20", "/a/..;/forbidden", "/a\\b", "/a%zz",
	} {
		if answer := w.roundTripRaw(anthropicHost, "GET "+path+" HTTP/1.1\r\n"+host); !strings.HasPrefix(answer, "HTTP/1.1 4") {
			t.Errorf("%s: got %.200q", path, answer)
		}
	}
	// Policy is asked per request, on a connection that is kept alive.
	answer := w.roundTripRaw(anthropicHost, "GET /good HTTP/1.1\r\n"+host+"GET /forbidden HTTP/1.1\r\n"+host+"GET /good HTTP/1.1\r\n"+host)
	if strings.Count(answer, "HTTP/1.1 200") != 1 || strings.Count(answer, "HTTP/1.1 403") != 1 || !strings.Contains(answer, "postern policy allow") {
		t.Errorf("got %q", answer)
	}
	if reached.Load() != 1 {
		t.Errorf("the upstream was reached %d times", reached.Load())
	}
}

func TestBadCertificates(t *testing.T) {
	t.Parallel()
	stranger := newAuthority(t)
	for name, cert := range map[string]func(w *world) (*tls.Certificate, error){
		"wrong name":     func(w *world) (*tls.Certificate, error) { return w.internet.Leaf(context.Background(), "evil.example") },
		"unknown root":   func(*world) (*tls.Certificate, error) { return stranger.Leaf(context.Background(), anthropicHost) },
		"the agent's CA": func(w *world) (*tls.Certificate, error) { return w.agentCA.Leaf(context.Background(), anthropicHost) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			text, _ := w.lend("bot", "key", "anthropic.api", anthropicHost+":443")
			leaf, err := cert(w)
			if err != nil {
				t.Fatal(err)
			}
			ln, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{*leaf}})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = ln.Close() })
			w.b.cfg.Dial[anthropicHost+":443"] = ln.Addr().String()
			var got atomic.Int64
			go func() {
				for {
					c, err := ln.Accept()
					if err != nil {
						return
					}
					n, _ := io.Copy(io.Discard, c)
					got.Add(n)
				}
			}()
			res, body := get(t, w.client("bot", anthropicHost), anthropicURL, "X-Api-Key", text)
			if res.StatusCode != 502 || !strings.Contains(body, "certificate") {
				t.Errorf("got %d %s", res.StatusCode, body)
			}
			if got.Load() != 0 || len(w.recorded(event.Use)) != 0 {
				t.Error("something was sent")
			}
			w.eventually(event.Refused)
		})
	}
}

func TestRedirectIsPassedOn(t *testing.T) {
	t.Parallel()
	w, text, _ := echoWorld(t, func(rw http.ResponseWriter, r *http.Request, _ string) {
		http.Redirect(rw, r, "https://evil.example/", http.StatusTemporaryRedirect)
	})
	w.site("evil.example", func(http.ResponseWriter, *http.Request) { t.Error("the redirect was followed") })
	if res, _ := get(t, w.client("bot", anthropicHost), anthropicURL, "X-Api-Key", text); res.StatusCode != 307 || res.Header.Get("Location") != "https://evil.example/" {
		t.Errorf("got %d", res.StatusCode)
	}
}

func TestGarbageOnTheListeners(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.mode = Closed
	doors := []string{w.door("bot", anthropicHost, 443), w.proxy()}
	for _, garbage := range []string{
		"", "\x16", "\x16\x03\x01\x00\x05hello", "\x16\x03\x01\x40\x01", "\x16\x03\x01\x00\x00", "\x16\x02\x00\x00\x05hello",
		"\x00\x00\x00", "GET", "\r\n\r\n", strings.Repeat("\xff", 100<<10), "A" + strings.Repeat("B", 100<<10), "\x05\x01\x00", "CONNECT",
	} {
		for _, door := range doors {
			c, err := net.Dial("tcp", door)
			if err != nil {
				t.Fatal(err)
			}
			_ = c.SetDeadline(time.Now().Add(10 * time.Second))
			_, _ = io.WriteString(c, garbage)
			_ = c.(*net.TCPConn).CloseWrite()
			_, _ = io.Copy(io.Discard, bufio.NewReader(c))
			_ = c.Close()
		}
	}
}
