package fake_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"postern/internal/catalog"
	"postern/internal/fake"
	"postern/internal/strictyaml"
)

// made is a key of the kind, as its own samples are.
func made(t *testing.T, kind string) string {
	t.Helper()
	template, err := catalog.ParseTemplate(kindOf(t, kind).Detect.Match[0])
	if err != nil {
		t.Fatal(err)
	}
	key, err := template.Generate(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func kindOf(t *testing.T, id string) *catalog.Kind {
	t.Helper()
	c, err := catalog.Open("")
	if err != nil {
		t.Fatal(err)
	}
	kind, err := c.Kind(id)
	if err != nil {
		t.Fatal(err)
	}
	return kind
}

type world struct {
	*fake.Server
	keys   map[string]string
	client *http.Client
	roots  *x509.CertPool
}

func start(t *testing.T) *world {
	t.Helper()
	w := &world{keys: map[string]string{"api.acme.example": "acme-" + rand.Text()}}
	for _, id := range []string{"anthropic.api", "openai.project", "stripe.secret", "telegram.bot", "discord.bot", "discord.webhook", "slack.bot", "google.gemini"} {
		w.keys[id] = made(t, id)
	}
	kinds, err := catalog.Open("")
	if err != nil {
		t.Fatal(err)
	}
	cfg := fake.Config{Kinds: kinds, Keys: map[string][]string{}}
	for name, key := range w.keys {
		cfg.Keys[name] = []string{key}
	}
	if w.Server, err = fake.New(cfg); err != nil {
		t.Fatal(err)
	}
	if err := w.Start("127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.Close() })
	w.roots = x509.NewCertPool()
	w.roots.AppendCertsFromPEM(w.CAPEM())
	transport := &http.Transport{
		TLSClientConfig:    &tls.Config{RootCAs: w.roots},
		DisableCompression: true,
		ForceAttemptHTTP2:  true,
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, w.Dial()[addr])
		},
	}
	t.Cleanup(transport.CloseIdleConnections)
	w.client = &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return w
}

// call makes a request; headers stand in pairs.
func (w *world) call(t *testing.T, method, address, body string, headers ...string) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, address, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	answer, err := w.client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	got, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer, string(got)
}

func basic(user, password string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
}

func TestOnlyTheRealKeyIsAnswered(t *testing.T) {
	w := start(t)
	wrong := "not-the-key-" + rand.Text()
	tests := []struct {
		name, method, address, key string
		headers                    func(key string) []string
		refusal, answer            string
	}{
		{"anthropic", "POST", "https://api.anthropic.com/v1/messages", w.keys["anthropic.api"], func(k string) []string { return []string{"x-api-key", k} }, `"authentication_error"`, `"type":"message"`},
		{"anthropic bearer", "GET", "https://api.anthropic.com/v1/models", w.keys["anthropic.api"], func(k string) []string { return []string{"authorization", "Bearer " + k} }, "invalid x-api-key", `"claude-fake"`},
		{"openai", "POST", "https://api.openai.com/v1/chat/completions", w.keys["openai.project"], func(k string) []string { return []string{"authorization", "Bearer " + k} }, "invalid_api_key", `"chat.completion"`},
		{"openai responses", "POST", "https://api.openai.com/v1/responses", w.keys["openai.project"], func(k string) []string { return []string{"authorization", "Bearer " + k} }, "invalid_api_key", `"output_text"`},
		{"stripe", "GET", "https://api.stripe.com/v1/balance", w.keys["stripe.secret"], func(k string) []string { return []string{"authorization", "Bearer " + k} }, "Invalid API Key", `"available"`},
		{"stripe basic", "POST", "https://api.stripe.com/v1/customers", w.keys["stripe.secret"], func(k string) []string { return []string{"authorization", basic(k, "")} }, "Invalid API Key", `"cus_fake"`},
		{"discord", "GET", "https://discord.com/api/v10/users/@me", w.keys["discord.bot"], func(k string) []string { return []string{"authorization", "Bot " + k} }, "401: Unauthorized", "fakegate"},
		{"discord gateway", "GET", "https://discord.com/api/v10/gateway/bot", w.keys["discord.bot"], func(k string) []string { return []string{"authorization", "Bot " + k} }, "401: Unauthorized", "wss://gateway.discord.gg"},
		{"any kind", "POST", "https://slack.com/api/auth.test", w.keys["slack.bot"], func(k string) []string { return []string{"authorization", "Bearer " + k} }, `"ok":false`, `"user":"fake-owner"`},
		{"any host", "GET", "https://api.acme.example/x", w.keys["api.acme.example"], func(k string) []string { return []string{"x-api-key", k} }, `"ok":false`, `"host":"api.acme.example"`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			for _, key := range []string{wrong, ""} {
				if got, body := w.call(t, test.method, test.address, "{}", test.headers(key)...); got.StatusCode != 401 || !strings.Contains(body, test.refusal) {
					t.Errorf("%q: got %d %s", key, got.StatusCode, body)
				}
			}
			got, body := w.call(t, test.method, test.address, "{}", test.headers(test.key)...)
			if got.StatusCode != 200 || !strings.Contains(body, test.answer) {
				t.Errorf("got %d %s", got.StatusCode, body)
			}
			quoted(t, test.key, strings.Join(got.Header.Values("X-Echo"), "\n"))
			quoted(t, test.key, body)
		})
	}
	if n := w.Calls()["api.stripe.com"]; n.Accepted != 2 || n.Refused != 4 {
		t.Errorf("got %+v", n)
	}
}

func quoted(t *testing.T, key, text string) {
	t.Helper()
	for _, form := range []string{key, base64.StdEncoding.EncodeToString([]byte(key)), hex.EncodeToString([]byte(key))} {
		if !strings.Contains(text, form) {
			t.Errorf("%q is not in %q", form, text)
		}
	}
}

func TestTelegramHasTheTokenInThePath(t *testing.T) {
	w := start(t)
	base := "https://api.telegram.org/bot" + w.keys["telegram.bot"]
	if got, body := w.call(t, "GET", "https://api.telegram.org/bot123:wrong/getMe", ""); got.StatusCode != 401 || !strings.Contains(body, `"Unauthorized"`) {
		t.Errorf("got %d %s", got.StatusCode, body)
	}
	for method, want := range map[string]string{"getMe": "fake_gate_bot", "getUpdates": `"result":[]`, "deleteWebhook": `"result":true`} {
		if got, body := w.call(t, "POST", base+"/"+method, "{}", "content-type", "application/json"); got.StatusCode != 200 || !strings.Contains(body, want) {
			t.Errorf("%s: got %d %s", method, got.StatusCode, body)
		}
	}
	for _, body := range []string{`{"chat_id":7,"text":"hi"}`, "chat_id=7&text=hi"} {
		if got, body := w.call(t, "POST", base+"/sendMessage", body); got.StatusCode != 200 || !strings.Contains(body, `"text":"hi"`) || !strings.Contains(body, `"id":7`) {
			t.Errorf("got %d %s", got.StatusCode, body)
		}
	}
	if got, body := w.call(t, "GET", base+"/nothing", ""); got.StatusCode != 404 {
		t.Errorf("got %d %s", got.StatusCode, body)
	}
	_, body := w.call(t, "GET", base+"/echo", "")
	quoted(t, w.keys["telegram.bot"], body)
}

func TestKeysInQueriesAndLastSegments(t *testing.T) {
	w := start(t)
	address := "https://generativelanguage.googleapis.com/v1beta/models?key="
	if got, body := w.call(t, "GET", address+url.QueryEscape(w.keys["google.gemini"]), ""); got.StatusCode != 200 {
		t.Errorf("got %d %s", got.StatusCode, body)
	}
	if got, _ := w.call(t, "GET", address+"wrong", ""); got.StatusCode != 400 {
		t.Errorf("got %d", got.StatusCode)
	}
	if got, body := w.call(t, "POST", w.keys["discord.webhook"], `{"content":"hi"}`); got.StatusCode != 204 {
		t.Errorf("got %d %s", got.StatusCode, body)
	}
}

func TestStreams(t *testing.T) {
	w := start(t)
	tests := []struct {
		name, address, header, key string
		want                       []string
	}{
		{"anthropic", "https://api.anthropic.com/v1/messages", "", w.keys["anthropic.api"], []string{"event: message_start\n", `"text_delta"`, "event: message_stop\n"}},
		{"openai chat", "https://api.openai.com/v1/chat/completions", "Bearer ", w.keys["openai.project"], []string{`"chat.completion.chunk"`, "data: [DONE]\n"}},
		{"openai responses", "https://api.openai.com/v1/responses", "Bearer ", w.keys["openai.project"], []string{"event: response.created\n", "event: response.completed\n"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, body := w.call(t, "POST", test.address, `{"stream":true,"model":"m"}`, "authorization", "Bearer "+test.key)
			if got.StatusCode != 200 || !strings.HasPrefix(got.Header.Get("Content-Type"), "text/event-stream") {
				t.Fatalf("got %d %s", got.StatusCode, body)
			}
			for _, want := range test.want {
				if !strings.Contains(body, want) {
					t.Errorf("%q is missing in %s", want, body)
				}
			}
			for line := range strings.Lines(body) {
				if data, ok := strings.CutPrefix(line, "data: "); ok && !json.Valid([]byte(data)) && data != "[DONE]\n" {
					t.Errorf("not JSON: %s", data)
				}
			}
			quoted(t, test.key, body)
		})
	}
}

func TestMisbehaviour(t *testing.T) {
	w := start(t)
	key := w.keys["stripe.secret"]
	ask := func(what string) (*http.Response, string) {
		return w.call(t, "GET", "https://api.stripe.com/v1/balance", "", "authorization", "Bearer "+key, "x-fake", what)
	}
	if got, body := ask("gzip"); got.Header.Get("Content-Encoding") != "gzip" || strings.Contains(body, key) {
		t.Errorf("got %v", got.Header)
	}
	if got, _ := ask("429"); got.StatusCode != 429 || got.Header.Get("Retry-After") != "1" {
		t.Errorf("got %d", got.StatusCode)
	}
	if got, _ := ask("redirect"); got.StatusCode != 307 || got.Header.Get("Location") != "https://elsewhere.example/" {
		t.Errorf("got %d", got.StatusCode)
	}
	if got, _ := ask("trailer"); !strings.Contains(got.Trailer.Get("X-Echo-End"), key) {
		t.Errorf("got %v", got.Trailer)
	}
	_, body := w.call(t, "GET", "https://api.stripe.com/echo", "", "authorization", "Bearer "+key)
	quoted(t, key, body)
}

func TestNamesAreBound(t *testing.T) {
	w := start(t)
	if _, err := tls.Dial("tcp", w.Addr(), &tls.Config{RootCAs: w.roots, ServerName: "stranger.example"}); err == nil {
		t.Error("a certificate for a stranger")
	}
	r, err := http.NewRequestWithContext(t.Context(), "GET", "https://api.stripe.com/v1/balance", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Host = "api.openai.com"
	got, err := w.client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	got.Body.Close()
	if got.StatusCode != http.StatusMisdirectedRequest || got.ProtoMajor != 2 {
		t.Errorf("got %s %d", got.Proto, got.StatusCode)
	}
}

// ws is the client's side of a WebSocket, as small as can be.
type ws struct {
	t    *testing.T
	conn net.Conn
	in   *bufio.Reader
}

func (w *world) socket(t *testing.T, host, headers string) (*ws, *http.Response) {
	t.Helper()
	conn, err := tls.Dial("tcp", w.Addr(), &tls.Config{RootCAs: w.roots, ServerName: host})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if _, err := io.WriteString(conn, "GET /?v=10&encoding=json HTTP/1.1\r\nHost: "+host+"\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"+headers+"\r\n"); err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReader(conn)
	answer, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatal(err)
	}
	return &ws{t, conn, in}, answer
}

func (c *ws) send(text string) {
	c.t.Helper()
	head := []byte{0x81, 0x80 | 126, byte(len(text) >> 8), byte(len(text)), 1, 2, 3, 4}
	body := []byte(text)
	for i := range body {
		body[i] ^= byte(i%4) + 1
	}
	if _, err := c.conn.Write(append(head, body...)); err != nil {
		c.t.Fatal(err)
	}
}

// read is the next frame: its first byte and what it holds.
func (c *ws) read() (byte, string) {
	c.t.Helper()
	head := make([]byte, 2)
	if _, err := io.ReadFull(c.in, head); err != nil {
		c.t.Fatal(err)
	}
	size := int(head[1])
	if size == 126 {
		long := make([]byte, 2)
		if _, err := io.ReadFull(c.in, long); err != nil {
			c.t.Fatal(err)
		}
		size = int(long[0])<<8 | int(long[1])
	}
	body := make([]byte, size)
	if _, err := io.ReadFull(c.in, body); err != nil {
		c.t.Fatal(err)
	}
	return head[0], string(body)
}

func TestGateway(t *testing.T) {
	w := start(t)
	token := w.keys["discord.bot"]
	enter := func(host string) *ws {
		c, answer := w.socket(t, host, "")
		if answer.StatusCode != 101 || answer.Header.Get("Sec-WebSocket-Accept") != "ICX+Yqv66kxgM0FcWaLWlFLwTAI=" {
			t.Fatalf("got %d %v", answer.StatusCode, answer.Header)
		}
		if _, hello := c.read(); !strings.Contains(hello, `"op":10`) || !strings.Contains(hello, "heartbeat_interval") {
			t.Fatalf("got %s", hello)
		}
		return c
	}
	c := enter("gateway.discord.gg")
	c.send(`{"op":1,"d":null}`)
	if _, ack := c.read(); !strings.Contains(ack, `"op":11`) {
		t.Errorf("got %s", ack)
	}
	c.send(`{"op":2,"d":{"token":"` + token + `","intents":1,"properties":{}}}`)
	_, ready := c.read()
	quoted(t, token, ready)
	var f struct {
		T string
		S int
		D struct {
			SessionID string `json:"session_id"`
			Resume    string `json:"resume_gateway_url"`
		}
	}
	if err := json.Unmarshal([]byte(ready), &f); err != nil || f.T != "READY" || f.S != 1 || f.D.SessionID == "" {
		t.Fatalf("got %s, %v", ready, err)
	}
	again := enter(strings.TrimPrefix(f.D.Resume, "wss://"))
	again.send(`{"op":6,"d":{"token":"` + token + `","session_id":"` + f.D.SessionID + `","seq":1}}`)
	if _, resumed := again.read(); !strings.Contains(resumed, "RESUMED") {
		t.Errorf("got %s", resumed)
	}
	lost := enter("gateway.discord.gg")
	lost.send(`{"op":6,"d":{"token":"` + token + `","session_id":"none","seq":1}}`)
	if _, invalid := lost.read(); !strings.Contains(invalid, `"op":9`) {
		t.Errorf("got %s", invalid)
	}
	for text, code := range map[string]string{
		`{"op":2,"d":{"token":"wrong"}}`:                 "\x0f\xa4", // 4004
		`{"op":6,"d":{"token":"wrong"}}`:                 "\x0f\xa4",
		`{"op":3,"d":{}}`:                                "\x0f\xa3", // 4003
		`no JSON`:                                        "\x0f\xa2", // 4002
		`{"op":2,"d":"` + strings.Repeat("x", 10) + `"}`: "\x0f\xa2",
	} {
		c := enter("gateway.discord.gg")
		c.send(text)
		if op, body := c.read(); op != 0x88 || !strings.HasPrefix(body, code) {
			t.Errorf("%s: got %x %q", text, op, body)
		}
	}
	if n := w.Calls()["gateway.discord.gg"]; n.Accepted != 2 || n.Refused != 2 {
		t.Errorf("got %+v", n)
	}
}

func TestSocketsElsewhereEcho(t *testing.T) {
	w := start(t)
	key := w.keys["api.acme.example"]
	if _, answer := w.socket(t, "api.acme.example", "X-Api-Key: wrong\r\n"); answer.StatusCode != 401 {
		t.Errorf("got %d", answer.StatusCode)
	}
	c, _ := w.socket(t, "api.acme.example", "X-Api-Key: "+key+"\r\n")
	first, one := c.read()
	second, two := c.read()
	if first != 0x01 || second != 0x80 || one+two != key {
		t.Errorf("got %x %q %x %q", first, one, second, two)
	}
}

func TestRunWritesWhatOthersNeed(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "keys.json")
	one, two := made(t, "stripe.secret"), made(t, "stripe.secret")
	text, err := json.Marshal(map[string]any{"stripe.secret": []string{one, two}, "api.acme.example": one})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	keys, err := fake.ReadKeys(file)
	if err != nil || len(keys["stripe.secret"]) != 2 || len(keys["api.acme.example"]) != 1 {
		t.Fatalf("got %v, %v", keys, err)
	}
	kinds, err := catalog.Open("")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	out := filepath.Join(dir, "out")
	go func() { done <- fake.Run(ctx, kinds, keys, out) }()
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	fragment, err := os.ReadFile(filepath.Join(out, "config-fragment"))
	if err != nil {
		t.Fatal(err)
	}
	var config struct {
		Upstream struct {
			Dial   map[string]string `yaml:"dial"`
			CAFile string            `yaml:"ca_file"`
		} `yaml:"upstream"`
	}
	if err := strictyaml.Decode("config-fragment", fragment, &config); err != nil {
		t.Fatal(err)
	}
	address, err := os.ReadFile(filepath.Join(out, "ready"))
	if err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{"api.stripe.com:443", "files.stripe.com:443", "api.acme.example:443"} {
		if config.Upstream.Dial[host]+"\n" != string(address) {
			t.Errorf("%s: got %v", host, config.Upstream.Dial)
		}
	}
	if pem, err := os.ReadFile(config.Upstream.CAFile); err != nil || !bytes.HasPrefix(pem, []byte("-----BEGIN CERTIFICATE")) {
		t.Errorf("got %q, %v", pem, err)
	}
	if counts, err := os.ReadFile(filepath.Join(out, "calls.json")); err != nil || string(counts) != "{}\n" {
		t.Errorf("got %s, %v", counts, err)
	}
}
