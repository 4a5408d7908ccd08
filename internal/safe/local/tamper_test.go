package local

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"reflect"
	"slices"
	"sync"
	"testing"

	"postern/internal/credential"
	"postern/internal/fail"
	"postern/internal/safe"
	"postern/internal/secret"
)

// memory keeps rows that a test can tamper with.
type memory struct {
	mu         sync.Mutex
	generation uint64
	image      Image
}

func (m *memory) Generation(context.Context) (uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.generation, nil
}

func (m *memory) Meta(ctx context.Context) (*Meta, error) {
	image, err := m.Image(ctx)
	return image.Meta, err
}

func (m *memory) Image(context.Context) (Image, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return copyOf(m.image), nil
}

func copyOf(i Image) Image {
	c := Image{Credentials: slices.Clone(i.Credentials), Versions: slices.Clone(i.Versions), Blobs: slices.Clone(i.Blobs)}
	if i.Meta != nil {
		meta := *i.Meta
		c.Meta = &meta
	}
	return c
}

func (m *memory) Update(_ context.Context, change func(Image) (Batch, error)) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	b, err := change(copyOf(m.image))
	if err != nil {
		return err
	}
	for _, name := range b.Remove {
		m.image.Credentials = slices.DeleteFunc(m.image.Credentials, func(c CredentialRow) bool { return c.Name == name })
		m.image.Versions = slices.DeleteFunc(m.image.Versions, func(v VersionRow) bool { return v.Credential == name })
	}
	replace(&m.image.Credentials, b.Credentials, func(a, b CredentialRow) bool { return a.Name == b.Name })
	replace(&m.image.Versions, b.Versions, func(a, b VersionRow) bool { return a.Credential == b.Credential && a.Number == b.Number })
	replace(&m.image.Blobs, b.Blobs, func(a, b BlobRow) bool { return a.Name == b.Name })
	slices.SortFunc(m.image.Versions, func(a, b VersionRow) int {
		return cmp.Or(cmp.Compare(a.Credential, b.Credential), cmp.Compare(a.Number, b.Number))
	})
	if b.Meta != nil {
		m.image.Meta = b.Meta
	}
	m.generation++
	return nil
}

func replace[T any](list *[]T, with []T, same func(a, b T) bool) {
	for _, one := range with {
		*list = append(slices.DeleteFunc(*list, func(old T) bool { return same(old, one) }), one)
	}
}

// scene is a safe with two credentials, two versions of one, and two blobs.
type scene struct {
	rows   *memory
	root   safe.Root
	values map[string]secret.Value
}

func draw() secret.Value { return secret.New([]byte(rand.Text())) }

func newScene(t *testing.T) scene {
	t.Helper()
	root, err := safe.NewKeyFile(filepath.Join(t.TempDir(), "root.key"))
	must(t, err)
	c := scene{&memory{}, root, map[string]secret.Value{}}
	s, err := Create(t.Context(), c.rows, root)
	must(t, err)
	for _, name := range []string{"a", "b", "a"} {
		c.values[name] = draw()
		one := credential.Credential{
			Name: name, Kind: "kind", Environment: credential.Dev, Hosts: []string{"a.example"}, Variable: "A", Origin: ".env:1",
		}
		_, err := s.Put(t.Context(), one, c.values[name])
		must(t, err)
	}
	must(t, s.PutInternal(t.Context(), "ca", draw()))
	must(t, s.PutInternal(t.Context(), "ledger", draw()))
	return c
}

// open opens the safe over other rows.
func (c scene) open(t *testing.T, image Image) (*Safe, error) {
	t.Helper()
	s, err := Open(t.Context(), &memory{image: image})
	if err != nil {
		return nil, err
	}
	return s, s.Unlock(t.Context(), c.root)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// found checks that the change is noticed, and that nobody is ever lent a wrong
// value because of it.
func (c scene) found(t *testing.T, what string, image Image) {
	t.Helper()
	s, err := c.open(t, image)
	if err == nil {
		err = s.Check(t.Context())
		for name, want := range c.values {
			if got, _, err := s.Lease(t.Context(), "bot", name); err == nil && !got.Equal(want) {
				t.Errorf("%s: %s was lent with another value", what, name)
			}
		}
	}
	switch {
	case err == nil:
		t.Errorf("%s is not found", what)
	case !fail.Is(err, fail.Invalid):
		t.Errorf("%s is taken for something else: %v", what, err)
	}
}

// bent are copies of one field, each changed a little.
func bent(v reflect.Value) []reflect.Value {
	var list []reflect.Value
	add := func(set func(reflect.Value)) {
		next := reflect.New(v.Type()).Elem()
		next.Set(v)
		set(next)
		list = append(list, next)
	}
	switch v.Kind() {
	case reflect.Bool:
		add(func(n reflect.Value) { n.SetBool(!v.Bool()) })
	case reflect.Int, reflect.Int64:
		for _, bit := range []uint{0, 1, 20} {
			add(func(n reflect.Value) { n.SetInt(v.Int() ^ 1<<bit) })
		}
	case reflect.String:
		add(func(n reflect.Value) { n.SetString(v.String() + "x") })
		for i := range v.Len() {
			add(func(n reflect.Value) {
				b := []byte(v.String())
				b[i] ^= 1
				n.SetString(string(b))
			})
		}
	case reflect.Slice:
		add(func(n reflect.Value) { n.SetBytes(append(slices.Clone(v.Bytes()), 0)) })
		for i := range v.Len() {
			add(func(n reflect.Value) {
				b := slices.Clone(v.Bytes())
				b[i] ^= 1 << (i % 8)
				n.SetBytes(b)
			})
		}
	}
	return list
}

func TestAFlippedBitInAnyColumnIsFound(t *testing.T) {
	t.Parallel()
	c := newScene(t)
	tried := 0
	try := func(table string, row func(*Image) any) {
		whole := copyOf(c.rows.image)
		fields := reflect.ValueOf(row(&whole)).Elem()
		for i := range fields.NumField() {
			for n, value := range bent(fields.Field(i)) {
				image := copyOf(c.rows.image)
				reflect.ValueOf(row(&image)).Elem().Field(i).Set(value)
				c.found(t, fmt.Sprintf("%s.%s, change %d", table, fields.Type().Field(i).Name, n), image)
				tried++
			}
		}
	}
	try("meta", func(i *Image) any { return i.Meta })
	try("credentials", func(i *Image) any { return &i.Credentials[0] })
	for n := range c.rows.image.Versions {
		try("versions", func(i *Image) any { return &i.Versions[n] })
	}
	try("blobs", func(i *Image) any { return &i.Blobs[0] })
	if tried < 500 {
		t.Errorf("only %d changes were tried", tried)
	}
}

func TestDamageOfOneLeavesTheOthers(t *testing.T) {
	t.Parallel()
	c := newScene(t)
	image := copyOf(c.rows.image)
	i := slices.IndexFunc(image.Credentials, func(row CredentialRow) bool { return row.Name == "a" })
	image.Credentials[i].Environment = "prod"
	s, err := c.open(t, image)
	must(t, err)
	ctx := t.Context()
	_, _, err = s.Lease(ctx, "bot", "a")
	if !fail.Is(err, fail.Invalid) {
		t.Errorf("a damaged credential: %v", err)
	}
	got, _, err := s.Lease(ctx, "bot", "b")
	if err != nil || !got.Equal(c.values["b"]) {
		t.Errorf("the other one: %v", err)
	}
	// A write must not make the damage look whole.
	for what, err := range map[string]error{
		"put":     second(s.Put(ctx, credential.Credential{Name: "a"}, draw())),
		"disable": s.SetDisabled(ctx, "a", true),
		"rekey":   s.Rekey(ctx, c.root),
	} {
		if !fail.Is(err, fail.Invalid) {
			t.Errorf("%s: %v", what, err)
		}
	}
	must(t, s.Remove(ctx, "a"))
	next := draw()
	_, err = s.Put(ctx, credential.Credential{Name: "a"}, next)
	must(t, err)
	must(t, s.Check(ctx))
	must(t, s.Rekey(ctx, c.root))
}

func second[A any](_ A, err error) error { return err }

func TestMovedRowsAreFound(t *testing.T) {
	t.Parallel()
	c := newScene(t)
	other := newScene(t)
	old := copyOf(c.rows.image)
	s, err := Open(t.Context(), c.rows)
	must(t, err)
	must(t, s.Unlock(t.Context(), c.root))
	must(t, s.SetDisabled(t.Context(), "b", true))
	must(t, s.PutInternal(t.Context(), "ca", draw()))
	delete(c.values, "b")

	version := func(i *Image, name string, number int) *VersionRow {
		n := slices.IndexFunc(i.Versions, func(v VersionRow) bool { return v.Credential == name && v.Number == number })
		return &i.Versions[n]
	}
	row := func(i *Image, name string) *CredentialRow {
		n := slices.IndexFunc(i.Credentials, func(c CredentialRow) bool { return c.Name == name })
		return &i.Credentials[n]
	}
	blob := func(i *Image, name string) *BlobRow {
		n := slices.IndexFunc(i.Blobs, func(b BlobRow) bool { return b.Name == name })
		return &i.Blobs[n]
	}
	swap := func(a, b *VersionRow) {
		a.WrappedKey, b.WrappedKey = b.WrappedKey, a.WrappedKey
		a.Sealed, b.Sealed = b.Sealed, a.Sealed
	}
	for what, move := range map[string]func(*Image){
		"values of two credentials": func(i *Image) { swap(version(i, "a", 1), version(i, "b", 1)) },
		"values of two versions":    func(i *Image) { swap(version(i, "a", 1), version(i, "a", 2)) },
		"names of two credentials":  func(i *Image) { row(i, "a").Name, row(i, "b").Name = "b", "a" },
		"data keys": func(i *Image) {
			a, b := blob(i, "ca"), blob(i, "ledger")
			a.WrappedKey, b.WrappedKey = b.WrappedKey, a.WrappedKey
		},
		"blobs":             func(i *Image) { a, b := blob(i, "ca"), blob(i, "ledger"); a.Name, b.Name = b.Name, a.Name },
		"a row set back":    func(i *Image) { *row(i, "b") = *row(&old, "b") },
		"a blob set back":   func(i *Image) { *blob(i, "ca") = *blob(&old, "ca") },
		"the head set back": func(i *Image) { i.Meta = old.Meta },
		"the head's list set back": func(i *Image) {
			i.Meta.Contents, i.Meta.MAC, i.Meta.Counter = old.Meta.Contents, old.Meta.MAC, old.Meta.Counter
		},
		"a credential gone": func(i *Image) {
			i.Credentials = slices.DeleteFunc(i.Credentials, func(c CredentialRow) bool { return c.Name == "b" })
		},
		"a version gone":          func(i *Image) { i.Versions = i.Versions[1:] },
		"a blob gone":             func(i *Image) { i.Blobs = i.Blobs[1:] },
		"a credential too much":   func(i *Image) { more := *row(i, "a"); more.Name = "c"; i.Credentials = append(i.Credentials, more) },
		"a blob too much":         func(i *Image) { more := *blob(i, "ca"); more.Name = "x"; i.Blobs = append(i.Blobs, more) },
		"a version too much":      func(i *Image) { more := *version(i, "a", 2); more.Number = 3; i.Versions = append(i.Versions, more) },
		"a row of another safe":   func(i *Image) { *row(i, "a") = *row(&other.rows.image, "a") },
		"a value of another safe": func(i *Image) { *version(i, "a", 2) = *version(&other.rows.image, "a", 2) },
		"all of one of another safe": func(i *Image) {
			*row(i, "a") = *row(&other.rows.image, "a")
			*version(i, "a", 1), *version(i, "a", 2) = *version(&other.rows.image, "a", 1), *version(&other.rows.image, "a", 2)
		},
	} {
		image := copyOf(c.rows.image)
		move(&image)
		c.found(t, what, image)
	}
}

// The rows are authenticated as a whole; this is the second line, the binding of
// each ciphertext on its own.
func TestACiphertextOpensOnlyInItsPlace(t *testing.T) {
	t.Parallel()
	k := newKeys()
	defer k.wipe()
	must(t, second(rand.Read(k.keyKey())))
	store, plain := []byte("store"), []byte("plain")
	wrapped, sealed, err := k.envelope(store, plain, forValue, "a", 1)
	must(t, err)
	got, err := k.openEnvelope(store, wrapped, sealed, forValue, "a", 1)
	if err != nil || !bytes.Equal(got, plain) {
		t.Fatalf("got %q, %v", got, err)
	}
	otherWrapped, otherSealed, err := k.envelope(store, plain, forValue, "a", 2)
	must(t, err)
	for what, err := range map[string]error{
		"another store":       second(k.openEnvelope([]byte("other"), wrapped, sealed, forValue, "a", 1)),
		"another purpose":     second(k.openEnvelope(store, wrapped, sealed, forBlob, "a", 1)),
		"another name":        second(k.openEnvelope(store, wrapped, sealed, forValue, "b", 1)),
		"another version":     second(k.openEnvelope(store, wrapped, sealed, forValue, "a", 2)),
		"another data key":    second(k.openEnvelope(store, otherWrapped, sealed, forValue, "a", 1)),
		"another ciphertext":  second(k.openEnvelope(store, wrapped, otherSealed, forValue, "a", 1)),
		"nothing":             second(k.openEnvelope(store, wrapped, nil, forValue, "a", 1)),
		"no data key":         second(k.openEnvelope(store, nil, sealed, forValue, "a", 1)),
		"the data key itself": second(open(k.keyKey(), sealed, store, []byte(forValue), []byte("a"), number(int64(1)))),
	} {
		if !errors.Is(err, errSeal) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestANewerFormatIsRefused(t *testing.T) {
	t.Parallel()
	c := newScene(t)
	image := copyOf(c.rows.image)
	image.Meta.Format = currentFormat + 1
	image.Meta.Checksum = image.Meta.checksum()
	_, err := c.open(t, image)
	var known *fail.Error
	if !errors.As(err, &known) || known.ID != "P-E072" {
		t.Errorf("got %v", err)
	}
}

func TestBindTellsPartsApart(t *testing.T) {
	t.Parallel()
	seen := map[string]string{}
	for _, parts := range [][]string{{"ab"}, {"a", "b"}, {"", "ab"}, {"ab", ""}, {"a", "", "b"}, {}, {""}, {"\x01a"}, {"a\x01b"}} {
		var list [][]byte
		for _, p := range parts {
			list = append(list, []byte(p))
		}
		b := string(bind(list...))
		if before, found := seen[b]; found {
			t.Errorf("%q and %s are bound alike", parts, before)
		}
		seen[b] = fmt.Sprintf("%q", parts)
	}
}

func TestKeysLieInGuardedMemory(t *testing.T) {
	t.Parallel()
	g := newGuarded(100)
	if len(g.page) < 100 || g.kind == memoryHeap {
		t.Fatalf("%d bytes of %s", len(g.page), g.kind)
	}
	if !slices.Contains([]string{memorySecret, memoryLocked, memoryPlain}, g.kind) {
		t.Errorf("got %q", g.kind)
	}
	copy(g.page, "key")
	g.wipe()
	if g.page != nil {
		t.Error("the page is still there")
	}
	for range 200 { // what was given back can be had again
		newGuarded(100).wipe()
	}
}

// Whatever is read from a file that somebody wrote, there is an error or an
// answer and no panic.
func FuzzRows(f *testing.F) {
	f.Add([]byte("{}"), []byte("x"), "a", int64(1), []byte{})
	f.Add([]byte(`{"credentials":{"a":1}}`), bytes.Repeat([]byte{1}, 60), "a", int64(1), []byte(`["h"]`))
	f.Fuzz(func(t *testing.T, contents, sealed []byte, name string, n int64, hosts []byte) {
		k := newKeys()
		defer k.wipe()
		m := &Meta{Format: 1, Contents: contents, Counter: n}
		m.Checksum, m.MAC = m.checksum(), k.contentsMAC(m)
		image := Image{
			Meta:        m,
			Credentials: []CredentialRow{{Name: name, Hosts: string(hosts), Serial: n, MAC: sealed}},
			Versions:    []VersionRow{{Credential: name, Number: int(n), State: "current", WrappedKey: sealed, Sealed: sealed}, {Credential: "x", State: "current"}},
			Blobs:       []BlobRow{{Name: name, WrappedKey: sealed, Sealed: sealed}},
		}
		b, err := readBook(image, k)
		if err != nil {
			return
		}
		for _, name := range slices.Sorted(maps.Keys(b.entries)) {
			e := b.entries[name]
			_ = e.credential()
			if v := e.current(); v != nil {
				if _, err := v.open(k, m.StoreID); err == nil {
					t.Fatal("noise was opened")
				}
			}
		}
	})
}
