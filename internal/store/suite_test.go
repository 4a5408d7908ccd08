package store_test

import (
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"postern/internal/change"
	"postern/internal/credential"
	"postern/internal/fail"
	"postern/internal/placeholder"
	"postern/internal/safe/local"
	"postern/internal/setup"
	"postern/internal/store"
)

// The consumers' interfaces.
var (
	_ setup.Agents = (*store.Agents)(nil)
	_ change.Store = (*store.Journal)(nil)
	_ local.Rows   = (*store.SafeRows)(nil)
)

// engine makes places for stores and opens them; two handles of one place are
// two processes to one another.
type engine struct {
	place func(t *testing.T) string
	open  func(t *testing.T, place string) *store.DB
}

func sqlite() engine {
	return engine{
		place: func(t *testing.T) string { return filepath.Join(t.TempDir(), "state.db") },
		open: func(t *testing.T, place string) *store.DB {
			t.Helper()
			d, err := store.Open(t.Context(), place)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = d.Close() })
			return d
		},
	}
}

func TestSQLite(t *testing.T) {
	t.Parallel()
	suite(t, sqlite())
}

// suite is what every engine must do.
func suite(t *testing.T, e engine) {
	for name, one := range map[string]func(*testing.T, engine){
		"AgentsAreKept":                  agentsAreKept,
		"ANameIsUsedOnce":                aNameIsUsedOnce,
		"RemovingAnAgentRevokes":         removingAnAgentRevokes,
		"APlaceholderIsGivenOutOnce":     aPlaceholderIsGivenOutOnce,
		"LookupSeesEveryProcess":         lookupSeesEveryProcess,
		"LookupKnowsThePartThatTravels":  lookupKnowsThePartThatTravels,
		"TheJournalIsKept":               theJournalIsKept,
		"SettingsAreKept":                settingsAreKept,
		"SafeRowsAreKept":                safeRowsAreKept,
		"AnUpdateIsAllOrNothing":         anUpdateIsAllOrNothing,
		"UpdatesOfProcessesQueue":        updatesOfProcessesQueue,
		"GenerationChangesWithACommit":   generationChangesWithACommit,
		"ACancelledCallLeavesItUsable":   aCancelledCallLeavesItUsable,
		"AFreshStoreIsSound":             aFreshStoreIsSound,
		"OpeningAtTheSameTimeMakesOne":   openingAtTheSameTimeMakesOne,
		"AChangedClockZoneStaysTheTime":  aChangedClockZoneStaysTheTime,
		"AnUnknownAgentHoldsNothing":     anUnknownAgentHoldsNothing,
		"AHostileTextIsOnlyText":         aHostileTextIsOnlyText,
		"ManyReadersAndWritersGetAlong":  manyReadersAndWritersGetAlong,
		"AnEmptyBatchChangesNothing":     anEmptyBatchChangesNothing,
		"RowsOfARemovedCredentialAreOut": rowsOfARemovedCredentialAreOut,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			one(t, e)
		})
	}
}

func noon() time.Time { return time.Date(2026, 11, 25, 12, 0, 0, 123456789, time.UTC) }

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

func equal[T any](t *testing.T, got, want T) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("-want +got:\n%s", diff)
	}
}

func bot() credential.Agent {
	return credential.Agent{Name: "bot", Environment: credential.Prod, Directory: "/home/u/bot", Created: noon()}
}

func held(text string) credential.Placeholder {
	return credential.Placeholder{Text: text, Agent: "bot", Credential: "anthropic", Created: noon()}
}

func agentsAreKept(t *testing.T, e engine) {
	place := e.place(t)
	ctx := t.Context()
	a := e.open(t, place).Agents()
	other := credential.Agent{Name: "alice"}
	must(t, a.Add(ctx, bot()))
	must(t, a.Add(ctx, other))
	b := e.open(t, place).Agents()
	list, err := b.List(ctx)
	must(t, err)
	equal(t, list, []credential.Agent{other, bot()})
	got, err := b.Get(ctx, "bot")
	must(t, err)
	equal(t, got, bot())
	_, err = b.Get(ctx, "nobody")
	wants(t, err, fail.NotFound)
}

func aNameIsUsedOnce(t *testing.T, e engine) {
	ctx := t.Context()
	a := e.open(t, e.place(t)).Agents()
	must(t, a.Add(ctx, bot()))
	wants(t, a.Add(ctx, bot()), fail.Conflict)
	wants(t, a.Add(ctx, credential.Agent{Name: "Not A Name"}), fail.Invalid)
	must(t, a.Remove(ctx, "bot"))
	again := bot()
	again.Directory = "/srv"
	must(t, a.Add(ctx, again))
	got, err := a.Get(ctx, "bot")
	must(t, err)
	equal(t, got, again)
}

func removingAnAgentRevokes(t *testing.T, e engine) {
	ctx := t.Context()
	a := e.open(t, e.place(t)).Agents()
	must(t, a.Add(ctx, bot()))
	must(t, a.AddPlaceholder(ctx, held("one")))
	wants(t, a.Remove(ctx, "nobody"), fail.NotFound)
	must(t, a.Remove(ctx, "bot"))
	got, err := a.Get(ctx, "bot")
	must(t, err)
	if !got.Removed {
		t.Error("the agent is not marked as removed")
	}
	want := held("one")
	want.Revoked = true
	list, err := a.Placeholders(ctx, "bot")
	must(t, err)
	equal(t, list, []credential.Placeholder{want})
	p, found, err := a.Lookup(ctx, "one")
	if err != nil || !found {
		t.Fatalf("a revoked placeholder is not known any more: %v", err)
	}
	equal(t, p, want)
	wants(t, a.AddPlaceholder(ctx, held("two")), fail.NotFound)
}

func aPlaceholderIsGivenOutOnce(t *testing.T, e engine) {
	ctx := t.Context()
	a := e.open(t, e.place(t)).Agents()
	must(t, a.Add(ctx, bot()))
	must(t, a.AddPlaceholder(ctx, held("one")))
	wants(t, a.AddPlaceholder(ctx, held("one")), fail.Conflict)
	must(t, a.RevokePlaceholder(ctx, "one"))
	wants(t, a.AddPlaceholder(ctx, held("one")), fail.Conflict)
	wants(t, a.RevokePlaceholder(ctx, "two"), fail.NotFound)
}

func lookupSeesEveryProcess(t *testing.T, e engine) {
	ctx := t.Context()
	place := e.place(t)
	a, b := e.open(t, place).Agents(), e.open(t, place).Agents()
	look := func(text string, want bool) credential.Placeholder {
		t.Helper()
		p, found, err := a.Lookup(ctx, text)
		must(t, err)
		if found != want {
			t.Fatalf("%s: found %v, want %v", text, found, want)
		}
		return p
	}
	look("one", false)
	must(t, b.Add(ctx, bot()))
	must(t, b.AddPlaceholder(ctx, held("one")))
	equal(t, look("one", true), held("one"))
	must(t, b.RevokePlaceholder(ctx, "one"))
	if !look("one", true).Revoked {
		t.Error("the revocation by the other process is not seen")
	}
	must(t, a.AddPlaceholder(ctx, held("two")))
	look("two", true)
}

func lookupKnowsThePartThatTravels(t *testing.T, e engine) {
	ctx := t.Context()
	a := e.open(t, e.place(t)).Agents()
	must(t, a.Add(ctx, bot()))
	texts := mintAddress(t)
	must(t, a.AddPlaceholder(ctx, held(texts)))
	core := placeholder.Core(texts)
	if core == "" || core == texts {
		t.Fatalf("the test's placeholder has no part of its own")
	}
	p, found, err := a.Lookup(ctx, core)
	must(t, err)
	if !found {
		t.Fatal("the part is not known")
	}
	equal(t, p, held(texts))
}

func theJournalIsKept(t *testing.T, e engine) {
	ctx := t.Context()
	place := e.place(t)
	j := e.open(t, place).Journal()
	one, err := j.BeginRun(ctx, "setup", noon())
	must(t, err)
	two, err := j.BeginRun(ctx, "agent add", noon())
	must(t, err)
	if one < 1 || two <= one {
		t.Fatalf("runs %d and %d do not rise from 1", one, two)
	}
	c := change.Change{
		Run: one, Seq: 2, Path: "/srv/.env", Action: "write", Before: []byte{0, 1, 2}, BeforeMeta: "{}", AfterHash: "aa", State: change.Intended,
	}
	first := change.Change{Run: one, Seq: 1, Path: "/srv/sub", Action: "mkdir", State: change.Done}
	must(t, j.PutChange(ctx, c))
	must(t, j.PutChange(ctx, first))
	c.State = change.Done
	must(t, j.PutChange(ctx, c))
	must(t, j.SetRun(ctx, one, change.Done, noon().Add(time.Second)))
	if j.SetRun(ctx, 99, change.Done, noon()) == nil {
		t.Error("an unknown run was closed")
	}
	if j.PutChange(ctx, change.Change{Run: 99, Seq: 1}) == nil {
		t.Error("a change of an unknown run was taken")
	}
	again := e.open(t, place).Journal()
	runs, err := again.Runs(ctx)
	must(t, err)
	equal(t, runs, []change.RunInfo{
		{ID: one, Command: "setup", Started: noon(), Finished: noon().Add(time.Second), State: change.Done},
		{ID: two, Command: "agent add", Started: noon(), State: change.Open},
	})
	changes, err := again.Changes(ctx, one)
	must(t, err)
	equal(t, changes, []change.Change{first, c})
	none, err := again.Changes(ctx, two)
	must(t, err)
	equal(t, len(none), 0)
}

func settingsAreKept(t *testing.T, e engine) {
	ctx := t.Context()
	place := e.place(t)
	d := e.open(t, place)
	_, found, err := d.Setting(ctx, "k")
	if err != nil || found {
		t.Fatalf("found %v, %v", found, err)
	}
	must(t, d.SetSetting(ctx, "k", "one"))
	must(t, d.SetSetting(ctx, "k", ""))
	value, found, err := e.open(t, place).Setting(ctx, "k")
	if err != nil || !found || value != "" {
		t.Fatalf("got %q, %v, %v", value, found, err)
	}
}

func aFreshStoreIsSound(t *testing.T, e engine) {
	must(t, e.open(t, e.place(t)).Check(t.Context()))
}

func openingAtTheSameTimeMakesOne(t *testing.T, e engine) {
	place := e.place(t)
	const openers = 6
	done := make(chan error)
	for i := range openers {
		go func() {
			d, err := store.Open(t.Context(), place)
			if err == nil {
				err = errors.Join(d.SetSetting(t.Context(), fmt.Sprint(i), "here"), d.Close())
			}
			done <- err
		}()
	}
	for range openers {
		must(t, <-done)
	}
	d := e.open(t, place)
	for i := range openers {
		if _, found, err := d.Setting(t.Context(), fmt.Sprint(i)); err != nil || !found {
			t.Errorf("what opener %d wrote is lost (%v)", i, err)
		}
	}
}

func aChangedClockZoneStaysTheTime(t *testing.T, e engine) {
	a := e.open(t, e.place(t)).Agents()
	local := bot()
	local.Created = noon().In(time.FixedZone("east", 3600))
	must(t, a.Add(t.Context(), local))
	got, err := a.Get(t.Context(), "bot")
	must(t, err)
	equal(t, got, bot())
}

func anUnknownAgentHoldsNothing(t *testing.T, e engine) {
	list, err := e.open(t, e.place(t)).Agents().Placeholders(t.Context(), "nobody")
	if err != nil || len(list) != 0 {
		t.Fatalf("got %v, %v", list, err)
	}
}

func aHostileTextIsOnlyText(t *testing.T, e engine) {
	d := e.open(t, e.place(t))
	for _, text := range []string{"'; DROP TABLE settings; --", "a\x00b", "\xff\xfe", "?1 :x @y $z", "%_"} {
		must(t, d.SetSetting(t.Context(), text, text))
		got, found, err := d.Setting(t.Context(), text)
		if err != nil || !found || got != text {
			t.Errorf("%q came back as %q (%v, %v)", text, got, found, err)
		}
	}
}

func manyReadersAndWritersGetAlong(t *testing.T, e engine) {
	ctx := t.Context()
	place := e.place(t)
	a, b := e.open(t, place), e.open(t, place)
	must(t, a.Agents().Add(ctx, bot()))
	done := make(chan error)
	for worker := range 4 {
		d := []*store.DB{a, b}[worker%2]
		go func() {
			var all error
			for i := range 15 {
				text := fmt.Sprintf("text-%d-%d", worker, i)
				all = errors.Join(all, d.Agents().AddPlaceholder(ctx, held(text)))
				if _, found, err := d.Agents().Lookup(ctx, text); err != nil || !found {
					all = errors.Join(all, err, fmt.Errorf("%s is not found by who has just written it", text))
				}
			}
			done <- all
		}()
	}
	for range 4 {
		must(t, <-done)
	}
	list, err := b.Agents().Placeholders(ctx, "bot")
	must(t, err)
	equal(t, len(list), 60)
}
