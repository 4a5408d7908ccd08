//go:build linux

package change

import (
	"bufio"
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// fileStore keeps the journal as lines of JSON, each synced; a torn last line
// does not count, as in a database.
type fileStore struct{ path string }

type line struct {
	Run    *RunInfo `json:",omitempty"`
	Change *Change  `json:",omitempty"`
}

func (f fileStore) add(l line) error {
	b, err := json.Marshal(l)
	if err != nil {
		return err
	}
	out, err := os.OpenFile(f.path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()
	_, err = out.Write(append(append([]byte("\n"), b...), '\n'))
	return errors.Join(err, out.Sync())
}

func (f fileStore) read() (runs []RunInfo, changes []Change, err error) {
	b, err := os.ReadFile(f.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, err
	}
	lines := bufio.NewScanner(bytes.NewReader(b))
	lines.Buffer(nil, 1<<24)
	for lines.Scan() {
		var l line
		if json.Unmarshal(lines.Bytes(), &l) != nil {
			continue
		}
		if l.Run != nil {
			if l.Run.ID <= int64(len(runs)) {
				runs[l.Run.ID-1].State, runs[l.Run.ID-1].Finished = l.Run.State, l.Run.Finished
			} else {
				runs = append(runs, *l.Run)
			}
		}
		if l.Change == nil {
			continue
		}
		i := slices.IndexFunc(changes, func(c Change) bool { return c.Run == l.Change.Run && c.Seq == l.Change.Seq })
		if i >= 0 {
			changes[i] = *l.Change
		} else {
			changes = append(changes, *l.Change)
		}
	}
	return runs, changes, lines.Err()
}

func (f fileStore) BeginRun(_ context.Context, command string, at time.Time) (int64, error) {
	runs, _, err := f.read()
	id := int64(len(runs) + 1)
	return id, errors.Join(err, f.add(line{Run: &RunInfo{ID: id, Command: command, Started: at, State: Open}}))
}

func (f fileStore) PutChange(_ context.Context, c Change) error { return f.add(line{Change: &c}) }

func (f fileStore) SetRun(_ context.Context, id int64, state string, at time.Time) error {
	return f.add(line{Run: &RunInfo{ID: id, State: state, Finished: at}})
}

func (f fileStore) Runs(context.Context) ([]RunInfo, error) {
	runs, _, err := f.read()
	return runs, err
}

func (f fileStore) Changes(_ context.Context, run int64) ([]Change, error) {
	_, all, err := f.read()
	return slices.DeleteFunc(all, func(c Change) bool { return c.Run != run }), err
}

// gcmSealer seals under a fixed key of the tests.
type gcmSealer struct{}

func (gcmSealer) aead() cipher.AEAD {
	block, err := aes.NewCipher(bytes.Repeat([]byte{7}, 32))
	if err != nil {
		panic(err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		panic(err)
	}
	return aead
}

func (s gcmSealer) Seal(_ context.Context, purpose string, plain []byte) ([]byte, error) {
	return s.aead().Seal(nil, make([]byte, 12), plain, []byte(purpose)), nil
}

func (s gcmSealer) Unseal(_ context.Context, purpose string, sealed []byte) ([]byte, error) {
	return s.aead().Open(nil, make([]byte, 12), sealed, []byte(purpose))
}

// shot is a directory with everything that an undo must bring back.
type shot map[string]fileShot

type fileShot struct {
	Data  string
	Mode  fs.FileMode
	MTime int64
	XAttr string
}

func snap(t testing.TB, dir string) shot {
	t.Helper()
	s := shot{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		one := fileShot{Mode: info.Mode()}
		if info.Mode().IsRegular() {
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			value := make([]byte, 100)
			n, err := unix.Getxattr(path, "user.note", value)
			if err == nil {
				one.XAttr = string(value[:n])
			}
			one.Data, one.MTime = string(b), info.ModTime().UnixNano()
		}
		s[path[len(dir)+1:]] = one
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func same(t testing.TB, what string, got, want shot) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("%s (-want +got):\n%s", what, diff)
	}
}

// scene makes a directory with a file to change, one to tighten, and one of
// somebody else that looks like ours.
func scene(t testing.TB) (dir string, store fileStore) {
	t.Helper()
	dir = t.TempDir()
	put(t, filepath.Join(dir, ".env"), "\xef\xbb\xbfKEY=plain-secret-value\r\n", 0o644)
	put(t, filepath.Join(dir, "plain"), "nothing changes but the mode", 0o664)
	put(t, filepath.Join(dir, ".postern-0000.tmp"), "of another", 0o600)
	old := time.Date(2020, 1, 2, 3, 4, 5, 678, time.UTC)
	if err := os.Chtimes(filepath.Join(dir, ".env"), old, old); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setxattr(filepath.Join(dir, ".env"), "user.note", []byte("mine"), 0); err != nil {
		t.Log("no attributes here:", err)
	}
	return dir, fileStore{filepath.Join(t.TempDir(), "journal")}
}

func put(t testing.TB, path, data string, mode fs.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

// job is the run that the tests take back.
func job(ctx context.Context, j *Journal, dir string) error {
	r, err := j.Begin(ctx, "job")
	if err != nil {
		return err
	}
	in := func(name string) string { return filepath.Join(dir, name) }
	return errors.Join(
		r.Write(ctx, in(".env"), []byte("\xef\xbb\xbfKEY=placeholder\r\n"), 0o600),
		r.Write(ctx, in("plain"), []byte("nothing changes but the mode"), 0o600),
		r.Mkdir(ctx, in("sub"), 0o700),
		r.Write(ctx, in("sub/new"), []byte("new"), 0o600),
		r.Write(ctx, in(".env"), []byte("\xef\xbb\xbfKEY=other\r\n"), 0o600),
		r.Finish(ctx))
}
