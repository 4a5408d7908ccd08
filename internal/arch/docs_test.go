package arch_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

func read(t *testing.T, path ...string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(append([]string{"..", ".."}, path...)...))
	if errors.Is(err, fs.ErrNotExist) {
		return ""
	}
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// Each `room/file.go: name` of the walkthrough is a name declared in that file.
func TestWalkthroughNamesWhatExists(t *testing.T) {
	page := read(t, "docs", "WALKTHROUGH.md")
	named := regexp.MustCompile("`([a-z0-9_/]+\\.go)(?:: (\\w+))?`").FindAllStringSubmatch(page, -1)
	if len(named) == 0 {
		t.Fatal("the walkthrough names no file")
	}
	for _, m := range named {
		path := []string{"internal", m[1]}
		if strings.HasPrefix(m[1], "cmd/") {
			path = path[1:]
		}
		text := read(t, path...)
		declared := regexp.MustCompile(`(?m)^(func (\([^)]*\) )?|type )` + m[2] + `\b`)
		if text == "" || m[2] != "" && !declared.MatchString(text) {
			t.Errorf("docs/WALKTHROUGH.md names %s, which does not exist", m[0])
		}
	}
}

// Each claim of the threat model names a test of its room, or a story.
func TestThreatModelNamesTestsThatExist(t *testing.T) {
	page := read(t, "docs", "THREAT-MODEL.md")
	room, found := "", 0
	for _, m := range regexp.MustCompile("`(?:([a-z0-9/]+): )?((?:Test|Fuzz)\\w+|\\w+\\.txtar)`").FindAllStringSubmatch(page, -1) {
		if m[1] != "" {
			room = m[1]
		}
		found++
		switch {
		case m[2] == "TestStories":
		case strings.HasSuffix(m[2], ".txtar"):
			if read(t, "test", "script", m[2]) == "" {
				t.Errorf("docs/THREAT-MODEL.md names the story %s, which does not exist", m[2])
			}
		case !declaredIn(t, room, m[2]):
			t.Errorf("docs/THREAT-MODEL.md names %s: %s, which does not exist", room, m[2])
		}
	}
	if found == 0 {
		t.Error("the threat model names no test")
	}
}

func declaredIn(t *testing.T, room, name string) bool {
	t.Helper()
	below := "internal"
	if strings.HasPrefix(room, "test/") || strings.HasPrefix(room, "examples/") {
		below = ""
	}
	files, err := filepath.Glob(filepath.Join("..", "..", below, room, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(text), "\nfunc "+name+"(") {
			return true
		}
	}
	return false
}
