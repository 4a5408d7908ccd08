package run

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	osexec "os/exec"
	"path/filepath"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"postern/internal/fail"
)

// Process is a sandbox with its first command, or one more command in it.
type Process struct {
	spec     Spec
	cmd      *osexec.Cmd // nil where the sandbox is another process's
	control  *channel
	listener *os.File
	way      way
	names    *resolver
	stdio    *stdio
	first    answer // of the command: that it was started, or why not
	released bool
	ended    chan struct{}

	jobs    sync.Mutex
	waiting map[int]chan answer // by job
	next    int

	closing sync.Mutex
	closers []func()
}

// answer is what comes of a job inside.
type answer struct {
	message message
	files   []*os.File
}

// Start makes the namespaces and everything in them. The command waits until
// Release. Where the system forbids it, the error is Probe's; it is unavailable.
// ctx ends the set-up, not the command.
func Start(ctx context.Context, s Spec) (*Process, error) {
	if len(s.Command) == 0 {
		return nil, fail.New(fail.Invalid, "P-E124", "there is no command to start")
	}
	p, err := open(ctx, s)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(p.publish(), p.serveJoins()); err != nil {
		p.abandon()
		return nil, err
	}
	return p, nil
}

// open makes a sandbox, as another user by all means that root has.
func open(ctx context.Context, s Spec) (*Process, error) {
	p, err := openWith(ctx, s, false)
	if os.Geteuid() == 0 && fail.Is(err, fail.Unavailable) {
		if q, err := openWith(ctx, s, true); err == nil {
			return q, nil
		}
	}
	return p, err
}

func openWith(ctx context.Context, s Spec, powerful bool) (*Process, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, ownFailure(err)
	}
	inside := os.NewFile(uintptr(pair[1]), "control")
	defer inside.Close()
	control, err := channelOf(os.NewFile(uintptr(pair[0]), "control"))
	if err != nil {
		return nil, ownFailure(err)
	}
	p := newProcess(s, control)
	err = p.start(inside, powerful)
	if err == nil {
		err = p.takeSockets(ctx)
	}
	if err != nil {
		p.abandon()
		return nil, err
	}
	go p.listen()
	return p, nil
}

func newProcess(s Spec, control *channel) *Process {
	return &Process{spec: s, control: control, waiting: map[int]chan answer{}, next: 1, ended: make(chan struct{})}
}

func ownFailure(err error) error {
	return fail.New(fail.Unavailable, "P-E123", "the sandbox could not be made").Wrap(err).Hint("postern doctor")
}

// start starts the first process inside.
func (p *Process) start(inside *os.File, powerful bool) error {
	attr, how := namespaces(p.spec.User, powerful)
	shown := p.spec.Shown
	if below(p.spec.Dir, runDir) {
		shown = append([]string{p.spec.Dir}, shown...)
	}
	how.Hidden = append(hostSockets(shown), p.spec.Hidden...)
	how.Masked, how.ReadOnly, how.Shown, how.TCP = p.spec.Masked, p.spec.ReadOnly, shown, p.spec.TCP
	how.Lead = p.spec.lead
	if how.AsRoot {
		how.ReadOnly = append(systemDirs(p.spec.Dir), how.ReadOnly...)
	}
	how.Overlay = []overlay{{Path: "/etc/resolv.conf", data: []byte("nameserver " + resolverAddress().String() + "\n")}}
	for path, data := range p.spec.Overlay {
		how.Overlay = append(how.Overlay, overlay{Path: filepath.Clean(path), data: data})
	}
	var blobs [][]byte
	for i := range how.Overlay {
		o := &how.Overlay[i]
		o.Size = len(o.data)
		blobs = append(blobs, o.data)
	}
	config, err := inMemory(how, blobs...)
	if err != nil {
		return ownFailure(err)
	}
	defer config.Close()
	p.cmd = &osexec.Cmd{
		Path: "/proc/self/exe", Args: []string{stageName}, Env: []string{"GOTRACEBACK=none"}, Dir: "/",
		ExtraFiles: []*os.File{inside, config}, SysProcAttr: attr,
	}
	if err := p.cmd.Start(); err != nil {
		p.cmd = nil
		return forbidden(err)
	}
	return nil
}

// namespaces are those of a sandbox, with the ids that exist in it: an ordinary
// user's own, mapped from inside because nobody else may; as root only those of
// the user that the command becomes. Powerful is root without a user namespace.
func namespaces(user *User, powerful bool) (*syscall.SysProcAttr, start) {
	attr := &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWIPC}
	uid, gid := uint32(os.Geteuid()), uint32(os.Getegid())
	switch {
	case powerful:
		return attr, start{User: user, Powerful: true, AsRoot: user == nil || user.UID == 0}
	case uid == 0 && user == nil:
		user = &User{}
	}
	attr.Cloneflags |= unix.CLONE_NEWUSER
	attr.AmbientCaps = []uintptr{unix.CAP_NET_ADMIN, unix.CAP_NET_BIND_SERVICE, unix.CAP_SYS_ADMIN, unix.CAP_SETPCAP}
	if uid != 0 {
		return attr, start{Map: &User{UID: uid, GID: gid}}
	}
	attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: int(user.UID), HostID: int(user.UID), Size: 1}}
	groups := map[uint32]bool{}
	for _, g := range append([]uint32{user.GID}, user.Groups...) {
		if !groups[g] {
			attr.GidMappings = append(attr.GidMappings, syscall.SysProcIDMap{ContainerID: int(g), HostID: int(g), Size: 1})
		}
		groups[g] = true
	}
	attr.GidMappingsEnableSetgroups = true
	attr.Credential = &syscall.Credential{Uid: user.UID, Gid: user.GID, Groups: user.Groups}
	return attr, start{User: user, AsRoot: user.UID == 0}
}

// systemDirs are what a command that is root could change although the host's
// root runs or reads it; those that hold dir are left out.
func systemDirs(dir string) []string {
	var list []string
	for _, path := range []string{"/etc", "/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/boot", "/var/spool", "/opt"} {
		if !below(dir, path) {
			list = append(list, path)
		}
	}
	return list
}

// takeSockets waits for the sockets that were made inside and begins to serve
// all of them but the transparent one.
func (p *Process) takeSockets(ctx context.Context) error {
	stop := context.AfterFunc(ctx, p.control.close)
	defer stop()
	m, files, err := p.control.receive()
	defer func() { closeAll(files) }()
	switch {
	case err != nil && ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		return ownFailure(err)
	case m.Denied:
		return forbidden(errors.New(m.Error))
	case !m.Ready:
		return ownFailure(errors.New(m.Error))
	case len(files) != 3+len(p.spec.TCP):
		return ownFailure(errors.New("a socket is missing"))
	}
	p.way, p.listener, files = m.Way, files[0], files[1:]
	p.names, err = newResolver(files[0], files[1])
	if err != nil {
		return ownFailure(err)
	}
	p.onClose(p.names.close)
	for i, at := range p.spec.TCP {
		inside, err := net.FileListener(files[2+i])
		if err != nil {
			return ownFailure(err)
		}
		p.onClose(func() { _ = inside.Close() })
		go accept(inside, dialHost(at))
	}
	return nil
}

// Listener is the listening socket on which every connection of the command
// arrives, with the destination as the local address (see Original where Way is
// not transparent). The caller closes it.
func (p *Process) Listener() *os.File { return p.listener }

// Names gives the name that was answered with addr inside.
func (p *Process) Names(addr netip.Addr) (string, bool) {
	if p.names == nil {
		return "", false
	}
	return p.names.nameOf(addr)
}

// Way says how connections are led to the broker: transparent or redirected.
func (p *Process) Way() string { return string(p.way) }

// PID is the first process of the sandbox, as the host counts; 0 where that is
// another's.
func (p *Process) PID() int {
	if p.cmd == nil {
		return 0
	}
	return p.cmd.Process.Pid
}

// Release lets the command begin, now that its connections are served. From then
// until Wait returns the signals that this process gets are passed on to it. The
// streams of the Spec must be open until Release returns. A command that cannot
// be started is Wait's to report.
func (p *Process) Release() error {
	var err error
	if p.stdio, err = newStdio(p.spec); err != nil {
		return err
	}
	box := p.job(0)
	e := exec{Command: p.spec.Command, Dir: p.spec.Dir, Env: p.spec.Env}
	if e.TTY = p.stdio.tty; e.TTY {
		e.Rows, e.Columns = p.stdio.size()
	}
	request, err := inMemory(e)
	if err != nil {
		return ownFailure(err)
	}
	err = p.control.send(message{Exec: true}, append([]*os.File{request}, p.stdio.child...)...)
	_ = request.Close()
	p.stdio.handedOver()
	if err != nil {
		return ownFailure(err)
	}
	var lives bool
	if p.first, lives = p.hear(box); !lives {
		return ownFailure(errors.New("the first process inside ended"))
	}
	p.released = true
	if !p.first.message.Started {
		return nil
	}
	if p.stdio.tty && len(p.first.files) != 1 {
		return ownFailure(errors.New("the terminal is missing"))
	}
	return p.stdio.begin(p.first.files, p.signal)
}

// Signal sends a signal to the command.
func (p *Process) Signal(s syscall.Signal) { p.signal(s, false) }

// signal sends a signal to the command, or to its process group.
func (p *Process) signal(s syscall.Signal, group bool) {
	_ = p.control.send(message{Signal: int(s), Group: group})
}

// job opens the mailbox of a job.
func (p *Process) job(id int) chan answer {
	p.jobs.Lock()
	defer p.jobs.Unlock()
	box, found := p.waiting[id]
	if !found {
		box = make(chan answer, 16)
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

func (p *Process) forget(id int) {
	p.jobs.Lock()
	defer p.jobs.Unlock()
	delete(p.waiting, id)
}

// listen distributes what comes from inside, until the first process ends.
func (p *Process) listen() {
	defer close(p.ended)
	for {
		m, files, err := p.control.receive()
		if err != nil {
			return
		}
		p.jobs.Lock()
		box := p.waiting[m.Job]
		p.jobs.Unlock()
		select {
		case box <- answer{m, files}:
		default: // nobody waits any more, or it was stopped more often than was heard
			closeAll(files)
		}
	}
}

// Wait waits for the command and gives its exit code: 128+n where signal n
// ended it; 126 and 127, with an error, where it could not be started. Everything
// inside is gone when it returns, and all output is out.
func (p *Process) Wait() (int, error) {
	defer p.abandon()
	if !p.released {
		return exitOurs, nil
	}
	result, err := p.result()
	if err != nil {
		return exitOurs, err
	}
	p.control.close() // which ends whatever is left inside
	if p.cmd != nil {
		_ = p.cmd.Wait() // its own code says nothing
		p.cmd = nil
	}
	if err := p.stdio.finish(); err != nil {
		return exitOurs, err
	}
	m := result.message
	if m.Error != "" {
		return m.Code, notStarted(p.spec.Command[0], m.Code, m.Error)
	}
	return m.Code, nil
}

// result waits for the end of the command.
func (p *Process) result() (answer, error) {
	last, box := p.first, p.job(0)
	for !last.message.Done {
		var lives bool
		if last, lives = p.hear(box); !lives {
			return answer{}, ownFailure(errors.New("the first process inside was killed"))
		}
		if last.message.Stopped {
			p.stdio.pause()
		}
	}
	return last, nil
}

// hear waits for the next answer of a job; false where none comes any more.
func (p *Process) hear(box <-chan answer) (answer, bool) {
	select {
	case a := <-box:
		return a, true
	case <-p.ended:
	}
	select {
	case a := <-box: // which came before the end
		return a, true
	default:
		return answer{}, false
	}
}

func notStarted(command string, code int, why string) error {
	kind, id := fail.NotFound, "P-E127"
	if code == 126 {
		kind, id = fail.Invalid, "P-E126"
	}
	return fail.New(kind, id, "%s could not be started", command).Because("%s", why)
}

func (p *Process) onClose(f func()) {
	p.closing.Lock()
	defer p.closing.Unlock()
	p.closers = append(p.closers, f)
}

// abandon ends everything that is left.
func (p *Process) abandon() {
	if p.cmd != nil {
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait()
		p.cmd = nil
	}
	p.control.close()
	p.closing.Lock()
	closers := p.closers
	p.closers = nil
	p.closing.Unlock()
	for _, stop := range closers {
		stop()
	}
	if p.stdio != nil {
		p.stdio.restore()
	}
}

// Close ends a sandbox whose command was not released, or is not waited for.
func (p *Process) Close() { p.abandon() }
