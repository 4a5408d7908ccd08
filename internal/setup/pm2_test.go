package setup

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// pm2App is what the test looks at in a written ecosystem file.
type pm2App struct {
	Name        string   `json:"name"`
	CWD         string   `json:"cwd"`
	Script      string   `json:"script"`
	Args        []string `json:"args"`
	Interpreter string   `json:"interpreter"`
	Mode        string   `json:"exec_mode"`
	Instances   int      `json:"instances"`
	Memory      string   `json:"max_memory_restart"`
	Ready       bool     `json:"wait_ready"`
}

func TestEcosystemFileWrapsEveryProgram(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("node"); err != nil {
		t.Skipf("SKIPPED: %v, so the ecosystem file was not loaded", err)
	}
	dir := filepath.Join(t.TempDir(), "bots")
	if err := os.MkdirAll(filepath.Join(dir, "py"), 0o700); err != nil {
		t.Fatal(err)
	}
	put(t, dir, ".env", "STRIPE_SECRET_KEY="+stripeKey()+"\n", 0o600)
	for _, name := range []string{"bot.js", "py/bot.py", "tool"} {
		put(t, dir, name, "", 0o700)
	}
	put(t, dir, "ecosystem.config.js", `module.exports = {apps: [
		{name: 'one', script: './bot.js', node_args: '--enable-source-maps', args: 'a "b c"', instances: 'max', exec_mode: 'cluster', wait_ready: true, max_memory_restart: '1G'},
		{script: 'bot.py', cwd: 'py'}, {name: 'three', script: 'npm', args: ['run', 'start']}, {name: 'four', script: './tool', instances: 2, exec_mode: 'fork'},
		{name: 'five', script: 'bot.js', interpreter: 'deno', interpreter_args: ['run']}, {name: 'six', script: 'node bot.js --fast'}]}`, 0o644)
	before := snap(t, dir)
	h := home{dir: t.TempDir()}
	h.apply(t, dir)
	out, err := exec.CommandContext(t.Context(), "node", "-p", "JSON.stringify(require(process.argv[1]).apps)", filepath.Join(dir, pm2Name)).Output()
	if err != nil {
		t.Fatal(err)
	}
	var got []pm2App
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatal(err)
	}
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		t.Fatal(err)
	}
	app := func(name, sub string, command ...string) pm2App {
		return pm2App{Name: name, CWD: filepath.Join(real, sub), Script: "postern", Args: append([]string{"run", "--agent", "bots", "--"}, command...), Interpreter: "none", Mode: "fork"}
	}
	want := []pm2App{
		app("one", "", "node", "--enable-source-maps", "./bot.js", "a", "b c"), app("bot", "py", "python3", "bot.py"), app("three", "", "npm", "run", "start"),
		app("four", "", filepath.Join(real, "tool")), app("five", "", "deno", "run", "bot.js"), app("six", "", "bash", "-c", "node bot.js --fast"),
	}
	want[0].Memory, want[3].Instances = "1G", 2
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if again := h.apply(t, dir); !again.Nothing {
		t.Errorf("the second setup did %+v", again)
	}
	h.undo(t)
	same(t, "after undo", snap(t, dir), before)
}

func TestEcosystemFileOfSomebodyElseStays(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	put(t, dir, ".env", "STRIPE_SECRET_KEY="+stripeKey()+"\n", 0o600)
	put(t, dir, "ecosystem.config.js", "", 0o644)
	put(t, dir, pm2Name, "// mine", 0o644)
	h := home{dir: t.TempDir()}
	if p := h.plan(t, dir); len(p.Problems) != 1 || p.Problems[0].File != pm2Name {
		t.Errorf("problems %v", p.Problems)
	}
	h.apply(t, dir)
	if got := get(t, dir, pm2Name); got != "// mine" {
		t.Errorf("got %q", got)
	}
}

// pm2 is the real one, fetched into the cache of the tests.
func pm2(t *testing.T) string {
	t.Helper()
	for _, program := range []string{"node", "npm"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("SKIPPED: %v, so pm2 was not tried", err)
		}
	}
	dir := os.Getenv("POSTERN_TEST_CACHE")
	if dir == "" {
		user, err := os.UserCacheDir()
		if err != nil {
			t.Skipf("SKIPPED: no cache directory for pm2: %v", err)
		}
		dir = filepath.Join(user, "postern-test")
	}
	bin := filepath.Join(dir, "pm2-7", "node_modules", ".bin", "pm2")
	if _, err := os.Stat(bin); err == nil {
		return bin
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	temp, err := os.MkdirTemp(dir, ".fetching-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(temp)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "npm", "install", "--silent", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix", temp, "pm2@7")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Skipf("SKIPPED: pm2 cannot be fetched: %v\n%s", err, out[max(0, len(out)-400):])
	}
	if err := os.Rename(temp, filepath.Join(dir, "pm2-7")); err != nil {
		if _, there := os.Stat(bin); there != nil {
			t.Fatal(err)
		}
	}
	return bin
}

// The programs stay wrapped over restart, save and resurrect of the real pm2.
func TestPM2StartsWhatTheEcosystemFileSays(t *testing.T) {
	t.Parallel()
	bin, dir, tools := pm2(t), filepath.Join(t.TempDir(), "bot"), t.TempDir()
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	put(t, dir, ".env", "STRIPE_SECRET_KEY="+stripeKey()+"\n", 0o600)
	put(t, dir, "bot.js", "", 0o600)
	put(t, dir, "ecosystem.config.js", "module.exports = {apps: [{name: 'bot', script: 'bot.js', args: 'fast'}]}", 0o644)
	(home{dir: t.TempDir()}).apply(t, dir)
	// Stands for postern: says how it was started, in one write, and stays.
	put(t, tools, "postern", "#!/bin/sh\necho \"$@\" >>"+filepath.Join(tools, "starts")+"\nexec sleep 1000\n", 0o700)
	if err := os.Mkdir(filepath.Join(tools, "home"), 0o700); err != nil {
		t.Fatal(err)
	}
	run := func(ctx context.Context, args ...string) {
		t.Helper()
		cmd := exec.CommandContext(ctx, bin, args...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "PM2_HOME="+filepath.Join(tools, "home"), "PATH="+tools+":"+os.Getenv("PATH"))
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("pm2 %v: %v\n%s", args, err, out)
		}
	}
	defer run(context.WithoutCancel(t.Context()), "kill", "--silent")
	for _, line := range []string{"start postern.config.cjs", "restart bot", "save", "kill", "resurrect"} {
		run(t.Context(), append(strings.Fields(line), "--silent")...)
	}
	want := strings.Repeat("run --agent bot -- node bot.js fast\n", 3)
	for range 100 { // the last start is not waited for by pm2
		if get(t, tools, "starts") == want {
			return
		}
		select {
		case <-t.Context().Done():
		case <-time.After(50 * time.Millisecond):
		}
	}
	t.Errorf("started as\n%s", get(t, tools, "starts"))
}
