//go:build linux

package change

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"postern/internal/fail"
)

// The actions of a change.
const (
	actWrite  = "write"  // a file that was there
	actCreate = "create" // a file that was not
	actMkdir  = "mkdir"
)

// Merge puts back what a change took out of a file that was edited since:
// before and after are the bytes around the change, now the bytes found. It
// returns the bytes to leave (none for a file that the change created: then it
// is removed), or an error where that cannot be done with certainty.
type Merge func(path string, before, after, now []byte) ([]byte, error)

// Journal makes and takes back changes. One process at a time: the caller
// holds the installation's lock while a run is open and during Undo.
type Journal struct {
	store  Store
	sealer Sealer
	disk   disk

	// Merge is asked for files edited since; without it they are a conflict.
	Merge Merge
	// Now is the clock, time.Now by default.
	Now func() time.Time
}

// New makes a journal that keeps its rows in store and its images sealed.
func New(store Store, sealer Sealer) *Journal {
	return &Journal{store: store, sealer: sealer, disk: linux{}, Now: time.Now}
}

// Runs are all runs by rising id.
func (j *Journal) Runs(ctx context.Context) ([]RunInfo, error) { return j.store.Runs(ctx) }

// Run is an open run. Not safe for concurrent use.
type Run struct {
	j   *Journal
	id  int64
	seq int
}

// ID names the run for Undo.
func (r *Run) ID() int64 { return r.id }

// Begin opens a run. Where the last run has the same command and was cut off,
// that one goes on, so that one Undo takes back both halves; what it left
// lying around is removed.
func (j *Journal) Begin(ctx context.Context, command string) (*Run, error) {
	runs, err := j.store.Runs(ctx)
	if err != nil {
		return nil, fmt.Errorf("reading the journal: %w", err)
	}
	for i, run := range runs {
		if run.State != Open {
			continue
		}
		changes, err := j.store.Changes(ctx, run.ID)
		if err != nil {
			return nil, fmt.Errorf("reading run %d: %w", run.ID, err)
		}
		for _, c := range changes {
			if err := j.tidy(c); err != nil {
				return nil, err
			}
		}
		if i == len(runs)-1 && run.Command == command {
			last := 0
			if len(changes) > 0 {
				last = changes[len(changes)-1].Seq
			}
			return &Run{j: j, id: run.ID, seq: last}, nil
		}
	}
	id, err := j.store.BeginRun(ctx, command, j.Now().UTC())
	if err != nil {
		return nil, fmt.Errorf("opening a run: %w", err)
	}
	return &Run{j: j, id: id}, nil
}

// Write gives the file at path these bytes. A file that is there keeps its
// owner and attributes, and of its mode the bits that mode has too; a new one
// gets mode. Nothing is done, and nothing journaled, where nothing would change.
func (r *Run) Write(ctx context.Context, path string, data []byte, mode fs.FileMode) error {
	return r.write(ctx, path, data, mode, func(state) bool { return true })
}

// Replace is Write for a plan made from the bytes was: it fails with
// fail.Conflict where the file holds anything else now.
func (r *Run) Replace(ctx context.Context, path string, was, data []byte, mode fs.FileMode) error {
	return r.write(ctx, path, data, mode, func(s state) bool { return s.Exists && bytes.Equal(s.data, was) })
}

// Create is Write for a file that must not be there; fail.Conflict otherwise.
func (r *Run) Create(ctx context.Context, path string, data []byte, mode fs.FileMode) error {
	return r.write(ctx, path, data, mode, func(s state) bool { return !s.Exists })
}

// Mkdir makes one directory, or does nothing where there is one.
func (r *Run) Mkdir(ctx context.Context, path string, mode fs.FileMode) error {
	p, err := locate(path)
	if err != nil {
		return err
	}
	defer p.close()
	s, err := look(p)
	if err != nil || s.isDir {
		return err
	}
	if s.Exists {
		return odd(p.path, "a file stands where a directory is wanted")
	}
	r.seq++
	c := Change{Run: r.id, Seq: r.seq, Path: p.path, Action: actMkdir, BeforeMeta: "{}", State: Intended}
	if err := r.j.store.PutChange(ctx, c); err != nil {
		return fmt.Errorf("journaling %s: %w", p.path, err)
	}
	if err := r.j.disk.Mkdir(p, uint32(mode.Perm())); err != nil {
		return err
	}
	return r.j.mark(ctx, c, Done)
}

// Finish closes the run.
func (r *Run) Finish(ctx context.Context) error {
	if err := r.j.store.SetRun(ctx, r.id, Done, r.j.Now().UTC()); err != nil {
		return fmt.Errorf("closing run %d: %w", r.id, err)
	}
	return nil
}

func (r *Run) write(ctx context.Context, path string, data []byte, mode fs.FileMode, expected func(state) bool) error {
	if len(data) > maxBytes {
		return tooLarge(path)
	}
	p, err := locate(path)
	if err != nil {
		return err
	}
	defer p.close()
	old, err := look(p)
	switch {
	case err != nil:
		return err
	case old.isDir:
		return odd(p.path, "it is a directory")
	case !expected(old):
		return underneath(p.path)
	}
	next, err := after(p, old, data, mode)
	if err != nil {
		return err
	}
	if old.Exists && bytes.Equal(old.data, data) && old.Mode == next.Mode {
		return nil
	}
	c, err := r.intend(ctx, p, old, data)
	if err != nil {
		return err
	}
	moved, err := r.j.swap(p, tempOf(c), old, next, false)
	if err != nil && !moved {
		return errors.Join(err, r.j.tidy(c), r.j.mark(ctx, c, Undone))
	}
	if err != nil {
		return err
	}
	return r.j.mark(ctx, c, Done)
}

// after is the state that a write aims at. A file's set-id bits go with the
// bits that mode does not have. What root makes belongs to the owner of the
// directory: an agent's files stay its own.
func after(p place, old state, data []byte, mode fs.FileMode) (state, error) {
	next := old
	next.data = data
	if old.Exists {
		next.Mode = old.Mode & uint32(mode.Perm())
		return next, nil
	}
	next.meta = meta{Exists: true, Mode: uint32(mode.Perm()), UID: os.Geteuid(), GID: os.Getegid()}
	if next.UID == 0 {
		var dir unix.Stat_t
		if err := unix.Fstat(p.fd(), &dir); err != nil {
			return next, fmt.Errorf("looking for the owner of the directory of %s: %w", p.path, err)
		}
		next.UID, next.GID = int(dir.Uid), int(dir.Gid)
	}
	return next, nil
}

// intend journals a write that is about to happen.
func (r *Run) intend(ctx context.Context, p place, old state, data []byte) (Change, error) {
	var random [8]byte
	_, _ = rand.Read(random[:]) // never fails
	before := old.meta
	before.Temp = ".postern-" + hex.EncodeToString(random[:]) + ".tmp"
	text, err := json.Marshal(before)
	if err != nil {
		return Change{}, fmt.Errorf("noting %s: %w", p.path, err)
	}
	r.seq++
	c := Change{Run: r.id, Seq: r.seq, Path: p.path, Action: actWrite, BeforeMeta: string(text), AfterHash: hashOf(data), State: Intended}
	if !old.Exists {
		c.Action = actCreate
	}
	if c.Before, err = r.j.seal(ctx, c, image{Before: old.data, After: data, XAttrs: old.xattrs}); err != nil {
		return Change{}, err
	}
	if err := r.j.store.PutChange(ctx, c); err != nil {
		return Change{}, fmt.Errorf("journaling %s: %w", p.path, err)
	}
	return c, nil
}

// swap writes next under a temporary name and gives it the name of p, if p is
// then still the very file old. It says whether the name was given.
func (j *Journal) swap(p place, temp string, old, next state, keepTime bool) (moved bool, err error) {
	if err := j.disk.Put(p, temp, next, keepTime); err != nil {
		return false, err
	}
	now, err := look(p)
	if err != nil {
		return false, err
	}
	if now.Exists != old.Exists || now.dev != old.dev || now.ino != old.ino || now.hash() != old.hash() {
		return false, underneath(p.path)
	}
	err = j.disk.Move(p, temp, old.Exists)
	return err == nil || !fail.Is(err, fail.Conflict), err
}

func (j *Journal) mark(ctx context.Context, c Change, state string) error {
	c.State = state
	if err := j.store.PutChange(ctx, c); err != nil {
		return fmt.Errorf("journaling %s: %w", c.Path, err)
	}
	return nil
}

// image is the sealed part of a change: all that may hold a secret.
type image struct {
	Before []byte            `json:"before"`
	After  []byte            `json:"after"`
	XAttrs map[string][]byte `json:"xattrs,omitempty"`
}

func purpose(c Change) string { return fmt.Sprintf("undo/%d/%d", c.Run, c.Seq) }

func (j *Journal) seal(ctx context.Context, c Change, i image) ([]byte, error) {
	plain, err := json.Marshal(i)
	if err != nil {
		return nil, fmt.Errorf("packing the old %s: %w", c.Path, err)
	}
	defer clear(plain)
	sealed, err := j.sealer.Seal(ctx, purpose(c), plain)
	if err != nil {
		return nil, fmt.Errorf("sealing the old %s: %w", c.Path, err)
	}
	return sealed, nil
}

func (j *Journal) unseal(ctx context.Context, c Change) (image, error) {
	var i image
	plain, err := j.sealer.Unseal(ctx, purpose(c), c.Before)
	if err != nil {
		return i, fmt.Errorf("unsealing the old %s: %w", c.Path, err)
	}
	defer clear(plain)
	if err := json.Unmarshal(plain, &i); err != nil {
		return i, damaged(c)
	}
	return i, nil
}

func damaged(c Change) error {
	return fail.New(fail.Invalid, "P-E056", "the journal's row for %s cannot be read", c.Path).
		Because("step %d of run %d is damaged", c.Seq, c.Run).Hint("postern doctor")
}
