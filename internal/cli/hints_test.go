package cli

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

const rootDir = "../.."

// literals calls look with every string of the code that begins with "postern ",
// and where it stands.
func literals(t *testing.T, look func(at, text string)) {
	t.Helper()
	err := filepath.WalkDir(filepath.Join(rootDir, "internal"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		set := token.NewFileSet()
		file, err := parser.ParseFile(set, path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			literal, isLiteral := n.(*ast.BasicLit)
			if !isLiteral || literal.Kind != token.STRING {
				return true
			}
			if text, err := strconv.Unquote(literal.Value); err == nil && strings.HasPrefix(text, "postern ") {
				look(strings.TrimPrefix(set.Position(literal.Pos()).String(), rootDir+"/"), text)
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Every "next" that an error, a refusal or a screen prints can be typed.
func TestHintsAreCommandLines(t *testing.T) {
	prose := regexp.MustCompile(`^postern (refused|placeholder|%s \()`) // not commands
	verb := regexp.MustCompile(`%[sdqv]`)
	checked := 0
	literals(t, func(at, text string) {
		if prose.MatchString(text) || strings.Contains(text, "\n") {
			return
		}
		line := verb.ReplaceAllString(text, "1")
		begins := strings.HasSuffix(text, " ") // the rest is put behind it
		for _, one := range ours(line) {
			if err := understood(one, begins); err != nil {
				t.Errorf("%s: %q: %v", at, text, err)
			}
			checked++
		}
	})
	if checked < 50 {
		t.Errorf("only %d command lines were found: the search is broken", checked)
	}
}

// spans are the code spans and the lines of code blocks of a Markdown text.
func spans(text string) (inline, blocks []string) {
	fenced := false
	span := regexp.MustCompile("`([^`\n]+)`")
	for line := range strings.SplitSeq(text, "\n") {
		switch {
		case strings.HasPrefix(strings.TrimSpace(line), "```"):
			fenced = !fenced
		case fenced, strings.HasPrefix(line, "    "):
			blocks = append(blocks, strings.TrimPrefix(line, "    "))
		default:
			for _, m := range span.FindAllStringSubmatch(line, -1) {
				inline = append(inline, m[1])
			}
		}
	}
	return inline, blocks
}

func documents(t *testing.T) map[string]string {
	t.Helper()
	texts := map[string]string{}
	for _, pattern := range []string{"*.md", "docs/*.md", "docs/decisions/*.md", "examples/*/*.md", "internal/fail/codes/*.txt"} {
		files, err := filepath.Glob(filepath.Join(rootDir, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			texts[strings.TrimPrefix(file, rootDir+"/")] = string(text)
		}
	}
	if texts["README.md"] == "" {
		t.Fatal("README.md was not found")
	}
	return texts
}

func TestDocumentsHoldCommandLinesThatWork(t *testing.T) {
	for file, text := range documents(t) {
		inline, blocks := spans(text)
		for _, line := range blocks {
			if strings.ContainsAny(line, "─│├└┌") { // a drawing
				continue
			}
			if err := checkLine(line); err != nil {
				t.Errorf("%s: %v", file, err)
			}
		}
		for _, line := range inline {
			if !strings.HasPrefix(line, "postern ") || strings.ContainsAny(line, "|") || strings.HasPrefix(line, "postern COMMAND") {
				continue
			}
			if err := understood(line, true); err != nil {
				t.Errorf("%s: `%s`: %v", file, line, err)
			}
		}
	}
}

func TestDocumentsNameMakeTargetsThatExist(t *testing.T) {
	makefile, err := os.ReadFile(filepath.Join(rootDir, "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	targets := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^([a-z][a-z-]*):`).FindAllStringSubmatch(string(makefile), -1) {
		targets[m[1]] = true
	}
	named := regexp.MustCompile(`^(?:[A-Z_]+=\S+ )*make((?: [A-Za-z_]+=\S+)*) ([a-z-]+)`)
	for file, text := range documents(t) {
		inline, blocks := spans(text)
		for _, line := range append(inline, blocks...) {
			if m := named.FindStringSubmatch(strings.TrimPrefix(line, "$ ")); m != nil && !targets[m[2]] {
				t.Errorf("%s: %q: the Makefile has no target %s", file, line, m[2])
			}
		}
	}
}
