package store_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"database/sql"
	"fmt"
	"io/fs"
	mathrand "math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"postern/internal/catalog"
	"postern/internal/fail"
	"postern/internal/placeholder"
	"postern/internal/store"
)

// mintAddress is a placeholder of which only a part travels in requests.
func mintAddress(t *testing.T) string {
	t.Helper()
	c, err := catalog.Open("")
	must(t, err)
	kind, err := c.Kind("discord.webhook")
	must(t, err)
	text, err := placeholder.Mint(kind, []byte("https://discord.com/api/webhooks/123456789012345678/"+rand.Text()+rand.Text()+rand.Text()[:16]), rand.Reader)
	must(t, err)
	return text
}

// made is the path of a store with one setting, closed.
func made(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "state.db")
	d, err := store.Open(t.Context(), path)
	must(t, err)
	must(t, d.SetSetting(t.Context(), "k", "kept"))
	must(t, d.Close())
	return path
}

func raw(t *testing.T, path, statement string) {
	t.Helper()
	d, err := sql.Open("sqlite", path)
	must(t, err)
	_, err = d.Exec(statement)
	must(t, err)
	must(t, d.Close())
}

// refused checks that opening fails with the error id and changes no byte.
func refused(t *testing.T, path, id string) {
	t.Helper()
	before, err := os.ReadFile(path)
	must(t, err)
	d, err := store.Open(t.Context(), path)
	if err == nil {
		_ = d.Close()
		t.Fatal("it was opened")
	}
	var known *fail.Error
	if known = asFail(err); known == nil || known.ID != id {
		t.Fatalf("got %v, want %s", err, id)
	}
	after, err := os.ReadFile(path)
	must(t, err)
	if !bytes.Equal(before, after) {
		t.Fatal("the file was changed")
	}
}

func asFail(err error) *fail.Error {
	for err != nil {
		if known, found := err.(*fail.Error); found { //nolint:errorlint // the first one is meant
			return known
		}
		unwrapped, can := err.(interface{ Unwrap() error })
		if !can {
			return nil
		}
		err = unwrapped.Unwrap()
	}
	return nil
}

func TestANewerStoreIsRefused(t *testing.T) {
	t.Parallel()
	path := made(t)
	raw(t, path, "PRAGMA user_version = 1000")
	refused(t, path, "P-E072")
}

func TestAnotherDatabaseIsRefused(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "state.db")
	raw(t, path, "CREATE TABLE theirs (x)")
	refused(t, path, "P-E071")
}

func TestADamagedFileIsRefused(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]func([]byte) []byte{
		"empty":       func([]byte) []byte { return nil },
		"cut in head": func(b []byte) []byte { return b[:50] },
		"other bytes": func(b []byte) []byte { return bytes.Repeat([]byte("not a store "), 1000) },
		"first page":  func(b []byte) []byte { clear(b[:4096]); return b },
		"half":        func(b []byte) []byte { clear(b[100:4096]); return b },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := made(t)
			b, err := os.ReadFile(path)
			must(t, err)
			must(t, os.WriteFile(path, damage(b), 0o600))
			refused(t, path, "P-E071")
		})
	}
}

// Whatever bits flip, there is an error or an answer, and no panic.
func TestFlippedBitsNeverPanic(t *testing.T) {
	t.Parallel()
	path := made(t)
	whole, err := os.ReadFile(path)
	must(t, err)
	found := 0
	for range 150 {
		b := bytes.Clone(whole)
		for range 1 + mathrand.IntN(8) {
			b[mathrand.IntN(len(b))] ^= 1 << mathrand.IntN(8)
		}
		must(t, os.WriteFile(path, b, 0o600))
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		d, err := store.Open(ctx, path)
		if err != nil {
			found++
			cancel()
			continue
		}
		if d.Check(ctx) != nil {
			found++
		}
		_, _ = d.SafeRows().Image(ctx)
		_, _ = d.Agents().List(ctx)
		_, _, _ = d.Setting(ctx, "k")
		_, _, _ = d.Agents().Lookup(ctx, "k")
		_ = d.Close()
		cancel()
	}
	if found == 0 {
		t.Error("no damage was found at all")
	}
}

func TestAStoreWithoutItsFileIsNotMadeAnew(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "state.db")
	must(t, os.WriteFile(path+"-wal", []byte("left"), 0o600))
	_, err := store.Open(t.Context(), path)
	if known := asFail(err); known == nil || known.ID != "P-E071" {
		t.Fatalf("got %v", err)
	}
	if _, err := os.Lstat(path); err == nil {
		t.Error("a store was made beside the log of another")
	}
}

func TestOnlyAnOrdinaryFileIsOpened(t *testing.T) {
	t.Parallel()
	for name, makeIt := range map[string]func(t *testing.T, path string){
		"link":      func(t *testing.T, path string) { must(t, os.Symlink(made(t), path)) },
		"fifo":      func(t *testing.T, path string) { must(t, syscall.Mkfifo(path, 0o600)) },
		"directory": func(t *testing.T, path string) { must(t, os.Mkdir(path, 0o700)) },
		"linked log": func(t *testing.T, path string) {
			b, err := os.ReadFile(made(t))
			must(t, err)
			must(t, os.WriteFile(path, b, 0o600))
			must(t, os.Symlink("/etc/hostname", path+"-wal"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "state.db")
			makeIt(t, path)
			_, err := store.Open(t.Context(), path)
			wants(t, err, fail.Unavailable)
		})
	}
}

func TestFilesAreForTheOwnerAlone(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "home", "state.db")
	d, err := store.Open(t.Context(), path)
	must(t, err)
	must(t, d.SetSetting(t.Context(), "k", "v"))
	for _, name := range []string{path, path + "-wal", path + "-shm"} {
		info, err := os.Lstat(name)
		must(t, err)
		if got := info.Mode(); got != fs.FileMode(0o600) {
			t.Errorf("%s has mode %v", filepath.Base(name), got)
		}
	}
	must(t, d.Close())
	must(t, os.Chmod(path, 0o644))
	d, err = store.Open(t.Context(), path)
	must(t, err)
	defer d.Close()
	info, err := os.Lstat(path)
	must(t, err)
	if info.Mode().Perm() != 0o600 {
		t.Errorf("a loose file stayed %v", info.Mode())
	}
	names, err := filepath.Glob(filepath.Join(filepath.Dir(path), "*"))
	must(t, err)
	for _, name := range names {
		if !strings.HasPrefix(filepath.Base(name), "state.db") {
			t.Errorf("%s was left", name)
		}
	}
}

func TestRootMakesFilesForTheOwnerOfTheDirectory(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can give files away")
	}
	const somebody = 12345
	home := filepath.Join(t.TempDir(), "home")
	must(t, os.Mkdir(home, 0o700))
	must(t, os.Chown(home, somebody, somebody))
	path := filepath.Join(home, ".config", "postern", "state.db")
	d, err := store.Open(t.Context(), path)
	must(t, err)
	defer d.Close()
	must(t, d.SetSetting(t.Context(), "k", "v"))
	for _, name := range []string{filepath.Join(home, ".config"), filepath.Dir(path), path, path + "-wal", path + "-shm"} {
		info, err := os.Lstat(name)
		must(t, err)
		if owner := info.Sys().(*syscall.Stat_t).Uid; owner != somebody {
			t.Errorf("%s belongs to %d", name, owner)
		}
	}
}

// Anything that a path may hold is part of the path, and of no query.
func TestOddPaths(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"a b", "a?mode=memory", "a#b", "a%20b", "ä", "a&b=c"} {
		path := filepath.Join(t.TempDir(), name, "state.db")
		d, err := store.Open(t.Context(), path)
		must(t, err)
		must(t, d.SetSetting(t.Context(), "k", "v"))
		must(t, d.Close())
		if info, err := os.Stat(path); err != nil || info.Size() == 0 {
			t.Errorf("%q: nothing at that path (%v)", name, err)
		}
	}
}

func BenchmarkOpen(b *testing.B) {
	path := filepath.Join(b.TempDir(), "state.db")
	for b.Loop() {
		d, err := store.Open(b.Context(), path)
		if err != nil {
			b.Fatal(err)
		}
		if _, _, err := d.Setting(b.Context(), "k"); err != nil {
			b.Fatal(err)
		}
		if err := d.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

// TestFullDiskChild is the child of the next test: it writes until it cannot.
func TestFullDiskChild(t *testing.T) {
	path := os.Getenv("STORE_TEST_FULL")
	if path == "" {
		t.Skip("only a child of the next test")
	}
	d, err := store.Open(t.Context(), path)
	must(t, err)
	for i := range 1000 {
		if err := d.SetSetting(t.Context(), strconv.Itoa(i), strings.Repeat("x", 4000)); err != nil {
			wants(t, err, fail.Unavailable)
			_, _, err := d.Setting(t.Context(), "0") // reading goes on
			must(t, err)
			fmt.Println("written", i)
			return
		}
	}
	t.Fatal("the disk was never full")
}

func TestAFullDiskLosesNothing(t *testing.T) {
	t.Parallel()
	path := made(t)
	cmd := exec.Command("sh", "-c", `ulimit -f 1000; exec "$0" -test.run='^TestFullDiskChild$'`, os.Args[0])
	cmd.Env = append(os.Environ(), "STORE_TEST_FULL="+path)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	_, rest, _ := strings.Cut(string(out), "written ")
	written, err := strconv.Atoi(strings.Fields(rest + " ?")[0])
	must(t, err)
	d, err := store.Open(t.Context(), path)
	must(t, err)
	defer d.Close()
	must(t, d.Check(t.Context()))
	for i := range written {
		if _, found, err := d.Setting(t.Context(), strconv.Itoa(i)); err != nil || !found {
			t.Fatalf("%d of %d is lost (%v)", i, written, err)
		}
	}
	must(t, d.SetSetting(t.Context(), "more", "room"))
}
