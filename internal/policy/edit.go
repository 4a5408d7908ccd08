package policy

import (
	"slices"
	"strconv"

	"postern/internal/credential"
	"postern/internal/fail"
	"postern/internal/strictyaml"
)

// Edit is what a command wants to be so. Empty fields say nothing.
type Edit struct {
	Agent       string
	Environment credential.Environment
	Egress      Mode
	Grants      []Grant
	Hosts       []string
	Deny        []string
	TCP         []string
	Unix        []string
	Files       []string
	Publish     []int
}

const header = `# Who may use what. After a change: postern policy check
`

// AddGrants gives the text with what e asks for, made from current (nil where
// there is no file). It is for setup: a credential that the agent may already
// use at a host stays as narrow as somebody made it, and an egress or an
// environment that is said stays. Everything else in the text stays byte for
// byte; where nothing is missing, current itself comes back. Grants without
// hosts are left out.
func AddGrants(current []byte, e Edit) ([]byte, error) {
	return edit(current, e, func(s *session) error {
		have := s.ensure(e.Agent)
		if have.Environment == "" {
			s.setScalar(e.Agent, "environment", string(e.Environment))
		}
		if have.Egress == "" {
			s.setScalar(e.Agent, "egress", string(e.Egress))
		}
		for _, g := range e.Grants {
			s.addGrant(e.Agent, g, func(t grantText, host string) bool {
				return t.Credential == g.Credential && names(t.Hosts, host)
			})
		}
		s.addLists(e)
		return nil
	})
}

// Allow gives the text with what a person permits. An egress and an environment
// are replaced, an exact entry in deny that stands against a host is taken out;
// where another rule still refuses it, the edit fails and names that rule.
func Allow(current []byte, e Edit) ([]byte, error) {
	return edit(current, e, func(s *session) error {
		s.ensure(e.Agent)
		s.setScalar(e.Agent, "environment", string(e.Environment))
		s.setScalar(e.Agent, "egress", string(e.Egress))
		for _, g := range e.Grants {
			for _, host := range g.Hosts {
				s.undeny(e.Agent, host)
			}
			s.addGrant(e.Agent, g, func(t grantText, host string) bool { return covers(t, g, host) })
		}
		for _, host := range slices.Concat(e.Hosts, e.TCP) {
			s.undeny(e.Agent, host)
		}
		s.addLists(e)
		return s.stillDenied(e)
	})
}

// Deny gives the text with what a person forbids. Grants name what is taken
// away: a credential at some hosts, or without hosts altogether. Hosts and Deny
// are denied in every mode; TCP, Unix, Files and Publish are taken out. Egress
// replaces the mode. The agent must be there.
func Deny(current []byte, e Edit) ([]byte, error) {
	return edit(current, e, func(s *session) error {
		if s.agent(e.Agent) == nil {
			return unknownAgent(e.Agent)
		}
		s.setScalar(e.Agent, "egress", string(e.Egress))
		for _, g := range e.Grants {
			if err := s.revoke(e.Agent, g); err != nil {
				return err
			}
		}
		have := s.agent(e.Agent)
		for _, host := range slices.Concat(e.Hosts, e.Deny) {
			addItem(s, e.Agent, "deny", &have.Deny, host, sameHost(0))
		}
		for _, address := range e.TCP {
			dropItem(s, e.Agent, "tcp", &have.TCP, address, sameHost(0))
		}
		for _, path := range e.Unix {
			dropItem(s, e.Agent, "unix", &have.Unix, path, same)
		}
		for _, path := range e.Files {
			dropItem(s, e.Agent, "files", &have.Files, path, same)
		}
		for _, port := range e.Publish {
			dropItem(s, e.Agent, "publish", &have.Publish, port, same)
		}
		return nil
	})
}

// RemoveAgent gives the text without the agent. Where it is not named, current
// comes back.
func RemoveAgent(current []byte, agent string) ([]byte, error) {
	return edit(current, Edit{Agent: agent}, func(s *session) error {
		if s.agent(agent) == nil {
			return nil
		}
		s.change((*strictyaml.Node).Remove, "agents", agent)
		delete(s.want.Agents, agent)
		return nil
	})
}

func unknownAgent(name string) error {
	return fail.New(fail.NotFound, "P-E092", "could not find the agent %s in the policy", name).Hint("postern policy ls")
}

// check refuses an edit that asks for something that is no rule.
func (e Edit) check() error {
	bad := func(what, why string) error {
		return fail.New(fail.Invalid, "P-E091", "could not change the policy").Because("%q: %s", what, why)
	}
	if !credential.ValidName(e.Agent) {
		return bad(e.Agent, "it is not a name of an agent")
	}
	for _, g := range e.Grants {
		if !credential.ValidName(g.Credential) {
			return bad(g.Credential, "it is not a name of a credential")
		}
		for _, method := range g.Methods {
			if !validMethod(method) {
				return bad(method, "a method is written in capitals: GET, POST")
			}
		}
		for _, path := range g.Paths {
			if _, why := parsePath(path); why != "" {
				return bad(path, why)
			}
		}
		for _, host := range g.Hosts {
			if _, why := hostKey(host, 443); why != "" {
				return bad(host, why)
			}
		}
	}
	for _, host := range slices.Concat(e.Hosts, e.Deny) {
		if _, why := hostKey(host, 0); why != "" {
			return bad(host, why)
		}
	}
	for _, address := range e.TCP {
		if why := addressProblem(address); why != "" {
			return bad(address, why)
		}
	}
	for _, path := range slices.Concat(e.Unix, e.Files) {
		if !plainPath(path) {
			return bad(path, "it is not an absolute path in its plain form")
		}
	}
	for _, port := range e.Publish {
		if port < 1 || port > 65535 {
			return bad(strconv.Itoa(port), "a port is a number from 1 to 65535")
		}
	}
	if _, known := credential.ParseEnvironment(string(e.Environment)); !known && e.Environment != "" {
		return bad(string(e.Environment), "an environment is dev, staging or prod")
	}
	switch e.Egress {
	case "", Open, Inspect, Closed:
	default:
		return bad(string(e.Egress), "an egress is open, inspect or closed")
	}
	return nil
}
