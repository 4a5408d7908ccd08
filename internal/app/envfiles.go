package app

import (
	"postern/internal/catalog"
	"postern/internal/config"
	"postern/internal/setup"
)

// InitEnv makes a .env (mode 600), its .env.example and the .gitignore lines in
// dir, and names the files. A .env that is there is left alone.
func InitEnv(o Options, dir string, variables []string) ([]string, error) {
	paths, err := config.Locate(o.Getenv)
	if err != nil {
		return nil, err
	}
	c, err := catalog.Open(paths.CatalogDir())
	if err != nil {
		return nil, err
	}
	kinds, _ := c.Kinds() // a broken file of the user costs only its own templates
	plan, err := setup.PlanNewEnv(dir, kinds, variables)
	if err != nil {
		return nil, err
	}
	return plan.Names(), plan.Make()
}
