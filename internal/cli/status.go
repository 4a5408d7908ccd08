package cli

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"postern/internal/app"
	"postern/internal/term"
)

func newStatus(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use: "status", Short: "show what is going on and what to do next", Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := app.ReadStatus(cmd.Context(), e.options())
			if err != nil {
				return err
			}
			if e.json {
				return e.writeJSON(s)
			}
			showStatus(e, e.Out, s)
			return nil
		},
	}
	e.jsonFlag(cmd)
	return cmd
}

// overview is `postern` alone: what is going on, or how to begin.
func overview(e *env, cmd *cobra.Command) error {
	s, err := app.ReadStatus(cmd.Context(), e.options())
	if err != nil {
		return err
	}
	if s.SetUp {
		showStatus(e, e.Out, s)
		return nil
	}
	fmt.Fprintf(e.Out, `Postern: your agent works with all of its keys and holds none of them.

  postern setup              take the keys out of this directory's .env
  postern run -- COMMAND     start the agent with placeholders
  postern status             what is going on

  postern undo               put everything back, byte for byte
  postern doctor             what this machine can do
  postern help               all commands
`)
	return nil
}

func showStatus(e *env, w io.Writer, s app.Status) {
	if !s.SetUp {
		fmt.Fprintf(w, "Nothing is set up yet.\nnext  postern setup\n")
		return
	}
	mode := e.Paint(term.Good, e.Symbol("on")+" enforced")
	if s.Mode != "enforced" {
		mode = e.Paint(term.Amber, e.Symbol("half")+" cooperative")
	}
	daemon := "no daemon: `run` serves itself"
	if s.Daemon.Running {
		daemon = fmt.Sprintf("daemon %d, %s", s.Daemon.PID, s.Daemon.Safe)
	}
	fmt.Fprintf(w, "Postern  %s   %s\n", mode, daemon)
	fmt.Fprintf(w, "  safe     %s, root key by %s\n", count(s.Safe.Secrets, "secret"), s.Safe.Root)
	for _, a := range s.Agents {
		fmt.Fprintf(w, "  agent    %s  %s  egress %s  %s\n", a.Name, count(a.Secrets, "secret"), a.Egress, term.Safe(a.Directory))
		if len(a.Real) > 0 {
			fmt.Fprintf(w, "           %s\n", e.Paint(term.Amber, "protected except "+strings.Join(a.Real, ", ")+" (real)"))
		}
		if a.Proved.IsZero() && a.Directory != "" {
			fmt.Fprintf(w, "           %s\n", e.Paint(term.Amber, e.Symbol("warn")+" the three proofs were not made   next  postern setup "+term.Safe(a.Directory)))
		} else if !a.Proved.IsZero() {
			fmt.Fprintf(w, "           %s proved %s\n", e.Symbol("ok"), a.Proved.UTC().Format(time.DateTime))
		}
		if a.FirstUse != "" {
			fmt.Fprintf(w, "           %s first real call: %s\n", e.Symbol("ok"), term.Safe(a.FirstUse))
		}
		for _, t := range append(append([]string{}, a.TCP...), a.Unix...) {
			fmt.Fprintf(w, "           local service granted: %s\n", term.Safe(t))
		}
	}
	for _, d := range s.Dial {
		fmt.Fprintf(w, "  %s\n", e.Paint(term.Amber, "dial     "+term.Safe(d)+"   (config.yaml, past the address check)"))
	}
	for _, warning := range s.Warnings {
		fmt.Fprintf(w, "  %s\n", e.Paint(term.Amber, e.Symbol("warn")+" "+term.Safe(warning)))
	}
	if s.LastRun > 0 {
		fmt.Fprintf(w, "  undo     postern undo %d   takes back the last change of files\n", s.LastRun)
	}
	fmt.Fprintf(w, "next  %s\n", s.Next)
}

// count is a number with its noun.
func count(n int, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return fmt.Sprintf("%d %s", n, noun)
}
