package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// The main job, with everything that can be switched off switched off in turn:
// each time another proof must fail, or the proofs would be worth nothing.
func TestProofs(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped: starts whole agents (-short)")
	}
	driver := filepath.Join(t.TempDir(), "demo")
	if out, err := exec.Command("go", "build", "-o", driver, ".").CombinedOutput(); err != nil {
		t.Fatalf("building the demo: %v\n%s", err, out)
	}
	all := Proofs{true, true, true}
	for _, test := range []struct {
		name, agent, broken string
		want                Proofs
	}{
		{"node", "node", "", all},
		{"python", "python", "", all},
		{"without injection", "node", "inject", Proofs{false, true, true}},
		{"without redaction", "node", "redact", Proofs{true, false, true}},
		// The key of the environment is real then, and the broker takes none.
		{"without masking", "node", "mask", Proofs{false, false, true}},
		{"python without redaction", "python", "redact", Proofs{true, false, true}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			scratch := t.TempDir()
			if err := os.Chmod(scratch, 0o755); err != nil { // as root, an ordinary user must get through
				t.Fatal(err)
			}
			if err := os.Chmod(filepath.Dir(scratch), 0o755); err != nil {
				t.Fatal(err)
			}
			have, code, said := drive(t, driver, scratch, "AGENT="+test.agent, "DEMO_BREAK="+test.broken)
			if diff := cmp.Diff(test.want, have); diff != "" {
				t.Errorf("proofs (-want +have):\n%s\n%s", diff, said)
			}
			if wantCode := map[bool]int{true: 0, false: 1}[test.want == all]; code != wantCode {
				t.Errorf("exit code %d, want %d", code, wantCode)
			}
			left, err := os.ReadDir(scratch)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range left {
				t.Errorf("left behind: %s", e.Name())
			}
		})
	}
}

// drive runs the demo and reads its last line.
func drive(t *testing.T, driver, scratch string, env ...string) (Proofs, int, string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), driver)
	cmd.Env = append(append(os.Environ(), "TMPDIR="+scratch), env...)
	cmd.Cancel, cmd.WaitDelay = func() error { return cmd.Process.Signal(os.Interrupt) }, 20*time.Second
	var out, complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaint
	err := cmd.Run()
	if text := complaint.String(); strings.Contains(text, "this agent needs") || strings.Contains(text, "could not install") {
		t.Skip("skipped: " + text)
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	var last struct{ Proofs Proofs }
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &last); err != nil {
		t.Fatalf("the last line is no JSON: %v\n%s%s", err, out.String(), complaint.String())
	}
	return last.Proofs, cmd.ProcessState.ExitCode(), out.String() + complaint.String()
}
