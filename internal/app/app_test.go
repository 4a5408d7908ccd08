package app

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"postern/internal/credential"
	"postern/internal/event"
	"postern/internal/fail"
	"postern/internal/secret"
	"postern/internal/setup"
)

// options are those of a new place.
func options(t testing.TB) Options {
	t.Helper()
	vars := map[string]string{"HOME": t.TempDir(), "POSTERN_HOME": filepath.Join(t.TempDir(), "p")}
	return Options{
		Getenv: func(name string) string { return vars[name] }, Now: time.Now,
		Passphrase: func(string) (secret.Value, error) { return secret.Value{}, errors.New("nobody is there to be asked") },
	}
}

// made is an installation with an anthropic key, lent to the agent bot.
func made(t testing.TB) (*App, Options) {
	t.Helper()
	o := options(t)
	a, err := Create(t.Context(), o, "keyfile")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Close() })
	value, _ := sample(t, "anthropic.api", 1)
	if _, err := a.AddSecret(t.Context(), NewSecret{Name: "anthropic"}, secret.New([]byte(value))); err != nil {
		t.Fatal(err)
	}
	if _, err := a.AddAgent(t.Context(), NewAgent{Name: "bot", Secrets: []string{"anthropic"}}); err != nil {
		t.Fatal(err)
	}
	return a, o
}

func TestOpenWithoutAnInstallation(t *testing.T) {
	o := options(t)
	if exists, err := Exists(o); exists || err != nil {
		t.Errorf("%v %v", exists, err)
	}
	if _, err := Open(t.Context(), o); !fail.Is(err, fail.NotFound) {
		t.Errorf("%v", err)
	}
	if _, err := os.Stat(o.Getenv("POSTERN_HOME")); !errors.Is(err, os.ErrNotExist) {
		t.Error("looking has made a directory")
	}
}

// A set-up that was killed is taken up again, wherever it was.
func TestCreateGoesOnWhereItWasKilled(t *testing.T) {
	for name, missing := range map[string][]string{
		"before the safe":        {"state.db", "state.db-wal", "state.db-shm", "ledger", "ledger.pub", "ca.pem"},
		"before the choice":      {"state.db", "state.db-wal", "state.db-shm", "ledger", "ledger.pub", "ca.pem", "config.yaml"},
		"before the ledger":      {"ledger", "ledger.pub", "ca.pem"},
		"before the certificate": {"ca.pem"},
	} {
		t.Run(name, func(t *testing.T) {
			o := options(t)
			a, err := Create(t.Context(), o, "keyfile")
			if err != nil {
				t.Fatal(err)
			}
			if err := a.Close(); err != nil {
				t.Fatal(err)
			}
			for _, name := range missing {
				if err := os.RemoveAll(filepath.Join(o.Getenv("POSTERN_HOME"), name)); err != nil {
					t.Fatal(err)
				}
			}
			exists, err := Exists(o)
			if err == nil && exists {
				a, err = Open(t.Context(), o)
			} else if err == nil {
				a, err = Create(t.Context(), o, "keyfile")
			}
			if err != nil {
				t.Fatal(err)
			}
			if _, err := a.authority(t.Context()); err != nil {
				t.Error(err)
			}
			if err := a.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestTwoCommandsDoNotChangeAtOnce(t *testing.T) {
	a, o := made(t)
	unlock, err := a.lock()
	if err != nil {
		t.Fatal(err)
	}
	b, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if _, err := b.Allow(t.Context(), Allow{Agent: "bot", Hosts: []string{"x.example"}}); !fail.Is(err, fail.Conflict) {
		t.Errorf("%v", err)
	}
	unlock()
	if changed, err := b.Allow(t.Context(), Allow{Agent: "bot", Hosts: []string{"x.example"}}); !changed || err != nil {
		t.Errorf("%v %v", changed, err)
	}
}

func TestTheLockIsNoWayToWriteElsewhere(t *testing.T) {
	a, _ := made(t)
	path := filepath.Join(a.Paths.State, "lock")
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(t.TempDir(), "elsewhere"), path); err != nil {
		t.Fatal(err)
	}
	if _, err := a.lock(); err == nil {
		t.Error("a symbolic link was followed")
	}
}

// The password by which an agent names itself to the proxy: one for each agent and
// safe, and of no use to another.
func TestProxyPasswords(t *testing.T) {
	a, _ := made(t)
	other, _ := made(t)
	mine, err := a.proxyToken("bot")
	if err != nil {
		t.Fatal(err)
	}
	again, err := a.proxyToken("bot")
	if err != nil || again != mine || len(mine) < 32 {
		t.Errorf("%q, then %q, %v", mine, again, err)
	}
	if !a.authenticate("bot", mine) {
		t.Error("the right password was refused")
	}
	elsewhere, err := other.proxyToken("bot")
	if err != nil {
		t.Fatal(err)
	}
	for agent, token := range map[string]string{"bot": "", "bot2": mine, "": mine, "BOT": mine} {
		if a.authenticate(agent, token) {
			t.Errorf("%q passed with %q", agent, token)
		}
	}
	if a.authenticate("bot", elsewhere) || a.authenticate("bot", mine+"0") || a.authenticate("bot", mine[:len(mine)-1]) {
		t.Error("a password of another safe, or one that is nearly right, passed")
	}
	a.Safe.Lock()
	if a.authenticate("bot", mine) {
		t.Error("with the safe locked, somebody came in")
	}
}

func TestWhatSetupGrants(t *testing.T) {
	a, _ := made(t)
	g := a.granter()
	current, err := os.ReadFile(g.Path())
	if err != nil {
		t.Fatal(err)
	}
	want := setup.Grants{
		Agent: "crab", Egress: "open", TCP: []string{"127.0.0.1:5432"}, Unix: []string{"/run/postgresql"}, Publish: []int{18789},
		Credentials: []setup.Grant{{Credential: "anthropic", Hosts: []string{"api.anthropic.com"}}},
	}
	next, err := g.WithGrants(current, want)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"crab:", "127.0.0.1:5432", "/run/postgresql", "18789", "credential: anthropic"} {
		if !strings.Contains(string(next), text) {
			t.Errorf("%q is missing in\n%s", text, next)
		}
	}
	if !strings.Contains(string(next), strings.TrimSpace(string(current))) {
		t.Errorf("what stood there has changed:\n%s", next)
	}
	again, err := g.WithGrants(next, want)
	if err != nil || string(again) != string(next) {
		t.Errorf("granting twice changes the file: %v\n%s", err, again)
	}
	if _, err := g.WithGrants([]byte("agents: [\n"), want); err == nil {
		t.Error("a broken policy was edited")
	}
	if first, err := g.WithGrants(nil, want); err != nil || !strings.Contains(string(first), "crab:") {
		t.Errorf("from nothing: %v\n%s", err, first)
	}
}

func TestSecretsGoNowhereElse(t *testing.T) {
	a, _ := made(t)
	ctx := t.Context()
	if _, err := a.Allow(ctx, Allow{Agent: "bot", Secret: "anthropic", Hosts: []string{"evil.example"}}); !fail.Is(err, fail.Invalid) {
		t.Errorf("%v", err)
	}
	generic := secret.New([]byte("no entry of the catalogue knows me"))
	if _, err := a.AddSecret(ctx, NewSecret{Name: "x"}, generic); !fail.Is(err, fail.Invalid) {
		t.Errorf("a value that may go anywhere: %v", err)
	}
	if _, err := a.AddSecret(ctx, NewSecret{Name: "x", Hosts: []string{"hooks.example"}}, generic); err != nil {
		t.Error(err)
	}
	_, text := sample(t, "anthropic.api", 7)
	if _, err := a.AddSecret(ctx, NewSecret{Name: "y"}, secret.New([]byte(text))); !fail.Is(err, fail.Invalid) {
		t.Errorf("a placeholder was kept as a secret: %v", err)
	}
	for _, name := range []string{"", "A", "a b", "../x", strings.Repeat("a", 65), "a\n"} {
		if _, err := a.AddSecret(ctx, NewSecret{Name: name, Hosts: []string{"x.example"}}, generic); !fail.Is(err, fail.Invalid) {
			t.Errorf("the name %q: %v", name, err)
		}
		if _, err := a.AddAgent(ctx, NewAgent{Name: name}); !fail.Is(err, fail.Invalid) {
			t.Errorf("the agent %q: %v", name, err)
		}
	}
}

func TestProdIsNotLentToDev(t *testing.T) {
	a, _ := made(t)
	ctx := t.Context()
	value, _ := sample(t, "stripe.secret", 4)
	if _, err := a.AddSecret(ctx, NewSecret{Name: "live", Environment: credential.Prod}, secret.New([]byte(value))); err != nil {
		t.Fatal(err)
	}
	if _, err := a.AddAgent(ctx, NewAgent{Name: "try", Environment: credential.Dev, Secrets: []string{"live"}}); err != nil {
		t.Fatal(err)
	}
	ask := Question{Agent: "try", Secret: "live", Method: "GET", URL: "https://api.stripe.com/v1/balance"}
	if answer, err := a.Ask(ctx, ask); err != nil || answer.Allow || answer.Fix == "" {
		t.Errorf("%+v %v", answer, err)
	}
	if _, err := a.Allow(ctx, Allow{Agent: "try", Secret: "live", AnyEnvironment: true}); err != nil {
		t.Fatal(err)
	}
	if answer, err := a.Ask(ctx, ask); err != nil || !answer.Allow {
		t.Errorf("%+v %v", answer, err)
	}
}

func TestTheAgentOfADirectory(t *testing.T) {
	a, _ := made(t)
	ctx := t.Context()
	top := t.TempDir()
	inner := filepath.Join(top, "inner")
	if err := os.MkdirAll(filepath.Join(inner, "deep"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, dir := range map[string]string{"outer": top, "inner": inner} {
		if _, err := a.AddAgent(ctx, NewAgent{Name: name, Directory: dir}); err != nil {
			t.Fatal(err)
		}
	}
	for dir, want := range map[string]string{top: "outer", inner: "inner", filepath.Join(inner, "deep"): "inner", inner + "2": "outer", "/": "", top + "2": ""} {
		agent, err := a.agentAt(ctx, dir)
		if agent.Name != want || (want == "") != fail.Is(err, fail.NotFound) {
			t.Errorf("%s belongs to %q, not %q (%v)", dir, agent.Name, want, err)
		}
	}
	if err := a.RemoveAgent(ctx, "inner"); err != nil {
		t.Fatal(err)
	}
	if agent, err := a.agentAt(ctx, inner); err != nil || agent.Name != "outer" {
		t.Errorf("%v %v", agent.Name, err)
	}
}

func TestEveryChangeIsOnRecord(t *testing.T) {
	a, o := made(t)
	ctx := t.Context()
	if err := errors.Join(a.SetDisabled(ctx, "anthropic", true), a.SetDisabled(ctx, "anthropic", false), a.RemoveSecret(ctx, "anthropic"), a.RemoveAgent(ctx, "bot")); err != nil {
		t.Fatal(err)
	}
	events, err := LedgerFind(ctx, o, LedgerFilter{})
	if err != nil {
		t.Fatal(err)
	}
	var got []event.Kind
	for _, e := range events {
		got = append(got, e.Kind)
	}
	want := []event.Kind{event.SafeCreated, event.Put, event.AgentAdded, event.PolicyChange, event.Disabled, event.Enabled, event.Removed, event.PolicyChange, event.AgentRemoved}
	if !slices.Equal(got, want) {
		t.Errorf("%v, not %v", got, want)
	}
	if report, err := LedgerVerify(ctx, o); err != nil || !report.OK {
		t.Errorf("%+v %v", report, err)
	}
}

// Nobody else can read what lies there.
func TestFilesOfTheInstallationAreClosed(t *testing.T) {
	a, _ := made(t)
	public := []string{a.Paths.CACert(), a.Paths.LedgerPublic()}
	err := filepath.WalkDir(a.Paths.State, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		if st.Mode&0o077 != 0 && !slices.Contains(public, path) {
			t.Errorf("%s has mode %o", path, st.Mode&0o777)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestReplaceFileLeavesTheOldOneWhereItFails(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	if err := replaceFile(path, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "d"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := replaceFile(filepath.Join(dir, "d"), []byte("new"), 0o600); err == nil {
		t.Error("a directory was replaced by a file")
	}
	if err := replaceFile(filepath.Join(dir, "gone", "f"), nil, 0o600); err == nil {
		t.Error("a file was made in a directory that is not there")
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 2 {
		t.Errorf("%v %v", left, err)
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != "old" {
		t.Errorf("%q %v", text, err)
	}
}
