package policy_test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"postern/internal/policy"
)

const (
	yes = "agents: {a: {egress: open}}\n"
	no  = "agents: {a: {egress: closed}}\n"
	bad = "agents: {a: {egress: opne}}\n"
)

func write(t *testing.T, path, text string) {
	t.Helper()
	next := path + ".next"
	if err := os.WriteFile(next, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(next, path); err != nil {
		t.Fatal(err)
	}
}

func TestLiveKeepsTheLastGoodOne(t *testing.T) {
	path := filepath.Join(t.TempDir(), "policy.yaml")
	l, err := policy.NewLive(path)
	if err != nil {
		t.Fatal(err)
	}
	allows := func() bool { return l.Egress("a", "h.example:443").Allow }
	if loaded, bad := l.Status(); allows() || bad != nil || !loaded.IsZero() {
		t.Fatalf("without a file: %v, %v, %v", allows(), loaded, bad)
	}
	steps := []struct {
		name, text string
		changed    bool
		fails      bool
		allows     bool
	}{
		{"a file", yes, true, false, true},
		{"the same", yes, false, false, true},
		{"a typo", bad, true, true, true},
		{"the same typo", bad, false, true, true},
		{"another", no, true, false, false},
		{"back", yes, true, false, true},
	}
	for _, step := range steps {
		write(t, path, step.text)
		changed, err := l.Reload()
		if changed != step.changed || (err != nil) != step.fails || allows() != step.allows {
			t.Errorf("%s: got %v, %v, allows %v", step.name, changed, err, allows())
		}
		if _, bad := l.Status(); (bad != nil) != step.fails {
			t.Errorf("%s: status %v", step.name, bad)
		}
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if changed, err := l.Reload(); !changed || err == nil || !allows() {
		t.Errorf("taken away: got %v, %v", changed, err)
	}
	if changed, err := l.Reload(); changed || err == nil {
		t.Errorf("still away: got %v, %v", changed, err)
	}
	write(t, path, bad)
	if _, err := policy.NewLive(path); err == nil {
		t.Error("a bad file was opened")
	}
}

func TestWatchSeesChanges(t *testing.T) {
	path := filepath.Join(t.TempDir(), "policy.yaml")
	synctest.Test(t, func(t *testing.T) {
		l, err := policy.NewLive(path)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var seen []bool
		go l.Watch(ctx, func(bad error) { seen = append(seen, bad == nil) })
		tick := func() {
			<-time.After(1500 * time.Millisecond) // of the bubble's clock
			synctest.Wait()
		}
		tick()
		if len(seen) != 0 {
			t.Errorf("no file yet: got %v", seen)
		}
		write(t, path, yes)
		tick()
		write(t, path, bad)
		tick()
		tick()
		write(t, path, no)
		tick()
		if !slices.Equal(seen, []bool{true, false, true}) || l.Egress("a", "h.example:443").Allow {
			t.Errorf("got %v", seen)
		}
		cancel()
		synctest.Wait()
	})
}
