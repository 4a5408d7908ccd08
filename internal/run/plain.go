package run

import (
	"os"
	osexec "os/exec"
	"os/signal"
	"syscall"

	"postern/internal/fail"
)

// StartPlain starts the command without namespaces: the cooperative mode, in
// which a program that ignores the proxy variables goes its own way. It waits
// and gives the exit code as Wait does.
func StartPlain(s Spec) (int, error) {
	stdio, err := newStdio(s)
	if err != nil {
		return 125, err
	}
	defer stdio.restore()
	path, err := lookUp(s.Command[0], s.Env)
	if err != nil {
		return exitOf(err), fail.New(fail.NotFound, "P-E127", "%s could not be started", s.Command[0]).Wrap(err)
	}
	cmd := &osexec.Cmd{
		Path: path, Args: s.Command, Env: s.Env, Dir: s.Dir,
		Stdin: stdio.childIn, Stdout: stdio.childOut, Stderr: stdio.childErr,
		SysProcAttr: &syscall.SysProcAttr{Setsid: stdio.tty != nil, Setctty: stdio.tty != nil},
	}
	if s.User != nil {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: s.User.UID, Gid: s.User.GID, Groups: s.User.Groups}
	}
	if err := cmd.Start(); err != nil {
		return exitOf(err), fail.New(fail.Invalid, "P-E126", "%s could not be started", s.Command[0]).Wrap(err)
	}
	stdio.started()
	stdio.release(nil)
	stop := forward(func(number syscall.Signal) { _ = cmd.Process.Signal(number) }, stdio.tty != nil || s.Stdin != nil && isTerminal(s.Stdin))
	defer stop()
	_ = cmd.Wait()
	if err := stdio.finish(); err != nil {
		return 125, err
	}
	status := cmd.ProcessState.Sys().(syscall.WaitStatus)
	if status.Signaled() {
		return 128 + int(status.Signal()), nil
	}
	return status.ExitStatus(), nil
}

// Forward passes the signals that this process gets on to the command, until
// stop.
func (p *Process) Forward() (stop func()) {
	return forward(p.Signal, p.stdio.tty != nil || p.spec.Stdin != nil && isTerminal(p.spec.Stdin))
}

// forward passes signals on. At a terminal the keyboard's signals reach the
// command by themselves, so that they are not sent a second time.
func forward(send func(syscall.Signal), atTerminal bool) (stop func()) {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2)
	go func() {
		for s := range signals {
			number := s.(syscall.Signal)
			if atTerminal && (number == syscall.SIGINT || number == syscall.SIGQUIT) {
				continue
			}
			send(number)
		}
	}()
	return func() { signal.Stop(signals); close(signals) }
}
