// Package local is the embedded safe: sealed rows in the store. A root key
// opens the key-encrypting key, that one a data key for each version, that one
// the value; every ciphertext is bound to its safe, name and version. What the
// rows say of a credential is authenticated too, and so is that none is missing.
package local

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"sync"
	"sync/atomic"
	"time"

	"postern/internal/credential"
	"postern/internal/safe"
	"postern/internal/secret"
)

// currentFormat is the newest Meta.Format.
const currentFormat = 1

// Safe is an embedded safe, locked or open. Safe for concurrent use; other
// processes may work on the same rows.
type Safe struct {
	// Mask makes what people see of a value; by default they see nothing of it.
	// Set it before the first Put. It must not keep value.
	Mask func(kind string, value []byte) string
	// Now is the clock, time.Now by default.
	Now func() time.Time

	rows Rows

	// mu is held for reading while keys are used, for writing to change them.
	mu       sync.RWMutex
	keys     *keys // nil while locked
	root     safe.Root
	rootKind string
	retired  []secret.Value // values that were replaced, to be wiped by Lock

	now atomic.Pointer[snapshot] // nil while locked
}

// snapshot is the book as of one generation.
type snapshot struct {
	*book
	generation uint64
}

// Exists says whether rows hold a safe.
func Exists(ctx context.Context, rows Rows) (bool, error) {
	m, err := rows.Meta(ctx)
	return m != nil, err
}

// Create makes a safe that root opens, and returns it open. fail.Conflict where
// there is one.
func Create(ctx context.Context, rows Rows, root safe.Root) (*Safe, error) {
	if found, err := Exists(ctx, rows); err != nil || found {
		if err == nil {
			err = errThere()
		}
		return nil, err
	}
	salt, err := root.NewSalt()
	if err != nil {
		return nil, err
	}
	key, err := root.Key(ctx, salt)
	defer key.Destroy()
	if err != nil {
		return nil, err
	}
	m := &Meta{Format: currentFormat, StoreID: make([]byte, 16)}
	if _, err := rand.Read(m.StoreID); err != nil {
		return nil, err
	}
	k := newKeys()
	if m.Contents, err = json.Marshal(contents{Credentials: map[string]int64{}, Blobs: map[string]int64{}}); err == nil {
		err = k.newStoreKey(m.StoreID)
	}
	if err == nil {
		err = k.setRoot(key, root.Kind(), salt, m)
	}
	if err == nil {
		m.MAC = k.contentsMAC(m)
		err = rows.Update(ctx, func(now Image) (Batch, error) {
			if now.Meta != nil {
				return Batch{}, errThere()
			}
			return Batch{Meta: m}, nil
		})
	}
	if err != nil {
		k.wipe()
		return nil, err
	}
	s := newSafe(rows)
	s.keys, s.root, s.rootKind = k, root, root.Kind()
	return s, nil
}

// Open returns the safe that rows hold, locked. fail.NotFound where there is
// none.
func Open(ctx context.Context, rows Rows) (*Safe, error) {
	m, err := head(ctx, rows)
	if err != nil {
		return nil, err
	}
	s := newSafe(rows)
	s.rootKind = m.RootKind
	return s, nil
}

func newSafe(rows Rows) *Safe {
	return &Safe{rows: rows, Now: time.Now, Mask: func(string, []byte) string { return "…" }}
}

func head(ctx context.Context, rows Rows) (*Meta, error) {
	m, err := rows.Meta(ctx)
	if err != nil {
		return nil, err
	}
	if m == nil {
		return nil, errNone()
	}
	return m, m.sound()
}

// Unlock opens the safe. A wrong passphrase or key is fail.Locked, damage and a
// root of another kind fail.Invalid.
func (s *Safe) Unlock(ctx context.Context, root safe.Root) error {
	m, err := head(ctx, s.rows)
	if err != nil {
		return err
	}
	k, err := openWith(ctx, root, m)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.forget()
	s.keys, s.root, s.rootKind = k, root, m.RootKind
	s.mu.Unlock()
	if _, err := s.current(ctx); err != nil {
		s.Lock()
		return err
	}
	return nil
}

// successor is a root that a kill may have left half replaced.
type successor interface {
	Successor() (next safe.Root, settle func() error, found bool)
}

func openWith(ctx context.Context, root safe.Root, m *Meta) (*keys, error) {
	if root.Kind() != m.RootKind {
		return nil, errOtherRoot(m.RootKind, root.Kind())
	}
	k, err := openOnce(ctx, root, m)
	if err == nil {
		return k, nil
	}
	if half, can := root.(successor); can {
		if next, settle, found := half.Successor(); found {
			if k, nextErr := openOnce(ctx, next, m); nextErr == nil {
				_ = settle() // otherwise the next one to open does it
				return k, nil
			}
		}
	}
	return nil, err
}

func openOnce(ctx context.Context, root safe.Root, m *Meta) (*keys, error) {
	key, err := root.Key(ctx, m.RootSalt)
	defer key.Destroy()
	if err != nil {
		return nil, err
	}
	return unlockKeys(key, m)
}

// Lock wipes every key and every value that was lent. A value that is still in
// use somewhere reads as zeros from now on.
func (s *Safe) Lock() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forget()
}

// forget wipes what is in memory. s.mu is held.
func (s *Safe) forget() {
	if old := s.now.Swap(nil); old != nil {
		for _, e := range old.entries {
			if l := e.lease.Load(); l != nil {
				l.value.Destroy()
			}
		}
	}
	for _, v := range s.retired {
		v.Destroy()
	}
	s.retired = nil
	if s.keys != nil {
		s.keys.wipe()
	}
	s.keys, s.root = nil, nil
}

// Locked says whether the safe must be unlocked first.
func (s *Safe) Locked() bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.keys == nil
}

// RootKind is the kind of root that opens the safe.
func (s *Safe) RootKind() string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.rootKind
}

// Memory says how the keys are kept: "memfd_secret", "mlock", "unlocked" or
// "heap"; empty while locked.
func (s *Safe) Memory() string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.keys == nil {
		return ""
	}
	return s.keys.memory.kind
}

// current is the book as it is now. fail.Locked while the safe is locked.
func (s *Safe) current(ctx context.Context) (*snapshot, error) {
	generation, err := s.rows.Generation(ctx)
	if err != nil {
		return nil, err
	}
	if now := s.now.Load(); now != nil && now.generation == generation {
		return now, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.refresh(ctx)
}

// refresh reads what has changed. s.mu is held for writing.
func (s *Safe) refresh(ctx context.Context) (*snapshot, error) {
	if s.keys == nil {
		return nil, errLocked()
	}
	// Taken before the rows are read: a change in between is seen later.
	generation, err := s.rows.Generation(ctx)
	if err != nil {
		return nil, err
	}
	old := s.now.Load()
	if old != nil && old.generation == generation {
		return old, nil
	}
	if old != nil { // most changes of the store are none of the safe
		m, err := s.rows.Meta(ctx)
		if err != nil {
			return nil, err
		}
		if m != nil && bytes.Equal(m.MAC, old.meta.MAC) && bytes.Equal(m.Checksum, old.meta.Checksum) {
			next := &snapshot{old.book, generation}
			s.now.Store(next)
			return next, nil
		}
	}
	image, err := s.rows.Image(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.follow(ctx, image.Meta); err != nil {
		return nil, err
	}
	b, err := readBook(image, s.keys)
	if err != nil {
		return nil, err
	}
	if old != nil {
		s.carry(old.book, b)
	}
	next := &snapshot{b, generation}
	s.now.Store(next)
	return next, nil
}

// follow gets new keys where another process has changed the root key. A root
// that needs a person is not asked: the safe is locked then.
func (s *Safe) follow(ctx context.Context, m *Meta) error {
	if m == nil {
		return errNone()
	}
	if err := m.sound(); err != nil || s.keys.fit(m) {
		return err
	}
	if root := s.root; unattended(m.RootKind) && root.Kind() == m.RootKind {
		k, err := openWith(ctx, root, m)
		if err != nil {
			return errLocked().Because("its root key was changed by another process: %v", err).Wrap(err) // tried again with the next call
		}
		s.keys.wipe()
		s.keys = k
		return nil
	}
	s.forget()
	s.rootKind = m.RootKind
	return errLocked().Because("its root key was changed by another process")
}

// carry takes over the values in memory that have not changed.
func (s *Safe) carry(old, next *book) {
	for name, was := range old.entries {
		l := was.lease.Load()
		if l == nil {
			continue
		}
		if e := next.entries[name]; e != nil && e.lends(l.version) {
			e.lease.Store(&lease{l.value, e.current().version()})
			continue
		}
		s.retired = append(s.retired, l.value)
	}
}

// lends says whether the value of version v is the one to lend out.
func (e *entry) lends(v credential.Version) bool {
	if e.damage != nil || e.row.Disabled {
		return false
	}
	now := e.current()
	return now != nil && now.Number == v.Number && now.Fingerprint == v.Fingerprint
}
