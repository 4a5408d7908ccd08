package app

import (
	"context"
	"errors"

	"postern/internal/provider"
)

// Verified is what a provider said of a secret.
type Verified struct {
	Name string `json:"name"`
	provider.Answer
}

// Verify asks the providers of the named secrets whether they work. Secrets of
// kinds that no call checks are left out.
func (a *App) Verify(ctx context.Context, names []string) ([]Verified, error) {
	roots, err := a.upstreamRoots()
	if err != nil {
		return nil, err
	}
	client := provider.New(a.Config.Upstream.Dial, roots)
	verified := []Verified{}
	for _, name := range names {
		c, err := a.Safe.Get(ctx, name)
		if err != nil {
			return nil, err
		}
		kind, err := a.Catalog.Kind(c.Kind)
		if err != nil {
			return nil, err
		}
		value, _, err := a.Safe.Lease(ctx, "", name)
		if err != nil {
			return nil, err
		}
		answer, err := client.Verify(ctx, kind, value)
		if errors.Is(err, provider.ErrNoRecipe) {
			continue
		}
		if err != nil {
			return nil, err
		}
		verified = append(verified, Verified{Name: name, Answer: answer})
	}
	return verified, nil
}
