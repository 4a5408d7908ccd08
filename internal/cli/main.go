// Package cli is the command line: one file a command. Standard output is the
// result, standard error the talk.
package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"postern/internal/app"
	"postern/internal/fail"
	"postern/internal/term"
)

// Exit codes beside those of fail.Kind.
const (
	exitInterrupted = 130
	exitTerminated  = 143
)

// exitCode is an outcome that is no error: the code of a child, or findings
// that were shown already.
type exitCode int

func (c exitCode) Error() string { return "exit code" }

// Main runs the command line args (the program's name first) and returns the
// exit code. A process that was started as a part of a sandbox never returns.
func Main(args []string) int {
	app.ChildMain()
	if err := app.Guard(); err != nil {
		fmt.Fprintln(os.Stderr, "postern: this process cannot be kept from others:", err)
		return fail.Internal.ExitCode()
	}
	defer startFast(os.Getenv("GOGC")).Stop()
	e := newEnv(term.System(os.Getenv))
	ctx, stop := interruptible()
	defer stop()
	return e.main(ctx, args[1:])
}

// startFast puts garbage collection off: most commands end, and `run` has started
// its own, before one would pay. What stays is collected as usual soon after,
// unless the user chose a value for GOGC.
func startFast(chosen string) *time.Timer {
	const soon = time.Second
	if chosen != "" {
		return time.NewTimer(0)
	}
	usual := debug.SetGCPercent(400)
	return time.AfterFunc(soon, func() { debug.SetGCPercent(usual) })
}

// interruptible ends the context at SIGINT or SIGTERM; the second one kills.
func interruptible() (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	go func() {
		code := exitCode(exitInterrupted)
		if s := <-signals; s == syscall.SIGTERM {
			code = exitTerminated
		}
		signal.Stop(signals)
		cancel(code)
	}()
	return ctx, func() { signal.Stop(signals); cancel(nil) }
}

// main is Main with everything given.
func (e *env) main(ctx context.Context, args []string) int {
	root := newRoot(e)
	root.SetArgs(args)
	root.SetIn(e.In)
	root.SetOut(e.Out)
	root.SetErr(e.Err)
	err := root.ExecuteContext(ctx)
	closeErr := e.close()
	if err == nil {
		err = closeErr
	}
	if err == nil {
		return 0
	}
	var code exitCode
	if errors.As(err, &code) {
		return int(code)
	}
	if errors.As(context.Cause(ctx), &code) && errors.Is(err, context.Canceled) {
		return int(code)
	}
	err = readable(err)
	e.Report(e.Err, err)
	return fail.KindOf(err).ExitCode()
}

// readable gives errors of the command library an id and a next step.
func readable(err error) error {
	var known *fail.Error
	var problems fail.Problems
	switch {
	case errors.As(err, &known):
		return err
	case errors.As(err, &problems):
		return fail.New(fail.Invalid, "P-E005", "%s has a mistake", problems[0].File).Wrap(problems)
	}
	return err
}
