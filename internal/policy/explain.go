package policy

import (
	"fmt"
	"slices"
)

// Explanation is every rule of an agent that bears on a request, with what each
// says to it.
type Explanation struct {
	Agent  string         `json:"agent"`
	Host   string         `json:"host"` // "name:port"
	Method string         `json:"method,omitempty"`
	Path   string         `json:"path,omitempty"`
	Egress EgressDecision `json:"egress"`
	Rules  []Candidate    `json:"rules"` // in the order in which they count
}

// Candidate is one rule.
type Candidate struct {
	Rule       string `json:"rule"`
	Line       int    `json:"line,omitempty"`
	Credential string `json:"credential,omitempty"` // of a grant
	Applies    bool   `json:"applies"`
	Why        string `json:"why"`
}

// Explain lists the rules of the agent for a request. An empty method or path
// stands for any. Environments are left to Decide, which knows the credential's.
func (p *Policy) Explain(agent, hostport, method, path string) Explanation {
	e := Explanation{Agent: agent, Host: hostport, Method: method, Path: path, Egress: p.Egress(agent, hostport), Rules: []Candidate{}}
	a, known := p.Agent(agent)
	r := p.rules[agent]
	if !known || r == nil {
		return e
	}
	list := func(key string, texts []string, winner string, why string) {
		for i, text := range texts {
			at := fmt.Sprintf("%s.%s[%d]", r.where, key, i)
			c := Candidate{Rule: at, Line: a.Line, Applies: at == winner, Why: fmt.Sprintf("%q is another destination", text)}
			if c.Applies {
				c.Why = fmt.Sprintf("%q %s", text, why)
			}
			e.Rules = append(e.Rules, c)
		}
	}
	denied, _ := r.denied(hostport)
	list("deny", a.Deny, denied, "refuses the host, whatever else allows it")
	local, _ := r.tcp.find(hostport)
	list("tcp", a.TCP, local, "is a local service that is granted")
	for _, g := range a.Grants {
		e.Rules = append(e.Rules, r.candidate(g, Request{Agent: agent, Host: hostport, Method: method, Path: path}))
	}
	allowed, _ := r.hosts.find(hostport)
	list("hosts", a.Hosts, allowed, "may be reached without a credential")
	mode := Candidate{Rule: r.modeRule, Line: a.Line, Applies: r.mode != Closed, Why: "the agent is closed: only hosts that a rule names"}
	if mode.Applies {
		mode.Why = string(r.mode) + ": the agent may reach any public host, without a credential"
	}
	e.Rules = append(e.Rules, mode)
	return e
}

func (r *rules) candidate(g Grant, q Request) Candidate {
	prepared := &rule{}
	for _, one := range r.grants[g.Credential] {
		if one.at == g.Rule {
			prepared = one
		}
	}
	c := Candidate{Rule: g.Rule, Line: g.Line, Credential: g.Credential}
	_, named := prepared.hosts.find(q.Host)
	switch {
	case !named:
		c.Why = fmt.Sprintf("its hosts are %v", g.Hosts)
	case q.Method != "" && len(g.Methods) > 0 && !slices.Contains(g.Methods, q.Method):
		c.Why = fmt.Sprintf("its methods are %v", g.Methods)
	case q.Path != "" && len(g.Paths) > 0 && !prepared.matchesPath(q.Path):
		c.Why = fmt.Sprintf("its paths are %v", g.Paths)
	default:
		c.Applies, c.Why = true, "lends "+g.Credential+" to the request"
	}
	return c
}
