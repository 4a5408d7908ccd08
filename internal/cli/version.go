package cli

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// Version is what `postern version --json` shows.
type Version struct {
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"`
	Go       string `json:"go"`
	System   string `json:"system"`
}

func newVersion(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use: "version", Short: "show the version", Args: args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			v := version()
			if e.json {
				return e.writeJSON(v)
			}
			fmt.Fprintf(e.Out, "postern %s (%s, %s)\n", v.Version, v.System, v.Go)
			return nil
		},
	}
	e.jsonFlag(cmd)
	return cmd
}

func version() Version {
	v := Version{Version: "devel", Go: runtime.Version(), System: runtime.GOOS + "/" + runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return v
	}
	if m := info.Main.Version; m != "" && m != "(devel)" {
		v.Version = m
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			v.Revision = s.Value
		}
	}
	return v
}
