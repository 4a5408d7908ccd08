package policy

import (
	"fmt"
	"path/filepath"
	"strings"

	"postern/internal/credential"
	"postern/internal/fail"
	"postern/internal/strictyaml"
)

// checker turns the text of agents into rules and gathers the mistakes.
type checker struct {
	file, base string
	problems   fail.Problems
}

func (c *checker) add(at *strictyaml.Node, hint, format string, args ...any) {
	c.problems = append(c.problems, at.Problem(c.file, fmt.Sprintf(format, args...), hint))
}

func (c *checker) agent(node *strictyaml.Node, text *agentText) (Agent, *rules) {
	a := Agent{
		Name: node.Key, Egress: Closed, Grants: []Grant{}, Line: node.Line,
		Hosts: text.Hosts, Deny: text.Deny, TCP: text.TCP, Unix: text.Unix, Files: text.Files, Publish: text.Publish,
	}
	where := c.base + ": agents." + a.Name
	r := &rules{where: where, grants: map[string][]*rule{}}
	if !credential.ValidName(a.Name) {
		c.add(node, "", "%q is not a name of an agent: small letters, digits, dot, dash and underscore", a.Name)
	}
	if text.Environment != "" {
		var ok bool
		if a.Environment, ok = credential.ParseEnvironment(text.Environment); !ok {
			c.add(node.At("environment"), "", "an environment is dev, staging or prod, not %q", text.Environment)
		}
	}
	switch m := Mode(text.Egress); m {
	case Open, Inspect, Closed:
		a.Egress = m
	case "":
	default:
		c.add(node.At("egress"), "", "an egress is open, inspect or closed, not %q", text.Egress)
	}
	r.environment, r.mode, r.modeRule = a.Environment, a.Egress, where+".egress"
	for i, g := range text.Grants {
		item := node.At("grants").Item(i)
		at := fmt.Sprintf("%s.grants[%d]", where, i)
		grant, rule := c.grant(item, at, g)
		a.Grants = append(a.Grants, grant)
		r.grants[grant.Credential] = append(r.grants[grant.Credential], rule)
		for _, key := range rule.keys {
			r.named.add(key, at)
		}
	}
	for i, host := range text.Hosts {
		c.host(&r.hosts, node.At("hosts").Item(i), fmt.Sprintf("%s.hosts[%d]", where, i), host, 443)
	}
	for i, host := range text.Deny {
		c.host(&r.deny, node.At("deny").Item(i), fmt.Sprintf("%s.deny[%d]", where, i), host, 0)
	}
	for i, address := range text.TCP {
		c.tcp(r, node.At("tcp").Item(i), fmt.Sprintf("%s.tcp[%d]", where, i), address)
	}
	c.paths(node.At("unix"), text.Unix)
	c.paths(node.At("files"), text.Files)
	for i, port := range text.Publish {
		if port < 1 || port > 65535 {
			c.add(node.At("publish").Item(i), "", "a port is a number from 1 to 65535")
		}
	}
	return a, r
}

func (c *checker) grant(node *strictyaml.Node, at string, text grantText) (Grant, *rule) {
	g := Grant{
		Credential: text.Credential, Hosts: text.Hosts, Methods: text.Methods, Paths: text.Paths,
		Durable: text.Durable, OwnKeys: text.OwnKeys == "allow", AnyEnvironment: text.AnyEnvironment, Rule: at, Line: node.Line,
	}
	r := &rule{at: at, methods: g.Methods, durable: g.Durable, ownKeys: g.OwnKeys, anyEnvironment: g.AnyEnvironment}
	if !credential.ValidName(g.Credential) {
		c.add(orSelf(node, "credential"), "postern secret ls", "a grant names one credential of the safe, %q is not a name", g.Credential)
	}
	if len(g.Hosts) == 0 {
		c.add(node, "hosts: [api.example.com]", "a grant names at least one host")
	}
	for i, host := range g.Hosts {
		if key := c.host(&r.hosts, node.At("hosts").Item(i), at, host, 443); key != "" {
			r.keys = append(r.keys, key)
		}
	}
	for i, method := range g.Methods {
		if !validMethod(method) {
			c.add(node.At("methods").Item(i), "", "a method is written in capitals: GET, POST")
		}
	}
	for i, path := range g.Paths {
		p, why := parsePath(path)
		if why != "" {
			c.add(node.At("paths").Item(i), "", "%q: %s", path, why)
		}
		r.paths = append(r.paths, p)
	}
	if text.OwnKeys != "" && text.OwnKeys != "allow" && text.OwnKeys != "refuse" {
		c.add(node.At("own_keys"), "", "own_keys is allow or refuse, not %q", text.OwnKeys)
	}
	return g, r
}

// orSelf is the node of the key where there is one, else n.
func orSelf(n *strictyaml.Node, key string) *strictyaml.Node {
	if child := n.At(key); child != nil {
		return child
	}
	return n
}

func (c *checker) host(into *hostSet, node *strictyaml.Node, at, host string, usual int) string {
	key, why := hostKey(host, usual)
	if why != "" {
		c.add(node, "", "%q: %s", host, why)
		return ""
	}
	into.add(key, at)
	return key
}

func (c *checker) tcp(into *rules, node *strictyaml.Node, at, address string) {
	if why := addressProblem(address); why != "" {
		c.add(node, "", "%q: %s", address, why)
		return
	}
	into.tcp.add(address, at)
}

// addressProblem says why an address of a local service is not one; empty for
// a good one.
func addressProblem(address string) string {
	key, why := hostKey(address, 0)
	switch {
	case why != "":
		return why
	case strings.HasPrefix(key, "."):
		return "a local service is one address, without *"
	case !strings.Contains(key, ":") || strings.HasSuffix(key, "]"):
		return `a local service is an address with its port: "127.0.0.1:5432"`
	}
	return ""
}

func (c *checker) paths(node *strictyaml.Node, paths []string) {
	for i, path := range paths {
		if !plainPath(path) {
			c.add(node.Item(i), "", "%q is not an absolute path in its plain form", path)
		}
	}
}

func plainPath(path string) bool {
	return filepath.IsAbs(path) && filepath.Clean(path) == path && path != "/" && !strings.ContainsAny(path, "\x00\n\r")
}

func validMethod(s string) bool {
	for _, c := range []byte(s) {
		if (c < 'A' || c > 'Z') && c != '-' && c != '_' {
			return false
		}
	}
	return s != "" && len(s) <= 32
}
