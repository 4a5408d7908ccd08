package cli

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"postern/internal/catalog"
	"postern/internal/config"
	"postern/internal/fail"
)

func newCatalog(e *env) *cobra.Command {
	return group("catalog", "which kinds of credentials Postern knows", newCatalogLs(e), newCatalogShow(e), newCatalogCheck(e))
}

// openCatalog opens the embedded kinds and those of the user.
func (e *env) openCatalog() (*catalog.Catalog, error) {
	paths, err := config.Locate(e.getenv)
	if err != nil {
		return nil, err
	}
	return catalog.Open(paths.CatalogDir())
}

func newCatalogLs(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use: "ls", Short: "list the kinds", Example: "postern catalog ls\npostern catalog ls --json", Args: args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			c, err := e.openCatalog()
			if err != nil {
				return err
			}
			kinds, err := c.Kinds()
			if err != nil {
				e.Report(e.Err, err) // the good kinds are listed all the same
			}
			records := make([]catalog.Record, 0, len(kinds))
			rows := make([][]string, 0, len(kinds))
			for _, k := range kinds {
				r := k.Record()
				records = append(records, r)
				rows = append(rows, []string{r.ID, r.Title, strings.Join(r.Hosts, " "), rotation(r.RotateDays)})
			}
			if e.json {
				return e.writeJSON(records)
			}
			return e.Table(e.Out, []string{"KIND", "WHAT", "GOES TO", "ROTATE"}, rows)
		},
	}
	e.jsonFlag(cmd)
	return cmd
}

func rotation(days int) string {
	if days == 0 {
		return "-"
	}
	return strconv.Itoa(days) + " d"
}

func newCatalogShow(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use: "show KIND", Short: "show what is known of one kind", Example: "postern catalog show anthropic.api", Args: args(cobra.ExactArgs(1)),
		RunE: func(_ *cobra.Command, words []string) error {
			c, err := e.openCatalog()
			if err != nil {
				return err
			}
			k, err := c.Kind(words[0])
			if err != nil {
				return err
			}
			if e.json {
				return e.writeJSON(k)
			}
			return e.Table(e.Out, nil, kindRows(k))
		},
	}
	e.jsonFlag(cmd)
	return cmd
}

func kindRows(k *catalog.Kind) [][]string {
	slots := make([]string, 0, len(k.Slots))
	for _, s := range k.Slots {
		slots = append(slots, strings.TrimSpace(s.In+" "+s.Name+s.Part+s.Pointer))
	}
	source := k.Source
	if k.Checked != "" {
		source += " (read on " + k.Checked + ")"
	}
	rows := [][]string{
		{"kind", k.ID}, {"what", k.Title}, {"provider", k.Provider}, {"risk", k.Risk},
		{"goes to", strings.Join(k.Hosts, " ")}, {"stands in", strings.Join(slots, ", ")},
		{"variables", strings.Join(k.Env, " ")}, {"protocol", k.Protocol}, {"rotate", rotation(k.RotateDays)},
		{"console", k.Console}, {"basis", k.Basis}, {"source", source},
	}
	if k.Placeholder.None != "" {
		rows = append(rows, []string{"no placeholder", k.Placeholder.None})
	}
	kept := rows[:0]
	for _, r := range rows {
		if r[1] != "" {
			kept = append(kept, r)
		}
	}
	return kept
}

func newCatalogCheck(e *env) *cobra.Command {
	return &cobra.Command{
		Use: "check", Short: "check every entry, your own files too", Args: args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			c, err := e.openCatalog()
			if err != nil {
				return err
			}
			if problems := c.Check(); len(problems) > 0 {
				return fail.New(fail.Invalid, "P-E082", "the catalogue has %d mistakes", len(problems)).Wrap(problems)
			}
			kinds, err := c.Kinds()
			if err != nil {
				return errors.Join(err)
			}
			fmt.Fprintf(e.Out, "%d kinds, no mistake\n", len(kinds))
			return nil
		},
	}
}
