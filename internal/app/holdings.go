package app

import (
	"context"

	"postern/internal/broker"
	"postern/internal/credential"
	"postern/internal/event"
	"postern/internal/fail"
)

// holdings tells the broker who holds which placeholder.
type holdings struct{ a *App }

func (h holdings) Lookup(text string) (credential.Placeholder, bool) {
	p, found, err := h.a.Agents.Lookup(context.Background(), text)
	return p, found && err == nil
}

func (h holdings) Of(agent string) ([]broker.Lent, error) {
	ctx := context.Background()
	held, err := h.a.Agents.Placeholders(ctx, agent)
	if err != nil {
		return nil, err
	}
	var lent []broker.Lent
	for _, p := range held {
		if p.Revoked {
			continue
		}
		c, err := h.a.Safe.Get(ctx, p.Credential)
		if fail.Is(err, fail.NotFound) {
			continue // removed; its placeholder is a tripwire
		}
		if err != nil {
			return nil, err
		}
		kind, err := h.a.Catalog.Kind(c.Kind)
		if err != nil {
			return nil, err
		}
		lent = append(lent, broker.Lent{Placeholder: p.Text, Credential: c.Name, Kind: kind, Hosts: c.Hosts})
	}
	return lent, nil
}

// recorder takes the broker's records.
type recorder struct{ a *App }

func (r recorder) Record(ctx context.Context, e event.Event, durable bool) error {
	return r.a.ledger.Load().Record(ctx, e, durable)
}
