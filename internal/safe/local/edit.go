package local

import (
	"context"
	"crypto/hmac"
	"encoding/json"
	"errors"

	"postern/internal/credential"
	"postern/internal/fail"
	"postern/internal/safe"
	"postern/internal/secret"
)

// errRekeyed says that the keys at hand are no longer those of the rows.
var errRekeyed = errors.New("the root key was changed by another process")

// edit is one change of the rows under way.
type edit struct {
	*book
	k      *keys
	serial int64 // of everything that this edit writes
	batch  Batch
}

// update runs do on the checked rows and writes what it has put in its batch,
// with a new head where there is anything.
func (s *Safe) update(ctx context.Context, do func(*edit) error) error {
	for {
		if _, err := s.current(ctx); err != nil {
			return err
		}
		err := s.tryUpdate(ctx, do)
		if !errors.Is(err, errRekeyed) {
			return err
		}
	}
}

func (s *Safe) tryUpdate(ctx context.Context, do func(*edit) error) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.keys == nil {
		return errLocked()
	}
	return s.rows.Update(ctx, func(image Image) (Batch, error) {
		e, err := newEdit(image, s.keys)
		if err != nil {
			return Batch{}, err
		}
		if err := do(e); err != nil {
			return Batch{}, err
		}
		return e.finish()
	})
}

func newEdit(image Image, k *keys) (*edit, error) {
	if image.Meta != nil && image.Meta.sound() == nil && !k.fit(image.Meta) {
		return nil, errRekeyed
	}
	b, err := readBook(image, k)
	if err != nil {
		return nil, err
	}
	return &edit{book: b, k: k, serial: b.meta.Counter + 1}, nil
}

func (e *edit) finish() (Batch, error) {
	if len(e.batch.Credentials)+len(e.batch.Versions)+len(e.batch.Blobs)+len(e.batch.Remove) == 0 && e.batch.Meta == nil {
		return Batch{}, nil
	}
	m := e.batch.Meta
	if m == nil {
		own := *e.meta
		m = &own
	}
	list, err := json.Marshal(e.contents)
	if err != nil {
		return Batch{}, err
	}
	m.Counter, m.Contents = e.serial, list
	m.MAC = e.k.contentsMAC(m)
	e.batch.Meta = m
	return e.batch, nil
}

// save puts a credential with all its versions in the batch; changed are the
// versions to write.
func (e *edit) save(row CredentialRow, versions []VersionRow, changed ...VersionRow) {
	row.Serial = e.serial
	row.MAC = e.k.rowMAC(e.meta.StoreID, row, versions)
	e.contents.Credentials[row.Name] = e.serial
	e.batch.Credentials = append(e.batch.Credentials, row)
	e.batch.Versions = append(e.batch.Versions, changed...)
}

// Put stores v as the current version of c.Name and returns it; the version
// before becomes previous. The same value again returns the current version. Of
// a credential that is there, what c leaves empty stays as it is, and Created
// and Disabled in any case; Versions of c count for nothing.
func (s *Safe) Put(ctx context.Context, c credential.Credential, v secret.Value) (credential.Version, error) {
	if err := checkPut(c, v); err != nil {
		return credential.Version{}, err
	}
	var out credential.Version
	err := s.update(ctx, func(e *edit) (err error) {
		out, err = s.put(e, c, v)
		return err
	})
	return out, err
}

func checkPut(c credential.Credential, v secret.Value) error {
	e := fail.New(fail.Invalid, "P-E068", "could not store the credential %q", c.Name)
	_, known := credential.ParseEnvironment(string(c.Environment))
	switch {
	case !credential.ValidName(c.Name):
		return e.Because("a name has 1 to 64 lower-case letters, digits, dots, dashes and underscores, and begins with a letter or digit")
	case v.IsZero():
		return e.Because("the value is empty")
	case v.Len() > safe.MaxValueBytes:
		return e.Because("the value has %d bytes, at most %d are taken", v.Len(), safe.MaxValueBytes)
	case c.Environment != "" && !known:
		return e.Because("the environment is dev, staging or prod, not %q", c.Environment)
	}
	return nil
}

func (s *Safe) put(e *edit, c credential.Credential, v secret.Value) (credential.Version, error) {
	row, versions, err := s.merged(e, c)
	if err != nil {
		return credential.Version{}, err
	}
	print := v.Fingerprint(e.k.fingerprint())
	var changed []VersionRow
	last := 0
	for i := range versions {
		one := &versions[i]
		last = max(last, one.Number)
		if one.State != string(credential.Current) {
			continue
		}
		if one.Fingerprint == print {
			if !hmac.Equal(row.MAC, e.k.rowMAC(e.meta.StoreID, row, versions)) { // what is said of it has changed
				e.save(row, versions)
			}
			return one.version(), nil
		}
		one.State = string(credential.Previous)
		changed = append(changed, *one)
	}
	next := VersionRow{
		Credential: c.Name, Number: last + 1, State: string(credential.Current), Created: s.Now().UnixNano(), Fingerprint: print, Bytes: v.Len(),
	}
	err = v.Reveal(func(b []byte) (err error) {
		next.Mask = s.Mask(row.Kind, b)
		next.WrappedKey, next.Sealed, err = e.k.envelope(e.meta.StoreID, b, forValue, next.Credential, int64(next.Number))
		return err
	})
	if err != nil {
		return credential.Version{}, err
	}
	versions = append(versions, next)
	e.save(row, versions, append(changed, next)...)
	return next.version(), nil
}

// merged is the row that c asks for, and the versions that are there.
func (s *Safe) merged(e *edit, c credential.Credential) (CredentialRow, []VersionRow, error) {
	hosts, err := writeHosts(c.Hosts)
	if err != nil {
		return CredentialRow{}, nil, err
	}
	old := e.entries[c.Name]
	if old == nil {
		row := CredentialRow{
			Name: c.Name, Kind: c.Kind, Environment: string(c.Environment), Hosts: hosts, Variable: c.Variable, Origin: c.Origin,
			Restored: c.Restored, Disabled: c.Disabled, Created: c.Created.UnixNano(),
		}
		if c.Created.IsZero() {
			row.Created = s.Now().UnixNano()
		}
		if c.Kind == "" {
			row.Kind = "generic"
		}
		return row, nil, nil
	}
	if old.damage != nil {
		return CredentialRow{}, nil, old.damage
	}
	row := old.row
	row.Restored = c.Restored
	for _, f := range []struct {
		to  *string
		new string
	}{{&row.Kind, c.Kind}, {&row.Environment, string(c.Environment)}, {&row.Hosts, hosts}, {&row.Variable, c.Variable}, {&row.Origin, c.Origin}} {
		if f.new != "" {
			*f.to = f.new
		}
	}
	return row, append([]VersionRow(nil), old.versions...), nil
}

// change edits the row of one credential.
func (s *Safe) change(ctx context.Context, name string, do func(*CredentialRow)) error {
	return s.update(ctx, func(e *edit) error {
		old := e.entries[name]
		if old == nil {
			return errNoCredential(name)
		}
		if old.damage != nil {
			return old.damage
		}
		row := old.row
		do(&row)
		if row.Disabled != old.row.Disabled || row.Restored != old.row.Restored {
			e.save(row, old.versions)
		}
		return nil
	})
}

// SetDisabled stops or resumes lending.
func (s *Safe) SetDisabled(ctx context.Context, name string, disabled bool) error {
	return s.change(ctx, name, func(row *CredentialRow) { row.Disabled = disabled })
}

// SetRestored marks that undo put the value back where it came from.
func (s *Safe) SetRestored(ctx context.Context, name string, restored bool) error {
	return s.change(ctx, name, func(row *CredentialRow) { row.Restored = restored })
}

// Remove forgets a credential with all its versions, also a damaged one; what
// the file held of it is overwritten.
func (s *Safe) Remove(ctx context.Context, name string) error {
	return s.update(ctx, func(e *edit) error {
		if e.entries[name] == nil {
			return errNoCredential(name)
		}
		delete(e.contents.Credentials, name)
		e.batch.Remove, e.batch.Erase = []string{name}, true
		return nil
	})
}

// PutInternal stores a value of Postern's own, in place of the one before.
func (s *Safe) PutInternal(ctx context.Context, name string, v secret.Value) error {
	return s.update(ctx, func(e *edit) error {
		one := BlobRow{Name: name, Serial: e.serial}
		err := v.Reveal(func(b []byte) (err error) {
			one.WrappedKey, one.Sealed, err = e.k.envelope(e.meta.StoreID, b, forBlob, name, one.Serial)
			return err
		})
		if err != nil {
			return err
		}
		e.contents.Blobs[name] = e.serial
		e.batch.Blobs = []BlobRow{one}
		return nil
	})
}

// Rekey makes root open the safe instead of the root before. All or nothing:
// after a kill one of the two opens it. Values and fingerprints stay.
func (s *Safe) Rekey(ctx context.Context, root safe.Root) error {
	if _, err := s.current(ctx); err != nil {
		return err
	}
	salt, err := root.NewSalt()
	if err != nil {
		return err
	}
	key, err := root.Key(ctx, salt)
	defer key.Destroy()
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.keys == nil {
		return errLocked()
	}
	next := newKeys()
	err = s.rows.Update(ctx, func(image Image) (Batch, error) {
		e, err := newEdit(image, s.keys)
		if errors.Is(err, errRekeyed) {
			return Batch{}, fail.New(fail.Conflict, "P-E078", "could not change the root key").
				Because("another process has just changed it").Hint("postern safe unlock")
		}
		if err != nil {
			return Batch{}, err
		}
		return e.rekey(next, key, root.Kind(), salt)
	})
	if err != nil {
		next.wipe()
		return err
	}
	s.keys.wipe()
	s.keys, s.root, s.rootKind = next, root, root.Kind()
	_, _ = s.refresh(ctx) // it is done; what this may find the next call says again
	return nil
}

// rekey seals every data key again, under the keys in next that it makes.
func (e *edit) rekey(next *keys, key secret.Value, kind string, salt []byte) (Batch, error) {
	m := *e.meta
	copy(next.storeKey(), e.k.storeKey())
	if err := next.fromStoreKey(m.StoreID); err != nil {
		return Batch{}, err
	}
	if err := next.setRoot(key, kind, salt, &m); err != nil {
		return Batch{}, err
	}
	for _, one := range e.entries {
		if one.damage != nil {
			return Batch{}, one.damage
		}
		for _, v := range one.versions {
			wrapped, err := e.rewrap(next, v.WrappedKey, forValue, v.Credential, int64(v.Number))
			if err != nil {
				return Batch{}, errors.Join(errDamagedOne(v.Credential, "its value is damaged"), err)
			}
			v.WrappedKey = wrapped
			e.batch.Versions = append(e.batch.Versions, v)
		}
	}
	for name, one := range e.blobs {
		if err := e.spoilt[name]; err != nil {
			return Batch{}, err
		}
		wrapped, err := e.rewrap(next, one.WrappedKey, forBlob, name, one.Serial)
		if err != nil {
			return Batch{}, errDamaged("%s in it is damaged", name)
		}
		one.WrappedKey = wrapped
		e.batch.Blobs = append(e.batch.Blobs, one)
	}
	e.batch.Meta, e.batch.Erase = &m, true
	return e.finish()
}

func (e *edit) rewrap(next *keys, wrapped []byte, what, name string, version int64) ([]byte, error) {
	dataKey, err := e.k.unwrap(e.meta.StoreID, wrapped, what, name, version)
	defer clear(dataKey)
	if err != nil {
		return nil, err
	}
	return next.wrap(e.meta.StoreID, dataKey, what, name, version)
}
