package cli

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"postern/internal/app"
	"postern/internal/fail"
	"postern/internal/setup"
	"postern/internal/term"
)

func newRun(e *env) *cobra.Command {
	var o app.RunOptions
	yes := false
	cmd := &cobra.Command{
		Use: "run [flags] -- COMMAND [ARG…]", Short: "start a command with placeholders and no other way out",
		Example: "postern run -- node bot.js\npostern run --publish 18789 -- openclaw gateway\npm2 start postern -- run -- node bot.js",
		Args:    args(cobra.MinimumNArgs(1)),
		Annotations: map[string]string{
			"exits": "the command's own; 128+n when it died of signal n\n  125 Postern itself failed · 126 not executable · 127 not found",
		},
		RunE: func(cmd *cobra.Command, words []string) error {
			o.Command = words
			if yes {
				o.NewKeys = "adopt"
			}
			code, err := runAgent(cmd.Context(), e, o)
			if err != nil {
				e.Report(e.Err, readable(err))
				if code == 0 {
					code = 125
				}
			}
			if code != 0 {
				return exitCode(code)
			}
			return nil
		},
	}
	flags := cmd.Flags()
	flags.SetInterspersed(false)
	flags.StringVar(&o.Agent, "agent", "", "`NAME` of the agent (default: the one of the directory)")
	flags.StringArrayVar(&o.Publish, "publish", nil, "make `[ADDR:]PORT`, which the command opens, reachable on the host")
	flags.StringVar(&o.User, "user", "", "as root: run as `USER` (default: the directory's owner)")
	flags.BoolVar(&o.AsRoot, "as-root", false, "run as root a directory that belongs to root")
	flags.StringVar(&o.Mode, "mode", "", "`MODE`: enforced, cooperative or auto (default: what config.yaml says)")
	flags.BoolVarP(&yes, "yes", "y", false, "adopt keys that have appeared since setup, without a question")
	return cmd
}

func runAgent(ctx context.Context, e *env, o app.RunOptions) (int, error) {
	a, err := e.locked(ctx)
	if err != nil {
		return 0, err
	}
	o.Stdin, o.Stdout, o.Stderr = os.Stdin, os.Stdout, os.Stderr
	o.Say = func(amber bool, format string, args ...any) {
		line := fmt.Sprintf(format, args...)
		if amber {
			line = e.Paint(term.Amber, line)
		}
		e.say("postern: %s", line)
	}
	o.Adopt = func(fresh []setup.Secret) (bool, error) {
		names := make([]string, 0, len(fresh))
		for _, s := range fresh {
			names = append(names, s.Title+" in "+s.Places[0].File)
		}
		if e.NoInput || !e.InTTY {
			return false, fail.New(fail.NotAllowed, "P-E121", "the agent was not started: real keys have appeared in its directory").
				Because("%s", strings.Join(names, ", ")).Hint("postern secret import .   take them into the safe").Hint("postern run --yes -- …   the same, then start")
		}
		return e.Confirm("New keys have appeared ("+strings.Join(names, ", ")+"). Take them into the safe?", true)
	}
	return a.Run(ctx, o)
}

// newInside is the process that measures the three proofs; it is started by
// `setup`, inside, and by nobody else.
func newInside(e *env) *cobra.Command {
	return &cobra.Command{
		Use: "inside HOST PLACEHOLDER BAIT END", Hidden: true, Args: args(cobra.ExactArgs(4)),
		RunE: func(cmd *cobra.Command, words []string) error {
			return app.MeasureInside(cmd.Context(), words[0], words[1], words[2], words[3], e.In, e.Out)
		},
	}
}
