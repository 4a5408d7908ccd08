//go:build linux

package change

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"postern/internal/fail"
)

// Report says what an Undo did. A zero Run means that there was nothing to
// take back.
type Report struct {
	Run     RunInfo      `json:"run"`
	Already bool         `json:"already"` // the run had been taken back before
	Files   []FileReport `json:"files"`   // in the order in which they were taken back
}

// FileReport is one file of a Report.
type FileReport struct {
	Path string `json:"path"`
	Did  string `json:"did"` // one of the Did words
}

// What an Undo did with a file.
const (
	DidRestore = "restored"  // as it was, byte for byte, with mode and owner
	DidMerge   = "merged"    // edited since: the edits stay, our change is out
	DidRemove  = "removed"   // the run had created it
	DidNothing = "unchanged" // it was as before already
	DidKeep    = "kept"      // a directory that is no longer empty, an edited file that stays
)

// step is one change to take back: from what is there to what shall be.
type step struct {
	change Change
	was    string // hash that must be found, "" for no file
	next   state  // the state to make; Exists false: remove
	did    string
}

// Undo takes back a run, 0 for the last one that has not been taken back.
// Nothing is written, and fail.Conflict returned, where a file was edited
// since and cannot be merged. After a kill, Undo again goes on.
func (j *Journal) Undo(ctx context.Context, run int64) (Report, error) {
	info, found, err := j.pick(ctx, run)
	if err != nil || !found {
		return Report{}, err
	}
	report := Report{Run: info}
	if info.State == Undone {
		report.Already = true
		return report, nil
	}
	changes, err := j.store.Changes(ctx, info.ID)
	if err != nil {
		return report, fmt.Errorf("reading run %d: %w", info.ID, err)
	}
	steps, err := j.planUndo(ctx, changes)
	if err != nil {
		return report, err
	}
	// Open again, so that a kill in the middle is seen for what it is.
	if err := j.store.SetRun(ctx, info.ID, Open, info.Finished); err != nil {
		return report, fmt.Errorf("reopening run %d: %w", info.ID, err)
	}
	for _, s := range steps {
		did, err := j.takeBack(ctx, s)
		if err != nil {
			return report, err
		}
		report.Files = append(report.Files, FileReport{Path: s.change.Path, Did: did})
	}
	report.Run.State, report.Run.Finished = Undone, j.Now().UTC()
	if err := j.store.SetRun(ctx, info.ID, Undone, report.Run.Finished); err != nil {
		return report, fmt.Errorf("closing run %d: %w", info.ID, err)
	}
	return report, nil
}

// pick finds the run; false means that there is nothing to take back.
func (j *Journal) pick(ctx context.Context, id int64) (RunInfo, bool, error) {
	runs, err := j.store.Runs(ctx)
	if err != nil {
		return RunInfo{}, false, fmt.Errorf("reading the journal: %w", err)
	}
	for _, run := range slices.Backward(runs) {
		if id == 0 && run.State != Undone || id != 0 && run.ID == id {
			return run, true, nil
		}
	}
	if id == 0 {
		return RunInfo{}, false, nil
	}
	return RunInfo{}, false, fail.New(fail.NotFound, "P-E054", "there is no run %d", id).
		Because("the journal has %d runs", len(runs)).Hint("postern undo   takes back the last one")
}

// planUndo decides for every change what to make, last change first, before
// anything is written. seen carries the outcome of later changes of a path.
func (j *Journal) planUndo(ctx context.Context, changes []Change) ([]step, error) {
	seen := map[string]state{}
	var steps []step
	for _, c := range slices.Backward(changes) {
		if c.State == Undone {
			continue
		}
		if err := j.tidy(c); err != nil {
			return nil, err
		}
		now, known := seen[c.Path]
		if !known {
			var err error
			if now, err = current(c); err != nil {
				return nil, err
			}
		}
		s, err := j.decide(ctx, c, now)
		if err != nil {
			return nil, err
		}
		seen[c.Path] = s.next
		steps = append(steps, s)
	}
	return steps, nil
}

// current is what stands at the path of a change; a directory that is gone
// has no files.
func current(c Change) (state, error) {
	p, err := reopen(c.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return state{}, nil
	}
	if err != nil {
		return state{}, err
	}
	defer p.close()
	return look(p)
}

func (j *Journal) decide(ctx context.Context, c Change, now state) (step, error) {
	s := step{change: c, next: now, did: DidNothing}
	if now.Exists && !now.isDir {
		s.was = now.hash()
	}
	if c.Action == actMkdir {
		if now.isDir {
			s.next, s.did = state{}, DidRemove
		}
		return s, nil
	}
	if now.isDir {
		return s, edited(c, "a directory stands in its place")
	}
	var before meta
	if json.Unmarshal([]byte(c.BeforeMeta), &before) != nil {
		return s, damaged(c)
	}
	img, err := j.unseal(ctx, c)
	if err != nil {
		return s, err
	}
	old := state{meta: before, data: img.Before, xattrs: img.XAttrs}
	switch {
	case !now.Exists && !before.Exists:
	case now.Exists && now.hash() == c.AfterHash, !now.Exists:
		s.next, s.did = old, DidRestore
		if !before.Exists {
			s.next, s.did = state{}, DidRemove
		}
	case before.Exists && bytes.Equal(now.data, img.Before):
	default:
		return j.merge(s, old, img, now)
	}
	return s, nil
}

// merge takes our change out of a file that was edited since.
func (j *Journal) merge(s step, old state, img image, now state) (step, error) {
	if j.Merge == nil {
		return s, edited(s.change, "it was edited since")
	}
	data, err := j.Merge(s.change.Path, img.Before, img.After, now.data)
	if err != nil {
		return s, edited(s.change, "it was edited since: "+err.Error())
	}
	switch {
	case bytes.Equal(data, now.data):
		s.did = DidKeep
	case len(data) == 0 && !old.Exists:
		s.next, s.did = state{}, DidRemove
	default:
		s.next, s.did = now, DidMerge
		if old.Exists {
			s.next = old
		}
		s.next.data = data
		s.next.MTime = j.Now().UnixNano()
	}
	return s, nil
}

func edited(c Change, why string) error {
	return fail.New(fail.Conflict, "P-E053", "did not take back run %d, nothing was written", c.Run).
		Because("%s: %s", c.Path, why).
		Hint("postern undo %d   again, after moving %s aside", c.Run, c.Path)
}

// takeBack carries out one step and marks the change.
func (j *Journal) takeBack(ctx context.Context, s step) (string, error) {
	did := s.did
	if did == DidRestore || did == DidMerge || did == DidRemove {
		var err error
		if did, err = j.apply(s); err != nil {
			return "", err
		}
	}
	return did, j.mark(ctx, s.change, Undone)
}

func (j *Journal) apply(s step) (string, error) {
	p, err := reopen(s.change.Path)
	if errors.Is(err, fs.ErrNotExist) && !s.next.Exists {
		return DidNothing, nil
	}
	if err != nil {
		return "", fmt.Errorf("taking back %s: %w", s.change.Path, err)
	}
	defer p.close()
	if s.change.Action == actMkdir {
		err := j.disk.Remove(p, p.name, true)
		if errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, unix.EEXIST) {
			return DidKeep, nil
		}
		return s.did, err
	}
	now, err := look(p)
	if err != nil {
		return "", err
	}
	if now.isDir || now.Exists != (s.was != "") || now.Exists && now.hash() != s.was {
		return "", underneath(p.path)
	}
	if !s.next.Exists {
		return s.did, j.disk.Remove(p, p.name, false)
	}
	if _, err := j.swap(p, tempOf(s.change), now, s.next, true); err != nil {
		return "", errors.Join(err, j.tidy(s.change))
	}
	return s.did, nil
}

// tidy removes the temporary that a cut-off change may have left. Only the
// very name in the journal is touched, and only an ordinary file.
func (j *Journal) tidy(c Change) error {
	temp := tempOf(c)
	if c.State == Undone || temp == "" {
		return nil
	}
	p, err := reopen(c.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer p.close()
	var st unix.Stat_t
	if err := unix.Fstatat(p.fd(), temp, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		if errors.Is(err, unix.ENOENT) {
			return nil
		}
		return &os.PathError{Op: "stat", Path: temp, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil
	}
	return j.disk.Remove(p, temp, false)
}

// tempOf is the temporary name of a change, "" where there is none or where
// the row does not hold one of ours.
func tempOf(c Change) string {
	var m meta
	if json.Unmarshal([]byte(c.BeforeMeta), &m) != nil || !strings.HasPrefix(m.Temp, ".postern-") ||
		!strings.HasSuffix(m.Temp, ".tmp") || strings.Contains(m.Temp, "/") {
		return ""
	}
	return m.Temp
}
