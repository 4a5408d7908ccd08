package redact

import (
	"math/rand/v2"
	"strings"
	"testing"

	"postern/internal/secret"
)

const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"

func randomText(r *rand.Rand, n int, from string) string {
	var b strings.Builder
	for range n {
		b.WriteByte(from[r.IntN(len(from))])
	}
	return b.String()
}

func mustNew(t testing.TB, pairs ...string) *Matcher {
	t.Helper()
	var known []Known
	for i := 0; i < len(pairs); i += 2 {
		known = append(known, Known{Value: secret.New([]byte(pairs[i])), Replacement: pairs[i+1]})
	}
	m, err := New(known)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestReplacePlain(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	value, placeholder := "sk-"+randomText(r, 45, alphabet), "sk-"+randomText(r, 45, alphabet)
	m := mustNew(t, value, placeholder)
	got, hits := m.Replace([]byte(`{"key":"` + value + `"}`))
	if want := `{"key":"` + placeholder + `"}`; string(got) != want || hits != 1 {
		t.Errorf("got %q with %d hits, want %q", got, hits, want)
	}
}
