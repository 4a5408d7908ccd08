package local_test

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"postern/internal/credential"
	"postern/internal/safe"
	"postern/internal/safe/local"
	"postern/internal/secret"
	"postern/internal/store"
)

// forms are the ways in which a value could be written somewhere.
func forms(v string) map[string][]byte {
	f := map[string][]byte{"plain": []byte(v), "hex": []byte(hex.EncodeToString([]byte(v))), "HEX": []byte(strings.ToUpper(hex.EncodeToString([]byte(v))))}
	for phase := range 3 {
		padded := append(make([]byte, phase), v...)
		for name, e := range map[string]*base64.Encoding{"base64": base64.RawStdEncoding, "base64url": base64.RawURLEncoding} {
			text := e.EncodeToString(padded)
			f[fmt.Sprintf("%s/%d", name, phase)] = []byte(text[4 : len(text)-4])
		}
	}
	return f
}

// search looks for the values in every file below dir. No process may have the
// store open in dir.
func search(t *testing.T, dir string, values map[string]string) (hits []string) {
	t.Helper()
	files := 0
	must(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		files++
		for what, v := range values {
			for form, text := range forms(v) {
				if bytes.Contains(b, text) {
					hits = append(hits, fmt.Sprintf("%s, %s, in %s", what, form, filepath.Base(path)))
				}
			}
		}
		return nil
	}))
	if files == 0 {
		t.Fatal("nothing was searched")
	}
	return hits
}

// snapshotOf copies the files of a store that is open; another process reads
// them, because closing them here would drop the locks on them.
func snapshotOf(t *testing.T, dir string) string {
	t.Helper()
	to := t.TempDir()
	for _, name := range []string{"state.db", "state.db-wal", "state.db-shm"} {
		text, err := copyByChild(filepath.Join(dir, name))
		must(t, err)
		must(t, os.WriteFile(filepath.Join(to, name), text, 0o600))
	}
	return to
}

func TestNoValueIsInAnyFile(t *testing.T) {
	t.Parallel()
	ctx, dir := t.Context(), t.TempDir()
	d, err := store.Open(ctx, filepath.Join(dir, "state.db"))
	must(t, err)
	values := map[string]string{}
	value := func(what string) secret.Value {
		values[what] = rand.Text()
		return secret.New([]byte(values[what]))
	}
	words := value("passphrase")
	root := safe.Passphrase(func() (secret.Value, error) { return words, nil })
	s, err := local.Create(ctx, d.SafeRows(), root)
	must(t, err)
	for _, what := range []string{"first", "second", "third"} {
		_, err := s.Put(ctx, credential.Credential{Name: "a"}, value(what))
		must(t, err)
	}
	_, err = s.Put(ctx, credential.Credential{Name: "gone"}, value("removed"))
	must(t, err)
	must(t, s.Remove(ctx, "gone"))
	must(t, s.PutInternal(ctx, "ca", value("internal")))
	image := value("image")
	must(t, image.Reveal(func(b []byte) error {
		sealed, err := s.Seal(ctx, "journal", b)
		if err != nil {
			return err
		}
		return d.SetSetting(ctx, "journal", string(sealed))
	}))
	for _, state := range []string{"open", "rekeyed"} {
		if hits := search(t, snapshotOf(t, dir), values); len(hits) > 0 {
			t.Errorf("%s: found %v", state, hits)
		}
		must(t, s.Rekey(ctx, newRoot(t)))
	}
	s.Lock()
	must(t, d.Close())
	if hits := search(t, dir, values); len(hits) > 0 {
		t.Errorf("closed: found %v", hits)
	}
	// The search itself must be able to find something.
	must(t, os.WriteFile(filepath.Join(dir, "trap"), fmt.Appendf(nil, "x%sx", base64.StdEncoding.EncodeToString([]byte("ab"+values["first"]))), 0o600))
	if hits := search(t, dir, values); len(hits) == 0 {
		t.Error("the search does not find what is there")
	}
}

// What was removed or sealed under the root key before is gone from the disk,
// so that an old passphrase and a new file do not give an old value.
func TestWhatWasReplacedIsErased(t *testing.T) {
	t.Parallel()
	ctx, f := t.Context(), fresh(t)
	f.put(t, "a")
	f.put(t, "gone")
	before, err := f.rows.Image(ctx)
	must(t, err)
	must(t, f.Remove(ctx, "gone"))
	must(t, f.Rekey(ctx, newRoot(t)))
	old := map[string][]byte{"store key": before.Meta.StoreKey}
	for _, v := range before.Versions {
		old["data key of "+v.Credential] = v.WrappedKey
		if v.Credential == "gone" {
			old["value of gone"] = v.Sealed
		}
	}
	dir := snapshotOf(t, filepath.Dir(f.path))
	for _, name := range []string{"state.db", "state.db-wal"} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		must(t, err)
		for what, bits := range old {
			if bytes.Contains(b, bits) {
				t.Errorf("%s still has the %s", name, what)
			}
		}
	}
}

func TestLockAndLeaseAtTheSameTime(t *testing.T) {
	t.Parallel()
	ctx, f := t.Context(), fresh(t)
	f.put(t, "a")
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for range 200 {
				_, _, _ = f.Lease(ctx, "bot", "a")
				_, _ = f.Fingerprint(secret.New([]byte("x")))
				_, _ = f.Seal(ctx, "p", []byte("x"))
				_, _ = f.Value(ctx, "a", 1)
			}
		})
	}
	for range 50 {
		f.Lock()
		must(t, f.Unlock(ctx, f.root))
	}
	group.Wait()
}
