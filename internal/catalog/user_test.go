package catalog_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"postern/internal/catalog"
)

// acme is a sound file of the user.
const acme = `provider: acme
title: Acme
kinds:
  - id: acme.api
    title: Acme key
    risk: high
    hosts: [api.acme.example]
    slots:
      - {in: header, name: authorization, formats: ['Bearer {secret}']}
    env: [ACME_KEY]
    detect:
      pattern: 'acme-[0-9a-f]{40}'
      keywords: [acme-]
      match: ['acme-{hex:40}']
      reject: ['acme-{hex:39}']
    placeholder: {forms: ['acme-{hex:40}']}
    example: your-acme-key-here
    rotate_days: 30
    basis: documentation
    source: https://acme.example/docs
    verify: {call: 'GET https://api.acme.example/me', live: [200], dead: [401]}
`

// withFiles opens a catalogue with files of the user, by name.
func withFiles(t testing.TB, files map[string]string) *catalog.Catalog {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c, err := catalog.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestUserFilesExtendTheCatalogue(t *testing.T) {
	c := withFiles(t, map[string]string{"acme.yaml": acme, "notes.txt": "not read"})
	for _, p := range c.Check() {
		t.Error(p)
	}
	k, err := c.Kind("acme.api")
	if err != nil {
		t.Fatal(err)
	}
	value := generate(t, "acme-{hex:40}", stream(10))
	if m, found := c.Identify("SOMETHING", value); !found || m.Kind != k {
		t.Errorf("got %+v, %v, want the user's kind", m, found)
	}
	all, err := c.Kinds()
	if err != nil || len(all) != len(kinds(t))+1 {
		t.Errorf("got %d kinds and %v, want one more than the embedded", len(all), err)
	}
}

func TestUserFilesMayStandBesideAnEmbeddedProvider(t *testing.T) {
	text := strings.NewReplacer("provider: acme", "provider: anthropic", "acme.api", "anthropic.gateway").Replace(acme)
	c := withFiles(t, map[string]string{"anthropic.yaml": text})
	for _, p := range c.Check() {
		t.Error(p)
	}
	for _, id := range []string{"anthropic.api", "anthropic.gateway"} {
		if _, err := c.Kind(id); err != nil {
			t.Errorf("%s: %v", id, err)
		}
	}
}

func TestCheckNamesTheMistakesOfUserFiles(t *testing.T) {
	replace := func(pairs ...string) string { return strings.NewReplacer(pairs...).Replace(acme) }
	tests := []struct {
		name, file, text string
		want             string
		line             int
	}{
		{"recipe outside the hosts", "acme.yaml", replace("api.acme.example/me", "evil.example/me"), "outside the kind's own hosts", 21},
		{"recipe with a host from the value", "acme.yaml", replace("https://api.acme.example/me", "https://{secret}.acme.example/"), "plain host", 21},
		{"recipe over plain http", "acme.yaml", replace("https://api.acme.example/me", "http://api.acme.example/me"), "must be https", 21},
		{"admin of another host", "acme.yaml", replace("dead: [401]}", "dead: [401], with: anthropic.admin}"), "outside its hosts", 21},
		{"admin that does not exist", "acme.yaml", replace("dead: [401]}", "dead: [401], with: acme.boss}"), "does not exist", 21},
		{"no keyword", "acme.yaml", replace("keywords: [acme-]", "keywords: []"), "a keyword is needed", 12},
		{"keyword that no sample holds", "acme.yaml", replace("keywords: [acme-]", "keywords: [acne-]"), "holds no keyword", 14},
		{"pattern that does not compile", "acme.yaml", replace("[0-9a-f]{40}'", "[0-9a-f{40}'"), "does not compile", 12},
		{"sample that does not match", "acme.yaml", replace("match: ['acme-{hex:40}']", "match: ['acme-{hex:41}']"), "want true", 14},
		{"sample that should not match", "acme.yaml", replace("reject: ['acme-{hex:39}']", "reject: ['acme-{hex:40}']"), "want false", 14},
		{"unknown field", "acme.yaml", replace("risk: high", "risks: high"), `unknown field "risks"`, 6},
		{"wildcard without a reason", "acme.yaml", replace("[api.acme.example]", "['*.acme.example', api.acme.example]"), "tenant does not say why", 7},
		{"any host", "acme.yaml", replace("[api.acme.example]", "['*', api.acme.example]"), "no exact host name", 7},
		{"a whole top-level domain", "acme.yaml", replace("[api.acme.example]", "['*.example', api.acme.example]"), "no exact host name", 7},
		{"host with a scheme", "acme.yaml", replace("[api.acme.example]", "['https://api.acme.example']"), "no exact host name", 7},
		{"another provider's name", "other.yaml", acme, "called as the file is", 1},
		{"id of another provider", "acme.yaml", replace("acme.api", "openai.api"), "must be PROVIDER", 4},
		{"day that is none", "acme.yaml", acme + "    checked: yesterday\n", "must be a day", 22},
		{"no source", "acme.yaml", replace("    source: https://acme.example/docs\n", ""), "source is missing", 19},
		{"placeholder without room", "acme.yaml", replace("placeholder: {forms: ['acme-{hex:40}']}", "placeholder: {forms: ['acme-{hex:8}']}"), "no run with room", 16},
		{"format without the value", "acme.yaml", replace("Bearer {secret}", "Bearer secret"), "must hold {secret} once", 9},
		{"not YAML", "acme.yaml", "provider: [", "", 0},
		{"empty kind", "acme.yaml", "provider: acme\ntitle: Acme\nkinds:\n  -\n", "a kind is empty", 0},
		{"NUL byte", "acme.yaml", "provider: acme\x00", "NUL byte", 1},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c := withFiles(t, map[string]string{test.file: test.text})
			problems := c.Check()
			if len(problems) == 0 {
				t.Fatal("no mistake is told")
			}
			p := problems[0]
			if !strings.Contains(p.Text, test.want) || test.line > 0 && p.Line != test.line || filepath.Base(p.File) != test.file {
				t.Errorf("got %v, want line %d and %q", problems, test.line, test.want)
			}
			if all, _ := c.Kinds(); len(all) < len(kinds(t)) {
				t.Error("a mistake of the user hides embedded kinds")
			}
		})
	}
}

func TestABrokenKindOfTheUserIsNotUsed(t *testing.T) {
	c := withFiles(t, map[string]string{"acme.yaml": strings.Replace(acme, "[api.acme.example]", "['*', api.acme.example]", 1)})
	if k, err := c.Kind("acme.api"); err == nil {
		t.Errorf("got %v, want the mistake", k.Hosts)
	}
	if m, found := c.Identify("SOMETHING", generate(t, "acme-{hex:40}", stream(11))); found {
		t.Errorf("got %s", m.Kind.ID)
	}
}

// A file of the user must not send the keys of a known provider elsewhere.
func TestUserFilesDoNotWidenEmbeddedKinds(t *testing.T) {
	same := strings.NewReplacer("provider: acme", "provider: groq", "acme.api", "groq",
		"acme-[0-9a-f]{40}", "gsk_[A-Za-z0-9]{52}", "acme-{hex:40}", "gsk_{alnum:52}", "acme-{hex:39}", "gsk_{alnum:51}", "[acme-]", "[gsk_]")
	other := strings.NewReplacer("acme-[0-9a-f]{40}", "gsk_[A-Za-z0-9]{52}", "acme-{hex:40}", "gsk_{alnum:52}", "acme-{hex:39}", "gsk_{alnum:51}",
		"[acme-]", "[gsk_]", "reject:", "overlaps: [groq]\n      reject:", "ACME_KEY", "GROQ_API_KEY")
	tests := []struct{ name, file, text, want string }{
		{"the same id", "groq.yaml", same.Replace(acme), "cannot change it"},
		{"the same pattern", "acme.yaml", other.Replace(acme), "would take the keys of the embedded kind"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c := withFiles(t, map[string]string{test.file: test.text})
			problems := c.Check()
			if len(problems) == 0 || !strings.Contains(problems.Error(), test.want) {
				t.Errorf("got %v, want %q", problems, test.want)
			}
			m, found := c.Identify("GROQ_API_KEY", generate(t, "gsk_{alnum:52}", stream(12)))
			if !found || m.Kind.Allows("api.acme.example") || !m.Kind.Allows("api.groq.com") {
				t.Errorf("got %+v, %v, want the embedded kind", m, found)
			}
			if k, err := c.Kind("groq"); err != nil || k.Allows("api.acme.example") {
				t.Errorf("got %+v, %v, want the embedded kind", k, err)
			}
		})
	}
}

func TestUndeclaredOverlapIsTold(t *testing.T) {
	bravo := strings.NewReplacer("provider: acme", "provider: bravo", "acme.api", "bravo.api", "ACME_KEY", "BRAVO_KEY").Replace(acme)
	c := withFiles(t, map[string]string{"acme.yaml": acme, "bravo.yaml": bravo})
	problems := c.Check()
	if len(problems) != 2 || !strings.Contains(problems.Error(), "overlaps do not say so") {
		t.Errorf("got %v, want one for each", problems)
	}
	declared := func(text, id string) string {
		return strings.Replace(text, "      reject:", "      overlaps: ["+id+"]\n      reject:", 1)
	}
	c = withFiles(t, map[string]string{"acme.yaml": declared(acme, "bravo.api"), "bravo.yaml": declared(bravo, "acme.api")})
	for _, p := range c.Check() {
		t.Error(p)
	}
}

func TestUserDirectoryThatCannotBeRead(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := catalog.Open(file)
	if err == nil || c == nil {
		t.Fatalf("got %v, %v, want the embedded kinds and an error", c, err)
	}
	if _, err := catalog.Open(filepath.Join(t.TempDir(), "none")); err != nil {
		t.Errorf("got %v for a directory that does not exist", err)
	}
}

func TestUserFileThatIsADirectory(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "acme.yaml"), 0o700); err != nil {
		t.Fatal(err)
	}
	c, err := catalog.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if problems := c.Check(); len(problems) != 1 || !strings.Contains(problems[0].Text, "plain file") {
		t.Errorf("got %v, want that it is no plain file", problems)
	}
}

// FuzzUserFile holds that no file of the user makes the catalogue panic, hides an
// embedded kind or changes where one may go.
func FuzzUserFile(f *testing.F) {
	f.Add([]byte(acme))
	f.Add([]byte("provider: acme\nkinds: [{id: acme.x, detect: {pattern: '('}}]\n"))
	f.Add([]byte("provider: acme\nkinds: [null]\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c := withFiles(t, map[string]string{"acme.yaml": string(data)})
		if k, err := c.Kind("acme.api"); err == nil && (len(k.Hosts) == 0 && !k.UserHosts || k.Allows("api.groq.com.evil.example")) {
			t.Errorf("got %+v", k)
		}
		k, err := c.Kind("groq")
		if err != nil || len(k.Hosts) != 1 || k.Hosts[0] != "api.groq.com" {
			t.Errorf("got %+v, %v", k, err)
		}
	})
}
