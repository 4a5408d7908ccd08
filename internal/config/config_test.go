package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"postern/internal/fail"
)

func at(t *testing.T, text string) Paths {
	t.Helper()
	dir := t.TempDir()
	if text != "" {
		if err := os.WriteFile(filepath.Join(dir, "config.yaml"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return Paths{Home: dir, Config: dir, State: dir, Runtime: filepath.Join(dir, "run"), uid: os.Geteuid()}
}

func environment(pairs ...string) func(string) string {
	return func(name string) string {
		for _, pair := range pairs {
			if key, value, _ := strings.Cut(pair, "="); key == name {
				return value
			}
		}
		return ""
	}
}

func TestLoad(t *testing.T) {
	const file = `# mine
upstream:
  dial:
    "API.anthropic.com.:443": "127.0.0.1:8443"
    "[2606:4700::1]:443": "[::1]:8443"
  ca_file: fakes/ca.pem
safe:
  root: keyfile
ledger: {reserve_mb: 32}
`
	p := at(t, file)
	got, err := Load(p, environment("POSTERN_RUN_MODE=enforced", "POSTERN_SAFE_KEY_FILE=/else/where.key"))
	if err != nil {
		t.Fatal(err)
	}
	want := Config{
		Upstream: Upstream{
			Dial:   map[string]string{"api.anthropic.com:443": "127.0.0.1:8443", "[2606:4700::1]:443": "[::1]:8443"},
			CAFile: filepath.Join(p.Config, "fakes/ca.pem"),
		},
		Safe:   Safe{Root: RootKeyFile, KeyFile: "/else/where.key", CredentialFile: p.RootCredential()},
		Ledger: Ledger{ReserveMB: 32},
		Run:    Run{Mode: ModeEnforced, NewKeys: NewKeysAsk},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestLoadWithoutAFileGivesDefaults(t *testing.T) {
	for _, text := range []string{"", "# nothing yet\n", "ledger:\nrun: {}\nsafe:\n"} {
		p := at(t, text)
		got, err := Load(p, environment())
		if err != nil {
			t.Fatal(err)
		}
		want := Config{
			Safe:   Safe{KeyFile: p.RootKey(), CredentialFile: p.RootCredential()},
			Ledger: Ledger{ReserveMB: defaultReserveMB},
			Run:    Run{Mode: ModeAuto, NewKeys: NewKeysAsk},
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	}
}

func TestLoadShowsTheLine(t *testing.T) {
	tests := []struct {
		name, file string
		env        []string
		line       int
		text       string
	}{
		{"unknown field", "upstream:\n  dail: {}\n", nil, 2, "dail"},
		{"host without port", "upstream:\n  dial:\n    api.example.com: 127.0.0.1:1\n", nil, 3, "a host and a port"},
		{"wildcard", "upstream:\n  dial:\n    # all\n    \"*.example.com:443\": 127.0.0.1:1\n", nil, 4, "exact name"},
		{"name as target", "upstream:\n  dial:\n    a.example:443: localhost:8443\n", nil, 3, "IP address"},
		{"flow mapping", "upstream: {\n  dial: {\"a.example:443\": \"b:1\"}}\n", nil, 2, "IP address"},
		{"port zero", "upstream:\n  dial:\n    a.example:0: 127.0.0.1:1\n", nil, 3, "a host and a port"},
		{"twice", "upstream:\n  dial:\n    a.example:443: 127.0.0.1:1\n    A.example:443: 127.0.0.1:2\n", nil, 3, "twice"},
		{"tilde", "safe:\n  root: keyfile\n  key_file: ~/key\n", nil, 3, "~"},
		{"root", "safe:\n  root: tpm\n", nil, 2, "keyfile, passphrase or systemd"},
		{"reserve", "ledger:\n  reserve_mb: 0\n", nil, 2, "between 1 and 1024"},
		{"mode", "\n\nrun:\n  mode: fast\n", nil, 4, "auto, enforced or cooperative"},
		{"new keys", "run:\n  new_keys: yes\n", nil, 2, "ask, adopt or refuse"},
		{"environment", "", []string{"POSTERN_RUN_MODE=fast"}, 0, "auto, enforced or cooperative"},
		{"environment path", "", []string{"POSTERN_SAFE_KEY_FILE=key"}, 0, "absolute"},
		{"environment number", "", []string{"POSTERN_LEDGER_RESERVE_MB=many"}, 0, "number"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := Load(at(t, test.file), environment(test.env...))
			var problems fail.Problems
			if !errors.As(err, &problems) {
				t.Fatalf("got %v, want problems", err)
			}
			if problems[0].Line != test.line || !strings.Contains(problems[0].Text, test.text) {
				t.Errorf("got %+v, want line %d and %q", problems[0], test.line, test.text)
			}
			if test.line > 0 && !strings.Contains(problems[0].Excerpt, "^") {
				t.Errorf("no excerpt: %q", problems[0].Excerpt)
			}
		})
	}
}

func TestLoadNamesAllMistakesAtOnce(t *testing.T) {
	_, err := Load(at(t, "safe: {root: x}\nrun: {mode: y}\n"), environment())
	var problems fail.Problems
	if !errors.As(err, &problems) || len(problems) != 2 {
		t.Fatalf("got %v", err)
	}
}

func TestLoadRefusesAFileThatOthersDecideAbout(t *testing.T) {
	t.Run("writable by all", func(t *testing.T) {
		p := at(t, "run: {mode: auto}\n")
		if err := os.Chmod(p.ConfigFile(), 0o666); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(p, environment()); !fail.Is(err, fail.Invalid) || !strings.Contains(err.Error(), "every user") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("pipe", func(t *testing.T) {
		p := at(t, "")
		if err := syscall.Mkfifo(p.ConfigFile(), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(p, environment()); err == nil || !strings.Contains(err.Error(), "not an ordinary file") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("too large", func(t *testing.T) {
		p := at(t, "")
		if err := os.WriteFile(p.ConfigFile(), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(p.ConfigFile(), 1<<30); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(p, environment()); err == nil || !strings.Contains(err.Error(), "larger") {
			t.Errorf("got %v", err)
		}
	})
}

func TestRootsPEM(t *testing.T) {
	dir := t.TempDir()
	good, bad := filepath.Join(dir, "good.pem"), filepath.Join(dir, "bad.pem")
	certificate := "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
	for path, text := range map[string]string{good: certificate, bad: "not a certificate\n"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if data, err := (Upstream{CAFile: good}).RootsPEM(); err != nil || string(data) != certificate {
		t.Errorf("got %q, %v", data, err)
	}
	if data, err := (Upstream{}).RootsPEM(); err != nil || data != nil {
		t.Errorf("without a file: got %q, %v", data, err)
	}
	for _, path := range []string{bad, filepath.Join(dir, "missing.pem"), dir} {
		if _, err := (Upstream{CAFile: path}).RootsPEM(); !fail.Is(err, fail.Invalid) {
			t.Errorf("%s: got %v", path, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("upstream:\n  dial:\n    \"a.b:443\": \"127.0.0.1:1\"\n"))
	f.Add([]byte("safe: {root: keyfile, key_file: k}\n# c\nrun:\n  mode: x\n"))
	f.Add([]byte("\"upstream\" : {dial: {\n: }}\n"))
	p := Paths{Config: "/c", State: "/s", Runtime: "/r"}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Parse(p, data)
		if err != nil {
			return
		}
		for from, to := range c.Upstream.Dial {
			if key, why := hostPort(from); why != "" || key != from || addrPort(to) != "" {
				t.Errorf("accepted %q to %q", from, to)
			}
		}
		if edited, err := Set(data, "safe", "root", "passphrase"); err == nil {
			if _, err := Parse(p, edited); err != nil {
				t.Errorf("Set made %q of %q: %v", edited, data, err)
			}
		}
	})
}
