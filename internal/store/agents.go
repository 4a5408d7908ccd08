package store

import (
	"context"
	"database/sql"
	"errors"
	"sync"
	"sync/atomic"

	"postern/internal/credential"
	"postern/internal/fail"
	"postern/internal/placeholder"
)

// Agents keeps the workloads and what they hold instead of credentials.
type Agents struct{ d *DB }

// Agents is the agents' part of the store.
func (d *DB) Agents() *Agents { return &Agents{d} }

// agentCache holds all placeholders as of one generation.
type agentCache struct {
	mu  sync.Mutex
	now atomic.Pointer[lookup]
}

type lookup struct {
	generation uint64
	byText     map[string]credential.Placeholder // by the text and by its core
}

// List are all agents by name, removed ones too.
func (a *Agents) List(ctx context.Context) ([]credential.Agent, error) {
	rows, err := a.d.sql.QueryContext(ctx, "SELECT name, environment, directory, created, removed FROM agents ORDER BY name")
	if err != nil {
		return nil, a.d.failed("reading the agents", err)
	}
	defer rows.Close()
	var list []credential.Agent
	for rows.Next() {
		one, err := scanAgent(rows.Scan)
		if err != nil {
			return nil, a.d.failed("reading the agents", err)
		}
		list = append(list, one)
	}
	return list, a.d.failed("reading the agents", rows.Err())
}

func scanAgent(scan func(...any) error) (credential.Agent, error) {
	var a credential.Agent
	var created int64
	err := scan(&a.Name, &a.Environment, &a.Directory, &created, &a.Removed)
	a.Created = moment(created)
	return a, err
}

// Get is one agent, removed or not; fail.NotFound where there is none.
func (a *Agents) Get(ctx context.Context, name string) (credential.Agent, error) {
	row := a.d.sql.QueryRowContext(ctx, "SELECT name, environment, directory, created, removed FROM agents WHERE name = ?", name)
	one, err := scanAgent(row.Scan)
	if errors.Is(err, sql.ErrNoRows) {
		return credential.Agent{}, noAgent(name)
	}
	return one, a.d.failed("reading an agent", err)
}

// Add adds an agent. A name that is in use is fail.Conflict; a removed agent
// of that name gives way, and what it held stays revoked.
func (a *Agents) Add(ctx context.Context, agent credential.Agent) error {
	if !credential.ValidName(agent.Name) {
		return fail.New(fail.Invalid, "P-E076", "could not add the agent %q", agent.Name).
			Because("a name has 1 to 64 lower-case letters, digits, dots, dashes and underscores, and begins with a letter or digit")
	}
	result, err := a.d.sql.ExecContext(ctx, `INSERT INTO agents (name, environment, directory, created, removed) VALUES (?, ?, ?, ?, 0)
		ON CONFLICT (name) DO UPDATE SET environment = excluded.environment, directory = excluded.directory,
		created = excluded.created, removed = 0 WHERE removed = 1`,
		agent.Name, string(agent.Environment), agent.Directory, nanos(agent.Created))
	if err != nil {
		return a.d.failed("adding an agent", err)
	}
	if n, err := result.RowsAffected(); err != nil || n == 0 {
		return fail.New(fail.Conflict, "P-E076", "could not add the agent %s", agent.Name).Because("there is one of this name").Hint("postern agent ls")
	}
	return nil
}

// Remove marks the agent as removed and revokes all its placeholders.
func (a *Agents) Remove(ctx context.Context, name string) error {
	err := a.d.write(ctx, func(q queryer) error {
		result, err := q.ExecContext(ctx, "UPDATE agents SET removed = 1 WHERE name = ?", name)
		if err != nil {
			return err
		}
		if n, err := result.RowsAffected(); err != nil || n == 0 {
			return noAgent(name)
		}
		_, err = q.ExecContext(ctx, "UPDATE placeholders SET revoked = 1 WHERE agent = ?", name)
		return err
	})
	return a.d.failed("removing an agent", err)
}

func noAgent(name string) error {
	return fail.New(fail.NotFound, "P-E075", "could not find the agent %q", name).Hint("postern agent ls")
}

const selectPlaceholders = "SELECT text, agent, credential, created, revoked FROM placeholders"

// Placeholders are all placeholders that the agent ever held, revoked ones too.
func (a *Agents) Placeholders(ctx context.Context, agent string) ([]credential.Placeholder, error) {
	return a.placeholders(ctx, selectPlaceholders+" WHERE agent = ? ORDER BY credential, created, text", agent)
}

func (a *Agents) placeholders(ctx context.Context, query string, args ...any) ([]credential.Placeholder, error) {
	rows, err := a.d.sql.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, a.d.failed("reading the placeholders", err)
	}
	defer rows.Close()
	var list []credential.Placeholder
	for rows.Next() {
		var p credential.Placeholder
		var created int64
		if err := rows.Scan(&p.Text, &p.Agent, &p.Credential, &created, &p.Revoked); err != nil {
			return nil, a.d.failed("reading the placeholders", err)
		}
		p.Created = moment(created)
		list = append(list, p)
	}
	return list, a.d.failed("reading the placeholders", rows.Err())
}

// AddPlaceholder gives an agent a placeholder. A text that was ever given out
// is fail.Conflict, an unknown or removed agent fail.NotFound.
func (a *Agents) AddPlaceholder(ctx context.Context, p credential.Placeholder) error {
	err := a.d.write(ctx, func(q queryer) error {
		var n int
		if err := q.QueryRowContext(ctx, "SELECT count(*) FROM agents WHERE name = ? AND removed = 0", p.Agent).Scan(&n); err != nil {
			return err
		}
		if n == 0 {
			return noAgent(p.Agent)
		}
		result, err := q.ExecContext(ctx, `INSERT INTO placeholders (text, agent, credential, created, revoked) VALUES (?, ?, ?, ?, ?)
			ON CONFLICT (text) DO NOTHING`, p.Text, p.Agent, p.Credential, nanos(p.Created), p.Revoked)
		if err != nil {
			return err
		}
		if n, err := result.RowsAffected(); err != nil || n == 0 {
			return fail.New(fail.Conflict, "P-E076", "could not give %s a placeholder for %s", p.Agent, p.Credential).
				Because("the same text was given out before")
		}
		return nil
	})
	return a.d.failed("adding a placeholder", err)
}

// RevokePlaceholder makes a placeholder worthless; it stays known, as a
// tripwire. fail.NotFound where it was never given out.
func (a *Agents) RevokePlaceholder(ctx context.Context, text string) error {
	result, err := a.d.sql.ExecContext(ctx, "UPDATE placeholders SET revoked = 1 WHERE text = ?", text)
	if err != nil {
		return a.d.failed("revoking a placeholder", err)
	}
	if n, err := result.RowsAffected(); err != nil || n == 0 {
		return fail.New(fail.NotFound, "P-E075", "could not revoke the placeholder").Because("it was never given out")
	}
	return nil
}

// Lookup finds who holds a placeholder, by its text or by the part of it that
// travels in requests. It is answered from memory, and sees every change of
// this and other processes.
func (a *Agents) Lookup(ctx context.Context, text string) (credential.Placeholder, bool, error) {
	generation, err := a.d.Generation(ctx)
	if err != nil {
		return credential.Placeholder{}, false, err
	}
	now := a.d.agents.now.Load()
	if now == nil || now.generation != generation {
		if now, err = a.load(ctx); err != nil {
			return credential.Placeholder{}, false, err
		}
	}
	p, found := now.byText[text]
	return p, found, nil
}

func (a *Agents) load(ctx context.Context) (*lookup, error) {
	a.d.agents.mu.Lock()
	defer a.d.agents.mu.Unlock()
	// Taken before the rows are read, so that a change in between is seen later.
	generation, err := a.d.Generation(ctx)
	if err != nil {
		return nil, err
	}
	if now := a.d.agents.now.Load(); now != nil && now.generation == generation {
		return now, nil
	}
	all, err := a.placeholders(ctx, selectPlaceholders)
	if err != nil {
		return nil, err
	}
	next := &lookup{generation: generation, byText: make(map[string]credential.Placeholder, len(all))}
	for _, p := range all {
		if core := placeholder.Core(p.Text); core != "" {
			next.byText[core] = p
		}
	}
	for _, p := range all { // whole texts last: they win over parts
		next.byText[p.Text] = p
	}
	a.d.agents.now.Store(next)
	return next, nil
}
