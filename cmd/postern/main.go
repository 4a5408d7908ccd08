// Command postern keeps the keys of AI agents: an agent works with all of its
// keys and holds none of them.
package main

import (
	"os"

	"postern/internal/cli"
)

func main() { os.Exit(cli.Main(os.Args)) }
