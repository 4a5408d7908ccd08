package local

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/json"
	"sync/atomic"
	"time"

	"postern/internal/credential"
	"postern/internal/secret"
)

// contents is the list in Meta.Contents: what must be there, and in which
// state. A row that is missing, too much or set back is found by it.
type contents struct {
	Credentials map[string]int64 `json:"credentials"`
	Blobs       map[string]int64 `json:"blobs"`
}

// entry is one credential as read from the rows.
type entry struct {
	row      CredentialRow
	versions []VersionRow
	damage   error // why it must not be used
	lease    atomic.Pointer[lease]
}

// lease is a value in memory.
type lease struct {
	value   secret.Value
	version credential.Version
}

// book is what the rows say, checked as far as the keys allow.
type book struct {
	meta     *Meta
	contents contents
	entries  map[string]*entry
	blobs    map[string]BlobRow
	spoilt   map[string]error // blobs that must not be used
}

// readBook sorts the rows, and with keys checks them: damage of the whole is an
// error, damage of one credential stands in its entry.
func readBook(image Image, k *keys) (*book, error) {
	b := &book{meta: image.Meta, entries: map[string]*entry{}, blobs: map[string]BlobRow{}, spoilt: map[string]error{}}
	if b.meta == nil {
		return nil, errNone()
	}
	if err := b.meta.sound(); err != nil {
		return nil, err
	}
	for _, c := range image.Credentials {
		b.entries[c.Name] = &entry{row: c}
	}
	for _, v := range image.Versions {
		e := b.entries[v.Credential]
		if e == nil {
			e = &entry{row: CredentialRow{Name: v.Credential}, damage: errDamagedOne(v.Credential, "it is damaged: only versions of it are there")}
			b.entries[v.Credential] = e
		}
		e.versions = append(e.versions, v)
	}
	for _, one := range image.Blobs {
		b.blobs[one.Name] = one
	}
	if k == nil {
		return b, nil
	}
	return b, b.check(k)
}

// check compares the rows with the list of contents and their own MACs.
func (b *book) check(k *keys) error {
	if !hmac.Equal(b.meta.MAC, k.contentsMAC(b.meta)) {
		return errDamaged("its list of contents was changed")
	}
	if err := json.Unmarshal(b.meta.Contents, &b.contents); err != nil {
		return errDamaged("its list of contents does not read")
	}
	for name := range b.contents.Credentials {
		if b.entries[name] == nil {
			b.entries[name] = &entry{row: CredentialRow{Name: name}, damage: errDamagedOne(name, "it is missing from the store")}
		}
	}
	for name, e := range b.entries {
		serial, listed := b.contents.Credentials[name]
		switch {
		case e.damage != nil:
		case !listed:
			e.damage = errDamagedOne(name, "it was not put in by Postern")
		case !hmac.Equal(e.row.MAC, k.rowMAC(b.meta.StoreID, e.row, e.versions)):
			e.damage = errDamagedOne(name, "it is damaged")
		case serial != e.row.Serial:
			e.damage = errDamagedOne(name, "it was set back to an older state")
		}
	}
	for name := range b.contents.Blobs {
		if _, found := b.blobs[name]; !found {
			b.spoilt[name] = errDamaged("%s is missing from it", name)
		}
	}
	for name, one := range b.blobs {
		if serial, listed := b.contents.Blobs[name]; !listed || serial != one.Serial {
			b.spoilt[name] = errDamaged("%s in it is damaged or was set back", name)
		}
	}
	return nil
}

// sound says whether the head can be used at all; it needs no key.
func (m *Meta) sound() error {
	if !bytes.Equal(m.Checksum, m.checksum()) {
		return errDamaged("its head is damaged")
	}
	if m.Format > currentFormat {
		return errNewer(m.Format)
	}
	return nil
}

func (k *keys) contentsMAC(m *Meta) []byte {
	return mac(k.rowKey(), m.StoreID, number(m.Counter), m.Contents)
}

// rowMAC covers all that is kept of a credential but the wrapped data keys,
// which are bound by their own seal and change with the root key.
func (k *keys) rowMAC(storeID []byte, c CredentialRow, versions []VersionRow) []byte {
	parts := [][]byte{
		storeID, []byte(c.Name), []byte(c.Kind), []byte(c.Environment), []byte(c.Hosts), []byte(c.Variable), []byte(c.Origin),
		flag(c.Restored), flag(c.Disabled), number(c.Created), number(c.Serial), number(len(versions)),
	}
	for _, v := range versions {
		sum := sha256.Sum256(v.Sealed)
		parts = append(parts, []byte(v.Credential), number(v.Number), []byte(v.State), number(v.Created), []byte(v.Fingerprint),
			number(v.Bytes), []byte(v.Mask), sum[:])
	}
	return mac(k.rowKey(), parts...)
}

func flag(b bool) []byte {
	if b {
		return []byte{1}
	}
	return []byte{0}
}

// credential is the entry as the rest of Postern knows it.
func (e *entry) credential() credential.Credential {
	c := credential.Credential{
		Name: e.row.Name, Kind: e.row.Kind, Environment: credential.Environment(e.row.Environment), Hosts: readHosts(e.row.Hosts),
		Variable: e.row.Variable, Origin: e.row.Origin, Restored: e.row.Restored, Disabled: e.row.Disabled, Created: at(e.row.Created),
	}
	for _, v := range e.versions {
		c.Versions = append(c.Versions, v.version())
	}
	return c
}

// current is the version that is lent out, nil where there is none.
func (e *entry) current() *VersionRow {
	for i := range e.versions {
		if e.versions[i].State == string(credential.Current) {
			return &e.versions[i]
		}
	}
	return nil
}

func (v *VersionRow) version() credential.Version {
	return credential.Version{
		Number: v.Number, State: credential.State(v.State), Created: at(v.Created), Fingerprint: v.Fingerprint, Bytes: v.Bytes, Mask: v.Mask,
	}
}

// open decrypts one version; the caller wipes nothing, the Value owns the bytes.
func (v *VersionRow) open(k *keys, storeID []byte) (secret.Value, error) {
	plain, err := k.openEnvelope(storeID, v.WrappedKey, v.Sealed, forValue, v.Credential, int64(v.Number))
	defer clear(plain)
	if err != nil {
		return secret.Value{}, errDamagedOne(v.Credential, "its value is damaged")
	}
	return secret.New(plain), nil
}

func at(nanos int64) time.Time { return time.Unix(0, nanos).UTC() }

func readHosts(text string) []string {
	var hosts []string
	if text != "" && json.Unmarshal([]byte(text), &hosts) != nil {
		return nil // found by the MAC; only a locked safe gets here
	}
	return hosts
}

func writeHosts(hosts []string) (string, error) {
	if len(hosts) == 0 {
		return "", nil
	}
	text, err := json.Marshal(hosts)
	return string(text), err
}
