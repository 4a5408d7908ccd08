package arch_test

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
)

const module = "postern/"

type pkg struct {
	ImportPath string
	Dir        string
	Doc        string
	Imports    []string
	Deps       []string
	GoFiles    []string
}

// packages lists the packages of this module as the go command sees them.
var packages = sync.OnceValues(func() ([]pkg, error) {
	out, err := exec.Command("go", "list", "-json=ImportPath,Dir,Doc,Imports,Deps,GoFiles", "postern/...").Output()
	if err != nil {
		return nil, err
	}
	var all []pkg
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return all, nil
		} else if err != nil {
			return nil, err
		}
		all = append(all, p)
	}
})

func modulePackages(t *testing.T) []pkg {
	t.Helper()
	all, err := packages()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	return all
}

// arrow forbids an import. From and To are rooms below internal/, or whole
// import paths where they hold a dot or no room has the name; a room covers its
// subfolders. Deep forbids the indirect import as well.
type arrow struct {
	from, to []string
	except   []string
	deep     bool
	reason   string
}

var features = []string{"setup", "safe", "policy", "broker", "run"}

func arrows() []arrow {
	list := []arrow{
		{from: []string{"*"}, to: []string{"cli"}, except: []string{"cmd"}, reason: "nobody imports the commands"},
		{from: []string{"*"}, to: []string{"app"}, except: []string{"cli", "cmd"}, reason: "nobody imports the wiring"},
		{from: []string{"*"}, to: []string{"database/sql", "modernc.org/sqlite"}, except: []string{"store"}, reason: "one place for SQL"},
		{from: []string{"*"}, to: []string{"github.com/spf13/cobra"}, except: []string{"cli"}, reason: "the command library is replaceable in one room"},
		{from: []string{"*"}, to: []string{"github.com/goccy/go-yaml"}, except: []string{"strictyaml"}, reason: "the YAML library is replaceable in one room"},
		{from: []string{"*"}, to: []string{"golang.org/x/term"}, except: []string{"term", "run"}, reason: "terminals are met in term, and in run for the child's"},
		{from: features, to: []string{"store", "ledger"}, deep: true, reason: "features see their own small interfaces"},
		{from: []string{"catalog"}, to: []string{"*"}, except: []string{"fail", "strictyaml", "catalog"}, reason: "facts depend on nothing"},
		{from: []string{"secret", "credential", "fail", "strictyaml", "dotenv", "term", "change", "netclass"}, to: []string{"catalog", "placeholder", "redact", "ca", "config", "event"}, reason: "the ground knows no facts"},
		{from: []string{"*"}, to: []string{"fake"}, except: []string{"fake", "test", "cmd/postern-fake", "examples/demo"}, reason: "production code never meets a fake"},
	}
	for _, from := range features {
		others := slices.DeleteFunc(slices.Clone(features), func(s string) bool { return s == from })
		list = append(list, arrow{from: []string{from}, to: others, deep: true, reason: "features meet in app or by event"})
	}
	return list
}

func room(path string) string {
	path = strings.TrimPrefix(path, module)
	path = strings.TrimPrefix(path, "internal/")
	return path
}

func inRoom(path string, rooms []string) bool {
	own := strings.HasPrefix(path, module)
	name := room(path)
	for _, r := range rooms {
		if r == "*" && own || name == r || strings.HasPrefix(name, r+"/") {
			return true
		}
	}
	return false
}

func TestForbiddenArrows(t *testing.T) {
	all := modulePackages(t)
	for _, a := range arrows() {
		for _, p := range all {
			if !inRoom(p.ImportPath, a.from) || inRoom(p.ImportPath, a.except) {
				continue
			}
			targets := p.Imports
			if a.deep {
				targets = p.Deps
			}
			for _, target := range targets {
				if inRoom(target, a.to) && !inRoom(target, a.except) && target != p.ImportPath {
					t.Errorf("%s imports %s: %s", p.ImportPath, target, a.reason)
				}
			}
		}
	}
}

// A rule about a room that no longer exists protects nothing.
func TestArrowsNameRoomsThatExist(t *testing.T) {
	all := modulePackages(t)
	known := map[string]bool{}
	for _, p := range all {
		for _, d := range append([]string{p.ImportPath}, p.Deps...) {
			for name := room(d); name != ""; {
				known[name] = true
				i := strings.LastIndexByte(name, '/')
				name = name[:max(i, 0)]
			}
		}
	}
	for _, a := range arrows() {
		for _, name := range slices.Concat(a.from, a.to) {
			if name != "*" && !known[name] {
				t.Errorf("the rule %q names %q, which does not exist", a.reason, name)
			}
		}
	}
}

func TestEveryPackageHasOneComment(t *testing.T) {
	for _, p := range modulePackages(t) {
		if len(p.GoFiles) > 0 && p.Doc == "" {
			t.Errorf("%s has no package comment", p.ImportPath)
		}
	}
}
