package cli

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"postern/internal/app"
	"postern/internal/event"
	"postern/internal/fail"
	"postern/internal/term"
)

func newLedger(e *env) *cobra.Command {
	return group("ledger", "the record of every use and every change", newLedgerTail(e), newLedgerFind(e), newLedgerVerify(e))
}

func newLedgerTail(e *env) *cobra.Command {
	lines := 20
	cmd := &cobra.Command{
		Use: "tail", Short: "show the last records", Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			events, err := app.LedgerTail(cmd.Context(), e.options(), lines)
			if err != nil {
				return err
			}
			return showEvents(e, events)
		},
	}
	cmd.Flags().IntVarP(&lines, "lines", "n", lines, "how `MANY`")
	e.jsonFlag(cmd)
	return cmd
}

func showEvents(e *env, events []event.Event) error {
	if e.json {
		return e.writeJSON(append([]event.Event{}, events...))
	}
	rows := make([][]string, 0, len(events))
	for _, ev := range events {
		rows = append(rows, []string{
			strconv.FormatUint(ev.Seq, 10), ev.Time.UTC().Format(time.DateTime), string(ev.Kind), ev.Agent, ev.Credential,
			strings.TrimSpace(ev.Method + " " + strings.TrimSuffix(ev.Host, ":443") + ev.Path), outcome(ev),
		})
	}
	return e.Table(e.Out, []string{"SEQ", "TIME (UTC)", "WHAT", "AGENT", "SECRET", "WHERE", "HOW"}, rows)
}

func outcome(ev event.Event) string {
	if ev.Status != 0 {
		return strconv.Itoa(ev.Status)
	}
	return ev.Reason
}

func newLedgerFind(e *env) *cobra.Command {
	var f app.LedgerFilter
	since := ""
	cmd := &cobra.Command{
		Use: "find", Short: "search the records", Example: "postern ledger find --agent bot --kind refused --since 24h", Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if since != "" {
				d, err := time.ParseDuration(since)
				if err != nil || d <= 0 {
					return fail.New(fail.Invalid, "P-E001", "--since takes a time such as 90m or 24h, not %q", since)
				}
				f.Since = e.now().Add(-d)
			}
			events, err := app.LedgerFind(cmd.Context(), e.options(), f)
			if err != nil {
				return err
			}
			return showEvents(e, events)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.Agent, "agent", "", "only of `AGENT`")
	flags.StringVar(&f.Credential, "secret", "", "only of `SECRET`")
	flags.StringVar(&f.Kind, "kind", "", "only `KIND`, such as use, refused, tripwire")
	flags.StringVar(&f.Host, "host", "", "only of `HOST`")
	flags.StringVar(&since, "since", "", "not older than `TIME`, such as 24h")
	e.jsonFlag(cmd)
	return cmd
}

func newLedgerVerify(e *env) *cobra.Command {
	var kept []string
	cmd := &cobra.Command{
		Use: "verify", Short: "check every record, the tree and the signature", Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			report, err := app.LedgerVerify(cmd.Context(), e.options(), kept...)
			if err != nil {
				return err
			}
			if e.json {
				if err := e.writeJSON(report); err != nil {
					return err
				}
			} else {
				showLedgerReport(e, report)
			}
			if !report.OK {
				return exitCode(fail.Findings.ExitCode())
			}
			return nil
		},
	}
	cmd.Flags().StringArrayVar(&kept, "checkpoint", nil, "a checkpoint `FILE` that was kept where the agent cannot write")
	e.jsonFlag(cmd)
	return cmd
}

func showLedgerReport(e *env, r app.LedgerReport) {
	if r.OK {
		fmt.Fprintf(e.Out, "%s %d records, checkpoint at %d, signature holds\n", e.Paint(term.Good, e.Symbol("ok")), r.Records, r.Checkpoint)
	} else {
		fmt.Fprintf(e.Out, "%s %s\n", e.Paint(term.Bad, e.Symbol("fail")), term.Safe(r.Problem))
	}
	for _, limit := range r.Limits {
		fmt.Fprintf(e.Out, "%s %s\n", e.Symbol("warn"), limit)
	}
}
