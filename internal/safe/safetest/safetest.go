// Package safetest is the full statement of what a safe promises, as a test
// that every adapter runs.
package safetest

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"postern/internal/credential"
	"postern/internal/fail"
	"postern/internal/safe"
	"postern/internal/secret"
)

// Run runs the suite; open returns an empty, unlocked safe and a way to open the
// same safe once more, as another process would.
func Run(t *testing.T, open func(t *testing.T) (safe.Adapter, func() safe.Adapter)) {
	for name, one := range map[string]func(*testing.T, safe.Adapter, func() safe.Adapter){
		"AValueComesBack":               aValueComesBack,
		"WhatIsSaidOfItComesBack":       whatIsSaidOfItComesBack,
		"ANewValueIsANewVersion":        aNewValueIsANewVersion,
		"TheSameValueIsTheSameVersion":  theSameValueIsTheSameVersion,
		"OldValuesMayComeBack":          oldValuesMayComeBack,
		"PutKeepsWhatIsNotSaid":         putKeepsWhatIsNotSaid,
		"NamesAreInOrder":               namesAreInOrder,
		"UnknownNamesAreNotFound":       unknownNamesAreNotFound,
		"ADisabledOneIsNotLent":         aDisabledOneIsNotLent,
		"RestoredIsKept":                restoredIsKept,
		"ARemovedOneIsGone":             aRemovedOneIsGone,
		"BadInputIsRefused":             badInputIsRefused,
		"AnyBytesAreAValue":             anyBytesAreAValue,
		"FingerprintsNameValues":        fingerprintsNameValues,
		"AnotherProcessSeesEveryChange": anotherProcessSeesEveryChange,
		"ErrorsHoldNoValue":             errorsHoldNoValue,
		"ManyAtTheSameTime":             manyAtTheSameTime,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, again := open(t)
			one(t, s, again)
		})
	}
}

// Random is a value that nobody can guess.
func Random() secret.Value { return secret.New([]byte(rand.Text())) }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wants(t *testing.T, err error, kind fail.Kind) {
	t.Helper()
	if !fail.Is(err, kind) {
		t.Fatalf("got %v (kind %d), want kind %d", err, fail.KindOf(err), kind)
	}
}

func put(t *testing.T, s safe.Adapter, name string, v secret.Value) credential.Version {
	t.Helper()
	version, err := s.Put(t.Context(), credential.Credential{Name: name, Kind: "generic"}, v)
	must(t, err)
	return version
}

func lent(t *testing.T, s safe.Adapter, name string, want secret.Value) credential.Version {
	t.Helper()
	got, version, err := s.Lease(t.Context(), "bot", name)
	must(t, err)
	if !got.Equal(want) {
		t.Fatalf("%s was lent with another value (%d bytes, want %d)", name, got.Len(), want.Len())
	}
	return version
}

func states(t *testing.T, s safe.Adapter, name string) string {
	t.Helper()
	c, err := s.Get(t.Context(), name)
	must(t, err)
	var text []string
	for _, v := range c.Versions {
		text = append(text, fmt.Sprintf("%d %s", v.Number, v.State))
	}
	return strings.Join(text, ", ")
}

func aValueComesBack(t *testing.T, s safe.Adapter, again func() safe.Adapter) {
	v := Random()
	version := put(t, s, "a", v)
	for range 2 { // from the store, then from memory
		if diff := cmp.Diff(version, lent(t, s, "a", v)); diff != "" {
			t.Error(diff)
		}
	}
	lent(t, again(), "a", v)
}

func whatIsSaidOfItComesBack(t *testing.T, s safe.Adapter, again func() safe.Adapter) {
	want := credential.Credential{
		Name: "a", Kind: "generic", Environment: credential.Staging, Hosts: []string{"a.example", "b.example:8443"}, Variable: "A_KEY",
		Origin: ".env:3", Restored: true, Disabled: true, Created: time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC),
	}
	v := Random()
	version, err := s.Put(t.Context(), want, v)
	must(t, err)
	if version.Number != 1 || version.State != credential.Current || version.Bytes != v.Len() || version.Created.IsZero() {
		t.Errorf("got version %+v", version)
	}
	want.Versions = []credential.Version{version}
	got, err := again().Get(t.Context(), "a")
	must(t, err)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func aNewValueIsANewVersion(t *testing.T, s safe.Adapter, again func() safe.Adapter) {
	one, two, three := Random(), Random(), Random()
	put(t, s, "a", one)
	lent(t, s, "a", one)
	if got := put(t, s, "a", two).Number; got != 2 {
		t.Errorf("the second value is version %d", got)
	}
	lent(t, s, "a", two)
	put(t, s, "a", three)
	lent(t, again(), "a", three)
	if got, want := states(t, s, "a"), "1 previous, 2 previous, 3 current"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func theSameValueIsTheSameVersion(t *testing.T, s safe.Adapter, _ func() safe.Adapter) {
	v := Random()
	first := put(t, s, "a", v)
	if diff := cmp.Diff(first, put(t, s, "a", v)); diff != "" {
		t.Error(diff)
	}
	if got, want := states(t, s, "a"), "1 current"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func oldValuesMayComeBack(t *testing.T, s safe.Adapter, _ func() safe.Adapter) {
	one, two := Random(), Random()
	put(t, s, "a", one)
	put(t, s, "a", two)
	put(t, s, "a", one)
	lent(t, s, "a", one)
	if got, want := states(t, s, "a"), "1 previous, 2 previous, 3 current"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func putKeepsWhatIsNotSaid(t *testing.T, s safe.Adapter, _ func() safe.Adapter) {
	v := Random()
	_, err := s.Put(t.Context(), credential.Credential{Name: "a", Kind: "generic", Environment: credential.Prod, Hosts: []string{"a.example"}, Variable: "A"}, v)
	must(t, err)
	must(t, s.SetDisabled(t.Context(), "a", true))
	_, err = s.Put(t.Context(), credential.Credential{Name: "a", Origin: ".env:1"}, Random())
	must(t, err)
	_, err = s.Put(t.Context(), credential.Credential{Name: "b"}, v)
	must(t, err)
	_, err = s.Put(t.Context(), credential.Credential{Name: "b", Variable: "B"}, v)
	must(t, err)
	got, err := s.Get(t.Context(), "a")
	must(t, err)
	if got.Environment != credential.Prod || !slices.Equal(got.Hosts, []string{"a.example"}) || got.Variable != "A" || got.Origin != ".env:1" || !got.Disabled {
		t.Errorf("got %+v", got)
	}
	if got, err = s.Get(t.Context(), "b"); err != nil || got.Variable != "B" {
		t.Errorf("the same value with more said of it: got %+v, %v", got, err)
	}
}

func namesAreInOrder(t *testing.T, s safe.Adapter, again func() safe.Adapter) {
	list, err := s.List(t.Context())
	if err != nil || len(list) != 0 {
		t.Fatalf("an empty safe lists %v, %v", list, err)
	}
	for _, name := range []string{"c", "a", "b.1", "b-2"} {
		put(t, s, name, Random())
	}
	for _, one := range []safe.Adapter{s, again()} {
		list, err = one.List(t.Context())
		must(t, err)
		var names []string
		for _, c := range list {
			names = append(names, c.Name)
		}
		if diff := cmp.Diff([]string{"a", "b-2", "b.1", "c"}, names); diff != "" {
			t.Error(diff)
		}
	}
}

func unknownNamesAreNotFound(t *testing.T, s safe.Adapter, _ func() safe.Adapter) {
	ctx := t.Context()
	_, err := s.Get(ctx, "a")
	wants(t, err, fail.NotFound)
	_, _, err = s.Lease(ctx, "bot", "a")
	wants(t, err, fail.NotFound)
	wants(t, s.Remove(ctx, "a"), fail.NotFound)
	wants(t, s.SetDisabled(ctx, "a", true), fail.NotFound)
	wants(t, s.SetRestored(ctx, "a", true), fail.NotFound)
}

func aDisabledOneIsNotLent(t *testing.T, s safe.Adapter, again func() safe.Adapter) {
	ctx := t.Context()
	v := Random()
	put(t, s, "a", v)
	lent(t, s, "a", v)
	must(t, s.SetDisabled(ctx, "a", true))
	for _, one := range []safe.Adapter{s, again()} {
		_, _, err := one.Lease(ctx, "bot", "a")
		wants(t, err, fail.NotAllowed)
	}
	put(t, s, "a", Random())
	_, _, err := s.Lease(ctx, "bot", "a")
	wants(t, err, fail.NotAllowed)
	put(t, s, "a", v)
	must(t, s.SetDisabled(ctx, "a", false))
	lent(t, s, "a", v)
}

func restoredIsKept(t *testing.T, s safe.Adapter, again func() safe.Adapter) {
	put(t, s, "a", Random())
	for _, want := range []bool{true, false} {
		must(t, s.SetRestored(t.Context(), "a", want))
		if got, err := again().Get(t.Context(), "a"); err != nil || got.Restored != want {
			t.Errorf("got %v, %v, want %v", got.Restored, err, want)
		}
	}
}

func aRemovedOneIsGone(t *testing.T, s safe.Adapter, again func() safe.Adapter) {
	v := Random()
	put(t, s, "a", v)
	put(t, s, "a", Random())
	put(t, s, "b", v)
	lent(t, s, "b", v)
	must(t, s.Remove(t.Context(), "a"))
	for _, one := range []safe.Adapter{s, again()} {
		_, _, err := one.Lease(t.Context(), "bot", "a")
		wants(t, err, fail.NotFound)
		lent(t, one, "b", v)
	}
	next := Random()
	put(t, s, "a", next)
	lent(t, s, "a", next)
	if got, want := states(t, s, "a"), "1 current"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func badInputIsRefused(t *testing.T, s safe.Adapter, _ func() safe.Adapter) {
	for name, c := range map[string]credential.Credential{
		"no name": {}, "bad name": {Name: "../a"}, "long name": {Name: strings.Repeat("a", 65)}, "environment": {Name: "a", Environment: "moon"},
	} {
		if _, err := s.Put(t.Context(), c, Random()); !fail.Is(err, fail.Invalid) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	for name, v := range map[string]secret.Value{"nothing": {}, "too much": secret.New(make([]byte, safe.MaxValueBytes+1))} {
		if _, err := s.Put(t.Context(), credential.Credential{Name: "a"}, v); !fail.Is(err, fail.Invalid) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if list, err := s.List(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("the safe holds %v, %v", list, err)
	}
}

func anyBytesAreAValue(t *testing.T, s safe.Adapter, again func() safe.Adapter) {
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	for i, b := range [][]byte{{0}, all, bytes.Repeat([]byte("\r\n"), 100), bytes.Repeat([]byte{0xff}, safe.MaxValueBytes)} {
		v, name := secret.New(b), fmt.Sprintf("v%d", i)
		put(t, s, name, v)
		lent(t, again(), name, v)
	}
}

func fingerprintsNameValues(t *testing.T, s safe.Adapter, again func() safe.Adapter) {
	one, two := Random(), Random()
	version := put(t, s, "a", one)
	other := put(t, s, "b", one)
	if version.Fingerprint != other.Fingerprint || version.Fingerprint == put(t, s, "c", two).Fingerprint {
		t.Error("fingerprints do not tell values apart")
	}
	got, err := again().Fingerprint(one)
	must(t, err)
	if got != version.Fingerprint {
		t.Errorf("got %s, want %s", got, version.Fingerprint)
	}
}

func anotherProcessSeesEveryChange(t *testing.T, s safe.Adapter, again func() safe.Adapter) {
	ctx := t.Context()
	other := again()
	one, two := Random(), Random()
	put(t, s, "a", one)
	lent(t, other, "a", one)
	put(t, other, "a", two)
	lent(t, s, "a", two)
	must(t, other.SetDisabled(ctx, "a", true))
	_, _, err := s.Lease(ctx, "bot", "a")
	wants(t, err, fail.NotAllowed)
	must(t, s.SetDisabled(ctx, "a", false))
	lent(t, other, "a", two)
	must(t, s.Remove(ctx, "a"))
	_, _, err = other.Lease(ctx, "bot", "a")
	wants(t, err, fail.NotFound)
}

func errorsHoldNoValue(t *testing.T, s safe.Adapter, _ func() safe.Adapter) {
	text := rand.Text()
	v := secret.New([]byte(text))
	put(t, s, "a", v)
	must(t, s.SetDisabled(t.Context(), "a", true))
	_, _, err := s.Lease(t.Context(), "bot", "a")
	_, bad := s.Put(t.Context(), credential.Credential{Name: "NO"}, v)
	if all := fmt.Sprintf("%v %+v %#v %v", err, err, bad, bad); strings.Contains(all, text) {
		t.Error("an error shows the value")
	}
}

func manyAtTheSameTime(t *testing.T, s safe.Adapter, again func() safe.Adapter) {
	ctx, workers := t.Context(), []safe.Adapter{s, s, again(), again()}
	values := make([]secret.Value, len(workers))
	var group sync.WaitGroup
	for i, one := range workers {
		values[i] = Random()
		group.Go(func() {
			if err := hammer(ctx, one, fmt.Sprintf("own-%d", i), values[i]); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	for i, v := range values {
		lent(t, s, fmt.Sprintf("own-%d", i), v)
	}
	c, err := s.Get(ctx, "shared")
	must(t, err)
	current := 0
	for i, v := range c.Versions {
		if v.Number != i+1 {
			t.Fatalf("version %d has number %d", i+1, v.Number)
		}
		if v.State == credential.Current {
			current++
		}
	}
	if current != 1 {
		t.Errorf("%d versions are current", current)
	}
}

// hammer changes a credential of its own and one that all share, and ends with
// last in its own.
func hammer(ctx context.Context, s safe.Adapter, own string, last secret.Value) error {
	for i := range 8 {
		v := Random()
		if i == 7 {
			v = last
		}
		if _, err := s.Put(ctx, credential.Credential{Name: own}, v); err != nil {
			return err
		}
		if _, err := s.Put(ctx, credential.Credential{Name: "shared"}, Random()); err != nil {
			return err
		}
		if _, _, err := s.Lease(ctx, "bot", "shared"); err != nil {
			return err
		}
		got, _, err := s.Lease(ctx, "bot", own)
		if err != nil {
			return err
		}
		if !got.Equal(v) {
			return fmt.Errorf("%s was lent with an old value", own)
		}
	}
	return nil
}
