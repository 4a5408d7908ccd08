package local

import (
	"context"
	"errors"
	"maps"
	"slices"

	"postern/internal/credential"
	"postern/internal/secret"
)

// List are all credentials by name. While the safe is locked they are as the
// rows say, unchecked.
func (s *Safe) List(ctx context.Context) ([]credential.Credential, error) {
	b, err := s.look(ctx)
	if err != nil {
		return nil, err
	}
	var list []credential.Credential
	for _, name := range slices.Sorted(maps.Keys(b.entries)) {
		list = append(list, b.entries[name].credential())
	}
	return list, nil
}

// Get is one credential; fail.NotFound where there is none.
func (s *Safe) Get(ctx context.Context, name string) (credential.Credential, error) {
	b, err := s.look(ctx)
	if err != nil {
		return credential.Credential{}, err
	}
	e := b.entries[name]
	if e == nil {
		return credential.Credential{}, errNoCredential(name)
	}
	return e.credential(), nil
}

// look is the book for people, who may see it while the safe is locked.
func (s *Safe) look(ctx context.Context) (*book, error) {
	if !s.Locked() {
		now, err := s.current(ctx)
		if err != nil {
			return nil, err
		}
		return now.book, nil
	}
	image, err := s.rows.Image(ctx)
	if err != nil {
		return nil, err
	}
	return readBook(image, nil)
}

// Lease is the current value of a credential. agent is named in errors only.
// fail.NotFound, fail.NotAllowed for a disabled credential, fail.Locked while
// the safe is locked. From the second time on it is answered from memory; every
// change of this or another process is seen.
func (s *Safe) Lease(ctx context.Context, agent, name string) (secret.Value, credential.Version, error) {
	if now := s.now.Load(); now != nil {
		if generation, err := s.rows.Generation(ctx); err == nil && generation == now.generation {
			if e := now.entries[name]; e != nil {
				if l := e.lease.Load(); l != nil {
					return l.value, l.version, nil
				}
			}
		}
	}
	l, err := s.lend(ctx, agent, name)
	return l.value, l.version, err
}

func (s *Safe) lend(ctx context.Context, agent, name string) (lease, error) {
	for {
		now, err := s.current(ctx)
		if err != nil {
			return lease{}, err
		}
		e := now.entries[name]
		switch {
		case e == nil:
			return lease{}, errNoCredential(name)
		case e.damage != nil:
			return lease{}, e.damage
		case e.row.Disabled:
			return lease{}, errDisabled(agent, name)
		case e.current() == nil:
			return lease{}, errNoCredential(name)
		}
		l, fits, err := s.openLease(now, e)
		if err != nil || fits {
			return l, err
		}
	}
}

// openLease decrypts the value of e once. It does nothing and says false where
// now is no longer the newest snapshot, whose keys may be others.
func (s *Safe) openLease(now *snapshot, e *entry) (lease, bool, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.keys == nil {
		return lease{}, false, errLocked()
	}
	if newest := s.now.Load(); newest == nil || newest.book != now.book {
		return lease{}, false, nil
	}
	value, err := e.current().open(s.keys, now.meta.StoreID)
	if err != nil {
		return lease{}, false, err
	}
	l := &lease{value, e.current().version()}
	if !e.lease.CompareAndSwap(nil, l) {
		value.Destroy()
		l = e.lease.Load()
	}
	return *l, true, nil
}

// Value is one version of a credential, lent or not, disabled or not: for the
// redaction of old values and for people. It is not kept in memory.
func (s *Safe) Value(ctx context.Context, name string, number int) (secret.Value, error) {
	var value secret.Value
	err := s.withBook(ctx, func(b *book, k *keys) error {
		e := b.entries[name]
		if e == nil {
			return errNoCredential(name)
		}
		if e.damage != nil {
			return e.damage
		}
		for i := range e.versions {
			if e.versions[i].Number == number {
				v, err := e.versions[i].open(k, b.meta.StoreID)
				value = v
				return err
			}
		}
		return errNoCredential(name)
	})
	return value, err
}

// withBook runs use on a checked book and the keys that belong to it.
func (s *Safe) withBook(ctx context.Context, use func(*book, *keys) error) error {
	for {
		now, err := s.current(ctx)
		if err != nil {
			return err
		}
		fits, err := s.withKeys(now, use)
		if fits || err != nil {
			return err
		}
	}
}

func (s *Safe) withKeys(now *snapshot, use func(*book, *keys) error) (bool, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.keys == nil {
		return false, errLocked()
	}
	if !s.keys.fit(now.meta) {
		return false, nil
	}
	return true, use(now.book, s.keys)
}

// Fingerprint names a value as credential.Version.Fingerprint does.
func (s *Safe) Fingerprint(v secret.Value) (string, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.keys == nil {
		return "", errLocked()
	}
	return v.Fingerprint(s.keys.fingerprint()), nil
}

// Internal is a value of Postern's own, such as a signing key; fail.NotFound
// where there is none.
func (s *Safe) Internal(ctx context.Context, name string) (secret.Value, error) {
	var value secret.Value
	err := s.withBook(ctx, func(b *book, k *keys) error {
		if err := b.spoilt[name]; err != nil {
			return err
		}
		one, found := b.blobs[name]
		if !found {
			return errNoCredential(name)
		}
		plain, err := k.openEnvelope(b.meta.StoreID, one.WrappedKey, one.Sealed, forBlob, name, one.Serial)
		defer clear(plain)
		if err != nil {
			return errDamaged("%s in it is damaged", name)
		}
		value = secret.New(plain)
		return nil
	})
	return value, err
}

// Seal encrypts bytes that are kept elsewhere, such as the undo journal; only
// the same safe, open, gets them back, and only for the same purpose. A new root
// key does not change that.
func (s *Safe) Seal(_ context.Context, purpose string, plain []byte) ([]byte, error) {
	return s.sealing(purpose, func(key, storeID []byte) ([]byte, error) {
		return seal(key, plain, storeID, []byte(purpose))
	})
}

// Unseal is the way back.
func (s *Safe) Unseal(_ context.Context, purpose string, sealed []byte) ([]byte, error) {
	return s.sealing(purpose, func(key, storeID []byte) ([]byte, error) {
		plain, err := open(key, sealed, storeID, []byte(purpose))
		if errors.Is(err, errSeal) {
			return nil, errDamaged("what was sealed for %q does not open: it was changed, or sealed by another safe", purpose)
		}
		return plain, err
	})
}

func (s *Safe) sealing(purpose string, do func(key, storeID []byte) ([]byte, error)) ([]byte, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.keys == nil {
		return nil, errLocked()
	}
	key, err := s.keys.sealKey(purpose)
	defer clear(key)
	if err != nil {
		return nil, err
	}
	return do(key, s.keys.storeID)
}

// Check opens everything and returns all damage found, joined. While the safe
// is locked only its head is checked.
func (s *Safe) Check(ctx context.Context) error {
	if s.Locked() {
		_, err := s.look(ctx)
		return err
	}
	return s.withBook(ctx, func(b *book, k *keys) error {
		var all []error
		for _, name := range slices.Sorted(maps.Keys(b.entries)) {
			e := b.entries[name]
			all = append(all, e.damage)
			for i := range e.versions {
				if e.damage != nil {
					break
				}
				v, err := e.versions[i].open(k, b.meta.StoreID)
				v.Destroy()
				all = append(all, err)
			}
		}
		all = append(all, slices.Collect(maps.Values(b.spoilt))...)
		for name, one := range b.blobs {
			plain, err := k.openEnvelope(b.meta.StoreID, one.WrappedKey, one.Sealed, forBlob, name, one.Serial)
			clear(plain)
			if err != nil {
				all = append(all, errDamaged("%s in it is damaged", name))
			}
		}
		return errors.Join(all...)
	})
}
