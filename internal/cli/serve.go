package cli

import (
	"github.com/spf13/cobra"
)

func newServe(e *env) *cobra.Command {
	proxy := ""
	cmd := &cobra.Command{
		Use: "serve", Short: "stay in the background: hold the safe open and serve the agents",
		Example: "postern serve\npostern serve --proxy 127.0.0.1:8118      for clients outside of run", Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			a, err := e.locked(cmd.Context())
			if err != nil {
				return err
			}
			return a.Serve(cmd.Context(), proxy, func(format string, args ...any) { e.say(format, args...) })
		},
	}
	cmd.Flags().StringVar(&proxy, "proxy", "", "also listen on `ADDR:PORT` as an HTTP proxy and for base URLs")
	return cmd
}
