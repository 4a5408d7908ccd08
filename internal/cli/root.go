package cli

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// newRoot is the command tree.
func newRoot(e *env) *cobra.Command {
	colour := "auto"
	root := &cobra.Command{
		Use:               "postern",
		Short:             "Your agent works with all of its keys and holds none of them.",
		Example:           "postern setup            take the keys out of this directory's .env\npostern run -- node bot.js",
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
		Args:              onlyCommands,
		PersistentPreRun:  func(*cobra.Command, []string) { e.SetColour(colour, e.getenv) },
		RunE:              func(cmd *cobra.Command, _ []string) error { return overview(e, cmd) },
	}
	flags := root.PersistentFlags()
	flags.BoolVarP(&e.Quiet, "quiet", "q", false, "say nothing but results and errors")
	flags.BoolVar(&e.NoInput, "no-input", false, "never ask a question")
	flags.BoolVar(&e.debug, "debug", false, "show the whole chain of an internal error")
	flags.StringVar(&colour, "color", "auto", "`WHEN` to use colour: auto, always or never")
	root.AddCommand(
		newSetup(e), newStatus(e), newRun(e), newUndo(e), newServe(e), newDoctor(e),
		newSecret(e), newAgent(e), newPolicy(e), newLedger(e), newSafe(e), newEnvFiles(e),
		newCatalog(e), newSchema(e), newCompletion(), newMan(), newVersion(e), newInside(e),
	)
	root.SetHelpCommand(newHelp(e))
	root.SetFlagErrorFunc(wrongFlag)
	root.SetHelpFunc(func(cmd *cobra.Command, _ []string) { writeHelp(cmd.OutOrStdout(), cmd) })
	return root
}

// group is a noun with verbs below it; without a verb it shows its help.
func group(use, short string, subs ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, Args: onlyCommands, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	cmd.AddCommand(subs...)
	return cmd
}

// writeHelp shows a command: examples first, at most 80 columns.
func writeHelp(w io.Writer, cmd *cobra.Command) {
	fmt.Fprintf(w, "%s\n", wrap(cmd.Short, 0))
	if cmd.Example != "" {
		fmt.Fprintf(w, "\n")
		for line := range strings.SplitSeq(cmd.Example, "\n") {
			fmt.Fprintf(w, "  %s\n", line)
		}
	}
	if cmd.Long != "" {
		fmt.Fprintf(w, "\n%s\n", cmd.Long)
	}
	switch {
	case cmd.HasAvailableSubCommands():
		fmt.Fprintf(w, "\nUsage\n  %s COMMAND\n", cmd.CommandPath())
	case cmd.Runnable():
		fmt.Fprintf(w, "\nUsage\n  %s\n", cmd.UseLine())
	}
	if cmd.HasAvailableSubCommands() {
		fmt.Fprintf(w, "\nCommands\n")
		for _, sub := range cmd.Commands() {
			if sub.IsAvailableCommand() {
				fmt.Fprintf(w, "  %-12s %s\n", sub.Name(), wrap(sub.Short, 15))
			}
		}
	}
	writeFlags(w, "Flags", cmd.LocalNonPersistentFlags())
	if !cmd.HasParent() {
		writeFlags(w, "Flags of every command", cmd.PersistentFlags())
	}
	if cmd.Runnable() && !cmd.HasAvailableSubCommands() {
		fmt.Fprintf(w, "\nExit codes\n  %s\n", exits(cmd))
	}
}

// exits lists the exit codes of a command.
func exits(cmd *cobra.Command) string {
	if own := cmd.Annotations["exits"]; own != "" {
		return own
	}
	return "0 done · 2 wrong usage or config · 4 locked · 5 changed underneath\n  6 refused by policy · 7 not reachable · 1 anything else"
}

func writeFlags(w io.Writer, title string, flags *pflag.FlagSet) {
	if !flags.HasAvailableFlags() {
		return
	}
	fmt.Fprintf(w, "\n%s\n", title)
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Hidden {
			return
		}
		name := "--" + f.Name
		if f.Shorthand != "" {
			name = "-" + f.Shorthand + ", " + name
		}
		hint, usage := pflag.UnquoteUsage(f)
		if hint != "" {
			name += " " + hint
		}
		if len(name) > 24 {
			fmt.Fprintf(w, "  %s\n", name)
			name = ""
		}
		fmt.Fprintf(w, "  %-24s %s\n", name, wrap(usage, 27))
	})
}

// columns bounds the lines of help texts.
const columns = 80

// wrap breaks text into lines for a place that begins after indent columns.
func wrap(text string, indent int) string {
	var b strings.Builder
	column := indent
	for i, word := range strings.Fields(text) {
		width := utf8.RuneCountInString(word)
		switch {
		case i == 0:
		case column+1+width > columns:
			b.WriteString("\n" + strings.Repeat(" ", indent))
			column = indent
		default:
			b.WriteByte(' ')
			column++
		}
		b.WriteString(word)
		column += width
	}
	return b.String()
}
