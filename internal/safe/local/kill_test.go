package local_test

import (
	"bufio"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"postern/internal/credential"
	"postern/internal/fail"
	"postern/internal/safe"
	"postern/internal/safe/local"
	"postern/internal/safe/safetest"
	"postern/internal/secret"
	"postern/internal/store"
)

// killRounds is enough to hit every place often; kills come anywhere in or
// between the operations.
const killRounds = 300

// model is what the killed processes have acknowledged.
type model struct {
	made   bool
	values map[string]string // name to current value, in hex
}

// step is one operation: a line that the child writes before it ("begin") and
// after it ("done").
type step struct{ what, name, value string }

func (m *model) apply(s step) {
	switch s.what {
	case "create":
		m.made = true
	case "put":
		m.values[s.name] = s.value
	case "remove":
		delete(m.values, s.name)
	}
}

func (m *model) clone() *model {
	next := *m
	next.values = maps.Clone(m.values)
	return &next
}

// TestKilledChild is the child of the loop below: it works until it is killed.
func TestKilledChild(t *testing.T) {
	dir := os.Getenv("SAFE_TEST_DIR")
	if dir == "" {
		t.Skip("only a child of the kill test")
	}
	must(t, work(t.Context(), dir))
}

func keyPath(dir string) string { return filepath.Join(dir, "root.key") }

func work(ctx context.Context, dir string) error {
	d, err := store.Open(ctx, filepath.Join(dir, "state.db"))
	if err != nil {
		return err
	}
	say := func(when string, s step) error {
		_, err := fmt.Fprintln(os.Stdout, when, s.what, s.name, s.value)
		return err
	}
	do := func(s step, act func() error) error {
		if err := errors.Join(say("begin", s), act()); err != nil {
			return err
		}
		return say("done", s)
	}
	var s *local.Safe
	if found, err := local.Exists(ctx, d.SafeRows()); err != nil {
		return err
	} else if !found {
		root, err := safe.NewKeyFile(keyPath(dir))
		if fail.Is(err, fail.Conflict) { // the one before was killed between the two
			root, err = safe.KeyFile(keyPath(dir)), nil
		}
		if err != nil {
			return err
		}
		err = do(step{"create", "-", "-"}, func() error { s, err = local.Create(ctx, d.SafeRows(), root); return err })
		if err != nil {
			return err
		}
	} else {
		if s, err = local.Open(ctx, d.SafeRows()); err != nil {
			return err
		}
		if err := s.Unlock(ctx, safe.KeyFile(keyPath(dir))); err != nil {
			return err
		}
	}
	for range 40 {
		name := fmt.Sprintf("name-%d", rand.IntN(6))
		switch rand.IntN(8) {
		case 0:
			if os.Getenv("SAFE_TEST_SHARED") != "" {
				continue
			}
			err := do(step{"rekey", "-", "-"}, func() error {
				return safe.ReplaceKeyFile(keyPath(dir), func(root safe.Root) error { return s.Rekey(ctx, root) })
			})
			if err != nil {
				return err
			}
		case 1:
			if _, err := s.Get(ctx, name); err != nil {
				continue
			}
			if err := do(step{"remove", name, "-"}, func() error { return s.Remove(ctx, name) }); err != nil {
				return err
			}
		case 2: // an import: many, one after the other
			for i := range 6 {
				if err := put(ctx, s, do, fmt.Sprintf("name-%d", i)); err != nil {
					return err
				}
			}
		default:
			if err := put(ctx, s, do, name); err != nil {
				return err
			}
		}
	}
	return d.Close()
}

func put(ctx context.Context, s *local.Safe, do func(step, func() error) error, name string) error {
	text := fmt.Sprintf("%016x%016x", rand.Uint64(), rand.Uint64())
	return do(step{"put", name, hex.EncodeToString([]byte(text))}, func() error {
		_, err := s.Put(ctx, credential.Credential{Name: name}, secret.New([]byte(text)))
		return err
	})
}

// killed runs a child until it has said n lines, kills it a little later, and
// returns the model of what it acknowledged, and of what it may have done.
func killed(t *testing.T, dir string, m *model, n int) (sure, perhaps *model) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestKilledChild$")
	cmd.Env = append(os.Environ(), "SAFE_TEST_DIR="+dir)
	var problem strings.Builder
	cmd.Stderr = &problem
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	lines := bufio.NewReader(out)
	sure = m.clone()
	perhaps = sure
	read := func() bool {
		line, err := lines.ReadString('\n')
		fields := strings.Fields(line)
		if err != nil || len(fields) != 4 || fields[0] != "begin" && fields[0] != "done" {
			if len(fields) > 0 && err == nil && fields[0] != "PASS" && !strings.HasPrefix(line, "ok") {
				t.Errorf("the child says: %s", line)
			}
			return false
		}
		s := step{fields[1], fields[2], fields[3]}
		if fields[0] == "done" {
			sure.apply(s)
			perhaps = sure
			return true
		}
		perhaps = sure.clone()
		perhaps.apply(s)
		return true
	}
	for i := 0; i < n && read(); i++ {
	}
	for range rand.IntN(60000) { // lets it come a little further, into the next operation
		_ = os.Getppid()
	}
	_ = cmd.Process.Kill()
	for read() { // what it said before it died counts
	}
	_, _ = io.Copy(io.Discard, out)
	_ = cmd.Wait()
	if problem.Len() > 0 {
		t.Fatalf("the child says: %s", problem.String())
	}
	return sure, perhaps
}

// matches says whether the store in dir is what m says.
func matches(ctx context.Context, dir string, m *model) (err error) {
	d, err := store.Open(ctx, filepath.Join(dir, "state.db"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	if found, err := local.Exists(ctx, d.SafeRows()); err != nil || found != m.made {
		return errors.Join(err, fmt.Errorf("a safe is there: %v, want %v", found, m.made))
	}
	if !m.made {
		return nil
	}
	s, err := local.Open(ctx, d.SafeRows())
	if err != nil {
		return err
	}
	if err := errors.Join(s.Unlock(ctx, safe.KeyFile(keyPath(dir))), s.Check(ctx), d.Check(ctx)); err != nil {
		return err
	}
	list, err := s.List(ctx)
	if err != nil || len(list) != len(m.values) {
		return errors.Join(err, fmt.Errorf("%d credentials, want %d", len(list), len(m.values)))
	}
	for name, want := range m.values {
		text, err := hex.DecodeString(want)
		if err != nil {
			return err
		}
		got, _, err := s.Lease(ctx, "bot", name)
		if err != nil || !got.Equal(secret.New(text)) {
			return errors.Join(err, fmt.Errorf("%s has another value", name))
		}
	}
	return nil
}

func TestNothingAcknowledgedIsLostByAKill(t *testing.T) {
	t.Parallel()
	dir, m := t.TempDir(), &model{values: map[string]string{}}
	unsure := 0
	for round := range killRounds {
		if round%30 == 0 { // from nothing again: the making of store and safe is killed too
			dir, m = t.TempDir(), &model{values: map[string]string{}}
		}
		n := rand.IntN(12)
		sure, perhaps := killed(t, dir, m, n)
		if _, err := os.Lstat(filepath.Join(dir, "state.db")); errors.Is(err, fs.ErrNotExist) && !sure.made {
			continue // killed before there was a store
		}
		m = sure
		if err := matches(t.Context(), dir, sure); err != nil {
			if perhaps == sure {
				t.Fatalf("round %d, killed after %d lines: %v", round, n, err)
			}
			if other := matches(t.Context(), dir, perhaps); other != nil {
				t.Fatalf("round %d, killed after %d lines: neither %v nor %v", round, n, err, other)
			}
			m, unsure = perhaps, unsure+1
		}
	}
	t.Logf("%d of %d kills came between the commit and its acknowledgement", unsure, killRounds)
}

// Others write to the same safe and are killed at it; whoever lives on loses
// nothing, and sees what they acknowledged.
func TestASafeIsSharedWithProcessesThatAreKilled(t *testing.T) {
	t.Parallel()
	ctx, dir := t.Context(), t.TempDir()
	root, err := safe.NewKeyFile(keyPath(dir))
	must(t, err)
	d, err := store.Open(ctx, filepath.Join(dir, "state.db"))
	must(t, err)
	defer d.Close()
	s, err := local.Create(ctx, d.SafeRows(), root)
	must(t, err)
	mine := map[string]secret.Value{}
	for round := range 15 {
		var children []*exec.Cmd
		for range 2 {
			cmd := exec.Command(os.Args[0], "-test.run=^TestKilledChild$")
			cmd.Env = append(os.Environ(), "SAFE_TEST_DIR="+dir, "SAFE_TEST_SHARED=1")
			out, err := cmd.StdoutPipe()
			must(t, err)
			must(t, cmd.Start())
			_, err = bufio.NewReader(out).ReadString('\n') // it has begun
			must(t, err)
			children = append(children, cmd)
		}
		for i := range 5 {
			name := fmt.Sprintf("mine-%d", i)
			mine[name] = safetest.Random()
			_, err := s.Put(ctx, credential.Credential{Name: name}, mine[name])
			must(t, err)
			lent(t, s, name, mine[name])
		}
		for _, cmd := range children {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
		for name, v := range mine {
			lent(t, s, name, v)
		}
		if err := errors.Join(s.Check(ctx), d.Check(ctx)); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
	}
}
