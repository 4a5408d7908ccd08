package app

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"

	"postern/internal/catalog"
	"postern/internal/credential"
	"postern/internal/event"
	"postern/internal/fail"
	"postern/internal/placeholder"
	"postern/internal/policy"
	"postern/internal/secret"
)

// shortest is the least number of bytes of a value that redaction looks for.
const shortest = 8

// NewSecret is a secret to be kept.
type NewSecret struct {
	Name, Kind, Variable, Agent string
	Hosts                       []string
	Environment                 credential.Environment
}

// AddedSecret says what became of a NewSecret.
type AddedSecret struct {
	Credential  credential.Credential `json:"credential"`
	Version     int                   `json:"version"`
	Mask        string                `json:"mask"`
	Short       bool                  `json:"short"` // too short to be masked in answers
	Placeholder string                `json:"placeholder,omitempty"`
}

// AddSecret keeps a value: a new secret, or a new version of one.
func (a *App) AddSecret(ctx context.Context, n NewSecret, value secret.Value) (AddedSecret, error) {
	if !credential.ValidName(n.Name) {
		return AddedSecret{}, fail.New(fail.Invalid, "P-E018", "%q is no name for a secret", n.Name).
			Because("names are made of a-z, 0-9, dot, hyphen and underscore, at most 64 characters")
	}
	c, err := a.describe(ctx, n, value)
	if err != nil {
		return AddedSecret{}, err
	}
	v, err := a.Safe.Put(ctx, c, value)
	if err != nil {
		return AddedSecret{}, err
	}
	err = a.Record(ctx, event.Event{Kind: event.Put, Credential: c.Name, Version: v.Number, Fingerprint: v.Fingerprint})
	if err != nil {
		return AddedSecret{}, err
	}
	added := AddedSecret{Credential: c, Version: v.Number, Mask: v.Mask, Short: value.Len() < shortest}
	if n.Agent != "" {
		if added.Placeholder, err = a.lend(ctx, n.Agent, c.Name); err != nil {
			return AddedSecret{}, err
		}
	}
	return added, nil
}

// describe is the credential that a value becomes.
func (a *App) describe(ctx context.Context, n NewSecret, value secret.Value) (credential.Credential, error) {
	c, err := a.Safe.Get(ctx, n.Name)
	if err != nil && !fail.Is(err, fail.NotFound) {
		return c, err
	}
	if err == nil && n.Kind == "" {
		n.Kind = c.Kind
	}
	kind, err := a.recognise(n, value)
	if err != nil {
		return c, err
	}
	if kind.ID == catalog.GenericID && len(n.Hosts) == 0 && len(c.Hosts) == 0 {
		return c, fail.New(fail.Invalid, "P-E019", "it is not known where %s may be sent", n.Name).
			Because("no entry of the catalogue knows this form").Hint("postern secret add %s --host api.example.com", n.Name)
	}
	for _, host := range n.Hosts {
		if !kind.UserHosts && !kind.Allows(host) {
			return c, fail.New(fail.Invalid, "P-E019", "a secret of the kind %s never goes to %s", kind.ID, host).Hint("postern catalog show %s", kind.ID)
		}
	}
	if c.Name == "" {
		c = credential.Credential{Name: n.Name, Created: a.o.Now().UTC()}
	}
	c.Kind = kind.ID
	if n.Environment != "" {
		c.Environment = n.Environment
	}
	if n.Variable != "" {
		c.Variable = n.Variable
	}
	if len(n.Hosts) > 0 {
		c.Hosts = n.Hosts
	}
	return c, nil
}

func (a *App) recognise(n NewSecret, value secret.Value) (*catalog.Kind, error) {
	if n.Kind != "" {
		return a.Catalog.Kind(n.Kind)
	}
	id := catalog.GenericID
	err := value.Reveal(func(b []byte) error {
		if placeholder.Is(string(b)) {
			return fail.New(fail.Invalid, "P-E019", "this is a placeholder, not a key").Because("placeholders are worth nothing; the key itself is wanted")
		}
		if m, found := a.Catalog.Identify(n.Variable, string(b)); found && m.Kind != nil {
			id = m.Kind.ID
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return a.Catalog.Kind(id)
}

// RemoveSecret removes a secret with all its versions; open calls are cut.
func (a *App) RemoveSecret(ctx context.Context, name string) error {
	if err := a.Safe.Remove(ctx, name); err != nil {
		return err
	}
	return a.Record(ctx, event.Event{Kind: event.Removed, Credential: name})
}

// SetDisabled stops or resumes the lending of a secret.
func (a *App) SetDisabled(ctx context.Context, name string, disabled bool) error {
	if err := a.Safe.SetDisabled(ctx, name, disabled); err != nil {
		return err
	}
	kind := event.Enabled
	if disabled {
		kind = event.Disabled
	}
	return a.Record(ctx, event.Event{Kind: kind, Credential: name})
}

// Holders are the agents that have a placeholder of a secret.
func (a *App) Holders(ctx context.Context, name string) ([]string, error) {
	holders := []string{}
	agents, err := a.Agents.List(ctx)
	if err != nil {
		return nil, err
	}
	for _, agent := range agents {
		held, err := a.Agents.Placeholders(ctx, agent.Name)
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(held, func(p credential.Placeholder) bool { return p.Credential == name && !p.Revoked }) {
			holders = append(holders, agent.Name)
		}
	}
	return holders, nil
}

// lend grants a secret to an agent at the hosts of its kind, and returns the
// placeholder.
func (a *App) lend(ctx context.Context, agent, name string) (string, error) {
	if _, err := a.Agents.Get(ctx, agent); err != nil {
		return "", err
	}
	hosts, err := a.hostsFor(ctx, name, nil)
	if err != nil {
		return "", err
	}
	edit := policy.Edit{Agent: agent, Egress: policy.Open, Grants: []policy.Grant{{Credential: name, Hosts: hosts}}}
	if _, err := a.changePolicy(ctx, func(current []byte) ([]byte, error) { return policy.AddGrants(current, edit) }); err != nil {
		return "", err
	}
	return a.hold(ctx, agent, name)
}

// hold is the placeholder that the agent has of a secret, made where there is
// none yet.
func (a *App) hold(ctx context.Context, agent, name string) (string, error) {
	held, err := a.Agents.Placeholders(ctx, agent)
	if err != nil {
		return "", err
	}
	for _, p := range held {
		if p.Credential == name && !p.Revoked {
			return p.Text, nil
		}
	}
	value, _, err := a.Safe.Lease(ctx, agent, name)
	if err != nil {
		return "", err
	}
	c, err := a.Safe.Get(ctx, name)
	if err != nil {
		return "", err
	}
	kind, err := a.Catalog.Kind(c.Kind)
	if err != nil {
		return "", err
	}
	var text string
	err = value.Reveal(func(b []byte) error {
		text, err = placeholder.Mint(kind, b, rand.Reader)
		return err
	})
	if err != nil {
		return "", fmt.Errorf("making the placeholder of %s: %w", name, err)
	}
	return text, a.Agents.AddPlaceholder(ctx, credential.Placeholder{Text: text, Agent: agent, Credential: name, Created: a.o.Now().UTC()})
}
