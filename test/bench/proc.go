package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// tick is the kernel's unit of the times in /proc/PID/stat (USER_HZ).
const tick = 10 * time.Millisecond

// ordinaryUser is who the product runs as when the bench is root.
const ordinaryUser = 12345

// cpuTime is the user and system time of a process so far, to a tick.
func cpuTime(pid int) (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	_, rest, ok := bytes.Cut(text, []byte(") ")) // the name may hold spaces
	fields := strings.Fields(string(rest))
	if !ok || len(fields) < 13 {
		return 0, fmt.Errorf("/proc/%d/stat is not as expected", pid)
	}
	user, err1 := strconv.ParseInt(fields[11], 10, 64)
	system, err2 := strconv.ParseInt(fields[12], 10, 64)
	return time.Duration(user+system) * tick, errors.Join(err1, err2)
}

// memory is a line of /proc/PID/status, such as VmRSS, in megabytes.
func memory(pid int, line string) (float64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for row := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(row, ":")
		if name != line {
			continue
		}
		kb, err := strconv.ParseFloat(strings.Fields(value)[0], 64)
		return kb / 1024, err
	}
	return 0, fmt.Errorf("no %s in /proc/%d/status", line, pid)
}

// process is something that runs beside the bench until stop.
type process struct {
	cmd *exec.Cmd
	log *bytes.Buffer
}

// place is where a program runs, and as whom.
type place struct {
	ordinary bool // not root
	pinned   bool // on the CPU of the proxies
}

// start starts a program.
func start(at place, env []string, dir string, argv ...string) (*process, error) {
	if at.pinned && pinned() {
		argv = append([]string{"taskset", "-c", "0"}, argv...)
	}
	p := &process{cmd: exec.Command(argv[0], argv[1:]...), log: &bytes.Buffer{}}
	p.cmd.Env, p.cmd.Dir = env, dir
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if at.ordinary {
		p.cmd.SysProcAttr.Credential = credential()
	}
	return p, p.cmd.Start()
}

func (p *process) pid() int { return p.cmd.Process.Pid }

func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	ended := make(chan struct{})
	go func() { _ = p.cmd.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-time.After(5 * time.Second):
		_ = p.cmd.Process.Kill()
		<-ended
	}
}

// pinned says whether the proxies get a CPU of their own.
func pinned() bool {
	_, err := exec.LookPath("taskset")
	return err == nil && runtime.NumCPU() > 1
}

// credential is the ordinary user, where the bench is root.
func credential() *syscall.Credential {
	if os.Geteuid() != 0 {
		return nil
	}
	return &syscall.Credential{Uid: ordinaryUser, Gid: ordinaryUser, NoSetGroups: false}
}

// waitFor waits until something listens at addr.
func waitFor(ctx context.Context, addr string, p *process) error {
	for {
		c, err := net.DialTimeout("tcp", addr, time.Second)
		if err == nil {
			return c.Close()
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("nothing listens at %s: %s", addr, p.log)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// freeAddr is a loopback address that nothing listens at.
func freeAddr() (string, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return ln.Addr().String(), ln.Close()
}
