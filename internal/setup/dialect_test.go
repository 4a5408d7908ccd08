package setup

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"postern/internal/dotenv"
	"postern/internal/fail"
	"postern/internal/placeholder"
)

func TestVariablesInValuesStay(t *testing.T) {
	t.Parallel()
	dir, key, half := t.TempDir(), stripeKey(), stripeKey()
	put(t, dir, "requirements.txt", "python-dotenv\n", 0o644)
	put(t, dir, ".env", "STRIPE_SECRET_KEY="+key+"\nURL=https://x.example/${STRIPE_SECRET_KEY}\nSTART="+half[:11]+"\nOTHER_STRIPE_SECRET_KEY=\"${START}"+half[11:]+"\"\n", 0o600)
	before := snap(t, dir)
	h := home{dir: t.TempDir()}
	h.apply(t, dir)
	env := get(t, dir, ".env")
	if !strings.Contains(env, "\nURL=https://x.example/${STRIPE_SECRET_KEY}\n") {
		t.Errorf("the variable in URL is gone:\n%s", env)
	}
	f, err := dotenv.Parse([]byte(env), dotenv.Python)
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range f.Values() {
		if strings.Contains(value, key) || value == half || strings.HasPrefix(name, "STRIPE") && !placeholder.Is(value) {
			t.Errorf("%s still reads as a key", name)
		}
	}
	if got := f.Values()["URL"]; got != "https://x.example/"+f.Values()["STRIPE_SECRET_KEY"] {
		t.Errorf("URL reads as %q", got)
	}
	h.undo(t)
	same(t, "after undo", snap(t, dir), before)
}

func TestTheProjectsLoaderCounts(t *testing.T) {
	t.Parallel()
	key := stripeKey()
	cases := []struct{ name, program, file, want string }{
		{"comment in Node", "package.json", "STRIPE_SECRET_KEY=%s#main\n", "STRIPE_SECRET_KEY='%s'#main\n"},
		{"not UTF-8 in Node", "package.json", "# \xff\nSTRIPE_SECRET_KEY=%s\n", "# \xff\nSTRIPE_SECRET_KEY=%s\n"},
		{"colon in Node", "package.json", "STRIPE_SECRET_KEY: %s\n", "STRIPE_SECRET_KEY: %s\n"},
		{"quoted name in Python", "pyproject.toml", "'STRIPE_SECRET_KEY'=%s\n", "'STRIPE_SECRET_KEY'=%s\n"},
		{"the project's choice", "package.json", "# dotenv: python\n'STRIPE_SECRET_KEY'=%s\n", "# dotenv: python\n'STRIPE_SECRET_KEY'=%s\n"},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			put(t, dir, tc.program, "", 0o644)
			put(t, dir, ".env", strings.Replace(tc.file, "%s", key, 1), 0o600)
			before := snap(t, dir)
			h := home{dir: t.TempDir()}
			h.apply(t, dir)
			env := get(t, dir, ".env")
			if want := strings.Replace(tc.want, "%s", tokenIn(t, env), 1); env != want {
				t.Errorf("got %q, want %q", env, want)
			}
			h.undo(t)
			same(t, "after undo", snap(t, dir), before)
		})
	}
}

func TestHardLinksAreRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	put(t, dir, ".env", "STRIPE_SECRET_KEY="+stripeKey()+"\n", 0o600)
	if err := os.Link(filepath.Join(dir, ".env"), filepath.Join(dir, "other")); err != nil {
		t.Fatal(err)
	}
	if _, err := Find(dir); !fail.Is(err, fail.Invalid) || !strings.Contains(err.Error(), "2 names") {
		t.Errorf("got %v", err)
	}
}
