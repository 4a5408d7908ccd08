package policy_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"postern/internal/fail"
	"postern/internal/policy"
)

type edit = func([]byte, policy.Edit) ([]byte, error)

func TestSetupWritesANewFile(t *testing.T) {
	e := policy.Edit{
		Agent: "bot", Environment: "dev", Egress: policy.Open,
		Grants: []policy.Grant{
			{Credential: "anthropic", Hosts: []string{"api.anthropic.com"}},
			{Credential: "discord", Hosts: []string{"discord.com", "*.discord.gg"}},
			{Credential: "unknown"},
		},
		TCP: []string{"127.0.0.1:5432"}, Unix: []string{"/run/postgresql"}, Publish: []int{18789},
	}
	want := `# Who may use what. After a change: postern policy check
agents:
  bot:
    environment: dev
    egress: open
    grants:
      - {credential: anthropic, hosts: [api.anthropic.com]}
      - {credential: discord, hosts: [discord.com, "*.discord.gg"]}
    tcp: ["127.0.0.1:5432"]
    unix: ["/run/postgresql"]
    publish: [18789]
`
	got, err := policy.AddGrants(nil, e)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Error(diff)
	}
	again, err := policy.AddGrants(got, e)
	if err != nil || string(again) != want {
		t.Errorf("the second time: %s, %v", again, err)
	}
}

const kept = `# mine
agents:
  bot: # the first
    egress: closed   # on purpose
    grants:
      # narrow
      - {credential: stripe, hosts: [api.stripe.com], methods: [GET]} # read only
      - credential: pay
        hosts:
          - a.pay.example   # first
          - b.pay.example
        any_environment: true
    deny: [x.example, "*.y.example"]
    tcp:
      - "127.0.0.1:5432" # base

  # the other
  other: {egress: open, hosts: [a.example]}
`

func TestEdits(t *testing.T) {
	grants := func(credential string, hosts ...string) []policy.Grant {
		return []policy.Grant{{Credential: credential, Hosts: hosts}}
	}
	tests := []struct {
		name     string
		edit     edit
		e        policy.Edit
		old, new string // the one place that changes
	}{
		{"setup keeps a narrow grant", policy.AddGrants, policy.Edit{Agent: "bot", Egress: policy.Open, Grants: grants("stripe", "api.stripe.com")}, "", ""},
		{"setup adds a host", policy.AddGrants, policy.Edit{Agent: "bot", Grants: grants("stripe", "api.stripe.com", "files.stripe.com")},
			"        any_environment: true\n", "        any_environment: true\n      - {credential: stripe, hosts: [files.stripe.com]}\n"},
		{"setup adds to a file of braces", policy.AddGrants, policy.Edit{Agent: "other", Egress: policy.Inspect, Grants: grants("c", "c.example")},
			"hosts: [a.example]}", "hosts: [a.example], grants: [{credential: c, hosts: [c.example]}]}"},
		{"setup adds an agent", policy.AddGrants, policy.Edit{Agent: "new", Egress: policy.Open, Grants: grants("c", "c.example")},
			"[a.example]}\n", "[a.example]}\n  new:\n    egress: open\n    grants:\n      - {credential: c, hosts: [c.example]}\n"},
		{"allow makes wider", policy.Allow, policy.Edit{Agent: "bot", Grants: grants("stripe", "api.stripe.com")},
			"        any_environment: true\n", "        any_environment: true\n      - {credential: stripe, hosts: [api.stripe.com]}\n"},
		{"allow sees what is granted", policy.Allow, policy.Edit{Agent: "bot", Grants: []policy.Grant{{Credential: "stripe", Hosts: []string{"api.stripe.com:443"}, Methods: []string{"GET"}, Paths: []string{"/v1/*"}}}}, "", ""},
		{"allow with everything", policy.Allow, policy.Edit{Agent: "bot", Grants: []policy.Grant{{Credential: "pay", Hosts: []string{"[::1]:5"}, Methods: []string{"GET", "POST"}, Paths: []string{"/a/*"}, Durable: true, OwnKeys: true, AnyEnvironment: true}}},
			"        any_environment: true\n", "        any_environment: true\n      - {credential: pay, hosts: [\"[::1]:5\"], methods: [GET, POST], paths: [\"/a/*\"], durable: true, own_keys: allow, any_environment: true}\n"},
		{"allow changes the egress", policy.Allow, policy.Edit{Agent: "bot", Egress: policy.Inspect}, "egress: closed   #", "egress: inspect   #"},
		{"allow takes back a denial", policy.Allow, policy.Edit{Agent: "bot", TCP: []string{"127.0.0.1:5432"}, Grants: grants("pay", "a.pay.example")}, "", ""},
		{"allow a service", policy.Allow, policy.Edit{Agent: "bot", TCP: []string{"[::1]:6379"}}, "# base\n", "# base\n      - \"[::1]:6379\"\n"},
		{"allow a host", policy.Allow, policy.Edit{Agent: "other", Hosts: []string{"b.example"}}, "[a.example]", "[a.example, b.example]"},
		{"deny a host", policy.Deny, policy.Edit{Agent: "bot", Hosts: []string{"z.example"}}, `"*.y.example"]`, `"*.y.example", z.example]`},
		{"deny it again", policy.Deny, policy.Edit{Agent: "bot", Hosts: []string{"x.example"}}, "", ""},
		{"deny a credential", policy.Deny, policy.Edit{Agent: "bot", Grants: grants("stripe")}, "      - {credential: stripe, hosts: [api.stripe.com], methods: [GET]} # read only\n", ""},
		{"deny a credential at a host", policy.Deny, policy.Edit{Agent: "bot", Grants: grants("pay", "a.pay.example")}, "          - a.pay.example   # first\n", ""},
		{"deny a credential at all its hosts", policy.Deny, policy.Edit{Agent: "bot", Grants: grants("pay", "a.pay.example", "b.pay.example")},
			"      - credential: pay\n        hosts:\n          - a.pay.example   # first\n          - b.pay.example\n        any_environment: true\n", ""},
		{"deny a service", policy.Deny, policy.Edit{Agent: "bot", TCP: []string{"127.0.0.1:5432"}}, "      - \"127.0.0.1:5432\" # base\n", ""},
		{"remove an agent", removal, policy.Edit{Agent: "other"}, "  other: {egress: open, hosts: [a.example]}\n", ""},
		{"remove an agent with its lines", removal, policy.Edit{Agent: "bot"}, kept[strings.Index(kept, "  bot"):strings.Index(kept, "\n  # the other")], ""},
		{"remove nobody", removal, policy.Edit{Agent: "nobody"}, "", ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := test.edit([]byte(kept), test.e)
			if err != nil {
				t.Fatal(err)
			}
			if strings.Count(kept, test.old) != 1 && test.old != "" {
				t.Fatalf("%q is not in one place", test.old)
			}
			if diff := cmp.Diff(strings.Replace(kept, test.old, test.new, 1), string(got)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func removal(current []byte, e policy.Edit) ([]byte, error) {
	return policy.RemoveAgent(current, e.Agent)
}

func TestAllowTakesADenialBack(t *testing.T) {
	got, err := policy.Allow([]byte(kept), policy.Edit{Agent: "bot", Hosts: []string{"x.example"}})
	if err != nil {
		t.Fatal(err)
	}
	p := parsed(t, string(got))
	if d := p.Egress("bot", "x.example:443"); !d.Allow {
		t.Errorf("got %+v\n%s", d, got)
	}
}

func TestEditsThatAreRefused(t *testing.T) {
	grants := func(credential string, hosts ...string) []policy.Grant {
		return []policy.Grant{{Credential: credential, Hosts: hosts}}
	}
	tests := []struct {
		name, in string
		edit     edit
		e        policy.Edit
		kind     fail.Kind
		text     string
	}{
		{"a wider denial", kept, policy.Allow, policy.Edit{Agent: "bot", Hosts: []string{"a.y.example"}}, fail.Conflict, "deny[1]"},
		{"a wider grant", `agents: {a: {grants: [{credential: c, hosts: ["*.x.example"]}]}}`, policy.Deny, policy.Edit{Agent: "a", Grants: grants("c", "q.x.example")}, fail.Conflict, "grants[0]"},
		{"nobody to deny", kept, policy.Deny, policy.Edit{Agent: "nobody", Hosts: []string{"a.example"}}, fail.NotFound, "nobody"},
		{"not a name", kept, policy.Allow, policy.Edit{Agent: "Bot"}, fail.Invalid, "Bot"},
		{"not a host", kept, policy.Allow, policy.Edit{Agent: "bot", Grants: grants("c", "*")}, fail.Invalid, "may stand only"},
		{"not a path", kept, policy.Allow, policy.Edit{Agent: "bot", Unix: []string{"x"}}, fail.Invalid, "absolute"},
		{"a form that cannot be kept", "agents:\n  a:\n    hosts: [ # these\n      b.example, # one\n      c.example]\n    grants: [{credential: c, hosts: [d.example]}, # why\n      {credential: e, hosts: [d.example]}]\n",
			policy.Deny, policy.Edit{Agent: "a", Grants: grants("c")}, fail.Conflict, "not edited by machine"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := test.edit([]byte(test.in), test.e)
			if !fail.Is(err, test.kind) || !strings.Contains(err.Error(), test.text) || got != nil {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
	if _, err := policy.Allow([]byte("agents: {a: {egres: open}}"), policy.Edit{Agent: "a"}); err == nil {
		t.Error("a bad file was edited")
	}
}

// An edit says exactly what was asked for: the words that a text gained are the
// ones asked for, all lines that were there stand there still, in their order.
func TestEditsAddAndTouchNothingElse(t *testing.T) {
	host := rapid.StringMatching(`(\*\.)?[a-d]\.[ab]\.example(:8[0-9])?`)
	name := rapid.StringMatching(`[a-c]`)
	rapid.Check(t, func(t *rapid.T) {
		text := drawFile(t)
		e := policy.Edit{
			Agent:  name.Draw(t, "agent"),
			Egress: rapid.SampledFrom([]policy.Mode{"", policy.Open, policy.Closed}).Draw(t, "egress"),
			Hosts:  rapid.SliceOfN(host, 0, 2).Draw(t, "hosts"),
			TCP:    rapid.SliceOfN(rapid.StringMatching(`127\.0\.0\.[1-3]:[1-3]`), 0, 2).Draw(t, "tcp"),
		}
		for range rapid.IntRange(0, 2).Draw(t, "grants") {
			e.Grants = append(e.Grants, policy.Grant{
				Credential: name.Draw(t, "credential"), Hosts: rapid.SliceOfN(host, 1, 2).Draw(t, "grant hosts"),
				Durable: rapid.Bool().Draw(t, "durable"),
			})
		}
		before := parsedOrSkip(t, text)
		next, err := policy.AddGrants([]byte(text), e)
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		after := parsedOrSkip(t, string(next))
		again, err := policy.AddGrants(next, e)
		if err != nil || string(again) != string(next) {
			t.Fatalf("the second time: %v\n%s\n%s", err, next, again)
		}
		for _, a := range before.Agents() {
			b, _ := after.Agent(a.Name)
			if a.Name == e.Agent {
				if len(b.Grants) < len(a.Grants) || !slices.Equal(a.Hosts, b.Hosts[:len(a.Hosts)]) || !slices.Equal(a.Deny, b.Deny) {
					t.Fatalf("%+v became %+v", a, b)
				}
				continue
			}
			if diff := cmp.Diff(unplaced(a), unplaced(b)); diff != "" {
				t.Fatal(diff)
			}
		}
		b, _ := after.Agent(e.Agent)
		for _, g := range e.Grants {
			for _, h := range g.Hosts {
				if !slices.ContainsFunc(b.Grants, func(have policy.Grant) bool {
					return have.Credential == g.Credential && namedBy(have.Hosts, h)
				}) {
					t.Fatalf("%s at %s is missing:\n%s", g.Credential, h, next)
				}
			}
		}
		keepsComments(t, text, string(next))
		if removed, err := policy.RemoveAgent(next, e.Agent); err == nil {
			if _, still := parsedOrSkip(t, string(removed)).Agent(e.Agent); still {
				t.Fatalf("still there:\n%s", removed)
			}
		}
	})
}

func namedBy(hosts []string, host string) bool {
	name := func(h string) string { return strings.TrimSuffix(h, ":443") }
	return slices.ContainsFunc(hosts, func(h string) bool {
		below, wild := strings.CutPrefix(name(h), "*")
		return name(h) == name(host) || wild && strings.HasSuffix(name(host), below)
	})
}

func parsedOrSkip(t *rapid.T, text string) *policy.Policy {
	p, err := policy.Parse("policy.yaml", []byte(text))
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return p
}

// unplaced is an agent without the lines, which move.
func unplaced(a policy.Agent) policy.Agent {
	a.Line, a.Grants = 0, slices.Clone(a.Grants)
	for i := range a.Grants {
		a.Grants[i].Line = 0
	}
	return a
}

func keepsComments(t *rapid.T, before, after string) {
	comments := func(text string) (all []string) {
		for line := range strings.Lines(text) {
			if _, comment, found := strings.Cut(line, "#"); found {
				all = append(all, strings.TrimSpace(comment))
			}
		}
		return all
	}
	old, now := comments(before), comments(after)
	if len(now) < len(old) || !slices.Equal(old, now[len(now)-len(old):]) {
		t.Fatalf("comments %q became %q", old, now)
	}
}

// drawFile makes a policy in some of the forms that people write.
func drawFile(t *rapid.T) string {
	var b strings.Builder
	comment := func() string {
		return rapid.SampledFrom([]string{"", "", " # why", " # it's \"so\": [a"}).Draw(t, "comment")
	}
	list := func(indent string, items []string) string {
		if rapid.Bool().Draw(t, "flow") {
			return " [" + strings.Join(items, ", ") + "]" + comment() + "\n"
		}
		text := comment() + "\n"
		for _, item := range items {
			text += indent + "- " + item + comment() + "\n"
		}
		return text
	}
	if rapid.Bool().Draw(t, "head") {
		b.WriteString("# head\n\n")
	}
	names := rapid.SliceOfNDistinct(rapid.StringMatching(`[a-c]`), 0, 3, rapid.ID[string]).Draw(t, "names")
	if len(names) == 0 {
		return b.String() + rapid.SampledFrom([]string{"", "agents:\n", "agents: {}\n", "agents: {} # none\n"}).Draw(t, "none")
	}
	in := rapid.SampledFrom([]string{"  ", "    "}).Draw(t, "indent")
	b.WriteString("agents:" + comment() + "\n")
	for _, name := range names {
		if rapid.IntRange(0, 4).Draw(t, "form") == 0 {
			b.WriteString(in + name + ": {egress: open, grants: [{credential: z, hosts: ['q.example']}]}" + comment() + "\n")
			continue
		}
		b.WriteString(in + name + ":" + comment() + "\n")
		if rapid.Bool().Draw(t, "mode") {
			b.WriteString(in + in + "egress: closed" + comment() + "\n")
		}
		if rapid.Bool().Draw(t, "lists") {
			b.WriteString(in + in + "deny:" + list(in+in+in, []string{"d.example", `"*.e.example"`}))
			b.WriteString(in + in + "hosts:" + list(in+in, []string{"a.a.example"}))
		}
		if rapid.Bool().Draw(t, "grants") {
			b.WriteString(in + in + "grants:" + list(in+in+in, []string{`{credential: a, hosts: ["*.a.example", b.b.example]}`, "{credential: y, hosts: [y.example], methods: [GET]}"}))
		}
		if rapid.Bool().Draw(t, "space") {
			b.WriteString("\n# between\n")
		}
	}
	text := b.String()
	if rapid.Bool().Draw(t, "CRLF") {
		text = strings.ReplaceAll(text, "\n", "\r\n")
	}
	if rapid.Bool().Draw(t, "open end") {
		text = strings.TrimRight(text, "\r\n")
	}
	return text
}
