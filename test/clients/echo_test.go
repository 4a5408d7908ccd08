package clients

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"postern/internal/ca"
)

// echoHost is the name of a service of our own, which no kind knows.
const echoHost = "echo.clients.example"

// echo is a service that gives back the key that it was called with, in the form
// that the path names, and keeps what it received.
type echo struct {
	authority *ca.CA
	at        string

	mu       sync.Mutex
	received []string // all of each request
}

func newEcho(t testing.TB) *echo {
	t.Helper()
	e := &echo{}
	var err error
	if e.authority, err = ca.Generate(time.Now()); err != nil {
		t.Fatal(err)
	}
	leaf, err := e.authority.Leaf(context.Background(), echoHost)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{*leaf}, MinVersion: tls.VersionTLS12})
	if err != nil {
		t.Fatal(err)
	}
	e.at = ln.Addr().String()
	server := &http.Server{Handler: e, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = server.Serve(ln) }()
	t.Cleanup(func() { _ = server.Close() })
	return e
}

// taken gives what was received since the last call.
func (e *echo) taken() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	list := e.received
	e.received = nil
	return list
}

func (e *echo) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var all bytes.Buffer
	_ = r.Write(&all)
	fmt.Fprintf(&all, "\n%v", r.Trailer)
	e.mu.Lock()
	e.received = append(e.received, all.String())
	e.mu.Unlock()
	key := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	form := strings.TrimPrefix(r.URL.Path, "/")
	if text, found := spelled(key)[form]; found {
		_, _ = io.WriteString(w, "before "+text+" behind")
		return
	}
	if do, found := deliveries()[form]; found {
		do(w, key)
		return
	}
	_, _ = io.WriteString(w, "you are welcome")
}

// spelled are the spellings of a key that Postern promises to find.
func spelled(key string) map[string]string {
	b := []byte(key)
	inHex := hex.EncodeToString(b)
	percent, unicode := "", ""
	for i := 0; i < len(inHex); i += 2 {
		percent += "%" + inHex[i:i+2]
		unicode += `\u00` + inHex[i:i+2]
	}
	return map[string]string{
		"plain": key, "hex": inHex, "HEX": strings.ToUpper(inHex), "percent": percent, "PERCENT": strings.ToUpper(percent), "json": `{"key":"` + unicode + `"}`,
		"base64": base64.StdEncoding.EncodeToString(b), "base64-1": base64.StdEncoding.EncodeToString(append([]byte("x"), b...)),
		"base64-2": base64.StdEncoding.EncodeToString(append([]byte("xy"), b...)), "base64url": base64.URLEncoding.EncodeToString(append([]byte("user:"), b...)),
		"twice": key + key, "in-a-url": "https://x/?k=" + key + "&z=1", "in-html": "<b>" + key + "</b>",
	}
}

// deliveries are the places and ways in which it comes.
func deliveries() map[string]func(http.ResponseWriter, string) {
	header := func(name, before string) func(http.ResponseWriter, string) {
		return func(w http.ResponseWriter, key string) {
			w.Header().Set(name, before+key)
			_, _ = io.WriteString(w, "see the header")
		}
	}
	packed := func(coding string, pack func(io.Writer) io.WriteCloser) func(http.ResponseWriter, string) {
		return func(w http.ResponseWriter, key string) {
			w.Header().Set("Content-Encoding", coding)
			z := pack(w)
			_, _ = io.WriteString(z, "before "+key+" behind")
			_ = z.Close()
		}
	}
	zip := func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) }
	status := func(code int) func(http.ResponseWriter, string) {
		return func(w http.ResponseWriter, key string) {
			w.WriteHeader(code)
			_, _ = io.WriteString(w, "no such key: "+key)
		}
	}
	return map[string]func(http.ResponseWriter, string){
		"header": header("X-Key", ""), "cookie": header("Set-Cookie", "key="), "location": header("Location", "https://elsewhere.example/?key="), "etag": header("Etag", "W/"),
		"content-type": header("Content-Type", "text/plain; key="), "disposition": header("Content-Disposition", "attachment; filename="),
		"400": status(400), "401": status(401), "500": status(500),
		"gzip": packed("gzip", zip), "deflate": packed("deflate", func(w io.Writer) io.WriteCloser { return zlib.NewWriter(w) }),
		// Compressed and not said to be is a file, which passes: docs/THREAT-MODEL.md.
		"gzip twice": func(w http.ResponseWriter, key string) {
			w.Header().Set("Content-Encoding", "gzip, gzip")
			outer := gzip.NewWriter(w)
			inner := gzip.NewWriter(outer)
			_, _ = io.WriteString(inner, key)
			_, _ = inner.Close(), outer.Close()
		},
		"claimed to be gzip": func(w http.ResponseWriter, key string) {
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = io.WriteString(w, key)
		},
		"claimed to be unknown": func(w http.ResponseWriter, key string) {
			w.Header().Set("Content-Encoding", "rot13")
			_, _ = io.WriteString(w, key)
		},
		"byte by byte": func(w http.ResponseWriter, key string) {
			for _, b := range []byte(key) {
				_, _ = w.Write([]byte{b})
				_ = http.NewResponseController(w).Flush()
			}
		},
		"events": func(w http.ResponseWriter, key string) {
			w.Header().Set("Content-Type", "text/event-stream")
			_, _ = fmt.Fprintf(w, "data: %s\n\ndata: {\"key\":%q}\n\n", key, key)
		},
		"trailer": func(w http.ResponseWriter, key string) {
			w.Header().Set("Trailer", "X-Key")
			_, _ = io.WriteString(w, "see the trailer")
			w.Header().Set("X-Key", key)
		},
		"early hints": func(w http.ResponseWriter, key string) {
			w.Header().Set("Link", "</"+key+">; rel=preload")
			w.WriteHeader(http.StatusEarlyHints)
			w.Header().Del("Link")
			_, _ = io.WriteString(w, "see the hints")
		},
		"status text": func(w http.ResponseWriter, key string) {
			conn, buffer, err := http.NewResponseController(w).Hijack()
			if err != nil {
				return
			}
			defer conn.Close()
			_, _ = fmt.Fprintf(buffer, "HTTP/1.1 200 %s\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok", key)
			_ = buffer.Flush()
		},
		"name of a header": func(w http.ResponseWriter, key string) {
			conn, buffer, err := http.NewResponseController(w).Hijack()
			if err != nil {
				return
			}
			defer conn.Close()
			_, _ = fmt.Fprintf(buffer, "HTTP/1.1 200 OK\r\n%s: x\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok", key)
			_ = buffer.Flush()
		},
		"extension of a chunk": func(w http.ResponseWriter, key string) {
			conn, buffer, err := http.NewResponseController(w).Hijack()
			if err != nil {
				return
			}
			defer conn.Close()
			_, _ = fmt.Fprintf(buffer, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n2;key=%s\r\nok\r\n0\r\n\r\n", key)
			_ = buffer.Flush()
		},
	}
}

// withEcho adds the service, a key for it that the agent is lent, and its
// placeholder in the variable ECHO_KEY.
func (w *world) withEcho(t testing.TB) *echo {
	t.Helper()
	e := newEcho(t)
	home := filepath.Join(w.home, ".postern")
	for name, change := range map[string]func(string) string{
		"config.yaml": func(s string) string {
			return strings.Replace(s, "  dial:\n", fmt.Sprintf("  dial:\n    %q: %q\n", echoHost+":443", e.at), 1)
		},
		"providers.pem": func(s string) string { return s + string(e.authority.CertPEM()) },
	} {
		path := filepath.Join(home, name)
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(change(string(data))), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var raw [24]byte
	if _, err := rand.Read(raw[:]); err != nil {
		t.Fatal(err)
	}
	key := "clients+" + base64.StdEncoding.EncodeToString(raw[:])
	w.keys["ECHO_KEY"] = key
	add := w.as(w.postern, "secret", "add", "echo", "--kind", "generic", "--host", echoHost, "--variable", "ECHO_KEY", "--agent", "bot", "--stdin")
	add.Stdin = strings.NewReader(key)
	if out, err := add.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return e
}

// Whatever a service does with the key that it gets: the agent receives none of
// it.
func TestWhateverAServiceGivesBack(t *testing.T) {
	need(t, "curl")
	w := newWorld(t)
	e := w.withEcho(t)
	forms := []string{}
	for form := range spelled("") {
		forms = append(forms, form)
	}
	for form := range deliveries() {
		forms = append(forms, form)
	}
	script := ""
	for _, form := range forms {
		path := strings.ReplaceAll(form, " ", "%20")
		script += fmt.Sprintf("echo '== %s'; for how in --http1.1 --compressed; do curl -sS -i $how -m 10 -H \"Authorization: Bearer $ECHO_KEY\" 'https://%s/%s'; echo; done\n", form, echoHost, path)
	}
	out, _ := w.received(script)
	for part := range strings.SplitSeq(out, "== ") {
		name, answer, _ := strings.Cut(part, "\n")
		if found := w.keysIn([]byte(answer)); len(found) > 0 {
			t.Errorf("%s: the agent received %v in\n%s", name, found, answer)
		}
		if unpacked := unpack([]byte(answer)); len(w.keysIn(unpacked)) > 0 {
			t.Errorf("%s: the agent received it packed", name)
		}
	}
	with := 0
	for _, request := range e.taken() {
		if strings.Contains(request, "Authorization: Bearer "+w.keys["ECHO_KEY"]) {
			with++
		}
	}
	if with != 2*len(forms) {
		t.Errorf("the service had the key in %d of %d calls:\n%.4000s", with, 2*len(forms), out)
	}
}

// unpack is what any gzip streams in data hold.
func unpack(data []byte) []byte {
	var all []byte
	for {
		at := bytes.Index(data, []byte{0x1f, 0x8b})
		if at < 0 {
			return all
		}
		data = data[at:]
		if z, err := gzip.NewReader(bytes.NewReader(data)); err == nil {
			part, _ := io.ReadAll(io.LimitReader(z, 1<<20)) // what follows is no gzip
			all = append(all, part...)
			all = append(all, unpack(part)...)
		}
		data = data[2:]
	}
}
