package ledger

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// loop syncs and publishes until Close. It sleeps while nothing is written.
func (l *Ledger) loop() {
	defer close(l.done)
	syncTimer, publishTimer := time.NewTimer(0), time.NewTimer(0)
	syncTimer.Stop()
	publishTimer.Stop()
	publishing := false
	for {
		select {
		case <-l.wake:
			syncTimer.Reset(l.pace.sync)
			if !publishing {
				publishing = true
				publishTimer.Reset(l.pace.publish)
			}
		case <-l.urgent:
			l.sync()
		case <-syncTimer.C:
			l.sync()
		case <-publishTimer.C:
			if publishing = l.tend(); publishing {
				publishTimer.Reset(10 * l.pace.publish)
			}
		case <-l.stop:
			l.sync()
			_ = l.publish() // the next process that opens the ledger does it
			return
		}
	}
}

// tend refills the reserve and publishes. It says whether it should be called
// again although nothing is written: a full disk may have room then.
func (l *Ledger) tend() (again bool) {
	l.mu.Lock()
	if l.reserve.low {
		_ = l.locked(func() error { l.reserve.fill(); return nil })
	}
	low := l.reserve.low
	l.mu.Unlock()
	return l.publish() != nil || low
}

// sync brings everything written so far to disk and releases who waits for it.
func (l *Ledger) sync() {
	l.mu.Lock()
	g, f := l.group, l.journal
	retired := l.retired
	l.retired = nil
	dirty := l.dirty
	l.group, l.dirty = &group{done: make(chan struct{})}, false
	l.mu.Unlock()
	// What a replaced journal held is on disk already, in bundles or in the new one.
	for _, old := range retired {
		_ = old.Close()
	}
	if dirty {
		if err := l.fdatasync(f); err != nil {
			l.mu.Lock()
			l.broken = err
			l.mu.Unlock()
			g.err = cannotWrite().Wrap(err)
		}
	}
	close(g.done)
}

// snapshot is what a checkpoint is made from.
type snapshot struct {
	tree    tree
	full    []tile
	first   uint64   // index of bundles[0]
	bundles [][]byte // whole ones, then the unfinished one if it has entries
	start   int64    // where the unfinished bundle begins in the journal
	journal *os.File
	base    uint64 // entries before the journal
}

// whole is the number of entries in whole bundles.
func (s *snapshot) whole() uint64 { return s.tree.size - s.tree.size%tileWidth }

// publish writes tiles and a signed checkpoint for everything in the journal.
func (l *Ledger) publish() error {
	if l.signer == nil {
		return nil
	}
	var s *snapshot
	err := l.unbroken(func() (err error) {
		s, err = l.snapshot()
		return err
	})
	if err != nil || s == nil {
		return err
	}
	l.sync()
	if err := l.writeTiles(s); err != nil {
		return err
	}
	signed := checkpoint{size: s.tree.size, root: s.tree.root()}
	text, err := l.signer.sign(signed)
	if err != nil {
		return err
	}
	temp, err := l.dir.writeTemp(checkpointFile, text, true)
	if err != nil {
		return err
	}
	if err := l.unbroken(func() error { return l.putCheckpoint(s, temp) }); err != nil {
		return err
	}
	if s.whole()-s.base < l.pace.rotate {
		return nil
	}
	if err := l.syncNames(s); err != nil {
		return err
	}
	return l.unbroken(func() error { return l.rotate(s) })
}

// unbroken runs f with all locks, unless the ledger is broken.
func (l *Ledger) unbroken(f func() error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.broken != nil {
		return l.broken
	}
	return l.locked(f)
}

// snapshot copies what is not published yet; nil when there is nothing.
func (l *Ledger) snapshot() (*snapshot, error) {
	if err := l.catchUp(); err != nil {
		return nil, err
	}
	signed, err := l.readCheckpoint()
	if err != nil {
		return nil, err
	}
	l.published = max(l.published, signed.size)
	l.dropPublished()
	if l.tree.size == l.published {
		return nil, nil
	}
	s := &snapshot{
		tree: l.tree.clone(), full: slices.Clone(l.full), journal: l.journal, base: l.base,
		first: l.tree.size/tileWidth + 1 - uint64(len(l.starts)), start: l.starts[len(l.starts)-1],
	}
	for i, start := range l.starts {
		end := l.size
		if i+1 < len(l.starts) {
			end = l.starts[i+1]
		}
		if start == end {
			break
		}
		frames := make([]byte, end-start)
		if _, err := l.journal.ReadAt(frames, start); err != nil {
			return nil, err
		}
		data, err := bundle(frames)
		if err != nil {
			return nil, damaged("%v", err)
		}
		s.bundles = append(s.bundles, data)
	}
	return s, nil
}

// writeTiles writes bundles and tiles. Whole ones are brought to disk, because
// the journal will give up what they hold; partial ones are made anew.
func (l *Ledger) writeTiles(s *snapshot) error {
	for i, data := range s.bundles {
		index, width := s.first+uint64(i), tileWidth
		if index == s.tree.size/tileWidth {
			width = int(s.tree.size % tileWidth)
		}
		if err := l.dir.write(tilePath(entries, index, width), data, width == tileWidth); err != nil {
			return err
		}
	}
	for _, t := range s.full {
		if err := l.dir.write(tilePath(t.level, t.index, tileWidth), flatten(t.nodes), true); err != nil {
			return err
		}
	}
	for level, nodes := range s.tree.edge {
		if len(nodes) == 0 {
			continue
		}
		index := s.tree.size >> (8 * (level + 1))
		if err := l.dir.write(tilePath(level, index, len(nodes)), flatten(nodes), false); err != nil {
			return err
		}
	}
	return nil
}

// putCheckpoint gives the checkpoint in temp its name, unless another process
// has put a later one there, and clears away what it makes superfluous.
func (l *Ledger) putCheckpoint(s *snapshot, temp string) error {
	before, err := l.readCheckpoint()
	if err != nil {
		return err
	}
	after := before.size
	if s.tree.size > before.size {
		if err := l.dir.root.Rename(temp, checkpointFile); err != nil {
			return err
		}
		after = s.tree.size
	} else if err := l.dir.root.Remove(temp); err != nil {
		return err
	}
	kept := partials(after)
	for _, old := range append(partials(before.size), partials(s.tree.size)...) {
		if slices.Contains(kept, old) {
			continue
		}
		if err := l.dir.root.Remove(old); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		_ = l.dir.root.Remove(path.Dir(old)) // which works once it is empty
	}
	l.published = max(l.published, after)
	l.dropPublished()
	return nil
}

// rotate replaces the journal by one that begins with s's unfinished bundle:
// what came before lies in bundles now. Its name is on disk before the locks are
// given back, or else what is written to it could be lost with the name.
func (l *Ledger) rotate(s *snapshot) error {
	if err := unix.Fstat(int(l.journal.Fd()), &l.stat); err != nil {
		return err
	}
	if l.stat.Nlink == 0 || s.journal != l.journal { // another process has done it
		return nil
	}
	rest := make([]byte, l.stat.Size-s.start)
	if _, err := l.journal.ReadAt(rest, s.start); err != nil {
		return err
	}
	edge := tree{size: s.whole(), edge: s.tree.edge}
	if err := l.dir.write(journalFile, append(appendHeader(nil, &edge), rest...), true); err != nil {
		return err
	}
	if err := l.dir.sync("."); err != nil {
		return err
	}
	return l.load()
}

// syncNames makes durable the names of s's whole bundles and tiles, of the
// directories that lead to them, and of the checkpoint, which must never be
// older than the journal.
func (l *Ledger) syncNames(s *snapshot) error {
	names := map[string]bool{}
	add := func(file string) {
		for name := path.Dir(file); name != "."; name = path.Dir(name) {
			names[name] = true
		}
	}
	for index := s.base / tileWidth; index < s.tree.size/tileWidth; index++ {
		add(tilePath(entries, index, tileWidth))
		for level, n := 0, index; ; level, n = level+1, n/tileWidth {
			add(tilePath(level, n, tileWidth))
			if n%tileWidth != tileWidth-1 {
				break
			}
		}
	}
	names["."] = true
	for name := range names {
		if err := l.dir.sync(name); err != nil {
			return err
		}
	}
	return nil
}
