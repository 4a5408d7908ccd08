package cli

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"postern/internal/app"
	"postern/internal/setup"
	"postern/internal/term"
)

type setupOptions struct {
	yes, planOnly, verify bool
	agent, root, dir      string
}

func newSetup(e *env) *cobra.Command {
	o := setupOptions{dir: "."}
	cmd := &cobra.Command{
		Use: "setup [DIR]", Short: "take the keys out of a directory's .env files and protect its agent",
		Example: "postern setup\npostern setup --plan ~/bot      look, change nothing\npostern setup --yes ~/bot       take the proposed answers",
		Args:    args(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, words []string) error {
			if len(words) == 1 {
				o.dir = words[0]
			}
			return runSetup(cmd.Context(), e, o)
		},
	}
	flags := cmd.Flags()
	flags.BoolVarP(&o.yes, "yes", "y", false, "ask nothing, take the proposed answers")
	flags.BoolVar(&o.planOnly, "plan", false, "show the plan and change nothing")
	flags.BoolVar(&o.verify, "verify", false, "ask the providers whether the keys work")
	flags.StringVar(&o.agent, "agent", "", "`NAME` of the agent (default: the directory's)")
	flags.StringVar(&o.root, "root", "", "keep the root key by `WAY`: keyfile, passphrase or systemd")
	e.jsonFlag(cmd)
	return cmd
}

// SetupOutput is what `postern setup --json` shows.
type SetupOutput struct {
	Plan   *setup.Plan   `json:"plan"`
	Result *setup.Result `json:"result,omitempty"`
	Proofs *app.Proofs   `json:"proofs,omitempty"`
	Root   string        `json:"root,omitempty"`

	Verified []app.Verified `json:"verified,omitempty"` // with --verify
}

func runSetup(ctx context.Context, e *env, o setupOptions) error {
	found, err := setup.Find(o.dir)
	if err != nil {
		return err
	}
	exists, err := app.Exists(e.options())
	if err != nil {
		return err
	}
	var plan *setup.Plan
	if exists {
		a, err := e.app(ctx)
		if err != nil {
			return err
		}
		if plan, err = a.Plan(ctx, found, o.agent); err != nil {
			return err
		}
	} else if plan, err = app.FirstPlan(ctx, e.options(), found, o.agent); err != nil {
		return err
	}
	if o.planOnly && e.json {
		return e.writeJSON(SetupOutput{Plan: plan})
	}
	talk := e.Err
	if !e.json {
		talk = e.Out
	}
	if !o.yes && !o.planOnly {
		if err := plan.Ask(e); err != nil {
			return err
		}
	}
	showPlan(e, talk, plan)
	if o.planOnly {
		return nil
	}
	if plan.Empty() && !exists {
		fmt.Fprintf(talk, "  Nothing to protect was found in %s.\n  next  postern secret add NAME      keep a key that stands elsewhere\n", term.Safe(plan.Dir))
		return nil
	}
	return applySetup(ctx, e, o, found, plan, exists, talk)
}

// applySetup carries a plan out, after the last question.
func applySetup(ctx context.Context, e *env, o setupOptions, found setup.Found, plan *setup.Plan, exists bool, talk io.Writer) error {
	root := ""
	if !exists {
		choice, err := chooseRoot(e, o)
		if err != nil {
			return err
		}
		root = choice
	}
	if !o.yes {
		ok, err := e.Confirm("  Go?", true)
		if err != nil {
			return err
		}
		if !ok {
			return errDeclined()
		}
	}
	if !exists {
		a, err := app.Create(ctx, e.options(), root)
		if err != nil {
			return err
		}
		e.opened = a
		fmt.Fprintf(talk, "    %s safe      root key by %s\n", e.Paint(term.Good, e.Symbol("ok")), a.RootWords())
		// The plan was made without an inventory; with one, names may differ.
		if plan, err = a.Plan(ctx, found, o.agent); err != nil {
			return err
		}
	}
	a, err := e.app(ctx)
	if err != nil {
		return err
	}
	result, err := a.Apply(ctx, plan, func(step string) { e.say("    %s %s", e.Symbol("dot"), step) })
	if err != nil {
		return err
	}
	proofs := a.Prove(ctx, result.Agent)
	var verified []app.Verified
	if o.verify {
		if verified, err = a.Verify(ctx, append(slices.Clone(result.Imported), result.Reused...)); err != nil {
			return err
		}
	}
	if e.json {
		return e.writeJSON(SetupOutput{Plan: plan, Result: &result, Proofs: &proofs, Root: a.Safe.RootKind(), Verified: verified})
	}
	for _, v := range verified {
		fmt.Fprintf(e.Out, "    %s key       %s: %s %s\n", e.Symbol("dot"), v.Name, v.State, term.Safe(v.Owner+v.Why))
	}
	showResult(e, result, proofs)
	return nil
}

func showPlan(e *env, w io.Writer, plan *setup.Plan) {
	fmt.Fprintf(w, "  Plan for %s as agent %s\n", term.Safe(plan.Dir), plan.Agent)
	for _, item := range plan.Items() {
		line := fmt.Sprintf("    %s %-22s %s", item.Symbol, term.Safe(item.Subject), term.Safe(item.Text))
		if item.Note != "" {
			line += e.Paint(term.Dim, "   "+term.Safe(item.Note))
		}
		if item.Symbol == "!" {
			line = e.Paint(term.Amber, line)
		}
		fmt.Fprintln(w, strings.TrimRight(line, " "))
	}
}

func showResult(e *env, r setup.Result, proofs app.Proofs) {
	if r.Nothing {
		fmt.Fprintf(e.Out, "    %s nothing to change: all of it was done already\n", e.Symbol("ok"))
	} else {
		fmt.Fprintf(e.Out, "    %s stored    %d new, %d known already\n", e.Paint(term.Good, e.Symbol("ok")), len(r.Imported), len(r.Reused))
		fmt.Fprintf(e.Out, "    %s files     %s     undo: postern undo %d\n", e.Paint(term.Good, e.Symbol("ok")), term.Safe(strings.Join(r.Files, " ")), r.Run)
	}
	showProofs(e, e.Out, proofs)
	fmt.Fprintf(e.Out, "\n  %s\n", verdict(e, proofs, r.Real))
	fmt.Fprintf(e.Out, "  next  cd %s && postern run -- YOUR COMMAND\n", term.Safe(proofs.Dir))
}

// showProofs shows the three proofs, one a line.
func showProofs(e *env, w io.Writer, proofs app.Proofs) {
	for _, p := range proofs.List() {
		sign, tone := e.Symbol("ok"), term.Good
		switch p.State {
		case app.Failed:
			sign, tone = e.Symbol("fail"), term.Bad
		case app.NotChecked:
			sign, tone = e.Symbol("warn"), term.Amber
		}
		text := p.Text
		if p.State == app.NotChecked {
			text = "not checked: " + p.Why
		} else if p.State == app.Failed {
			text = "failed: " + p.Why
		}
		fmt.Fprintf(w, "    %s proof     %s: %s\n", e.Paint(tone, sign), p.Name, term.Safe(text))
	}
}

// verdict is the last word. "Protected" needs all three proofs.
func verdict(e *env, proofs app.Proofs, real []string) string {
	if !proofs.All() {
		return e.Paint(term.Amber, "Set up, but not proved: see the lines above.") + "   next  postern doctor"
	}
	if len(real) > 0 {
		return e.Paint(term.Amber, "Protected except "+strings.Join(real, ", ")+" (real).")
	}
	return e.Paint(term.Good, "Protected.")
}

// chooseRoot decides how the root key is kept.
func chooseRoot(e *env, o setupOptions) (string, error) {
	if o.root != "" {
		return o.root, app.CheckRoot(o.root)
	}
	ways := app.RootWays(e.options())
	if o.yes || e.NoInput {
		return ways[0].Kind, nil
	}
	options := make([]string, 0, len(ways))
	for _, w := range ways {
		options = append(options, w.Title)
	}
	i, err := e.Choose("  Keep the root key", options, 0)
	if err != nil {
		return "", err
	}
	return ways[i].Kind, nil
}
