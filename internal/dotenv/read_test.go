package dotenv

import (
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"postern/internal/fail"
)

func TestReadTakesOrdinaryFilesOnly(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name, want string
		kind       fail.Kind
		make       func(path string) error
	}{
		{"missing", "no such file", fail.NotFound, func(string) error { return nil }},
		{"fifo", "a FIFO", fail.Invalid, func(p string) error { return syscall.Mkfifo(p, 0o600) }},
		{"directory", "a directory", fail.Invalid, func(p string) error { return os.Mkdir(p, 0o700) }},
		{"socket", "a socket", fail.Invalid, func(p string) error {
			l, err := net.ListenUnix("unix", &net.UnixAddr{Name: p})
			if err == nil {
				l.SetUnlinkOnClose(false)
				err = l.Close()
			}
			return err
		}},
		{"loop", "leads nowhere", fail.Invalid, func(p string) error { return os.Symlink(filepath.Base(p), p) }},
		{"dangling", "leads nowhere", fail.Invalid, func(p string) error { return os.Symlink("nothing", p) }},
		{"link elsewhere", "outside its own directory", fail.Invalid, func(p string) error { return os.Symlink("/etc/hostname", p) }},
		{"link to a FIFO", "a FIFO", fail.Invalid, func(p string) error {
			if err := syscall.Mkfifo(p+".fifo", 0o600); err != nil {
				return err
			}
			return os.Symlink(filepath.Base(p)+".fifo", p)
		}},
		{"huge", "larger than 4 MiB", fail.Invalid, func(p string) error {
			if err := os.WriteFile(p, nil, 0o600); err != nil {
				return err
			}
			return os.Truncate(p, 1<<30)
		}},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), ".env")
			if err := tc.make(path); err != nil {
				t.Fatal(err)
			}
			if _, err := Read(path); !fail.Is(err, tc.kind) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestReadKeepsModeAndOwner(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, ".env.real")
	if err := os.WriteFile(path, []byte("A=1"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(".env.real", filepath.Join(dir, ".env")); err != nil {
		t.Fatal(err)
	}
	s, err := Read(filepath.Join(dir, ".env"))
	if err != nil {
		t.Fatal(err)
	}
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		t.Fatal(err)
	}
	if s.Path != real || string(s.Data) != "A=1" || s.Mode != fs.FileMode(0o640) || s.UID != os.Getuid() {
		t.Errorf("got %+v", s)
	}
}

func TestDetect(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name  string
		files []string
		want  Dialect
		why   string
	}{
		{"nothing", nil, Node, "nothing tells"},
		{"node", []string{"package.json"}, Node, "package.json"},
		{"python", []string{"requirements.txt", "bot.py"}, Python, "requirements.txt"},
		{"project file", []string{"pyproject.toml"}, Python, "pyproject.toml"},
		{"programs only", []string{"bot.py"}, Python, "bot.py"},
		{"both", []string{"package.json", "pyproject.toml"}, Node, "Node's reading is taken"},
		{"script beside a Node project", []string{"package.json", "tool.py"}, Node, "there is package.json"},
	}
	for text, want := range map[string]Dialect{
		"# dotenv: python\nA=1": Python, "\ufeff# mine\r\n\r\n#dotenv:python\r\n": Python, "A=1\n# dotenv: python": Node, "# dotenv: ruby": Node, "": Node,
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, ".env"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := Detect(dir); got != want {
			t.Errorf("%q: %s", text, got)
		}
	}
	for _, tc := range cases {
		dir := t.TempDir()
		for _, name := range tc.files {
			if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		got, why := DetectWhy(dir)
		if got != tc.want || !strings.Contains(why, tc.why) {
			t.Errorf("%s: %s, %s", tc.name, got, why)
		}
	}
}
