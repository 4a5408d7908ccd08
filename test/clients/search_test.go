package clients

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// forms are the ways in which a key may lie somewhere; in base64 without what
// depends on its neighbours.
func forms(key string) [][]byte {
	inHex := hex.EncodeToString([]byte(key))
	percent := ""
	for i := 0; i < len(inHex); i += 2 {
		percent += "%" + inHex[i:i+2]
	}
	list := []string{key, inHex, strings.ToUpper(inHex), url.QueryEscape(key), percent, strings.ToUpper(percent)}
	for _, alphabet := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
		for phase := range 3 {
			text := alphabet.EncodeToString([]byte(strings.Repeat("\x00", phase) + key))
			list = append(list, text[(phase*8+5)/6:(phase+len(key))*8/6])
		}
	}
	var all [][]byte
	for _, form := range list {
		all = append(all, []byte(form))
	}
	return all
}

// keysIn names the variables whose key stands in data.
func (w *world) keysIn(data []byte) []string {
	var found []string
	for name, key := range w.keys {
		if slices.ContainsFunc(forms(key), func(form []byte) bool { return bytes.Contains(data, form) }) {
			found = append(found, name)
		}
	}
	return found
}

// below are the processes that pid started, directly or not.
func below(pid int) []int {
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		return nil
	}
	var all []int
	for _, task := range tasks {
		data, err := os.ReadFile(task)
		if err != nil {
			continue
		}
		for _, field := range strings.Fields(string(data)) {
			if child, err := strconv.Atoi(field); err == nil {
				all = append(append(all, child), below(child)...)
			}
		}
	}
	return all
}

// memory calls see with each readable part of a process's memory.
func memory(pid int, see func([]byte)) error {
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return err
	}
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		return err
	}
	defer mem.Close()
	for line := range strings.Lines(string(maps)) {
		var from, to int64
		var mode string
		if n, _ := fmt.Sscanf(line, "%x-%x %s", &from, &to, &mode); n != 3 || mode[0] != 'r' || strings.Contains(line, "[v") || to-from > 64<<20 {
			continue // a huge one is address space that was set aside
		}
		part := make([]byte, to-from)
		n, _ := mem.ReadAt(part, from) // a hole ends it
		see(part[:n])
	}
	return nil
}

// While clients hold answers that quoted the keys: their environments, memory and
// files, and all that they received, have placeholders and no key in any form.
func TestNoKeyInMemoryFilesOrEnvironment(t *testing.T) {
	need(t, "node")
	need(t, "curl")
	w := newWorld(t)
	run := w.as(w.postern, "run", "--", "bash", "-c", `set -a; . ./.env; set +a
node -e 'fetch("https://api.openai.com/v1/models", {headers: {authorization: "Bearer " + process.env.OPENAI_API_KEY}})
  .then(async r => { globalThis.kept = [r.status, [...r.headers], await r.text()]; require("fs").writeFileSync("node.got", JSON.stringify(kept)); setInterval(() => kept, 1000) })' &
python3 -c 'import os, time, urllib.request
r = urllib.request.Request("https://api.anthropic.com/v1/models", headers={"x-api-key": os.environ["ANTHROPIC_API_KEY"]})
a = urllib.request.urlopen(r, timeout=15); kept = (a.headers.items(), a.read()); open("python.got", "w").write(repr(kept)); time.sleep(60)' &
until [ -s node.got ] && { [ -s python.got ] || ! command -v python3 >/dev/null; }; do read -t 0.05 <> <(:); done
: > ready; wait`)
	var said strings.Builder
	run.Stdout, run.Stderr = &said, &said
	if err := run.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = run.Process.Signal(syscall.SIGTERM); _ = run.Wait() }()
	w.await("ready")
	held, err := os.ReadFile(filepath.Join(w.dir, ".env"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(held), "OPENAI_API_KEY=")
	placeholder, _, _ := strings.Cut(rest, "\n")
	seen := 0
	look := func(place string, data []byte) {
		if bytes.Contains(data, []byte(placeholder)) {
			seen++
		}
		if names := w.keysIn(data); len(names) > 0 {
			t.Errorf("%s holds %v", place, names)
		}
	}
	processes := below(run.Process.Pid)
	if len(processes) < 3 {
		t.Fatalf("only %d processes:\n%s", len(processes), &said)
	}
	for _, pid := range processes {
		name, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
		place := strings.TrimSpace(string(name))
		if environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid)); err == nil {
			look("the environment of "+place, environ)
		}
		err := memory(pid, func(part []byte) { look("the memory of "+place, part) })
		if err != nil && !(os.Geteuid() != 0 && pid == processes[0]) { // the first one lets root look only
			t.Errorf("%s: %v", place, err)
		}
	}
	err = filepath.WalkDir(w.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		look(path, data)
		return err
	})
	if err != nil {
		t.Error(err)
	}
	if seen < 4 { // .env, environments, memory
		t.Errorf("the search is blind: it found the placeholder in %d places", seen)
	}
}

// When `postern run` is killed, nothing that it started goes on; when the command
// ends, neither does what it left behind.
func TestNothingOutlivesRun(t *testing.T) {
	const many = `(setsid sleep 1000 &); nohup sleep 1000 >/dev/null 2>&1 & disown; (trap "" TERM HUP; sleep 1000) & : > ready; `
	for _, c := range []struct {
		name, then string
		end        syscall.Signal
	}{{"run is killed", "wait", syscall.SIGKILL}, {"the command is ended", "wait", syscall.SIGTERM}, {"the command ends", "until [ -e go ]; do read -t 0.02 <> <(:); done", 0}} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			run := w.as(w.postern, "run", "--", "bash", "-c", many+c.then)
			if err := run.Start(); err != nil {
				t.Fatal(err)
			}
			w.await("ready")
			inside := below(run.Process.Pid)
			if len(inside) < 5 {
				t.Fatalf("only %d processes inside", len(inside))
			}
			if c.end != 0 {
				_ = run.Process.Signal(c.end)
			}
			w.write(filepath.Join(w.dir, "go"), "")
			_ = run.Wait()
			tick := time.NewTicker(10 * time.Millisecond)
			defer tick.Stop()
			for deadline := time.Now().Add(5 * time.Second); ; <-tick.C {
				left := slices.DeleteFunc(slices.Clone(inside), gone)
				if len(left) == 0 {
					return
				}
				if time.Now().After(deadline) {
					t.Fatalf("%v go on", left)
				}
			}
		})
	}
}

// gone says whether a process has ended.
func gone(pid int) bool {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return true
	}
	_, state, _ := strings.Cut(string(data), ") ")
	return strings.HasPrefix(state, "Z") || strings.HasPrefix(state, "X")
}
