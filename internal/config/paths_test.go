package config

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"postern/internal/fail"
)

func TestLocate(t *testing.T) {
	runtimes := t.TempDir()
	own := filepath.Join(runtimes, strconv.Itoa(os.Geteuid()))
	if err := os.Mkdir(own, 0o700); err != nil {
		t.Fatal(err)
	}
	session := filepath.Join(runtimes, "session")
	if err := os.Mkdir(session, 0o700); err != nil {
		t.Fatal(err)
	}
	wide := filepath.Join(runtimes, "wide")
	if err := os.Mkdir(wide, 0o755); err != nil {
		t.Fatal(err)
	}
	cwd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	me, other := max(os.Geteuid(), 1), 54321
	tests := []struct {
		name string
		uid  int
		env  []string
		want Paths
	}{
		{"root", 0, []string{"HOME=/root"}, Paths{Config: "/etc/postern", State: "/var/lib/postern", Runtime: "/run/postern"}},
		{"home", 0, []string{"POSTERN_HOME=/h/"}, Paths{Home: "/h", Config: "/h", State: "/h", Runtime: "/h/run"}},
		{"relative home", other, []string{"POSTERN_HOME=h"}, Paths{Home: cwd + "/h", Config: cwd + "/h", State: cwd + "/h", Runtime: cwd + "/h/run"}},
		{"home and state", other, []string{"POSTERN_HOME=/h", "POSTERN_STATE=/s"}, Paths{Home: "/h", Config: "/h", State: "/s", Runtime: "/h/run"}},
		{"user", other, []string{"HOME=/home/u"}, Paths{Config: "/home/u/.config/postern", State: "/home/u/.local/state/postern", Runtime: "/home/u/.local/state/postern/run"}},
		{"user with XDG", other, []string{"HOME=/home/u", "XDG_CONFIG_HOME=/c", "XDG_STATE_HOME=/s", "POSTERN_CONFIG=/mine"}, Paths{Config: "/mine", State: "/s/postern", Runtime: "/s/postern/run"}},
		{"relative XDG", other, []string{"HOME=/home/u", "XDG_CONFIG_HOME=c", "XDG_STATE_HOME=s"}, Paths{Config: "/home/u/.config/postern", State: "/home/u/.local/state/postern", Runtime: "/home/u/.local/state/postern/run"}},
		{"open runtime", me, []string{"HOME=/home/u", "XDG_RUNTIME_DIR=" + wide}, Paths{Config: "/home/u/.config/postern", State: "/home/u/.local/state/postern", Runtime: "/home/u/.local/state/postern/run"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := locateFor(environment(test.env...), test.uid, filepath.Join(runtimes, "none"))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got, cmpopts.IgnoreUnexported(Paths{})); diff != "" {
				t.Error(diff)
			}
		})
	}
	// A cron job without the session's variable finds the session's place.
	uid := os.Geteuid()
	if got := runtimeDir(environment(), uid, runtimes, "/s"); got != filepath.Join(own, "postern") {
		t.Errorf("without XDG_RUNTIME_DIR: got %s", got)
	}
	if got := runtimeDir(environment("XDG_RUNTIME_DIR="+session), uid, runtimes, "/s"); got != filepath.Join(session, "postern") {
		t.Errorf("with XDG_RUNTIME_DIR: got %s", got)
	}
	if _, err := locateFor(environment(), other, runtimes); !fail.Is(err, fail.Invalid) {
		t.Errorf("without HOME: got %v", err)
	}
}

func TestFileNames(t *testing.T) {
	p := Paths{Config: "/c", State: "/s", Runtime: "/r"}
	got := []string{p.ConfigFile(), p.PolicyFile(), p.CatalogDir(), p.Database(), p.LedgerDir(), p.LedgerPublic(), p.RootKey(), p.RootCredential(), p.CACert()}
	want := []string{"/c/config.yaml", "/c/policy.yaml", "/c/catalog", "/s/state.db", "/s/ledger", "/s/ledger.pub", "/s/root.key", "/s/root.cred", "/s/ca.pem"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestMakeClosesWhatItMakes(t *testing.T) {
	home := filepath.Join(t.TempDir(), "deep", "home")
	p, err := Locate(environment("POSTERN_HOME=" + home))
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := p.Make(); err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range []string{filepath.Dir(home), home, p.SocketDir()} {
		if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("%s: %v, %v", dir, info.Mode(), err)
		}
	}
	if err := os.Chmod(p.Runtime, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := p.MakeRuntime(); err != nil {
		t.Error(err)
	}
	if info, err := os.Stat(p.Runtime); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("an open runtime directory stayed open: %v", info.Mode())
	}
	if err := os.Chmod(home, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := p.Make(); !fail.Is(err, fail.Invalid) || !strings.Contains(err.Error(), "every user") {
		t.Errorf("a home that everybody may write: got %v", err)
	}
}

func TestMakeAsRootGivesToTheOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	user := t.TempDir()
	if err := os.Chown(user, 12345, 23456); err != nil {
		t.Fatal(err)
	}
	p, err := Locate(environment("POSTERN_HOME=" + filepath.Join(user, "a", "b")))
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Make(); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{filepath.Dir(p.Home), p.Home, p.Runtime} {
		if uid := ownerOf(t, dir); uid != 12345 {
			t.Errorf("%s belongs to %d", dir, uid)
		}
	}
}

func TestSocket(t *testing.T) {
	short := Paths{Runtime: "/run/postern", uid: os.Geteuid()}
	if got, err := short.Socket("daemon.sock"); err != nil || got != "/run/postern/daemon.sock" {
		t.Errorf("got %q, %v", got, err)
	}
	long := Paths{Runtime: filepath.Join(t.TempDir(), strings.Repeat("x", 100)), uid: os.Geteuid()}
	path, err := long.Socket("daemon.sock")
	if err != nil || len(path) > maxSocketPath {
		t.Fatalf("got %q, %v", path, err)
	}
	dir := long.SocketDir()
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := long.MakeRuntime(); err != nil {
		t.Fatal(err)
	}
	if again, err := long.Socket("daemon.sock"); err != nil || again != path {
		t.Errorf("got %q, then %q, %v", path, again, err)
	}
	if _, err := long.Socket(strings.Repeat("s", maxSocketName+1)); !fail.Is(err, fail.Invalid) {
		t.Errorf("long name: got %v", err)
	}
	// Somebody else has the name.
	for name, take := range map[string]func() error{
		"open":    func() error { return os.Chmod(dir, 0o777) },
		"symlink": func() error { return os.Symlink(t.TempDir(), dir) },
		"file":    func() error { return os.WriteFile(dir, nil, 0o600) },
	} {
		if name != "open" {
			if err := os.RemoveAll(dir); err != nil {
				t.Fatal(err)
			}
		}
		if err := take(); err != nil {
			t.Fatal(err)
		}
		if path, err := long.Socket("daemon.sock"); !fail.Is(err, fail.Invalid) {
			t.Errorf("%s: got %q, %v", name, path, err)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
}

func ownerOf(t *testing.T, path string) int {
	t.Helper()
	var stat syscall.Stat_t
	if err := syscall.Lstat(path, &stat); err != nil {
		t.Fatal(err)
	}
	return int(stat.Uid)
}
