package app

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strings"

	"postern/internal/config"
	"postern/internal/credential"
	"postern/internal/fail"
	"postern/internal/policy"
	"postern/internal/setup"
)

// Rule is one line of `postern policy ls`.
type Rule struct {
	Agent   string   `json:"agent"`
	What    string   `json:"what"` // grant, egress, host, deny, tcp, unix, file or publish
	Subject string   `json:"subject"`
	Hosts   []string `json:"hosts"`
	Methods []string `json:"methods"`
	Paths   []string `json:"paths"`
	Line    int      `json:"line,omitempty"`
}

// Rules are the rules in force, in the order of the file.
func (a *App) Rules() ([]Rule, error) {
	rules := []Rule{}
	for _, agent := range a.Policy.Policy().Agents() {
		add := func(what, subject string, line int) *Rule {
			rules = append(rules, Rule{Agent: agent.Name, What: what, Subject: subject, Line: line, Hosts: []string{}, Methods: []string{}, Paths: []string{}})
			return &rules[len(rules)-1]
		}
		add("egress", string(agent.Egress), agent.Line)
		for _, g := range agent.Grants {
			r := add("grant", g.Credential, g.Line)
			r.Hosts, r.Methods, r.Paths = append(r.Hosts, g.Hosts...), append(r.Methods, g.Methods...), append(r.Paths, g.Paths...)
		}
		for what, subjects := range map[string][]string{"host": agent.Hosts, "deny": agent.Deny, "tcp": agent.TCP, "unix": agent.Unix, "file": agent.Files} {
			for _, s := range subjects {
				add(what, s, agent.Line)
			}
		}
		for _, port := range agent.Publish {
			add("publish", fmt.Sprint(port), agent.Line)
		}
	}
	slices.SortStableFunc(rules, func(x, y Rule) int {
		return strings.Compare(x.Agent+"\x00"+order(x.What), y.Agent+"\x00"+order(y.What))
	})
	return rules, nil
}

// order keeps egress and grants in front.
func order(what string) string {
	switch what {
	case "egress":
		return "0"
	case "grant":
		return "1"
	}
	return what
}

// Allow is what a person permits.
type Allow struct {
	Agent, Secret         string
	Hosts, Methods, Paths []string
	TCP, Unix, Files      []string
	Egress                string

	AnyEnvironment, OwnKeys, Durable bool
}

// Allow adds a rule to policy.yaml and says whether anything changed.
func (a *App) Allow(ctx context.Context, o Allow) (bool, error) {
	edit := policy.Edit{Agent: o.Agent, TCP: o.TCP, Unix: o.Unix, Files: o.Files, Egress: policy.Mode(o.Egress)}
	if o.Secret == "" {
		edit.Hosts = o.Hosts
		if len(o.Methods)+len(o.Paths) > 0 {
			return false, fail.New(fail.Invalid, "P-E001", "--method and --path narrow a grant, so they need --secret")
		}
		if len(o.Hosts)+len(o.TCP)+len(o.Unix)+len(o.Files)+len(o.Egress) == 0 {
			return false, fail.New(fail.Invalid, "P-E001", "nothing to allow was named").Hint("postern policy allow --help")
		}
	} else {
		hosts, err := a.hostsFor(ctx, o.Secret, o.Hosts)
		if err != nil {
			return false, err
		}
		edit.Grants = []policy.Grant{{Credential: o.Secret, Hosts: hosts, Methods: o.Methods, Paths: o.Paths, AnyEnvironment: o.AnyEnvironment, OwnKeys: o.OwnKeys, Durable: o.Durable}}
	}
	changed, err := a.changePolicy(ctx, func(current []byte) ([]byte, error) { return policy.Allow(current, edit) })
	if err != nil || o.Secret == "" {
		return changed, err
	}
	_, err = a.hold(ctx, o.Agent, o.Secret)
	return changed, err
}

// hostsFor are the hosts of a grant: those named, which must be the kind's own,
// or all of the kind.
func (a *App) hostsFor(ctx context.Context, name string, hosts []string) ([]string, error) {
	c, err := a.Safe.Get(ctx, name)
	if err != nil {
		return nil, err
	}
	kind, err := a.Catalog.Kind(c.Kind)
	if err != nil {
		return nil, err
	}
	own := append(slices.Clone(kind.Hosts), c.Hosts...)
	if len(hosts) == 0 {
		return own, nil
	}
	for _, host := range hosts {
		if !kind.Allows(host) && !slices.Contains(own, host) {
			return nil, fail.New(fail.Invalid, "P-E019", "a secret of the kind %s never goes to %s", kind.ID, host).
				Because("its hosts are %s", strings.Join(own, ", ")).Hint("postern catalog show %s", kind.ID)
		}
	}
	return hosts, nil
}

// Deny is what a person forbids: the use of a secret, or a host.
type Deny struct{ Agent, Secret, Host string }

// Deny takes a grant away or forbids a host, and says whether anything changed.
func (a *App) Deny(ctx context.Context, o Deny) (bool, error) {
	edit := policy.Edit{Agent: o.Agent}
	if o.Secret != "" {
		edit.Grants = []policy.Grant{{Credential: o.Secret}}
	} else {
		edit.Deny = []string{o.Host}
	}
	return a.changePolicy(ctx, func(current []byte) ([]byte, error) { return policy.Deny(current, edit) })
}

func (a *App) changePolicy(ctx context.Context, edit func([]byte) ([]byte, error)) (bool, error) {
	changed := false
	err := a.editPolicy(ctx, func(current []byte) ([]byte, error) {
		next, err := edit(current)
		changed = string(next) != string(current)
		return next, err
	})
	return changed, err
}

// Question is a call that somebody asks about.
type Question struct{ Agent, Secret, Method, URL string }

// Answer is what the policy says to it.
type Answer struct {
	Allow  bool     `json:"allow"`
	Rule   string   `json:"rule"`
	Reason string   `json:"reason,omitempty"`
	Fix    string   `json:"fix,omitempty"`
	Steps  []string `json:"steps"` // every rule that was looked at
}

// Ask puts a question to the policy in force.
func (a *App) Ask(ctx context.Context, q Question) (Answer, error) {
	u, err := url.Parse(q.URL)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return Answer{}, fail.New(fail.Invalid, "P-E001", "%q is no address of a call", q.URL).Hint("postern policy test GET https://api.example.com/v1/x")
	}
	host := u.Host
	if u.Scheme == "http" && u.Port() == "" {
		host += ":80"
	}
	hostport, ok := policy.Destination(host)
	if !ok {
		return Answer{}, fail.New(fail.Invalid, "P-E001", "%q is no host name in its plain form", u.Host)
	}
	path := u.EscapedPath()
	if path == "" {
		path = "/"
	}
	p := a.Policy.Policy()
	answer := Answer{Steps: []string{}}
	for _, c := range p.Explain(q.Agent, hostport, q.Method, path).Rules {
		if c.Credential == "" || q.Secret == "" || c.Credential == q.Secret {
			answer.Steps = append(answer.Steps, c.Rule+": "+c.Why)
		}
	}
	if q.Secret == "" {
		d := p.Egress(q.Agent, hostport)
		answer.Allow, answer.Rule, answer.Reason, answer.Fix = d.Allow, d.Rule, d.Reason, d.Fix
		return answer, nil
	}
	request := policy.Request{Agent: q.Agent, Credential: q.Secret, Host: hostport, Method: q.Method, Path: path}
	if request.CredentialEnvironment, request.AgentEnvironment, err = a.environments(ctx, q.Secret, q.Agent); err != nil {
		return answer, err
	}
	d := p.Decide(request)
	answer.Allow, answer.Rule, answer.Reason, answer.Fix = d.Allow, d.Rule, d.Reason, d.Fix
	return answer, nil
}

func (a *App) environments(ctx context.Context, name, agent string) (ofSecret, ofAgent credential.Environment, err error) {
	c, err := a.Safe.Get(ctx, name)
	if err != nil {
		return "", "", err
	}
	who, err := a.Agents.Get(ctx, agent)
	return c.Environment, who.Environment, err
}

// CheckPolicy reads a policy file, by default the one in use, and says what
// stands in it.
func CheckPolicy(o Options, file string) (string, error) {
	if file == "" {
		paths, err := config.Locate(o.Getenv)
		if err != nil {
			return "", err
		}
		file = paths.PolicyFile()
	}
	p, err := policy.Load(file)
	if os.IsNotExist(err) {
		return "", fail.New(fail.NotFound, "P-E020", "there is no policy at %s", file).Hint("postern setup")
	}
	if err != nil {
		return "", err
	}
	grants := 0
	for _, agent := range p.Agents() {
		grants += len(agent.Grants)
	}
	return fmt.Sprintf("%s: %d agents, %d grants, no mistake", file, len(p.Agents()), grants), nil
}

func (a *App) egressOf(agent string) string {
	of, found := a.Policy.Policy().Agent(agent)
	if !found {
		return string(policy.Closed)
	}
	return string(of.Egress)
}

// granter writes what a setup grants into policy.yaml.
type granter struct{ path string }

func (a *App) granter() granter { return granter{a.Paths.PolicyFile()} }

// Path is where the policy stands.
func (g granter) Path() string { return g.path }

// WithGrants is the policy with the grants in it.
func (g granter) WithGrants(current []byte, want setup.Grants) ([]byte, error) {
	edit := policy.Edit{Agent: want.Agent, Egress: policy.Mode(want.Egress), TCP: want.TCP, Unix: want.Unix, Publish: want.Publish}
	for _, one := range want.Credentials {
		edit.Grants = append(edit.Grants, policy.Grant{Credential: one.Credential, Hosts: one.Hosts})
	}
	return policy.AddGrants(current, edit)
}
