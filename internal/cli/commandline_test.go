package cli

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"postern/internal/term"
)

// tree is a command tree to look at; flags that are parsed stick to it.
func tree() *cobra.Command {
	root := newRoot(newEnv(&term.Streams{}))
	root.InitDefaultHelpCmd()
	return root
}

// every calls look with each command that people see, by its path.
func every(look func(path string, cmd *cobra.Command)) {
	var walk func(*cobra.Command)
	walk = func(cmd *cobra.Command) {
		if cmd.Hidden {
			return
		}
		look(cmd.CommandPath(), cmd)
		for _, sub := range cmd.Commands() {
			walk(sub)
		}
	}
	walk(tree())
}

// understood says what is wrong with a command line of ours: a command, a flag or
// a number of arguments that the tree does not have. With nameOnly, arguments may
// be missing: the command or flag is only spoken of.
func understood(line string, nameOnly bool) error {
	words := split(line)
	root := tree()
	cmd, rest, err := root.Find(words[1:])
	if err != nil {
		return err
	}
	cmd.InitDefaultHelpFlag()
	if err := cmd.ParseFlags(rest); err != nil {
		if nameOnly && strings.Contains(err.Error(), "flag needs an argument") {
			return nil
		}
		return err
	}
	args := cmd.Flags().Args()
	if cmd.HasSubCommands() && len(args) > 0 {
		return fmt.Errorf("%s has no command %q", cmd.CommandPath(), args[0])
	}
	if help := cmd.Flags().Lookup("help"); help.Changed || nameOnly && len(args) == 0 {
		return nil
	}
	return cmd.ValidateArgs(args)
}

// ours are the command lines of Postern in a line of shell; remarks, other
// programs and what is piped are left out.
func ours(line string) []string {
	line, _, _ = strings.Cut(line, " # ")
	for strings.Contains(line, "   ") && !strings.HasPrefix(line, "   ") { // a remark, or a second column
		line, _, _ = strings.Cut(line, "   ")
	}
	var found []string
	for _, part := range strings.FieldsFunc(strings.NewReplacer("&&", "\n", " | ", "\n", "; ", "\n", " > ", "\n", " < ", "\n").Replace(line), func(r rune) bool { return r == '\n' }) {
		words := strings.Fields(part)
		for len(words) > 0 {
			switch first := words[0]; {
			case first == "$" || first == "sudo" || strings.Contains(first, "=") && !strings.HasPrefix(first, "-"):
				words = words[1:]
				continue
			case first == "-u" && len(words) > 1:
				words = words[2:]
				continue
			case first == "pm2" && len(words) > 3 && words[2] == "postern" && words[3] == "--":
				found = append(found, "postern "+strings.Join(words[4:], " "))
			case first == "postern":
				found = append(found, strings.Join(words, " "))
			}
			break
		}
	}
	return found
}

// split is a line in words, as a shell makes them of plain text and quotes.
func split(line string) []string {
	var words []string
	var word strings.Builder
	open, quote := false, rune(0)
	for _, r := range line + " " {
		switch {
		case r == quote:
			quote = 0
		case quote == 0 && (r == '\'' || r == '"'):
			quote, open = r, true
		case quote == 0 && r == ' ':
			if open {
				words = append(words, word.String())
			}
			word.Reset()
			open = false
		default:
			word.WriteRune(r)
			open = true
		}
	}
	return words
}

// checkLine is understood for all of our command lines in a line of shell.
func checkLine(line string) error {
	var errs []error
	for _, one := range ours(line) {
		if err := understood(one, false); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", one, err))
		}
	}
	return errors.Join(errs...)
}
