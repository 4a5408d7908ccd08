package cli

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"postern/internal/app"
	"postern/internal/credential"
	"postern/internal/fail"
	"postern/internal/secret"
	"postern/internal/term"
)

func newSecret(e *env) *cobra.Command {
	return group("secret", "the keys in the safe", newSecretAdd(e), newSecretImport(e), newSecretLs(e), newSecretShow(e),
		newSecretRm(e), newSecretHistory(e), newSecretSwitch(e, true), newSecretSwitch(e, false))
}

type addOptions struct {
	app.NewSecret
	environment string
	file        string
	fd          int
	stdin       bool
}

func newSecretAdd(e *env) *cobra.Command {
	o := addOptions{fd: -1}
	cmd := &cobra.Command{
		Use: "add NAME", Short: "keep a value; it is asked for, or read from standard input, a file or a descriptor",
		Example: "postern secret add anthropic\npass show openai | postern secret add openai --stdin\npostern secret add hooks --kind generic --host api.example.com < key",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, words []string) error {
			o.Name = words[0]
			return runSecretAdd(cmd.Context(), e, o)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&o.Kind, "kind", "", "`KIND` of the catalogue (default: recognised from the value)")
	flags.StringArrayVar(&o.Hosts, "host", nil, "`HOST` that a generic secret may be sent to; may be repeated")
	flags.StringVar(&o.Variable, "variable", "", "environment `VARIABLE` that agents read it from")
	flags.StringVar(&o.Agent, "agent", "", "grant it to `AGENT` and make its placeholder")
	flags.StringVar(&o.environment, "environment", "", "`ENV` that it belongs to: dev, staging or prod")
	flags.BoolVar(&o.stdin, "stdin", false, "read the value from standard input")
	flags.StringVar(&o.file, "file", "", "read the value from `FILE` (- is standard input)")
	flags.IntVar(&o.fd, "fd", -1, "read the value from an open descriptor `N`")
	e.jsonFlag(cmd)
	return cmd
}

func runSecretAdd(ctx context.Context, e *env, o addOptions) error {
	if o.environment != "" {
		env, ok := credential.ParseEnvironment(o.environment)
		if !ok {
			return fail.New(fail.Invalid, "P-E010", "%q is no environment", o.environment).Because("there are dev, staging and prod")
		}
		o.Environment = env
	}
	a, err := e.app(ctx)
	if err != nil {
		return err
	}
	value, err := e.readValue(o)
	if err != nil {
		return err
	}
	added, err := a.AddSecret(ctx, o.NewSecret, value)
	if err != nil {
		return err
	}
	if e.json {
		return e.writeJSON(added)
	}
	fmt.Fprintf(e.Out, "%s is kept as %s (%s, version %d).\n", added.Credential.Name, added.Mask, added.Credential.Kind, added.Version)
	if added.Short {
		e.say("%s it has fewer than 8 bytes: an answer that quotes it would not be masked", e.Symbol("warn"))
	}
	if added.Placeholder != "" {
		fmt.Fprintf(e.Out, "%s holds instead: %s\n", o.Agent, added.Placeholder)
	} else {
		fmt.Fprintf(e.Out, "next  postern agent add NAME --secret %s\n", added.Credential.Name)
	}
	return nil
}

// readValue takes a value in by the way that was asked for.
func (e *env) readValue(o addOptions) (secret.Value, error) {
	switch {
	case o.stdin || o.file == "-":
		return term.ReadSecret(e.In)
	case o.file != "":
		in, err := os.Open(o.file)
		if err != nil {
			return secret.Value{}, fail.New(fail.Invalid, "P-E004", "the value cannot be read from %s", o.file).Wrap(err)
		}
		defer in.Close()
		return term.ReadSecret(in)
	case o.fd >= 0:
		in := os.NewFile(uintptr(o.fd), "fd "+strconv.Itoa(o.fd))
		if in == nil {
			return secret.Value{}, fail.New(fail.Invalid, "P-E004", "descriptor %d is not open", o.fd)
		}
		defer in.Close()
		return term.ReadSecret(in)
	case !e.InTTY:
		return term.ReadSecret(e.In)
	}
	value, err := e.Hidden("Value (not shown):")
	if err == nil && value.IsZero() {
		err = fail.New(fail.Invalid, "P-E004", "the value is empty")
	}
	return value, err
}

func newSecretImport(e *env) *cobra.Command {
	o := setupOptions{}
	cmd := &cobra.Command{
		Use: "import DIR|FILE", Short: "take new keys out of a directory that is protected already",
		Example: "postern secret import .", Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, words []string) error {
			o.dir = words[0]
			if info, err := os.Stat(o.dir); err == nil && !info.IsDir() {
				o.dir = filepath.Dir(o.dir) // the files of a directory belong together
			}
			return runSetup(cmd.Context(), e, o)
		},
	}
	cmd.Flags().BoolVarP(&o.yes, "yes", "y", false, "ask nothing, take the proposed answers")
	cmd.Flags().StringVar(&o.agent, "agent", "", "`NAME` of the agent (default: the directory's)")
	e.jsonFlag(cmd)
	return cmd
}

func newSecretLs(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use: "ls", Short: "list what the safe keeps; values are never shown", Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			a, err := e.locked(cmd.Context())
			if err != nil {
				return err
			}
			list, err := a.Safe.List(cmd.Context())
			if err != nil {
				return err
			}
			if e.json {
				return e.writeJSON(append([]credential.Credential{}, list...))
			}
			rows := make([][]string, 0, len(list))
			for _, c := range list {
				v, _ := c.CurrentVersion()
				rows = append(rows, []string{c.Name, c.Kind, string(c.Environment), v.Mask, strconv.Itoa(v.Number), age(e.now(), v.Created), secretState(c)})
			}
			if len(rows) == 0 {
				fmt.Fprintln(e.Out, "The safe is empty.\nnext  postern setup")
				return nil
			}
			return e.Table(e.Out, []string{"NAME", "KIND", "ENV", "VALUE", "VERSION", "AGE", "STATE"}, rows)
		},
	}
	e.jsonFlag(cmd)
	return cmd
}

func secretState(c credential.Credential) string {
	var words []string
	if c.Disabled {
		words = append(words, "disabled")
	}
	if c.Restored {
		words = append(words, "real in a file")
	}
	if len(words) == 0 {
		return "in use"
	}
	return strings.Join(words, ", ")
}

// age is how old something is, in days, or hours of the first day.
func age(now, then time.Time) string {
	if then.IsZero() {
		return "-"
	}
	if d := now.Sub(then); d < 24*time.Hour {
		return fmt.Sprintf("%d h", int(d.Hours()))
	}
	return fmt.Sprintf("%d d", int(now.Sub(then).Hours()/24))
}

func newSecretShow(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use: "show NAME", Short: "show what is known of a secret, not its value", Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, words []string) error {
			a, err := e.locked(cmd.Context())
			if err != nil {
				return err
			}
			c, err := a.Safe.Get(cmd.Context(), words[0])
			if err != nil {
				return err
			}
			holders, err := a.Holders(cmd.Context(), c.Name)
			if err != nil {
				return err
			}
			if e.json {
				return e.writeJSON(SecretDetail{Credential: c, Agents: holders})
			}
			v, _ := c.CurrentVersion()
			return e.Table(e.Out, nil, [][]string{
				{"name", c.Name}, {"kind", c.Kind}, {"environment", string(c.Environment)}, {"value", v.Mask},
				{"bytes", strconv.Itoa(v.Bytes)}, {"fingerprint", v.Fingerprint}, {"version", strconv.Itoa(v.Number)},
				{"age", age(e.now(), v.Created)}, {"hosts", strings.Join(c.Hosts, " ")}, {"came from", c.Origin},
				{"agents", strings.Join(holders, " ")}, {"state", secretState(c)},
			})
		},
	}
	e.jsonFlag(cmd)
	return cmd
}

// SecretDetail is what `postern secret show --json` shows.
type SecretDetail struct {
	credential.Credential
	Agents []string `json:"agents"`
}

func newSecretHistory(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use: "history NAME", Short: "list the versions of a secret", Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, words []string) error {
			a, err := e.locked(cmd.Context())
			if err != nil {
				return err
			}
			c, err := a.Safe.Get(cmd.Context(), words[0])
			if err != nil {
				return err
			}
			if e.json {
				return e.writeJSON(append([]credential.Version{}, c.Versions...))
			}
			rows := make([][]string, 0, len(c.Versions))
			for _, v := range c.Versions {
				rows = append(rows, []string{strconv.Itoa(v.Number), string(v.State), v.Created.UTC().Format(time.RFC3339), v.Mask, v.Fingerprint})
			}
			return e.Table(e.Out, []string{"VERSION", "STATE", "SINCE", "VALUE", "FINGERPRINT"}, rows)
		},
	}
	e.jsonFlag(cmd)
	return cmd
}

func newSecretRm(e *env) *cobra.Command {
	confirm := ""
	cmd := &cobra.Command{
		Use: "rm NAME", Short: "remove a secret and all its versions for good",
		Example: "postern secret rm old-key --confirm old-key", Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, words []string) error {
			a, err := e.app(cmd.Context())
			if err != nil {
				return err
			}
			if _, err := a.Safe.Get(cmd.Context(), words[0]); err != nil {
				return err
			}
			if err := e.confirmName(confirm, words[0], "removing "+words[0]+" for good"); err != nil {
				return err
			}
			if err := a.RemoveSecret(cmd.Context(), words[0]); err != nil {
				return err
			}
			fmt.Fprintf(e.Out, "%s is gone; its placeholders are refused from now on.\n", words[0])
			return nil
		},
	}
	cmd.Flags().StringVar(&confirm, "confirm", "", "`NAME` once more, instead of the question")
	return cmd
}

// newSecretSwitch is `secret disable` or `secret enable`.
func newSecretSwitch(e *env, disable bool) *cobra.Command {
	use, short, done := "enable NAME", "lend a secret again", "is lent again"
	if disable {
		use, short, done = "disable NAME", "stop lending a secret at once", "is not lent any more; open calls were cut"
	}
	return &cobra.Command{
		Use: use, Short: short, Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, words []string) error {
			a, err := e.app(cmd.Context())
			if err != nil {
				return err
			}
			if err := a.SetDisabled(cmd.Context(), words[0], disable); err != nil {
				return err
			}
			fmt.Fprintf(e.Out, "%s %s.\n", words[0], done)
			return nil
		},
	}
}
