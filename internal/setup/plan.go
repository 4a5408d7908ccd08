package setup

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"postern/internal/catalog"
	"postern/internal/credential"
	"postern/internal/dotenv"
	"postern/internal/fail"
	"postern/internal/secret"
)

// Plan is what Apply would do. It holds no value in any form that prints.
type Plan struct {
	Dir      string `json:"dir"`
	Agent    string `json:"agent"`
	NewAgent bool   `json:"new_agent"`
	// Environment is the agent's, and that of what is new in the safe.
	Environment credential.Environment `json:"environment,omitempty"`
	Secrets     []*Secret              `json:"secrets"`  // what goes into the safe, and what stays real
	Files       []*FilePlan            `json:"files"`    // .env files that change
	Texts       []TextPlan             `json:"texts"`    // .gitignore and .env.example
	Others      []Other                `json:"others"`   // seen, not changed
	Problems    []fail.Problem         `json:"problems"` // what could not be looked at or protected
	Warnings    []fail.Problem         `json:"warnings"`
	Kept        int                    `json:"kept"` // values that are placeholders already

	all      []*FilePlan // with those that need no change while secrets are left
	found    Found
	kinds    Identifier
	grants   Grants // of what is protected already, and ports
	stored   map[string]credential.Credential
	bySum    map[[32]byte]*Secret
	taken    map[string]bool   // names of credentials
	known    map[string]string // fingerprint → name
	holdings map[string]string // placeholder → credential, of this agent
	foreign  map[string]string // placeholder → other agent
}

// Secret is one value that was found, in one or more places.
type Secret struct {
	Name       string   `json:"name"`
	Kind       string   `json:"kind"`
	Title      string   `json:"title"`
	Confidence string   `json:"confidence"`
	Mask       string   `json:"mask"`
	Hosts      []string `json:"hosts"`
	Places     []Place  `json:"places"`
	Stays      bool     `json:"stays_real"`     // the value stays in the file
	Import     bool     `json:"import"`         // the value goes into the safe
	Why        string   `json:"why,omitempty"`  // it stays
	TCP        []string `json:"tcp,omitempty"`  // where a value that stays may be used
	Unix       []string `json:"unix,omitempty"` // the same, sockets
	Known      bool     `json:"known"`          // the safe has the value already
	kind       *catalog.Kind
	value      secret.Value
	digest     [32]byte
}

// Place is where a secret stands.
type Place struct {
	File     string `json:"file"`
	Line     int    `json:"line"`
	Variable string `json:"variable"`
}

// FilePlan is one .env file that changes.
type FilePlan struct {
	Name   string      `json:"name"`
	Values int         `json:"values"` // replaced by placeholders
	Mode   fs.FileMode `json:"mode"`   // as it is now
	Tight  fs.FileMode `json:"tight"`  // as it will be
	src    EnvFile
	edits  []edit
}

type edit struct {
	entry int // index of the entry, -1 for a comment
	parts []part
	whole bool // the parts are of the value with its ${…} expanded
}

// text is what the parts of e are places in.
func (e edit) text(entry dotenv.Entry) string {
	if e.whole {
		return entry.Value
	}
	return entry.Literal
}

type part struct {
	start, end int
	secret     *Secret
}

// MakePlan decides what would be done with what was found. Nothing is changed.
func MakePlan(ctx context.Context, in Input) (*Plan, error) {
	p := &Plan{
		Dir: in.Found.Dir, Others: slices.Clone(in.Found.Others), Problems: slices.Clone(in.Found.Problems),
		found: in.Found, kinds: in.Kinds, bySum: map[[32]byte]*Secret{}, taken: map[string]bool{},
		stored: map[string]credential.Credential{}, known: map[string]string{}, holdings: map[string]string{}, foreign: map[string]string{},
	}
	if err := p.nameAgent(ctx, in); err != nil {
		return nil, err
	}
	if err := p.takeStock(ctx, in); err != nil {
		return nil, err
	}
	for _, file := range in.Found.Files {
		p.addFile(file)
		p.warn(file)
	}
	if err := p.recogniseStored(in.Inventory); err != nil {
		return nil, err
	}
	if err := p.recallLeft(ctx, in); err != nil {
		return nil, err
	}
	p.nameSecrets()
	for i := range p.Others {
		p.addOther(&p.Others[i])
	}
	if port := webhookPort(in.Found.Files); port > 0 && len(p.Secrets) > 0 {
		p.grants.Publish = append(p.grants.Publish, port)
	}
	p.Texts = p.planTexts()
	return p, nil
}

// nameAgent takes the agent that has this directory, or makes a new name.
func (p *Plan) nameAgent(ctx context.Context, in Input) error {
	p.Agent, p.NewAgent, p.Environment = in.AgentName, true, in.Environment
	if p.Agent != "" && !credential.ValidName(p.Agent) {
		return fail.New(fail.Invalid, "P-E042", "%q cannot be the name of an agent", p.Agent).
			Because("a name has at most 64 of a-z 0-9 . _ - and begins with a letter or digit")
	}
	var agents []credential.Agent
	if in.Agents != nil {
		var err error
		if agents, err = in.Agents.List(ctx); err != nil {
			return fmt.Errorf("listing the agents: %w", err)
		}
	}
	names := map[string]bool{}
	for _, a := range agents {
		names[a.Name] = true
		if a.Removed {
			continue
		}
		if p.Agent == a.Name || p.Agent == "" && a.Directory == p.Dir {
			p.Agent, p.NewAgent, p.Environment = a.Name, false, a.Environment
		}
		if err := p.addHoldings(ctx, in.Agents, a); err != nil {
			return err
		}
	}
	if p.Agent == "" {
		p.Agent = free(cleanName(filepath.Base(p.Dir), "agent"), names)
	}
	for text, agent := range p.foreign {
		if agent == p.Agent {
			delete(p.foreign, text)
		}
	}
	return nil
}

// addHoldings notes every placeholder of an agent as foreign; nameAgent takes
// out those of the agent that it chooses, takeStock reads them again.
func (p *Plan) addHoldings(ctx context.Context, agents Agents, a credential.Agent) error {
	held, err := agents.Placeholders(ctx, a.Name)
	if err != nil {
		return fmt.Errorf("reading the placeholders of %s: %w", a.Name, err)
	}
	for _, h := range held {
		p.foreign[h.Text] = a.Name
	}
	return nil
}

// takeStock reads what the safe and the agent have, by credential name.
func (p *Plan) takeStock(ctx context.Context, in Input) error {
	if in.Inventory != nil {
		list, err := in.Inventory.List(ctx)
		if err != nil {
			return fmt.Errorf("listing the safe: %w", err)
		}
		for _, c := range list {
			p.stored[c.Name], p.taken[c.Name] = c, true
			for _, v := range c.Versions {
				p.known[v.Fingerprint] = c.Name
			}
		}
	}
	if in.Agents != nil && !p.NewAgent {
		held, err := in.Agents.Placeholders(ctx, p.Agent)
		if err != nil {
			return fmt.Errorf("reading the placeholders of %s: %w", p.Agent, err)
		}
		for _, h := range held {
			p.holdings[h.Text] = h.Credential
		}
	}
	return nil
}

// addFile goes through one .env file.
func (p *Plan) addFile(file EnvFile) {
	mode := file.snap.Mode.Perm()
	f := &FilePlan{Name: file.Name, Mode: mode, Tight: mode & 0o600, src: file}
	secrets := false
	for i, e := range file.file.Entries() {
		one := edit{entry: i}
		found := pieces(p.kinds, e.Key, e.Literal)
		if e.Value != e.Literal && p.puzzle(e) {
			one.whole, found = true, pieces(p.kinds, e.Key, e.Value)
		}
		where, text := Place{File: file.Name, Line: e.Line, Variable: e.Key}, one.text(e)
		for _, piece := range found {
			secrets = true
			if piece.ours {
				p.addOurs(text[piece.start:piece.end], where)
				continue
			}
			s := p.addSecret(text[piece.start:piece.end], piece.match, where)
			one.parts = append(one.parts, part{piece.start, piece.end, s})
		}
		if len(one.parts) > 0 {
			f.edits = append(f.edits, one)
		}
	}
	for _, c := range commented(file.file, p.kinds) {
		match, found := c.known(p.kinds)
		if found && !decide(match, c.variable).real {
			secrets = true
			s := p.addSecret(c.value, match, Place{File: file.Name, Line: c.line, Variable: c.variable})
			f.edits = append(f.edits, edit{entry: -1, parts: []part{{secret: s}}})
		}
	}
	f.count()
	if !secrets {
		f.Tight = f.Mode // it may be meant for others
	}
	p.all = append(p.all, f)
	if f.Values > 0 || f.Mode != f.Tight {
		p.Files = append(p.Files, f)
	}
}

// puzzle says whether a secret shows only once ${…} is expanded. One that
// stands whole in an earlier variable is replaced there.
func (p *Plan) puzzle(e dotenv.Entry) bool {
	for _, piece := range pieces(p.kinds, e.Key, e.Value) {
		text := e.Value[piece.start:piece.end]
		if !piece.ours && p.bySum[sha256.Sum256([]byte(text))] == nil && !strings.Contains(e.Literal, text) {
			return true
		}
	}
	return false
}

// count is how many values the edits replace.
func (f *FilePlan) count() {
	f.Values = 0
	for _, e := range f.edits {
		for _, part := range e.parts {
			if !part.secret.Stays {
				f.Values++
			}
		}
	}
}

// addSecret notes a value; the same value elsewhere is the same secret.
func (p *Plan) addSecret(text string, m catalog.Match, where Place) *Secret {
	digest := sha256.Sum256([]byte(text))
	fate := decide(m, where.Variable)
	s := p.bySum[digest]
	if s == nil {
		s = &Secret{
			Kind: m.Kind.ID, Title: m.Kind.Title, Confidence: m.Confidence, Mask: mask(m.Kind, text), Hosts: m.Kind.Hosts,
			Stays: fate.real, Import: fate.imported, Why: fate.why, kind: m.Kind, value: secret.New([]byte(text)), digest: digest,
		}
		if fate.real && fate.imported {
			s.TCP, s.Unix = destinations(text)
		}
		p.bySum[digest] = s
		p.Secrets = append(p.Secrets, s)
	}
	if s.Stays && !fate.real { // known better in a second place
		s.Kind, s.Title, s.Hosts, s.kind, s.Confidence = m.Kind.ID, m.Kind.Title, m.Kind.Hosts, m.Kind, m.Confidence
		s.Stays, s.Import, s.Why = false, true, ""
	}
	s.Places = append(s.Places, where)
	return s
}

// addOurs notes a value that is a placeholder already.
func (p *Plan) addOurs(text string, where Place) {
	name, held := p.holdings[text]
	c, there := p.stored[name]
	switch other, foreign := p.foreign[text]; {
	case held && there:
		p.Kept++
		p.keepGrant(c)
	case held:
		p.addProblem(where, "holds a placeholder whose credential "+name+" is no longer in the safe", "postern secret ls")
	case foreign:
		p.addProblem(where, "holds a placeholder of another agent, "+other+", which works only there", "postern agent show "+other)
	default:
		p.addProblem(where, "holds a placeholder that this installation does not know", "put the real value back, then postern setup")
	}
}

func (p *Plan) addProblem(where Place, text, hint string) {
	p.Problems = append(p.Problems, fail.Problem{File: where.File, Line: where.Line, Text: where.Variable + " " + text, Hint: hint})
}

// keepGrant makes sure that what is protected already is granted as well.
func (p *Plan) keepGrant(c credential.Credential) {
	hosts := c.Hosts
	if k, err := p.kinds.Kind(c.Kind); err == nil && c.Kind != generic {
		hosts = k.Hosts
	}
	has := func(g Grant) bool { return g.Credential == c.Name }
	if len(hosts) > 0 && !slices.ContainsFunc(p.grants.Credentials, has) {
		p.grants.Credentials = append(p.grants.Credentials, Grant{Credential: c.Name, Kind: c.Kind, Hosts: hosts})
	}
}

// warn says which lines two loaders read differently.
func (p *Plan) warn(file EnvFile) {
	for _, d := range dotenv.Compare(file.snap.Data) {
		p.Warnings = append(p.Warnings, differs(file.Name, d))
	}
}

func (p *Plan) addOther(o *Other) {
	lines, err := o.suspicious(p.kinds)
	if err != nil {
		p.Problems = append(p.Problems, problem(o.Name, err))
		return
	}
	o.Lines = lines
	if o.What == "openclaw" {
		p.grants.Publish = append(p.grants.Publish, 18789) // its gateway
	}
}

// Empty says whether there is nothing to do in the directory.
func (p *Plan) Empty() bool {
	for _, s := range p.Secrets {
		if s.Import && !s.Known {
			return false
		}
	}
	return len(p.Files) == 0 && len(p.Texts) == 0
}

// Grants are the rules that the plan needs.
func (p *Plan) Grants() Grants {
	g := p.grants
	g.Agent, g.Directory, g.Egress = p.Agent, p.Dir, "open"
	g.Credentials = slices.Clone(g.Credentials)
	for _, s := range p.Secrets {
		switch {
		case s.Stays:
			g.TCP, g.Unix = append(g.TCP, s.TCP...), append(g.Unix, s.Unix...)
		case s.Import && len(s.Hosts) > 0:
			has := func(g Grant) bool { return g.Credential == s.Name }
			if !slices.ContainsFunc(g.Credentials, has) {
				g.Credentials = append(g.Credentials, Grant{Credential: s.Name, Kind: s.Kind, Hosts: s.Hosts})
			}
		}
	}
	slices.Sort(g.TCP)
	slices.Sort(g.Unix)
	g.TCP, g.Unix = slices.Compact(g.TCP), slices.Compact(g.Unix)
	return g
}

// Real are the variables whose value stays where it is: what "protected
// except" must name. Each stands as often as it has files.
func (p *Plan) Real() []string {
	var names []string
	for _, s := range p.Secrets {
		for _, where := range s.Places {
			if s.Stays && !slices.Contains(names, where.Variable) {
				names = append(names, where.Variable)
			}
		}
	}
	return names
}

// RealFiles are the files of the directory, by their absolute paths, in which a
// value stands that a placeholder could replace. Nothing that the agent starts
// has to read them as they are. A file whose real values must stay (a database
// URL, what was left by choice) is not among them, for the agent reads it; nor
// is a configuration that an agent reads itself.
func (p *Plan) RealFiles() []string {
	names := map[string]bool{}
	for _, s := range p.Secrets {
		for _, where := range s.Places {
			names[where.File] = names[where.File] || !s.Stays && s.Import
		}
	}
	for _, o := range p.Others {
		names[o.Name] = names[o.Name] || len(o.Lines) > 0 && o.What != "openclaw"
	}
	for _, unread := range p.found.Problems {
		names[unread.File] = true
	}
	var paths []string
	for name, real := range names {
		path := filepath.Join(p.Dir, name)
		if info, err := os.Lstat(path); real && err == nil && info.Mode().IsRegular() {
			paths = append(paths, path)
		}
	}
	slices.Sort(paths)
	return paths
}

// cleanName makes a valid name of any text.
func cleanName(text, fallback string) string {
	var b strings.Builder
	for _, r := range strings.ToLower(text) {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9':
			b.WriteRune(r)
		case b.Len() > 0 && !strings.HasSuffix(b.String(), "-"):
			b.WriteByte('-')
		}
	}
	name := strings.Trim(b.String(), "-")
	if len(name) > 48 {
		name = strings.Trim(name[:48], "-")
	}
	if name == "" {
		return fallback
	}
	return name
}

// free is base, or base-2, base-3 … until it is not taken. It takes the name.
func free(base string, taken map[string]bool) string {
	name := base
	for n := 2; taken[name]; n++ {
		name = fmt.Sprintf("%s-%d", base, n)
	}
	taken[name] = true
	return name
}
