// Package safe says how values are kept: the sources of the root key that
// opens a safe, and what every adapter of the family promises. The embedded
// adapter is safe/local; safe/safetest proves an adapter.
package safe

import (
	"context"

	"postern/internal/credential"
	"postern/internal/secret"
)

// Root is where the key comes from that opens a safe.
type Root interface {
	// Kind names the source: KindKeyFile, KindPassphrase or KindSystemd.
	Kind() string
	// NewSalt is what a new safe keeps, readable, to give it to Key each time.
	NewSalt() ([]byte, error)
	// Key is 32 bytes. Errors are fail.Locked where the source says no and
	// fail.Unavailable where it is not there; a wrong passphrase is found by
	// the safe, not here.
	Key(ctx context.Context, salt []byte) (secret.Value, error)
}

// The kinds of roots, as they stand in a safe.
const (
	KindKeyFile    = "keyfile"
	KindPassphrase = "passphrase"
	KindSystemd    = "systemd"
)

// Adapter is what every safe can do, wherever it keeps the values.
// safetest.Run is the full statement of its promises.
type Adapter interface {
	// Put stores a value as the current version of c.Name; the one before
	// becomes previous. The same value again is the current version, unchanged.
	Put(ctx context.Context, c credential.Credential, v secret.Value) (credential.Version, error)
	// List are all credentials by name.
	List(ctx context.Context) ([]credential.Credential, error)
	// Get is one credential; fail.NotFound where there is none.
	Get(ctx context.Context, name string) (credential.Credential, error)
	// Remove forgets a credential with all its versions.
	Remove(ctx context.Context, name string) error
	// SetDisabled stops or resumes lending.
	SetDisabled(ctx context.Context, name string, disabled bool) error
	// SetRestored marks that the value is back where it came from.
	SetRestored(ctx context.Context, name string, restored bool) error
	// Lease is the current value. fail.NotFound, fail.NotAllowed for a disabled
	// credential, fail.Locked while the safe is locked.
	Lease(ctx context.Context, agent, name string) (secret.Value, credential.Version, error)
	// Fingerprint names a value as credential.Version.Fingerprint does.
	Fingerprint(v secret.Value) (string, error)
}

// MaxValueBytes bounds a value.
const MaxValueBytes = 64 << 10
