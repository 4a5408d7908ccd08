package arch_test

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"postern/internal/fail"
)

const (
	maxFileLines     = 500
	maxFunctionLines = 100
)

type source struct {
	path string // from the module's root
	text []byte
	file *ast.File
	set  *token.FileSet
}

func sources(t *testing.T) []source {
	t.Helper()
	root := filepath.Join("..", "..")
	var list []source
	for _, p := range modulePackages(t) {
		for _, name := range p.GoFiles {
			full := filepath.Join(p.Dir, name)
			text, err := os.ReadFile(full)
			if err != nil {
				t.Fatal(err)
			}
			set := token.NewFileSet()
			file, err := parser.ParseFile(set, full, text, parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			abs, err := filepath.Abs(root)
			if err != nil {
				t.Fatal(err)
			}
			rel, err := filepath.Rel(abs, full)
			if err != nil {
				t.Fatal(err)
			}
			list = append(list, source{rel, text, file, set})
		}
	}
	return list
}

func TestSizes(t *testing.T) {
	for _, s := range sources(t) {
		if n := bytes.Count(s.text, []byte("\n")); n > maxFileLines {
			t.Errorf("%s has %d lines, at most %d", s.path, n, maxFileLines)
		}
		for _, d := range s.file.Decls {
			f, isFunc := d.(*ast.FuncDecl)
			if !isFunc || f.Body == nil {
				continue
			}
			if n := s.set.Position(f.End()).Line - s.set.Position(f.Pos()).Line + 1; n > maxFunctionLines {
				t.Errorf("%s: %s has %d lines, at most %d", s.path, f.Name.Name, n, maxFunctionLines)
			}
		}
	}
}

func TestNoInitFunctions(t *testing.T) {
	for _, s := range sources(t) {
		for _, d := range s.file.Decls {
			if f, isFunc := d.(*ast.FuncDecl); isFunc && f.Recv == nil && f.Name.Name == "init" {
				t.Errorf("%s has an init function: hidden order, paid at every start", s.path)
			}
		}
	}
}

// revealSites are the files that may look at a value's bytes. Adding one is a
// decision for a review: reveal.txt says in a line what each does with them.
func TestRevealSites(t *testing.T) {
	listed, err := os.ReadFile("reveal.txt")
	if err != nil {
		t.Fatal(err)
	}
	allowed := map[string]bool{}
	for line := range strings.SplitSeq(string(listed), "\n") {
		if path, _, _ := strings.Cut(line, " "); path != "" && path != "#" {
			allowed[path] = false
		}
	}
	for _, s := range sources(t) {
		ast.Inspect(s.file, func(n ast.Node) bool {
			sel, isSel := n.(*ast.SelectorExpr)
			if !isSel || sel.Sel.Name != "Reveal" || s.path == "internal/secret/secret.go" {
				return true
			}
			if _, found := allowed[s.path]; !found {
				t.Errorf("%s reveals a value and is not in reveal.txt", s.path)
			}
			allowed[s.path] = true
			return true
		})
	}
	for path, used := range allowed {
		if !used {
			t.Errorf("reveal.txt names %s, which reveals nothing", path)
		}
	}
}

// Every error id has a help page, and every page an error.
func TestErrorIDsHaveHelpPages(t *testing.T) {
	pages, err := fail.Pages()
	if err != nil {
		t.Fatal(err)
	}
	id := regexp.MustCompile(`"(P-E\d{3})"`)
	used := map[string]bool{}
	for _, s := range sources(t) {
		for _, m := range id.FindAllSubmatch(s.text, -1) {
			used[string(m[1])] = true
			if _, found := pages[string(m[1])]; !found {
				t.Errorf("%s uses %s, which has no help page in internal/fail/codes", s.path, m[1])
			}
		}
	}
	var unused []string
	for name := range pages {
		if !used[name] {
			unused = append(unused, name)
		}
	}
	slices.Sort(unused)
	if len(unused) > 0 {
		t.Errorf("help pages of no error: %v", unused)
	}
}
