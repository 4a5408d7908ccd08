package catalog_test

import (
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"postern/internal/catalog"
)

const (
	letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	numbers = "0123456789"
)

// draw returns n characters of alphabet.
func draw(t testing.TB, alphabet string, n int, random *rand.ChaCha8) string {
	t.Helper()
	text, err := catalog.Random(random, alphabet, n)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestIdentifyTheUsualVariables(t *testing.T) {
	tests := []struct{ variable, form, kind, confidence string }{
		{"ANTHROPIC_API_KEY", "sk-ant-api03-{alnum:93}AA", "anthropic.api", catalog.High},
		{"CLAUDE", "sk-ant-oat01-{alnum:93}AA", "anthropic.oauth", catalog.High},
		{"OPENAI_API_KEY", "sk-proj-{alnum:74}T3BlbkFJ{alnum:74}", "openai.project", catalog.High},
		{"OPENAI_API_KEY", "sk-{alnum:20}T3BlbkFJ{alnum:20}", "openai.legacy", catalog.High},
		{"OPENROUTER_API_KEY", "sk-or-v1-{hex:64}", "openrouter", catalog.High},
		{"STRIPE_SECRET_KEY", "sk_live_{alnum:24}", "stripe.secret", catalog.High},
		{"AWS_ACCESS_KEY_ID", "AKIA{base32:16}", "aws.access-key-id", catalog.High},
		{"AWS_SECRET_ACCESS_KEY", "{b64:40}", "aws.secret-access-key", catalog.Medium},
		{"SLACK_BOT_TOKEN", "xoxb-{digit:12}-{digit:12}-{alnum:24}", "slack.bot", catalog.High},
		{"TELEGRAM_BOT_TOKEN", "{digit:10}:AA{alnum:33}", "telegram.bot", catalog.High},
		{"BOT_TOKEN", "{digit:10}:AA{alnum:33}", "telegram.bot", catalog.High},
		{"HF_TOKEN", "hf_{letter:34}", "huggingface", catalog.High},
		{"GITLAB_TOKEN", "glpat-{alnum:20}", "gitlab.pat", catalog.High},
		{"GROQ_API_KEY", "gsk_{alnum:52}", "groq", catalog.High},
		{"SENDGRID_API_KEY", "SG.{alnum:22}.{alnum:43}", "sendgrid", catalog.High},
		{"VAULT_TOKEN", "hvs.{alnum:95}", "vault.token", catalog.High},
		{"DATABASE_URL", "postgres://bot:{alnum:20}@db.internal.corp:5432/botdb", "postgres.url", catalog.High},
		{"DATABASE_URL", "postgres://bot:{alnum:16}@db:5432/x", "postgres.url", catalog.High},
		{"DATABASE_URL", "mysql://bot:{alnum:16}@db:3306/x", "mysql.url", catalog.High},
		{"DISCORD_TOKEN", "{snowflake:18}.{alnum:6}.{alnum:38}", "discord.bot", catalog.High},
		{"MISTRAL_API_KEY", "{alnum:32}", "mistral", catalog.Medium},
		{"DEEPSEEK_API_KEY", "sk-{hex:32}", "deepseek", catalog.Medium},
		{"COHERE_API_KEY_PROD", "{alnum:40}", "cohere", catalog.Medium},
		{"TWILIO_AUTH_TOKEN", "{hex:32}", "twilio.auth-token", catalog.Medium},
		{"MY_SERVICE_TOKEN", "{alnum:32}", "generic", catalog.Low},
		{"mySecretKey", "{b64u:40}", "generic", catalog.Low},
		{"DB_PASSWORD", "tr0ub4dor&3{alnum:4}", "generic", catalog.Low},
		{"AUTHORIZATION", "Bearer sk_live_{alnum:24}", "stripe.secret", catalog.High},
	}
	c, random := open(t), stream(2)
	for _, test := range tests {
		t.Run(test.variable+" "+test.kind, func(t *testing.T) {
			for range 100 {
				value := generate(t, test.form, random)
				m, found := c.Identify(test.variable, value)
				if !found {
					t.Fatalf("%q is not identified", value)
				}
				if got, want := []string{m.Kind.ID, m.Confidence}, []string{test.kind, test.confidence}; !cmp.Equal(got, want) {
					t.Fatalf("got %v for %q, want %v", got, value, want)
				}
			}
		})
	}
}

func TestIdentifyPassesOverWhatIsNoSecret(t *testing.T) {
	tests := []struct{ variable, form string }{
		{"PORT", "3000"},
		{"NODE_ENV", "production"},
		{"LOG_LEVEL", "debug"},
		{"BASE_URL", "https://api.example.com/v1/{hex:32}"},
		{"API_KEY_URL", "https://example.com/keys"},
		{"DATABASE_URL", "postgres://localhost:5432/botdb"},
		{"DATABASE_URL", "postgres://bot@db.internal/botdb"},
		{"DATABASE_URL", "postgres://user:your-password-here@localhost/db"},
		{"REDIS_URL", "redis://localhost:6379"},
		{"NEXT_PUBLIC_ANALYTICS_KEY", "{alnum:32}"},
		{"NEXT_PUBLIC_GOOGLE_MAPS_KEY", "AIza{alnum:35}"},
		{"VITE_TOKEN", "{alnum:40}"},
		{"STRIPE_PUBLISHABLE_KEY", "pk_live_{alnum:24}"},
		{"NEXT_PUBLIC_SUPABASE_ANON_KEY", "{jwt:43}"},
		{"ANTHROPIC_API_KEY", "your-anthropic-key-here"},
		{"ANTHROPIC_API_KEY", "sk-ant-api03-xxxxxxxxxxxxxxxx"},
		{"ANTHROPIC_API_KEY", ""},
		{"OPENAI_API_KEY", "op://vault/openai/credential"},
		{"MAX_TOKENS", "100000"},
		{"TOKEN_FILE", "/run/secrets/token"},
		{"SECRET_KEY_PATH", "/etc/app/key.pem"},
		{"GIT_COMMIT", "{hex:40}"},
		{"BUILD_ID", "{alnum:32}"},
		{"API_KEY", "changeme"},
		{"ADMIN_EMAIL", "owner@example.com"},
		{"ALLOWED_USERS", "123456789,987654321"},
		{"GREETING", "Hello and welcome to the server!"},
	}
	c, random := open(t), stream(3)
	for _, test := range tests {
		for range 20 {
			value := generate(t, test.form, random)
			if m, found := c.Identify(test.variable, value); found {
				t.Errorf("%s=%q is taken for %s (%s)", test.variable, value, m.Kind.ID, m.Confidence)
				break
			}
		}
	}
	if m, found := c.Identify("OPENAI_API_KEY", "${OTHER_KEY}"); found {
		t.Errorf("a reference is taken for %s", m.Kind.ID)
	}
}

func TestEveryExampleIsPassedOver(t *testing.T) {
	c := open(t)
	for _, k := range kinds(t) {
		for _, variable := range append([]string{"SOMETHING_KEY"}, k.Env...) {
			if m, found := c.Identify(variable, k.Example); found {
				t.Errorf("%s=%s, the example of %s, is taken for %s", variable, k.Example, k.ID, m.Kind.ID)
			}
		}
	}
}

func TestIdentifyFindsEachKeyOfAList(t *testing.T) {
	c, random := open(t), stream(4)
	first := generate(t, "sk-ant-api03-{alnum:93}AA", random)
	second := generate(t, "sk-ant-api03-{alnum:93}AA", random)
	for _, between := range []string{",", ", ", ";", "\n", "\r\n", ",\n"} {
		value := first + between + second
		m, found := c.Identify("ANTHROPIC_API_KEYS", value)
		if !found || len(m.Spans) != 2 {
			t.Fatalf("with %q: got %+v, %v", between, m, found)
		}
		got := []string{value[m.Spans[0].Start:m.Spans[0].End], value[m.Spans[1].Start:m.Spans[1].End]}
		if !cmp.Equal(got, []string{first, second}) {
			t.Errorf("with %q: got %q", between, got)
		}
	}
}

// Unknown secrets are cut only where the name says that there are several: a
// password may hold a comma.
func TestIdentifyCutsUnknownSecretsByTheName(t *testing.T) {
	c, random := open(t), stream(9)
	value := draw(t, letters+numbers, 32, random) + "," + draw(t, letters+numbers, 32, random)
	for variable, want := range map[string]int{"MY_SERVICE_TOKENS": 2, "MY_SERVICE_TOKEN": 1} {
		m, found := c.Identify(variable, value)
		if !found || len(m.Spans) != want || m.Kind.ID != catalog.GenericID || m.Confidence != catalog.Low {
			t.Errorf("%s: got %+v, %v, want %d spans", variable, m, found, want)
		}
	}
	key := generate(t, "gsk_{alnum:52}", random)
	if m, found := c.Identify("GROQ_API_KEY", key+","); !found || m.Kind.ID != "groq" || m.Spans[0].End != len(key) {
		t.Errorf("with a comma behind it: got %+v, %v", m, found)
	}
}

func TestIdentifyKeepsWhatStandsAroundOutOfTheSpan(t *testing.T) {
	c, random := open(t), stream(5)
	key := generate(t, "sk_live_{alnum:24}", random)
	value := "  Bearer " + key + "\n"
	m, found := c.Identify("STRIPE", value)
	if !found || value[m.Spans[0].Start:m.Spans[0].End] != key {
		t.Errorf("got %+v, %v", m, found)
	}
}

func TestMaskShowsAtMostFourCharacters(t *testing.T) {
	random := stream(6)
	for _, k := range kinds(t) {
		for _, form := range k.Detect.Match {
			value := generate(t, form, random)
			mask := catalog.Mask(k, value)
			_, tail, found := strings.Cut(mask, "…")
			if !found || len(tail) > 4 {
				t.Errorf("%s: %q shows too much", k.ID, mask)
			}
		}
	}
}

// FuzzIdentify holds that no value makes Identify panic, and that spans lie
// inside the value, in order, and are never a placeholder.
func FuzzIdentify(f *testing.F) {
	random := stream(7)
	c := open(f)
	for _, k := range kinds(f) {
		for _, form := range k.Detect.Match {
			f.Add("SOME_KEY", generate(f, form, random))
		}
		f.Add(strings.Join(k.Env, "_"), k.Example)
	}
	f.Add("A_KEY", "a,b;c\nd")
	f.Add("DATABASE_URL", "postgres://:@?@:/#@")
	f.Fuzz(func(t *testing.T, variable, value string) {
		m, found := c.Identify(variable, value)
		if !found {
			return
		}
		end := 0
		for _, s := range m.Spans {
			if s.Start < end || s.End <= s.Start || s.End > len(value) || s.Kind == nil {
				t.Fatalf("span %+v of a value of %d bytes", s, len(value))
			}
			end = s.End
			if catalog.Marked(value[s.Start:s.End]) {
				t.Error("a placeholder is taken for a key")
			}
			catalog.Mask(s.Kind, value[s.Start:s.End])
			s.Kind.SecretPart(value[s.Start:s.End])
		}
	})
}

func FuzzParseTemplate(f *testing.F) {
	for _, k := range kinds(f) {
		for _, form := range k.Detect.Match {
			f.Add(form)
		}
	}
	f.Add("{alnum:4096}{=digit:1-2}")
	f.Add("{}{:}{alnum:-}{alnum:0}")
	f.Fuzz(func(t *testing.T, form string) {
		template, err := catalog.ParseTemplate(form)
		if err != nil {
			return
		}
		if _, err := template.Generate(stream(1)); err != nil {
			t.Error(err)
		}
	})
}

func BenchmarkIdentify(b *testing.B) {
	c, random := open(b), stream(8)
	values := map[string]string{
		"known":   generate(b, "sk-ant-api03-{alnum:93}AA", random),
		"context": draw(b, letters+numbers, 32, random),
		"setting": "https://api.example.com/v1",
		"longest": strings.Repeat(draw(b, letters, 1024, random), 60),
	}
	for name, value := range values {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				c.Identify("MISTRAL_API_KEY", value)
			}
		})
	}
}
