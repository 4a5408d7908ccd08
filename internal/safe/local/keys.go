package local

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"fmt"

	"postern/internal/safe"
	"postern/internal/secret"
)

// keys are the keys of an open safe. The key-encrypting key comes from the root
// key and wraps everything else; the store key is random, and stays the same
// when the root key changes.
type keys struct {
	memory   *guarded
	storeID  []byte // of the safe that they belong to
	verifier []byte // of the root key that they hang on
}

func newKeys() *keys { return &keys{memory: newGuarded(4 * keyBytes)} }

func (k *keys) part(i int) []byte   { return k.memory.page[i*keyBytes : (i+1)*keyBytes] }
func (k *keys) keyKey() []byte      { return k.part(0) }
func (k *keys) storeKey() []byte    { return k.part(1) }
func (k *keys) fingerprint() []byte { return k.part(2) }
func (k *keys) rowKey() []byte      { return k.part(3) }
func (k *keys) wipe()               { k.memory.wipe() }

// fit says whether these are the keys of the safe with head m.
func (k *keys) fit(m *Meta) bool { return hmac.Equal(k.verifier, m.Verifier) }

// rootParts are the fields that a new root key changes.
func (m *Meta) rootParts() [][]byte {
	return [][]byte{number(m.Format), m.StoreID, []byte(m.RootKind), m.RootSalt}
}

// fromRoot sets the key-encrypting key, and the verifier that belongs to it and
// to m.
func (k *keys) fromRoot(root secret.Value, m *Meta) error {
	if root.Len() != keyBytes {
		return fmt.Errorf("the root key has %d bytes, not %d", root.Len(), keyBytes)
	}
	var check [keyBytes]byte
	defer clear(check[:])
	err := root.Reveal(func(b []byte) error {
		if err := derive(k.keyKey(), b, m.StoreID, forKeyKey); err != nil {
			return err
		}
		return derive(check[:], b, m.StoreID, forVerifier)
	})
	if err != nil {
		return err
	}
	k.storeID, k.verifier = m.StoreID, mac(check[:], m.rootParts()...)
	return nil
}

// fromStoreKey sets the keys that hang on the store key.
func (k *keys) fromStoreKey(storeID []byte) error {
	if err := derive(k.fingerprint(), k.storeKey(), storeID, forFingerprint); err != nil {
		return err
	}
	return derive(k.rowKey(), k.storeKey(), storeID, forMAC)
}

// sealKey is the key for what is sealed for purpose and kept elsewhere.
func (k *keys) sealKey(purpose string) ([]byte, error) {
	key := make([]byte, keyBytes)
	return key, derive(key, k.storeKey(), k.storeID, forSeal+" "+purpose)
}

// newStoreKey draws the store key.
func (k *keys) newStoreKey(storeID []byte) error {
	if _, err := rand.Read(k.storeKey()); err != nil {
		return err
	}
	return k.fromStoreKey(storeID)
}

// setRoot makes m open with what root gives: a new key-encrypting key in k, and
// the store key sealed under it.
func (k *keys) setRoot(root secret.Value, kind string, salt []byte, m *Meta) (err error) {
	m.RootKind, m.RootSalt = kind, salt
	if err := k.fromRoot(root, m); err != nil {
		return err
	}
	m.Verifier = k.verifier
	if m.StoreKey, err = seal(k.keyKey(), k.storeKey(), m.StoreID, []byte(forStoreKey)); err != nil {
		return err
	}
	m.Checksum = m.checksum()
	return nil
}

// checksum finds damage before a passphrase is asked for, so that a flipped bit
// does not look like a wrong one. It needs no key and stops nobody.
func (m *Meta) checksum() []byte {
	sum := sha256.Sum256(bind(append(m.rootParts(), []byte(forChecksum), m.Verifier, m.StoreKey)...))
	return sum[:]
}

// unlockKeys makes the keys of the safe with head m from a root key.
func unlockKeys(root secret.Value, m *Meta) (*keys, error) {
	k := newKeys()
	err := k.fromRoot(root, m)
	if err == nil && !k.fit(m) {
		err = errWrongRoot(m.RootKind)
	}
	if err != nil {
		k.wipe()
		return nil, err
	}
	plain, err := open(k.keyKey(), m.StoreKey, m.StoreID, []byte(forStoreKey))
	defer clear(plain)
	if err != nil || len(plain) != keyBytes {
		k.wipe()
		return nil, errDamaged("its store key does not open")
	}
	copy(k.storeKey(), plain)
	if err := k.fromStoreKey(m.StoreID); err != nil {
		k.wipe()
		return nil, err
	}
	return k, nil
}

// unattended says whether a root of this kind answers without a person.
func unattended(kind string) bool { return kind == safe.KindKeyFile || kind == safe.KindSystemd }
