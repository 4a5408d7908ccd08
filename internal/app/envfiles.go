package app

import (
	"context"

	"postern/internal/catalog"
	"postern/internal/config"
	"postern/internal/setup"
)

// InitEnv makes a .env (mode 600), its .env.example and the .gitignore lines in
// dir, and names the files. A .env that is there is left alone. Where there is an
// installation the change is journaled, and run is what undo takes; else it is 0.
func InitEnv(ctx context.Context, o Options, dir string, variables []string) (files []string, run int64, err error) {
	paths, err := config.Locate(o.Getenv)
	if err != nil {
		return nil, 0, err
	}
	c, err := catalog.Open(paths.CatalogDir())
	if err != nil {
		return nil, 0, err
	}
	kinds, _ := c.Kinds() // a broken file of the user costs only its own templates
	plan, err := setup.PlanNewEnv(dir, kinds, variables)
	if err != nil {
		return nil, 0, err
	}
	exists, err := Exists(o)
	if err != nil {
		return nil, 0, err
	}
	if !exists {
		return plan.Names(), 0, plan.Make()
	}
	a, err := Open(ctx, o)
	if err != nil {
		return nil, 0, err
	}
	defer a.Close()
	run, err = a.writeEnv(ctx, plan)
	return plan.Names(), run, err
}

func (a *App) writeEnv(ctx context.Context, plan *setup.NewEnv) (int64, error) {
	unlock, err := a.lock()
	if err != nil {
		return 0, err
	}
	defer unlock()
	run, err := a.journal().Begin(ctx, "env init "+plan.Dir)
	if err != nil {
		return 0, err
	}
	if err := plan.Write(ctx, run); err != nil {
		return 0, err
	}
	return run.ID(), run.Finish(ctx)
}
