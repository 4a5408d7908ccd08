package setup

import (
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"testing"
)

// TestHelperProcess is the child of the kill test: it sets up or takes back,
// and says so with a byte after each thing stored.
func TestHelperProcess(t *testing.T) {
	dir := os.Getenv("SETUP_TEST_DIR")
	if dir == "" {
		t.Skip("only a child of the kill test")
	}
	h := home{dir: os.Getenv("SETUP_TEST_HOME"), step: func() { _, _ = os.Stdout.WriteString(".") }}
	if os.Getenv("SETUP_TEST_DO") == "undo" {
		h.undo(t)
		return
	}
	h.apply(t, dir)
}

// killed starts the child and kills it some time after the n-th thing stored.
func killed(t *testing.T, dir string, h home, what string, n int) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestHelperProcess$")
	cmd.Env = append(os.Environ(), "SETUP_TEST_DIR="+dir, "SETUP_TEST_HOME="+h.dir, "SETUP_TEST_DO="+what)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_, _ = io.ReadFull(out, make([]byte, n))
	for range rand.IntN(30000) { // lets it come a little further, into the next step
		_ = os.Getppid()
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait() // killed, or finished before
}

func TestUndoIsExactAfterKills(t *testing.T) {
	t.Parallel()
	for round := range 40 {
		dir, values := nasty(t)
		before := snap(t, dir)
		h := home{dir: t.TempDir()}
		n := round % 21
		killed(t, dir, h, "setup", n)
		if round%3 == 0 {
			killed(t, dir, h, "undo", rand.IntN(6))
		}
		if round%3 == 1 { // setup again, which goes on with the run
			h.apply(t, dir)
			search(t, dir, values...)
		}
		search(t, h.dir, values...)
		for {
			if report := h.undo(t); report.Run.ID == 0 {
				break
			}
		}
		same(t, fmt.Sprintf("killed after %d things", n), snap(t, dir), before)
	}
}
