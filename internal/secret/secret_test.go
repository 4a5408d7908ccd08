package secret_test

import (
	"bytes"
	"encoding/gob"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"postern/internal/secret"
)

type holder struct {
	Name   string
	Public secret.Value
	hidden secret.Value
	ptr    *secret.Value
	list   []secret.Value
	byName map[string]secret.Value
	any    any
}

func TestNoPrinterShowsAValue(t *testing.T) {
	const canary = "canary-value-7f3a"
	v := secret.New([]byte(canary))
	h := holder{"n", v, v, &v, []secret.Value{v}, map[string]secret.Value{"k": v}, v}
	shapes := map[string]any{
		"value": v, "pointer": &v, "struct": h, "struct pointer": &h,
		"slice": h.list, "map": h.byName, "interface": []any{v, &h},
	}
	verbs := []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%T"}
	for name, shape := range shapes {
		var out bytes.Buffer
		for _, verb := range verbs {
			fmt.Fprintf(&out, verb, shape)
		}
		slog.New(slog.NewTextHandler(&out, nil)).Info("m", "v", shape)
		slog.New(slog.NewJSONHandler(&out, nil)).Info("m", "v", shape)
		if b, err := json.Marshal(shape); err == nil {
			out.Write(b)
		}
		_ = gob.NewEncoder(&out).Encode(shape)
		for _, form := range []string{canary, fmt.Sprintf("%x", canary), fmt.Sprintf("%X", canary), fmt.Sprintf("%d", []byte(canary))} {
			if strings.Contains(out.String(), form) {
				t.Errorf("%s: a printer shows the value: %s", name, out.String())
			}
		}
	}
}

func TestRevealLendsTheBytes(t *testing.T) {
	v := secret.New([]byte("abc"))
	var got string
	if err := v.Reveal(func(b []byte) error { got = string(b); return nil }); err != nil || got != "abc" {
		t.Fatalf("got %q, %v", got, err)
	}
	v.Destroy()
	_ = v.Reveal(func(b []byte) error { got = string(b); return nil })
	if got != "\x00\x00\x00" {
		t.Errorf("after Destroy got %q", got)
	}
}

func TestEqualAndFingerprint(t *testing.T) {
	a, b, c := secret.New([]byte("one")), secret.New([]byte("one")), secret.New([]byte("two"))
	key := []byte("key")
	if !a.Equal(b) || a.Equal(c) || !(secret.Value{}).IsZero() {
		t.Error("Equal or IsZero is wrong")
	}
	if a.Fingerprint(key) != b.Fingerprint(key) || a.Fingerprint(key) == c.Fingerprint(key) || len(a.Fingerprint(key)) != 32 {
		t.Error("Fingerprint does not name the value")
	}
	if a.Fingerprint(key) == a.Fingerprint([]byte("other")) {
		t.Error("Fingerprint does not depend on the key")
	}
}
