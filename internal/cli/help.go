package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"postern/internal/fail"
)

func newHelp(e *env) *cobra.Command {
	return &cobra.Command{
		Use: "help [COMMAND | P-Ennn]", Short: "explain a command or an error",
		Example: "postern help run\npostern help P-E041",
		RunE: func(cmd *cobra.Command, words []string) error {
			if len(words) == 1 && strings.HasPrefix(strings.ToUpper(words[0]), "P-E") {
				page, found := fail.Help(strings.ToUpper(words[0]))
				if !found {
					return fail.New(fail.NotFound, "P-E008", "there is no error %q", words[0]).Hint("postern help")
				}
				fmt.Fprintf(e.Out, "%s  %s", strings.ToUpper(words[0]), strings.TrimLeft(page, " "))
				return nil
			}
			target, rest, err := cmd.Root().Find(words)
			if err != nil {
				return usage(cmd, err)
			}
			if len(rest) > 0 {
				return onlyCommands(target, rest)
			}
			writeHelp(e.Out, target)
			return nil
		},
	}
}
