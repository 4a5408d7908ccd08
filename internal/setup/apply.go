package setup

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"postern/internal/change"
	"postern/internal/credential"
	"postern/internal/dotenv"
	"postern/internal/event"
	"postern/internal/fail"
	"postern/internal/placeholder"
)

// Result is what Apply did.
type Result struct {
	Run      int64    `json:"run"` // to take back, 0 where nothing was changed
	Agent    string   `json:"agent"`
	Imported []string `json:"imported"` // new in the safe
	Reused   []string `json:"reused"`   // were there already
	Files    []string `json:"files"`    // changed or made
	Real     []string `json:"real"`     // variables that still hold their value
	Nothing  bool     `json:"nothing"`  // all of it was done already
}

// Progress is told of each step as it begins; it may be nil.
type Progress func(step string)

// application is one Apply under way.
type application struct {
	*Plan
	d      Deps
	run    *change.Run
	result Result
	tokens map[*Secret]string
}

// Apply carries the plan out. Every file is journaled before it is written;
// values reach the safe before a placeholder takes their place. On a failure
// what was written is taken back. After a kill, Apply again goes on, and Undo
// takes back everything.
func (p *Plan) Apply(ctx context.Context, d Deps, progress Progress) (Result, error) {
	a := &application{Plan: p, d: d, tokens: map[*Secret]string{}, result: Result{Agent: p.Agent, Real: p.Real()}}
	if progress == nil {
		progress = func(string) {}
	}
	done, err := a.nothingToDo(ctx)
	if err != nil {
		return a.result, err
	}
	if done {
		a.result.Nothing = true
		return a.result, a.remember(ctx)
	}
	if a.run, err = d.Journal.Begin(ctx, Command(p.Dir)); err != nil {
		return a.result, err
	}
	a.result.Run = a.run.ID()
	steps := []struct {
		name string
		do   func(context.Context) error
	}{
		{"agent", a.addAgent}, {"safe", a.store}, {"placeholders", a.mint}, {"policy", a.grant}, {"files", a.files}, {"texts", a.texts}, {"choices", a.remember},
	}
	for _, s := range steps {
		progress(s.name)
		if err := s.do(ctx); err != nil {
			return a.result, a.takeBack(ctx, err)
		}
	}
	return a.result, a.run.Finish(ctx)
}

// Command is how the journal names a setup of dir.
func Command(dir string) string { return "setup " + dir }

// nothingToDo is true where a second setup finds everything as it should be.
// A run that was cut off in its last step is closed by going on with it.
func (a *application) nothingToDo(ctx context.Context) (bool, error) {
	if !a.Empty() || a.NewAgent {
		return false, nil
	}
	current, next, err := a.policy()
	if err != nil || !bytes.Equal(current, next) {
		return false, err
	}
	runs, err := a.d.Journal.Runs(ctx)
	if err != nil {
		return false, fmt.Errorf("reading the journal: %w", err)
	}
	open := len(runs) > 0 && runs[len(runs)-1].State == change.Open && runs[len(runs)-1].Command == Command(a.Dir)
	return !open, nil
}

// takeBack undoes what a failed Apply wrote, also when ctx is over.
func (a *application) takeBack(ctx context.Context, cause error) error {
	if _, err := a.d.Journal.Undo(context.WithoutCancel(ctx), a.run.ID()); err != nil {
		return errors.Join(cause, fmt.Errorf("taking back run %d: %w", a.run.ID(), err))
	}
	a.result.Run = 0
	return cause
}

func (a *application) record(ctx context.Context, e event.Event) error {
	if a.d.Record == nil {
		return nil
	}
	e.Time, e.Run = a.d.Now().UTC(), a.run.ID()
	if err := a.d.Record.Record(ctx, e); err != nil {
		return fmt.Errorf("recording %s: %w", e.Kind, err)
	}
	return nil
}

func (a *application) agent() credential.Agent {
	return credential.Agent{Name: a.Agent, Environment: a.Environment, Directory: a.Dir, Created: a.d.Now().UTC()}
}

func (a *application) addAgent(ctx context.Context) error {
	if !a.NewAgent {
		return nil
	}
	if err := a.record(ctx, event.Event{Kind: event.AgentAdded, Agent: a.Agent}); err != nil {
		return err
	}
	if err := a.d.Agents.Add(ctx, a.agent()); err != nil {
		return fmt.Errorf("adding agent %s: %w", a.Agent, err)
	}
	return nil
}

// store puts every value into the safe that is not there yet. Names are
// settled only here, against what the safe holds now.
func (a *application) store(ctx context.Context) error {
	list, err := a.d.Safe.List(ctx)
	if err != nil {
		return fmt.Errorf("listing the safe: %w", err)
	}
	byPrint, taken, current := map[string]credential.Credential{}, map[string]bool{}, map[string]bool{}
	for _, c := range list {
		taken[c.Name] = true
		for _, v := range c.Versions {
			byPrint[v.Fingerprint] = c
		}
	}
	for _, s := range a.Secrets {
		if !s.Import {
			continue
		}
		print, err := a.d.Safe.Fingerprint(s.value)
		if err != nil {
			return fmt.Errorf("taking a fingerprint: %w", err)
		}
		if c, found := byPrint[print]; found {
			if err := a.reuse(ctx, s, c); err != nil {
				return err
			}
			continue
		}
		if taken[s.Name] && !current[s.Name] {
			s.Name = free(baseName(s), taken)
		}
		taken[s.Name], current[s.Name] = true, true
		if err := a.importOne(ctx, s, print); err != nil {
			return err
		}
	}
	return nil
}

// reuse takes a credential that the safe has. A value that stays in its file
// is restored in the safe's words.
func (a *application) reuse(ctx context.Context, s *Secret, c credential.Credential) error {
	s.Name, s.Known = c.Name, true
	a.result.Reused = append(a.result.Reused, c.Name)
	if c.Restored == s.Stays {
		return nil
	}
	if err := a.d.Safe.SetRestored(ctx, c.Name, s.Stays); err != nil {
		return fmt.Errorf("marking %s: %w", c.Name, err)
	}
	return nil
}

func (a *application) importOne(ctx context.Context, s *Secret, print string) error {
	e := event.Event{Kind: event.Put, Agent: a.Agent, Credential: s.Name, Fingerprint: print, Detail: map[string]string{"kind": s.Kind}}
	if err := a.record(ctx, e); err != nil {
		return err
	}
	c := s.credential(a.agent())
	c.Created, c.Restored = a.d.Now().UTC(), s.Stays
	if _, err := a.d.Safe.Put(ctx, c, s.value); err != nil {
		return fmt.Errorf("storing %s: %w", s.Name, err)
	}
	a.result.Imported = append(a.result.Imported, s.Name)
	return nil
}

// mint gives the agent one placeholder for each credential; one that it has
// already is used again.
func (a *application) mint(ctx context.Context) error {
	held, err := a.d.Agents.Placeholders(ctx, a.Agent)
	if err != nil {
		return fmt.Errorf("reading the placeholders of %s: %w", a.Agent, err)
	}
	have := map[string]string{}
	for _, h := range held {
		if !h.Revoked {
			have[h.Credential] = h.Text
		}
	}
	for _, s := range a.Secrets {
		if s.Stays || !s.Import {
			continue
		}
		text, found := have[s.Name]
		if !found {
			if text, err = a.mintOne(ctx, s); err != nil {
				return err
			}
			have[s.Name] = text
		}
		a.tokens[s] = text
	}
	return nil
}

func (a *application) mintOne(ctx context.Context, s *Secret) (text string, err error) {
	err = s.value.Reveal(func(b []byte) error {
		text, err = placeholder.Mint(s.kind, b, a.d.Random)
		return err
	})
	if err != nil {
		return "", fmt.Errorf("making a placeholder for %s: %w", s.Name, err)
	}
	p := credential.Placeholder{Text: text, Agent: a.Agent, Credential: s.Name, Created: a.d.Now().UTC()}
	if err := a.d.Agents.AddPlaceholder(ctx, p); err != nil {
		return "", fmt.Errorf("storing the placeholder for %s: %w", s.Name, err)
	}
	return text, nil
}

// policy is the policy file as it is and as it must be.
func (a *application) policy() (current, next []byte, err error) {
	current, err = os.ReadFile(a.d.Policy.Path())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, fmt.Errorf("reading the policy: %w", err)
	}
	next, err = a.d.Policy.WithGrants(current, a.Grants())
	return current, next, err
}

func (a *application) grant(ctx context.Context) error {
	current, next, err := a.policy()
	if err != nil || bytes.Equal(current, next) {
		return err
	}
	if err := a.record(ctx, event.Event{Kind: event.PolicyChange, Agent: a.Agent}); err != nil {
		return err
	}
	if current == nil {
		return a.run.Create(ctx, a.d.Policy.Path(), next, 0o600)
	}
	return a.run.Replace(ctx, a.d.Policy.Path(), current, next, 0o600)
}

func (a *application) files(ctx context.Context) error {
	for _, f := range a.Files {
		data, err := f.edited(a.Plan, a.tokens)
		if err != nil {
			return err
		}
		path := filepath.Join(a.Dir, f.Name)
		if err := a.record(ctx, event.Event{Kind: event.FileChanged, Agent: a.Agent, Detail: map[string]string{"path": path}}); err != nil {
			return err
		}
		if err := a.run.Replace(ctx, path, f.src.snap.Data, data, 0o600); err != nil {
			return err
		}
		a.result.Files = append(a.result.Files, f.Name)
	}
	return nil
}

func (a *application) texts(ctx context.Context) error {
	for _, t := range a.Texts {
		if err := t.write(ctx, a.run, a.Dir); err != nil {
			return err
		}
		a.result.Files = append(a.result.Files, t.Name)
	}
	return nil
}

// edited is the file with placeholders in it. It is refused where a value
// would still stand in it.
func (f *FilePlan) edited(p *Plan, tokens map[*Secret]string) ([]byte, error) {
	entries := f.src.file.Entries()
	for _, e := range f.edits {
		if e.entry < 0 {
			continue
		}
		value, changed := e.text(entries[e.entry]), false
		for _, part := range slices.Backward(e.parts) {
			if token := tokens[part.secret]; token != "" {
				value, changed = value[:part.start]+token+value[part.end:], true
			}
		}
		if !changed {
			continue
		}
		if err := setBoth(f.src.file, e.entry, value); err != nil {
			return nil, named(err, "could not put a placeholder for %s on line %d of %s", entries[e.entry].Key, entries[e.entry].Line, f.Name)
		}
	}
	data := f.sweep(f.src.file.Bytes(), tokens)
	return data, f.check(data, p)
}

// setBoth writes a value as both loaders read it back where that can be, else
// as the project's own does.
func setBoth(file *dotenv.File, entry int, value string) error {
	if err := file.SetLiteral(entry, value, dotenv.Node, dotenv.Python); err == nil {
		return nil
	}
	return file.SetLiteral(entry, value)
}

// sweep takes the values out of wherever else they stand: comments, other
// values that hold them.
func (f *FilePlan) sweep(data []byte, tokens map[*Secret]string) []byte {
	var pairs []*Secret
	for s := range tokens {
		if s.value.Len() >= 12 { // a shorter one may be a word
			pairs = append(pairs, s)
		}
	}
	slices.SortFunc(pairs, func(a, b *Secret) int { // a value that holds another one goes first
		return cmp.Or(cmp.Compare(b.value.Len(), a.value.Len()), strings.Compare(a.Name, b.Name))
	})
	for _, s := range pairs {
		_ = s.value.Reveal(func(b []byte) error {
			data = bytes.ReplaceAll(data, b, []byte(tokens[s]))
			return nil
		})
	}
	return data
}

// check reads the result as the loader will, and looks for the values.
func (f *FilePlan) check(data []byte, p *Plan) error {
	again, err := dotenv.Parse(data, p.found.Dialect)
	if err != nil {
		return fmt.Errorf("reading back %s: %w", f.Name, err)
	}
	for _, e := range f.edits {
		for _, part := range e.parts {
			if part.secret.Stays || !part.secret.Import {
				continue
			}
			err := part.secret.value.Reveal(func(b []byte) error {
				for _, entry := range again.Entries() {
					if entry.Value == string(b) {
						return fail.New(fail.Internal, "P-E043", "could not take %s out of %s", part.secret.subject(), f.Name).
							Because("it would still be read on line %d", entry.Line).Hint("postern env check %s", f.Name)
					}
				}
				return nil
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}
