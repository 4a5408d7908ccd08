package arch_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// Every command pays for what packages do before main, so that is bounded. The
// least of five runs counts: a busy neighbour only adds.
func TestPackageInitialisation(t *testing.T) {
	const (
		runs       = 5
		maxSum     = 15.0 // ms
		maxPackage = 2.0  // ms
	)
	binary := filepath.Join(t.TempDir(), "postern")
	build := exec.Command("go", "build", "-o", binary, "postern/cmd/postern")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building postern: %v\n%s", err, out)
	}
	least := map[string]float64{}
	sum := 0.0
	for n := range runs {
		cmd := exec.Command(binary, "version")
		cmd.Env = append(os.Environ(), "GODEBUG=inittrace=1")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("postern version: %v\n%s", err, out)
		}
		total := 0.0
		for line := range strings.Lines(string(out)) {
			f := strings.Fields(line) // init PACKAGE @1.9 ms, 0.22 ms clock, …
			if len(f) < 6 || f[0] != "init" {
				continue
			}
			took, err := strconv.ParseFloat(f[4], 64)
			if err != nil {
				t.Fatalf("reading %q: %v", line, err)
			}
			total += took
			if was, seen := least[f[1]]; !seen || took < was {
				least[f[1]] = took
			}
		}
		if n == 0 || total < sum {
			sum = total
		}
	}
	if len(least) == 0 {
		t.Fatal("no package was traced")
	}
	if sum > maxSum {
		t.Errorf("the packages take %.1f ms before main, at most %.0f", sum, maxSum)
	}
	for name, took := range least {
		if took > maxPackage {
			t.Errorf("%s takes %.1f ms before main, at most %.0f", name, took, maxPackage)
		}
	}
}
