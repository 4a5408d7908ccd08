package cli

import (
	"fmt"
	"path/filepath"
	"strconv"

	"github.com/spf13/cobra"

	"postern/internal/app"
	"postern/internal/dotenv"
	"postern/internal/fail"
	"postern/internal/term"
)

func newEnvFiles(e *env) *cobra.Command {
	return group("env", "look at .env files, or make one", newEnvCheck(e), newEnvInit(e))
}

// EnvReport is one file of `postern env check --json`.
type EnvReport struct {
	File        string              `json:"file"`
	Loader      string              `json:"loader"` // whose reading counts in this directory
	Why         string              `json:"why"`
	Variables   int                 `json:"variables"`
	Differences []dotenv.Difference `json:"differences"`
}

func newEnvCheck(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use: "check FILE…", Short: "name every line that Node's dotenv and python-dotenv read differently",
		Example: "postern env check .env", Args: args(cobra.MinimumNArgs(1)),
		Annotations: map[string]string{"exits": "0 both read the same · 1 they differ · 2 the file cannot be read"},
		RunE: func(_ *cobra.Command, files []string) error {
			reports := make([]EnvReport, 0, len(files))
			differ := false
			for _, file := range files {
				r, err := checkEnv(file)
				if err != nil {
					return err
				}
				differ = differ || len(r.Differences) > 0
				reports = append(reports, r)
			}
			if e.json {
				if err := e.writeJSON(reports); err != nil {
					return err
				}
			} else {
				showEnvReports(e, reports)
			}
			if differ {
				return exitCode(fail.Findings.ExitCode())
			}
			return nil
		},
	}
	e.jsonFlag(cmd)
	return cmd
}

func checkEnv(file string) (EnvReport, error) {
	snap, err := dotenv.Read(file)
	if err != nil {
		return EnvReport{}, err
	}
	loader, why := dotenv.DetectWhy(filepath.Dir(snap.Path))
	parsed, err := dotenv.Parse(snap.Data, loader)
	if err != nil {
		return EnvReport{}, err
	}
	return EnvReport{
		File: file, Loader: loader.String(), Why: why, Variables: len(parsed.Values()),
		Differences: append([]dotenv.Difference{}, dotenv.Compare(snap.Data)...),
	}, nil
}

func showEnvReports(e *env, reports []EnvReport) {
	for _, r := range reports {
		fmt.Fprintf(e.Out, "%s  %d variables, read as %s does (%s)\n", term.Safe(r.File), r.Variables, r.Loader, r.Why)
		for _, d := range r.Differences {
			fmt.Fprintf(e.Out, "  %s line %s  %s\n", e.Symbol("warn"), strconv.Itoa(d.Line), term.Safe(d.String()))
		}
		if len(r.Differences) == 0 {
			fmt.Fprintf(e.Out, "  %s both loaders read every line alike\n", e.Symbol("ok"))
		}
	}
}

func newEnvInit(e *env) *cobra.Command {
	dir := "."
	cmd := &cobra.Command{
		Use: "init [VARIABLE…]", Short: "make a .env, its .env.example and the .gitignore lines",
		Example: "postern env init ANTHROPIC_API_KEY OPENAI_API_KEY",
		RunE: func(cmd *cobra.Command, variables []string) error {
			made, run, err := app.InitEnv(cmd.Context(), e.options(), dir, variables)
			if err != nil {
				return err
			}
			for _, name := range made {
				fmt.Fprintf(e.Out, "%s %s\n", e.Symbol("ok"), term.Safe(name))
			}
			fmt.Fprintln(e.Out, "next  put the keys into .env, then: postern setup")
			if run > 0 {
				fmt.Fprintf(e.Out, "undo  postern undo %d\n", run)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&dir, "dir", dir, "`DIR` to make them in")
	return cmd
}
