//go:build linux

package change

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"testing"
	"time"
)

// breaker stops the journal at its k-th operation, by panic, before it or
// after it. It counts the operations of store and disk together.
type breaker struct {
	Store
	disk
	left  int
	after bool
	seen  func()
}

type stopped struct{}

func (b *breaker) around(do func() error) error {
	b.left--
	if b.left == 0 && !b.after {
		panic(stopped{})
	}
	err := do()
	if b.left == 0 {
		panic(stopped{})
	}
	if b.seen != nil {
		b.seen()
	}
	return err
}

func (b *breaker) BeginRun(ctx context.Context, c string, at time.Time) (id int64, err error) {
	err = b.around(func() error { id, err = b.Store.BeginRun(ctx, c, at); return err })
	return id, err
}

func (b *breaker) PutChange(ctx context.Context, c Change) error {
	return b.around(func() error { return b.Store.PutChange(ctx, c) })
}

func (b *breaker) SetRun(ctx context.Context, id int64, s string, at time.Time) error {
	return b.around(func() error { return b.Store.SetRun(ctx, id, s, at) })
}

func (b *breaker) Put(p place, temp string, s state, keep bool) error {
	return b.around(func() error { return b.disk.Put(p, temp, s, keep) })
}

func (b *breaker) Move(p place, temp string, replace bool) error {
	return b.around(func() error { return b.disk.Move(p, temp, replace) })
}

func (b *breaker) Remove(p place, name string, isDir bool) error {
	return b.around(func() error { return b.disk.Remove(p, name, isDir) })
}

func (b *breaker) Mkdir(p place, mode uint32) error {
	return b.around(func() error { return b.disk.Mkdir(p, mode) })
}

// broken runs f with a journal that stops at operation k; false means that f
// came to its end.
func broken(t *testing.T, store fileStore, k int, after bool, f func(*Journal) error) (cut bool) {
	t.Helper()
	b := &breaker{Store: store, disk: linux{}, left: k, after: after}
	j := New(b, gcmSealer{})
	j.disk = b
	defer func() {
		switch r := recover().(type) {
		case nil:
		case stopped:
			cut = true
		default:
			panic(r)
		}
	}()
	if err := f(j); err != nil {
		t.Fatal(err)
	}
	return false
}

func TestUndoIsExactWhereverTheRunWasCut(t *testing.T) {
	t.Parallel()
	for _, after := range []bool{false, true} {
		for k := 1; ; k++ {
			dir, store := scene(t)
			before := snap(t, dir)
			cut := broken(t, store, k, after, func(j *Journal) error { return job(t.Context(), j, dir) })
			if _, err := New(store, gcmSealer{}).Undo(t.Context(), 0); err != nil {
				t.Fatalf("cut at %d (after %v): %v", k, after, err)
			}
			same(t, fmt.Sprintf("cut at %d (after %v)", k, after), snap(t, dir), before)
			if !cut {
				if k < 20 {
					t.Fatalf("only %d operations seen", k)
				}
				break
			}
		}
	}
}

func TestUndoGoesOnWhereverItWasCut(t *testing.T) {
	t.Parallel()
	for _, after := range []bool{false, true} {
		for k := 1; ; k++ {
			dir, store := scene(t)
			before := snap(t, dir)
			if err := job(t.Context(), New(store, gcmSealer{}), dir); err != nil {
				t.Fatal(err)
			}
			undo := func(j *Journal) error { _, err := j.Undo(t.Context(), 0); return err }
			cut := broken(t, store, k, after, undo)
			if err := undo(New(store, gcmSealer{})); err != nil {
				t.Fatalf("cut at %d (after %v): %v", k, after, err)
			}
			same(t, fmt.Sprintf("cut at %d (after %v)", k, after), snap(t, dir), before)
			if !cut {
				break
			}
		}
	}
}

func TestACutRunGoesOnUnderTheSameNumber(t *testing.T) {
	t.Parallel()
	for k := 1; ; k++ {
		dir, store := scene(t)
		before := snap(t, dir)
		cut := broken(t, store, k, true, func(j *Journal) error { return job(t.Context(), j, dir) })
		j := New(store, gcmSealer{})
		if err := job(t.Context(), j, dir); err != nil {
			t.Fatal(err)
		}
		for name := range snap(t, dir) {
			if len(name) == len(".postern-0123456789abcdef.tmp") {
				t.Fatalf("cut at %d: %s was left", k, name)
			}
		}
		for range 2 { // a cut after the last operation leaves two runs
			if _, err := j.Undo(t.Context(), 0); err != nil {
				t.Fatalf("cut at %d: %v", k, err)
			}
			if !cut || len(mustRuns(t, j)) == 1 {
				break
			}
		}
		if !cut {
			break
		}
		same(t, fmt.Sprintf("cut at %d", k), snap(t, dir), before)
	}
}

func mustRuns(t *testing.T, j *Journal) []RunInfo {
	t.Helper()
	runs, err := j.Runs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return runs
}

// TestHelperProcess is the child of the kill test: it does the job or the
// undo, and says so with a byte after each operation.
func TestHelperProcess(t *testing.T) {
	dir, what := os.Getenv("CHANGE_TEST_DIR"), os.Getenv("CHANGE_TEST_DO")
	if dir == "" {
		t.Skip("only a child of the kill test")
	}
	store := fileStore{os.Getenv("CHANGE_TEST_JOURNAL")}
	b := &breaker{Store: store, disk: linux{}, seen: func() { _, _ = os.Stdout.WriteString(".") }}
	j := New(b, gcmSealer{})
	j.disk = b
	var err error
	if what == "undo" {
		_, err = j.Undo(t.Context(), 0)
	} else {
		err = job(t.Context(), j, dir)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// killed starts the child and kills it some time after its n-th operation.
func killed(t *testing.T, dir string, store fileStore, what string, n int) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestHelperProcess$")
	cmd.Env = append(os.Environ(), "CHANGE_TEST_DIR="+dir, "CHANGE_TEST_JOURNAL="+store.path, "CHANGE_TEST_DO="+what)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_, _ = io.ReadFull(out, make([]byte, n))
	for range rand.IntN(20000) { // lets it come a little further, into the next operation
		_ = os.Getppid()
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait() // killed, or finished before
}

func TestUndoIsExactAfterKills(t *testing.T) {
	t.Parallel()
	for round := range 60 {
		dir, store := scene(t)
		before := snap(t, dir)
		n := round % 24
		killed(t, dir, store, "job", n)
		killed(t, dir, store, "undo", rand.IntN(8))
		if _, err := New(store, gcmSealer{}).Undo(t.Context(), 0); err != nil {
			t.Fatalf("killed after %d: %v", n, err)
		}
		same(t, fmt.Sprintf("killed after %d", n), snap(t, dir), before)
	}
}
