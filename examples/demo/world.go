package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"postern/internal/catalog"
	"postern/internal/dotenv"
	"postern/internal/fake"
)

// key is a made-up value that the agent must never see.
type key struct{ name, kind, value string }

// world is everything that the demo makes; all of it but build/ goes away.
type world struct {
	agent   agent
	broken  string
	root    string // of the module
	scratch string
	dir     string              // of the agent, and its home
	who     *syscall.Credential // whom the agent's directory belongs to; nil: us
	asRoot  bool
	path    string
	keys    []key
	forms   int // of all keys
	fakes   *fake.Server
	held    map[string]string // placeholders by variable, after setup
}

// kindsOf leads the examples' variables to what they hold.
func kindsOf() map[string]string {
	return map[string]string{
		"ANTHROPIC_API_KEY": "anthropic.api", "OPENAI_API_KEY": "openai.project", "STRIPE_SECRET_KEY": "stripe.secret",
		"TELEGRAM_BOT_TOKEN": "telegram.bot", "DISCORD_TOKEN": "discord.bot",
	}
}

// inHome is the variable whose key lies in the home directory, where agents have
// no business.
const inHome = "AWS_SECRET_ACCESS_KEY"

// exported is the variable that the person has in their shell, too.
const exported = "OPENAI_API_KEY"

// prepare makes all of it; remove takes it away, however far this came.
func (w *world) prepare(ctx context.Context) error {
	var err error
	if w.root, err = moduleRoot(); err != nil {
		return err
	}
	if os.Geteuid() == 0 {
		if w.who, err = ordinary(); err != nil {
			return err
		}
	}
	interpreter, others, err := w.agent.interpreter(ctx, w.who)
	if err != nil {
		return err
	}
	if !others {
		say("Only root can start %s, so the agent runs as root.", interpreter)
		w.who, w.asRoot = nil, true
	}
	w.path = filepath.Dir(interpreter) + string(filepath.ListSeparator) + os.Getenv("PATH")
	// What is made here must be open to the agent's user.
	syscall.Umask(0o022)
	// Not "postern-…", which is hidden from agents below /tmp.
	if w.scratch, err = os.MkdirTemp("", "demo-"); err != nil {
		return err
	}
	if err := os.Chmod(w.scratch, 0o755); err != nil {
		return err
	}
	w.dir = filepath.Join(w.scratch, w.agent.name)
	if err := w.build(ctx, interpreter); err != nil {
		return err
	}
	if err := w.makeKeys(); err != nil {
		return err
	}
	if err := w.furnish(); err != nil {
		return err
	}
	return w.startFakes()
}

func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	for ; err == nil; dir = filepath.Dir(dir) {
		if _, statErr := os.Stat(filepath.Join(dir, "go.mod")); statErr == nil {
			return dir, nil
		}
		if dir == "/" {
			return "", errors.New("start it in the repository: make demo")
		}
	}
	return "", err
}

// ordinary is a user without an entry, to whom nothing else belongs.
func ordinary() (*syscall.Credential, error) {
	for id := 12345; id < 12445; id++ {
		if _, err := user.LookupId(strconv.Itoa(id)); err != nil {
			return &syscall.Credential{Uid: uint32(id), Gid: uint32(id), NoSetGroups: false}, nil
		}
	}
	return nil, errors.New("no free user id was found between 12345 and 12444")
}

// build makes the binary and installs the agent's dependencies, both into
// build/demo, and copies them to where the agent's user can read them. One at a
// time: runs beside this one use the same folder.
func (w *world) build(ctx context.Context, interpreter string) error {
	folder := filepath.Join(w.root, "build", "demo")
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	lock, err := os.OpenFile(filepath.Join(folder, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return fmt.Errorf("waiting for another demo: %w", err)
	}
	binary, args := filepath.Join(folder, "postern"), []string{"build", "-trimpath"}
	if w.broken != "" {
		binary += "-without-" + w.broken
		args = append(args, "-tags", "demobreak")
	}
	cmd := exec.CommandContext(ctx, "go", append(args, "-o", binary, "./cmd/postern")...)
	cmd.Dir, cmd.Env = w.root, append(os.Environ(), "CGO_ENABLED=0")
	if err := quietly(cmd); err != nil {
		return err
	}
	installed, err := w.agent.dependencies(ctx, w.root, interpreter)
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	for _, d := range []string{w.bin(""), w.dir} {
		if err := os.Mkdir(d, 0o755); err != nil {
			return err
		}
	}
	return errors.Join(copyFile(binary, w.bin("postern")), copyFile(self, w.bin("probe")),
		os.CopyFS(filepath.Join(w.dir, w.agent.installed), os.DirFS(installed)))
}

func (w *world) bin(name string) string { return filepath.Join(w.scratch, "bin", name) }

// makeKeys draws a key for each variable of the agent's .env.example, and the one
// in the home directory.
func (w *world) makeKeys() error {
	example, err := os.ReadFile(filepath.Join(w.root, "examples", w.agent.name, dotenv.ExampleName))
	if err != nil {
		return err
	}
	file, err := dotenv.Parse(example, dotenv.Node)
	if err != nil {
		return err
	}
	kinds, err := catalog.Open("")
	if err != nil {
		return err
	}
	draw := func(name, id string) error {
		kind, err := kinds.Kind(id)
		if err != nil {
			return err
		}
		form, err := catalog.ParseTemplate(kind.Detect.Match[0])
		if err != nil {
			return err
		}
		value, err := form.Generate(rand.Reader)
		w.keys = append(w.keys, key{name, id, value})
		return err
	}
	for _, e := range file.Entries() {
		if id, found := kindsOf()[e.Key]; found {
			if err := draw(e.Key, id); err != nil {
				return err
			}
		}
	}
	return draw(inHome, "aws.secret-access-key")
}

func (w *world) key(name string) string {
	for _, k := range w.keys {
		if k.name == name {
			return k.value
		}
	}
	return ""
}

// furnish puts the example, its .env and a home directory's usual secrets into
// the agent's directory.
func (w *world) furnish() error {
	source := filepath.Join(w.root, "examples", w.agent.name)
	entries, err := os.ReadDir(source)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Type().IsRegular() && e.Name() != dotenv.ExampleName {
			if err := copyFile(filepath.Join(source, e.Name()), filepath.Join(w.dir, e.Name())); err != nil {
				return err
			}
		}
	}
	example, err := os.ReadFile(filepath.Join(source, dotenv.ExampleName))
	if err != nil {
		return err
	}
	var env strings.Builder
	for line := range strings.Lines(string(example)) {
		name, _, _ := strings.Cut(line, "=")
		if value := w.key(name); value != "" {
			line = name + "=" + value + "\n"
		}
		env.WriteString(line)
	}
	aws := filepath.Join(w.dir, ".aws")
	err = errors.Join(os.Mkdir(aws, 0o700),
		os.WriteFile(filepath.Join(aws, "credentials"), []byte("[default]\naws_secret_access_key = "+w.key(inHome)+"\n"), 0o600),
		os.WriteFile(filepath.Join(w.dir, ".env"), []byte(env.String()), 0o644))
	if err != nil || w.who == nil {
		return err
	}
	entries, err = os.ReadDir(w.dir)
	for _, e := range entries {
		err = errors.Join(err, os.Lchown(filepath.Join(w.dir, e.Name()), int(w.who.Uid), int(w.who.Gid)))
	}
	return errors.Join(err, os.Chown(filepath.Join(aws, "credentials"), int(w.who.Uid), int(w.who.Gid)),
		os.Chown(w.dir, int(w.who.Uid), int(w.who.Gid)))
}

// startFakes starts the providers, in this process, and leads Postern to them.
func (w *world) startFakes() error {
	kinds, err := catalog.Open("")
	if err != nil {
		return err
	}
	real := map[string][]string{}
	for _, k := range w.keys {
		if k.name != inHome {
			real[k.kind] = []string{k.value}
		}
	}
	if w.fakes, err = fake.New(fake.Config{Kinds: kinds, Keys: real}); err != nil {
		return err
	}
	if err := w.fakes.Start("127.0.0.1:0"); err != nil {
		return err
	}
	roots := filepath.Join(w.scratch, "fakes.pem")
	return errors.Join(os.WriteFile(roots, w.fakes.CAPEM(), 0o644), os.Mkdir(w.home(), 0o700),
		os.WriteFile(filepath.Join(w.home(), "config.yaml"), w.fakes.Fragment(roots), 0o600))
}

// home is Postern's.
func (w *world) home() string { return filepath.Join(w.scratch, "postern") }

// postern is a call of Postern in the agent's directory, in the shell of somebody
// who has a key exported.
func (w *world) postern(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, w.bin("postern"), args...)
	cmd.Dir = w.dir
	cmd.Env = []string{"PATH=" + w.path, "HOME=" + w.dir, "LANG=C.UTF-8", "NO_COLOR=1", "POSTERN_HOME=" + w.home(), exported + "=" + w.key(exported)}
	if w.broken != "" {
		cmd.Env = append(cmd.Env, "DEMO_BREAK="+w.broken)
	}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// runArgs are the arguments of "postern run" for a command.
func (w *world) runArgs(command ...string) []string {
	args := []string{"run"}
	if w.asRoot {
		args = append(args, "--as-root")
	}
	return append(append(args, "--"), command...)
}

func (w *world) remove() {
	if w.fakes != nil {
		_ = w.fakes.Close()
	}
	if w.scratch != "" {
		if err := os.RemoveAll(w.scratch); err != nil {
			fmt.Fprintln(os.Stderr, "demo: could not remove", w.scratch+":", err)
		}
	}
}
