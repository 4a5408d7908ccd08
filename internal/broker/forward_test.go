package broker

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"postern/internal/event"
)

const anthropicHost = "api.anthropic.com"

func TestInjectsInEverySlot(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, kind, host, url string
		header                func(p string) []string
		want                  func(v string) string // in the echo
	}{
		{"api key header", "anthropic.api", anthropicHost, "/v1/messages", func(p string) []string { return []string{"X-Api-Key", p} }, func(v string) string { return v }},
		{"bearer", "anthropic.api", anthropicHost, "/v1/messages", func(p string) []string { return []string{"Authorization", "Bearer " + p} }, func(v string) string { return "Bearer " + v }},
		{"lower-case scheme", "anthropic.api", anthropicHost, "/v1/messages", func(p string) []string { return []string{"Authorization", "bearer " + p} }, func(v string) string { return "bearer " + v }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			text, value := w.lend("bot", "key", tt.kind, tt.host+":443")
			seen := make(chan *http.Request, 1)
			w.site(tt.host, func(rw http.ResponseWriter, r *http.Request) {
				seen <- r.Clone(r.Context())
				_, _ = io.WriteString(rw, "ok")
			})
			res, body := get(t, w.client("bot", tt.host), "https://"+tt.host+tt.url, tt.header(text)...)
			if res.StatusCode != 200 || body != "ok" {
				t.Fatalf("got %d %s", res.StatusCode, body)
			}
			r := <-seen
			name := tt.header(text)[0]
			if got, want := r.Header.Get(name), tt.want(value); got != want {
				t.Errorf("the upstream got another %s header", name)
			}
			if got := r.Header.Get("Accept-Encoding"); got != "identity" {
				t.Errorf("Accept-Encoding: got %q", got)
			}
			use := w.eventually(event.Use)
			if use.Agent != "bot" || use.Credential != "key" || use.Host != tt.host+":443" || use.Version != 1 || use.Path != tt.url {
				t.Errorf("use record: %+v", use)
			}
			out := w.eventually(event.Outcome)
			if out.Status != 200 || out.BytesIn != 2 || out.Request != use.Request {
				t.Errorf("outcome record: %+v", out)
			}
		})
	}
}

func TestTelegramPathSlot(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	text, value := w.lend("bot", "tg", "telegram.bot", "api.telegram.org:443")
	paths := make(chan string, 4)
	w.site("api.telegram.org", func(rw http.ResponseWriter, r *http.Request) {
		paths <- r.URL.Path
		_, _ = io.WriteString(rw, `{"ok":true,"echo":"`+value+`"}`)
	})
	c := w.client("bot", "api.telegram.org")
	for _, form := range []string{text, strings.ReplaceAll(text, ":", "%3A")} {
		res, body := get(t, c, "https://api.telegram.org/bot"+form+"/getMe")
		if res.StatusCode != 200 {
			t.Fatalf("got %d %s", res.StatusCode, body)
		}
		if got := <-paths; got != "/bot"+value+"/getMe" {
			t.Errorf("the upstream got another path")
		}
		if strings.Contains(body, value) || !strings.Contains(body, text) {
			t.Errorf("the echo was not redacted")
		}
	}
	if got := w.eventually(event.Use).Path; got != "/bot{token}/getMe" {
		t.Errorf("recorded path: %q", got)
	}
}

func TestNoRecordNoUse(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	text, _ := w.lend("bot", "key", "anthropic.api", anthropicHost+":443")
	called := false
	w.site(anthropicHost, func(http.ResponseWriter, *http.Request) { called = true })
	w.refuse = errors.New("no space left on device")
	res, body := get(t, w.client("bot", anthropicHost), "https://"+anthropicHost+"/v1/models", "X-Api-Key", text)
	if res.StatusCode != 503 || !strings.Contains(body, "ledger") || !strings.Contains(body, "no space left") {
		t.Errorf("got %d %s", res.StatusCode, body)
	}
	if called {
		t.Error("the upstream was called without a record")
	}
}
