package store_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"postern/internal/safe/local"
	"postern/internal/store"
)

// rows is a batch with every field set.
func rows() local.Batch {
	return local.Batch{
		Meta: &local.Meta{
			Format: 1, StoreID: []byte("id"), RootKind: "kind", RootSalt: []byte("salt"), Verifier: []byte("v"), Checksum: []byte("c"),
			StoreKey: []byte("k"), Counter: 7, Contents: []byte("{}"), MAC: []byte("m"),
		},
		Credentials: []local.CredentialRow{{
			Name: "a", Kind: "k", Environment: "prod", Hosts: "[]", Variable: "V", Origin: "o", Restored: true, Disabled: true, Created: 1, Serial: 2, MAC: []byte("m"),
		}, {Name: "b", MAC: []byte("n")}},
		Versions: []local.VersionRow{
			{Credential: "a", Number: 1, State: "previous", Created: 1, Fingerprint: "f", Bytes: 3, Mask: "…", WrappedKey: []byte("w"), Sealed: []byte("s")},
			{Credential: "a", Number: 2, State: "current", WrappedKey: []byte("x"), Sealed: []byte("y")},
		},
		Blobs: []local.BlobRow{{Name: "ca", Serial: 3, WrappedKey: []byte("w"), Sealed: []byte{0}}},
	}
}

func put(b local.Batch) func(local.Image) (local.Batch, error) {
	return func(local.Image) (local.Batch, error) { return b, nil }
}

func image(t *testing.T, r *store.SafeRows) local.Image {
	t.Helper()
	i, err := r.Image(t.Context())
	must(t, err)
	return i
}

func safeRowsAreKept(t *testing.T, e engine) {
	ctx := t.Context()
	place := e.place(t)
	r := e.open(t, place).SafeRows()
	if m, err := r.Meta(ctx); m != nil || err != nil {
		t.Fatalf("a fresh store has a safe: %v, %v", m, err)
	}
	must(t, r.Update(ctx, put(rows())))
	again := e.open(t, place).SafeRows()
	want := local.Image{Meta: rows().Meta, Credentials: rows().Credentials, Versions: rows().Versions, Blobs: rows().Blobs}
	equal(t, image(t, again), want)
	m, err := again.Meta(ctx)
	must(t, err)
	equal(t, m, want.Meta)

	next := rows()
	next.Meta.Counter, next.Credentials[0].Kind, next.Versions[0].State, next.Blobs[0].Sealed = 8, "x", "revoked", []byte("new")
	must(t, again.Update(ctx, func(now local.Image) (local.Batch, error) {
		equal(t, now, want)
		return next, nil
	}))
	equal(t, image(t, r), local.Image{Meta: next.Meta, Credentials: next.Credentials, Versions: next.Versions, Blobs: next.Blobs})
}

func rowsOfARemovedCredentialAreOut(t *testing.T, e engine) {
	r := e.open(t, e.place(t)).SafeRows()
	must(t, r.Update(t.Context(), put(rows())))
	must(t, r.Update(t.Context(), put(local.Batch{Remove: []string{"a"}, Erase: true})))
	got := image(t, r)
	equal(t, len(got.Versions), 0)
	equal(t, got.Credentials, rows().Credentials[1:])
}

func anEmptyBatchChangesNothing(t *testing.T, e engine) {
	r := e.open(t, e.place(t)).SafeRows()
	must(t, r.Update(t.Context(), put(rows())))
	before, err := r.Generation(t.Context())
	must(t, err)
	must(t, r.Update(t.Context(), put(local.Batch{})))
	after, err := r.Generation(t.Context())
	must(t, err)
	equal(t, after, before)
}

func anUpdateIsAllOrNothing(t *testing.T, e engine) {
	ctx := t.Context()
	r := e.open(t, e.place(t)).SafeRows()
	must(t, r.Update(ctx, put(rows())))
	before := image(t, r)
	sentinel := errors.New("changed my mind")
	if err := r.Update(ctx, func(local.Image) (local.Batch, error) { return rows(), sentinel }); !errors.Is(err, sentinel) {
		t.Fatalf("got %v", err)
	}
	half := rows()
	half.Credentials[0].Kind = "half"
	half.Blobs = append(half.Blobs, local.BlobRow{Name: "bad"}) // NULL, which the table refuses
	if r.Update(ctx, put(half)) == nil {
		t.Fatal("a row that is not whole was taken")
	}
	equal(t, image(t, r), before)
}

func updatesOfProcessesQueue(t *testing.T, e engine) {
	ctx := t.Context()
	place := e.place(t)
	must(t, e.open(t, place).SafeRows().Update(ctx, put(rows())))
	const workers, times = 4, 10
	done := make(chan error)
	for range workers {
		r := e.open(t, place).SafeRows()
		go func() {
			var all error
			for range times {
				all = errors.Join(all, r.Update(ctx, func(now local.Image) (local.Batch, error) {
					m := *now.Meta
					m.Counter++
					return local.Batch{Meta: &m}, nil
				}))
			}
			done <- all
		}()
	}
	for range workers {
		must(t, <-done)
	}
	m, err := e.open(t, place).SafeRows().Meta(ctx)
	must(t, err)
	equal(t, m.Counter, rows().Meta.Counter+workers*times)
}

func generationChangesWithACommit(t *testing.T, e engine) {
	ctx := t.Context()
	place := e.place(t)
	a, b := e.open(t, place), e.open(t, place)
	seen := map[uint64]string{}
	look := func(d *store.DB) uint64 {
		t.Helper()
		n, err := d.Generation(ctx)
		must(t, err)
		return n
	}
	last := look(a)
	for i := range 20 {
		seen[last] = fmt.Sprint(i)
		by := []*store.DB{a, b}[i%2]
		must(t, by.SetSetting(ctx, "k", fmt.Sprint(i)))
		now := look(a)
		if before, found := seen[now]; found {
			t.Fatalf("after commit %d the generation is that of commit %s", i, before)
		}
		equal(t, look(b), now)
		_, err := a.Agents().List(ctx)
		must(t, err)
		equal(t, look(a), now)
		last = now
	}
}

func aCancelledCallLeavesItUsable(t *testing.T, e engine) {
	d := e.open(t, e.place(t))
	ctx, cancel := context.WithCancel(t.Context())
	err := d.SafeRows().Update(ctx, func(local.Image) (local.Batch, error) {
		cancel()
		return rows(), nil
	})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	if m, err := d.SafeRows().Meta(t.Context()); m != nil || err != nil {
		t.Fatalf("a cancelled update was written: %v, %v", m, err)
	}
	must(t, d.SafeRows().Update(t.Context(), put(rows())))
}
