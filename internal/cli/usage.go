package cli

import (
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"postern/internal/fail"
)

// usage is an error about the command line of cmd. Next are the commands that
// could have been meant; without any, it is the help of cmd.
func usage(cmd *cobra.Command, err error, next ...string) error {
	e := fail.New(fail.Invalid, "P-E001", "the command line was not understood").Wrap(err)
	for _, line := range next {
		e.Hint("%s", line)
	}
	if len(next) == 0 {
		e.Hint("%s --help", cmd.CommandPath())
	}
	return e
}

// args makes a check of arguments whose complaint counts as wrong usage.
func args(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, words []string) error {
		if err := check(cmd, words); err != nil {
			return usage(cmd, err)
		}
		return nil
	}
}

// onlyCommands is the check of a command that has others below it: a word that
// none of them has is most likely a mistyped one.
func onlyCommands(cmd *cobra.Command, words []string) error {
	if len(words) == 0 {
		return nil
	}
	var next []string
	for _, sub := range cmd.Commands() {
		if sub.IsAvailableCommand() && near(words[0], sub.Name()) {
			next = append(next, sub.CommandPath())
		}
	}
	return usage(cmd, cobra.NoArgs(cmd, words), next...)
}

// wrongFlag is an error about a flag, with the flags that could have been meant.
func wrongFlag(cmd *cobra.Command, err error) error {
	_, flag, unknown := strings.Cut(err.Error(), "unknown flag: --")
	if !unknown {
		return usage(cmd, err)
	}
	var next []string
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if !f.Hidden && near(flag, f.Name) {
			next = append(next, cmd.CommandPath()+" --"+f.Name)
		}
	})
	return usage(cmd, err, next...)
}

// near says whether typed could be a slip for name: at most two letters are
// changed, missing or too many, or it is name's beginning.
func near(typed, name string) bool {
	if len(typed) > 1 && strings.HasPrefix(name, typed) {
		return true
	}
	row := make([]int, len(name)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(typed) {
		corner := row[0]
		row[0] = i + 1
		for j := range len(name) {
			change := corner
			if typed[i] != name[j] {
				change++
			}
			corner = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(name)] <= min(2, len(name)/2)
}
