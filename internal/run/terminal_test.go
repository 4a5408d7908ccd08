package run_test

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	osexec "os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"postern/internal/run"
)

// terminal is a pseudo-terminal as a person would sit at it.
type terminal struct {
	t     *testing.T
	ours  *os.File
	inner *os.File
	seen  bytes.Buffer
}

func openTerminal(t *testing.T) *terminal {
	t.Helper()
	ours, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("skipped: no pseudo-terminals here: %v", err)
	}
	var slave uintptr
	raw, err := ours.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.Control(func(fd uintptr) {
		_ = unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0)
		_ = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: 41, Col: 97})
		var errno syscall.Errno
		if slave, _, errno = unix.Syscall(unix.SYS_IOCTL, fd, unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY); errno != 0 {
			t.Fatal(errno)
		}
	}); err != nil {
		t.Fatal(err)
	}
	x := &terminal{t: t, ours: ours, inner: os.NewFile(slave, "inner")}
	t.Cleanup(func() { _ = ours.Close(); _ = x.inner.Close() })
	return x
}

// expect reads until text has come.
func (x *terminal) expect(text string) {
	x.t.Helper()
	if err := x.ours.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		x.t.Fatal(err)
	}
	buffer := make([]byte, 4096)
	for !strings.Contains(x.seen.String(), text) {
		n, err := x.ours.Read(buffer)
		x.seen.Write(buffer[:n])
		if err != nil {
			x.t.Fatalf("%q did not come (%v); seen:\n%s", text, err, x.seen.String())
		}
	}
	_, after, _ := strings.Cut(x.seen.String(), text)
	x.seen.Reset()
	x.seen.WriteString(after)
}

func (x *terminal) send(text string) {
	x.t.Helper()
	if _, err := x.ours.WriteString(text); err != nil {
		x.t.Fatal(err)
	}
}

// mode is the terminal's line mode: "cooked" or "raw".
func (x *terminal) mode() string {
	state, err := unix.IoctlGetTermios(int(x.inner.Fd()), unix.TCGETS)
	if err != nil {
		x.t.Fatal(err)
	}
	if state.Lflag&unix.ICANON == 0 {
		return "raw"
	}
	return "cooked"
}

// At a terminal bash and less work as always, and the terminal is given back as
// it was.
func TestShellAtATerminal(t *testing.T) {
	again(t)
	needNamespaces(t)
	x := openTerminal(t)
	p, err := run.Start(t.Context(), run.Spec{
		Command: []string{"bash", "--norc", "--noprofile", "-i"}, Dir: t.TempDir(),
		Env:   []string{"PATH=/usr/bin:/bin", "PS1=ready> ", "TERM=xterm", "HISTFILE="},
		Stdin: x.inner, Stdout: x.inner, Stderr: x.inner,
		Filter: func() (run.Filter, error) { return &upper{}, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Listener().Close()
	if err := p.Release(); err != nil {
		t.Fatal(err)
	}
	code := make(chan int, 1)
	go func() {
		n, err := p.Wait()
		if err != nil {
			t.Error(err)
		}
		code <- n
	}()
	x.expect("ready> ") // has no line end: flushed after a moment
	if x.mode() != "raw" {
		t.Error("the terminal is not raw while the command has one of its own")
	}
	x.send("stty size; tty\n")
	x.expect("41 97")
	x.expect("/dev/pts/0")
	x.send("sh -c 'printf beg%s un; sleep 100'\n")
	x.expect("begun")
	x.send("\x1a") // Ctrl-Z is the shell's own matter
	x.expect("Stopped")
	x.expect("ready> ")
	x.send("fg\n")
	x.expect("sleep 100")
	x.send("\x03") // Ctrl-C
	x.expect("ready> ")
	x.send("seq 200 | less\n")
	x.expect("38")
	x.send("q")
	x.expect("ready> ")
	x.send("exit 5\n")
	if n := <-code; n != 5 {
		t.Errorf("bash ended with %d, want 5", n)
	}
	if x.mode() != "cooked" {
		t.Error("the terminal was not given back")
	}
}

// upper holds every byte back until it is flushed.
type upper struct{ held []byte }

func (u *upper) Write(dst, chunk []byte) []byte {
	u.held = append(u.held, chunk...)
	return dst
}
func (u *upper) Flush(dst []byte) []byte {
	dst = append(dst, u.held...)
	u.held = u.held[:0]
	return dst
}
func (u *upper) Close(dst []byte) []byte { return u.Flush(dst) }

// helperRun makes the test program a small "postern run" for another process.
const helperRun = "RUN_TEST_COMMAND"

func helper() int {
	if err := run.Guard(); err != nil { // as Postern does: the set-up must not depend on what that forbids
		return 99
	}
	p, err := run.Start(contextOfTests(), run.Spec{
		Command: []string{"bash", "--norc", "-c", os.Getenv(helperRun)}, Dir: "/", Env: []string{"PATH=/usr/bin:/bin", "TERM=xterm"},
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 99
	}
	if err := p.Release(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 99
	}
	code, err := p.Wait()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	return code
}

// Below a shell with job control, Ctrl-Z stops the command and us with it, and
// fg continues both.
func TestStopAndContinue(t *testing.T) {
	again(t)
	needNamespaces(t)
	x := openTerminal(t)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	shell := osexec.Command("bash", "--norc", "--noprofile", "-i")
	shell.Env = []string{"PATH=/usr/bin:/bin", "PS1=outer> ", "TERM=xterm", helperRun + `=trap "echo continued" CONT; trap "echo interrupted" INT; echo begun; read a; echo "got $a"; exit 3`, "PROG=" + exe}
	shell.Stdin, shell.Stdout, shell.Stderr = x.inner, x.inner, x.inner
	shell.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := shell.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = shell.Process.Kill(); _ = shell.Wait() }()
	x.expect("outer> ")
	x.send("$PROG\n")
	x.expect("begun")
	x.send("\x1a")
	x.expect("Stopped")
	x.expect("outer> ")
	x.send("echo $((40+2))\n") // which works only with the terminal as it was
	x.expect("42")
	x.send("fg\n")
	x.expect("continued")
	x.send("text\r")
	x.expect("got text")
	x.expect("outer> ")
	x.send("echo code $?\n")
	x.expect("code 3")
}

// Without a terminal of its own the command gets Ctrl-C once, in all of its
// process group.
func TestInterruptArrivesOnce(t *testing.T) {
	again(t)
	needNamespaces(t)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, number := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		cmd := osexec.Command(exe)
		cmd.Env = []string{helperRun + `=n=0; trap "n=\$((n+1))" INT TERM; echo begun; read -t 0.3 a; read -t 0.3 a; echo got $n; exit 4`}
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		buffer := make([]byte, 64)
		if _, err := out.Read(buffer); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Process.Signal(number); err != nil {
			t.Fatal(err)
		}
		var rest bytes.Buffer
		_, _ = rest.ReadFrom(out)
		_ = in.Close()
		err = cmd.Wait()
		var exit *osexec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != 4 || strings.TrimSpace(rest.String()) != "got 1" {
			t.Errorf("%v: %v, output %q", number, err, rest.String())
		}
	}
}

// A second command enters the same namespaces.
func TestJoin(t *testing.T) {
	again(t)
	needNamespaces(t)
	path := t.TempDir() + "/box.sock"
	if _, err := run.Join(t.Context(), run.Spec{Command: []string{"true"}, Socket: path}); err == nil {
		t.Fatal("joined what is not there")
	}
	first := run.Spec{Command: []string{"sh", "-c", "read line; exit 0"}, Dir: "/", Env: []string{"PATH=/usr/bin:/bin"}, Socket: path}
	hold, feed, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	first.Stdin = hold
	p, err := run.Start(t.Context(), first)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.FileListener(p.Listener())
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if err := p.Release(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		from, to, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		second, err := run.Join(t.Context(), run.Spec{
			Command: []string{"sh", "-c", "ls -d /proc/[0-9]* | wc -l; readlink /proc/1/exe; exit 6"}, Dir: "/", Env: []string{"PATH=/usr/bin:/bin"},
			Stdout: to, Stderr: to, Socket: path,
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := second.Release(); err != nil {
			t.Fatal(err)
		}
		code, err := second.Wait()
		if err != nil || code != 6 {
			t.Errorf("the second command ended with %d, %v", code, err)
		}
		_ = to.Close()
		var out bytes.Buffer
		_, _ = out.ReadFrom(from)
		count := 0
		if _, err := fmt.Sscan(out.String(), &count); err != nil || count < 3 || count > 6 {
			t.Errorf("inside are %q processes", out.String())
		}
	}
	if _, err := feed.WriteString("end\n"); err != nil {
		t.Fatal(err)
	}
	if code, err := p.Wait(); code != 0 || err != nil {
		t.Errorf("the first command ended with %d, %v", code, err)
	}
}

// A sandbox whose release failed, here for a stream that was closed too early,
// ends without a hang.
func TestFailedRelease(t *testing.T) {
	needNamespaces(t)
	in, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	p, err := run.Start(t.Context(), run.Spec{Command: []string{"true"}, Dir: "/", Stdin: in})
	if err != nil {
		t.Fatal(err)
	}
	_, _ = p.Listener().Close(), in.Close()
	if err := p.Release(); err == nil {
		t.Error("a closed stream was handed over")
	}
	if code, err := p.Wait(); code != 125 || err != nil {
		t.Errorf("Wait gave %d, %v", code, err)
	}
}
