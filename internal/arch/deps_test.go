package arch_test

import (
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestMain(m *testing.M) {
	flag.Bool("update", false, "write deps.txt anew")
	flag.Parse()
	os.Exit(m.Run())
}

// deps.txt lists every package outside the standard library that the binary
// links, so that a new one is seen in a review.
func TestDepsAreListed(t *testing.T) {
	list := exec.Command("go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", "postern/cmd/postern")
	list.Env = append(os.Environ(), "GOOS=linux", "GOARCH=amd64", "CGO_ENABLED=0")
	out, err := list.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	linked := slices.DeleteFunc(strings.Fields(string(out)), func(path string) bool { return strings.HasPrefix(path, module) })
	slices.Sort(linked)
	want := strings.Join(linked, "\n") + "\n"
	file := filepath.Join("..", "..", "deps.txt")
	if flag.Lookup("update").Value.String() == "true" {
		if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	have, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if string(have) != want {
		t.Errorf("deps.txt is not what the binary links; write it with: make gen\nhave\n%s\nwant\n%s", have, want)
	}
}
