package cli

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"postern/internal/app"
	"postern/internal/credential"
	"postern/internal/fail"
)

func newAgent(e *env) *cobra.Command {
	return group("agent", "the workloads that use secrets", newAgentAdd(e), newAgentLs(e), newAgentShow(e), newAgentRm(e))
}

func newAgentAdd(e *env) *cobra.Command {
	var o app.NewAgent
	environment := ""
	cmd := &cobra.Command{
		Use: "add NAME", Short: "add an agent and print its placeholders",
		Example: "postern agent add builder --secret anthropic --secret github --dir ~/builder", Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, words []string) error {
			o.Name = words[0]
			if environment != "" {
				env, ok := credential.ParseEnvironment(environment)
				if !ok {
					return fail.New(fail.Invalid, "P-E010", "%q is no environment", environment).Because("there are dev, staging and prod")
				}
				o.Environment = env
			}
			if o.Directory != "" {
				dir, err := absolute(o.Directory)
				if err != nil {
					return err
				}
				o.Directory = dir
			}
			a, err := e.app(cmd.Context())
			if err != nil {
				return err
			}
			detail, err := a.AddAgent(cmd.Context(), o)
			if err != nil {
				return err
			}
			return showAgent(e, detail)
		},
	}
	flags := cmd.Flags()
	flags.StringArrayVar(&o.Secrets, "secret", nil, "lend `SECRET` to it, at the hosts of its kind; may be repeated")
	flags.StringVar(&o.Directory, "dir", "", "`DIR` that it runs in")
	flags.StringVar(&environment, "environment", "", "`ENV` that it belongs to: dev, staging or prod")
	e.jsonFlag(cmd)
	return cmd
}

func showAgent(e *env, d app.AgentDetail) error {
	if e.json {
		return e.writeJSON(d)
	}
	fmt.Fprintf(e.Out, "agent %s  %s  %s\n", d.Agent.Name, d.Agent.Environment, d.Agent.Directory)
	rows := make([][]string, 0, len(d.Placeholders))
	for _, p := range d.Placeholders {
		state := "works"
		if p.Revoked {
			state = "revoked"
		}
		rows = append(rows, []string{p.Credential, p.Text, state})
	}
	return e.Table(e.Out, []string{"SECRET", "PLACEHOLDER", "STATE"}, rows)
}

func newAgentLs(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use: "ls", Short: "list the agents", Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			a, err := e.locked(cmd.Context())
			if err != nil {
				return err
			}
			list, err := a.AgentDetails(cmd.Context())
			if err != nil {
				return err
			}
			if e.json {
				return e.writeJSON(list)
			}
			rows := make([][]string, 0, len(list))
			for _, d := range list {
				rows = append(rows, []string{d.Agent.Name, string(d.Agent.Environment), strconv.Itoa(len(d.Placeholders)), d.Egress, d.Agent.Directory})
			}
			return e.Table(e.Out, []string{"AGENT", "ENV", "SECRETS", "EGRESS", "DIRECTORY"}, rows)
		},
	}
	e.jsonFlag(cmd)
	return cmd
}

func newAgentShow(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use: "show NAME", Short: "show an agent and its placeholders", Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, words []string) error {
			a, err := e.locked(cmd.Context())
			if err != nil {
				return err
			}
			d, err := a.AgentDetail(cmd.Context(), words[0])
			if err != nil {
				return err
			}
			return showAgent(e, d)
		},
	}
	e.jsonFlag(cmd)
	return cmd
}

func newAgentRm(e *env) *cobra.Command {
	confirm := ""
	cmd := &cobra.Command{
		Use: "rm NAME", Short: "remove an agent; its placeholders become tripwires", Args: args(cobra.ExactArgs(1)),
		Example: "postern agent rm builder --confirm builder",
		RunE: func(cmd *cobra.Command, words []string) error {
			a, err := e.app(cmd.Context())
			if err != nil {
				return err
			}
			if _, err := a.AgentDetail(cmd.Context(), words[0]); err != nil {
				return err
			}
			if err := e.confirmName(confirm, words[0], "removing agent "+words[0]); err != nil {
				return err
			}
			if err := a.RemoveAgent(cmd.Context(), words[0]); err != nil {
				return err
			}
			fmt.Fprintf(e.Out, "%s is removed; whoever uses its placeholders is refused and recorded.\n", strings.TrimSpace(words[0]))
			return nil
		},
	}
	cmd.Flags().StringVar(&confirm, "confirm", "", "`NAME` once more, instead of the question")
	return cmd
}
