package clients

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// An agent under pm2 comes back with its placeholders, whatever pm2 does.
func TestPM2(t *testing.T) {
	place := npm(t, "pm2", filepath.Join("testdata", "pm2"))
	w := newWorld(t)
	modules := filepath.Join(filepath.Dir(w.home), "node_modules")
	w.command("cp", "-r", filepath.Join(place, "node_modules"), modules)
	w.own(modules, ordinary)
	w.write(filepath.Join(w.dir, "app.js"), `const fs = require('fs')
for (const line of fs.readFileSync('.env', 'utf8').split('\n')) { const [k, v] = line.split('='); if (k) process.env[k] = v }
fetch('https://api.openai.com/v1/models', { headers: { authorization: 'Bearer ' + process.env.OPENAI_API_KEY } })
  .then(async r => fs.appendFileSync('starts.log', r.status + ' ' + await r.text() + '\n'), e => fs.appendFileSync('starts.log', e.cause + '\n'))
setInterval(() => {}, 1000)
`)
	w.own(filepath.Join(w.dir, "app.js"), ordinary)
	pm2 := func(args ...string) string {
		cmd := w.as("node", append([]string{filepath.Join(modules, "pm2", "bin", "pm2")}, args...)...)
		cmd.Env = append(cmd.Env, "PM2_HOME="+filepath.Join(w.home, ".pm2"), "PM2_DISCRETE_MODE=true")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("pm2 %v: %v\n%s", args, err, out)
		}
		return string(out)
	}
	defer pm2("kill")
	for starts, steps := range [][][]string{
		{{"start", w.postern, "--name", "bot", "--", "run", "--", "node", "app.js"}},
		{{"restart", "bot"}},
		{{"save"}, {"kill"}, {"resurrect"}},
	} {
		for _, step := range steps {
			pm2(step...)
		}
		log := w.lines("starts.log", starts+1)
		if !strings.HasPrefix(log[starts], "200 ") {
			t.Errorf("after pm2 %v: %s", steps, log[starts])
		}
		if n := w.accepted("api.openai.com"); n != starts+1 {
			t.Errorf("after pm2 %v: %d calls with the real key", steps, n)
		}
	}
	for _, pattern := range []string{".pm2/*", ".pm2/*/*", "bot/*"} {
		files, err := filepath.Glob(filepath.Join(w.home, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			if data, err := os.ReadFile(file); err == nil && len(w.keysIn(data)) > 0 {
				t.Errorf("%s holds %v", file, w.keysIn(data))
			}
		}
	}
}

// lines waits until a file of the agent's directory has n lines.
func (w *world) lines(name string, n int) []string {
	w.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	var text string
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); <-tick.C {
		data, err := os.ReadFile(filepath.Join(w.dir, name))
		if text = string(data); err == nil && strings.Count(text, "\n") >= n {
			return strings.Split(text, "\n")
		}
	}
	logs, _ := filepath.Glob(filepath.Join(w.home, ".pm2", "logs", "*"))
	for _, log := range logs {
		data, _ := os.ReadFile(log)
		text += fmt.Sprintf("\n%s: %s", log, data)
	}
	w.Fatalf("%s has not %d lines:\n%s", name, n, text)
	return nil
}
