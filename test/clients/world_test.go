// Package clients runs real programs under `postern run`, against fake providers
// that answer to the real keys alone and quote them in every answer.
package clients

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"postern/internal/catalog"
	"postern/internal/fake"
	"postern/internal/redact"
	"postern/internal/run"
	"postern/internal/secret"
)

// ordinary is who everything is run as where the tests run as root.
const ordinary = 12345

func TestMain(m *testing.M) {
	run.ChildMain()
	os.Exit(m.Run())
}

// world is an installation of one ordinary user, with an agent and its providers.
type world struct {
	testing.TB
	postern   string
	home, dir string
	env       []string
	fake      *fake.Server
	keys      map[string]string // by variable
	values    *redact.Matcher
}

// variables of the agent's .env and the kinds of their keys.
func variables() map[string]string {
	return map[string]string{
		"ANTHROPIC_API_KEY": "anthropic.api", "OPENAI_API_KEY": "openai.project", "STRIPE_SECRET_KEY": "stripe.secret",
		"TELEGRAM_BOT_TOKEN": "telegram.bot", "GEMINI_API_KEY": "google.gemini",
	}
}

func newWorld(t testing.TB) *world {
	t.Helper()
	if err := run.Probe(); err != nil {
		t.Skip("skipped: ", err)
	}
	base, err := os.MkdirTemp("", "clients-of-postern-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(base) })
	w := &world{TB: t, home: filepath.Join(base, "user"), dir: filepath.Join(base, "user", "bot"), keys: map[string]string{}}
	w.postern = filepath.Join(base, "postern")
	w.command("go", "build", "-trimpath", "-o", w.postern, "postern/cmd/postern")
	if err := os.MkdirAll(w.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	w.provide()
	w.env = append(os.Environ(), "HOME="+w.home, "POSTERN_HOME="+filepath.Join(w.home, ".postern"), "XDG_RUNTIME_DIR=", "NO_COLOR=1")
	if os.Geteuid() == 0 {
		w.command("chown", "-R", "12345:12345", base)
	}
	if out, code := w.exec("setup", "--yes", "--root", "keyfile", "."); code != 0 || !strings.Contains(out, "Protected.") {
		t.Fatalf("setup ended with %d:\n%s", code, out)
	}
	return w
}

func (w *world) command(name string, args ...string) {
	w.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		w.Fatalf("%s: %v\n%s", name, err, out)
	}
}

// provide makes the keys, the providers, the .env and the configuration.
func (w *world) provide() {
	kinds, err := catalog.Open("")
	if err != nil {
		w.Fatal(err)
	}
	var seed [32]byte
	for i := range seed {
		seed[i] = byte(rand.Uint32())
	}
	random := rand.NewChaCha8(seed)
	byKind, file, known := map[string][]string{}, "", []redact.Known{}
	names := []string{}
	for name := range variables() {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		kind, err := kinds.Kind(variables()[name])
		if err != nil {
			w.Fatal(err)
		}
		template, err := catalog.ParseTemplate(kind.Detect.Match[0])
		if err != nil {
			w.Fatal(err)
		}
		key, err := template.Generate(random)
		if err != nil {
			w.Fatal(err)
		}
		w.keys[name], byKind[kind.ID] = key, []string{key}
		file += name + "=" + key + "\n"
		known = append(known, redact.Known{Value: secret.New([]byte(key))})
	}
	if w.values, err = redact.New(known); err != nil {
		w.Fatal(err)
	}
	if w.fake, err = fake.New(fake.Config{Kinds: kinds, Keys: byKind}); err != nil {
		w.Fatal(err)
	}
	if err := w.fake.Start("127.0.0.1:0"); err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { _ = w.fake.Close() })
	home := filepath.Join(w.home, ".postern")
	w.write(filepath.Join(home, "providers.pem"), string(w.fake.CAPEM()))
	w.write(filepath.Join(home, "config.yaml"), string(w.fake.Fragment(filepath.Join(home, "providers.pem"))))
	w.write(filepath.Join(w.dir, ".env"), file)
	w.write(filepath.Join(w.home, ".bashrc"), "# start-up\n")
}

func (w *world) write(path, text string) {
	w.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		w.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		w.Fatal(err)
	}
}

// exec runs postern as the ordinary user and gives all output and the exit code.
func (w *world) exec(args ...string) (string, int) {
	w.Helper()
	ctx, cancel := context.WithTimeout(w.Context(), 60*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, w.postern, args...)
	cmd.Dir, cmd.Env = w.dir, w.env
	if os.Geteuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: ordinary, Gid: ordinary}}
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		w.Fatalf("postern %v: %v\n%s", args, err, &out)
	}
	return out.String(), cmd.ProcessState.ExitCode()
}

// inside runs a shell script under `postern run`, with the .env read.
func (w *world) inside(script string) string {
	w.Helper()
	out, _ := w.exec("run", "--", "bash", "-c", "set -a; . ./.env; set +a\n"+script)
	if _, hits := w.values.Replace([]byte(out)); hits > 0 {
		w.Errorf("the agent saw a real key in\n%s", out)
	}
	return out
}

// accepted is how often a host was called with the real key.
func (w *world) accepted(host string) int { return w.fake.Calls()[host].Accepted }

func need(t testing.TB, program string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		t.Skipf("skipped: %s is not installed", program)
	}
}
