package placeholder_test

import (
	"bytes"
	"crypto/rand"
	"math"
	mathrand "math/rand/v2"
	"strings"
	"testing"

	"postern/internal/catalog"
	"postern/internal/fail"
	"postern/internal/placeholder"
)

func open(t testing.TB) *catalog.Catalog {
	t.Helper()
	c, err := catalog.Open("")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestPlaceholdersAreNeverIdentifiedAsKeys(t *testing.T) {
	c := open(t)
	for k, values := range samples(t) {
		for _, real := range values {
			for _, variable := range append([]string{"SOME_SECRET_KEY"}, k.Env...) {
				text := mint(t, k, real)
				if m, found := c.Identify(variable, text); found {
					t.Errorf("%s: the placeholder %q in %s is taken for %s", k.ID, text, variable, m.Kind.ID)
				}
			}
		}
	}
}

func TestTwoPlaceholdersOfOneValueDiffer(t *testing.T) {
	for k, values := range samples(t) {
		for _, real := range values {
			seen := map[string]bool{}
			for range 20 {
				text := mint(t, k, real)
				if seen[text] {
					t.Errorf("%s: %q was drawn twice", k.ID, text)
				}
				seen[text] = true
			}
		}
	}
}

// No eight characters in a row of the secret stand in its placeholder.
func TestPlaceholdersHoldNothingOfTheSecret(t *testing.T) {
	keep := map[string]func(string) string{ // what is no secret and stays
		"discord.bot":  func(real string) string { _, rest, _ := strings.Cut(real, "."); return rest },
		"telegram.bot": func(real string) string { _, rest, _ := strings.Cut(real, ":"); return rest },
		"jwt":          func(real string) string { _, rest, _ := strings.Cut(real, "."); return rest },
	}
	for k, values := range samples(t) {
		for _, real := range values {
			text, secret := mint(t, k, real), k.SecretPart(real)
			if rest := keep[k.ID]; rest != nil {
				secret = rest(real)
			}
			if strings.Contains(text, secret) || strings.Contains(text, secret[len(secret)-8:]) {
				t.Errorf("%s: the placeholder %q holds the secret's end", k.ID, text)
			}
		}
	}
}

func TestWhatIsNoSecretStays(t *testing.T) {
	tests := []struct{ kind, form, before, after string }{
		{"telegram.bot", "8123456789:AA{b64u:33}", "8123456789:AA", ""},
		{"discord.bot", "MTIzNDU2Nzg5MDEyMzQ1Njc4.{b64u:6}.{b64u:38}", "MTIzNDU2Nzg5MDEyMzQ1Njc4.", ""},
		{"slack.bot", "xox" + "b-123456789012-1234567890123-{alnum:24}", "xox" + "b-123456789012-1234567890123-", ""},
		{"slack.app", "xapp-1-A0123456789-1234567890123-{hex:64}", "xapp-1-A0123456789-1234567890123-", ""},
		{"postgres.url", "postgres://bot:{alnum:20}@db.internal:5432/botdb?sslmode=require", "postgres://bot:", "@db.internal:5432/botdb?sslmode=require"},
		{"redis.url", "redis://:{alnum:20}@cache:6379/0", "redis://:", "@cache:6379/0"},
		{"discord.webhook", "https://discord.com/api/webhooks/123456789012345678/{b64u:68}", "https://discord.com/api/webhooks/123456789012345678/", ""},
		{"stripe.secret", "sk_test_{alnum:99}", "sk_test_", ""},
		{"anthropic.oauth", "sk-ant-oat01-{b64u:100}", "sk-ant-oat01-", ""},
	}
	c := open(t)
	for _, test := range tests {
		t.Run(test.kind, func(t *testing.T) {
			k, err := c.Kind(test.kind)
			if err != nil {
				t.Fatal(err)
			}
			template, err := catalog.ParseTemplate(test.form)
			if err != nil {
				t.Fatal(err)
			}
			real, err := template.Generate(rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			text := mint(t, k, real)
			if !strings.HasPrefix(text, test.before) || !strings.HasSuffix(text, test.after) {
				t.Errorf("got %q, want %s…%s", text, test.before, test.after)
			}
			if test.kind == "anthropic.oauth" && len(text) < 80 {
				t.Errorf("got %d characters; clients tell the two sorts apart at 80", len(text))
			}
		})
	}
}

// Placeholders go into headers, URL paths and shells as they are.
func TestPlaceholdersHaveHarmlessCharactersOnly(t *testing.T) {
	for k, values := range samples(t) {
		for _, real := range values {
			core := placeholder.Core(mint(t, k, real))
			if strings.ContainsFunc(core, func(r rune) bool {
				return r <= ' ' || r > '~' || strings.ContainsRune("\"'`\\$&|;<>(){}[]*?!#%^, @", r)
			}) {
				t.Errorf("%s: %q", k.ID, core)
			}
		}
	}
}

// room lists the kinds whose form is too short for 128 bits beside the mark, with
// the bits that they have. A placeholder is found by exact match among those that
// were given out, so fewer bits make guessing easier, never a mix-up.
func room() map[string]float64 {
	return map[string]float64{
		"gitlab.pat": 55, "azure.openai": 70, "deepseek": 70, "slack.user": 70, "twilio.api-key": 70,
		"twilio.auth-token": 70, "brave": 80, "slack.bot": 80, "slack.webhook": 80, "stripe.restricted": 80, "stripe.secret": 80,
		"vault.token": 80, "deepgram": 100, "supabase.access-token": 100, "langsmith": 105, "supabase.secret": 120,
	}
}

func TestRoom(t *testing.T) {
	short := room()
	for k, values := range samples(t) {
		for _, real := range values {
			bits := entropy(t, k, real)
			want := 124.0 // 128, less what a count of draws cannot see
			if least, found := short[k.ID]; found {
				want = least
			}
			if bits < want {
				t.Errorf("%s: a placeholder of %d characters has %.0f random bits, want %.0f", k.ID, len(real), bits, want)
			}
		}
	}
}

// entropy is how many random bits stand in a placeholder: it draws many and adds
// up what each position tells. The mark's characters are not counted.
func entropy(t testing.TB, k *catalog.Kind, real string) float64 {
	t.Helper()
	const drawn = 150
	texts := make([]string, drawn)
	for i := range texts {
		texts[i] = mint(t, k, real)
	}
	bits := 0.0
	for at := range texts[0] {
		seen := map[byte]bool{}
		for _, text := range texts {
			seen[text[at]] = true
		}
		bits += math.Log2(float64(len(seen)))
	}
	return bits - 5*math.Log2(52) // at least the check is no randomness of its own
}

func TestNoPlaceholderForWhatNeverTravels(t *testing.T) {
	kinds, err := open(t).Kinds()
	if err != nil {
		t.Fatal(err)
	}
	none := 0
	for _, k := range kinds {
		if k.Placeholder.None == "" {
			continue
		}
		none++
		if _, err := placeholder.Mint(k, []byte("value"), rand.Reader); !fail.Is(err, fail.Invalid) || !strings.Contains(err.Error(), k.Placeholder.None) {
			t.Errorf("%s: got %v, want the reason", k.ID, err)
		}
	}
	if none == 0 {
		t.Error("no kind without placeholders")
	}
}

func TestGenericPlaceholderLooksLikeTheValue(t *testing.T) {
	c := open(t)
	k, err := c.Kind(catalog.GenericID)
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct{ form, before string }{
		{"key-{hex:40}", "key-"}, {"acme_live_{alnum:40}", "acme_live_"}, {"{alnum:48}", ""}, {"{hex:64}", ""}, {"{alnum:12}", ""}, {"{b64u:300}", ""},
		{"pass word ä{alnum:20}", ""}, {"sk-{hex:32}", "sk-"},
	}
	for _, test := range tests {
		template, err := catalog.ParseTemplate(test.form)
		if err != nil {
			t.Fatal(err)
		}
		real, err := template.Generate(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		text := mint(t, k, real)
		if !strings.HasPrefix(text, test.before) || !placeholder.Is(text) || len(text) < 32 || len(text) > 160 {
			t.Errorf("got %q for a value like %s", text, test.form)
		}
	}
}

func TestAChangedPlaceholderIsNone(t *testing.T) {
	for k, values := range samples(t) {
		text := mint(t, k, values[0])
		core := placeholder.Core(text)
		at := strings.Index(text, core)
		for i := range core {
			b := []byte(text)
			if b[at+i] = 'x'; core[i] == 'x' {
				b[at+i] = 'y'
			}
			if placeholder.Is(string(b)) && placeholder.Core(string(b)) != "" && len(placeholder.Core(string(b))) == len(core) {
				t.Errorf("%s: %q changed at %d is still taken for a placeholder", k.ID, text, at+i)
			}
		}
	}
}

func TestPlaceholdersAreFoundInsideOtherText(t *testing.T) {
	type place struct{ before, after string }
	for k, values := range samples(t) {
		core := placeholder.Core(mint(t, k, values[0]))
		for _, p := range []place{{"", ""}, {"Bearer ", "\r\n"}, {`{"token":"`, `"}`}, {"/bot", "/getMe"}, {"?key=", "&x=1"}, {"aaaa", "zzzz"}, {core + ",", ""}} {
			text := []byte(p.before + core + p.after)
			found := false
			for _, s := range placeholder.Find(text) {
				found = found || string(text[s[0]:s[1]]) == core && s[0] == len(p.before)
			}
			if !found {
				t.Errorf("%s: %q is not found in %q", k.ID, core, text)
			}
		}
	}
}

// A random text of any alphabet is no placeholder: a million of them, of which
// some hold the marker words.
func TestRandomTextIsNoPlaceholder(t *testing.T) {
	random := mathrand.NewChaCha8([32]byte{1})
	for _, class := range []string{"alnum", "b64u", "hex", "base32", "lower"} {
		alphabet, _ := catalog.Alphabet(class)
		text := make([]byte, 64)
		for i := range 200_000 {
			if _, err := random.Read(text); err != nil {
				t.Fatal(err)
			}
			for j := range text {
				text[j] = alphabet[int(text[j])%len(alphabet)]
			}
			if i%4 == 0 { // a marker where a mark would stand
				for _, marker := range []string{"pQn", "qzp", "b05d", "PQ7"} {
					if !strings.ContainsFunc(marker, func(r rune) bool { return !strings.ContainsRune(alphabet, r) }) {
						copy(text[50+i%5:], marker)
					}
				}
			}
			if placeholder.Is(string(text)) || len(placeholder.Find(text)) > 0 {
				t.Fatalf("%q is taken for a placeholder", text)
			}
		}
	}
}

func TestMintRefusesABrokenSourceOfRandomness(t *testing.T) {
	for k, values := range samples(t) {
		if text, err := placeholder.Mint(k, []byte(values[0]), bytes.NewReader(nil)); err == nil {
			t.Errorf("%s: got %q without any randomness", k.ID, text)
		}
	}
}

func FuzzFind(f *testing.F) {
	for k, values := range samples(f) {
		f.Add([]byte("x" + mint(f, k, values[0]) + " y"))
	}
	f.Add([]byte("pQnAApQnAApQn"))
	f.Add([]byte("://:pQn"))
	f.Fuzz(func(t *testing.T, data []byte) {
		end := 0
		for _, s := range placeholder.Find(data) {
			if s[0] < end || s[1] <= s[0] || s[1] > len(data) {
				t.Fatalf("span %v of %d bytes", s, len(data))
			}
			end = s[1]
			if !placeholder.Is(string(data[s[0]:s[1]])) {
				t.Fatalf("what was found at %v is none by itself", s)
			}
		}
		if core := placeholder.Core(string(data)); core != "" && !bytes.Contains(data, []byte(core)) {
			t.Error("the core does not stand in the text")
		}
	})
}

// FuzzMint holds that a value of any bytes gets a placeholder or an error, and
// that nothing of it is echoed.
func FuzzMint(f *testing.F) {
	kinds, err := open(f).Kinds()
	if err != nil {
		f.Fatal(err)
	}
	for i := range kinds {
		f.Add(uint16(i), []byte("postgres://a:b@c/d?e@f"))
	}
	for k, values := range samples(f) {
		for i := range kinds {
			if kinds[i].ID == k.ID {
				f.Add(uint16(i), []byte(values[0]))
			}
		}
	}
	f.Fuzz(func(t *testing.T, at uint16, real []byte) {
		k := kinds[int(at)%len(kinds)]
		text, err := placeholder.Mint(k, real, rand.Reader)
		if err != nil {
			return
		}
		if !placeholder.Is(text) {
			t.Errorf("%s: %q is not recognised", k.ID, text)
		}
	})
}

func BenchmarkMint(b *testing.B) {
	for k, values := range samples(b) {
		if k.ID != "anthropic.api" {
			continue
		}
		for b.Loop() {
			mint(b, k, values[0])
		}
	}
}

func BenchmarkFind(b *testing.B) {
	text := bytes.Repeat([]byte("some text of a request body, with pQn in it. "), 1<<20/45)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		placeholder.Find(text)
	}
}
