// Package secret holds one secret value in memory. A Value cannot be printed,
// encoded or compared with ==; its bytes are seen only by a callback of Reveal.
package secret

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"fmt"
	"log/slog"
)

// Mask is what every printer and encoder shows in place of a value.
const Mask = "[secret]"

// Value is one secret. The bytes stand behind a closure, because fmt and slog
// print unexported fields by reflection without ever calling String.
// The zero Value is empty. Safe for concurrent use, Destroy apart.
type Value struct{ open func() []byte }

// New copies b into a Value. The caller still owns b and may wipe it.
func New(b []byte) Value {
	own := append([]byte(nil), b...)
	return Value{open: func() []byte { return own }}
}

// Reveal lends the bytes to use, which must neither keep nor change them.
// It returns what use returns. Every call of Reveal stands on a reviewed list
// (internal/arch).
func (v Value) Reveal(use func([]byte) error) error {
	if v.open == nil {
		return use(nil)
	}
	return use(v.open())
}

// Len is the number of bytes.
func (v Value) Len() int { return len(v.bytes()) }

// IsZero says whether the value is empty.
func (v Value) IsZero() bool { return v.Len() == 0 }

// Equal compares in constant time (the lengths are not hidden).
func (v Value) Equal(other Value) bool {
	return subtle.ConstantTimeCompare(v.bytes(), other.bytes()) == 1
}

// Destroy overwrites the bytes with zeros; every copy of the Value is empty of
// meaning afterwards.
func (v Value) Destroy() { clear(v.bytes()) }

// Fingerprint is the first 16 bytes of HMAC-SHA-256 of the value under key, in
// lower hex. It names the same value in ledger, findings and reports, and
// without the key it cannot be used to guess a value.
func (v Value) Fingerprint(key []byte) string {
	mac := hmac.New(sha256.New, key)
	mac.Write(v.bytes())
	return hex.EncodeToString(mac.Sum(nil)[:16])
}

// String, Format and the encoders below show Mask and nothing else.
func (v Value) String() string               { return Mask }
func (v Value) Format(s fmt.State, _ rune)   { _, _ = s.Write([]byte(Mask)) }
func (v Value) MarshalText() ([]byte, error) { return []byte(Mask), nil }
func (v Value) LogValue() slog.Value         { return slog.StringValue(Mask) }

func (v Value) bytes() []byte {
	if v.open == nil {
		return nil
	}
	return v.open()
}
