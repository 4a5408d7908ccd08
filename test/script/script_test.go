// Package script holds the stories: what a user types and what comes back. Each
// runs the real binary in a directory and a home of its own.
package script

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"postern/internal/catalog"
)

// binaries are built once for all stories.
func binaries(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.Command("go", "build", "-trimpath", "-o", dir, "postern/cmd/postern", "postern/cmd/postern-fake")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("building postern: %v\n%s", err, out)
	}
	return dir
}

func TestStories(t *testing.T) {
	dir := binaries(t)
	testscript.Run(t, testscript.Params{
		Dir: ".",
		Setup: func(e *testscript.Env) error {
			home := filepath.Join(e.WorkDir, "home")
			for _, d := range []string{home, filepath.Join(e.WorkDir, "runtime")} {
				if err := os.Mkdir(d, 0o700); err != nil {
					return err
				}
			}
			e.Setenv("HOME", home)
			e.Setenv("XDG_RUNTIME_DIR", filepath.Join(e.WorkDir, "runtime"))
			e.Setenv("POSTERN_HOME", filepath.Join(home, ".postern"))
			e.Setenv("BIN", dir)
			e.Setenv("PATH", dir+string(os.PathListSeparator)+os.Getenv("PATH"))
			e.Setenv("NO_COLOR", "1")
			e.Setenv("LANG", "C.UTF-8")
			e.Values[keysName] = &keys{}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"fill": fill, "nokeys": noKeys, "mode": mode, "exits": exits, "serve": serve, "fakes": fakes,
			"fifo": fifo, "big": big, "flip": flip,
		},
		Condition: func(name string) (bool, error) {
			switch name {
			case "root":
				return os.Geteuid() == 0, nil
			case "namespaces":
				return exec.Command("unshare", "--user", "--net", "true").Run() == nil, nil
			}
			return false, fmt.Errorf("unknown condition %q", name)
		},
	})
}

const keysName = "keys"

// keys are the values that were made for one story.
type keys struct{ values []string }

// fill replaces {{KIND}} in files by a fresh value of that kind, the same one
// for the same mark throughout a story; {{KIND 2}} is another one, {{KIND real}}
// one that may stay in the files.
func fill(ts *testscript.TestScript, neg bool, files []string) {
	if neg || len(files) == 0 {
		ts.Fatalf("usage: fill FILE…")
	}
	kinds, err := catalog.Open("")
	ts.Check(err)
	made := ts.Value(keysName).(*keys)
	for _, name := range files {
		text := ts.ReadFile(name)
		for {
			start := strings.Index(text, "{{")
			if start < 0 {
				break
			}
			end := start + strings.Index(text[start:], "}}")
			mark := text[start+2 : end]
			if ts.Getenv(variable(mark)) == "" {
				value, err := sample(kinds, strings.Fields(mark)[0])
				ts.Check(err)
				ts.Setenv(variable(mark), value)
				if !strings.HasSuffix(mark, " real") {
					made.values = append(made.values, value)
				}
			}
			text = strings.ReplaceAll(text, "{{"+mark+"}}", ts.Getenv(variable(mark)))
		}
		ts.Check(os.WriteFile(ts.MkAbs(name), []byte(text), 0o644))
	}
}

// variable is where the value of a mark stands in the environment of a story.
func variable(mark string) string {
	return "KEY_" + strings.NewReplacer(".", "_", "-", "_", " ", "_").Replace(mark)
}

// sample is a value of the first form that the kind is recognised by; "random"
// is 24 letters and digits of no kind.
func sample(kinds *catalog.Catalog, id string) (string, error) {
	form := "{alnum:24}"
	if id != "random" {
		kind, err := kinds.Kind(id)
		if err != nil {
			return "", err
		}
		form = kind.Detect.Match[0]
	}
	template, err := catalog.ParseTemplate(form)
	if err != nil {
		return "", err
	}
	var seed [32]byte
	for i := range seed {
		seed[i] = byte(rand.Uint32())
	}
	return template.Generate(rand.NewChaCha8(seed))
}

// noKeys fails where a made value stands in a file below the directories, as it
// is, in base64 or in hex. Negated, it fails where none does.
func noKeys(ts *testscript.TestScript, neg bool, dirs []string) {
	var found []string
	for _, dir := range dirs {
		ts.Check(filepath.WalkDir(ts.MkAbs(dir), func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			for _, value := range ts.Value(keysName).(*keys).values {
				if holds(data, []byte(value)) {
					found = append(found, fmt.Sprintf("%s holds …%s", path, value[len(value)-4:]))
				}
			}
			return nil
		}))
	}
	if neg && len(found) == 0 {
		ts.Fatalf("no key stands in %v", dirs)
	}
	if !neg && len(found) > 0 {
		ts.Fatalf("%s", strings.Join(found, "\n"))
	}
}

func holds(data, value []byte) bool {
	plain := base64.RawStdEncoding.EncodeToString(value)
	return bytes.Contains(data, value) || bytes.Contains(data, []byte(plain[:len(plain)-2])) ||
		bytes.Contains(data, []byte(hex.EncodeToString(value)))
}

// mode checks the permission bits of files: mode 600 FILE….
func mode(ts *testscript.TestScript, neg bool, words []string) {
	if neg || len(words) < 2 {
		ts.Fatalf("usage: mode BITS FILE…")
	}
	for _, name := range words[1:] {
		info, err := os.Stat(ts.MkAbs(name))
		ts.Check(err)
		if got := fmt.Sprintf("%o", info.Mode().Perm()); got != words[0] {
			ts.Fatalf("%s has mode %s, not %s", name, got, words[0])
		}
	}
}
