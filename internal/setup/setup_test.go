package setup

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"postern/internal/fail"
	"postern/internal/placeholder"
)

// nasty is a directory with everything that makes a .env file hard to edit.
func nasty(t testing.TB) (dir string, values []string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "My Bot")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	k, s, old := anthropicKey(), stripeKey(), openaiKey()
	put(t, dir, ".env", "\xef\xbb\xbf# head\r\nexport ANTHROPIC_API_KEY=\""+k+"\" # main\r\n\r\nSTRIPE_SECRET_KEY='"+s+"'\r\n"+
		"PEM=\"line1\nline2\"\r\nPORT=3000\r\n# OPENAI_API_KEY="+old+"\r\nANTHROPIC_API_KEY="+k+"\r\n", 0o644)
	put(t, dir, ".env.bak", "STRIPE_SECRET_KEY="+s+"\n", 0o644)
	put(t, dir, ".gitignore", "node_modules", 0o644)
	if os.Getuid() == 0 { // root works on files of others
		for _, name := range []string{".env", ".gitignore"} {
			if err := os.Chown(filepath.Join(dir, name), 12345, 12346); err != nil {
				t.Fatal(err)
			}
		}
	}
	return dir, []string{k, s, old}
}

func TestSetupTakesTheValuesOutAndUndoBringsThemBack(t *testing.T) {
	t.Parallel()
	dir, values := nasty(t)
	before := snap(t, dir)
	h := home{dir: t.TempDir()}
	result := h.apply(t, dir)
	search(t, dir, values...)
	search(t, h.dir, values...)
	env := get(t, dir, ".env")
	for _, kept := range []string{"\xef\xbb\xbf# head\r\nexport ANTHROPIC_API_KEY=\"", "\" # main\r\n\r\nSTRIPE_SECRET_KEY='", "'\r\nPEM=\"line1\nline2\"\r\nPORT=3000\r\n# OPENAI_API_KEY="} {
		if !strings.Contains(env, kept) {
			t.Errorf("%q is gone from\n%s", kept, env)
		}
	}
	if n := strings.Count(env, "sk-ant-api03-"); n != 2 {
		t.Errorf("%d placeholders of Anthropic in\n%s", n, env)
	}
	for _, name := range []string{".env", ".env.bak"} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode() != 0o600 {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
	if diff := cmp.Diff([]string{"anthropic", "stripe", "openai"}, result.Imported); diff != "" {
		t.Error(diff)
	}
	if result.Agent != "my-bot" || len(result.Real) != 0 {
		t.Errorf("result %+v", result)
	}
	if got := get(t, h.dir, "policy"); !strings.Contains(got, "my-bot anthropic api.anthropic.com\n") {
		t.Errorf("policy:\n%s", got)
	}
	report := h.undo(t)
	same(t, "after undo", snap(t, dir), before)
	marked, err := AfterUndo(t.Context(), safeOf{h}, kinds(t), report)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"stripe", "anthropic", "openai"}, marked); diff != "" {
		t.Errorf("marked restored: %s", diff)
	}
}

func TestSecondSetupDoesNothing(t *testing.T) {
	t.Parallel()
	dir, _ := nasty(t)
	h := home{dir: t.TempDir()}
	h.apply(t, dir)
	before, state := snap(t, dir), snap(t, h.dir)
	result := h.apply(t, dir)
	if !result.Nothing || result.Run != 0 {
		t.Errorf("result %+v", result)
	}
	same(t, "the directory", snap(t, dir), before)
	same(t, "the home", snap(t, h.dir), state)
	if kept := h.plan(t, dir).Kept; kept != 4 {
		t.Errorf("%d values are protected already, want 4", kept)
	}
}

func TestSetupAfterUndoUsesTheSamePlaceholders(t *testing.T) {
	t.Parallel()
	dir, _ := nasty(t)
	h := home{dir: t.TempDir()}
	h.apply(t, dir)
	env := get(t, dir, ".env")
	report := h.undo(t)
	if _, err := AfterUndo(t.Context(), safeOf{h}, kinds(t), report); err != nil {
		t.Fatal(err)
	}
	result := h.apply(t, dir)
	if got := get(t, dir, ".env"); got != env {
		t.Error("other placeholders the second time")
	}
	if len(result.Imported) != 0 || len(result.Reused) != 3 {
		t.Errorf("result %+v", result)
	}
	c, err := h.load()
	if err != nil {
		t.Fatal(err)
	}
	for _, one := range c.Credentials {
		if one.Restored {
			t.Errorf("%s is still marked restored", one.Name)
		}
	}
}

func TestEveryKeyOfAListGetsItsOwnPlaceholder(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	a, b := openaiKey(), openaiKey()
	put(t, dir, ".env", "OPENAI_API_KEYS="+a+", "+b+"\nOPENAI_API_KEY="+b+"\n", 0o600)
	h := home{dir: t.TempDir()}
	result := h.apply(t, dir)
	search(t, dir, a, b)
	if diff := cmp.Diff([]string{"openai", "openai-2"}, result.Imported); diff != "" {
		t.Error(diff)
	}
	first, second, _ := strings.Cut(get(t, dir, ".env"), "\n")
	tokens := strings.Split(strings.TrimPrefix(first, "OPENAI_API_KEYS="), ", ")
	if len(tokens) != 2 || !placeholder.Is(tokens[0]) || !placeholder.Is(tokens[1]) || tokens[0] == tokens[1] {
		t.Errorf("tokens %q", tokens)
	}
	if second != "OPENAI_API_KEY="+tokens[1]+"\n" {
		t.Errorf("the same value has another placeholder: %q", second)
	}
}

func TestKeysInCommentsAreTakenOut(t *testing.T) {
	t.Parallel()
	dir, k, old, older, lost := t.TempDir(), anthropicKey(), anthropicKey(), stripeKey(), stripeKey()
	put(t, dir, ".env", "# before: "+older+", then another\nANTHROPIC_API_KEY="+k+" # was "+old+" until May\n# export STRIPE=\""+older+"\" # see "+old+"\n"+lost+"\n", 0o600)
	before := snap(t, dir)
	h := home{dir: t.TempDir()}
	result := h.apply(t, dir)
	search(t, dir, k, old, older, lost)
	if len(result.Imported) != 4 {
		t.Errorf("imported %v", result.Imported)
	}
	if env := get(t, dir, ".env"); !strings.Contains(env, ", then another\n") || !strings.Contains(env, " until May\n") {
		t.Errorf("a comment was changed:\n%s", env)
	}
	if example := get(t, dir, ".env.example"); len(placeholder.Find([]byte(example))) > 0 {
		t.Errorf("placeholders in the example:\n%s", example)
	}
	put(t, dir, ".env", "# new\n"+strings.Replace(get(t, dir, ".env"), "until May", "until June", 1), 0o600)
	h.undo(t)
	if got, want := get(t, dir, ".env"), "# new\n"+strings.Replace(before[".env"][strings.Index(before[".env"], "\n")+1:], "until May", "until June", 1); got != want {
		t.Errorf("after undo of an edited file:\n%s\nwant\n%s", got, want)
	}
}

func TestWhatStaysRealIsSaidAndGranted(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	url := "postgres://bot:" + random(20) + "@db.internal.corp/botdb"
	put(t, dir, ".env", "DATABASE_URL="+url+"\nSESSION_SECRET="+random(40)+"\nACME_TOKEN="+random(40)+"\nSTRIPE_SECRET_KEY="+stripeKey()+"\n", 0o640)
	h := home{dir: t.TempDir()}
	p := h.plan(t, dir)
	if diff := cmp.Diff([]string{"DATABASE_URL", "SESSION_SECRET"}, p.Real()); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"db.internal.corp:5432"}, p.Grants().TCP); diff != "" {
		t.Error(diff)
	}
	result := h.apply(t, dir)
	env := get(t, dir, ".env")
	if !strings.HasPrefix(env, "DATABASE_URL="+url+"\n") {
		t.Error("the database URL was changed")
	}
	if diff := cmp.Diff([]string{"postgres", "acme", "stripe"}, result.Imported); diff != "" {
		t.Error(diff)
	}
	if again := h.apply(t, dir); !again.Nothing {
		t.Errorf("the second setup did %+v", again)
	}
}

func TestPlanShowsNoValue(t *testing.T) {
	t.Parallel()
	dir, values := nasty(t)
	put(t, dir, "ecosystem.config.js", "module.exports = {apps: [{env: {\n  ANTHROPIC_API_KEY: '"+values[0]+"'\n}}]}", 0o644)
	p := (home{dir: t.TempDir()}).plan(t, dir)
	text, err := json.Marshal(struct {
		Plan  *Plan
		Items []Item
	}{p, p.Items()})
	if err != nil {
		t.Fatal(err)
	}
	all := string(text) + fmt.Sprintf("%+v %#v %v", p, *p, p.Secrets[0])
	for _, v := range values {
		for _, form := range forms(v) {
			if strings.Contains(all, form) {
				t.Fatal("the plan shows a value")
			}
		}
	}
	var got []string
	for _, i := range p.Items() {
		got = append(got, i.Symbol+" "+i.Subject+": "+i.Text)
	}
	want := []string{
		"+ safe: 3 secrets, encrypted",
		"+ agent: my-bot",
		"~ .env: 4 values → placeholders, mode 644 → 600",
		"~ .env.bak: 1 value → placeholder, mode 644 → 600",
		"~ .gitignore: 3 lines",
		"+ .env.example: 9 lines",
		"+ postern.config.cjs: 52 lines",
		"! ecosystem.config.js: line 2 with what looks like a key: seen, not changed",
	}
	got = withoutRules(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func withoutRules(items []string) []string {
	var rest []string
	for _, i := range items {
		if !strings.HasPrefix(i, "+ allow rules") && !strings.Contains(i, "differ") {
			rest = append(rest, i)
		}
	}
	return rest
}

func TestPlaceholdersOfOthersAreAProblem(t *testing.T) {
	t.Parallel()
	dir, _ := nasty(t)
	h := home{dir: t.TempDir()}
	h.apply(t, dir)
	copied, stranger := t.TempDir(), home{dir: t.TempDir()}
	put(t, copied, ".env", get(t, dir, ".env.bak"), 0o600)
	for _, tc := range []struct {
		name string
		home home
		want string
	}{{"another agent's", h, "of another agent, my-bot"}, {"unknown", stranger, "does not know"}} {
		p := tc.home.plan(t, copied)
		if len(p.Problems) != 1 || !strings.Contains(p.Problems[0].Text, tc.want) {
			t.Errorf("%s: %v", tc.name, p.Problems)
		}
	}
}

func TestKeysThatAppearAreAdopted(t *testing.T) {
	t.Parallel()
	dir, _ := nasty(t)
	h := home{dir: t.TempDir()}
	h.apply(t, dir)
	appeared := func() (*Plan, []Secret) {
		found, err := Find(dir)
		if err != nil {
			t.Fatal(err)
		}
		p, keys, err := Appeared(t.Context(), h.input(t, found))
		if err != nil {
			t.Fatal(err)
		}
		return p, keys
	}
	if _, keys := appeared(); len(keys) != 0 {
		t.Fatalf("appeared: %+v", keys)
	}
	fresh := anthropicKey()
	put(t, dir, ".env.bak", "ANTHROPIC_API_KEY="+fresh+"\n", 0o600)
	p, keys := appeared()
	if len(keys) != 1 || keys[0].Name != "anthropic-2" || keys[0].Places[0] != (Place{".env.bak", 1, "ANTHROPIC_API_KEY"}) {
		t.Fatalf("appeared: %+v", keys)
	}
	if _, err := p.Apply(t.Context(), h.deps(), nil); err != nil {
		t.Fatal(err)
	}
	search(t, dir, fresh)
	if _, keys := appeared(); len(keys) != 0 {
		t.Errorf("after adopting: %+v", keys)
	}
}

func TestAFailureTakesEverythingBack(t *testing.T) {
	t.Parallel()
	dir, _ := nasty(t)
	h := home{dir: t.TempDir()}
	p := h.plan(t, dir)
	put(t, dir, ".env.bak", "EDITED=after the plan\n", 0o644)
	before := snap(t, dir)
	_, err := p.Apply(t.Context(), h.deps(), nil)
	if !fail.Is(err, fail.Conflict) {
		t.Errorf("got %v", err)
	}
	same(t, "after the failure", snap(t, dir), before)
}

func TestHostileFiles(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name string
		make func(path string) error
	}{
		{"huge", func(path string) error {
			if err := os.WriteFile(path, nil, 0o600); err != nil {
				return err
			}
			return os.Truncate(path, 1<<30)
		}},
		{"fifo", func(path string) error { return syscall.Mkfifo(path, 0o600) }},
		{"loop", func(path string) error { return os.Symlink(filepath.Base(path), path) }},
		{"elsewhere", func(path string) error { return os.Symlink(filepath.Join("..", "x"), path) }},
		{"directory", func(path string) error { return os.Mkdir(path, 0o700) }},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			if err := tc.make(filepath.Join(dir, ".env")); err != nil {
				t.Fatal(err)
			}
			if _, err := Find(dir); err == nil {
				t.Error("as .env it was taken")
			}
			if err := os.Remove(filepath.Join(dir, ".env")); err != nil {
				t.Fatal(err)
			}
			if err := tc.make(filepath.Join(dir, ".env.old")); err != nil {
				t.Fatal(err)
			}
			put(t, dir, ".env", "STRIPE_SECRET_KEY="+stripeKey()+"\n", 0o600)
			found, err := Find(dir)
			if err != nil || len(found.Files) != 1 || len(found.Problems) != 1 && tc.name != "directory" {
				t.Errorf("beside .env: %+v, %v", found.Problems, err)
			}
		})
	}
}

func TestALinkBesideItsTargetIsOneFile(t *testing.T) {
	t.Parallel()
	for _, link := range []string{".env", ".env.old"} {
		dir, key := t.TempDir(), stripeKey()
		put(t, dir, ".env.production", "STRIPE_SECRET_KEY="+key+"\n", 0o640)
		if err := os.Symlink(".env.production", filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
		before := snap(t, dir)
		h := home{dir: t.TempDir()}
		h.apply(t, dir)
		search(t, dir, key)
		if again := h.apply(t, dir); !again.Nothing {
			t.Errorf("%s: the second setup did %+v", link, again)
		}
		h.undo(t)
		same(t, link, snap(t, dir), before)
	}
}

func TestOddContentIsKeptToTheByte(t *testing.T) {
	t.Parallel()
	for name, frame := range map[string]string{
		"nul":           "A=1\x00\nSTRIPE_SECRET_KEY=%s\n",
		"unclosed":      "STRIPE_SECRET_KEY=%s\nA=\"open\nB=2\n",
		"not utf-8":     "A=\xff\xfe\nSTRIPE_SECRET_KEY=%s\n# \xc3\x28\n",
		"no last line":  "STRIPE_SECRET_KEY=%s",
		"only a return": "A=1\rSTRIPE_SECRET_KEY=%s\r",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, key := t.TempDir(), stripeKey()
			put(t, dir, ".env", fmt.Sprintf(frame, key), 0o644)
			before := snap(t, dir)
			h := home{dir: t.TempDir()}
			found, err := Find(dir)
			if err != nil {
				if fail.KindOf(err) != fail.Invalid || !strings.Contains(err.Error(), filepath.Join(dir, ".env")) {
					t.Errorf("refused as %v", err)
				}
				return // refused with a clear error, nothing touched
			}
			p, err := MakePlan(t.Context(), h.input(t, found))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := p.Apply(t.Context(), h.deps(), nil); err != nil {
				same(t, "after the refusal", snap(t, dir), before)
				return
			}
			search(t, dir, key)
			token := tokenIn(t, get(t, dir, ".env"))
			if got := get(t, dir, ".env"); got != fmt.Sprintf(frame, token) {
				t.Errorf("got %q", got)
			}
			h.undo(t)
			same(t, "after undo", snap(t, dir), before)
		})
	}
}

func tokenIn(t *testing.T, text string) string {
	t.Helper()
	at := placeholder.Find([]byte(text))
	if len(at) != 1 {
		t.Fatalf("%d placeholders in %q", len(at), text)
	}
	return text[at[0][0]:at[0][1]]
}
