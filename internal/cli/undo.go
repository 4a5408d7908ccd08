package cli

import (
	"context"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"postern/internal/app"
	"postern/internal/fail"
	"postern/internal/term"
)

func newUndo(e *env) *cobra.Command {
	yes := false
	cmd := &cobra.Command{
		Use: "undo [RUN]", Short: "take back the last change of files, byte for byte",
		Example: "postern undo\npostern undo 3 --yes", Args: args(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, words []string) error {
			run := int64(0)
			if len(words) == 1 {
				n, err := strconv.ParseInt(words[0], 10, 64)
				if err != nil || n < 1 {
					return fail.New(fail.Invalid, "P-E001", "a run is a number from 1, not %q", words[0]).Hint("postern status")
				}
				run = n
			}
			return runUndo(cmd.Context(), e, run, yes)
		},
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	e.jsonFlag(cmd)
	return cmd
}

func runUndo(ctx context.Context, e *env, run int64, yes bool) error {
	exists, err := app.Exists(e.options())
	if err != nil {
		return err
	}
	if !exists { // a setup that was cut off before it changed anything
		if e.json {
			return e.writeJSON(app.UndoReport{})
		}
		fmt.Fprintln(e.Out, "Nothing to undo: nothing has been changed yet.")
		return nil
	}
	a, err := e.app(ctx)
	if err != nil {
		return err
	}
	if !yes {
		ok, err := e.Confirm("Put the files back as they were before, with the real keys in them?", false)
		if err != nil {
			return err
		}
		if !ok {
			return errDeclined()
		}
	}
	report, err := a.Undo(ctx, run)
	if err != nil {
		return err
	}
	if e.json {
		return e.writeJSON(report)
	}
	if report.Run.ID == 0 {
		fmt.Fprintln(e.Out, "Nothing to undo.")
		return nil
	}
	fmt.Fprintf(e.Out, "Run %d (%s) is taken back.\n", report.Run.ID, term.Safe(report.Run.Command))
	for _, f := range report.Files {
		fmt.Fprintf(e.Out, "  %s %-9s %s\n", e.Symbol("ok"), f.Did, term.Safe(f.Path))
	}
	if len(report.Restored) > 0 {
		fmt.Fprintf(e.Out, "The safe keeps the values, marked restored: %d.\n", len(report.Restored))
	}
	return nil
}
