package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"postern/internal/app"
	"postern/internal/fail"
	"postern/internal/secret"
	"postern/internal/term"
)

// env is what commands share: streams, clock, environment, and the installation,
// which is opened when a command first asks for it.
type env struct {
	*term.Streams
	getenv func(string) string
	now    func() time.Time
	json   bool
	debug  bool

	opened *app.App
}

func newEnv(s *term.Streams) *env {
	return &env{Streams: s, getenv: os.Getenv, now: time.Now}
}

// options are what app needs to open or make an installation.
func (e *env) options() app.Options {
	return app.Options{Getenv: e.getenv, Now: e.now, Passphrase: e.passphrase}
}

// passphrase asks for one; it comes by no other way.
func (e *env) passphrase(question string) (secret.Value, error) {
	if e.NoInput || !e.InTTY {
		return secret.Value{}, fail.New(fail.Invalid, "P-E003", "the passphrase of the safe is needed and cannot be asked for").
			Because("standard input is not a terminal, or --no-input was given").Hint("postern safe unlock   in a terminal, while `postern serve` is running")
	}
	return e.Hidden(question)
}

// app opens the installation with the safe unlocked.
func (e *env) app(ctx context.Context) (*app.App, error) {
	if e.opened != nil {
		return e.opened, nil
	}
	a, err := app.Open(ctx, e.options())
	if err != nil {
		return nil, err
	}
	e.opened = a
	return a, nil
}

func (e *env) close() error {
	if e.opened == nil {
		return nil
	}
	a := e.opened
	e.opened = nil
	return a.Close()
}

// writeJSON writes v as the one JSON document of a command.
func (e *env) writeJSON(v any) error {
	enc := json.NewEncoder(e.Out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// say talks on standard error, unless --quiet.
func (e *env) say(format string, args ...any) {
	if !e.Quiet {
		fmt.Fprintf(e.Err, format+"\n", args...)
	}
}

// jsonFlag adds --json to a command that reads.
func (e *env) jsonFlag(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&e.json, "json", false, "print one JSON document; 'postern schema' describes it")
}

// confirmName asks for the name of a thing that is about to be destroyed;
// scripts give it by --confirm.
func (e *env) confirmName(given, name, what string) error {
	if given == name {
		return nil
	}
	if given != "" {
		return fail.New(fail.Invalid, "P-E006", "--confirm names %q, not %q", given, name).Hint("--confirm %s", name)
	}
	if e.NoInput || !e.InTTY {
		return fail.New(fail.Invalid, "P-E006", "%s needs the name of the thing once more", what).Hint("--confirm %s", name)
	}
	ok, err := e.Confirm(what+": go on?", false)
	if err != nil {
		return err
	}
	if !ok {
		return errDeclined()
	}
	return nil
}

func errDeclined() error {
	return fail.New(fail.Invalid, "P-E007", "nothing was done").Because("the question was answered with no")
}

// absolute is path as an absolute one, without looking at the file system.
func absolute(path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", errors.Join(errors.New("finding the current directory"), err)
	}
	return abs, nil
}

// locked opens the installation without unlocking the safe: enough for names,
// dates and rules.
func (e *env) locked(ctx context.Context) (*app.App, error) {
	if e.opened != nil {
		return e.opened, nil
	}
	a, err := app.OpenLocked(ctx, e.options())
	if err != nil {
		return nil, err
	}
	e.opened = a
	return a, nil
}
