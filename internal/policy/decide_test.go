package policy_test

import (
	"strings"
	"testing"

	"postern/internal/credential"
	"postern/internal/policy"
)

const town = `# who may
agents:
  bot:
    environment: dev
    egress: open
    grants:
      - {credential: anthropic, hosts: [api.anthropic.com], methods: [POST], paths: ["/v1/*"], durable: true}
      - {credential: anthropic, hosts: [api.anthropic.com], methods: [GET], paths: [/v1/models], own_keys: allow}
      - {credential: stripe, hosts: [api.stripe.com]}
      - credential: pay
        hosts: [pay.example:8443, "*.pay.example"]
        any_environment: true
      - {credential: telegram, hosts: [api.telegram.org], paths: ["/*/getMe"]}
    deny: [pastebin.example, "*.evil.example", files.example:8080]
    tcp: ["127.0.0.1:5432", "[::1]:6379", "db.corp:5432"]
  shut:
    egress: closed
    hosts: [registry.example, "*.cdn.example"]
    grants:
      - {credential: stripe, hosts: [api.stripe.com]}
  quiet:
  big:
    environment: prod
    egress: inspect
    grants:
      - {credential: stripe, hosts: [api.stripe.com]}
`

func parsed(t testing.TB, text string) *policy.Policy {
	t.Helper()
	p, err := policy.Parse("policy.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestDecide(t *testing.T) {
	const prod, dev, unmarked = credential.Prod, credential.Dev, credential.Environment("")
	type request = policy.Request
	tests := []struct {
		name              string
		q                 request
		allow             bool
		rule, reason, fix string
	}{
		{name: "granted", q: request{"bot", "anthropic", unmarked, unmarked, "api.anthropic.com:443", "POST", "/v1/messages"}, allow: true, rule: "grants[0]"},
		{name: "the second grant", q: request{"bot", "anthropic", unmarked, unmarked, "api.anthropic.com:443", "GET", "/v1/models"}, allow: true, rule: "grants[1]"},
		{name: "another host", q: request{"bot", "anthropic", unmarked, unmarked, "api.openai.com:443", "POST", "/v1/messages"}, rule: "grants[0]",
			reason: "no grant lets bot use anthropic at api.openai.com", fix: "postern policy allow --agent bot --secret anthropic --host api.openai.com"},
		{name: "a name that only ends alike", q: request{"bot", "stripe", unmarked, unmarked, "notapi.stripe.com:443", "GET", "/"}, fix: "--host notapi.stripe.com"},
		{name: "another port", q: request{"bot", "stripe", unmarked, unmarked, "api.stripe.com:8443", "GET", "/"}, fix: "--host api.stripe.com:8443"},
		{name: "another method", q: request{"bot", "anthropic", unmarked, unmarked, "api.anthropic.com:443", "DELETE", "/v1/x"}, reason: "method DELETE", fix: "--method DELETE --path /v1/x"},
		{name: "another path", q: request{"bot", "anthropic", unmarked, unmarked, "api.anthropic.com:443", "POST", "/v2/it's"}, reason: "path /v2/it's", fix: `--path '/v2/it'\''s'`},
		{name: "no command for a path that a shell would see otherwise", q: request{"bot", "anthropic", unmarked, unmarked, "api.anthropic.com:443", "POST", "/v2/\u202e"}, reason: "path"},
		{name: "another credential", q: request{"bot", "openai", unmarked, unmarked, "api.openai.com:443", "POST", "/"}, rule: "bot.grants", reason: "no grant lends openai to bot", fix: "--secret openai --host api.openai.com"},
		{name: "no such agent", q: request{"stranger", "stripe", unmarked, unmarked, "api.stripe.com:443", "GET", "/"}, reason: "does not name the agent stranger", fix: "--agent stranger"},
		{name: "an agent without rules", q: request{"quiet", "stripe", unmarked, unmarked, "api.stripe.com:443", "GET", "/"}, fix: "--agent quiet"},
		{name: "below a domain", q: request{"bot", "pay", unmarked, unmarked, "a.b.pay.example:443", "GET", "/"}, allow: true, rule: "grants[3]"},
		{name: "the domain itself is not below", q: request{"bot", "pay", unmarked, unmarked, "pay.example:443", "GET", "/"}},
		{name: "a port of its own", q: request{"bot", "pay", unmarked, unmarked, "pay.example:8443", "GET", "/"}, allow: true},
		{name: "one segment", q: request{"bot", "telegram", unmarked, unmarked, "api.telegram.org:443", "GET", "/bot{token}/getMe"}, allow: true},
		{name: "two segments are not one", q: request{"bot", "telegram", unmarked, unmarked, "api.telegram.org:443", "GET", "/a/b/getMe"}},
		{name: "prod credential, dev agent", q: request{"bot", "stripe", prod, prod, "api.stripe.com:443", "GET", "/"}, reason: "the agent is of dev", fix: "--host api.stripe.com --any-environment"},
		{name: "prod credential, unmarked agent", q: request{"shut", "stripe", prod, unmarked, "api.stripe.com:443", "GET", "/"}, reason: "is not marked", fix: "--any-environment"},
		{name: "prod credential, agent known as prod elsewhere", q: request{"shut", "stripe", prod, prod, "api.stripe.com:443", "GET", "/"}, allow: true},
		{name: "prod credential, prod agent", q: request{"big", "stripe", prod, unmarked, "api.stripe.com:443", "GET", "/"}, allow: true},
		{name: "prod credential, any environment", q: request{"bot", "pay", prod, dev, "x.pay.example:443", "GET", "/"}, allow: true},
		{name: "dev credential, prod agent", q: request{"big", "stripe", dev, unmarked, "api.stripe.com:443", "GET", "/"}, allow: true},
		{name: "staging credential, dev agent", q: request{"bot", "stripe", credential.Staging, dev, "api.stripe.com:443", "GET", "/"}, allow: true},
	}
	p := parsed(t, town)
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			d := p.Decide(test.q)
			if d.Allow != test.allow || !strings.HasSuffix(d.Rule, test.rule) || !strings.Contains(d.Reason, test.reason) || !strings.Contains(d.Fix, test.fix) {
				t.Errorf("got %+v", d)
			}
			if d.Allow && d.Fix != "" || !d.Allow && d.Reason == "" {
				t.Errorf("got %+v", d)
			}
		})
	}
	if d := p.Decide(request{"bot", "anthropic", unmarked, unmarked, "api.anthropic.com:443", "POST", "/v1/x"}); d.Rule != "policy.yaml: agents.bot.grants[0]" || !d.Durable || d.OwnKeys {
		t.Errorf("got %+v", d)
	}
	if d := p.Decide(request{"bot", "anthropic", unmarked, unmarked, "api.anthropic.com:443", "GET", "/v1/models"}); d.Durable || !d.OwnKeys {
		t.Errorf("got %+v", d)
	}
	if d := (&policy.Policy{}).Decide(request{Agent: "bot"}); d.Allow {
		t.Error("the zero policy allows")
	}
}

func TestPaths(t *testing.T) {
	tests := []struct {
		pattern, path string
		want          bool
	}{
		{"/", "/", true}, {"/", "/x", false}, {"/*", "/", true}, {"/*", "/a/b", true},
		{"/v1", "/v1", true}, {"/v1", "/v1/", false}, {"/v1/", "/v1/", true}, {"/v1/", "/v1", false}, {"/v1", "/V1", false},
		{"/v1/*", "/v1/", true}, {"/v1/*", "/v1/a/b", true}, {"/v1/*", "/v1", false}, {"/v1/*", "/v10/a", false},
		{"/*/x", "/a/x", true}, {"/*/x", "//x", false}, {"/*/x", "/a/b/x", false}, {"/*/x/*", "/a/x/y/z", true}, {"/*/x/*", "/a/x", false},
		{"/v1/*", "", false}, {"/v1/*", "v1/a", false},
	}
	for _, test := range tests {
		p := parsed(t, "agents: {a: {grants: [{credential: c, hosts: [h.example], paths: [\""+test.pattern+"\"]}]}}\n")
		if d := p.Decide(policy.Request{Agent: "a", Credential: "c", Host: "h.example:443", Method: "GET", Path: test.path}); d.Allow != test.want {
			t.Errorf("%s %s: got %v", test.pattern, test.path, d.Allow)
		}
	}
}

func TestEgress(t *testing.T) {
	tests := []struct {
		name, agent, host   string
		allow, named, local bool
		mode                policy.Mode
		rule, fix           string
	}{
		{name: "open", agent: "bot", host: "news.example:443", allow: true, mode: policy.Open, rule: "bot.egress"},
		{name: "any port", agent: "bot", host: "news.example:22", allow: true, mode: policy.Open},
		{name: "named by a grant", agent: "bot", host: "api.stripe.com:443", allow: true, named: true, mode: policy.Open, rule: "grants[2]"},
		{name: "named by a domain", agent: "bot", host: "x.pay.example:443", allow: true, named: true, mode: policy.Open, rule: "grants[3]"},
		{name: "not named at another port", agent: "bot", host: "api.stripe.com:80", allow: true, mode: policy.Open, rule: "egress"},
		{name: "denied", agent: "bot", host: "pastebin.example:443", mode: policy.Open, rule: "deny[0]", fix: "postern policy allow --agent bot --host pastebin.example"},
		{name: "denied at every port", agent: "bot", host: "pastebin.example:80", mode: policy.Open, rule: "deny[0]", fix: "pastebin.example:80"},
		{name: "denied below", agent: "bot", host: "a.evil.example:443", mode: policy.Open, rule: "deny[1]"},
		{name: "denied at one port", agent: "bot", host: "files.example:8080", mode: policy.Open, rule: "deny[2]"},
		{name: "not at the other", agent: "bot", host: "files.example:443", allow: true, mode: policy.Open},
		{name: "local", agent: "bot", host: "127.0.0.1:5432", allow: true, local: true, mode: policy.Open, rule: "tcp[0]"},
		{name: "local by IPv6", agent: "bot", host: "[::1]:6379", allow: true, local: true, mode: policy.Open, rule: "tcp[1]"},
		{name: "local by name", agent: "bot", host: "db.corp:5432", allow: true, local: true, mode: policy.Open, rule: "tcp[2]"},
		{name: "closed", agent: "shut", host: "news.example:443", mode: policy.Closed, rule: "shut.egress", fix: "--agent shut --host news.example"},
		{name: "closed, allowed", agent: "shut", host: "registry.example:443", allow: true, mode: policy.Closed, rule: "hosts[0]"},
		{name: "closed, allowed below", agent: "shut", host: "a.cdn.example:443", allow: true, mode: policy.Closed, rule: "hosts[1]"},
		{name: "closed, named", agent: "shut", host: "api.stripe.com:443", allow: true, named: true, mode: policy.Closed},
		{name: "closed where nothing is said", agent: "quiet", host: "news.example:443", mode: policy.Closed},
		{name: "inspect", agent: "big", host: "news.example:443", allow: true, mode: policy.Inspect},
		{name: "no such agent", agent: "stranger", host: "news.example:443", mode: policy.Closed, fix: "--agent stranger"},
	}
	p := parsed(t, town)
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			d := p.Egress(test.agent, test.host)
			if d.Allow != test.allow || d.Named != test.named || d.Local != test.local || d.Mode != test.mode ||
				!strings.HasSuffix(d.Rule, test.rule) || !strings.Contains(d.Fix, test.fix) || d.Reason == "" {
				t.Errorf("got %+v", d)
			}
		})
	}
	if d := p.Egress("bot", "a.evil.example:443"); d.Fix != "" {
		t.Errorf("a command that cannot work is shown: %s", d.Fix)
	}
}

func TestDenyStandsAboveGrants(t *testing.T) {
	p := parsed(t, `agents: {a: {egress: open, grants: [{credential: c, hosts: [h.example]}], tcp: ["h.example:5"], deny: [h.example]}}`)
	if d := p.Decide(policy.Request{Agent: "a", Credential: "c", Host: "h.example:443", Method: "GET", Path: "/"}); d.Allow || d.Fix == "" {
		t.Errorf("got %+v", d)
	}
	for _, host := range []string{"h.example:443", "h.example:5"} {
		if d := p.Egress("a", host); d.Allow {
			t.Errorf("got %+v", d)
		}
	}
}

func TestAllowingAllocatesNothing(t *testing.T) {
	p := parsed(t, town)
	q := policy.Request{Agent: "bot", Credential: "anthropic", Host: "api.anthropic.com:443", Method: "POST", Path: "/v1/messages"}
	if n := testing.AllocsPerRun(100, func() { p.Decide(q) }); n != 0 {
		t.Errorf("Decide allocates %v times", n)
	}
	for _, host := range []string{"api.anthropic.com:443", "x.pay.example:443", "news.example:443", "127.0.0.1:5432"} {
		if n := testing.AllocsPerRun(100, func() { p.Egress("bot", host) }); n != 0 {
			t.Errorf("Egress of %s allocates %v times", host, n)
		}
	}
}

func TestDestination(t *testing.T) {
	for in, want := range map[string]string{"API.example": "api.example:443", "a.b:80": "a.b:80", "[::1]:5": "[::1]:5", "1.2.3.4": "1.2.3.4:443", "x.example.": "x.example:443"} {
		if got, ok := policy.Destination(in); !ok || got != want {
			t.Errorf("%s: got %s, %v", in, got, ok)
		}
	}
	for _, in := range []string{"", "*.x", "a b", "https://x.example", "x:0", "0x7f.1", "1.2.3", "a..b", "-a", "é.example"} {
		if got, ok := policy.Destination(in); ok {
			t.Errorf("%s: got %s", in, got)
		}
	}
}

func TestExplain(t *testing.T) {
	p := parsed(t, town)
	e := p.Explain("bot", "api.anthropic.com:443", "GET", "/v1/messages")
	var applies []string
	for _, c := range e.Rules {
		if c.Applies {
			applies = append(applies, c.Rule)
		}
		if c.Why == "" || c.Line == 0 {
			t.Errorf("got %+v", c)
		}
	}
	if got := strings.Join(applies, " "); got != "policy.yaml: agents.bot.egress" || len(e.Rules) != 3+3+5+1 {
		t.Errorf("%s apply of %d", got, len(e.Rules))
	}
	e = p.Explain("bot", "api.anthropic.com:443", "", "")
	if n := len(e.Rules); !e.Rules[6].Applies || !e.Rules[7].Applies || e.Rules[8].Applies || n != 12 {
		t.Errorf("got %+v", e.Rules)
	}
	if e := p.Explain("stranger", "x.example:443", "", ""); e.Egress.Allow || e.Rules == nil {
		t.Errorf("got %+v", e)
	}
}

func BenchmarkDecide(b *testing.B) {
	p := parsed(b, town)
	q := policy.Request{Agent: "bot", Credential: "anthropic", Host: "api.anthropic.com:443", Method: "POST", Path: "/v1/messages"}
	b.ReportAllocs()
	for b.Loop() {
		p.Decide(q)
	}
}

func BenchmarkEgress(b *testing.B) {
	p := parsed(b, town)
	for name, host := range map[string]string{"named": "api.anthropic.com:443", "below": "a.b.pay.example:443", "open": "some.long.name.example:443"} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				p.Egress("bot", host)
			}
		})
	}
}
