//go:build linux

package change

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"postern/internal/fail"
)

func TestUndoBringsEverythingBack(t *testing.T) {
	t.Parallel()
	dir, store := scene(t)
	before := snap(t, dir)
	j := New(store, gcmSealer{})
	if err := job(t.Context(), j, dir); err != nil {
		t.Fatal(err)
	}
	changed := snap(t, dir)
	if got := changed[".env"]; got.Data != "\xef\xbb\xbfKEY=other\r\n" || got.Mode != 0o600 || got.XAttr != before[".env"].XAttr {
		t.Errorf(".env is %+v", got)
	}
	if changed["plain"].Mode != 0o600 || changed["sub/new"].Data != "new" {
		t.Errorf("the run left %+v", changed)
	}
	report, err := j.Undo(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	same(t, "after undo", snap(t, dir), before)
	var did []string
	for _, f := range report.Files {
		did = append(did, filepath.Base(f.Path)+" "+f.Did)
	}
	want := []string{".env restored", "new removed", "sub removed", "plain restored", ".env restored"}
	if diff := cmp.Diff(want, did); diff != "" {
		t.Error(diff)
	}
}

func TestJournalHoldsNoPlainImage(t *testing.T) {
	t.Parallel()
	dir, store := scene(t)
	if err := job(t.Context(), New(store, gcmSealer{}), dir); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(store.path)
	if err != nil {
		t.Fatal(err)
	}
	for _, form := range []string{"plain-secret-value", "cGxhaW4tc2VjcmV0LXZhbHVl", "bGFpbi1zZWNyZXQtdmFsdW", "YWluLXNlY3JldC12YWx1"} {
		if bytes.Contains(b, []byte(form)) {
			t.Errorf("the journal shows %s", form)
		}
	}
}

func TestUndoSaysWhatThereIsToUndo(t *testing.T) {
	t.Parallel()
	dir, store := scene(t)
	j := New(store, gcmSealer{})
	if report, err := j.Undo(t.Context(), 0); err != nil || report.Run.ID != 0 {
		t.Errorf("nothing to undo: %+v, %v", report, err)
	}
	if err := job(t.Context(), j, dir); err != nil {
		t.Fatal(err)
	}
	if _, err := j.Undo(t.Context(), 7); !fail.Is(err, fail.NotFound) {
		t.Errorf("run 7: %v", err)
	}
	if _, err := j.Undo(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	if report, err := j.Undo(t.Context(), 1); err != nil || !report.Already || len(report.Files) != 0 {
		t.Errorf("again: %+v, %v", report, err)
	}
	if report, err := j.Undo(t.Context(), 0); err != nil || report.Run.ID != 0 {
		t.Errorf("all undone: %+v, %v", report, err)
	}
}

func TestUndoStopsAtAnEditAndWritesNothing(t *testing.T) {
	t.Parallel()
	dir, store := scene(t)
	j := New(store, gcmSealer{})
	if err := job(t.Context(), j, dir); err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(dir, "plain"), "edited", 0o600) // not the first to be taken back
	before := snap(t, dir)
	_, err := j.Undo(t.Context(), 0)
	if !fail.Is(err, fail.Conflict) || !strings.Contains(err.Error(), "plain") {
		t.Errorf("got %v", err)
	}
	same(t, "after the refusal", snap(t, dir), before)
}

func TestUndoMerges(t *testing.T) {
	t.Parallel()
	dir, store := scene(t)
	before := snap(t, dir)
	j := New(store, gcmSealer{})
	j.Merge = func(path string, before, after, now []byte) ([]byte, error) {
		if !bytes.Contains(now, after) {
			return nil, errors.New("lines overlap")
		}
		return bytes.Replace(now, after, before, 1), nil
	}
	if err := job(t.Context(), j, dir); err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(dir, ".env"), "\xef\xbb\xbfKEY=other\r\nMORE=1\n", 0o600)
	report, err := j.Undo(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	got := snap(t, dir)[".env"]
	if got.Data != before[".env"].Data+"MORE=1\n" || got.Mode != before[".env"].Mode {
		t.Errorf("got %+v", got)
	}
	if report.Files[0].Did != DidMerge {
		t.Errorf("report %+v", report)
	}
}

func TestUndoKeepsADirectoryInUse(t *testing.T) {
	t.Parallel()
	dir, store := scene(t)
	j := New(store, gcmSealer{})
	if err := job(t.Context(), j, dir); err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(dir, "sub/theirs"), "x", 0o600)
	if _, err := j.Undo(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "sub/theirs")); err != nil {
		t.Error(err)
	}
}

func TestUndoBringsBackADeletedFile(t *testing.T) {
	t.Parallel()
	dir, store := scene(t)
	before := snap(t, dir)
	j := New(store, gcmSealer{})
	if err := job(t.Context(), j, dir); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, ".env")); err != nil {
		t.Fatal(err)
	}
	if _, err := j.Undo(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	same(t, "after undo", snap(t, dir), before)
}

func TestWriteRefusesOddFiles(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name string
		make func(dir, path string) error
	}{
		{"link to elsewhere", func(dir, path string) error {
			return os.Symlink(filepath.Join(filepath.Dir(dir), "outside"), path)
		}},
		{"link to a file elsewhere", func(_, path string) error { return os.Symlink("/etc/hostname", path) }},
		{"loop", func(_, path string) error { return os.Symlink(filepath.Base(path), path) }},
		{"hard link", func(dir, path string) error { return os.Link(filepath.Join(dir, "plain"), path) }},
		{"fifo", func(_, path string) error { return unix.Mkfifo(path, 0o600) }},
		{"directory", func(_, path string) error { return os.Mkdir(path, 0o700) }},
		{"huge", func(_, path string) error {
			return errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, 1<<30))
		}},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			dir, store := scene(t)
			path := filepath.Join(dir, "odd")
			if err := tc.make(dir, path); err != nil {
				t.Fatal(err)
			}
			r, err := New(store, gcmSealer{}).Begin(t.Context(), "job")
			if err != nil {
				t.Fatal(err)
			}
			if err := r.Write(t.Context(), path, []byte("x"), 0o600); !fail.Is(err, fail.Invalid) {
				t.Errorf("got %v", err)
			}
			if left, _ := filepath.Glob(filepath.Join(dir, ".postern-*")); len(left) != 1 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

func TestWriteFollowsALinkWithinTheDirectory(t *testing.T) {
	t.Parallel()
	dir, store := scene(t)
	link := filepath.Join(dir, "link")
	if err := os.Symlink("plain", link); err != nil {
		t.Fatal(err)
	}
	before := snap(t, dir)
	j := New(store, gcmSealer{})
	r, err := j.Begin(t.Context(), "job")
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Write(t.Context(), link, []byte("through"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := snap(t, dir); got["plain"].Data != "through" || got["link"].Mode&fs.ModeSymlink == 0 {
		t.Errorf("got %+v", got)
	}
	if _, err := j.Undo(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	same(t, "after undo", snap(t, dir), before)
}

// editor changes the file after the new one was written beside it.
type editor struct {
	disk
	t *testing.T
}

func (e editor) Put(p place, temp string, s state, keepTime bool) error {
	err := e.disk.Put(p, temp, s, keepTime)
	put(e.t, p.path, "edited meanwhile", 0o644)
	return err
}

func TestWriteStopsAtAnEditUnderneath(t *testing.T) {
	t.Parallel()
	for _, name := range []string{".env", "fresh"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, store := scene(t)
			j := New(store, gcmSealer{})
			j.disk = editor{linux{}, t}
			r, err := j.Begin(t.Context(), "job")
			if err != nil {
				t.Fatal(err)
			}
			if err := r.Write(t.Context(), filepath.Join(dir, name), []byte("ours"), 0o600); !fail.Is(err, fail.Conflict) {
				t.Errorf("got %v", err)
			}
			if got := snap(t, dir); got[name].Data != "edited meanwhile" || len(got) > 4 {
				t.Errorf("got %+v", got)
			}
			if _, err := j.Undo(t.Context(), 0); err != nil { // the failed write is no change
				t.Error(err)
			}
			if got := snap(t, dir); got[name].Data != "edited meanwhile" {
				t.Errorf("after undo %+v", got)
			}
		})
	}
}

func TestReplaceAndCreateHoldToTheirPlan(t *testing.T) {
	t.Parallel()
	dir, store := scene(t)
	r, err := New(store, gcmSealer{}).Begin(t.Context(), "job")
	if err != nil {
		t.Fatal(err)
	}
	before := snap(t, dir)
	if err := r.Replace(t.Context(), filepath.Join(dir, ".env"), []byte("stale"), []byte("x"), 0o600); !fail.Is(err, fail.Conflict) {
		t.Errorf("Replace: %v", err)
	}
	if err := r.Create(t.Context(), filepath.Join(dir, ".env"), []byte("x"), 0o600); !fail.Is(err, fail.Conflict) {
		t.Errorf("Create: %v", err)
	}
	same(t, "after the refusals", snap(t, dir), before)
}

func TestTemporaryIsNeverWiderThanTheFile(t *testing.T) {
	t.Parallel()
	dir, store := scene(t)
	j := New(store, gcmSealer{})
	j.disk = peeker{linux{}, t}
	if err := job(t.Context(), j, dir); err != nil {
		t.Fatal(err)
	}
}

type peeker struct {
	disk
	t *testing.T
}

func (k peeker) Move(p place, temp string, replace bool) error {
	info, err := os.Stat(filepath.Join(filepath.Dir(p.path), temp))
	if err != nil || info.Mode() != 0o600 {
		k.t.Errorf("the temporary of %s: %v, %v", p.path, info.Mode(), err)
	}
	return k.disk.Move(p, temp, replace)
}

func TestUndoRefusesASwappedParent(t *testing.T) {
	t.Parallel()
	dir, store := scene(t)
	j := New(store, gcmSealer{})
	if err := job(t.Context(), j, dir); err != nil {
		t.Fatal(err)
	}
	elsewhere := t.TempDir()
	put(t, filepath.Join(elsewhere, "new"), "new", 0o600)
	if err := errors.Join(os.RemoveAll(filepath.Join(dir, "sub")), os.Symlink(elsewhere, filepath.Join(dir, "sub"))); err != nil {
		t.Fatal(err)
	}
	if _, err := j.Undo(t.Context(), 0); err == nil {
		t.Error("undo went through a symbolic link")
	}
	if _, err := os.Stat(filepath.Join(elsewhere, "new")); err != nil {
		t.Error("undo removed a file elsewhere")
	}
}

func TestWhatRootMakesBelongsToTheDirectorysOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("skipped: only root can make files that belong to others")
	}
	dir, store := scene(t)
	if err := os.Chown(dir, 12345, 12346); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "made")
	run, err := New(store, gcmSealer{}).Begin(t.Context(), "job")
	if err != nil {
		t.Fatal(err)
	}
	if err := run.Create(t.Context(), path, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	if st.Uid != 12345 || st.Gid != 12346 {
		t.Errorf("the new file belongs to %d:%d", st.Uid, st.Gid)
	}
}
