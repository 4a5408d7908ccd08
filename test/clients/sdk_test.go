package clients

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// The official libraries, by the agents of examples/: each provider gets its real
// key, no library gets one back.
func TestLibraries(t *testing.T) {
	for _, c := range []struct {
		name, example string
		install       func(*testing.T, string) (place string)
		files         []string // of the place
		start         string
		hosts         []string
	}{
		{"Node", "discord-bot", nodeModules, []string{"node_modules"}, "node bot.js --once",
			[]string{"api.anthropic.com", "api.openai.com", "api.stripe.com", "api.telegram.org", "discord.com", "gateway.discord.gg"}},
		{"Python", "python-agent", pythonPackages, []string{"packages"}, "PYTHONPATH=packages /usr/bin/python3 agent.py --once",
			[]string{"api.anthropic.com", "api.openai.com", "api.stripe.com", "api.telegram.org"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			source := filepath.Join("..", "..", "examples", c.example)
			place := c.install(t, source)
			w := newWorld(t)
			for _, name := range c.files {
				w.command("cp", "-r", filepath.Join(place, name), w.dir)
			}
			w.command("cp", "-r", source+"/.", w.dir)
			w.own(w.dir, ordinary)
			out, keys := w.received(c.start + "; echo exit $?; cat received.log")
			if keys > 0 || !strings.Contains(out, "exit 0") {
				t.Errorf("%d real keys were received; the agent said:\n%.3000s", keys, out)
			}
			for _, host := range c.hosts {
				if n := w.fake.Calls()[host]; n.Accepted == 0 || n.Refused > 0 {
					t.Errorf("%s: %+v", host, n)
				}
			}
		})
	}
}

// installed runs install once for each text that it depends on, in a directory
// that is kept.
func installed(t *testing.T, name string, depends []byte, install func(into string) error) string {
	t.Helper()
	root, err := filepath.Abs(filepath.Join("..", "..", "build", "clients"))
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(depends)
	place := filepath.Join(root, name+"-"+hex.EncodeToString(sum[:6]))
	if _, err := os.Stat(place); err == nil {
		return place
	}
	if err := os.MkdirAll(root, 0o755); err != nil {
		t.Skipf("skipped: %v", err)
	}
	into, err := os.MkdirTemp(root, "new-")
	if err != nil {
		t.Skipf("skipped: %v", err)
	}
	defer os.RemoveAll(into)
	if err := install(into); err != nil {
		t.Skipf("skipped: %s could not be installed, is the registry out of reach? %v", name, err)
	}
	if err := os.Chmod(into, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(into, place); err != nil { // or another test was quicker
		if _, there := os.Stat(place); there != nil {
			t.Fatal(err)
		}
	}
	return place
}

func quietly(t *testing.T, dir, name string, args ...string) error {
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w\n%s", err, out[max(0, len(out)-1000):])
	}
	return nil
}

// npm installs what a lock file names.
func npm(t *testing.T, name, source string) string {
	t.Helper()
	need(t, "node")
	need(t, "npm")
	lock, err := os.ReadFile(filepath.Join(source, "package-lock.json"))
	if err != nil {
		t.Fatal(err)
	}
	return installed(t, name, lock, func(into string) error {
		for _, file := range []string{"package.json", "package-lock.json"} {
			if err := quietly(t, ".", "cp", filepath.Join(source, file), into); err != nil {
				return err
			}
		}
		return quietly(t, into, "npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error", "--prefer-offline",
			"--fetch-retries=1", "--fetch-timeout=20000", "--cache", filepath.Join(filepath.Dir(into), "cache"))
	})
}

func nodeModules(t *testing.T, source string) string { return npm(t, "node", source) }

// pythonPackages are for the system's Python, which every user can start.
func pythonPackages(t *testing.T, source string) string {
	t.Helper()
	const python = "/usr/bin/python3"
	pinned, err := os.ReadFile(filepath.Join(source, "requirements.txt"))
	if err != nil {
		t.Fatal(err)
	}
	version, err := exec.CommandContext(t.Context(), python, "-m", "pip", "--version").Output()
	if err != nil {
		t.Skipf("skipped: %s with pip is missing (apt install python3-pip): %v", python, err)
	}
	return installed(t, "python", slices.Concat(pinned, bytes.TrimSpace(version)), func(into string) error {
		return quietly(t, source, python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--retries=1", "--timeout=20",
			"--target", filepath.Join(into, "packages"), "-r", "requirements.txt")
	})
}
