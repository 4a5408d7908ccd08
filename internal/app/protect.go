package app

import (
	"context"
	"crypto/rand"
	"os"
	"strings"

	"postern/internal/catalog"
	"postern/internal/change"
	"postern/internal/config"
	"postern/internal/credential"
	"postern/internal/event"
	"postern/internal/policy"
	"postern/internal/secret"
	"postern/internal/setup"
	"postern/internal/store"
)

// FirstPlan is the plan of a directory where nothing was set up before.
func FirstPlan(ctx context.Context, o Options, found setup.Found, agent string) (*setup.Plan, error) {
	paths, err := config.Locate(o.Getenv)
	if err != nil {
		return nil, err
	}
	kinds, err := catalog.Open(paths.CatalogDir())
	if err != nil {
		return nil, err
	}
	return setup.MakePlan(ctx, setup.Input{Found: found, Kinds: kinds, AgentName: agent})
}

func (a *App) input(found setup.Found, agent string) setup.Input {
	return setup.Input{Found: found, Kinds: a.Catalog, Inventory: a.inventory(), Agents: a.Agents, Choices: choices{a.DB}, AgentName: agent}
}

// choices keeps what a person left real, by keyed fingerprint.
type choices struct{ db *store.DB }

func (c choices) Left(ctx context.Context, agent string) ([]string, error) {
	text, found, err := c.db.Setting(ctx, "left/"+agent)
	if err != nil || !found {
		return nil, err
	}
	return strings.Fields(text), nil
}

func (c choices) SetLeft(ctx context.Context, agent string, fingerprints []string) error {
	return c.db.SetSetting(ctx, "left/"+agent, strings.Join(fingerprints, " "))
}

// inventory tells which values are known: by the safe where it is open, else by
// the daemon's.
func (a *App) inventory() setup.Inventory {
	if a.Safe.Locked() {
		return daemonInventory{a}
	}
	return a.Safe
}

// daemonInventory asks the daemon for fingerprints.
type daemonInventory struct{ a *App }

func (d daemonInventory) List(ctx context.Context) ([]credential.Credential, error) {
	return d.a.Safe.List(ctx)
}

func (d daemonInventory) Fingerprint(v secret.Value) (print string, err error) {
	ctx := context.Background()
	c, err := d.a.dialDaemon(ctx)
	if err != nil {
		return "", err
	}
	defer c.Close()
	err = v.Reveal(func(b []byte) error {
		print, err = c.Fingerprint(ctx, b)
		return err
	})
	return print, err
}

// Plan is what a setup of the directory would do.
func (a *App) Plan(ctx context.Context, found setup.Found, agent string) (*setup.Plan, error) {
	return setup.MakePlan(ctx, a.input(found, agent))
}

// Apply carries a plan out; progress is told of the steps.
func (a *App) Apply(ctx context.Context, plan *setup.Plan, progress func(string)) (setup.Result, error) {
	unlock, err := a.lock()
	if err != nil {
		return setup.Result{}, err
	}
	defer unlock()
	deps := setup.Deps{
		Safe: a.Safe, Agents: a.Agents, Policy: a.granter(), Journal: a.journal(), Record: a,
		Choices: choices{a.DB}, Now: a.o.Now, Random: rand.Reader,
	}
	result, err := plan.Apply(ctx, deps, progress)
	if err != nil {
		return result, err
	}
	if _, err := a.Policy.Reload(); err != nil {
		return result, err
	}
	return result, nil
}

func (a *App) journal() *change.Journal {
	j := change.New(a.DB.Journal(), a.Safe)
	j.Merge, j.Now = a.merge, a.o.Now
	return j
}

// merge puts back what a run took out of a file that was edited since. In
// policy.yaml lines do not stand alone: where taking out the run's lines would
// leave something that does not parse, the agents that it brought in go as a
// whole.
func (a *App) merge(path string, before, after, now []byte) ([]byte, error) {
	left, err := setup.Merge(path, before, after, now)
	if err != nil || path != a.Paths.PolicyFile() {
		return left, err
	}
	if rest, err := policy.Parse(path, left); err == nil {
		return withoutRest(before, left, rest), nil
	}
	old, err := policy.Parse(path, before)
	if err != nil {
		return nil, err
	}
	brought, err := policy.Parse(path, after)
	if err != nil {
		return nil, err
	}
	left = now
	for _, agent := range brought.Agents() {
		if _, was := old.Agent(agent.Name); was {
			continue
		}
		if left, err = policy.RemoveAgent(left, agent.Name); err != nil {
			return nil, err
		}
	}
	rest, err := policy.Parse(path, left)
	if err != nil {
		return nil, err
	}
	return withoutRest(before, left, rest), nil
}

// withoutRest is nothing where there was no policy before and none is left.
func withoutRest(before, left []byte, rest *policy.Policy) []byte {
	if len(before) == 0 && len(rest.Agents()) == 0 {
		return nil
	}
	return left
}

// UndoReport is what an undo did.
type UndoReport struct {
	change.Report
	Restored []string `json:"restored"` // secrets whose value stands in a file again
}

// Undo takes back a run, 0 for the last one.
func (a *App) Undo(ctx context.Context, run int64) (UndoReport, error) {
	unlock, err := a.lock()
	if err != nil {
		return UndoReport{}, err
	}
	defer unlock()
	report, err := a.journal().Undo(ctx, run)
	if err != nil || report.Run.ID == 0 {
		return UndoReport{Report: report}, err
	}
	restored, err := setup.AfterUndo(ctx, a.Safe, a.Catalog, report)
	if err != nil {
		return UndoReport{Report: report}, err
	}
	if !report.Already {
		if err := a.Record(ctx, event.Event{Kind: event.Undone, Run: report.Run.ID}); err != nil {
			return UndoReport{Report: report}, err
		}
	}
	return UndoReport{Report: report, Restored: append([]string{}, restored...)}, nil
}

// editPolicy changes policy.yaml at once: a kill leaves the old or the new.
func (a *App) editPolicy(ctx context.Context, edit func(current []byte) ([]byte, error)) error {
	unlock, err := a.lock()
	if err != nil {
		return err
	}
	defer unlock()
	path := a.Paths.PolicyFile()
	current, err := os.ReadFile(path)
	if err != nil && !os.IsNotExist(err) {
		return err
	}
	next, err := edit(current)
	if err != nil || string(next) == string(current) {
		return err
	}
	if err := replaceFile(path, next, 0o600); err != nil {
		return err
	}
	if _, err := a.Policy.Reload(); err != nil {
		return err
	}
	return a.Record(ctx, event.Event{Kind: event.PolicyChange})
}
