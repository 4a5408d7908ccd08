package app

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"postern/internal/config"
	"postern/internal/credential"
	"postern/internal/event"
	"postern/internal/fail"
	"postern/internal/setup"
)

// followEvery is how often the agent's files are looked at while it runs.
const followEvery = 2 * time.Second

// adoptNew looks for real keys that have appeared since setup, and takes them in
// or refuses to start.
func (a *App) adoptNew(ctx context.Context, agent credential.Agent, o RunOptions) error {
	plan, fresh, err := a.newKeys(ctx, agent)
	if err != nil || len(fresh) == 0 {
		return err
	}
	how := a.howNew(o)
	adopt := how == config.NewKeysAdopt
	if how == config.NewKeysAsk {
		if adopt, err = o.Adopt(fresh); err != nil {
			return err
		}
	}
	if !adopt {
		return fail.New(fail.NotAllowed, "P-E121", "the agent was not started: real keys have appeared in its directory").
			Because("%s in %s", fresh[0].Title, fresh[0].Places[0].File).Hint("postern secret import %s", agent.Directory)
	}
	return a.adopt(ctx, plan, o)
}

func (a *App) howNew(o RunOptions) string {
	for _, how := range []string{o.NewKeys, a.Config.Run.NewKeys} {
		if how != "" {
			return how
		}
	}
	return config.NewKeysAsk
}

// adopt takes the keys in; a safe that only the daemon has open is opened for it.
func (a *App) adopt(ctx context.Context, plan *setup.Plan, o RunOptions) error {
	if a.Safe.Locked() {
		if err := a.unlockSafe(ctx); err != nil {
			return err
		}
		if err := a.openLedger(ctx); err != nil {
			return err
		}
	}
	result, err := a.Apply(ctx, plan, nil)
	if err != nil {
		return err
	}
	o.Say(false, "took new keys into the safe: %s   undo: postern undo %d", strings.Join(append(result.Imported, result.Reused...), ", "), result.Run)
	return nil
}

// newKeys are the real keys that stand in the agent's files and should not.
func (a *App) newKeys(ctx context.Context, agent credential.Agent) (*setup.Plan, []setup.Secret, error) {
	if agent.Directory == "" || a.ownKeys(agent.Name) {
		return nil, nil, nil
	}
	found, err := setup.Find(agent.Directory)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	return setup.Appeared(ctx, a.input(found, agent.Name))
}

// followFiles looks at the agent's files while it runs: keys that somebody pastes
// in are taken in where that was chosen, and said otherwise.
func (a *App) followFiles(ctx context.Context, agent credential.Agent, o RunOptions) (stop func()) {
	if agent.Directory == "" || a.ownKeys(agent.Name) {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	var work sync.WaitGroup
	work.Go(func() {
		ticker := time.NewTicker(followEvery)
		defer ticker.Stop()
		last := stamp(agent.Directory)
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
			}
			if now := stamp(agent.Directory); now != last {
				last = now
				a.meetNewKeys(ctx, agent, o)
				last = stamp(agent.Directory) // after what was written just now
			}
		}
	})
	return func() { cancel(); work.Wait() }
}

// stamp changes whenever a .env file of dir does.
func stamp(dir string) string {
	var text strings.Builder
	for _, pattern := range []string{".env*", "*.env", "*.env.*"} {
		files, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			continue
		}
		for _, name := range files {
			if info, err := os.Lstat(name); err == nil {
				fmt.Fprintf(&text, "%s %d %d\n", name, info.Size(), info.ModTime().UnixNano())
			}
		}
	}
	return text.String()
}

func (a *App) meetNewKeys(ctx context.Context, agent credential.Agent, o RunOptions) {
	plan, fresh, err := a.newKeys(ctx, agent)
	if err == nil && len(fresh) > 0 && a.howNew(o) == config.NewKeysAdopt {
		err = a.adopt(ctx, plan, o)
	} else if err == nil && len(fresh) > 0 {
		o.Say(true, "a real key has appeared: %s in %s   next  postern secret import %s", fresh[0].Title, fresh[0].Places[0].File, agent.Directory)
		err = a.Record(ctx, event.Event{Kind: event.FileChanged, Agent: agent.Name, Reason: "a real key appeared", Detail: map[string]string{"file": fresh[0].Places[0].File}})
	}
	if err != nil && ctx.Err() == nil {
		o.Say(true, "the agent's files could not be looked at: %v", err)
	}
}
