package ledger

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	"golang.org/x/mod/sumdb/note"

	"postern/internal/fail"
)

func damaged(why string, args ...any) *fail.Error {
	return fail.New(fail.Conflict, "P-E141", "the ledger is damaged").Because(why, args...).
		Hint("postern ledger verify")
}

// load reads the journal from its beginning and holds it against the checkpoint.
// The shared lock is held.
func (l *Ledger) load() error {
	f, err := l.dir.open(journalFile, false)
	if errors.Is(err, fs.ErrNotExist) {
		return damaged("its journal is missing")
	}
	if err != nil {
		return cannotWrite().Wrap(err)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFile))
	if err != nil {
		return errors.Join(cannotWrite().Wrap(err), f.Close())
	}
	t, n, err := cutHeader(data)
	if err != nil {
		return errors.Join(damaged("%v", err), f.Close())
	}
	if l.journal != nil {
		l.retired = append(l.retired, l.journal)
	}
	l.journal, l.tree, l.base, l.size = f, t, t.size, int64(n)
	l.starts, l.full = []int64{l.size}, nil
	signed, err := l.readCheckpoint()
	if err != nil {
		return err
	}
	if err := l.replayFrames(data[n:], signed); err != nil {
		return err
	}
	if l.tree.size < signed.size {
		return damaged("its checkpoint counts %d entries, and %d are there", signed.size, l.tree.size)
	}
	l.published = signed.size
	l.dropPublished()
	return nil
}

// readCheckpoint reads the checkpoint on disk; a ledger that has none yet gives
// that of the empty tree.
func (l *Ledger) readCheckpoint() (checkpoint, error) {
	empty := tree{}
	data, err := l.dir.read(checkpointFile)
	if errors.Is(err, fs.ErrNotExist) {
		if l.base > 0 {
			return checkpoint{}, damaged("its checkpoint is missing")
		}
		return checkpoint{root: empty.root()}, nil
	}
	if err != nil {
		return checkpoint{}, cannotWrite().Wrap(err)
	}
	verifier, err := l.verifier()
	if err != nil {
		return checkpoint{}, err
	}
	var c checkpoint
	if verifier == nil {
		c, err = peekCheckpoint(data)
	} else {
		c, err = openCheckpoint(data, verifier)
	}
	var unsigned *note.UnverifiedNoteError
	switch {
	case errors.As(err, &unsigned):
		return c, fail.New(fail.Conflict, "P-E144", "the ledger was signed with another key").
			Hint("postern ledger verify")
	case err != nil:
		return c, damaged("its checkpoint cannot be read: %v", err)
	}
	if c.size < l.base {
		return c, damaged("its checkpoint counts %d entries, and its journal begins after %d", c.size, l.base)
	}
	return c, nil
}

// replay reads what lies in the journal behind what is known, up to size.
func (l *Ledger) replay(size int64) error {
	if size-l.size > maxFile {
		return damaged("the journal is too large")
	}
	data := make([]byte, size-l.size)
	if _, err := l.journal.ReadAt(data, l.size); err != nil {
		return cannotWrite().Wrap(err)
	}
	return l.replayFrames(data, checkpoint{size: l.published})
}

// replayFrames takes the frames in data, which lie in the journal at l.size,
// into the tree. What is left at the end by a kill is cut off the journal; an
// entry that signed covers is never cut off. At its size the root must be its.
func (l *Ledger) replayFrames(data []byte, signed checkpoint) error {
	var prefixed []byte
	for {
		if l.tree.size == signed.size && signed.root != (hash{}) && l.tree.root() != signed.root {
			return damaged("its first %d entries are not those that were signed", signed.size)
		}
		if len(data) == 0 {
			return nil
		}
		entry, rest, err := cutFrame(data)
		if err != nil || entry == nil {
			return l.cut(data, signed.size)
		}
		at, err := timeOf(entry)
		if err != nil {
			return damaged("entry %d cannot be read: %v", l.tree.size+1, err)
		}
		l.last = at
		prefixed = append(append(prefixed[:0], 0), entry...)
		l.grow(leafHash(prefixed), int64(len(data)-len(rest)))
		data = rest
	}
}

func timeOf(entry []byte) (time.Time, error) {
	var e struct {
		Time time.Time `json:"time"`
	}
	err := json.Unmarshal(entry, &e)
	return e.Time, err
}

// cut takes rest off the end of the journal. A record that is only begun is what
// a kill leaves, and nobody was told that it is written. Anything else was lost
// by the disk, with the power, and is kept aside.
func (l *Ledger) cut(rest []byte, signed uint64) error {
	if l.tree.size < signed {
		return damaged("entry %d is not readable, and was signed", l.tree.size+1)
	}
	if _, _, err := cutFrame(rest); err != nil || bytes.Count(rest, []byte(`{"seq":`)) > 1 {
		name := fmt.Sprintf("%s%d", cutPrefix, l.tree.size+1)
		if err := l.dir.write(name, rest, true); err != nil {
			return cannotWrite().Wrap(err)
		}
	}
	if err := l.journal.Truncate(l.size); err != nil {
		return cannotWrite().Wrap(err)
	}
	return nil
}

// dropPublished forgets the tiles and bundles that the checkpoint covers.
func (l *Ledger) dropPublished() {
	kept := l.full[:0]
	for _, t := range l.full {
		if end := (t.index + 1) << (8 * (t.level + 1)); end > l.published {
			kept = append(kept, t)
		}
	}
	l.full = kept
	first := l.tree.size/tileWidth + 1 - uint64(len(l.starts)) // the bundle of starts[0]
	if done := l.published / tileWidth; done > first {
		l.starts = l.starts[min(done-first, uint64(len(l.starts)-1)):]
	}
}
