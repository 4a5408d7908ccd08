package run

import (
	"errors"
	"os"
	osexec "os/exec"
	"runtime"
	"syscall"

	"postern/internal/fail"
)

// StartPlain runs the command without namespaces: the cooperative mode, in which
// a program that ignores the proxy variables goes its own way. It gives the exit
// code as Wait does; of s only Command, Dir, Env, User, the streams and Filter
// count.
func StartPlain(s Spec) (int, error) {
	if len(s.Command) == 0 {
		return exitOurs, fail.New(fail.Invalid, "P-E124", "there is no command to start")
	}
	path, err := lookUp(s.Command[0], s.Dir, s.Env)
	if err != nil {
		return exitOf(err), notStarted(s.Command[0], exitOf(err), reason(err))
	}
	d, err := newStdio(s)
	if err != nil {
		return exitOurs, err
	}
	defer d.restore()
	attr := &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	if s.User != nil {
		attr.Credential = &syscall.Credential{Uid: s.User.UID, Gid: s.User.GID, Groups: s.User.Groups}
	}
	runtime.LockOSThread() // the command dies with this thread
	defer runtime.UnlockOSThread()
	streams, master := d.child, []*os.File(nil)
	if d.tty {
		ours, slave, err := openTerminal(d.size())
		if err != nil {
			return exitOurs, ownFailure(err)
		}
		d.opened = append(d.opened, slave)
		streams, master = []*os.File{slave, slave, slave}, []*os.File{ours}
		attr.Setctty = true
		if s.User != nil {
			_ = slave.Chown(int(s.User.UID), -1)
		}
	}
	cmd := &osexec.Cmd{Path: path, Args: s.Command, Env: s.Env, Dir: s.Dir, Stdin: streams[0], Stdout: streams[1], Stderr: streams[2], SysProcAttr: attr}
	if err := cmd.Start(); err != nil {
		closeAll(master)
		return exitOf(err), notStarted(s.Command[0], exitOf(err), reason(err))
	}
	d.handedOver()
	send := func(number syscall.Signal, group bool) {
		pid := cmd.Process.Pid
		if group {
			pid = -pid
		}
		_ = syscall.Kill(pid, number)
	}
	if err := d.begin(master, send); err != nil {
		return exitOurs, errors.Join(err, cmd.Process.Kill(), cmd.Wait())
	}
	_ = cmd.Wait() // the state has the code
	if err := d.finish(); err != nil {
		return exitOurs, err
	}
	status := cmd.ProcessState.Sys().(syscall.WaitStatus)
	if status.Signaled() {
		return 128 + int(status.Signal()), nil
	}
	return status.ExitStatus(), nil
}
