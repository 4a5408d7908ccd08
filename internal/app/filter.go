package app

import (
	"context"

	"postern/internal/fail"
	"postern/internal/redact"
)

// filter masks a stream with the values of the agent.
func (a *App) filter(ctx context.Context, agent string) (*redact.Stream, error) {
	m, err := a.matcher(ctx, agent)
	if err != nil {
		return nil, err
	}
	return m.Stream(), nil
}

// matcher finds the values of the agent; a hit becomes its placeholder.
func (a *App) matcher(ctx context.Context, agent string) (*redact.Matcher, error) {
	known, err := a.known(ctx, agent)
	if err != nil {
		return nil, err
	}
	return redact.New(known)
}

// known are the values that stand behind the agent's placeholders.
func (a *App) known(ctx context.Context, agent string) ([]redact.Known, error) {
	held, err := a.Agents.Placeholders(ctx, agent)
	if err != nil {
		return nil, err
	}
	var known []redact.Known
	for _, p := range held {
		if p.Revoked {
			continue
		}
		value, _, err := a.Safe.Lease(ctx, agent, p.Credential)
		if fail.Is(err, fail.NotFound) || fail.Is(err, fail.NotAllowed) {
			continue // not lent, so it cannot come out
		}
		if err != nil {
			return nil, err
		}
		known = append(known, redact.Known{Value: value, Replacement: p.Text})
	}
	return known, nil
}
