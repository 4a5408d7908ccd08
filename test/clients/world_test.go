// Package clients runs real programs under `postern run`, against fake providers
// that answer to the real keys alone and quote them in every answer.
package clients

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
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

// ordinary is who everything is run as where the tests run as root; nobody is
// another user.
const (
	ordinary = 12345
	nobody   = 65534
)

func TestMain(m *testing.M) {
	run.ChildMain()
	if len(os.Args) > 1 && os.Args[1] == attackerName {
		attackerMain(os.Args[2:])
		os.Exit(0)
	}
	os.Exit(testMain(m))
}

// testMain builds the programs once for all tests.
func testMain(m *testing.M) int {
	flag.Parse()
	dir, err := os.MkdirTemp("", "clients-binaries-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	cmd := exec.Command("go", "build", "-trimpath", "-o", dir, "postern/cmd/postern", "./testdata/static")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "building: %v\n%s", err, out)
		return 1
	}
	if err := errors.Join(os.Chmod(dir, 0o755), os.Setenv(binariesVariable, dir)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// binariesVariable leads the tests to what was built for them.
const binariesVariable = "CLIENTS_TEST_BINARIES"

// world is an installation of one ordinary user, with an agent and its providers.
type world struct {
	testing.TB
	bin       string // where the built programs are
	postern   string
	home, dir string
	env       []string
	fake      *fake.Server
	keys      map[string]string // by variable
	values    *redact.Matcher
	root      bool // root calls Postern
}

// variables of the agent's .env and the kinds of their keys.
func variables() map[string]string {
	return map[string]string{
		"ANTHROPIC_API_KEY": "anthropic.api", "OPENAI_API_KEY": "openai.project", "STRIPE_SECRET_KEY": "stripe.secret",
		"TELEGRAM_BOT_TOKEN": "telegram.bot", "GEMINI_API_KEY": "google.gemini", "DISCORD_TOKEN": "discord.bot",
	}
}

func newWorld(t testing.TB) *world {
	t.Helper()
	return newWorldOf(t, false, ordinary)
}

// newWorldOf is one whose Postern root calls, or else the ordinary user; the
// agent's directory is owner's.
func newWorldOf(t testing.TB, root bool, owner int) *world {
	t.Helper()
	if err := run.Probe(); err != nil {
		t.Skip("skipped: ", err)
	}
	base, err := os.MkdirTemp("", "clients-of-postern-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(base) })
	w := &world{TB: t, home: filepath.Join(base, "user"), dir: filepath.Join(base, "user", "bot"), keys: map[string]string{}, root: root}
	w.bin = os.Getenv(binariesVariable)
	w.postern = filepath.Join(w.bin, "postern")
	if err := os.MkdirAll(w.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	w.provide()
	w.env = append(os.Environ(), "HOME="+w.home, "POSTERN_HOME="+filepath.Join(w.home, ".postern"), "XDG_RUNTIME_DIR=", "NO_COLOR=1", "BIN="+w.bin, "TMUX_TMPDIR="+base)
	w.own(base, owner)
	if root {
		w.own(filepath.Join(w.home, ".postern"), 0)
	}
	if out, code := w.exec("setup", "--yes", "--root", "keyfile", "."); code != 0 || !strings.Contains(out, "Protected.") {
		t.Fatalf("setup ended with %d:\n%s", code, out)
	}
	return w
}

// own gives everything at path to a user, where we are root.
func (w *world) own(path string, user int) {
	w.Helper()
	if os.Geteuid() != 0 {
		return
	}
	w.command("chown", "-R", fmt.Sprintf("%d:%d", user, user), path)
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
	w.write(filepath.Join(w.dir, ".env"), file+"REPORT_CHAT=4711\n")
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
	cmd.Dir, cmd.Env, cmd.SysProcAttr = w.dir, w.env, w.caller()
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		w.Fatalf("postern %v: %v\n%s", args, err, &out)
	}
	return out.String(), cmd.ProcessState.ExitCode()
}

// receivedName is the file in which everything that a client receives is kept as
// it came: what `run` prints went through a filter of its own.
const receivedName = "received.bytes"

// inside runs a shell script under `postern run`, with the .env read. A real key
// in what the script received, in any form, is a failure.
func (w *world) inside(script string) string {
	w.Helper()
	out, keys := w.received(script)
	if keys > 0 {
		w.Errorf("the agent received a real key with\n%s", script)
	}
	return out
}

// received is what a script printed inside, unfiltered, and how many real keys are
// in it.
func (w *world) received(script string, args ...string) (string, int) {
	w.Helper()
	file := filepath.Join(w.dir, receivedName)
	args = append(append([]string{"run"}, args...), "--", "bash", "-c", "set -a; . ./.env; set +a\n{ "+script+"\n} >"+receivedName+" 2>&1")
	said, _ := w.exec(args...)
	data, err := os.ReadFile(file)
	if err != nil {
		w.Fatalf("nothing was received: %v\n%s", err, said)
	}
	if err := os.Remove(file); err != nil {
		w.Fatal(err)
	}
	_, keys := w.values.Replace(slices.Clone(data))
	return string(data) + said, keys
}

// asOrdinary makes a process the ordinary user's.
func asOrdinary() *syscall.SysProcAttr {
	if os.Geteuid() != 0 {
		return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	}
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Credential: &syscall.Credential{Uid: ordinary, Gid: ordinary}}
}

// caller is who calls Postern.
func (w *world) caller() *syscall.SysProcAttr {
	if w.root {
		return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	}
	return asOrdinary()
}

// as is a command of the caller.
func (w *world) as(name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(w.Context(), name, args...)
	cmd.Dir, cmd.Env, cmd.SysProcAttr = w.dir, w.env, w.caller()
	return cmd
}

// serve starts the daemon and gives its process id.
func (w *world) serve() int {
	w.Helper()
	daemon := exec.Command(w.postern, "serve")
	daemon.Dir, daemon.Env, daemon.SysProcAttr = w.dir, w.env, w.caller()
	talk, err := daemon.StderrPipe()
	if err != nil {
		w.Fatal(err)
	}
	if err := daemon.Start(); err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { _ = daemon.Process.Signal(syscall.SIGTERM); _ = daemon.Wait() })
	if line, err := bufio.NewReader(talk).ReadString('\n'); err != nil || !strings.Contains(line, "serving on") {
		w.Fatalf("the daemon said %q, %v", line, err)
	}
	return daemon.Process.Pid
}

// in is the world for a part of a test.
func (w *world) in(t *testing.T) *world {
	part := *w
	part.TB = t
	return &part
}

// accepted is how often a host was called with the real key.
func (w *world) accepted(host string) int { return w.fake.Calls()[host].Accepted }

func need(t testing.TB, program string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		t.Skipf("skipped: %s is not installed", program)
	}
}
