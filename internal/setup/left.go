package setup

import (
	"context"
	"fmt"
	"slices"
)

// Choices remembers which values a person wants to stay where they are, by
// keyed fingerprint.
type Choices interface {
	Left(ctx context.Context, agent string) ([]string, error)
	SetLeft(ctx context.Context, agent string, fingerprints []string) error
}

// whyLeft is the reason of a secret that a person left out.
const whyLeft = "left as you chose"

// recallLeft leaves what was left before.
func (p *Plan) recallLeft(ctx context.Context, in Input) error {
	if in.Choices == nil || in.Inventory == nil {
		return nil
	}
	prints, err := in.Choices.Left(ctx, p.Agent)
	if err != nil {
		return fmt.Errorf("reading what was left as it is: %w", err)
	}
	if len(prints) == 0 {
		return nil
	}
	var left []*Secret
	for _, s := range p.Secrets {
		print, err := in.Inventory.Fingerprint(s.value)
		if err != nil {
			return fmt.Errorf("taking a fingerprint: %w", err)
		}
		if !s.Stays && slices.Contains(prints, print) {
			left = append(left, s)
		}
	}
	p.leave(left)
	return nil
}

// leave lets secrets stay where they are.
func (p *Plan) leave(secrets []*Secret) {
	for _, s := range secrets {
		s.Stays, s.Import, s.Why = true, false, whyLeft
	}
	p.recount()
}

// protect takes back leave.
func (p *Plan) protect(secrets []*Secret) {
	for _, s := range secrets {
		s.Stays, s.Import, s.Why = false, true, ""
	}
	p.recount()
	p.nameSecrets()
}

// recount makes Files those of all that change.
func (p *Plan) recount() {
	p.Files = nil
	for _, f := range p.all {
		f.count()
		if f.Values > 0 || f.Mode != f.Tight {
			p.Files = append(p.Files, f)
		}
	}
}

// left are the secrets that a person left out.
func (p *Plan) left() []*Secret {
	return slices.DeleteFunc(slices.Clone(p.Secrets), func(s *Secret) bool { return s.Why != whyLeft })
}

// remember writes down what was left; what is protected now no longer is.
func (a *application) remember(ctx context.Context) error {
	if a.d.Choices == nil {
		return nil
	}
	was, err := a.d.Choices.Left(ctx, a.Agent)
	if err != nil {
		return fmt.Errorf("reading what was left as it is: %w", err)
	}
	is := slices.Clone(was)
	for _, s := range a.Secrets {
		print, err := a.d.Safe.Fingerprint(s.value)
		if err != nil {
			return fmt.Errorf("taking a fingerprint: %w", err)
		}
		is = slices.DeleteFunc(is, func(one string) bool { return one == print })
		if s.Why == whyLeft {
			is = append(is, print)
		}
	}
	if slices.Equal(was, is) {
		return nil
	}
	if err := a.d.Choices.SetLeft(ctx, a.Agent, is); err != nil {
		return fmt.Errorf("remembering what was left as it is: %w", err)
	}
	return nil
}
