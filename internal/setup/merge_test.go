package setup

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"postern/internal/fail"
)

func TestUndoKeepsEdits(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name string
		edit func(env string) string
		want func(before string) string
	}{
		{"line added", func(s string) string { return s + "NEW=1\n" }, func(s string) string { return s + "NEW=1\n" }},
		{"other value", func(s string) string { return strings.Replace(s, "3000", "4000", 1) }, func(s string) string { return strings.Replace(s, "3000", "4000", 1) }},
		{"remark on a protected line", func(s string) string { return strings.Replace(s, "# main", "# first", 1) },
			func(s string) string { return strings.Replace(s, "# main", "# first", 1) }},
		{"protected line copied", func(s string) string { return s + "A=" + anthropicIn(s) + "\n" }, func(s string) string { return s + "A=" + anthropicIn(s) + "\n" }},
		{"protected line removed", func(s string) string { return s[:strings.LastIndex(s, "ANTHROPIC")] },
			func(s string) string { return s[:strings.LastIndex(s, "ANTHROPIC")] }},
		{"quotes changed", func(s string) string { return strings.ReplaceAll(s, "'", "\"") }, func(s string) string { return strings.ReplaceAll(s, "'", "\"") }},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			dir, _ := nasty(t)
			before := get(t, dir, ".env")
			h := home{dir: t.TempDir()}
			h.apply(t, dir)
			put(t, dir, ".env", tc.edit(get(t, dir, ".env")), 0o600)
			h.undo(t)
			if diff := cmp.Diff(tc.want(before), get(t, dir, ".env")); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// anthropicIn is the token after the first export, a key or its placeholder.
func anthropicIn(env string) string {
	_, rest, _ := strings.Cut(env, "export ANTHROPIC_API_KEY=\"")
	token, _, _ := strings.Cut(rest, "\"")
	return token
}

func TestUndoKeepsEditsOfTexts(t *testing.T) {
	t.Parallel()
	dir, _ := nasty(t)
	h := home{dir: t.TempDir()}
	h.apply(t, dir)
	put(t, dir, ".gitignore", "first\n"+get(t, dir, ".gitignore")+"last\n", 0o644)
	example := get(t, dir, ".env.example") + "MORE=1\n"
	put(t, dir, ".env.example", example, 0o644)
	h.undo(t)
	if diff := cmp.Diff("first\nnode_modules\nlast\n", get(t, dir, ".gitignore")); diff != "" {
		t.Error(diff)
	}
	if got := get(t, dir, ".env.example"); got != example {
		t.Error("an edited example was touched")
	}
}

func TestUndoTakesOnlyItsOwnRulesOutOfThePolicy(t *testing.T) {
	t.Parallel()
	dir, _ := nasty(t)
	h := home{dir: t.TempDir()}
	put(t, h.dir, "policy", "mine 1\n", 0o600)
	h.apply(t, dir)
	put(t, h.dir, "policy", get(t, h.dir, "policy")+"mine 2\n", 0o600)
	h.undo(t)
	if diff := cmp.Diff("mine 1\nmine 2\n", get(t, h.dir, "policy")); diff != "" {
		t.Error(diff)
	}
}

func TestUndoStopsWhereARuleOfItsWasEdited(t *testing.T) {
	t.Parallel()
	dir, _ := nasty(t)
	h := home{dir: t.TempDir()}
	h.apply(t, dir)
	put(t, h.dir, "policy", strings.Replace(get(t, h.dir, "policy"), "api.stripe.com", "stripe.example", 1), 0o600)
	protected := snap(t, dir)
	if _, err := h.journal().Undo(t.Context(), 0); !fail.Is(err, fail.Conflict) {
		t.Errorf("got %v", err)
	}
	same(t, "after the refusal", snap(t, dir), protected)
}

// Whatever changed between two texts, taking it out of the second gives the
// first, or is said to be uncertain.
func TestRevertIsExact(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.Map(rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "c", ""}), 0, 8), func(l []string) string { return strings.Join(l, "\n") })
		common := text.Draw(t, "common")
		before, after := common+"\n"+text.Draw(t, "before"), common+"\n"+text.Draw(t, "after")
		out, missed := revert(split([]byte(before)), split([]byte(after)), split([]byte(after)))
		got := bytes.Join(out, []byte("\n"))
		if missed == 0 && string(got) != strings.TrimSuffix(before, "\n") {
			t.Fatalf("from %q back to %q, got %q", after, before, got)
		}
	})
}

// However the lines of a protected file were moved about, undo gives every
// placeholder its value back and keeps the edit.
func TestUndoOfAnyEditGivesTheValuesBack(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	for range 40 {
		dir, k, s := t.TempDir(), anthropicKey(), stripeKey()
		put(t, dir, ".env", "# head\nexport ANTHROPIC_API_KEY=\""+k+"\" # main\nSTRIPE_SECRET_KEY='"+s+"'\nPORT=3000\n# was "+stripeKey()+"\nANTHROPIC_API_KEY="+k+"\n", 0o600)
		h := home{dir: t.TempDir()}
		h.apply(t, dir)
		c, err := h.load()
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.SplitAfter(get(t, dir, ".env"), "\n")
		for range 1 + r.IntN(4) {
			i, j := r.IntN(len(lines)), r.IntN(len(lines))
			switch r.IntN(4) {
			case 0:
				lines[i], lines[j] = lines[j], lines[i]
			case 1:
				lines = slices.Insert(lines, i, lines[j])
			case 2:
				lines = slices.Insert(lines, i, "NEW=1\n")
			case 3:
				lines = slices.Delete(lines, i, i+1)
			}
			if len(lines) == 0 {
				break
			}
		}
		edited := strings.Join(lines, "")
		put(t, dir, ".env", edited, 0o600)
		want := edited
		for _, p := range c.Placeholders {
			want = strings.ReplaceAll(want, p.Text, string(c.Values[p.Credential]))
		}
		h.undo(t)
		if diff := cmp.Diff(want, get(t, dir, ".env")); diff != "" {
			t.Errorf("%q: %s", edited, diff)
		}
	}
}
