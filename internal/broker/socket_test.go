package broker

import (
	"bufio"
	"bytes"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"postern/internal/broker/ws"
	"postern/internal/event"
)

const gatewayHost = "gateway.discord.gg"

// frame is what one side read.
type frame struct {
	op      ws.Op
	fin     bool
	payload string
}

// wire reads and writes frames of one side, in a test.
type wire struct {
	testing.TB
	c      net.Conn
	br     *bufio.Reader
	client bool
}

func (w *wire) write(fin bool, op ws.Op, payload string) {
	var key *[4]byte
	if w.client {
		key = &[4]byte{9, 8, 7, 6}
	}
	_, _ = w.c.Write(ws.Append(nil, fin, op, []byte(payload), key))
}

// read returns the next frame; at the end of the connection its op is 99.
func (w *wire) read() frame {
	w.Helper()
	var head []byte
	for {
		b, err := w.br.ReadByte()
		if err != nil {
			return frame{op: 99}
		}
		head = append(head, b)
		h, size, err := ws.Parse(head, !w.client)
		if err == ws.ErrMore || size > len(head) {
			continue
		}
		if err != nil {
			w.Errorf("bad frame: %v", err)
			return frame{op: 99}
		}
		payload := make([]byte, h.Length)
		if _, err := io.ReadFull(w.br, payload); err != nil {
			return frame{op: 99}
		}
		if h.Masked {
			ws.Mask(payload, h.Key, 0)
		}
		return frame{h.Op, h.Fin, string(payload)}
	}
}

// readMessage puts fragments together.
func (w *wire) readMessage() string {
	w.Helper()
	all := ""
	for {
		f := w.read()
		if f.op == 99 {
			w.Error("the connection ended inside a message")
			return all
		}
		if all += f.payload; f.fin {
			return all
		}
	}
}

// socketSite serves WebSockets at host; its side of each is handed to serve.
func (w *world) socketSite(host string, serve func(s *wire, r *http.Request)) {
	w.site(host, func(rw http.ResponseWriter, r *http.Request) {
		sum := sha1.Sum([]byte(r.Header.Get("Sec-Websocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
		c, buf, err := rw.(http.Hijacker).Hijack()
		if err != nil {
			w.Error(err)
			return
		}
		defer func() { _ = c.Close() }()
		_, _ = fmt.Fprintf(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n", base64.StdEncoding.EncodeToString(sum[:]))
		serve(&wire{TB: w, c: c, br: buf.Reader}, r)
	})
}

// socket opens a WebSocket as the agent and returns the status of the answer.
func (w *world) socket(host, path string, header ...string) (*wire, *http.Response) {
	w.Helper()
	c := w.raw("bot", host)
	_, _ = fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\nSec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n%s\r\n",
		path, host, base64.StdEncoding.EncodeToString([]byte("sixteen bytes ok")), strings.Join(header, ""))
	br := bufio.NewReader(c)
	res, err := http.ReadResponse(br, nil)
	if err != nil {
		w.Fatal(err)
	}
	return &wire{TB: w, c: c, br: br, client: true}, res
}

func discordWorld(t *testing.T, serve func(s *wire, r *http.Request, value string)) (w *world, text, value string) {
	w = newWorld(t)
	text, value = w.lend("bot", "discord", "discord.bot", gatewayHost+":443")
	w.socketSite(gatewayHost, func(s *wire, r *http.Request) { serve(s, r, value) })
	return w, text, value
}

func TestDiscordIdentifyAndResume(t *testing.T) {
	t.Parallel()
	got := make(chan string, 10)
	w, text, value := discordWorld(t, func(s *wire, r *http.Request, v string) {
		got <- r.URL.RawQuery + " " + r.Header.Get("Sec-Websocket-Extensions")
		s.write(true, ws.Text, `{"op":10}`)
		for range 5 {
			got <- s.readMessage()
		}
		s.write(true, ws.Text, `{"op":0,"echo":"`+v+`"}`)
		s.write(false, ws.Text, `{"echo":"`+v[:20])
		s.write(true, ws.Ping, "between "+v)
		s.write(false, ws.Continuation, v[20:])
		s.write(true, ws.Continuation, `"}`)
		s.write(true, ws.Text, strings.Repeat("x", 100<<10)+v)
		s.write(true, ws.Close, string(binary.BigEndian.AppendUint16(nil, 4004))+"bad "+v)
	})
	c, res := w.socket(gatewayHost, "/?v=10&encoding=json&compress=zlib-stream")
	if res.StatusCode != 101 {
		b, _ := io.ReadAll(res.Body)
		t.Fatalf("got %d %s", res.StatusCode, b)
	}
	if s := <-got; s != "v=10&encoding=json " {
		t.Errorf("handshake: %q", s)
	}
	if f := c.read(); f.payload != `{"op":10}` {
		t.Errorf("hello: %+v", f)
	}
	tests := []struct{ send, want string }{
		{`{"op":2,"d":{"token":"` + text + `","compress":true,"intents":1}}`, `{"op":2,"d":{"token":"` + value + `","compress":false,"intents":1}}`},
		{`{"op":6,"d":{"seq":1,"token":"` + text + `"}}`, `{"op":6,"d":{"seq":1,"token":"` + value + `"}}`},
		{`{"op":1,"d":"` + text + `"}`, `{"op":1,"d":"` + text + `"}`},
		{`{"op":3,"d":{"token":"` + text + `"}}`, `{"op":3,"d":{"token":"` + text + `"}}`},
		{`not json ` + text, `not json ` + text},
	}
	for i, tt := range tests {
		if i%2 == 1 { // in fragments, at an odd place
			c.write(false, ws.Text, tt.send[:7])
			c.write(false, ws.Continuation, tt.send[7:40])
			c.write(true, ws.Continuation, tt.send[40:])
		} else {
			c.write(true, ws.Text, tt.send)
		}
		if s := <-got; s != tt.want {
			t.Errorf("message %d: the upstream got another one", i)
		}
	}
	if s := c.readMessage(); s != `{"op":0,"echo":"`+text+`"}` {
		t.Errorf("echo: %s", s)
	}
	echo, pinged := "", false
	for {
		f := c.read()
		if f.op == ws.Ping {
			pinged = f.payload == "between "+text
			continue
		}
		if echo += f.payload; f.fin || f.op == 99 {
			break
		}
	}
	if echo != `{"echo":"`+text+`"}` || !pinged {
		t.Errorf("fragmented echo: %s, ping %v", echo, pinged)
	}
	if s := c.readMessage(); s != strings.Repeat("x", 100<<10)+text {
		t.Errorf("long echo: %d bytes, ends in %s", len(s), s[max(0, len(s)-100):])
	}
	if f := c.read(); f.op != ws.Close || f.payload[2:] != "bad "+text {
		t.Errorf("close: %+v", f)
	}
	_ = c.c.Close()
	if n := len(w.recorded(event.Use)); n != 2 {
		t.Errorf("%d uses recorded", n)
	}
	if out := w.eventually(event.Outcome); out.Status != 101 || out.BytesOut == 0 || out.BytesIn == 0 {
		t.Errorf("outcome: %+v", out)
	}
	w.eventually(event.Quoted)
	w.eventually(event.Redacted)
}

func TestDiscordRefusals(t *testing.T) {
	t.Parallel()
	w, text, value := discordWorld(t, func(s *wire, _ *http.Request, v string) {
		for {
			f := s.read()
			if f.op == 99 {
				return
			}
			if f.op == ws.Text && strings.Contains(f.payload, "token") {
				s.Errorf("a refused message reached the upstream")
			}
		}
	})
	other, _ := w.lend("other", "theirs", "discord.bot", gatewayHost+":443")
	identify := `{"op":2,"d":{"token":"%s"}}`
	raw := func(b ...byte) func(c *wire) { return func(c *wire) { _, _ = c.c.Write(b) } }
	tests := map[string]struct {
		send func(c *wire)
		code uint16
	}{
		"another agent's":      {func(c *wire) { c.write(true, ws.Text, fmt.Sprintf(identify, other)) }, ws.CodePolicy},
		"foreign token":        {func(c *wire) { c.write(true, ws.Text, fmt.Sprintf(identify, value)) }, ws.CodePolicy},
		"token twice":          {func(c *wire) { c.write(true, ws.Text, `{"op":2,"d":{"token":"`+text+`","token":"x"}}`) }, ws.CodePolicy},
		"op twice":             {func(c *wire) { c.write(true, ws.Text, `{"op":2,"op":1,"d":{"token":"`+text+`"}}`) }, ws.CodePolicy},
		"over-long":            {func(c *wire) { c.write(true, ws.Text, strings.Repeat(" ", 65<<10)+fmt.Sprintf(identify, text)) }, ws.CodeTooBig},
		"over-long in parts":   {func(c *wire) { longParts(c, fmt.Sprintf(identify, text)) }, ws.CodeTooBig},
		"binary":               {func(c *wire) { c.write(true, ws.Binary, "\x83") }, ws.CodeUnsupported},
		"not masked":           {raw(0x81, 0x01, 'x'), ws.CodeProtocol},
		"reserved bit":         {raw(0xc1, 0x81, 1, 2, 3, 4, 'x'), ws.CodeProtocol},
		"fragmented ping":      {raw(0x09, 0x81, 1, 2, 3, 4, 'x'), ws.CodeProtocol},
		"continuation of none": {raw(0x80, 0x81, 1, 2, 3, 4, 'x'), ws.CodeProtocol},
		"declared as 2^62":     {raw(0x81, 0xff, 0x40, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4), ws.CodeTooBig},
		"message in a message": {func(c *wire) { c.write(false, ws.Text, "{"); c.write(true, ws.Text, "}") }, ws.CodeProtocol},
		"bytes that are HTTP":  {func(c *wire) { _, _ = io.WriteString(c.c, "GET / HTTP/1.1\r\n\r\n") }, ws.CodeProtocol},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			c, res := w.socket(gatewayHost, "/?v=10&encoding=json")
			if res.StatusCode != 101 {
				t.Fatalf("got %d", res.StatusCode)
			}
			tt.send(c)
			f := c.read()
			if f.op != ws.Close || len(f.payload) < 2 || binary.BigEndian.Uint16([]byte(f.payload)) != tt.code || strings.Contains(f.payload, value) {
				t.Errorf("got %+v", f)
			}
		})
	}
	for _, query := range []string{"?encoding=etf", "?v=10&encoding=ETF", "?enc%6fding=etf"} {
		_, res := w.socket(gatewayHost, "/"+query)
		b, _ := io.ReadAll(res.Body)
		if res.StatusCode != 400 || !strings.Contains(string(b), "encoding=json") {
			t.Errorf("%s: got %d %s", query, res.StatusCode, b)
		}
	}
	if len(w.recorded(event.Use)) != 0 {
		t.Error("a use was recorded")
	}
}

func longParts(c *wire, last string) {
	c.write(false, ws.Text, " ")
	for range 70 {
		c.write(false, ws.Continuation, strings.Repeat(" ", 1<<10))
	}
	c.write(true, ws.Continuation, last)
}

func TestLedgerFailureClosesSocket(t *testing.T) {
	t.Parallel()
	w, text, _ := discordWorld(t, func(s *wire, _ *http.Request, v string) {
		if f := s.read(); f.op == ws.Text {
			s.Error("sent without a record")
		}
	})
	c, _ := w.socket(gatewayHost, "/?encoding=json")
	w.mu.Lock()
	w.refuse = io.ErrShortWrite
	w.mu.Unlock()
	c.write(true, ws.Text, `{"op":2,"d":{"token":"`+text+`"}}`)
	if f := c.read(); f.op != ws.Close || binary.BigEndian.Uint16([]byte(f.payload)) != ws.CodeInternal || !strings.Contains(f.payload, "ledger") {
		t.Errorf("got %+v", f)
	}
}

func TestSocketWithTokenInTheHandshake(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	text, value := w.lend("bot", "key", "openai.project", "api.openai.com:443")
	w.socketSite("api.openai.com", func(s *wire, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer "+value {
			s.Error("the handshake holds another token")
		}
		for {
			f := s.read()
			if f.op == 99 {
				return
			}
			s.write(f.fin, f.op, f.payload)
		}
	})
	c, res := w.socket("api.openai.com", "/v1/responses", "Authorization: Bearer "+text+"\r\n")
	if res.StatusCode != 101 {
		t.Fatalf("got %d", res.StatusCode)
	}
	for _, n := range []int{0, 1, 125, 126, 65535, 65536, 300 << 10} {
		want := string(bytes.Repeat([]byte("ab"), n)[:n])
		go c.write(true, ws.Binary, want)
		if got := c.readMessage(); got != want {
			t.Errorf("%d bytes: got %d bytes", n, len(got))
		}
	}
	c.write(true, ws.Text, "quoting "+text)
	if got := c.readMessage(); got != "quoting "+text {
		t.Errorf("got %s", got)
	}
	_ = c.c.Close()
	w.eventually(event.Quoted)
}

func TestHandshakeThatIsNone(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]string{
		"wrong accept":      "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: AAAA\r\n\r\n",
		"other protocol":    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n",
		"nothing said":      "HTTP/1.1 101 Switching Protocols\r\n\r\n",
		"with an extension": "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Extensions: permessage-deflate\r\nSec-WebSocket-Accept: $\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			text, _ := w.lend("bot", "key", "openai.project", "api.openai.com:443")
			w.rawSite("api.openai.com", func(c net.Conn, r *http.Request) {
				sum := sha1.Sum([]byte(r.Header.Get("Sec-Websocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
				_, _ = io.WriteString(c, strings.ReplaceAll(answer, "$", base64.StdEncoding.EncodeToString(sum[:])))
			})
			if _, res := w.socket("api.openai.com", "/", "Authorization: Bearer "+text+"\r\n"); res.StatusCode != 502 {
				t.Errorf("got %d", res.StatusCode)
			}
		})
	}
	w, text, _ := echoWorld(t, func(rw http.ResponseWriter, _ *http.Request, _ string) { rw.WriteHeader(403) })
	if _, res := w.socket(anthropicHost, "/", "X-Api-Key: "+text+"\r\n"); res.StatusCode != 403 || res.Header.Get("X-Postern-Refused") != "" {
		t.Errorf("got %d", res.StatusCode)
	}
}

func TestPolicyChangeEndsWhatItForbids(t *testing.T) {
	t.Parallel()
	w, text, _ := discordWorld(t, func(s *wire, _ *http.Request, _ string) {
		s.readMessage()
		s.write(true, ws.Text, "ready")
		s.read()
	})
	w.lineSite("git.example:22", "")
	c, _ := w.socket(gatewayHost, "/")
	c.write(true, ws.Text, `{"op":2,"d":{"token":"`+text+`"}}`)
	if s := c.readMessage(); s != "ready" {
		t.Fatalf("got %s", s)
	}
	tunnel, err := net.Dial("tcp", w.door("bot", "git.example", 22))
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(tunnel, "hello\n")
	if _, err := io.ReadFull(tunnel, make([]byte, 6)); err != nil {
		t.Fatal(err)
	}
	if n := w.b.Recheck(); n != 0 {
		t.Errorf("%d connections were cut that are allowed", n)
	}
	w.mu.Lock()
	clear(w.grants)
	w.mu.Unlock()
	if n := w.b.Recheck(); n != 1 {
		t.Errorf("%d connections were cut of one that lost its grant", n)
	}
	if f := c.read(); f.op != 99 {
		t.Errorf("got %+v", f)
	}
	w.mu.Lock()
	w.denied["git.example:22"] = true
	w.mu.Unlock()
	if n := w.b.Recheck(); n != 1 {
		t.Errorf("%d tunnels were cut", n)
	}
	if _, err := tunnel.Read(make([]byte, 1)); err == nil {
		t.Error("the tunnel goes on")
	}
}

func TestCutEndsStreams(t *testing.T) {
	t.Parallel()
	w, text, _ := discordWorld(t, func(s *wire, _ *http.Request, _ string) {
		s.readMessage()
		s.write(true, ws.Text, "ready")
		s.read()
	})
	release := make(chan bool)
	t.Cleanup(func() { close(release) })
	key, _ := w.lend("bot", "key", "anthropic.api", anthropicHost+":443")
	w.site(anthropicHost, func(rw http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(rw, "data: 1\n\n")
		rw.(http.Flusher).Flush()
		<-release
	})
	c, _ := w.socket(gatewayHost, "/")
	c.write(true, ws.Text, `{"op":2,"d":{"token":"`+text+`"}}`)
	if s := c.readMessage(); s != "ready" {
		t.Fatalf("got %s", s)
	}
	req, _ := http.NewRequest("GET", anthropicURL, nil)
	req.Header.Set("X-Api-Key", key)
	res, err := w.client("bot", anthropicHost).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	first := make([]byte, 9)
	if _, err := io.ReadFull(res.Body, first); err != nil {
		t.Fatal(err)
	}
	if n := w.b.Cut("discord"); n != 1 {
		t.Errorf("Cut: %d connections", n)
	}
	if f := c.read(); f.op != 99 {
		t.Errorf("got %+v", f)
	}
	start := time.Now()
	if n := w.b.CutAgent("bot"); n < 1 {
		t.Errorf("CutAgent: %d connections", n)
	}
	if _, err := io.ReadAll(res.Body); err == nil {
		t.Error("the stream ended as if it were complete")
	}
	if took := time.Since(start); took > time.Second {
		t.Errorf("it took %v", took)
	}
	_ = res.Body.Close()
}
