package setup

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"

	"postern/internal/catalog"
	"postern/internal/dotenv"
	"postern/internal/fail"
	"postern/internal/placeholder"
)

// maxOther bounds the files that are only looked at.
const maxOther = 1 << 20

// Found is what lies in a directory.
type Found struct {
	Dir      string         // absolute, without symbolic links
	Dialect  dotenv.Dialect // how the project's own loader reads its files
	Why      string         // why that one
	Files    []EnvFile      // by name, ".env" first
	Others   []Other        // seen, never changed
	Problems []fail.Problem // files that cannot be protected, with the reason
	Git      bool           // inside a git work tree
}

// EnvFile is one .env file that was read.
type EnvFile struct {
	Name string // within Dir
	snap dotenv.Snapshot
	file *dotenv.File
}

// Other is a file of an agent's surroundings that setup reports only.
type Other struct {
	Name string `json:"name"`
	What string `json:"what"` // "pm2", "openclaw", "compose"
	// Lines hold something that looks like a key, by number.
	Lines []int `json:"lines,omitempty"`
	path  string
}

// Find looks through dir, not below it, and reads its .env files. A .env that
// cannot be read is an error; any other file becomes a problem.
func Find(dir string) (Found, error) {
	real, err := resolve(dir)
	if err != nil {
		return Found{}, err
	}
	entries, err := os.ReadDir(real)
	if err != nil {
		return Found{}, fail.New(fail.Invalid, "P-E040", "cannot look into %s", dir).Wrap(err)
	}
	found := Found{Dir: real, Git: inGit(real)}
	found.Dialect, found.Why = dotenv.DetectWhy(real)
	for _, entry := range entries {
		name := entry.Name()
		if what := otherKind(name); what != "" {
			found.Others = append(found.Others, look(real, name, what))
		}
		if !isEnvName(name) || entry.IsDir() && name != ".env" {
			continue
		}
		one, err := readEnv(filepath.Join(real, name), found.Dialect)
		if err != nil && name == ".env" {
			return Found{}, err
		}
		if err != nil {
			found.Problems = append(found.Problems, problem(name, err))
			continue
		}
		found.Files = append(found.Files, one)
	}
	sortFiles(found.Files)
	found.Files = withoutLinks(found.Files)
	return found, nil
}

// withoutLinks leaves out names that lead to a file named before.
func withoutLinks(files []EnvFile) []EnvFile {
	seen := map[string]bool{}
	return slices.DeleteFunc(files, func(f EnvFile) bool {
		again := seen[f.snap.Path]
		seen[f.snap.Path] = true
		return again
	})
}

func sortFiles(files []EnvFile) {
	slices.SortStableFunc(files, func(a, b EnvFile) int {
		switch {
		case a.Name == ".env":
			return -1
		case b.Name == ".env":
			return 1
		}
		return strings.Compare(a.Name, b.Name)
	})
}

func resolve(dir string) (string, error) {
	abs, err := filepath.Abs(dir)
	if err == nil {
		abs, err = filepath.EvalSymlinks(abs)
	}
	if err != nil {
		kind := fail.Invalid
		if errors.Is(err, fs.ErrNotExist) {
			kind = fail.NotFound
		}
		return "", fail.New(kind, "P-E040", "cannot look into %s", dir).Wrap(err).
			Hint("postern setup DIR   with the directory of the agent")
	}
	return abs, nil
}

func readEnv(path string, d dotenv.Dialect) (EnvFile, error) {
	snap, err := dotenv.Read(path)
	if err != nil {
		return EnvFile{}, err
	}
	if snap.Links > 1 {
		return EnvFile{}, fail.New(fail.Invalid, "P-E050", "will not change %s", path).
			Because("it has %d names (hard links), and the others would keep the values", snap.Links).
			Hint("find . -samefile %s   shows them; make it a file of its own", path)
	}
	file, err := dotenv.Parse(snap.Data, d)
	if err != nil {
		return EnvFile{}, named(err, "could not read %s as a .env file", path)
	}
	return EnvFile{Name: filepath.Base(path), snap: snap, file: file}, nil
}

// named gives an error of dotenv, which knows only bytes, the file it is about.
func named(err error, format string, args ...any) error {
	var e *fail.Error
	if errors.As(err, &e) {
		e.Text = fmt.Sprintf(format, args...)
	}
	return err
}

// problem says why a file is left alone, with the line where the reason has one.
func problem(name string, err error) fail.Problem {
	var many fail.Problems
	if errors.As(err, &many) && len(many) > 0 {
		one := many[0]
		one.File = name
		return one
	}
	p := fail.Problem{File: name, Text: err.Error()}
	var e *fail.Error
	if errors.As(err, &e) {
		if p.Text = e.Why; p.Text == "" {
			p.Text = e.Text
		}
		if len(e.Next) > 0 {
			p.Hint = e.Next[0]
		}
	}
	return p
}

// isTemplate says whether a file is meant to be shared, by its ending.
func isTemplate(name string) bool {
	for _, ending := range []string{".example", ".sample", ".template", ".dist", ".defaults"} {
		if strings.HasSuffix(name, ending) || strings.Contains(name, ending+".") {
			return true
		}
	}
	return false
}

// isEnvName says whether a file of that name is read as a .env file: .env,
// .env.local, .env.bak, .env~, env.bak, prod.env.
func isEnvName(name string) bool {
	if isTemplate(name) || strings.HasPrefix(name, ".postern-") {
		return false
	}
	switch {
	case name == ".env", strings.HasPrefix(name, ".env."), strings.HasPrefix(name, ".env-"), strings.HasPrefix(name, ".env_"),
		strings.HasPrefix(name, ".env~"), name == "env", strings.HasPrefix(name, "env."), name == ".envrc":
		return !isSource(name)
	}
	return strings.HasSuffix(name, ".env")
}

// isSource leaves out program files such as env.ts.
func isSource(name string) bool {
	switch filepath.Ext(name) {
	case ".js", ".cjs", ".mjs", ".ts", ".mts", ".py", ".go", ".rb", ".rs", ".sh", ".json", ".yaml", ".yml", ".toml", ".md", ".php", ".java", ".d":
		return true
	}
	return false
}

func otherKind(name string) string {
	switch name {
	case "ecosystem.config.js", "ecosystem.config.cjs", "ecosystem.config.mjs", "ecosystem.config.json", "ecosystem.json", "pm2.json":
		return "pm2"
	case "docker-compose.yml", "docker-compose.yaml", "compose.yml", "compose.yaml":
		return "compose"
	case "openclaw.json":
		return "openclaw"
	}
	return ""
}

// look notes a file that is not changed this time. What it holds is counted
// by the plan, which knows the kinds.
func look(dir, name, what string) Other {
	return Other{Name: name, What: what, path: filepath.Join(dir, name)}
}

// suspicious gives the lines of an Other on which a key seems to stand.
func (o Other) suspicious(kinds Identifier) ([]int, error) {
	f, err := os.OpenFile(o.path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxOther {
		return nil, fmt.Errorf("it is not an ordinary file of at most %d MiB", maxOther>>20)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxOther))
	if err != nil {
		return nil, err
	}
	// NAME: "value" and NAME=value, in files of any syntax.
	assignment := regexp.MustCompile(`["']?([A-Za-z_][A-Za-z0-9_]*)["']?\s*[:=]\s*["']?([^\s"'` + "`" + `,;#]{12,})`)
	var lines []int
	number := 0
	for line := range strings.SplitSeq(string(data), "\n") {
		number++
		for _, m := range assignment.FindAllStringSubmatch(line, -1) {
			match, found := kinds.Identify(m[1], m[2])
			if found && match.Confidence != catalog.Low && !placeholder.Is(m[2]) {
				lines = append(lines, number)
				break
			}
		}
	}
	return lines, nil
}

// inGit says whether dir is inside a git work tree.
func inGit(dir string) bool {
	for {
		if _, err := os.Lstat(filepath.Join(dir, ".git")); err == nil {
			return true
		}
		up := filepath.Dir(dir)
		if up == dir {
			return false
		}
		dir = up
	}
}
