package run

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net/netip"
	"os"
	osexec "os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// stageName is what the first process inside is called; it is this very program.
const stageName = "postern-stage2"

// Descriptors of the first process inside.
const (
	controlFD = 3 // the socket to the parent
	startFD   = 4 // a file in memory
)

// ChildMain is called first in main. Where this process is the first one of a
// sandbox it never returns.
func ChildMain() {
	if len(os.Args) > 0 && os.Args[0] == stageName {
		os.Exit(stage())
	}
}

// initial is the first process of a sandbox: it sets everything up, gives all
// power away, starts the commands, reaps, and ends when the first one does.
type initial struct {
	control *channel
	start   *start

	jobs    sync.Mutex
	running map[int]int // process id to job
	pids    map[int]int // job to process id
}

func stage() int {
	runtime.LockOSThread()
	keepToOurselves()
	control, err := channelOf(os.NewFile(controlFD, "control"))
	if err != nil {
		return exitOurs
	}
	// Nobody inside can end us by a signal, and commands start with the defaults.
	signal.Notify(make(chan os.Signal, 1))
	p := &initial{control: control, running: map[int]int{}, pids: map[int]int{}}
	file := os.NewFile(startFD, "start")
	if p.start, err = readStart(file); err == nil {
		err = errors.Join(file.Close(), p.setUp())
	}
	if err != nil {
		_ = control.send(message{Error: err.Error(), Denied: errors.Is(err, fs.ErrPermission)})
		return exitOurs
	}
	first := make(chan bool, 1)
	go p.listen(first)
	if !<-first {
		return 0
	}
	return p.reap()
}

// keepToOurselves lets no command inherit a descriptor: neither ours, nor one of
// the host's files that our parent was given by whoever started it.
func keepToOurselves() {
	if unix.CloseRange(controlFD, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC) == nil {
		return
	}
	entries, err := os.ReadDir("/proc/self/fd") // before Linux 5.11
	if err != nil {
		return
	}
	for _, entry := range entries {
		if fd, err := strconv.Atoi(entry.Name()); err == nil && fd >= controlFD {
			unix.CloseOnExec(fd)
		}
	}
}

// exitOurs is the exit code of a failure that is not the command's.
const exitOurs = 125

// setUp makes network and files, hands the sockets out and gives all power away.
func (p *initial) setUp() error {
	s := p.start
	if s.Map != nil {
		if err := mapOwnIDs(s.Map); err != nil {
			return err
		}
	}
	if _, err := unix.Setsid(); err != nil {
		return fmt.Errorf("opening a session: %w", err)
	}
	listener, lead, err := setUpNetwork(s.Lead)
	if err != nil {
		return err
	}
	files := []*os.File{listener}
	defer func() { closeAll(files) }()
	add := func(at netip.AddrPort, kind int) error {
		file, err := listenAt(at, kind)
		if err == nil {
			files = append(files, file)
		}
		return err
	}
	own := netip.AddrPortFrom(resolverAddress(), resolverPort)
	if err := errors.Join(add(own, unix.SOCK_DGRAM), add(own, unix.SOCK_STREAM)); err != nil {
		return err
	}
	for _, at := range s.TCP {
		if err := add(at, unix.SOCK_STREAM); err != nil {
			return err
		}
	}
	if err := setUpMounts(s); err != nil {
		return err
	}
	if err := p.giveUpPower(); err != nil {
		return err
	}
	return p.control.send(message{Ready: true, Way: lead}, files...)
}

// mapOwnIDs maps a user and its group to themselves, which an ordinary user may
// do only here, for itself, and without a way to change groups.
func mapOwnIDs(own *User) error {
	for _, step := range []struct{ file, text string }{
		{"setgroups", "deny"},
		{"uid_map", fmt.Sprintf("%d %d 1", own.UID, own.UID)},
		{"gid_map", fmt.Sprintf("%d %d 1", own.GID, own.GID)},
	} {
		if err := os.WriteFile("/proc/self/"+step.file, []byte(step.text), 0); err != nil {
			return fmt.Errorf("mapping the own user: %w", err)
		}
	}
	return nil
}

// giveUpPower does what holds for every process inside.
func (p *initial) giveUpPower() error {
	// Our own memory and descriptors are nobody's business inside.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return err
	}
	if err := restrict(); err != nil {
		return err
	}
	if p.start.Powerful && p.start.User != nil {
		return nil // needed to become the user, each time
	}
	return dropEverywhere()
}

// exec starts a command and says so.
func (p *initial) exec(m message, files []*os.File) bool {
	defer func() { closeAll(files) }()
	terminal, err := p.launch(m.Job, files)
	if err != nil {
		_ = p.control.send(message{Done: true, Job: m.Job, Code: exitOf(err), Error: reason(err)})
		return false
	}
	answer := message{Started: true, Job: m.Job}
	if terminal == nil {
		return p.control.send(answer) == nil
	}
	defer terminal.Close()
	return p.control.send(answer, terminal) == nil
}

// launch starts the command that is described by the first of files, with the
// others as its standard descriptors or with a terminal of its own, which is
// returned, and without any capability.
func (p *initial) launch(job int, files []*os.File) (terminal *os.File, err error) {
	if len(files) == 0 {
		return nil, errors.New("no command came with the request")
	}
	var e exec
	if _, err := readFrom(files[0], &e); err != nil {
		return nil, err
	}
	streams := files[1:]
	if e.TTY {
		master, slave, err := openTerminal(e.Rows, e.Columns)
		if err != nil {
			return nil, err
		}
		defer slave.Close()
		streams, terminal = []*os.File{slave, slave, slave}, master
	}
	if len(streams) != 3 || len(e.Command) == 0 {
		return nil, errors.New("the request for a command is incomplete")
	}
	if err := p.spawn(job, &e, streams); err != nil {
		if terminal != nil {
			_ = terminal.Close()
		}
		return nil, err
	}
	return terminal, nil
}

func (p *initial) spawn(job int, e *exec, streams []*os.File) error {
	path, err := lookUp(e.Command[0], e.Dir, e.Env)
	if err != nil {
		return err
	}
	attr := &syscall.ProcAttr{Dir: e.Dir, Env: e.Env, Sys: &syscall.SysProcAttr{}}
	for _, f := range streams {
		attr.Files = append(attr.Files, f.Fd())
	}
	switch {
	case e.TTY && job == 0:
		// In a group of its own, with us as the session's leader: only so can it be
		// stopped by Ctrl-Z.
		if err := unix.IoctlSetInt(int(attr.Files[0]), unix.TIOCSCTTY, 0); err != nil {
			return fmt.Errorf("taking the terminal: %w", err)
		}
		attr.Sys.Foreground, attr.Sys.Ctty = true, int(attr.Files[0])
	case e.TTY:
		attr.Sys.Setsid, attr.Sys.Setctty = true, true
	default:
		attr.Sys.Setsid = true
	}
	if p.start.Powerful && p.start.User != nil {
		u := p.start.User
		attr.Sys.Credential = &syscall.Credential{Uid: u.UID, Gid: u.GID, Groups: u.Groups}
	}
	p.jobs.Lock() // so that the end of a command is not seen before its start
	defer p.jobs.Unlock()
	pid, err := startPowerless(path, e.Command, attr)
	if errors.Is(err, unix.ENOEXEC) { // a script without its first line, as execvp(3) has it
		pid, err = startPowerless("/bin/sh", append([]string{"sh", path}, e.Command[1:]...), attr)
	}
	if err != nil {
		return err
	}
	p.running[pid], p.pids[job] = job, pid
	return nil
}

// reap waits for every process of the sandbox, and ends with the first command.
func (p *initial) reap() int {
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, unix.WUNTRACED, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return exitOurs
		}
		p.jobs.Lock()
		job, ours := p.running[pid]
		if ours && !status.Stopped() {
			delete(p.running, pid)
			delete(p.pids, job)
		}
		p.jobs.Unlock()
		switch {
		case !ours:
			continue
		case status.Stopped():
			_ = p.control.send(message{Stopped: true, Job: job})
			continue
		}
		code := status.ExitStatus()
		if status.Signaled() {
			code = 128 + int(status.Signal())
		}
		_ = p.control.send(message{Done: true, Job: job, Code: code})
		if job == 0 {
			return 0
		}
	}
}

// signal passes a signal on to a command, or to its process group.
func (p *initial) signal(m message) {
	p.jobs.Lock()
	defer p.jobs.Unlock()
	pid := p.pids[m.Job]
	if pid == 0 {
		return
	}
	if m.Group {
		pid = -pid
	}
	_ = unix.Kill(pid, unix.Signal(m.Signal))
}

// listen does what the parent asks for, and says whether the first command was
// started. When the parent is gone, so is everything inside.
func (p *initial) listen(first chan<- bool) {
	for {
		m, files, err := p.control.receive()
		if err != nil {
			os.Exit(exitOurs)
		}
		switch {
		case m.Signal != 0:
			p.signal(m)
		case m.Dial != 0:
			go p.dial(m.Job, m.Dial)
		case m.Exec:
			started := p.exec(m, files)
			if m.Job == 0 {
				first <- started
			}
			continue
		}
		closeAll(files)
	}
}

// dial connects to a port of the command and hands the connection out.
func (p *initial) dial(job int, port uint16) {
	var failure error
	for _, at := range []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()} {
		file, err := connect(netip.AddrPortFrom(at, port))
		if err == nil {
			_ = p.control.send(message{Done: true, Job: job}, file)
			_ = file.Close()
			return
		}
		failure = errors.Join(failure, err)
	}
	_ = p.control.send(message{Done: true, Job: job, Error: failure.Error()})
}

func connect(at netip.AddrPort) (*os.File, error) {
	family, address := unix.AF_INET, unix.Sockaddr(&unix.SockaddrInet4{Port: int(at.Port()), Addr: [4]byte{127, 0, 0, 1}})
	if at.Addr().Is6() {
		family, address = unix.AF_INET6, &unix.SockaddrInet6{Port: int(at.Port()), Addr: at.Addr().As16()}
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(fd), "published")
	if err := unix.Connect(fd, address); err != nil {
		return nil, errors.Join(fmt.Errorf("connecting to %s: %w", at, err), file.Close())
	}
	return file, nil
}

// lookUp finds a program in the PATH of env, as a shell in dir does.
func lookUp(name, dir string, env []string) (string, error) {
	if strings.Contains(name, "/") {
		return name, executable(absolute(name, dir))
	}
	path := "/usr/local/bin:/usr/bin:/bin"
	for _, pair := range env {
		if rest, found := strings.CutPrefix(pair, "PATH="); found {
			path = rest
		}
	}
	result := error(&osexec.Error{Name: name, Err: osexec.ErrNotFound})
	for _, place := range filepath.SplitList(path) {
		full := absolute(filepath.Join(place, name), dir)
		err := executable(full)
		if err == nil {
			return full, nil
		}
		if errors.Is(err, unix.EACCES) && there(full) { // a directory that may not be searched holds nothing for us
			result = err
		}
	}
	return "", result
}

func absolute(path, dir string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(dir, path)
}

func there(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func executable(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if info.IsDir() || info.Mode()&0o111 == 0 {
		return &fs.PathError{Op: "execute", Path: path, Err: unix.EACCES}
	}
	return nil
}

// exitOf is the exit code for a command that could not be started: 127 where it
// is not there, 126 where it cannot be executed.
func exitOf(err error) int {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, osexec.ErrNotFound) {
		return 127
	}
	return 126
}

// reason is the cause of a failed start in words.
func reason(err error) string {
	if errors.Is(err, osexec.ErrNotFound) {
		return "it is in no directory of PATH"
	}
	return err.Error()
}
