package local

import "context"

// Rows keeps the sealed rows of one safe. No plaintext value ever reaches it.
type Rows interface {
	// Generation is another number after every change of this or another
	// process; it is asked at every lease and must be cheap.
	Generation(ctx context.Context) (uint64, error)
	// Meta is the head of the safe, nil where there is none.
	Meta(ctx context.Context) (*Meta, error)
	// Image is everything, as of one moment.
	Image(ctx context.Context) (Image, error)
	// Update gives change everything and writes what it returns: alone among all
	// processes, all or nothing, on disk before it returns.
	Update(ctx context.Context, change func(Image) (Batch, error)) error
}

// Meta is the head of a safe. Format to Checksum change only when the root key
// does; Counter, Contents and MAC with every change.
type Meta struct {
	Format   int    // of everything below, see format
	StoreID  []byte // random; binds every ciphertext to this safe
	RootKind string
	RootSalt []byte
	Verifier []byte // tells a wrong root key
	Checksum []byte // tells damage from a wrong root key
	StoreKey []byte // sealed under the key-encrypting key
	Counter  int64  // rises with every change
	Contents []byte // JSON: the serial of each credential and blob
	MAC      []byte // over Counter and Contents
}

// CredentialRow is a credential without its versions.
type CredentialRow struct {
	Name        string
	Kind        string
	Environment string
	Hosts       string // JSON list
	Variable    string
	Origin      string
	Restored    bool
	Disabled    bool
	Created     int64  // nanoseconds since 1970
	Serial      int64  // Meta.Counter of its last change
	MAC         []byte // over this row and its versions
}

// VersionRow is one sealed value.
type VersionRow struct {
	Credential  string
	Number      int
	State       string
	Created     int64
	Fingerprint string
	Bytes       int
	Mask        string
	WrappedKey  []byte // the data key, sealed under the key-encrypting key
	Sealed      []byte // the value, sealed under the data key
}

// BlobRow is one sealed value of Postern's own, such as a signing key.
type BlobRow struct {
	Name       string
	Serial     int64
	WrappedKey []byte
	Sealed     []byte
}

// Image is all rows. Versions are sorted by credential and number.
type Image struct {
	Meta        *Meta // nil where there is no safe
	Credentials []CredentialRow
	Versions    []VersionRow
	Blobs       []BlobRow
}

// Batch is what an Update writes: rows with the same key are replaced.
type Batch struct {
	Meta        *Meta
	Credentials []CredentialRow
	Versions    []VersionRow
	Blobs       []BlobRow
	Remove      []string // credentials, with all their versions
	// Erase asks that what was replaced or removed is gone from the disk too.
	Erase bool
}
