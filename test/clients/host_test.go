package clients

import (
	"bufio"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

func TestStartUpFilesThatAppearAreNamed(t *testing.T) {
	w := newWorld(t)
	out, _ := w.exec("run", "--", "sh", "-c", "echo x > $HOME/.bash_profile")
	if !strings.Contains(out, "a start-up file has appeared") || !strings.Contains(out, ".bash_profile") {
		t.Errorf("it was not said:\n%s", out)
	}
	found, _ := w.exec("ledger", "find", "--kind", "file.changed", "--json")
	if !strings.Contains(found, "a start-up file appeared") {
		t.Errorf("it is not on record:\n%s", found)
	}
}

// A process of the same user, outside of any sandbox, can neither read the
// daemon's memory nor its environment.
func TestTheDaemonCannotBeReadByItsUser(t *testing.T) {
	w := newWorld(t)
	daemon := exec.Command(w.postern, "serve")
	daemon.Dir, daemon.Env = w.dir, w.env
	reader := exec.Command("sh", "-c", `for f in mem environ maps; do head -c 1 /proc/$1/$f >/dev/null 2>&1 && echo "$f was read"; done; echo done`, "sh", "")
	if os.Geteuid() == 0 {
		who := &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: ordinary, Gid: ordinary}}
		daemon.SysProcAttr, reader.SysProcAttr = who, who
	}
	talk, err := daemon.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = daemon.Process.Signal(syscall.SIGTERM); _ = daemon.Wait() })
	if line, err := bufio.NewReader(talk).ReadString('\n'); err != nil || !strings.Contains(line, "serving on") {
		t.Fatalf("the daemon said %q, %v", line, err)
	}
	reader.Args[4] = strconv.Itoa(daemon.Process.Pid)
	out, err := reader.CombinedOutput()
	if err != nil || string(out) != "done\n" {
		t.Errorf("%v\n%s", err, out)
	}
}
