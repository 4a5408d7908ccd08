package local_test

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"postern/internal/change"
	"postern/internal/credential"
	"postern/internal/fail"
	"postern/internal/safe"
	"postern/internal/safe/local"
	"postern/internal/safe/safetest"
	"postern/internal/secret"
	"postern/internal/setup"
	"postern/internal/store"
)

// The consumers' interfaces.
var (
	_ safe.Adapter  = (*local.Safe)(nil)
	_ setup.Safe    = (*local.Safe)(nil)
	_ change.Sealer = (*local.Safe)(nil)
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wants(t testing.TB, err error, kind fail.Kind) *fail.Error {
	t.Helper()
	var known *fail.Error
	if !fail.Is(err, kind) || !errors.As(err, &known) {
		t.Fatalf("got %v (kind %d), want kind %d", err, fail.KindOf(err), kind)
	}
	return known
}

func openStore(t testing.TB, path string) *store.DB {
	t.Helper()
	d, err := store.Open(t.Context(), path)
	must(t, err)
	t.Cleanup(func() { _ = d.Close() })
	return d
}

func newRoot(t testing.TB) safe.Root {
	t.Helper()
	root, err := safe.NewKeyFile(filepath.Join(t.TempDir(), "root.key"))
	must(t, err)
	return root
}

// fixture is an open safe in a store of its own.
type fixture struct {
	path string
	root safe.Root
	rows local.Rows
	*local.Safe
}

func fresh(t testing.TB) fixture {
	t.Helper()
	f := fixture{path: filepath.Join(t.TempDir(), "state.db"), root: newRoot(t)}
	f.rows = openStore(t, f.path).SafeRows()
	s, err := local.Create(t.Context(), f.rows, f.root)
	must(t, err)
	f.Safe = s
	return f
}

// again opens the same safe as another process would.
func (f fixture) again(t testing.TB) *local.Safe {
	t.Helper()
	s, err := local.Open(t.Context(), openStore(t, f.path).SafeRows())
	must(t, err)
	must(t, s.Unlock(t.Context(), f.root))
	return s
}

func (f fixture) put(t testing.TB, name string) secret.Value {
	t.Helper()
	v := safetest.Random()
	_, err := f.Put(t.Context(), credential.Credential{Name: name}, v)
	must(t, err)
	return v
}

func lent(t testing.TB, s *local.Safe, name string, want secret.Value) {
	t.Helper()
	got, _, err := s.Lease(t.Context(), "bot", name)
	must(t, err)
	if !got.Equal(want) {
		t.Fatalf("%s was lent with another value", name)
	}
}

func TestConformance(t *testing.T) {
	t.Parallel()
	safetest.Run(t, func(t *testing.T) (safe.Adapter, func() safe.Adapter) {
		f := fresh(t)
		return f.Safe, func() safe.Adapter { return f.again(t) }
	})
}

func phrase(text string) safe.Root {
	return safe.Passphrase(func() (secret.Value, error) { return secret.New([]byte(text)), nil })
}

func TestAPassphraseOpensTheSafe(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	rows := openStore(t, filepath.Join(t.TempDir(), "state.db")).SafeRows()
	s, err := local.Create(ctx, rows, phrase("one long phrase"))
	must(t, err)
	v := safetest.Random()
	_, err = s.Put(ctx, credential.Credential{Name: "a"}, v)
	must(t, err)

	again, err := local.Open(ctx, rows)
	must(t, err)
	if got := again.RootKind(); got != safe.KindPassphrase {
		t.Errorf("the root is %q", got)
	}
	if got := wants(t, again.Unlock(ctx, phrase("another phrase")), fail.Locked); got.ID != "P-E063" {
		t.Errorf("a wrong passphrase is %v", got)
	}
	if !again.Locked() {
		t.Error("a wrong passphrase has unlocked the safe")
	}
	wants(t, again.Unlock(ctx, phrase("")), fail.Invalid)
	wants(t, again.Unlock(ctx, newRoot(t)), fail.Invalid)
	must(t, again.Unlock(ctx, phrase("one long phrase")))
	lent(t, again, "a", v)
}

func TestTheKeyOfAnotherSafeIsSaid(t *testing.T) {
	t.Parallel()
	f := fresh(t)
	s, err := local.Open(t.Context(), f.rows)
	must(t, err)
	if got := wants(t, s.Unlock(t.Context(), newRoot(t)), fail.Locked); got.ID != "P-E063" {
		t.Errorf("got %v", got)
	}
}

func TestThereIsOneSafe(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	rows := openStore(t, filepath.Join(t.TempDir(), "state.db")).SafeRows()
	_, err := local.Open(ctx, rows)
	wants(t, err, fail.NotFound)
	if found, err := local.Exists(ctx, rows); found || err != nil {
		t.Errorf("got %v, %v", found, err)
	}
	_, err = local.Create(ctx, rows, newRoot(t))
	must(t, err)
	_, err = local.Create(ctx, rows, newRoot(t))
	wants(t, err, fail.Conflict)
	if found, err := local.Exists(ctx, rows); !found || err != nil {
		t.Errorf("got %v, %v", found, err)
	}
}

func TestALockedSafeGivesNothing(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	f := fresh(t)
	v := f.put(t, "a")
	lent(t, f.Safe, "a", v)
	held, _, err := f.Lease(ctx, "bot", "a")
	must(t, err)
	sealed, err := f.Seal(ctx, "journal", []byte("image"))
	must(t, err)
	f.Lock()
	if held.Equal(v) {
		t.Error("the value in memory was not wiped")
	}
	_, _, err = f.Lease(ctx, "bot", "a")
	wants(t, err, fail.Locked)
	_, err = f.Put(ctx, credential.Credential{Name: "b"}, v)
	wants(t, err, fail.Locked)
	_, err = f.Fingerprint(v)
	wants(t, err, fail.Locked)
	_, err = f.Unseal(ctx, "journal", sealed)
	wants(t, err, fail.Locked)
	_, err = f.Internal(ctx, "ca")
	wants(t, err, fail.Locked)
	_, err = f.Value(ctx, "a", 1)
	wants(t, err, fail.Locked)
	wants(t, f.SetDisabled(ctx, "a", true), fail.Locked)
	wants(t, f.Remove(ctx, "a"), fail.Locked)
	wants(t, f.Rekey(ctx, f.root), fail.Locked)
	list, err := f.List(ctx)
	if err != nil || len(list) != 1 {
		t.Errorf("the names of a locked safe: %v, %v", list, err)
	}
	must(t, f.Unlock(ctx, f.root))
	lent(t, f.Safe, "a", v)
}

func TestLeasesCostNothing(t *testing.T) {
	f := fresh(t)
	v := f.put(t, "a")
	lent(t, f.Safe, "a", v)
	ctx := t.Context()
	allocations := testing.AllocsPerRun(100, func() {
		if _, _, err := f.Lease(ctx, "bot", "a"); err != nil {
			t.Error(err)
		}
	})
	if allocations > raceAllocations {
		t.Errorf("a lease allocates %v times", allocations)
	}
}

func BenchmarkLease(b *testing.B) {
	f := fresh(b)
	lent(b, f.Safe, "a", f.put(b, "a"))
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := f.Lease(b.Context(), "bot", "a"); err != nil {
			b.Fatal(err)
		}
	}
}

func TestSealsAreBoundToPurposeAndSafe(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	f := fresh(t)
	sealed, err := f.Seal(ctx, "journal", []byte("image"))
	must(t, err)
	plain, err := f.again(t).Unseal(ctx, "journal", sealed)
	if err != nil || string(plain) != "image" {
		t.Fatalf("got %q, %v", plain, err)
	}
	_, err = f.Unseal(ctx, "other", sealed)
	wants(t, err, fail.Invalid)
	_, err = fresh(t).Unseal(ctx, "journal", sealed)
	wants(t, err, fail.Invalid)
	for i := range sealed {
		bent := append([]byte(nil), sealed...)
		bent[i] ^= 1
		if _, err := f.Unseal(ctx, "journal", bent); err == nil {
			t.Fatalf("a flipped bit in byte %d is not seen", i)
		}
		if _, err := f.Unseal(ctx, "journal", sealed[:i]); err == nil {
			t.Fatalf("%d bytes of %d open", i, len(sealed))
		}
	}
	empty, err := f.Seal(ctx, "journal", nil)
	must(t, err)
	if plain, err = f.Unseal(ctx, "journal", empty); err != nil || len(plain) != 0 {
		t.Errorf("got %q, %v", plain, err)
	}
}

func TestInternalValuesAreKept(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	f := fresh(t)
	_, err := f.Internal(ctx, "ca")
	wants(t, err, fail.NotFound)
	for range 2 {
		v := safetest.Random()
		must(t, f.PutInternal(ctx, "ca", v))
		must(t, f.PutInternal(ctx, "ledger", safetest.Random()))
		got, err := f.again(t).Internal(ctx, "ca")
		must(t, err)
		if !got.Equal(v) {
			t.Error("another value came back")
		}
	}
	if list, err := f.List(ctx); err != nil || len(list) != 0 {
		t.Errorf("they are listed as credentials: %v, %v", list, err)
	}
}

func TestOldVersionsCanBeRead(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	f := fresh(t)
	one := f.put(t, "a")
	f.put(t, "a")
	must(t, f.SetDisabled(ctx, "a", true))
	got, err := f.Value(ctx, "a", 1)
	must(t, err)
	if !got.Equal(one) {
		t.Error("another value came back")
	}
	_, err = f.Value(ctx, "a", 3)
	wants(t, err, fail.NotFound)
}

func TestMasksAreMadeByTheCaller(t *testing.T) {
	t.Parallel()
	f := fresh(t)
	f.Mask = func(kind string, value []byte) string { return fmt.Sprintf("%s/%d", kind, len(value)) }
	version, err := f.Put(t.Context(), credential.Credential{Name: "a", Kind: "k"}, secret.New([]byte("12345")))
	must(t, err)
	if version.Mask != "k/5" {
		t.Errorf("got %q", version.Mask)
	}
}

// inventory is what must be the same after a change of the root key.
func inventory(t *testing.T, s *local.Safe) []credential.Credential {
	t.Helper()
	list, err := s.List(t.Context())
	must(t, err)
	return list
}

func TestRekeyKeepsEverything(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	f := fresh(t)
	f.put(t, "a")
	v := f.put(t, "a")
	internal := safetest.Random()
	must(t, f.PutInternal(ctx, "ca", internal))
	sealed, err := f.Seal(ctx, "journal", []byte("image"))
	must(t, err)
	before := inventory(t, f.Safe)

	next := newRoot(t)
	must(t, f.Rekey(ctx, next))
	lent(t, f.Safe, "a", v)
	s, err := local.Open(ctx, f.rows)
	must(t, err)
	wants(t, s.Unlock(ctx, f.root), fail.Locked)
	must(t, s.Unlock(ctx, next))
	lent(t, s, "a", v)
	if diff := cmp.Diff(before, inventory(t, s)); diff != "" {
		t.Error(diff)
	}
	plain, err := s.Unseal(ctx, "journal", sealed)
	if err != nil || string(plain) != "image" {
		t.Errorf("got %q, %v", plain, err)
	}
	got, err := s.Internal(ctx, "ca")
	if err != nil || !got.Equal(internal) {
		t.Errorf("the internal value is lost: %v", err)
	}
	must(t, s.Check(ctx))
	_, err = s.Put(ctx, credential.Credential{Name: "b"}, v)
	must(t, err)
	lent(t, f.Safe, "b", v)
}

func TestRekeyToAnotherKindOfRoot(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	f := fresh(t)
	v := f.put(t, "a")
	must(t, f.Rekey(ctx, phrase("words")))
	if got := f.RootKind(); got != safe.KindPassphrase {
		t.Errorf("the root is %q", got)
	}
	s, err := local.Open(ctx, f.rows)
	must(t, err)
	must(t, s.Unlock(ctx, phrase("words")))
	lent(t, s, "a", v)
}

// failing answers with an error; the safe must stay as it is.
type failing struct{ safe.Root }

func (failing) Key(context.Context, []byte) (secret.Value, error) {
	return secret.Value{}, errors.New("no key today")
}

func TestARekeyThatFailsChangesNothing(t *testing.T) {
	t.Parallel()
	f := fresh(t)
	v := f.put(t, "a")
	if f.Rekey(t.Context(), failing{f.root}) == nil {
		t.Fatal("there was no error")
	}
	lent(t, f.again(t), "a", v)
}

func TestAKeyFileIsReplacedWhereverThatWasCut(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	cut := errors.New("cut")
	for name, rekey := range map[string]func(f fixture, next safe.Root) error{
		"not at all":        func(f fixture, next safe.Root) error { return f.Rekey(ctx, next) },
		"before the change": func(fixture, safe.Root) error { return cut },
		"after the change":  func(f fixture, next safe.Root) error { return errors.Join(f.Rekey(ctx, next), cut) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := fresh(t)
			path := filepath.Join(t.TempDir(), "root.key")
			root, err := safe.NewKeyFile(path)
			must(t, err)
			must(t, f.Rekey(ctx, root))
			f.root = root
			v, other := f.put(t, "a"), f.again(t)
			err = safe.ReplaceKeyFile(path, func(next safe.Root) error { return rekey(f, next) })
			if err != nil && !errors.Is(err, cut) {
				t.Fatal(err)
			}
			lent(t, other, "a", v)
			lent(t, f.again(t), "a", v)
			must(t, safe.ReplaceKeyFile(path, func(next safe.Root) error { return other.Rekey(ctx, next) }))
			lent(t, f.Safe, "a", v)
			lent(t, f.again(t), "a", v)
			if left, err := filepath.Glob(path + "?*"); err != nil || len(left) > 0 {
				t.Errorf("left: %v (%v)", left, err)
			}
		})
	}
}

func TestAnotherProcessChangesTheRoot(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	t.Run("to one that needs a person", func(t *testing.T) {
		t.Parallel()
		f := fresh(t)
		other := f.again(t)
		v := f.put(t, "a")
		lent(t, other, "a", v)
		must(t, f.Rekey(ctx, phrase("words")))
		_, _, err := other.Lease(ctx, "bot", "a")
		wants(t, err, fail.Locked)
		if !other.Locked() || other.RootKind() != safe.KindPassphrase {
			t.Errorf("locked %v, root %s", other.Locked(), other.RootKind())
		}
		must(t, other.Unlock(ctx, phrase("words")))
		lent(t, other, "a", v)
	})
	t.Run("to the same with another salt", func(t *testing.T) {
		t.Parallel()
		f := fresh(t)
		other := f.again(t)
		v := f.put(t, "a")
		lent(t, other, "a", v)
		must(t, f.Rekey(ctx, f.root))
		lent(t, other, "a", v)
		_, err := other.Put(ctx, credential.Credential{Name: "b"}, v)
		must(t, err)
		lent(t, f.Safe, "b", v)
	})
	t.Run("at the same time", func(t *testing.T) {
		t.Parallel()
		f := fresh(t)
		other := f.again(t)
		v := f.put(t, "a")
		done := make(chan error)
		for _, s := range []*local.Safe{f.Safe, other} {
			go func() {
				var all error
				for range 10 {
					if err := s.Rekey(ctx, f.root); err != nil && !fail.Is(err, fail.Conflict) {
						all = errors.Join(all, err)
					}
					if got, _, err := s.Lease(ctx, "bot", "a"); err != nil || !got.Equal(v) {
						all = errors.Join(all, err, errors.New("the value is not lent"))
					}
				}
				done <- all
			}()
		}
		must(t, errors.Join(<-done, <-done))
		lent(t, f.again(t), "a", v)
	})
}

// copyByChild reads a file in a process of its own.
func copyByChild(path string) ([]byte, error) { return exec.Command("cat", path).Output() }
