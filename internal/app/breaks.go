//go:build !demobreak

package app

import (
	"postern/internal/broker"
	"postern/internal/run"
)

// breaks and breakSpec change nothing. The demo, which must show that its proofs
// can fail, is built with the tag demobreak; see breaks_demo.go.
func breaks(c broker.Config) broker.Config { return c }

func breakSpec(s run.Spec) run.Spec { return s }
