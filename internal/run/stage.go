package run

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	osexec "os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// stageName is what the first process inside is called; it is this very program.
const stageName = "postern-stage2"

// probeWord makes the first process inside end once it has seen that it could
// set everything up.
const probeWord = "probe"

// Descriptors of the first process inside: the socket to the parent, and a file
// in memory with the start, which is too long for one message.
const (
	controlFD = 3
	startFD   = 4
)

// ChildMain is called first in main. Where this process is the first one of a
// sandbox it never returns.
func ChildMain() {
	if len(os.Args) == 0 || os.Args[0] != stageName {
		return
	}
	if len(os.Args) > 1 && os.Args[1] == probeWord {
		os.Exit(probeInside())
	}
	os.Exit(stage())
}

// probeInside tries what the real thing needs and a system may forbid.
func probeInside() int {
	if err := loopbackUp(); err != nil {
		return 3
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return 4
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return 5
	}
	return 0
}

// initial is the first process of a sandbox: it sets everything up, gives all
// power away, starts the commands, reaps, and ends when the first one does.
type initial struct {
	mu      sync.Mutex // of sending
	jobs    sync.Mutex
	running map[int]int // process id to job
	pids    map[int]int // job to process id
}

func stage() int {
	// Our own memory and descriptors are nobody's business inside.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return 125
	}
	unix.CloseOnExec(controlFD)
	p := &initial{running: map[int]int{}, pids: map[int]int{}}
	s, err := readStart()
	if err == nil {
		err = p.setUp(s)
	}
	if err != nil {
		_ = p.send(message{Error: err.Error()})
		return 125
	}
	var m message
	if _, err := p.receive(&m, 0); err != nil || !m.Go {
		return 125
	}
	if err := p.launch(0, &s.Exec, nil); err != nil {
		_ = p.send(message{Done: true, Code: exitOf(err), Error: err.Error()})
		return 0
	}
	if err := letGo(); err != nil {
		return 125
	}
	go p.listen()
	return p.reap()
}

// letGo gives up our copies of the command's streams: their readers must see its
// end. The
// terminal stays that of our session all the same.
func letGo() error {
	null, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	for _, fd := range []int{0, 1, 2} {
		if err := unix.Dup2(null, fd); err != nil {
			return err
		}
	}
	return unix.Close(null)
}

func readStart() (*start, error) {
	file := os.NewFile(startFD, "start")
	defer file.Close()
	s := new(start)
	return s, json.NewDecoder(file).Decode(s)
}

// setUp makes network and files and hands the sockets out.
func (p *initial) setUp(s *start) error {
	listener, err := setUpNetwork()
	if err != nil {
		return err
	}
	files := []int{listener}
	at := netip.AddrPortFrom(resolverAddress, resolverPort)
	for _, kind := range []int{unix.SOCK_DGRAM, unix.SOCK_STREAM} {
		fd, err := listenAt(at, kind)
		if err != nil {
			return err
		}
		files = append(files, fd)
	}
	for _, at := range s.TCP {
		fd, err := listenAt(at, unix.SOCK_STREAM)
		if err != nil {
			return err
		}
		files = append(files, fd)
	}
	if err := setUpMounts(s); err != nil {
		return err
	}
	err = p.send(message{Ready: true, Way: "a transparent listener (nftables TPROXY)"}, files...)
	for _, fd := range files {
		_ = unix.Close(fd)
	}
	return err
}

// launch starts a command, with files as its standard descriptors (ours where
// none are given), and without any capability.
func (p *initial) launch(job int, e *exec, files []int) error {
	path, err := lookUp(e.Command[0], e.Env)
	if err != nil {
		return err
	}
	if files == nil {
		files = []int{0, 1, 2}
	}
	attr := &syscall.ProcAttr{Dir: e.Dir, Env: e.Env, Sys: &syscall.SysProcAttr{}}
	if e.TTY {
		// In a group of its own, with us as the session's leader: only so can it be
		// stopped by Ctrl-Z.
		attr.Sys.Setpgid, attr.Sys.Foreground, attr.Sys.Ctty = true, true, files[0]
	}
	for _, fd := range files {
		attr.Files = append(attr.Files, uintptr(fd))
	}
	if e.User != nil {
		attr.Sys.Credential = &syscall.Credential{Uid: e.User.UID, Gid: e.User.GID, Groups: e.User.Groups}
	}
	p.jobs.Lock()
	defer p.jobs.Unlock()
	pid, err := startPowerless(path, e.Command, attr)
	if err != nil {
		return err
	}
	p.running[pid], p.pids[job] = job, pid
	return nil
}

// startPowerless starts a program from a thread that can never regain a
// capability. The thread ends with the goroutine.
func startPowerless(path string, argv []string, attr *syscall.ProcAttr) (pid int, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: the thread is spoiled
		if err = dropBounds(); err != nil {
			return
		}
		if attr.Sys.Credential == nil {
			if err = dropCapabilities(); err != nil {
				return
			}
		}
		pid, err = syscall.ForkExec(path, argv, attr)
	}()
	<-done
	return pid, err
}

// dropBounds makes the thread, and what it starts, unable to gain anything by
// starting a program.
func dropBounds() error {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("giving up new privileges: %w", err)
	}
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return fmt.Errorf("clearing the ambient set: %w", err)
	}
	for c := range uintptr(64) {
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); err != nil {
			if errors.Is(err, unix.EINVAL) && c > unix.CAP_CHECKPOINT_RESTORE {
				break // past the last one of this kernel
			}
			return fmt.Errorf("dropping capability %d: %w", c, err)
		}
	}
	return nil
}

func dropCapabilities() error {
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	if err := unix.Capset(&head, &none[0]); err != nil {
		return fmt.Errorf("dropping all capabilities: %w", err)
	}
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
			return 125
		}
		if status.Stopped() {
			p.stopped(pid)
			continue
		}
		p.jobs.Lock()
		job, ours := p.running[pid]
		delete(p.running, pid)
		p.jobs.Unlock()
		if !ours {
			continue
		}
		code := status.ExitStatus()
		if status.Signaled() {
			code = 128 + int(status.Signal())
		}
		_ = p.send(message{Done: true, Job: job, Code: code})
		if job == 0 {
			return 0
		}
	}
}

// stopped tells the parent that a command was stopped from its terminal.
func (p *initial) stopped(pid int) {
	p.jobs.Lock()
	job, ours := p.running[pid]
	p.jobs.Unlock()
	if ours {
		_ = p.send(message{Stopped: true, Job: job})
	}
}

// signal passes a signal on to a command; to go on, to all of its group.
func (p *initial) signal(job, number int) {
	p.jobs.Lock()
	defer p.jobs.Unlock()
	pid := p.pids[job]
	if pid == 0 {
		return
	}
	if unix.Signal(number) == unix.SIGCONT {
		_ = unix.Kill(-pid, unix.SIGCONT)
	}
	_ = unix.Kill(pid, unix.Signal(number))
}

// listen does what the parent asks for. When the parent is gone, so is
// everything inside.
func (p *initial) listen() {
	for {
		var m message
		files, err := p.receive(&m, 3)
		if err != nil {
			os.Exit(125)
		}
		switch {
		case m.Signal != 0:
			p.signal(m.Job, m.Signal)
		case m.Dial != 0:
			go p.dial(m.Job, m.Dial)
		case m.Exec != nil && len(files) == 3:
			if err := p.launch(m.Job, m.Exec, files); err != nil {
				_ = p.send(message{Done: true, Job: m.Job, Code: exitOf(err), Error: err.Error()})
			}
		}
		for _, fd := range files {
			_ = unix.Close(fd)
		}
	}
}

// dial connects to a port of the command and hands the connection out.
func (p *initial) dial(job int, port uint16) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		err = unix.Connect(fd, &unix.SockaddrInet4{Port: int(port), Addr: [4]byte{127, 0, 0, 1}})
	}
	if err != nil {
		_ = p.send(message{Done: true, Job: job, Error: err.Error()})
		_ = unix.Close(fd)
		return
	}
	_ = p.send(message{Done: true, Job: job}, fd)
	_ = unix.Close(fd)
}

func (p *initial) send(m message, files ...int) error {
	data, err := json.Marshal(m)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return unix.Sendmsg(controlFD, data, unix.UnixRights(files...), nil, 0)
}

func (p *initial) receive(m *message, max int) ([]int, error) {
	return receiveMessage(controlFD, m, max)
}

// maxMessage bounds a message; the longest is a command with its environment.
const maxMessage = 256 << 10

// receiveMessage reads one message with its descriptors, which are not passed on
// to programs.
func receiveMessage(fd int, m *message, max int) ([]int, error) {
	data, space := make([]byte, maxMessage), make([]byte, unix.CmsgSpace(4*(max+1)))
	n, spaceLen, flags, _, err := unix.Recvmsg(fd, data, space, unix.MSG_CMSG_CLOEXEC)
	for errors.Is(err, unix.EINTR) {
		n, spaceLen, flags, _, err = unix.Recvmsg(fd, data, space, unix.MSG_CMSG_CLOEXEC)
	}
	if err != nil {
		return nil, err
	}
	if n == 0 {
		return nil, errors.New("the other side is gone")
	}
	if flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 {
		return nil, errors.New("a message of the sandbox was cut")
	}
	var files []int
	controls, err := unix.ParseSocketControlMessage(space[:spaceLen])
	if err != nil {
		return nil, err
	}
	for i := range controls {
		if fds, err := unix.ParseUnixRights(&controls[i]); err == nil {
			files = append(files, fds...)
		}
	}
	return files, json.Unmarshal(data[:n], m)
}

// lookUp finds a program in the PATH of env, as a shell does.
func lookUp(name string, env []string) (string, error) {
	if strings.Contains(name, "/") {
		info, err := os.Stat(name)
		if err != nil {
			return "", err
		}
		if info.IsDir() || info.Mode()&0o111 == 0 {
			return "", unix.EACCES
		}
		return name, nil
	}
	path := "/usr/local/bin:/usr/bin:/bin"
	for _, pair := range env {
		if rest, found := strings.CutPrefix(pair, "PATH="); found {
			path = rest
		}
	}
	denied := false
	for _, dir := range filepath.SplitList(path) {
		if dir == "" {
			dir = "."
		}
		full := filepath.Join(dir, name)
		info, err := os.Stat(full)
		if err != nil || info.IsDir() {
			continue
		}
		if unix.Access(full, unix.X_OK) == nil {
			return full, nil
		}
		denied = true
	}
	if denied {
		return "", unix.EACCES
	}
	return "", &osexec.Error{Name: name, Err: osexec.ErrNotFound}
}

// exitOf is the exit code for a command that could not be started: 127 where it
// is not there, 126 where it cannot be executed.
func exitOf(err error) int {
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, osexec.ErrNotFound) {
		return 127
	}
	return 126
}
