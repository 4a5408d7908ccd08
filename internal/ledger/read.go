package ledger

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"time"

	"golang.org/x/sys/unix"

	"postern/internal/event"
	"postern/internal/fail"
)

// Filter says which events to find. Empty fields match everything.
type Filter struct {
	Agent, Credential string
	Kind              event.Kind
	Host              string    // "name" matches every port, "name:port" one
	Since             time.Time // not before
	After             uint64    // sequence numbers above this one
}

func (f Filter) matches(e *event.Event) bool {
	host := f.Host == "" || f.Host == e.Host ||
		len(e.Host) > len(f.Host) && e.Host[:len(f.Host)] == f.Host && e.Host[len(f.Host)] == ':'
	return host && e.Seq > f.After && !e.Time.Before(f.Since) &&
		(f.Agent == "" || f.Agent == e.Agent) &&
		(f.Credential == "" || f.Credential == e.Credential) &&
		(f.Kind == "" || f.Kind == e.Kind)
}

// Find calls each with the events that match, oldest first, until it returns
// false. It does not check signatures. It needs no key, and does not hold up
// those who write.
func Find(ctx context.Context, name string, f Filter, each func(event.Event) bool) error {
	v, err := openView(name)
	if err != nil {
		return err
	}
	defer func() { _ = v.dir.close() }()
	first := f.After / tileWidth
	if !f.Since.IsZero() {
		if first, err = v.since(first, f.Since); err != nil {
			return err
		}
	}
	for index := first; index <= v.whole; index++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		list, err := v.bundle(index)
		if err != nil {
			return err
		}
		for i := range list {
			if f.matches(&list[i]) && !each(list[i]) {
				return nil
			}
		}
	}
	return nil
}

// ReadTail returns the last n events, oldest first.
func ReadTail(name string, n int) ([]event.Event, error) {
	v, err := openView(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = v.dir.close() }()
	var lists [][]event.Event
	have := 0
	for index := v.whole; have < n; index-- {
		list, err := v.bundle(index)
		if err != nil {
			return nil, err
		}
		lists = append(lists, list)
		if have += len(list); index == 0 {
			break
		}
	}
	var tail []event.Event
	for i := len(lists) - 1; i >= 0; i-- {
		tail = append(tail, lists[i]...)
	}
	return tail[max(0, len(tail)-max(n, 0)):], nil
}

// view is a ledger's directory as it was at one moment: bundles, which never
// change, and the events behind them.
type view struct {
	dir        *dir
	checkpoint []byte // nil where there is none
	journal    []byte
	whole      uint64        // bundles before the journal
	behind     []event.Event // in the journal
}

func openView(name string) (*view, error) {
	v, err := openRaw(name)
	if err != nil {
		return nil, err
	}
	t, n, err := cutHeader(v.journal)
	if err != nil {
		return nil, errors.Join(damaged("%v", err), v.dir.close())
	}
	v.whole = t.size / tileWidth
	for rest := v.journal[n:]; ; {
		entry, next, err := cutFrame(rest)
		if err != nil || entry == nil { // torn; who opens it for writing cuts it off
			return v, nil
		}
		var e event.Event
		if err := json.Unmarshal(entry, &e); err != nil {
			return nil, errors.Join(damaged("entry %d cannot be read: %v", t.size+uint64(len(v.behind))+1, err), v.dir.close())
		}
		v.behind = append(v.behind, e)
		rest = next
	}
}

// openRaw reads what changes while the others are kept from writing.
func openRaw(name string) (*view, error) {
	none := fail.New(fail.NotFound, "P-E145", "there is no ledger in %s", name).Because("nothing has been recorded yet")
	d, err := openDir(name, false)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, none
	}
	if err != nil {
		return nil, cannotOpen(name).Wrap(err)
	}
	v := &view{dir: d}
	if err := v.snapshot(); err != nil {
		_, tiles := d.root.Lstat("tile")
		_ = d.close()
		switch {
		case !errors.Is(err, fs.ErrNotExist):
			return nil, cannotOpen(name).Wrap(err)
		case v.checkpoint == nil && errors.Is(tiles, fs.ErrNotExist):
			return nil, none
		}
		return nil, damaged("its journal is missing")
	}
	return v, nil
}

func (v *view) snapshot() error {
	if lock, err := v.dir.root.Open(lockFile); err == nil { // a copy on a read-only disk has nobody to wait for
		defer func() { _ = lock.Close() }()
		if err := flock(int(lock.Fd()), unix.LOCK_SH); err != nil {
			return err
		}
	}
	var err error
	if v.checkpoint, err = v.dir.read(checkpointFile); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	v.journal, err = v.dir.read(journalFile)
	return err
}

// bundle reads the events of one bundle; the one behind the whole ones is what
// the journal holds.
func (v *view) bundle(index uint64) ([]event.Event, error) {
	if index == v.whole {
		return v.behind, nil
	}
	data, err := v.dir.read(tilePath(entries, index, tileWidth))
	if err != nil {
		return nil, damaged("%v", err)
	}
	list := make([]event.Event, 0, tileWidth)
	for len(data) > 0 {
		entry, rest, err := cutBundle(data)
		var e event.Event
		if err == nil {
			err = json.Unmarshal(entry, &e)
		}
		if err != nil {
			return nil, damaged("entry %d cannot be read: %v", index*tileWidth+uint64(len(list))+1, err)
		}
		list, data = append(list, e), rest
	}
	return list, nil
}

// since finds the first bundle from lowest on that may hold events of that time:
// the last one that begins before it. The times of the entries are in order.
func (v *view) since(lowest uint64, at time.Time) (uint64, error) {
	low, high := lowest, v.whole
	for low < high {
		middle := low + (high-low+1)/2
		list, err := v.bundle(middle)
		if err != nil {
			return 0, err
		}
		if len(list) > 0 && list[0].Time.Before(at) {
			low = middle
		} else {
			high = middle - 1
		}
	}
	return low, nil
}
