package clienthello

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
)

// hello is what crypto/tls sends for config.
func hello(t testing.TB, config *tls.Config) []byte {
	t.Helper()
	here, there := net.Pipe()
	go func() {
		_ = tls.Client(there, config).Handshake()
		_ = there.Close()
	}()
	head := make([]byte, 5)
	if _, err := io.ReadFull(here, head); err != nil {
		t.Fatal(err)
	}
	body := make([]byte, int(head[3])<<8|int(head[4]))
	if _, err := io.ReadFull(here, body); err != nil {
		t.Fatal(err)
	}
	_ = here.Close()
	return append(head, body...)
}

// records cuts the message of a one-record hello into records of n bytes.
func records(b []byte, n int) []byte {
	var out []byte
	for message := b[5:]; len(message) > 0; {
		part := message[:min(n, len(message))]
		out = append(append(out, 0x16, 3, 1, byte(len(part)>>8), byte(len(part))), part...)
		message = message[len(part):]
	}
	return out
}

func TestServerName(t *testing.T) {
	t.Parallel()
	named := hello(t, &tls.Config{ServerName: "api.example"})
	bare := hello(t, &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // nothing is connected to
	for name, tt := range map[string]struct {
		hello []byte
		want  string
	}{
		"named":       {named, "api.example"},
		"without":     {bare, ""},
		"in pieces":   {records(named, 7), "api.example"},
		"more behind": {append(append([]byte{}, named...), 0x17, 3, 3, 0, 1, 0), "api.example"},
	} {
		if got, err := ServerName(tt.hello); err != nil || got != tt.want {
			t.Errorf("%s: got %q %v", name, got, err)
		}
	}
	for cut := range len(named) {
		if _, err := ServerName(named[:cut]); !errors.Is(err, ErrMore) {
			t.Fatalf("%d of %d bytes: %v", cut, len(named), err)
		}
	}
}

// withExtension is a hello whose only extensions are given.
func withExtension(extensions string) []byte {
	body := "\x03\x03" + strings.Repeat("r", 32) + "\x00" + "\x00\x02\x13\x01" + "\x01\x00" + string([]byte{byte(len(extensions) >> 8), byte(len(extensions))}) + extensions
	message := string([]byte{1, 0, byte(len(body) >> 8), byte(len(body))}) + body
	return append([]byte{0x16, 3, 1, byte(len(message) >> 8), byte(len(message))}, message...)
}

func sni(list string) string {
	n := len(list)
	return string([]byte{0, 0, byte((n + 2) >> 8), byte(n + 2), byte(n >> 8), byte(n)}) + list
}

func name(s string) string { return string([]byte{0, byte(len(s) >> 8), byte(len(s))}) + s }

func TestHostileHellos(t *testing.T) {
	t.Parallel()
	if got, err := ServerName(withExtension(sni(name("ok.example")))); err != nil || got != "ok.example" {
		t.Fatalf("the plain one: got %q %v", got, err)
	}
	for name, b := range map[string][]byte{
		"two names":          withExtension(sni(name("a.example") + name("b.example"))),
		"two extensions":     withExtension(sni(name("a.example")) + sni(name("b.example"))),
		"empty name":         withExtension(sni(name(""))),
		"long name":          withExtension(sni(name(strings.Repeat("a", 256)))),
		"NUL":                withExtension(sni(name("a.example\x00.b"))),
		"space":              withExtension(sni(name("a b"))),
		"other kind of name": withExtension(sni("\x01\x00\x01a")),
		"length too long":    withExtension("\x00\x00\x00\xff\x00"),
		"not a handshake":    {0x17, 3, 1, 0, 1, 0},
		"not TLS":            []byte("GET / HTTP/1.1\r\n"),
		"SSL 2":              {0x80, 0x2e, 1, 3, 1},
		"empty record":       {0x16, 3, 1, 0, 0},
		"huge record":        {0x16, 3, 1, 0x40, 1},
		"other message":      {0x16, 3, 1, 0, 4, 2, 0, 0, 0},
		"huge message":       {0x16, 3, 1, 0, 4, 1, 0xff, 0xff, 0xff},
		"ends too early":     {0x16, 3, 1, 0, 6, 1, 0, 0, 2, 3, 3},
	} {
		if got, err := ServerName(b); err == nil || errors.Is(err, ErrMore) {
			t.Errorf("%s: got %q %v", name, got, err)
		}
	}
}

func FuzzServerName(f *testing.F) {
	f.Add(hello(f, &tls.Config{ServerName: "api.example"}))
	f.Add(withExtension(sni(name("a.example"))))
	f.Add([]byte{0x16, 3, 1, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := ServerName(b)
		if err != nil && got != "" {
			t.Errorf("%q beside %v", got, err)
		}
		if len(got) > 255 {
			t.Errorf("a name of %d bytes", len(got))
		}
		// The same message in other records says the same.
		if size := len(b) - 5; err == nil && size > 0 && size == int(b[3])<<8|int(b[4]) && size < MaxBytes/2 {
			if again, err := ServerName(records(b, 100)); err != nil || again != got {
				t.Errorf("in other records: %q %v, before %q", again, err, got)
			}
		}
	})
}
