package policy

import (
	"slices"
	"strings"

	"postern/internal/credential"
)

// Request is one use that an agent asks for.
type Request struct {
	Agent                 string
	Credential            string
	CredentialEnvironment credential.Environment
	AgentEnvironment      credential.Environment // counts where the file does not say one
	Host                  string                 // "name:port"
	Method                string
	Path                  string // canonical, without query
}

// Decision is the answer for one use.
type Decision struct {
	Allow   bool   `json:"allow"`
	Rule    string `json:"rule"`   // the rule that decided
	Reason  string `json:"reason"` // for people
	Fix     string `json:"fix,omitempty"`
	Durable bool   `json:"durable,omitempty"`
	OwnKeys bool   `json:"own_keys,omitempty"`
}

// EgressDecision is the answer for one destination.
type EgressDecision struct {
	Allow  bool   `json:"allow"`
	Mode   Mode   `json:"mode"`
	Named  bool   `json:"named,omitempty"` // a grant of the agent names it
	Local  bool   `json:"local,omitempty"` // a service of the host, carried without inspection
	Rule   string `json:"rule"`
	Reason string `json:"reason"`
	Fix    string `json:"fix,omitempty"`
}

// rules are one agent's, prepared for deciding.
type rules struct {
	where       string // "policy.yaml: agents.bot"
	environment credential.Environment
	mode        Mode
	modeRule    string
	grants      map[string][]*rule // by credential, in the order of the file
	named       hostSet            // hosts of all grants
	hosts       hostSet
	deny        hostSet
	tcp         hostSet
}

// rule is one grant.
type rule struct {
	at             string
	keys           []string
	hosts          hostSet
	methods        []string
	paths          []pathPattern
	durable        bool
	ownKeys        bool
	anyEnvironment bool
}

// Decide says whether the agent may use the credential for the request. It
// allocates nothing where it allows. Grants add up: Rule is the first that
// allows, Durable and OwnKeys hold where any of those that allow says so. A prod
// credential goes only to an agent of prod, or where a grant says
// any_environment; all others go to every agent that has a grant.
func (p *Policy) Decide(q Request) Decision {
	r := p.rules[q.Agent]
	if r == nil {
		return Decision{Reason: "the policy does not name the agent " + q.Agent, Fix: fixGrant(q, false, false)}
	}
	if at, denied := r.denied(q.Host); denied {
		return Decision{Rule: at, Reason: "the host is denied to the agent", Fix: r.fixDenied(q)}
	}
	var d Decision
	furthest, nearest := missCredential, (*rule)(nil)
	for _, g := range r.grants[q.Credential] {
		m := g.miss(&q, r)
		if m == missNothing {
			if !d.Allow {
				d = Decision{Allow: true, Rule: g.at, Reason: "granted"}
			}
			d.Durable, d.OwnKeys = d.Durable || g.durable, d.OwnKeys || g.ownKeys
		}
		if m > furthest {
			furthest, nearest = m, g
		}
	}
	if d.Allow {
		return d
	}
	return r.refuse(q, furthest, nearest)
}

// miss says how near a grant comes to a request; a larger one is nearer.
type miss int

const (
	missCredential miss = iota
	missHost
	missMethod
	missPath
	missEnvironment
	missNothing
)

func (g *rule) miss(q *Request, r *rules) miss {
	if _, ok := g.hosts.find(q.Host); !ok {
		return missHost
	}
	if len(g.methods) > 0 && !slices.Contains(g.methods, q.Method) {
		return missMethod
	}
	if len(g.paths) > 0 && !g.matchesPath(q.Path) {
		return missPath
	}
	if q.CredentialEnvironment == credential.Prod && !g.anyEnvironment && r.environmentOf(q) != credential.Prod {
		return missEnvironment
	}
	return missNothing
}

func (g *rule) matchesPath(path string) bool {
	for i := range g.paths {
		if g.paths[i].match(path) {
			return true
		}
	}
	return false
}

func (r *rules) environmentOf(q *Request) credential.Environment {
	if r.environment != "" {
		return r.environment
	}
	return q.AgentEnvironment
}

func (r *rules) denied(hostport string) (string, bool) {
	if at, ok := r.deny.find(hostport); ok {
		return at, true
	}
	if i := strings.LastIndexByte(hostport, ':'); i >= 0 {
		return r.deny.find(hostport[:i])
	}
	return "", false
}

func (r *rules) refuse(q Request, m miss, nearest *rule) Decision {
	d := Decision{Rule: r.where + ".grants"}
	if nearest != nil {
		d.Rule = nearest.at
	}
	switch m {
	case missCredential:
		d.Reason, d.Fix = "no grant lends "+q.Credential+" to "+q.Agent, fixGrant(q, false, false)
	case missHost:
		d.Reason, d.Fix = "no grant lets "+q.Agent+" use "+q.Credential+" at "+short(q.Host), fixGrant(q, false, false)
	case missMethod:
		d.Reason, d.Fix = "the grant does not have the method "+q.Method, fixGrant(q, true, false)
	case missPath:
		d.Reason, d.Fix = "the grant does not have the path "+q.Path, fixGrant(q, true, false)
	case missEnvironment:
		is := "is not marked as one"
		if env := r.environmentOf(&q); env != "" {
			is = "is of " + string(env)
		}
		d.Reason = q.Credential + " is a credential of prod, and the agent " + is
		d.Fix = fixGrant(q, len(nearest.methods)+len(nearest.paths) > 0, true)
	}
	return d
}

// Egress says whether the agent may reach the destination ("name:port",
// canonical). That a name may not lead to a private address is for whoever
// dials it.
func (p *Policy) Egress(agent, hostport string) EgressDecision {
	r := p.rules[agent]
	if r == nil {
		return EgressDecision{Mode: Closed, Reason: "the policy does not name the agent " + agent, Fix: fixHost(agent, hostport)}
	}
	if at, denied := r.denied(hostport); denied {
		return EgressDecision{Mode: r.mode, Rule: at, Reason: "the host is denied to the agent", Fix: r.fixDenied(Request{Agent: agent, Host: hostport})}
	}
	if at, ok := r.tcp.find(hostport); ok {
		return EgressDecision{Allow: true, Mode: r.mode, Local: true, Rule: at, Reason: "a local service that is granted"}
	}
	if at, ok := r.named.find(hostport); ok {
		return EgressDecision{Allow: true, Mode: r.mode, Named: true, Rule: at, Reason: "a grant names the host"}
	}
	if r.mode != Closed {
		return EgressDecision{Allow: true, Mode: r.mode, Rule: r.modeRule, Reason: "the agent may reach any public host"}
	}
	if at, ok := r.hosts.find(hostport); ok {
		return EgressDecision{Allow: true, Mode: r.mode, Rule: at, Reason: "the host is allowed"}
	}
	return EgressDecision{Mode: r.mode, Rule: r.modeRule, Reason: "the agent is closed, and no rule names the host", Fix: fixHost(agent, hostport)}
}

// short leaves the usual port out.
func short(hostport string) string { return strings.TrimSuffix(hostport, ":443") }

func fixGrant(q Request, narrow, anyEnvironment bool) string {
	fix := "postern policy allow --agent " + q.Agent + " --secret " + q.Credential + " --host " + short(q.Host)
	if narrow {
		if !validMethod(q.Method) || !printable(q.Path) {
			return ""
		}
		if _, why := parsePath(q.Path); why != "" || strings.Contains(q.Path, "*") {
			return ""
		}
		fix += " --method " + q.Method + " --path " + quoted(q.Path)
	}
	if anyEnvironment {
		fix += " --any-environment"
	}
	return fix
}

func fixHost(agent, hostport string) string {
	return "postern policy allow --agent " + agent + " --host " + short(hostport)
}

// fixDenied is empty where more than the host itself is denied: that is for a
// person to decide.
func (r *rules) fixDenied(q Request) string {
	name := q.Host
	if i := strings.LastIndexByte(q.Host, ':'); i >= 0 {
		name = q.Host[:i]
	}
	if _, wild := (&hostSet{below: r.deny.below}).find(q.Host); wild {
		return ""
	}
	if _, wild := (&hostSet{below: r.deny.below}).find(name); wild {
		return ""
	}
	if q.Credential == "" {
		return fixHost(q.Agent, q.Host)
	}
	return fixGrant(q, false, false)
}

func printable(s string) bool {
	for _, c := range []byte(s) {
		if c < 0x20 || c > 0x7e {
			return false
		}
	}
	return true
}

// quoted writes s so that a shell takes it as one word.
func quoted(s string) string {
	const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-:@%+=,"
	if strings.Trim(s, plain) == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
