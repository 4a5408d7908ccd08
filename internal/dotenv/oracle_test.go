package dotenv

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// answer is what a real library reads from one input.
type answer struct {
	Refused bool
	Entries [][2]*string // of python-dotenv, before ${NAME} is expanded
	Values  map[string]string
}

// oracle is a real library, fetched through its package manager into a cache
// that POSTERN_TEST_CACHE names.
type oracle struct {
	dialect Dialect
	command []string // without the inputs
	suites  []string // directories of the library's own tests
}

func cacheDir(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("POSTERN_TEST_CACHE")
	if dir == "" {
		user, err := os.UserCacheDir()
		if err != nil {
			t.Skipf("SKIPPED: no cache directory for the real libraries: %v", err)
		}
		dir = filepath.Join(user, "postern-test")
	}
	return dir
}

// fetched is the cached directory name, filled by the command line where it is
// missing; "DIR" in it stands for the directory.
func fetched(t *testing.T, name string, line ...string) (string, error) {
	t.Helper()
	dir := filepath.Join(cacheDir(t), name)
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return "", err
	}
	temp, err := os.MkdirTemp(filepath.Dir(dir), ".fetching-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(temp)
	for i := range line {
		line[i] = strings.ReplaceAll(line[i], "DIR", temp)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, line[0], line[1:]...)
	cmd.Dir = temp
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%s: %w\n%s", strings.Join(line[:2], " "), err, out[max(0, len(out)-400):])
	}
	if err := os.Rename(temp, dir); err != nil {
		if _, there := os.Stat(dir); there != nil {
			return "", err
		}
	}
	return dir, nil
}

func nodeOracle(t *testing.T) oracle {
	t.Helper()
	for _, program := range []string{"node", "npm"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("SKIPPED: %v, so Node's dotenv was not asked", err)
		}
	}
	dir, err := fetched(t, "node-dotenv-18", "npm", "install", "--silent", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix", "DIR", "dotenv@18")
	if err != nil {
		t.Skipf("SKIPPED: Node's dotenv cannot be fetched: %v", err)
	}
	return oracle{dialect: Node, command: []string{"node", "testdata/oracle.cjs", dir}}
}

func pythonOracle(t *testing.T) oracle {
	t.Helper()
	if _, err := exec.LookPath("python3"); err != nil {
		t.Skipf("SKIPPED: %v, so python-dotenv was not asked", err)
	}
	dir, err := fetched(t, "python-dotenv-1", "sh", "-c", pip+" install --no-deps --target DIR 'python-dotenv>=1.2.2,<2'")
	if err != nil {
		t.Skipf("SKIPPED: python-dotenv cannot be fetched: %v", err)
	}
	return oracle{dialect: Python, command: []string{"python3", "testdata/oracle.py", dir}}
}

// withSuites adds the library's own tests. Of Node's dotenv the package of 6.0.0
// is the last that holds them; those of today only the repository has.
func (o oracle) withSuites(t *testing.T) oracle {
	t.Helper()
	commands := map[string]string{
		"node-dotenv-tests-6":   "npm pack --silent --ignore-scripts dotenv@6.0.0 && tar xzf *.tgz --strip-components=1",
		"node-dotenv-tests-git": "GIT_TERMINAL_PROMPT=0 git clone --quiet --depth 1 https://github.com/motdotla/dotenv.git x && mv x/tests tests && rm -rf x",
	}
	if o.dialect == Python {
		commands = map[string]string{
			"python-dotenv-tests-1": pip + " download --no-deps --no-binary :all: 'python-dotenv>=1.2.2,<2' && tar xzf *.tar.gz --strip-components=1",
		}
	}
	for name, command := range commands {
		dir, err := fetched(t, name, "sh", "-c", command+" && test -d tests")
		if err != nil {
			t.Logf("SKIPPED: the test inputs %s cannot be fetched: %v", name, err)
			continue
		}
		o.suites = append(o.suites, filepath.Join(dir, "tests"))
	}
	return o
}

const pip = "python3 -m pip --quiet --disable-pip-version-check"

// ask gives the real answers to the library's own test inputs and to more, in
// one process.
func (o oracle) ask(t *testing.T, more [][]byte, suites bool) (inputs [][]byte, answers []answer) {
	t.Helper()
	encoded := make([]string, 0, len(more))
	for _, m := range more {
		encoded = append(encoded, base64.StdEncoding.EncodeToString(m))
	}
	in, err := json.Marshal(encoded)
	if err != nil {
		t.Fatal(err)
	}
	line := o.command
	if suites {
		line = append(line[:len(line):len(line)], o.suites...)
	}
	cmd := exec.CommandContext(t.Context(), line[0], line[1:]...)
	cmd.Stdin = bytes.NewReader(in)
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			t.Fatalf("%v: %s", err, exit.Stderr)
		}
		t.Fatal(err)
	}
	var reply struct {
		Version string
		Inputs  []string
		Answers []answer
	}
	if err := json.Unmarshal(out, &reply); err != nil {
		t.Fatal(err)
	}
	for _, text := range append(reply.Inputs, encoded...) {
		input, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		inputs = append(inputs, input)
	}
	t.Logf("%s %s: %d inputs of its own tests, %d of ours", o.dialect.Library(), reply.Version, len(reply.Inputs), len(more))
	return inputs, reply.Answers
}
