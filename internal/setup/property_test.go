package setup

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"postern/internal/dotenv"
	"postern/internal/placeholder"
)

// oddLines are frames for one key; %s is where it stands.
var oddLines = []string{
	"STRIPE_SECRET_KEY=%s", "export STRIPE_SECRET_KEY='%s'", "STRIPE_SECRET_KEY=\"%s\" # live", "STRIPE_SECRET_KEY=%s#x", "STRIPE_SECRET_KEY: %s", "STRIPE_SECRET_KEY=`%s`",
	"  STRIPE_SECRET_KEY =  %s  ", "'STRIPE_SECRET_KEY'=%s", "STRIPE_SECRET_KEY=\"%s", "STRIPE_SECRET_KEY='%s' x", "STRIPE_SECRET_KEY=%s,%s", "# STRIPE_SECRET_KEY=%s", "# old %s", "%s",
	"STRIPE_SECRET_KEY\n=%s", "STRIPE_SECRET_KEY=\n'%s'", "STRIPE_SECRET_KEY='%s\n'", "STRIPE_SECRET_KEY=\\%s", "STRIPE_SECRET_KEY=\"${A}%s\"", "URL=https://x.example/?k=%s&a=1",
	"A=1", "A='x\ny'", "# c", "", "B=\"open", "C=x\\", "D=${A}", "E='", "=", "F", "\xff",
}

// Whatever the file looks like: either setup refuses and touches nothing, or no
// key that went into the safe is readable any more, what held none reads as
// before, and undo brings back every byte.
func TestAnyFileIsProtectedOrLeftAlone(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	refused := 0
	for range 40 {
		dir := t.TempDir()
		ends := []string{"\n", "\r\n"}[r.IntN(2)]
		var file strings.Builder
		file.WriteString([]string{"", "\ufeff", "# dotenv: python\n"}[r.IntN(3)])
		for range 1 + r.IntN(6) {
			line := oddLines[r.IntN(len(oddLines))]
			for strings.Contains(line, "%s") {
				line = strings.Replace(line, "%s", stripeKey(), 1)
			}
			file.WriteString(strings.ReplaceAll(line, "\n", ends) + ends)
		}
		put(t, dir, ".env", file.String(), 0o640)
		before := snap(t, dir)
		h := home{dir: t.TempDir()}
		if err := protect(t, h, dir, file.String()); err != nil {
			t.Logf("%q: %v", file.String(), err)
			refused++
			same(t, "after a refusal", snap(t, dir), before)
			continue
		}
		h.undo(t)
		same(t, fmt.Sprintf("%q after undo", file.String()), snap(t, dir), before)
	}
	t.Logf("%d of 40 refused", refused)
}

// protect sets up and looks at what it did; the error is that of setup.
func protect(t *testing.T, h home, dir, was string) error {
	t.Helper()
	found, err := Find(dir)
	if err != nil {
		return err
	}
	p, err := MakePlan(t.Context(), h.input(t, found))
	if err != nil {
		return err
	}
	if _, err := p.Apply(t.Context(), h.deps(), nil); err != nil {
		return err
	}
	c, err := h.load()
	if err != nil {
		t.Fatal(err)
	}
	if n, want := len(c.Values), strings.Count(was, "sk_"+"live_"); n != want {
		t.Errorf("%d of %d keys went into the safe: %q", n, want, was)
	}
	for name, value := range c.Values {
		if strings.Contains(get(t, dir, ".env"), string(value)) {
			t.Errorf("%s is readable: %q became %q", name, was, get(t, dir, ".env"))
		}
	}
	old, err := dotenv.Parse([]byte(was), found.Dialect)
	if err != nil {
		t.Fatal(err)
	}
	now, err := dotenv.Parse([]byte(get(t, dir, ".env")), found.Dialect)
	if err != nil {
		t.Fatal(err)
	}
	if len(old.Entries()) != len(now.Entries()) {
		t.Errorf("%d variables in %q became %d in %q", len(old.Entries()), was, len(now.Entries()), get(t, dir, ".env"))
		return nil
	}
	for i, e := range now.Entries() {
		// A key that stands where a name does ("KEY\n=") is replaced there.
		if o := old.Entries()[i]; !o.Bare && (e.Key != o.Key && !placeholder.Is(e.Key) || e.Value != o.Value && len(placeholder.Find([]byte(e.Value))) == 0) {
			t.Errorf("%s of %q reads as something else in %q", o.Key, was, get(t, dir, ".env"))
		}
	}
	return nil
}
