package setup

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// answers gives the option that contains its word, else the default.
type answers []string

func (a answers) Choose(_ string, options []string, def int) (int, error) {
	for i, o := range options {
		for _, word := range a {
			if strings.Contains(o, word) {
				return i, nil
			}
		}
	}
	return def, nil
}

func TestWhatWasLeftStaysLeft(t *testing.T) {
	t.Parallel()
	dir, k, s := t.TempDir(), anthropicKey(), stripeKey()
	put(t, dir, ".env", "ANTHROPIC_API_KEY="+k+"\nSTRIPE_SECRET_KEY="+s+"\n", 0o644)
	put(t, dir, ".env.bak", "STRIPE_SECRET_KEY="+s+"\n", 0o644)
	h := home{dir: t.TempDir()}
	ask := func(words ...string) Result {
		t.Helper()
		p := h.plan(t, dir)
		if err := p.Ask(answers(words)); err != nil {
			t.Fatal(err)
		}
		result, err := p.Apply(t.Context(), h.deps(), nil)
		if err != nil {
			t.Fatal(err)
		}
		return result
	}
	result := ask("choose", "all but stripe")
	if diff := cmp.Diff([]string{"STRIPE_SECRET_KEY"}, result.Real); diff != "" {
		t.Error(diff)
	}
	search(t, dir, k)
	if !strings.Contains(get(t, dir, ".env"), s) {
		t.Error("what was left is gone")
	}
	found, err := Find(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, keys, err := Appeared(t.Context(), h.input(t, found)); err != nil || len(keys) != 0 {
		t.Errorf("appeared: %v, %v", keys, err)
	}
	if real := h.plan(t, dir).RealFiles(); len(real) != 0 {
		t.Errorf("to be covered: %v", real)
	}
	if again := ask(); !again.Nothing {
		t.Errorf("the second setup did %+v", again)
	}
	if result := ask("protect them now"); len(result.Imported) != 1 || len(result.Real) != 0 {
		t.Errorf("protecting it now did %+v", result)
	}
	search(t, dir, k, s)
	if again := ask(); !again.Nothing {
		t.Errorf("the last setup did %+v", again)
	}
}

func TestRealFilesAreThoseThatNobodyInsideNeeds(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	put(t, dir, ".env", "DATABASE_URL=postgres://u:"+random(20)+"@h/db\n", 0o600)
	put(t, dir, ".env.bak", "STRIPE_SECRET_KEY="+stripeKey()+"\n", 0o600)
	put(t, dir, ".env.old", "A=\x00", 0o600)
	put(t, dir, "compose.yaml", "environment:\n  STRIPE_SECRET_KEY: "+stripeKey()+"\n", 0o600)
	p := (home{dir: t.TempDir()}).plan(t, dir)
	var got []string
	for _, path := range p.RealFiles() {
		got = append(got, filepath.Base(path))
	}
	if diff := cmp.Diff([]string{".env.bak", ".env.old", "compose.yaml"}, got); diff != "" {
		t.Error(diff)
	}
}
