//go:build demobreak

package app

import (
	"context"
	"os"
	"strings"

	"postern/internal/broker"
	"postern/internal/credential"
	"postern/internal/redact"
	"postern/internal/run"
	"postern/internal/secret"
)

// breaks switches one protection off, as DEMO_BREAK says. Only the demo is built
// like this, to show that its proofs fail when they should.
func breaks(c broker.Config) broker.Config {
	switch os.Getenv("DEMO_BREAK") {
	case "inject":
		c.Leaser = noValues{c.Leaser}
	case "redact":
		c.Known = func(context.Context, string) ([]redact.Known, error) { return nil, nil }
	}
	return c
}

// noValues lends a text that opens nothing.
type noValues struct{ broker.Leaser }

func (n noValues) Lease(ctx context.Context, agent, name string) (secret.Value, credential.Version, error) {
	_, version, err := n.Leaser.Lease(ctx, agent, name)
	return secret.New([]byte("switched-off-by-the-demo")), version, err
}

// breakSpec leaves files uncovered and the variables of the environment as they
// were.
func breakSpec(s run.Spec) run.Spec {
	if os.Getenv("DEMO_BREAK") == "mask" {
		asItWas := map[string]string{}
		for _, pair := range os.Environ() {
			name, value, _ := strings.Cut(pair, "=")
			asItWas[name] = value
		}
		s.Hidden, s.Masked, s.Env = nil, nil, with(s.Env, asItWas)
	}
	return s
}
