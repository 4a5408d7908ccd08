package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"postern/internal/app"
	"postern/internal/fail"
)

func newPolicy(e *env) *cobra.Command {
	return group("policy", "who may use what, and where", newPolicyLs(e), newPolicyAllow(e), newPolicyDeny(e), newPolicyTest(e), newPolicyExplain(e), newPolicyCheck(e))
}

func newPolicyLs(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use: "ls", Short: "list the rules", Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			a, err := e.locked(cmd.Context())
			if err != nil {
				return err
			}
			rules, err := a.Rules()
			if err != nil {
				return err
			}
			if e.json {
				return e.writeJSON(rules)
			}
			var rows [][]string
			for _, r := range rules {
				rows = append(rows, []string{r.Agent, r.What, r.Subject, strings.Join(r.Hosts, " "), strings.Join(r.Methods, " "), strings.Join(r.Paths, " ")})
			}
			return e.Table(e.Out, []string{"AGENT", "RULE", "SUBJECT", "HOSTS", "METHODS", "PATHS"}, rows)
		},
	}
	e.jsonFlag(cmd)
	return cmd
}

func newPolicyAllow(e *env) *cobra.Command {
	var o app.Allow
	cmd := &cobra.Command{
		Use: "allow", Short: "add a rule",
		Example: "postern policy allow --agent bot --secret stripe --method GET\npostern policy allow --agent bot --tcp 127.0.0.1:5432\npostern policy allow --agent bot --host example.com",
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			a, err := e.app(cmd.Context())
			if err != nil {
				return err
			}
			if o.Agent, err = a.OnlyAgent(cmd.Context(), o.Agent); err != nil {
				return err
			}
			changed, err := a.Allow(cmd.Context(), o)
			if err != nil {
				return err
			}
			return sayChanged(e, changed)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&o.Agent, "agent", "", "`AGENT` (may be left out where there is only one)")
	flags.StringVar(&o.Secret, "secret", "", "`SECRET` that may be used")
	flags.StringArrayVar(&o.Hosts, "host", nil, "`HOST[:PORT]` that may be reached, or where the secret may go; may be repeated")
	flags.StringArrayVar(&o.Methods, "method", nil, "HTTP `METHOD`; may be repeated (default: all)")
	flags.StringArrayVar(&o.Paths, "path", nil, "`PATH` of a call; * is one segment, a final /* everything below (default: all)")
	flags.StringArrayVar(&o.TCP, "tcp", nil, "local service `ADDR:PORT` that is reachable inside at the same address")
	flags.StringArrayVar(&o.Unix, "unix", nil, "Unix socket `PATH` of the host")
	flags.BoolVar(&o.AnyEnvironment, "any-environment", false, "lend a prod secret to an agent that is not marked prod")
	flags.BoolVar(&o.OwnKeys, "own-keys", false, "let the agent bring keys of its own at these hosts")
	flags.BoolVar(&o.Durable, "durable", false, "each use is on disk before the value leaves")
	flags.StringVar(&o.Egress, "egress", "", "how far it reaches without a secret, by `MODE`: open, inspect or closed")
	flags.StringArrayVar(&o.Files, "file", nil, "hidden directory or file `PATH`, such as ~/.aws")
	return cmd
}

func sayChanged(e *env, changed bool) error {
	if !changed {
		fmt.Fprintln(e.Out, "That was allowed already; nothing was changed.")
		return nil
	}
	fmt.Fprintln(e.Out, "policy.yaml is changed; it counts from the next call on.")
	return nil
}

func newPolicyDeny(e *env) *cobra.Command {
	var o app.Deny
	cmd := &cobra.Command{
		Use: "deny", Short: "take a rule away, or forbid a host",
		Example: "postern policy deny --agent bot --secret stripe\npostern policy deny --agent bot --host pastebin.example", Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if (o.Secret == "") == (o.Host == "") {
				return fail.New(fail.Invalid, "P-E001", "deny takes either --secret or --host").Hint("postern policy deny --help")
			}
			a, err := e.app(cmd.Context())
			if err != nil {
				return err
			}
			if o.Agent, err = a.OnlyAgent(cmd.Context(), o.Agent); err != nil {
				return err
			}
			changed, err := a.Deny(cmd.Context(), o)
			if err != nil {
				return err
			}
			if !changed {
				fmt.Fprintln(e.Out, "That was not allowed anyway; nothing was changed.")
				return nil
			}
			fmt.Fprintln(e.Out, "policy.yaml is changed; it counts from the next call on.")
			return nil
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&o.Agent, "agent", "", "`AGENT` (may be left out where there is only one)")
	flags.StringVar(&o.Secret, "secret", "", "`SECRET` that is not lent to it any more")
	flags.StringVar(&o.Host, "host", "", "`HOST` that it may not reach at all")
	return cmd
}

// question is a call that somebody asks about: what --secret, METHOD and URL say.
func questionFlags(e *env, cmd *cobra.Command, q *app.Question) {
	cmd.Flags().StringVar(&q.Agent, "agent", "", "`AGENT` (may be left out where there is only one)")
	cmd.Flags().StringVar(&q.Secret, "secret", "", "`SECRET` that the call would carry")
	e.jsonFlag(cmd)
}

func newPolicyTest(e *env) *cobra.Command {
	var q app.Question
	cmd := &cobra.Command{
		Use: "test METHOD URL", Short: "say whether a call would be allowed (exit code 6: refused)",
		Example: "postern policy test --secret stripe POST https://api.stripe.com/v1/charges", Args: args(cobra.ExactArgs(2)),
		RunE: func(cmd *cobra.Command, words []string) error {
			answer, err := ask(cmd, e, &q, words)
			if err != nil {
				return err
			}
			if e.json {
				if err := e.writeJSON(answer); err != nil {
					return err
				}
			} else {
				fmt.Fprintf(e.Out, "%s  %s\n", word(answer.Allow), answer.Rule)
			}
			if answer.Allow {
				return nil
			}
			if !e.json {
				fmt.Fprintf(e.Out, "  why   %s\n  next  %s\n", answer.Reason, answer.Fix)
			}
			return exitCode(fail.NotAllowed.ExitCode())
		},
	}
	questionFlags(e, cmd, &q)
	return cmd
}

func ask(cmd *cobra.Command, e *env, q *app.Question, words []string) (app.Answer, error) {
	a, err := e.locked(cmd.Context())
	if err != nil {
		return app.Answer{}, err
	}
	if q.Agent, err = a.OnlyAgent(cmd.Context(), q.Agent); err != nil {
		return app.Answer{}, err
	}
	q.Method, q.URL = words[0], words[1]
	return a.Ask(cmd.Context(), *q)
}

func word(allow bool) string {
	if allow {
		return "allowed"
	}
	return "refused"
}

func newPolicyExplain(e *env) *cobra.Command {
	var q app.Question
	cmd := &cobra.Command{
		Use: "explain METHOD URL", Short: "show every rule that was looked at, and why it matched or not", Args: args(cobra.ExactArgs(2)),
		RunE: func(cmd *cobra.Command, words []string) error {
			answer, err := ask(cmd, e, &q, words)
			if err != nil {
				return err
			}
			if e.json {
				return e.writeJSON(answer)
			}
			fmt.Fprintf(e.Out, "%s  %s\n", word(answer.Allow), answer.Rule)
			for _, step := range answer.Steps {
				fmt.Fprintf(e.Out, "  %s %s\n", e.Symbol("dot"), step)
			}
			if !answer.Allow {
				fmt.Fprintf(e.Out, "  why   %s\n  next  %s\n", answer.Reason, answer.Fix)
			}
			return nil
		},
	}
	questionFlags(e, cmd, &q)
	return cmd
}

func newPolicyCheck(e *env) *cobra.Command {
	return &cobra.Command{
		Use: "check [FILE]", Short: "check a policy file (default: the one in use)", Args: args(cobra.MaximumNArgs(1)),
		RunE: func(_ *cobra.Command, words []string) error {
			file := ""
			if len(words) == 1 {
				file = words[0]
			}
			summary, err := app.CheckPolicy(e.options(), file)
			if err != nil {
				return err
			}
			fmt.Fprintln(e.Out, summary)
			return nil
		},
	}
}
