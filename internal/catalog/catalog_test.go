package catalog_test

import (
	"flag"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"postern/internal/catalog"
)

func open(t testing.TB) *catalog.Catalog {
	t.Helper()
	c, err := catalog.Open("")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func kinds(t testing.TB) []*catalog.Kind {
	t.Helper()
	all, err := open(t).Kinds()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// stream is a fixed stream of random bytes.
func stream(seed byte) *rand.ChaCha8 { return rand.NewChaCha8([32]byte{seed}) }

func generate(t testing.TB, form string, random *rand.ChaCha8) string {
	t.Helper()
	template, err := catalog.ParseTemplate(form)
	if err != nil {
		t.Fatal(err)
	}
	value, err := template.Generate(random)
	if err != nil {
		t.Fatal(err)
	}
	return value
}

func TestEverySampleIsIdentifiedAsItsKind(t *testing.T) {
	c, random := open(t), stream(1)
	for _, k := range kinds(t) {
		for _, form := range k.Detect.Match {
			variable := "SOMETHING"
			if k.Detect.Context {
				variable = k.Env[0]
			}
			for range 50 {
				value := generate(t, form, random)
				m, found := c.Identify(variable, value)
				if !found || m.Kind.ID != k.ID {
					t.Errorf("%s: got %+v, %v for a sample of %s", k.ID, m, found, form)
					break
				}
			}
		}
	}
}

func BenchmarkKinds(b *testing.B) {
	for b.Loop() {
		if _, err := open(b).Kinds(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkOpen(b *testing.B) {
	for b.Loop() {
		open(b)
	}
}

func TestEveryEntryPassesTheCheck(t *testing.T) {
	for _, p := range open(t).Check() {
		t.Error(p)
	}
}

func TestDecodedFilesAreCurrent(t *testing.T) {
	want, err := catalog.DecodedFiles(open(t))
	if err != nil {
		t.Fatal(err)
	}
	if flag.Lookup("update").Value.String() == "true" {
		if err := os.WriteFile("providers.jsonl", []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if catalog.Decoded() != want {
		t.Error("providers.jsonl is not what providers/*.yaml say; write it with: go test ./internal/catalog -run Decoded -update")
	}
}

// The page for people is made from the same entries.
func TestPageIsCurrent(t *testing.T) {
	file := filepath.Join("..", "..", "docs", "catalogue.md")
	want := catalog.Page(kinds(t))
	if flag.Lookup("update").Value.String() == "true" {
		if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	have, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if string(have) != want {
		t.Error("docs/catalogue.md is not what providers/*.yaml say; write it with: make gen")
	}
}

func TestMain(m *testing.M) {
	flag.Bool("update", false, "write providers.jsonl and docs/catalogue.md anew")
	flag.Parse()
	os.Exit(m.Run())
}

func TestPageNamesEachKindOnce(t *testing.T) {
	page := catalog.Page(kinds(t))
	for _, k := range kinds(t) {
		if n := strings.Count(page, "### `"+k.ID+"`\n"); n != 1 {
			t.Errorf("the page has %d sections for %s, want 1", n, k.ID)
		}
		if !strings.Contains(page, k.Source) {
			t.Errorf("the page does not name the source of %s", k.ID)
		}
	}
}

func BenchmarkCheck(b *testing.B) {
	c := open(b)
	for b.Loop() {
		c.Check()
	}
}
