package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"postern/internal/app"
	"postern/internal/fail"
	"postern/internal/term"
)

func newDoctor(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use: "doctor", Short: "check the machine and the installation, and name the next command", Args: args(cobra.NoArgs),
		Annotations: map[string]string{"exits": "0 all is well · 1 something is wrong · 3 something could not be checked"},
		RunE: func(cmd *cobra.Command, _ []string) error {
			probes := app.Doctor(cmd.Context(), e.options())
			if e.json {
				if err := e.writeJSON(probes); err != nil {
					return err
				}
			} else {
				showProbes(e, probes)
			}
			return probeCode(probes)
		},
	}
	e.jsonFlag(cmd)
	return cmd
}

func showProbes(e *env, probes []app.Probe) {
	for _, p := range probes {
		sign := e.Paint(term.Good, e.Symbol("ok"))
		switch p.State {
		case app.Failed:
			sign = e.Paint(term.Bad, e.Symbol("fail"))
		case app.Warned:
			sign = e.Paint(term.Amber, e.Symbol("warn"))
		case app.NotChecked:
			sign = e.Paint(term.Amber, "?")
		}
		fmt.Fprintf(e.Out, "%s %-22s %s\n", sign, p.Name, term.Safe(p.Text))
		if p.Next != "" && p.State != app.Passed {
			fmt.Fprintf(e.Out, "  next  %s\n", p.Next)
		}
	}
}

func probeCode(probes []app.Probe) error {
	unchecked := false
	for _, p := range probes {
		if p.State == app.Failed {
			return exitCode(fail.Findings.ExitCode())
		}
		unchecked = unchecked || p.State == app.NotChecked
	}
	if unchecked {
		return exitCode(fail.Incomplete.ExitCode())
	}
	return nil
}
