package script

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"
)

// patience bounds the wait for a process that gets ready.
const patience = 20 * time.Second

// exits checks the exit code of a command: exits CODE COMMAND…. As root, whose
// directories belong to root here, `postern run` gets --as-root.
func exits(ts *testscript.TestScript, neg bool, words []string) {
	if neg || len(words) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND…")
	}
	want, err := strconv.Atoi(words[0])
	ts.Check(err)
	err = ts.Exec(words[1], asRoot(words[1:])...)
	got := 0
	var ended *exec.ExitError
	if errors.As(err, &ended) {
		got = ended.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit code %d, not %d", got, want)
	}
}

// asRoot are the arguments of command, with --as-root where it is needed.
func asRoot(command []string) []string {
	args := command[1:]
	if os.Geteuid() != 0 || command[0] != "postern" || len(args) == 0 || args[0] != "run" {
		return args
	}
	return append([]string{"run", "--as-root"}, args[1:]...)
}

// serve starts the daemon and waits until it says that it is ready: serve
// [ARG…]. It ends with the story, or by kill postern.
func serve(ts *testscript.TestScript, neg bool, args []string) {
	if neg {
		ts.Fatalf("unsupported: ! serve")
	}
	path := filepath.Join(ts.Getenv("WORK"), "notify")
	ready, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	ts.Check(err)
	defer os.Remove(path)
	defer ready.Close()
	ts.Check(ready.SetReadDeadline(time.Now().Add(patience)))
	start(ts, "postern", append([]string{"serve"}, args...), "NOTIFY_SOCKET="+path)
	if _, err := ready.Read(make([]byte, 64)); err != nil {
		ts.Fatalf("the daemon did not get ready: %v", err)
	}
}

// fakes starts the fake providers for the keys that were made, and leads the
// installation to them: fakes KIND….
func fakes(ts *testscript.TestScript, neg bool, kinds []string) {
	if neg || len(kinds) == 0 {
		ts.Fatalf("usage: fakes KIND…")
	}
	keys := map[string]string{}
	for _, kind := range kinds {
		keys[kind] = ts.Getenv(variable(kind))
	}
	data, err := json.Marshal(keys)
	ts.Check(err)
	dir := filepath.Join(ts.Getenv("WORK"), "fakes")
	ts.Check(os.Mkdir(dir, 0o700))
	file := filepath.Join(dir, "keys.json")
	ts.Check(os.WriteFile(file, data, 0o600))
	start(ts, "postern-fake", []string{"-keys", file, "-out", dir})
	fragment, err := awaited(filepath.Join(dir, "ready"), filepath.Join(dir, "config-fragment"))
	ts.Check(err)
	home := ts.Getenv("POSTERN_HOME")
	ts.Check(os.MkdirAll(home, 0o700))
	config := filepath.Join(home, "config.yaml")
	old, err := os.ReadFile(config)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		ts.Fatalf("%v", err)
	}
	ts.Check(os.WriteFile(config, append(old, fragment...), 0o600))
}

// awaited are the bytes of file, once ready exists.
func awaited(ready, file string) ([]byte, error) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); <-tick.C {
		if _, err := os.Stat(ready); err == nil {
			return os.ReadFile(file)
		}
	}
	return nil, fmt.Errorf("%s did not appear", ready)
}

// start starts a program of ours that ends with the story.
func start(ts *testscript.TestScript, name string, args []string, environ ...string) {
	path, err := exec.LookPath(filepath.Join(ts.Getenv("BIN"), name))
	ts.Check(err)
	cmd := exec.Command(path, args...)
	cmd.Dir = ts.MkAbs(".")
	for _, name := range []string{"HOME", "PATH", "XDG_RUNTIME_DIR", "POSTERN_HOME", "LANG", "TMPDIR"} {
		cmd.Env = append(cmd.Env, name+"="+ts.Getenv(name))
	}
	cmd.Env = append(cmd.Env, environ...)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	in, err := cmd.StdinPipe() // the fakes end when it closes
	ts.Check(err)
	ts.Check(cmd.Start())
	ts.Defer(func() {
		_ = in.Close()
		_ = cmd.Process.Signal(os.Interrupt)
		_ = cmd.Wait()
		ts.Logf("%s said:\n%s", name, said.String())
	})
}

// fifo makes a FIFO.
func fifo(ts *testscript.TestScript, neg bool, names []string) {
	if neg || len(names) != 1 {
		ts.Fatalf("usage: fifo NAME")
	}
	ts.Check(unix.Mkfifo(ts.MkAbs(names[0]), 0o600))
}

// big makes a file of MEGABYTES that takes no room.
func big(ts *testscript.TestScript, neg bool, words []string) {
	if neg || len(words) != 2 {
		ts.Fatalf("usage: big MEGABYTES NAME")
	}
	megabytes, err := strconv.ParseInt(words[0], 10, 64)
	ts.Check(err)
	file, err := os.Create(ts.MkAbs(words[1]))
	ts.Check(err)
	defer file.Close()
	ts.Check(file.Truncate(megabytes << 20))
}

// flip changes one bit in the middle of the first place where text stands in a
// file: flip FILE TEXT.
func flip(ts *testscript.TestScript, neg bool, words []string) {
	if neg || len(words) != 2 {
		ts.Fatalf("usage: flip FILE TEXT")
	}
	path := ts.MkAbs(words[0])
	data, err := os.ReadFile(path)
	ts.Check(err)
	at := bytes.Index(data, []byte(words[1]))
	if at < 0 {
		ts.Fatalf("%s does not hold %q", words[0], words[1])
	}
	data[at+len(words[1])/2] ^= 1
	ts.Check(os.WriteFile(path, data, 0o600))
}
