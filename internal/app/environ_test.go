package app

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"postern/internal/catalog"
	"postern/internal/placeholder"
	"postern/internal/run"
)

// fixedRandom gives the same bytes in each run.
func fixedRandom(seed byte) *rand.ChaCha8 { return rand.NewChaCha8([32]byte{seed}) }

func kinds(t testing.TB) *catalog.Catalog {
	t.Helper()
	c, err := catalog.Open("")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// sample is a value of a kind, and a placeholder for it.
func sample(t testing.TB, id string, seed byte) (value, text string) {
	t.Helper()
	kind, err := kinds(t).Kind(id)
	if err != nil {
		t.Fatal(err)
	}
	template, err := catalog.ParseTemplate(kind.Detect.Match[0])
	if err != nil {
		t.Fatal(err)
	}
	if value, err = template.Generate(fixedRandom(seed)); err != nil {
		t.Fatal(err)
	}
	if text, err = placeholder.Mint(kind, []byte(value), fixedRandom(seed+100)); err != nil {
		t.Fatal(err)
	}
	return value, text
}

func TestEnvironmentIsCleaned(t *testing.T) {
	known, text := sample(t, "anthropic.api", 1)
	foreign, _ := sample(t, "openai.project", 2)
	_, others := sample(t, "stripe.secret", 3)
	database := "postgres://bot:" + "wordword" + "@127.0.0.1:5432/bot"
	e := environment{
		kinds: kinds(t), own: map[string]string{"ANTHROPIC_API_KEY": text},
		replace: func(b []byte) []byte { return bytes.ReplaceAll(b, []byte(known), []byte(text)) },
	}
	cases := []struct {
		name, pair string
		want       string // what is kept; "" where it is left out
		dropped    bool
	}{
		{"plain", "PORT=3000", "PORT=3000", false},
		{"empty value", "EMPTY=", "EMPTY=", false},
		{"equals sign in the value", "A=b=c", "A=b=c", false},
		{"known, its own name", "ANTHROPIC_API_KEY=" + known, "ANTHROPIC_API_KEY=" + text, false},
		{"known, another name", "BACKUP=" + known, "BACKUP=" + text, false},
		{"known, inside of a text", "URL=https://x/?k=" + known, "URL=https://x/?k=" + text, false},
		{"an old value of a variable of ours", "ANTHROPIC_API_KEY=" + "sk-ant-old-and-forgotten", "ANTHROPIC_API_KEY=" + text, false},
		{"a placeholder", "STRIPE_SECRET_KEY=" + others, "STRIPE_SECRET_KEY=" + others, false},
		{"not in the safe", "OPENAI_API_KEY=" + foreign, "", true},
		{"stays real", "DATABASE_URL=" + database, "DATABASE_URL=" + database, false},
		{"ours", "POSTERN_HOME=/x", "", false},
		{"proxy", "https_proxy=http://10.0.0.1:3128", "", false},
		{"proxy in capitals", "HTTPS_PROXY=http://10.0.0.1:3128", "", false},
		{"agent of the host", "SSH_AUTH_SOCK=/tmp/ssh-x/agent.1", "", false},
		{"socket of systemd", "NOTIFY_SOCKET=/run/x", "", false},
		{"no pair", "garbage", "", false},
		{"bytes that are no text", "BIN=\xff\xfe", "BIN=\xff\xfe", false},
		{"line breaks", "MULTI=a\nb", "MULTI=a\nb", false},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			kept, dropped := e.clean([]string{"FIRST=1", c.pair, "LAST=1"})
			name, _, _ := strings.Cut(c.pair, "=")
			got := slices.DeleteFunc(slices.Clone(kept), func(pair string) bool { return pair == "FIRST=1" || pair == "LAST=1" })
			var want []string
			if c.want != "" {
				want = []string{c.want}
			}
			if !slices.Equal(got, want) {
				t.Errorf("kept %q, want %q", got, want)
			}
			if slices.Contains(dropped, name) != c.dropped {
				t.Errorf("dropped %q", dropped)
			}
			if len(kept) != len(want)+2 {
				t.Errorf("the neighbours changed: %q", kept)
			}
		})
	}
	t.Run("own keys", func(t *testing.T) {
		e.ownKeys = true
		kept, dropped := e.clean([]string{"OPENAI_API_KEY=" + foreign})
		if len(dropped) > 0 || !slices.Contains(kept, "OPENAI_API_KEY="+foreign) {
			t.Errorf("an agent that may bring keys of its own lost one: %q %q", kept, dropped)
		}
	})
}

func TestEveryClientIsLedToTheBundle(t *testing.T) {
	env := trusting([]string{"SSL_CERT_FILE=/etc/mine.pem", "A=1"}, "/bundle")
	for _, name := range run.BundleVariables() {
		if n := len(slices.DeleteFunc(slices.Clone(env), func(pair string) bool { return !strings.HasPrefix(pair, name+"=") })); n != 1 || !slices.Contains(env, name+"=/bundle") {
			t.Errorf("%s stands there %d times: %q", name, n, env)
		}
	}
	if !slices.Contains(env, "A=1") {
		t.Error("a variable got lost")
	}
}

// No environment makes cleaning fail, and no known value passes it.
func FuzzEnvironment(f *testing.F) {
	known, text := sample(f, "anthropic.api", 1)
	e := environment{
		kinds: kinds(f), own: map[string]string{"ANTHROPIC_API_KEY": text},
		replace: func(b []byte) []byte { return bytes.ReplaceAll(b, []byte(known), []byte(text)) },
	}
	f.Add("A", "1")
	f.Add("ANTHROPIC_API_KEY", "")
	f.Add("", "=")
	f.Add("x_PROXY", "\x00")
	f.Fuzz(func(t *testing.T, name, value string) {
		kept, _ := e.clean([]string{name + "=" + value, "K=" + value + known, known + "=1"})
		for _, pair := range kept {
			if strings.Contains(pair, known) {
				t.Errorf("%q passed", pair)
			}
		}
	})
}
