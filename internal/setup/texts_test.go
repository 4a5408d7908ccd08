package setup

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestIgnoreLines(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name, file, want string
		git, none        bool
	}{
		{name: "no git, no file", none: true},
		{name: "git, no file", git: true, want: ".env\n.env.*\n!.env.example\n"},
		{name: "file without last line end", file: "x", want: "x\n.env\n.env.*\n!.env.example\n"},
		{name: "other line ends", file: "x\r\n", want: "x\r\n.env\r\n.env.*\r\n!.env.example\r\n"},
		{name: "all there", file: ".env\n.env.*\n!.env.example\n", want: ".env\n.env.*\n!.env.example\n"},
		{name: "one pattern for all", file: ".env*\n!.env.example\n", want: ".env*\n!.env.example\n"},
		{name: "exception too early", file: "!.env.example\n/.env\n.env.*\n", want: "!.env.example\n/.env\n.env.*\n!.env.example\n"},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			put(t, dir, ".env", "STRIPE_SECRET_KEY="+stripeKey()+"\n", 0o600)
			if tc.file != "" {
				put(t, dir, ".gitignore", tc.file, 0o664)
			}
			if tc.git {
				if err := os.Mkdir(filepath.Join(dir, ".git"), 0o700); err != nil {
					t.Fatal(err)
				}
			}
			(home{dir: t.TempDir()}).apply(t, dir)
			if tc.none {
				if _, err := os.Stat(filepath.Join(dir, ".gitignore")); err == nil {
					t.Error("a .gitignore was made where there is no git")
				}
				return
			}
			if diff := cmp.Diff(tc.want, get(t, dir, ".gitignore")); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestExampleHasTemplatesCommentsAndPlainValues(t *testing.T) {
	t.Parallel()
	dir, k := t.TempDir(), anthropicKey()
	put(t, dir, ".env", "# the model\nANTHROPIC_API_KEY="+k+" # main\n# OPENAI_API_KEY="+openaiKey()+"\nPORT=3000\nNAME='My Bot'\nACME_TOKEN="+random(40)+
		"\nURL=https://x.example/?key="+k+"\n", 0o600)
	h := home{dir: t.TempDir()}
	h.apply(t, dir)
	want := "# the model\nANTHROPIC_API_KEY=your-anthropic-key-here # main\n# OPENAI_API_KEY=your-openai-key-here\nPORT=3000\nNAME='My Bot'\n" +
		"ACME_TOKEN=your-value-here\nURL=https://x.example/?key=your-anthropic-key-here\n"
	got := strings.ReplaceAll(get(t, dir, ".env.example"), templateOf(t, h, "acme"), "your-value-here")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func templateOf(t *testing.T, h home, name string) string {
	t.Helper()
	c, err := h.load()
	if err != nil {
		t.Fatal(err)
	}
	for _, one := range c.Credentials {
		if one.Name == name {
			k, err := kinds(t).Kind(one.Kind)
			if err != nil {
				t.Fatal(err)
			}
			return k.Example
		}
	}
	t.Fatalf("no credential %s", name)
	return ""
}

func TestExampleIsOnlyExtended(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	put(t, dir, ".env", "ANTHROPIC_API_KEY="+anthropicKey()+"\nPORT=3000\nNAME='My Bot'\n", 0o600)
	put(t, dir, ".env.example", "# mine\nPORT=8080", 0o664)
	h := home{dir: t.TempDir()}
	h.apply(t, dir)
	if diff := cmp.Diff("# mine\nPORT=8080\nANTHROPIC_API_KEY=your-anthropic-key-here\nNAME='My Bot'\n", get(t, dir, ".env.example")); diff != "" {
		t.Error(diff)
	}
	if info, err := os.Stat(filepath.Join(dir, ".env.example")); err != nil || info.Mode() != 0o664 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	h.undo(t)
	if got := get(t, dir, ".env.example"); got != "# mine\nPORT=8080" {
		t.Errorf("after undo %q", got)
	}
}

func TestEnvNames(t *testing.T) {
	t.Parallel()
	want := map[string]bool{
		".env": true, ".env.local": true, ".env.production": true, ".env.bak": true, ".env~": true, "env.bak": true, "prod.env": true, ".env.bak.1": true,
		".env.example": false, ".env.sample": false, ".env.template": false, ".env.dist": false, ".env.example.bak": false, "env.ts": false,
		"environment": false, ".envoy": false, "venv": false, "env.d.ts": false, ".postern-1.env": false,
	}
	for name, is := range want {
		if got := isEnvName(name); got != is {
			t.Errorf("%s: got %v, want %v", name, got, is)
		}
	}
}

func TestDestinations(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name, url string
		tcp, unix []string
	}{
		{"port", "postgres://u:p@127.0.0.1:5433/db", []string{"127.0.0.1:5433"}, nil},
		{"default port", "postgresql://u:p@DB.example/db?sslmode=require", []string{"db.example:5432"}, nil},
		{"variant", "mysql+pymysql://u:p@h/db", []string{"h:3306"}, nil},
		{"at sign in the password", "redis://u:p@x@h/0", []string{"h:6379"}, nil},
		{"several hosts", "mongodb://u:p@a:27018,b/db", []string{"a:27018", "b:27017"}, nil},
		{"six", "postgres://u:p@[::1]/db", []string{"[::1]:5432"}, nil},
		{"six with port", "postgres://u:p@[::1]:6000/db", []string{"[::1]:6000"}, nil},
		{"service record", "mongodb+srv://u:p@cluster.example/db", nil, nil},
		{"socket in the query", "postgres://u:p@/db?host=/run/postgresql", nil, []string{"/run/postgresql"}},
		{"socket as host", "postgres://u:p@%2Frun%2Fpostgresql/db", nil, []string{"/run/postgresql"}},
		{"no URL", "host=h password=p", nil, nil},
	}
	for _, tc := range cases {
		tcp, unix := destinations(tc.url)
		if diff := cmp.Diff(tc.tcp, tcp); diff != "" {
			t.Errorf("%s: tcp %s", tc.name, diff)
		}
		if diff := cmp.Diff(tc.unix, unix); diff != "" {
			t.Errorf("%s: unix %s", tc.name, diff)
		}
	}
}

func TestAReceiverOfWebhooksStaysReachable(t *testing.T) {
	for text, want := range map[string]int{
		"WEBHOOK_URL=https://bot.example/hook\nPORT=3000\n":     3000,
		"PORT=3000\nWEBHOOK_PORT=8443\n":                        8443,
		"PORT=3000\n":                                           0,
		"WEBHOOK_URL=https://bot.example/hook\nPORT=80\n":       0,
		"STRIPE_WEBHOOK_PATH=/hook\nPORT=no number\nNAME=bot\n": 0,
	} {
		dir := t.TempDir()
		put(t, dir, ".env", text, 0o600)
		found, err := Find(dir)
		if err != nil {
			t.Fatal(err)
		}
		if got := webhookPort(found.Files); got != want {
			t.Errorf("%q gave port %d, want %d", text, got, want)
		}
	}
}
