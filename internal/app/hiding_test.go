package app

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"postern/internal/config"
	"postern/internal/credential"
	"postern/internal/fail"
	"postern/internal/policy"
	"postern/internal/run"
)

func TestHiddenPlaces(t *testing.T) {
	paths := config.Paths{Home: "/h/.postern", Config: "/h/.postern", State: "/h/.postern", Runtime: "/h/.postern/run"}
	cases := []struct {
		name         string
		granted      []string
		hidden, open []string
	}{
		{"nothing granted", nil, []string{"/h/.ssh", "/h/.aws", "/h/.config/gh", "/h/.netrc", "/h/.postern", "/h/.postern/run", "/run/user/7"}, nil},
		{"one granted", []string{"/h/.aws"}, []string{"/h/.ssh", "/h/.netrc"}, []string{"/h/.aws"}},
		{"a file of one", []string{"/h/.aws/config"}, []string{"/h/.aws", "/h/.ssh"}, nil}, // run shows the file
		{"all of the home", []string{"/h"}, []string{"/h/.postern", "/h/.postern/run", "/run/user/7"}, []string{"/h/.ssh", "/h/.aws"}},
		{"a name that begins alike", []string{"/h/.aws2", "/h/.a"}, []string{"/h/.aws"}, nil},
		{"ours is never open", []string{"/h/.postern", "/h/.postern/run", "/"}, []string{"/h/.postern", "/h/.postern/run"}, nil},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got := hidden(paths, "/h", "/run/user/7", c.granted)
			for _, place := range c.hidden {
				if !slices.Contains(got, place) {
					t.Errorf("%s is not hidden", place)
				}
			}
			for _, place := range c.open {
				if slices.Contains(got, place) {
					t.Errorf("%s is hidden", place)
				}
			}
			if !slices.IsSorted(got) || len(slices.Compact(slices.Clone(got))) != len(got) {
				t.Errorf("not sorted, or doubled: %q", got)
			}
		})
	}
	if got := hidden(paths, "", "", nil); slices.ContainsFunc(got, func(p string) bool { return !filepath.IsAbs(p) }) {
		t.Errorf("without a home: %q", got)
	}
}

func TestReadOnlyPlaces(t *testing.T) {
	got := readOnly("/h", "/h/bot")
	for _, place := range []string{"/h/.bashrc", "/h/.profile", "/h/.config/systemd", "/h/.gitconfig", "/h/bot/.git/hooks"} {
		if !slices.Contains(got, place) {
			t.Errorf("%s can be changed", place)
		}
	}
}

// The directory of tmux is there while any run needs it, and then no more.
func TestTmuxDirIsSharedAndTakenAway(t *testing.T) {
	tmp := t.TempDir()
	dir, first := tmuxDir(tmp, nil)
	again, second := tmuxDir(tmp, nil)
	if dir != again {
		t.Errorf("%s and %s", dir, again)
	}
	there := func(want bool) {
		t.Helper()
		if _, err := os.Lstat(dir); (err == nil) != want {
			t.Errorf("there: %v", err)
		}
	}
	there(true)
	first()
	there(true)
	second()
	there(false)
	_, third := tmuxDir(tmp, nil)
	if err := os.WriteFile(filepath.Join(dir, "default"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	third()
	there(true) // a server is up
}

// Hooks run outside, whichever repository they belong to.
func TestHooksOfEveryRepositoryAround(t *testing.T) {
	top := t.TempDir()
	dir := filepath.Join(top, "work", "tree", "bot")
	for _, d := range []string{dir, filepath.Join(top, "main", ".git", "worktrees", "tree")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range map[string]string{
		"work/tree/.git": "gitdir: ../../main/.git/worktrees/tree\n", "main/.git/worktrees/tree/commondir": "../..\n",
	} {
		if err := os.WriteFile(filepath.Join(top, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got := readOnly("/h", dir)
	for _, place := range []string{"work/tree/bot/.git/hooks", "work/tree/.git/hooks", "work/.git/hooks", "main/.git/hooks", "main/.git/worktrees/tree/hooks"} {
		if !slices.Contains(got, filepath.Join(top, place)) {
			t.Errorf("%s can be changed: %q", place, got)
		}
	}
}

func TestPublished(t *testing.T) {
	local := func(port uint16) run.Publish {
		return run.Publish{Host: netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port), Port: port}
	}
	cases := []struct {
		flags []string
		ports []int
		want  []run.Publish
		wrong bool
	}{
		{nil, nil, nil, false},
		{[]string{"18789"}, nil, []run.Publish{local(18789)}, false},
		{[]string{"0.0.0.0:80"}, nil, []run.Publish{{Host: netip.MustParseAddrPort("0.0.0.0:80"), Port: 80}}, false},
		{[]string{"[::1]:80"}, nil, []run.Publish{{Host: netip.MustParseAddrPort("[::1]:80"), Port: 80}}, false},
		{nil, []int{9000}, []run.Publish{local(9000)}, false},
		{[]string{"0"}, nil, nil, true},
		{[]string{"65536"}, nil, nil, true},
		{[]string{"-1"}, nil, nil, true},
		{[]string{"http"}, nil, nil, true},
		{[]string{""}, nil, nil, true},
		{[]string{"localhost:80"}, nil, nil, true},
		{[]string{"1:2:3"}, nil, nil, true},
	}
	for _, c := range cases {
		got, err := published(c.flags, c.ports)
		if c.wrong != fail.Is(err, fail.Invalid) || !cmp.Equal(got, c.want, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })) {
			t.Errorf("published(%q, %v) = %v, %v", c.flags, c.ports, got, err)
		}
	}
}

func TestLocalServices(t *testing.T) {
	got, err := localServices(policy.Agent{TCP: []string{"127.0.0.1:5432", "localhost:6379", "10.0.0.1:5432", "db.example:5432", "[::1]:1", "x"}})
	want := []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:5432"), netip.MustParseAddrPort("127.0.0.1:6379")}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, %v", got, err)
	}
}

func TestWhoTheCommandRunsAs(t *testing.T) {
	dir := t.TempDir()
	if os.Geteuid() != 0 {
		who, account, err := runAs(credential.Agent{}, dir, RunOptions{})
		if who != nil || err != nil || account.home != os.Getenv("HOME") {
			t.Errorf("%v %v %v", who, account, err)
		}
		return
	}
	if _, _, err := runAs(credential.Agent{}, dir, RunOptions{}); !fail.Is(err, fail.NotAllowed) {
		t.Errorf("a directory of root: %v", err)
	}
	if who, _, err := runAs(credential.Agent{}, dir, RunOptions{AsRoot: true}); who != nil || err != nil {
		t.Errorf("--as-root: %v %v", who, err)
	}
	if _, _, err := runAs(credential.Agent{}, dir, RunOptions{User: "no such user"}); !fail.Is(err, fail.NotFound) {
		t.Errorf("%v", err)
	}
	if err := os.Chown(dir, 54321, 54322); err != nil {
		t.Fatal(err)
	}
	who, account, err := runAs(credential.Agent{Directory: dir}, "/", RunOptions{})
	if err != nil || who == nil || who.UID != 54321 || who.GID != 54322 || account.home != dir {
		t.Errorf("the owner of the directory: %+v %+v %v", who, account, err)
	}
	who, account, err = runAs(credential.Agent{Directory: dir}, "/", RunOptions{User: "nobody"})
	if err != nil || who.UID != 65534 || account.name != "nobody" {
		t.Errorf("--user goes before: %+v %+v %v", who, account, err)
	}
	if _, _, err := runAs(credential.Agent{Directory: filepath.Join(dir, "gone")}, "/", RunOptions{}); err == nil {
		t.Error("a directory that is gone belongs to somebody")
	}
}
