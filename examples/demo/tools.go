package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// agent is one of the examples, and how it is made ready.
type agent struct {
	name      string   // the directory below examples
	needs     string   // what must be there, for people
	commands  []string // interpreters to look for
	check     []string // arguments with which an interpreter says that it is good enough
	lock      string   // the file that pins the dependencies
	installed string   // what the dependencies are called in the agent's directory
	install   func(ctx context.Context, interpreter, into, lock string) error
	command   []string // that starts it
	waits     string   // what it prints once its round is done
	hosts     []string // that it calls
}

func agents() map[string]agent {
	hosts := []string{"api.anthropic.com", "api.openai.com", "api.stripe.com", "api.telegram.org"}
	return map[string]agent{
		"node": {
			name: "discord-bot", needs: "Node.js 20 or later with npm (https://nodejs.org, or: apt install nodejs npm)",
			commands: []string{"node"}, check: []string{"-e", "process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)"},
			lock: "package-lock.json", installed: "node_modules", install: installNode,
			command: []string{"node", "bot.js"},
			waits:   "Ctrl-C ends", hosts: append(hosts, "discord.com", "gateway.discord.gg"),
		},
		"python": {
			name: "python-agent", needs: "Python 3.10 or later with venv (apt install python3-venv)",
			commands: []string{"python3", "python"}, check: []string{"-c", "import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))"},
			lock: "requirements.txt", installed: "venv", install: installPython,
			command: []string{"venv/bin/python", "agent.py"},
			waits:   "Ctrl-C ends", hosts: hosts,
		},
	}
}

// interpreter finds the agent's interpreter: rather one that who can start too.
// others says whether that is so.
func (a agent) interpreter(ctx context.Context, who *syscall.Credential) (path string, others bool, err error) {
	for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
		for _, command := range a.commands {
			candidate := filepath.Join(dir, command)
			if info, err := os.Stat(candidate); err != nil || info.IsDir() || !starts(ctx, nil, candidate, a.check) {
				continue
			}
			if who == nil || starts(ctx, who, candidate, a.check) {
				return candidate, true, nil
			}
			if path == "" {
				path = candidate
			}
		}
	}
	if path == "" {
		return "", false, fmt.Errorf("this agent needs %s", a.needs)
	}
	return path, false, nil
}

func starts(ctx context.Context, who *syscall.Credential, path string, args []string) bool {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Dir = "/"
	if who != nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: who}
	}
	return cmd.Run() == nil
}

// dependencies installs what the agent needs, once for each lock file and
// interpreter, and returns where it is.
func (a agent) dependencies(ctx context.Context, root, interpreter string) (string, error) {
	lock := filepath.Join(root, "examples", a.name, a.lock)
	pinned, err := os.ReadFile(lock)
	if err != nil {
		return "", err
	}
	version, err := exec.CommandContext(ctx, interpreter, "--version").Output()
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(bytes.Join([][]byte{pinned, version, []byte(interpreter)}, []byte{0}))
	place := filepath.Join(root, "build", "demo", a.name+"-"+hex.EncodeToString(sum[:6]))
	whole := filepath.Join(place, "complete") // written last
	if _, err := os.Stat(whole); err == nil {
		return filepath.Join(place, a.installed), nil
	}
	say("installing what examples/%s needs into build/demo (once)", a.name)
	if err := os.RemoveAll(place); err != nil {
		return "", err
	}
	if err := os.MkdirAll(place, 0o755); err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, 100*time.Second)
	defer cancel()
	if err := a.install(ctx, interpreter, place, lock); errors.Is(err, exec.ErrNotFound) {
		return "", fmt.Errorf("this agent needs %s: %w", a.needs, err)
	} else if err != nil {
		return "", errors.Join(fmt.Errorf("could not install what examples/%s needs; is the package registry out of reach? It is needed the first time only", a.name), err)
	}
	return filepath.Join(place, a.installed), os.WriteFile(whole, nil, 0o644)
}

func installNode(ctx context.Context, _, into, lock string) error {
	npm, err := exec.LookPath("npm")
	if err != nil {
		return err
	}
	for _, name := range []string{"package.json", "package-lock.json"} {
		if err := copyFile(filepath.Join(filepath.Dir(lock), name), filepath.Join(into, name)); err != nil {
			return err
		}
	}
	cmd := exec.CommandContext(ctx, npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error",
		"--fetch-retries=1", "--fetch-timeout=20000", "--cache", filepath.Join(filepath.Dir(into), "cache"))
	cmd.Dir = into
	return quietly(cmd)
}

func installPython(ctx context.Context, interpreter, into, lock string) error {
	venv := filepath.Join(into, "venv")
	if err := quietly(exec.CommandContext(ctx, interpreter, "-m", "venv", venv)); err != nil {
		return err
	}
	return quietly(exec.CommandContext(ctx, filepath.Join(venv, "bin", "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
		"--retries=1", "--timeout=20", "--cache-dir", filepath.Join(filepath.Dir(into), "cache"), "-r", lock))
}

// quietly runs a command and shows the end of what it said only where it failed.
func quietly(cmd *exec.Cmd) error {
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	if err == nil {
		return nil
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return fmt.Errorf("%s: %w\n%s", filepath.Base(cmd.Path), err, strings.Join(lines[max(0, len(lines)-8):], "\n"))
}

func copyFile(from, to string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	info, err := os.Stat(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, data, info.Mode().Perm())
}
