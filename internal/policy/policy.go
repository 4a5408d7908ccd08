// Package policy says who may use what, where and how: grants of credentials
// to agents, and the egress of each agent, read from policy.yaml. What no rule
// allows is refused, and a refusal names the command that would permit it.
//
// The file:
//
//	agents:
//	  discord-bot:
//	    environment: prod         # dev, staging or prod
//	    egress: open              # open, inspect or closed; closed where it is not said
//	    grants:
//	      - {credential: anthropic, hosts: [api.anthropic.com], methods: [POST], paths: ["/v1/*"]}
//	    hosts: [example.com]      # names that may be reached in closed mode, without a credential
//	    deny: [pastebin.example]  # names that are refused in every mode, whatever else allows them
//	    tcp: ["127.0.0.1:5432"]   # services of the host, carried without inspection
//	    unix: [/run/postgresql]   # sockets of the host
//	    files: [/home/u/.aws]     # hidden directories that the agent may see
//	    publish: [18789]          # ports of the agent that the host may reach
//
// A grant may also say durable: true (the record of a use is on disk before the
// value leaves), own_keys: allow (the agent may bring keys of its own at these
// hosts) and any_environment: true (a prod credential for an agent that is not).
//
// A host is a name in lower case, which means port 443, or "name:port"; in deny
// a name without a port means every port. A leading "*." stands for one or more
// labels. Methods are in capitals; without any, all are granted. A path begins
// with "/"; a "*" between slashes is one segment that is not empty, "/*" at the
// end everything below; without any path, all are granted. Paths are compared
// with case, without the query.
package policy

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"

	"postern/internal/credential"
	"postern/internal/fail"
	"postern/internal/strictyaml"
)

// MaxBytes bounds the file.
const MaxBytes = 1 << 20

// Mode is how far an agent may reach without a credential.
type Mode string

// The modes.
const (
	Open    Mode = "open"    // any public host by its name, tunnelled
	Inspect Mode = "inspect" // the same, looked into
	Closed  Mode = "closed"  // only hosts that a grant or hosts names
)

// Agent is what the file says of one agent.
type Agent struct {
	Name        string                 `json:"name"`
	Environment credential.Environment `json:"environment,omitempty"`
	Egress      Mode                   `json:"egress"`
	Grants      []Grant                `json:"grants"`
	Hosts       []string               `json:"hosts,omitempty"`
	Deny        []string               `json:"deny,omitempty"`
	TCP         []string               `json:"tcp,omitempty"`
	Unix        []string               `json:"unix,omitempty"`
	Files       []string               `json:"files,omitempty"`
	Publish     []int                  `json:"publish,omitempty"`
	Line        int                    `json:"line"`
}

// Grant lends one credential to one agent. Rule and Line say where it stands;
// they are ignored in edits.
type Grant struct {
	Credential     string   `json:"credential"`
	Hosts          []string `json:"hosts"`
	Methods        []string `json:"methods,omitempty"`
	Paths          []string `json:"paths,omitempty"`
	Durable        bool     `json:"durable,omitempty"`
	OwnKeys        bool     `json:"own_keys,omitempty"`
	AnyEnvironment bool     `json:"any_environment,omitempty"`
	Rule           string   `json:"rule,omitempty"`
	Line           int      `json:"line,omitempty"`
}

// Policy is a file that was read as a whole. It does not change and is safe for
// concurrent use. The zero Policy refuses everything.
type Policy struct {
	agents []Agent
	rules  map[string]*rules
	doc    document
}

// document is the file as it is decoded.
type document struct {
	Agents map[string]*agentText `yaml:"agents"`
}

type agentText struct {
	Environment string      `yaml:"environment"`
	Egress      string      `yaml:"egress"`
	Grants      []grantText `yaml:"grants"`
	Hosts       []string    `yaml:"hosts"`
	Deny        []string    `yaml:"deny"`
	TCP         []string    `yaml:"tcp"`
	Unix        []string    `yaml:"unix"`
	Files       []string    `yaml:"files"`
	Publish     []int       `yaml:"publish"`
}

type grantText struct {
	Credential     string   `yaml:"credential"`
	Hosts          []string `yaml:"hosts"`
	Methods        []string `yaml:"methods"`
	Paths          []string `yaml:"paths"`
	Durable        bool     `yaml:"durable"`
	OwnKeys        string   `yaml:"own_keys"`
	AnyEnvironment bool     `yaml:"any_environment"`
}

// Load reads the policy at path. A file that does not exist is fs.ErrNotExist;
// mistakes in it are fail.Problems.
func Load(path string) (*Policy, error) {
	data, err := read(path)
	if err != nil {
		return nil, err
	}
	return Parse(path, data)
}

// read reads a regular file of bounded size. It never waits for a FIFO.
func read(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, unreadable(path, err)
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, unreadable(path, errors.Join(err, errors.New("it is not an ordinary file")))
	}
	data, err := io.ReadAll(io.LimitReader(f, MaxBytes+1))
	if err != nil {
		return nil, unreadable(path, err)
	}
	return data, nil
}

func unreadable(path string, err error) error {
	return fail.New(fail.Invalid, "P-E090", "could not read the policy %s", path).Wrap(err).
		Hint("ls -l %s", path)
}

// Parse reads data, the content of file. All mistakes come back in one go, as
// fail.Problems with the lines shown.
func Parse(file string, data []byte) (*Policy, error) {
	if len(data) > MaxBytes {
		return nil, fail.Problems{{File: file, Text: fmt.Sprintf("the file is larger than %d bytes", MaxBytes)}}
	}
	root, err := strictyaml.Outline(file, data)
	if err != nil {
		return nil, err
	}
	if odd := indirect(root); odd != nil {
		return nil, fail.Problems{odd.Problem(file, "anchors, aliases, tags and merge keys are not read in a policy", "write the rule out where it counts")}
	}
	var doc document
	if err := strictyaml.Decode(file, data, &doc); err != nil {
		return nil, err
	}
	c := checker{file: file, base: filepath.Base(file)}
	p := &Policy{doc: doc, rules: map[string]*rules{}}
	for _, node := range children(root.At("agents")) {
		text := doc.Agents[node.Key]
		if text == nil {
			text = &agentText{}
		}
		agent, r := c.agent(node, text)
		p.agents = append(p.agents, agent)
		p.rules[agent.Name] = r
	}
	if err := c.problems.Err(); err != nil {
		return nil, err
	}
	return p, nil
}

// indirect finds a part whose text stands somewhere else.
func indirect(n *strictyaml.Node) *strictyaml.Node {
	if n.Kind == strictyaml.Other {
		return n
	}
	for _, child := range n.Children {
		if odd := indirect(child); odd != nil {
			return odd
		}
	}
	return nil
}

func children(n *strictyaml.Node) []*strictyaml.Node {
	if n == nil {
		return nil
	}
	return n.Children
}

// Agents are all agents, in the order of the file.
func (p *Policy) Agents() []Agent { return p.agents }

// Agent is what the file says of the agent; false where it does not name it.
func (p *Policy) Agent(name string) (Agent, bool) {
	for _, a := range p.agents {
		if a.Name == name {
			return a, true
		}
	}
	return Agent{}, false
}
