package policy_test

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"postern/internal/fail"
	"postern/internal/policy"
)

func TestParseNamesEveryMistakeWithItsLine(t *testing.T) {
	one := func(line string) string { return "agents:\n  a:\n    " + line + "\n" }
	grant := func(rest string) string { return one("grants:\n      - {credential: c, " + rest + "}") }
	tests := []struct {
		name, in string
		line     int
		text     string
	}{
		{"unknown field", one("grant: []"), 3, "grant"},
		{"unknown field of a grant", grant("host: [a.example]"), 4, "host"},
		{"egress", one("egress: opne"), 3, "open, inspect or closed"},
		{"environment", one("environment: test"), 3, "dev, staging or prod"},
		{"agent", "agents:\n  My Bot:\n", 2, "not a name of an agent"},
		{"credential", one("grants:\n      - {credential: 'a b', hosts: [a.example]}"), 4, "not a name"},
		{"no credential", one("grants:\n      - {hosts: [a.example]}"), 4, "names one credential"},
		{"no host", grant("hosts: []"), 4, "at least one host"},
		{"capitals", grant("hosts: [Api.example]"), 4, "lower case: api.example"},
		{"an address of the web", grant("hosts: ['https://a.example/x']"), 4, "without scheme"},
		{"any host", grant("hosts: ['*']"), 4, "may stand only"},
		{"star inside", grant("hosts: ['a.*.example']"), 4, "may stand only"},
		{"star in a label", grant("hosts: ['a*.example']"), 4, "may stand only"},
		{"dot at the end", grant("hosts: [a.example.]"), 4, "without the dot"},
		{"port", grant("hosts: ['a.example:0443']"), 4, "1 to 65535"},
		{"letters beyond ASCII", grant("hosts: [é.example]"), 4, "ASCII form"},
		{"an address in disguise", grant("hosts: ['127.1']"), 4, "plain form"},
		{"a long IPv6 address", grant("hosts: ['[0:0::1]:5']"), 4, "IPv6"},
		{"method", grant("hosts: [a.example], methods: [get]"), 4, "capitals"},
		{"path", grant("hosts: [a.example], paths: [v1]"), 4, `begins with "/"`},
		{"path with half a star", grant("hosts: [a.example], paths: ['/v1/mess*']"), 4, "whole segment"},
		{"path with two stars", grant("hosts: [a.example], paths: ['/**']"), 4, "whole segment"},
		{"path with dots", grant("hosts: [a.example], paths: [/v1/../x]"), 4, "dots"},
		{"path with a query", grant("hosts: [a.example], paths: ['/v1?x']"), 4, "query"},
		{"path that never comes", grant("hosts: [a.example], paths: ['/%41']"), 4, "escape"},
		{"own keys", grant("hosts: [a.example], own_keys: yes"), 4, "allow or refuse"},
		{"deny", one("deny: ['*']"), 3, "may stand only"},
		{"hosts", one("hosts:\n      - a.example\n      - B.example"), 5, "lower case"},
		{"tcp without a port", one("tcp: [127.0.0.1]"), 3, "with its port"},
		{"unix", one("unix: [run/x]"), 3, "absolute path"},
		{"files", one("files: [/a/../b]"), 3, "absolute path"},
		{"publish", one("publish:\n      - 80\n      - 70000"), 5, "1 to 65535"},
		{"alias", "agents:\n  a: &a {}\n  b: *a\n", 2, "anchors"},
		{"merge", "agents:\n  a: {}\n  b:\n    <<: {egress: open}\n", 4, "merge keys"},
		{"twice", "agents:\n  a: {}\n  a: {}\n", 3, "already defined"},
		{"not a mapping", "agents: [a]\n", 1, ""},
		{"two documents", "agents: {}\n---\nagents: {}\n", 0, "more than one document"},
		{"NUL", "agents:\x00\n", 1, "NUL"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := policy.Parse("/etc/postern/policy.yaml", []byte(test.in))
			var problems fail.Problems
			if !errors.As(err, &problems) {
				t.Fatalf("got %v", err)
			}
			if p := problems[0]; p.Line != test.line || !strings.Contains(p.Text, test.text) || p.Line > 0 && test.text != "NUL" && p.Excerpt == "" {
				t.Errorf("got %+v", p)
			}
		})
	}
}

func TestParseFindsAllMistakesInOneGo(t *testing.T) {
	_, err := policy.Parse("p", []byte("agents:\n  a: {egress: x, deny: [A, b..c]}\n  b: {publish: [0]}\n"))
	var problems fail.Problems
	if !errors.As(err, &problems) || len(problems) != 4 {
		t.Errorf("got %v", err)
	}
}

func TestParseReads(t *testing.T) {
	p := parsed(t, town)
	var names []string
	for _, a := range p.Agents() {
		names = append(names, a.Name)
	}
	if got := strings.Join(names, " "); got != "bot shut quiet big" {
		t.Errorf("got %s", got)
	}
	a, ok := p.Agent("bot")
	if !ok || a.Egress != policy.Open || len(a.Grants) != 5 || a.Grants[3].Rule != "policy.yaml: agents.bot.grants[3]" || a.Grants[3].Line != 10 || a.Line != 3 {
		t.Errorf("got %+v", a)
	}
	if quiet, _ := p.Agent("quiet"); quiet.Egress != policy.Closed {
		t.Errorf("got %+v", quiet)
	}
	out, err := json.Marshal(p.Agents())
	if err != nil || !strings.Contains(string(out), `"own_keys":true`) || strings.Contains(string(out), "null") {
		t.Errorf("got %s, %v", out, err)
	}
	for _, empty := range []string{"", "# nothing\n", "agents:\n", "agents: {}\n", "{}\n"} {
		if p := parsed(t, empty); len(p.Agents()) != 0 {
			t.Errorf("%q: got %v", empty, p.Agents())
		}
	}
}

func TestLoadReadsOnlyOrdinaryFiles(t *testing.T) {
	dir := t.TempDir()
	if _, err := policy.Load(filepath.Join(dir, "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{fifo, dir} {
		if _, err := policy.Load(path); !fail.Is(err, fail.Invalid) || !strings.Contains(err.Error(), "ordinary") {
			t.Errorf("%s: got %v", path, err)
		}
	}
	big := filepath.Join(dir, "big")
	if err := os.WriteFile(big, []byte(strings.Repeat("#\n", policy.MaxBytes)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := policy.Load(big); err == nil || !strings.Contains(err.Error(), "larger") {
		t.Errorf("got %v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(town))
	f.Add([]byte("agents: {a: {grants: [{credential: c, hosts: ['*.x']}]}}"))
	f.Add([]byte("agents:\r\n  a: &x\r\n    <<: *x\r\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := policy.Parse("p", data)
		if err != nil {
			return
		}
		for _, a := range p.Agents() {
			p.Egress(a.Name, "h.example:443")
			p.Explain(a.Name, "h.example:443", "GET", "/")
			for _, g := range a.Grants {
				p.Decide(policy.Request{Agent: a.Name, Credential: g.Credential, Host: "h.example:443", Method: "GET", Path: "/a/b"})
			}
		}
		edits(t, data)
	})
}

// edits makes some edits of a good text: each gives a good text that says it,
// or an error; a second time it changes nothing.
func edits(t *testing.T, data []byte) {
	e := policy.Edit{
		Agent: "new", Egress: policy.Open, Hosts: []string{"n.example"}, TCP: []string{"127.0.0.1:1"}, Publish: []int{7},
		Grants: []policy.Grant{{Credential: "c", Hosts: []string{"g.example", "*.w.example"}}},
	}
	for _, apply := range []func([]byte, policy.Edit) ([]byte, error){policy.AddGrants, policy.Allow} {
		next, err := apply(data, e)
		if err != nil {
			continue
		}
		again, err := apply(next, e)
		if err != nil || string(again) != string(next) {
			t.Fatalf("the second time: %q, %v, from %q", again, err, next)
		}
		p, err := policy.Parse("p", next)
		if err != nil {
			t.Fatal(err)
		}
		if a, ok := p.Agent("new"); !ok || len(a.Grants) == 0 || len(a.TCP) == 0 {
			t.Fatalf("got %+v", a)
		}
		if _, err := policy.RemoveAgent(next, "new"); err != nil && !fail.Is(err, fail.Conflict) {
			t.Fatal(err)
		}
	}
}
