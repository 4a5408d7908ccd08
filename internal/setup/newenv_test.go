package setup

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"postern/internal/dotenv"
	"postern/internal/fail"
)

func newEnv(t *testing.T, dir string, variables ...string) *NewEnv {
	t.Helper()
	all, err := kinds(t).Kinds()
	if err != nil {
		t.Fatal(err)
	}
	n, err := PlanNewEnv(dir, all, variables)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestNewEnvFromNothing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	n := newEnv(t, dir, "ANTHROPIC_API_KEY", "PORT", "PORT")
	if left := snap(t, dir); len(left) != 0 {
		t.Errorf("the plan made %v", left)
	}
	if err := n.Make(); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{".gitignore", ".env.example", ".env"}, n.Names()); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(".env\n.env.*\n!.env.example\n", get(t, dir, ".gitignore")); diff != "" {
		t.Error(diff)
	}
	for name, want := range map[string]map[string]string{
		".env":         {"ANTHROPIC_API_KEY": "", "PORT": ""},
		".env.example": {"ANTHROPIC_API_KEY": "your-anthropic-key-here", "PORT": "your-value-here"},
	} {
		f, err := dotenv.Parse([]byte(get(t, dir, name)), dotenv.Python)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, f.Values()); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	if info, err := os.Stat(filepath.Join(dir, ".env")); err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	all, err := kinds(t).Kinds()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := PlanNewEnv(dir, all, nil); !fail.Is(err, fail.Conflict) {
		t.Errorf("a second one: %v", err)
	}
	if p := (home{dir: t.TempDir()}).plan(t, dir); len(p.Secrets) != 0 || len(p.Texts) != 0 {
		t.Errorf("setup finds %+v, %+v", p.Secrets, p.Texts)
	}
}

func TestNewEnvBesideWhatIsThere(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	put(t, dir, ".env.example", "# mine\r\nPORT=3000", 0o664)
	put(t, dir, ".gitignore", "node_modules", 0o644)
	before := snap(t, dir)
	n := newEnv(t, dir, "PORT", "NAME")
	h := home{dir: t.TempDir()}
	run, err := h.journal().Begin(t.Context(), "env init")
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Write(t.Context(), run); err != nil {
		t.Fatal(err)
	}
	if err := run.Finish(t.Context()); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff("# mine\r\nPORT=3000\r\nNAME=your-value-here\r\n", get(t, dir, ".env.example")); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff("# mine\r\nPORT=3000\r\nNAME=\n", get(t, dir, ".env")); diff != "" {
		t.Error(diff)
	}
	h.undo(t)
	same(t, "after undo", snap(t, dir), before)
	if err := n.Make(); err != nil {
		t.Fatal(err)
	}
	if got := get(t, dir, ".gitignore"); got != "node_modules\n.env\n.env.*\n!.env.example\n" {
		t.Errorf("got %q", got)
	}
}

func TestNewEnvTakesBackWhatItMade(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	put(t, dir, ".gitignore", "x", 0o644)
	n := newEnv(t, dir, "A")
	put(t, dir, ".env", "A=made in between", 0o600)
	if err := n.Make(); err == nil || !strings.Contains(err.Error(), "exists") {
		t.Errorf("got %v", err)
	}
	if got := get(t, dir, ".gitignore"); got != "x" {
		t.Errorf(".gitignore: %q", got)
	}
	if _, err := os.Lstat(filepath.Join(dir, ".env.example")); err == nil {
		t.Error(".env.example is left")
	}
}
