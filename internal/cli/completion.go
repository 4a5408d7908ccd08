package cli

import (
	"errors"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

func newCompletion() *cobra.Command {
	return &cobra.Command{
		Use: "completion bash|zsh|fish|powershell", Short: "print a completion script for a shell",
		Example: "postern completion bash > /etc/bash_completion.d/postern", Args: args(cobra.ExactArgs(1)),
		ValidArgs: []string{"bash", "zsh", "fish", "powershell"},
		RunE: func(cmd *cobra.Command, words []string) error {
			root, out := cmd.Root(), cmd.OutOrStdout()
			switch words[0] {
			case "bash":
				return root.GenBashCompletionV2(out, true)
			case "zsh":
				return root.GenZshCompletion(out)
			case "fish":
				return root.GenFishCompletion(out, true)
			case "powershell":
				return root.GenPowerShellCompletionWithDesc(out)
			}
			return usage(cmd, errors.New("there is no completion for "+words[0]))
		},
	}
}

func newMan() *cobra.Command {
	return &cobra.Command{
		Use: "man [DIR]", Short: "print the manual page, or write all of them to a directory",
		Example: "postern man | man -l -\npostern man /usr/local/share/man/man1", Args: args(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, words []string) error {
			root := cmd.Root()
			root.DisableAutoGenTag = true
			header := &doc.GenManHeader{Title: "POSTERN", Section: "1", Source: "postern " + version().Version}
			if len(words) == 1 {
				if err := doc.GenManTree(root, header, words[0]); err != nil {
					return usage(cmd, err)
				}
				return nil
			}
			return doc.GenMan(root, header, cmd.OutOrStdout())
		},
	}
}
