package policy

import (
	"bytes"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"postern/internal/fail"
	"postern/internal/strictyaml"
)

// session is one edit: the text as far as it has come, and what it must mean
// in the end. After the first error the steps leave the text alone.
type session struct {
	data []byte
	want document
	err  error
}

// edit runs the steps and proves that the text means what they wanted, no more
// and no less.
func edit(current []byte, e Edit, steps func(*session) error) ([]byte, error) {
	if err := e.check(); err != nil {
		return nil, err
	}
	before, err := Parse("policy.yaml", current)
	if err != nil {
		return nil, err
	}
	s := &session{data: current, want: before.doc.clone()}
	if len(bytes.TrimSpace(current)) == 0 {
		s.data = append(bytes.Clone(current), header...)
	}
	if err := steps(s); err != nil {
		return nil, err
	}
	switch {
	case s.err != nil:
		return nil, byHand(s.err)
	case reflect.DeepEqual(s.want.normal(), before.doc.normal()):
		return current, nil
	}
	after, err := Parse("policy.yaml", s.data)
	if err != nil {
		return nil, byHand(err)
	}
	if !reflect.DeepEqual(after.doc.normal(), s.want.normal()) {
		return nil, byHand(strictyaml.ErrForm)
	}
	return s.data, nil
}

func byHand(err error) error {
	return fail.New(fail.Conflict, "P-E093", "could not edit the policy by itself").Wrap(err).
		Hint("postern policy check   after the change was made in policy.yaml by hand")
}

// change makes one change at the node that keys lead to; a string key is one of
// a mapping.
func (s *session) change(make func(*strictyaml.Node) ([]byte, error), keys ...string) {
	if s.err != nil {
		return
	}
	root, err := strictyaml.Outline("policy.yaml", s.data)
	if err != nil {
		s.err = err
		return
	}
	node := root.At(keys...)
	if node == nil {
		s.err = strictyaml.ErrForm
		return
	}
	var next []byte
	if next, s.err = make(node); s.err == nil {
		s.data = next
	}
}

// has says whether the text has the key at all.
func (s *session) has(keys ...string) bool {
	root, err := strictyaml.Outline("policy.yaml", s.data)
	return err == nil && root.At(keys...) != nil
}

func (s *session) agent(name string) *agentText { return s.want.Agents[name] }

// ensure makes sure that the agent is there.
func (s *session) ensure(name string) *agentText {
	if have := s.agent(name); have != nil {
		return have
	}
	if !s.has("agents") {
		s.change(func(n *strictyaml.Node) ([]byte, error) { return n.AddKey("agents", "{}") })
	}
	s.change(func(n *strictyaml.Node) ([]byte, error) { return n.AddKey(name, "{}") }, "agents")
	s.want.Agents[name] = &agentText{}
	return s.want.Agents[name]
}

// setScalar sets environment or egress; an empty value says nothing.
func (s *session) setScalar(agent, key, value string) {
	field := &s.agent(agent).Egress
	if key == "environment" {
		field = &s.agent(agent).Environment
	}
	if value == "" || *field == value {
		return
	}
	*field = value
	s.set(key, value, "agents", agent)
}

// set gives the key of the mapping at keys a value.
func (s *session) set(key, value string, keys ...string) {
	if s.has(append(slices.Clone(keys), key)...) {
		s.change(func(n *strictyaml.Node) ([]byte, error) { return n.SetScalar(value) }, append(keys, key)...)
		return
	}
	s.change(func(n *strictyaml.Node) ([]byte, error) { return n.AddKey(key, value) }, keys...)
}

// addGrant adds what no grant covers yet, as one grant.
func (s *session) addGrant(agent string, g Grant, covered func(grantText, string) bool) {
	have := s.agent(agent)
	t := grantText{Credential: g.Credential, Methods: g.Methods, Paths: g.Paths, Durable: g.Durable, AnyEnvironment: g.AnyEnvironment}
	if g.OwnKeys {
		t.OwnKeys = "allow"
	}
	for _, host := range g.Hosts {
		granted := slices.ContainsFunc(have.Grants, func(one grantText) bool { return covered(one, host) })
		if !granted && !names(t.Hosts, host) {
			t.Hosts = append(t.Hosts, host)
		}
	}
	if len(t.Hosts) == 0 {
		return
	}
	if !s.has("agents", agent, "grants") {
		s.change(func(n *strictyaml.Node) ([]byte, error) { return n.AddKey("grants", "[]") }, "agents", agent)
	}
	s.change(func(n *strictyaml.Node) ([]byte, error) { return n.AddItem(t.line()) }, "agents", agent, "grants")
	have.Grants = append(have.Grants, t)
}

// line writes a grant as one line.
func (t grantText) line() string {
	parts := []string{"credential: " + strictyaml.Quote(t.Credential), "hosts: " + listed(t.Hosts)}
	if len(t.Methods) > 0 {
		parts = append(parts, "methods: "+listed(t.Methods))
	}
	if len(t.Paths) > 0 {
		parts = append(parts, "paths: "+listed(t.Paths))
	}
	if t.Durable {
		parts = append(parts, "durable: true")
	}
	if t.OwnKeys != "" {
		parts = append(parts, "own_keys: "+t.OwnKeys)
	}
	if t.AnyEnvironment {
		parts = append(parts, "any_environment: true")
	}
	return "{" + strings.Join(parts, ", ") + "}"
}

func listed(texts []string) string {
	quoted := make([]string, len(texts))
	for i, text := range texts {
		quoted[i] = strictyaml.Quote(text)
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}

// revoke takes a credential away from the agent, at the hosts of g or at all.
func (s *session) revoke(agent string, g Grant) error {
	have := s.agent(agent)
	for i, t := range slices.Backward(have.Grants) {
		if t.Credential != g.Credential {
			continue
		}
		left := slices.DeleteFunc(slices.Clone(t.Hosts), func(host string) bool {
			return len(g.Hosts) == 0 || slices.ContainsFunc(g.Hosts, func(gone string) bool { return sameHost(443)(host, gone) })
		})
		for _, gone := range g.Hosts {
			if names(left, gone) {
				return fail.New(fail.Conflict, "P-E094", "could not take %s away from %s at %s alone", g.Credential, agent, gone).
					Because("agents.%s.grants[%d] grants a whole domain", agent, i).
					Hint("postern policy deny --agent %s --host %s", agent, gone).
					Hint("postern policy deny --agent %s --secret %s", agent, g.Credential)
			}
		}
		if len(left) == 0 {
			s.changeGrant(agent, i, (*strictyaml.Node).Remove)
			have.Grants = slices.Delete(have.Grants, i, i+1)
			continue
		}
		for at, host := range slices.Backward(t.Hosts) {
			if !slices.Contains(left, host) {
				s.changeGrant(agent, i, func(n *strictyaml.Node) ([]byte, error) { return n.At("hosts").Item(at).Remove() })
			}
		}
		have.Grants[i].Hosts = left
	}
	return nil
}

func (s *session) changeGrant(agent string, i int, make func(*strictyaml.Node) ([]byte, error)) {
	s.change(func(n *strictyaml.Node) ([]byte, error) {
		if n = n.Item(i); n == nil {
			return nil, strictyaml.ErrForm
		}
		return make(n)
	}, "agents", agent, "grants")
}

// addLists adds what the lists of an edit name.
func (s *session) addLists(e Edit) {
	have := s.agent(e.Agent)
	for _, host := range e.Hosts {
		addItem(s, e.Agent, "hosts", &have.Hosts, host, sameHost(443))
	}
	for _, host := range e.Deny {
		addItem(s, e.Agent, "deny", &have.Deny, host, sameHost(0))
	}
	for _, address := range e.TCP {
		addItem(s, e.Agent, "tcp", &have.TCP, address, sameHost(0))
	}
	for _, path := range e.Unix {
		addItem(s, e.Agent, "unix", &have.Unix, path, same)
	}
	for _, path := range e.Files {
		addItem(s, e.Agent, "files", &have.Files, path, same)
	}
	for _, port := range e.Publish {
		addItem(s, e.Agent, "publish", &have.Publish, port, same)
	}
}

func addItem[T string | int](s *session, agent, key string, list *[]T, item T, same func(a, b T) bool) {
	if slices.ContainsFunc(*list, func(one T) bool { return same(one, item) }) {
		return
	}
	*list = append(*list, item)
	if !s.has("agents", agent, key) {
		s.change(func(n *strictyaml.Node) ([]byte, error) { return n.AddKey(key, "["+literal(item)+"]") }, "agents", agent)
		return
	}
	s.change(func(n *strictyaml.Node) ([]byte, error) { return n.AddItem(literal(item)) }, "agents", agent, key)
}

func dropItem[T string | int](s *session, agent, key string, list *[]T, item T, same func(a, b T) bool) {
	for i, one := range slices.Backward(*list) {
		if same(one, item) {
			*list = slices.Delete(*list, i, i+1)
			s.change(func(n *strictyaml.Node) ([]byte, error) {
				if n = n.Item(i); n == nil {
					return nil, strictyaml.ErrForm
				}
				return n.Remove()
			}, "agents", agent, key)
		}
	}
}

func literal[T string | int](item T) string {
	switch item := any(item).(type) {
	case int:
		return strconv.Itoa(item)
	case string:
		return strictyaml.Quote(item)
	}
	return ""
}

func same[T string | int](a, b T) bool { return a == b }

// sameHost compares two hosts as they are read with the usual port.
func sameHost(usual int) func(a, b string) bool {
	return func(a, b string) bool {
		first, _ := hostKey(a, usual)
		second, _ := hostKey(b, usual)
		return first == second
	}
}

// undeny takes out the entries of deny that are the host itself.
func (s *session) undeny(agent, host string) {
	whole, _ := hostKey(host, 443)
	name := whole[:max(strings.LastIndexByte(whole, ':'), 0)]
	have := s.agent(agent)
	for _, key := range []string{whole, name} {
		dropItem(s, agent, "deny", &have.Deny, key, func(one, key string) bool {
			denied, _ := hostKey(one, 0)
			return denied == key
		})
	}
}

// stillDenied is the error for a host that e allows and deny refuses.
func (s *session) stillDenied(e Edit) error {
	var denied hostSet
	for i, host := range s.agent(e.Agent).Deny {
		key, _ := hostKey(host, 0)
		denied.add(key, "agents."+e.Agent+".deny["+strconv.Itoa(i)+"]")
	}
	hosts := slices.Concat(e.Hosts, e.TCP)
	for _, g := range e.Grants {
		hosts = append(hosts, g.Hosts...)
	}
	r := &rules{deny: denied}
	for _, host := range hosts {
		key, _ := hostKey(host, 443)
		if strings.HasPrefix(key, ".") {
			key = "any" + key
		}
		if at, still := r.denied(key); still {
			return fail.New(fail.Conflict, "P-E095", "could not allow %s for %s", host, e.Agent).
				Because("%s denies it, and more besides", at).
				Hint("postern policy check   after the entry was taken out of policy.yaml by hand")
		}
	}
	return nil
}

// names says whether one of hosts is or contains host.
func names(hosts []string, host string) bool {
	var set hostSet
	for _, one := range hosts {
		if key, why := hostKey(one, 443); why == "" {
			set.add(key, one)
		}
	}
	key, _ := hostKey(host, 443)
	if _, same := set.below[key]; same {
		return true
	}
	_, found := set.find(key)
	return found
}

// covers says whether the grant t gives all that g asks for at the host.
func covers(t grantText, g Grant, host string) bool {
	within := func(have, want []string) bool {
		return len(have) == 0 || len(want) > 0 && !slices.ContainsFunc(want, func(s string) bool { return !slices.Contains(have, s) })
	}
	return t.Credential == g.Credential && names(t.Hosts, host) && within(t.Methods, g.Methods) && within(t.Paths, g.Paths) &&
		(t.Durable || !g.Durable) && (t.OwnKeys == "allow" || !g.OwnKeys) && (t.AnyEnvironment || !g.AnyEnvironment)
}

// clone copies a document as deep as edits reach. An agent of which nothing is
// said is one.
func (d document) clone() document {
	c := document{Agents: map[string]*agentText{}}
	for name, a := range d.Agents {
		if a == nil {
			a = &agentText{}
		}
		one := *a
		one.Grants = slices.Clone(a.Grants)
		one.Hosts, one.Deny, one.TCP = slices.Clone(a.Hosts), slices.Clone(a.Deny), slices.Clone(a.TCP)
		one.Unix, one.Files, one.Publish = slices.Clone(a.Unix), slices.Clone(a.Files), slices.Clone(a.Publish)
		c.Agents[name] = &one
	}
	return c
}

// normal is the document without the difference between nothing and empty.
func (d document) normal() document {
	c := d.clone()
	for _, a := range c.Agents {
		for i, g := range a.Grants {
			a.Grants[i].Hosts, a.Grants[i].Methods, a.Grants[i].Paths = some(g.Hosts), some(g.Methods), some(g.Paths)
		}
		a.Grants, a.Hosts, a.Deny, a.TCP = some(a.Grants), some(a.Hosts), some(a.Deny), some(a.TCP)
		a.Unix, a.Files, a.Publish = some(a.Unix), some(a.Files), some(a.Publish)
	}
	return c
}

func some[T any](list []T) []T {
	if len(list) == 0 {
		return nil
	}
	return list
}
