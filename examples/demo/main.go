// Command demo shows Postern's main job from end to end on this machine: an
// agent with official SDKs, generated keys, providers that answer to those keys
// alone, and three proofs, each measured in this run. See `make demo`.
//
//	AGENT=node|python              which of the examples
//	DEMO_BREAK=inject|redact|mask  switch that part off; then the demo must fail
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

// longest bounds the whole demo, a first build and installing included.
const longest = 8 * time.Minute

func main() {
	if len(os.Args) == 3 && os.Args[1] == "probe" {
		exitWith(probeInside(os.Args[2]))
	}
	// A child gets a signal when the thread ends that started it: this one stays.
	runtime.LockOSThread()
	signals, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	ctx, cancel := context.WithTimeout(signals, longest)
	defer cancel()
	err := demo(ctx, os.Getenv("AGENT"), os.Getenv("DEMO_BREAK"))
	if err != nil && signals.Err() != nil {
		err = errors.New("stopped")
	}
	exitWith(err)
}

func exitWith(err error) {
	if errors.Is(err, errNotProved) {
		os.Exit(1)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// errNotProved says that a proof failed, which was shown already.
var errNotProved = errors.New("not all of the proofs hold")

func say(format string, args ...any) { fmt.Printf(format+"\n", args...) }

// Proofs are the three measurements.
type Proofs struct {
	ThroughBroker bool `json:"through_broker"`
	NoValue       bool `json:"no_value"`
	DirectRefused bool `json:"direct_refused"`
}

func demo(ctx context.Context, agentName, broken string) error {
	if agentName == "" {
		agentName = "node"
	}
	a, found := agents()[agentName]
	if !found {
		return fmt.Errorf("there is no AGENT=%s: there are node and python", agentName)
	}
	if !slices.Contains([]string{"", "inject", "redact", "mask"}, broken) {
		return fmt.Errorf("there is no DEMO_BREAK=%s: there are inject, redact and mask", broken)
	}
	w := &world{agent: a, broken: broken}
	defer w.remove()
	if err := w.prepare(ctx); err != nil {
		return err
	}
	if broken != "" {
		say("DEMO_BREAK=%s: this Postern is built with that part switched off, so a proof must fail.", broken)
	}
	say("%s has a .env with %d keys, made up for this run. The fake providers answer to these keys alone.\n\n$ postern setup --yes --root keyfile", a.name, len(w.keys)-1)
	if err := w.setUp(ctx); err != nil {
		return err
	}
	m, err := w.watch(ctx)
	if err != nil {
		return err
	}
	return w.verdict(m)
}

// measured is all that one run of the agent gave.
type measured struct {
	exit     int
	failures []string // steps of the agent that did not work
	early    bool     // it ended before it could be looked into
	found    findings
	blind    error // why it could not be looked into
	inside   reached
	probing  error
	outside  reached
}

// verdict shows what happened, and the proofs.
func (w *world) verdict(m measured) error {
	var p Proofs
	calls := w.fakes.Calls()
	p.ThroughBroker = m.exit == 0 && len(m.failures) == 0 && !m.early
	say("\nWhat the providers saw          with the real key   without   what the agent held")
	for _, host := range w.agent.hosts {
		n := calls[host]
		say("  %-30s %10d %14d      %s", host, n.Accepted, n.Refused, w.heldFor(host))
		p.ThroughBroker = p.ThroughBroker && n.Accepted > 0
	}
	for _, n := range calls {
		p.ThroughBroker = p.ThroughBroker && n.Refused == 0
	}
	f := m.found
	p.NoValue = m.blind == nil && !m.early && len(f.values) == 0 && f.controls > 0
	p.DirectRefused = m.probing == nil && m.inside.TCP != "connected" && m.inside.UDP != "sent" && m.inside.UDP != "lost on the way" && m.outside.TCP == "connected"

	say("")
	proof(p.ThroughBroker, "through_broker", "every provider got the real key, and none got anything else", w.whyNotThrough(m))
	proof(p.NoValue, "no_value", fmt.Sprintf("%d keys in %d forms: none in the environment and memory of %s,\n                     in %d files, or in what it received (%d MB; its placeholders were found %d times)",
		len(w.keys), w.forms, strings.Join(f.programs, " and "), f.files, f.bytes>>20, f.controls), whyValue(m))
	proof(p.DirectRefused, "direct_refused", fmt.Sprintf("inside, %s does not answer (outside it does), nor does UDP go out\n                     tcp: %s · udp: %s", w.fakes.Addr(), tail(m.inside.TCP), tail(m.inside.UDP)), whyDirect(m))
	line, err := json.Marshal(map[string]Proofs{"proofs": p})
	if err != nil {
		return err
	}
	say("\n%s", line)
	if p != (Proofs{true, true, true}) {
		return errNotProved
	}
	return nil
}

func proof(holds bool, name, text, why string) {
	if holds {
		say("  ✓ %-16s %s", name, text)
		return
	}
	say("  ✗ %-16s %s", name, why)
}

// tail is the reason at the end of a network error.
func tail(text string) string {
	parts := strings.Split(text, ": ")
	return parts[len(parts)-1]
}

func (w *world) whyNotThrough(m measured) string {
	switch {
	case m.early:
		return "the agent ended too early"
	case len(m.failures) > 0:
		return fmt.Sprintf("%d of the agent's steps failed", len(m.failures))
	case m.exit != 0:
		return fmt.Sprintf("the agent ended with %d", m.exit)
	}
	return "a provider was not called with the real key, or refused a call"
}

func whyValue(m measured) string {
	switch f := m.found; {
	case m.early:
		return "the agent ended before it could be looked into"
	case m.blind != nil:
		return "the agent could not be looked into: " + m.blind.Error()
	case len(f.values) > 0:
		return fmt.Sprintf("found %d, for instance %s", len(f.values), f.values[0])
	}
	return "the search was blind: it did not even find the placeholders"
}

func whyDirect(m measured) string {
	if m.probing != nil {
		return "not measured: " + m.probing.Error()
	}
	return fmt.Sprintf("inside: tcp %s, udp %s; outside: tcp %s", m.inside.TCP, m.inside.UDP, m.outside.TCP)
}
