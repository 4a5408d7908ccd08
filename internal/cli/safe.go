package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"postern/internal/app"
	"postern/internal/fail"
)

func newSafe(e *env) *cobra.Command {
	return group("safe", "where the values are kept", newSafeInit(e), newSafeLock(e), newSafeUnlock(e), newSafeRekey(e))
}

func newSafeInit(e *env) *cobra.Command {
	root := ""
	cmd := &cobra.Command{
		Use: "init", Short: "make an empty safe", Example: "postern safe init --root passphrase", Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			exists, err := app.Exists(e.options())
			if err != nil {
				return err
			}
			if exists {
				return fail.New(fail.Conflict, "P-E011", "there is a safe already").Hint("postern status")
			}
			choice, err := chooseRoot(e, setupOptions{root: root})
			if err != nil {
				return err
			}
			a, err := app.Create(cmd.Context(), e.options(), choice)
			if err != nil {
				return err
			}
			e.opened = a
			fmt.Fprintf(e.Out, "The safe is made; root key by %s.\nnext  postern secret add NAME\n", a.RootWords())
			return nil
		},
	}
	cmd.Flags().StringVar(&root, "root", "", "keep the root key by `WAY`: keyfile, passphrase or systemd")
	return cmd
}

func newSafeLock(e *env) *cobra.Command {
	return &cobra.Command{
		Use: "lock", Short: "make the daemon forget the keys; calls with secrets are refused until unlock", Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := app.LockDaemon(cmd.Context(), e.options()); err != nil {
				return err
			}
			fmt.Fprintln(e.Out, "The daemon has locked the safe.")
			return nil
		},
	}
}

func newSafeUnlock(e *env) *cobra.Command {
	return &cobra.Command{
		Use: "unlock", Short: "let the daemon open the safe again", Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := app.UnlockDaemon(cmd.Context(), e.options()); err != nil {
				return err
			}
			fmt.Fprintln(e.Out, "The daemon has unlocked the safe.")
			return nil
		},
	}
}

func newSafeRekey(e *env) *cobra.Command {
	root := ""
	cmd := &cobra.Command{
		Use: "rekey", Short: "make a new root key, or keep it another way", Example: "postern safe rekey --root passphrase", Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			a, err := e.app(cmd.Context())
			if err != nil {
				return err
			}
			if root == "" {
				root = a.Safe.RootKind()
			}
			if err := app.CheckRoot(root); err != nil {
				return err
			}
			if err := a.Rekey(cmd.Context(), root); err != nil {
				return err
			}
			fmt.Fprintf(e.Out, "The safe has a new root key, by %s.\n", a.RootWords())
			return nil
		},
	}
	cmd.Flags().StringVar(&root, "root", "", "`WAY` to keep it: keyfile, passphrase or systemd (default: as now)")
	return cmd
}
