package local

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"

	"golang.org/x/crypto/chacha20poly1305"
)

// errSeal says that sealed bytes do not open: they, or what they are bound to,
// were changed, or the key is another.
var errSeal = errors.New("it does not open")

// The purposes that keys and ciphertexts are bound to.
const (
	forKeyKey      = "postern/1/key-encrypting key"
	forVerifier    = "postern/1/verifier"
	forStoreKey    = "postern/1/store key"
	forFingerprint = "postern/1/fingerprint"
	forMAC         = "postern/1/rows"
	forSeal        = "postern/1/seal"
	forDataKey     = "postern/1/data key"
	forValue       = "postern/1/value"
	forBlob        = "postern/1/blob"
	forChecksum    = "postern/1/checksum"
)

const keyBytes = 32

// bind joins parts in a way that no other parts give.
func bind(parts ...[]byte) []byte {
	var b []byte
	for _, p := range parts {
		b = binary.AppendUvarint(b, uint64(len(p)))
		b = append(b, p...)
	}
	return b
}

func number[N int | int64](n N) []byte { return binary.BigEndian.AppendUint64(nil, uint64(n)) }

// derive makes the key for one purpose from key.
func derive(into, key, salt []byte, purpose string) error {
	k, err := hkdf.Key(sha256.New, key, salt, purpose, len(into))
	copy(into, k)
	clear(k)
	return err
}

func mac(key []byte, parts ...[]byte) []byte {
	m := hmac.New(sha256.New, key)
	m.Write(bind(parts...))
	return m.Sum(nil)
}

// seal encrypts plain, bound to the parts: a random nonce of 24 bytes, then the
// ciphertext.
func seal(key, plain []byte, bound ...[]byte) ([]byte, error) {
	aead, err := chacha20poly1305.NewX(key)
	if err != nil {
		return nil, err
	}
	out := make([]byte, aead.NonceSize(), aead.NonceSize()+len(plain)+aead.Overhead())
	if _, err := rand.Read(out); err != nil {
		return nil, err
	}
	return aead.Seal(out, out, plain, bind(bound...)), nil
}

// open is the way back; the caller wipes what it gets.
func open(key, sealed []byte, bound ...[]byte) ([]byte, error) {
	aead, err := chacha20poly1305.NewX(key)
	if err != nil {
		return nil, err
	}
	if len(sealed) < aead.NonceSize() {
		return nil, errSeal
	}
	plain, err := aead.Open(nil, sealed[:aead.NonceSize()], sealed[aead.NonceSize():], bind(bound...))
	if err != nil {
		return nil, errSeal
	}
	return plain, nil
}

// envelope seals plain under a new data key, and that under the key-encrypting
// key. what names the purpose of plain, name and version which one it is.
func (k *keys) envelope(storeID, plain []byte, what, name string, version int64) (wrapped, sealed []byte, err error) {
	dataKey := make([]byte, keyBytes)
	defer clear(dataKey)
	if _, err := rand.Read(dataKey); err != nil {
		return nil, nil, err
	}
	if sealed, err = seal(dataKey, plain, storeID, []byte(what), []byte(name), number(version)); err != nil {
		return nil, nil, err
	}
	wrapped, err = k.wrap(storeID, dataKey, what, name, version)
	return wrapped, sealed, err
}

func (k *keys) wrap(storeID, dataKey []byte, what, name string, version int64) ([]byte, error) {
	return seal(k.keyKey(), dataKey, storeID, []byte(forDataKey), []byte(what), []byte(name), number(version))
}

func (k *keys) unwrap(storeID, wrapped []byte, what, name string, version int64) ([]byte, error) {
	return open(k.keyKey(), wrapped, storeID, []byte(forDataKey), []byte(what), []byte(name), number(version))
}

// openEnvelope is the way back of envelope.
func (k *keys) openEnvelope(storeID, wrapped, sealed []byte, what, name string, version int64) ([]byte, error) {
	dataKey, err := k.unwrap(storeID, wrapped, what, name, version)
	defer clear(dataKey)
	if err != nil {
		return nil, err
	}
	return open(dataKey, sealed, storeID, []byte(what), []byte(name), number(version))
}
