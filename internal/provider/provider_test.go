package provider_test

import (
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"postern/internal/ca"
	"postern/internal/catalog"
	"postern/internal/provider"
	"postern/internal/secret"
)

func TestVerifySaysWhatTheProviderSays(t *testing.T) {
	kinds, err := catalog.Open("")
	if err != nil {
		t.Fatal(err)
	}
	authority, err := ca.Generate(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	var raw [16]byte
	_, _ = rand.Read(raw[:])
	value := hex.EncodeToString(raw[:])
	for _, c := range []struct {
		kind   string
		status int
		body   string
		want   provider.State
	}{
		{"anthropic.api", 200, "{}", provider.Live},
		{"anthropic.api", 401, "{}", provider.Dead},
		{"anthropic.api", 403, "{}", provider.Scoped},
		{"anthropic.api", 500, "{}", provider.Unknown},
		{"anthropic.api", 302, "{}", provider.Unknown},
		{"stripe.secret", 429, "{}", provider.Broke},
		{"telegram.bot", 200, `{"ok":true,"result":{"username":"ada_bot"}}`, provider.Live},
		{"slack.bot", 200, `{"ok":false,"error":"invalid_auth"}`, provider.Dead},
	} {
		kind, err := kinds.Kind(c.kind)
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			got = r.Header.Get("X-Api-Key") + r.Header.Get("Authorization") + r.URL.Path
			w.Header().Set("Location", "https://elsewhere.example/")
			w.WriteHeader(c.status)
			_, _ = w.Write([]byte(c.body))
		}))
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(authority.CertPEM())
		_, address, _ := strings.Cut(kind.Verify.Call, "https://")
		host, _, _ := strings.Cut(address, "/")
		leaf, err := authority.Leaf(t.Context(), host)
		if err != nil {
			t.Fatal(err)
		}
		server.TLS = &tls.Config{Certificates: []tls.Certificate{*leaf}}
		server.StartTLS()
		client := provider.New(map[string]string{host + ":443": server.Listener.Addr().String()}, roots)
		answer, err := client.Verify(t.Context(), kind, secret.New([]byte(value)))
		server.Close()
		if err != nil || answer.State != c.want {
			t.Errorf("%s with %d: %+v, %v, want %s", c.kind, c.status, answer, err, c.want)
		}
		if !strings.Contains(got, value) {
			t.Errorf("%s: the provider did not see the value", c.kind)
		}
		if strings.Contains(answer.Why, value) {
			t.Errorf("%s: the reason holds the value", c.kind)
		}
	}
}

// A private address is not dialled, and no error holds the value.
func TestVerifyStaysOutside(t *testing.T) {
	kinds, err := catalog.Open("")
	if err != nil {
		t.Fatal(err)
	}
	kind, err := kinds.Kind("telegram.bot")
	if err != nil {
		t.Fatal(err)
	}
	own := *kind
	recipe := *kind.Verify
	recipe.Call = "GET https://localhost/bot{secret}/getMe"
	own.Verify = &recipe
	answer, err := provider.New(nil, nil).Verify(t.Context(), &own, secret.New([]byte("not-to-be-seen")))
	if err != nil || answer.State != provider.Unknown || !strings.Contains(answer.Why, "loopback") || strings.Contains(answer.Why, "not-to-be-seen") {
		t.Errorf("%+v, %v", answer, err)
	}
}
