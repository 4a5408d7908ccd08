package cli

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"postern/internal/catalog"
	"postern/internal/term"
)

// The proofs of setup start this very program again, inside.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "inside" || strings.HasPrefix(os.Args[0], "postern-") {
		os.Exit(Main(os.Args))
	}
	os.Exit(m.Run())
}

// world is an installation of a test's own, and the person at its keyboard.
type world struct {
	t     testing.TB
	dir   string // the agent's directory, with a .env
	key   string // what stands in it
	vars  map[string]string
	stdin string
}

func newWorld(t testing.TB) *world {
	t.Helper()
	home := t.TempDir()
	w := &world{t: t, dir: filepath.Join(t.TempDir(), "bot"), key: sample(t, "anthropic.api")}
	w.vars = map[string]string{"HOME": home, "POSTERN_HOME": filepath.Join(home, "postern"), "LANG": "C.UTF-8"}
	if err := os.Mkdir(w.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	w.write(".env", "ANTHROPIC_API_KEY="+w.key+"\nPORT=3000\n")
	return w
}

// sample is a value of a kind.
func sample(t testing.TB, id string) string {
	t.Helper()
	kinds, err := catalog.Open("")
	if err != nil {
		t.Fatal(err)
	}
	kind, err := kinds.Kind(id)
	if err != nil {
		t.Fatal(err)
	}
	template, err := catalog.ParseTemplate(kind.Detect.Match[0])
	if err != nil {
		t.Fatal(err)
	}
	value, err := template.Generate(strings.NewReader(strings.Repeat("an even enough source of letters 0123456789", 100)))
	if err != nil {
		t.Fatal(err)
	}
	return value
}

func (w *world) write(name, text string) {
	w.t.Helper()
	if err := os.WriteFile(filepath.Join(w.dir, name), []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

// run types a command line.
func (w *world) run(line ...string) (code int, out, talk string) {
	w.t.Helper()
	var stdout, stderr bytes.Buffer
	streams := &term.Streams{In: strings.NewReader(w.stdin), Out: &stdout, Err: &stderr, UTF8: true}
	e := newEnv(streams)
	e.getenv = func(name string) string { return w.vars[name] }
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	code = e.main(ctx, line)
	return code, stdout.String(), stderr.String()
}

// must is run for a command that has to end with code.
func (w *world) must(code int, line ...string) string {
	w.t.Helper()
	got, out, talk := w.run(line...)
	if got != code {
		w.t.Fatalf("postern %s: exit code %d, not %d\n%s%s", strings.Join(line, " "), got, code, out, talk)
	}
	return out + talk
}
