package run

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	osexec "os/exec"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"postern/internal/fail"
)

// Process is a sandbox with its first command.
type Process struct {
	cmd      *osexec.Cmd
	control  int
	listener *os.File
	way      string
	names    *resolver
	stdio    *stdio
	spec     Spec

	mu      sync.Mutex // of sending
	jobs    sync.Mutex
	waiting map[int]chan answer // by job
	next    int
	ended   chan struct{}
	closers []func()
}

// answer is what came of a job inside.
type answer struct {
	message message
	files   []int
}

func startEnforced(ctx context.Context, s Spec) (*Process, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, ownFailure(err)
	}
	inside := os.NewFile(uintptr(pair[1]), "control")
	defer inside.Close()
	p := &Process{control: pair[0], spec: s, waiting: map[int]chan answer{}, ended: make(chan struct{}), next: 1}
	if err := p.start(inside); err != nil {
		p.kill()
		return nil, err
	}
	if err := p.takeSockets(ctx); err != nil {
		p.kill()
		return nil, err
	}
	go p.listen()
	return p, p.publish()
}

func ownFailure(err error) error {
	return fail.New(fail.Unavailable, "P-E123", "the sandbox could not be made").Wrap(err).Hint("postern doctor")
}

// start starts the first process inside.
func (p *Process) start(inside *os.File) error {
	var err error
	if p.stdio, err = newStdio(p.spec); err != nil {
		return err
	}
	if len(p.spec.Command) == 0 {
		return fail.New(fail.Invalid, "P-E124", "there is no command to start")
	}
	s := start{
		Exec:    exec{Command: p.spec.Command, Dir: p.spec.Dir, Env: p.spec.Env, User: p.spec.User, TTY: p.stdio.tty != nil},
		Scratch: p.spec.Scratch, Hidden: p.spec.Hidden, Masked: p.spec.Masked, ReadOnly: p.spec.ReadOnly,
		Overlay: p.spec.Overlay, Shown: p.spec.Shown, TCP: p.spec.TCP,
	}
	config, err := inMemory(s)
	if err != nil {
		return ownFailure(err)
	}
	defer config.Close()
	p.cmd = &osexec.Cmd{
		Path: "/proc/self/exe", Args: []string{stageName}, Env: []string{}, Dir: "/",
		Stdin: p.stdio.childIn, Stdout: p.stdio.childOut, Stderr: p.stdio.childErr,
		ExtraFiles: []*os.File{inside, config}, SysProcAttr: namespaces(),
	}
	p.cmd.SysProcAttr.Setsid = p.stdio.tty != nil
	p.cmd.SysProcAttr.Setctty = p.stdio.tty != nil
	if err := p.cmd.Start(); err != nil {
		return forbidden(err)
	}
	p.stdio.started()
	return nil
}

// namespaces are those of a sandbox. Ids are mapped to themselves; for root all
// that this process has, so that it can become another user inside.
func namespaces() *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWIPC,
		AmbientCaps: []uintptr{
			unix.CAP_NET_ADMIN, unix.CAP_NET_BIND_SERVICE, unix.CAP_SYS_ADMIN, unix.CAP_SETUID, unix.CAP_SETGID, unix.CAP_KILL,
			unix.CAP_SETPCAP, unix.CAP_DAC_OVERRIDE,
		},
	}
	if os.Geteuid() != 0 {
		attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: os.Geteuid(), HostID: os.Geteuid(), Size: 1}}
		attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: os.Getegid(), HostID: os.Getegid(), Size: 1}}
		return attr
	}
	attr.UidMappings, attr.GidMappings = ownMap("/proc/self/uid_map"), ownMap("/proc/self/gid_map")
	attr.GidMappingsEnableSetgroups = true
	return attr
}

// ownMap maps every id that this process knows to itself.
func ownMap(path string) []syscall.SysProcIDMap {
	data, err := os.ReadFile(path)
	if err != nil {
		return []syscall.SysProcIDMap{{Size: 1}}
	}
	var ids []syscall.SysProcIDMap
	for line := range bytes.Lines(data) {
		var first, outside, size int
		if n, _ := fmt.Sscan(string(line), &first, &outside, &size); n == 3 {
			ids = append(ids, syscall.SysProcIDMap{ContainerID: first, HostID: first, Size: size})
		}
	}
	return ids
}

func inMemory(v any) (*os.File, error) {
	fd, err := unix.MemfdCreate("start", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(fd), "start")
	if err := json.NewEncoder(file).Encode(v); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	_, err = file.Seek(0, 0)
	return file, err
}

// takeSockets waits for the sockets that were made inside and begins to serve
// all of them but the transparent one.
func (p *Process) takeSockets(ctx context.Context) error {
	stop := context.AfterFunc(ctx, p.kill)
	defer stop()
	var m message
	files, err := receiveMessage(p.control, &m, 3+len(p.spec.TCP))
	switch {
	case err != nil && ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		return ownFailure(err)
	case !m.Ready:
		return ownFailure(errors.New(m.Error))
	case len(files) != 3+len(p.spec.TCP):
		return ownFailure(errors.New("a socket is missing"))
	}
	p.way = m.Way
	p.listener = os.NewFile(uintptr(files[0]), "transparent listener")
	p.names, err = newResolver(files[1], files[2])
	if err != nil {
		return ownFailure(err)
	}
	p.closers = append(p.closers, p.names.close)
	for i, at := range p.spec.TCP {
		stop, err := carry(files[3+i], at)
		if err != nil {
			return ownFailure(err)
		}
		p.closers = append(p.closers, stop)
	}
	return nil
}

// Listener is the listening socket on which every connection of the command
// arrives, with the destination as the local address. The caller closes it.
func (p *Process) Listener() *os.File { return p.listener }

// Names gives the name that was answered with addr inside.
func (p *Process) Names(addr netip.Addr) (string, bool) { return p.names.nameOf(addr) }

// Way says how connections are led to the broker.
func (p *Process) Way() string { return p.way }

// PID is the first process of the sandbox, as the host counts.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Release lets the command begin.
func (p *Process) Release() error {
	done := p.job(0)
	if err := p.send(message{Go: true}); err != nil {
		return ownFailure(err)
	}
	p.stdio.release(done)
	return nil
}

// job opens the mailbox of a job.
func (p *Process) job(id int) chan answer {
	p.jobs.Lock()
	defer p.jobs.Unlock()
	box, found := p.waiting[id]
	if !found {
		box = make(chan answer, 1)
		p.waiting[id] = box
	}
	return box
}

func (p *Process) newJob() (int, chan answer) {
	p.jobs.Lock()
	id := p.next
	p.next++
	p.jobs.Unlock()
	return id, p.job(id)
}

func (p *Process) send(m message, files ...int) error {
	data, err := json.Marshal(m)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return unix.Sendmsg(p.control, data, unix.UnixRights(files...), nil, 0)
}

// listen distributes what comes from inside, until the first process ends.
func (p *Process) listen() {
	defer close(p.ended)
	for {
		var m message
		files, err := receiveMessage(p.control, &m, 1)
		if err != nil {
			return
		}
		switch {
		case m.Done:
			p.job(m.Job) <- answer{m, files}
		case m.Stopped && m.Job == 0:
			p.stdio.pause()
			p.Signal(syscall.SIGCONT)
		}
	}
}

// Signal sends a signal to the command.
func (p *Process) Signal(s syscall.Signal) { _ = p.send(message{Signal: int(s)}) }

// Wait waits for the command and gives its exit code: 128+n where signal n
// ended it, 126 and 127 where it could not be started. Everything inside is gone
// when it returns, and all output is out.
func (p *Process) Wait() (int, error) {
	defer p.cleanUp()
	var result answer
	select {
	case result = <-p.job(0):
	case <-p.ended:
		select {
		case result = <-p.job(0):
		default:
			return 125, errors.Join(ownFailure(errors.New("the first process inside was killed")), p.finish())
		}
	}
	if err := p.finish(); err != nil {
		return 125, err
	}
	m := result.message
	if m.Error != "" {
		kind, id := fail.NotFound, "P-E127"
		if m.Code == 126 {
			kind, id = fail.Invalid, "P-E126"
		}
		return m.Code, fail.New(kind, id, "%s could not be started", p.spec.Command[0]).Because("%s", m.Error)
	}
	return m.Code, nil
}

// finish ends what is left inside and waits for the output to be written.
func (p *Process) finish() error {
	_ = p.cmd.Wait()
	return p.stdio.finish()
}

func (p *Process) cleanUp() {
	for _, stop := range p.closers {
		stop()
	}
	p.stdio.restore()
	_ = unix.Close(p.control)
}

// kill ends a sandbox that did not come up.
func (p *Process) kill() {
	if p.cmd != nil && p.cmd.Process != nil {
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait()
	}
	if p.stdio != nil {
		p.stdio.restore()
	}
	for _, stop := range p.closers {
		stop()
	}
}
