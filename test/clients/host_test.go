package clients

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestStartUpFilesThatAppearAreNamed(t *testing.T) {
	w := newWorld(t)
	out, _ := w.exec("run", "--", "sh", "-c", "cd $HOME; mkdir .ssh; echo x | tee .bash_profile .npmrc .ssh/authorized_keys >/dev/null")
	for _, name := range []string{".bash_profile", ".npmrc", ".ssh/authorized_keys"} {
		if !strings.Contains(out, "look at it before you log in again: "+filepath.Join(w.home, name)) {
			t.Errorf("%s was not named:\n%s", name, out)
		}
	}
	out, _ = w.exec("run", "--", "sh", "-c", "cd $HOME; echo y | tee .bash_profile .npmrc .ssh/authorized_keys; cat .npmrc .ssh/*; echo; grep -c . .bash_profile")
	if !strings.HasSuffix(out, "\n1\n") || strings.Contains(out, "appeared") {
		t.Errorf("what is there can be changed, or read:\n%s", out)
	}
	for _, name := range []string{".bash_profile", ".npmrc", ".ssh/authorized_keys"} {
		if data, err := os.ReadFile(filepath.Join(w.home, name)); err != nil || string(data) != "x\n" {
			t.Errorf("%s: %q %v", name, data, err)
		}
	}
	found, _ := w.exec("ledger", "find", "--kind", "file.changed", "--json")
	if !strings.Contains(found, "a start-up file appeared") {
		t.Errorf("it is not on record:\n%s", found)
	}
}

// A process of the same user, outside of any sandbox, can neither read the
// daemon's memory nor its environment.
func TestTheDaemonCannotBeReadByItsUser(t *testing.T) {
	w := newWorld(t)
	pid := w.serve()
	out, err := w.as("sh", "-c", `for f in mem environ maps; do head -c 1 /proc/$1/$f >/dev/null 2>&1 && echo "$f was read"; done; echo done`, "sh", strconv.Itoa(pid)).CombinedOutput()
	if err != nil || string(out) != "done\n" {
		t.Errorf("%v\n%s", err, out)
	}
}

// A terminal multiplexer runs what it is told outside: neither one that is up nor
// one that is started later is within reach. One inside works.
func TestTmuxOfTheHost(t *testing.T) {
	need(t, "tmux")
	w := newWorld(t)
	command := func(args ...string) *exec.Cmd {
		cmd := w.as("tmux", args...)
		cmd.Env = append(cmd.Env, "TERM=xterm")
		return cmd
	}
	t.Cleanup(func() {
		_ = exec.Command("sh", "-c", `TMUX_TMPDIR= true`).Run()
	})
	run := w.as(w.postern, "run", "--", "bash", "-c", `
: > ready; until [ -e go ]; do read -t 0.05 <> <(:); done
tmux new-window "touch $PWD/escaped" 2>&1
TMUX_TMPDIR=$HOME/.. tmux new-window "touch $PWD/escaped" 2>&1
tmux -S $HOME/../tmux-$(id -u)/default new-window "touch $PWD/escaped" 2>&1
TERM=xterm tmux new-session -d "touch $PWD/within; tmux wait-for -S done" && tmux wait-for done; ls /proc | grep -c '^[0-9]'`)
	var out strings.Builder
	run.Stdout, run.Stderr = &out, &out
	if err := run.Start(); err != nil {
		t.Fatal(err)
	}
	w.await("ready")
	if out, err := command("new-session", "-d", "sleep 20").CombinedOutput(); err != nil {
		t.Skipf("skipped: tmux does not run here: %v\n%s", err, out)
	}
	w.write(filepath.Join(w.dir, "go"), "")
	_ = run.Wait()
	if _, err := os.Stat(filepath.Join(w.dir, "escaped")); err == nil {
		t.Errorf("the tmux of the host did it:\n%s", &out)
	}
	if _, err := os.Stat(filepath.Join(w.dir, "within")); err != nil {
		t.Errorf("no tmux works inside:\n%s", &out)
	}
}

// await waits for a file of the agent's directory.
func (w *world) await(name string) {
	w.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); <-tick.C {
		if _, err := os.Stat(filepath.Join(w.dir, name)); err == nil {
			return
		}
	}
	w.Fatalf("%s did not appear", name)
}
