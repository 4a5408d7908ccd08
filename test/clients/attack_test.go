package clients

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// bait serves token at every listener.
func bait(t *testing.T, token string, listeners ...net.Listener) {
	t.Helper()
	for _, ln := range listeners {
		t.Cleanup(func() { _ = ln.Close() })
		go func() {
			for {
				conn, err := ln.Accept()
				if err != nil {
					return
				}
				_, _ = conn.Write([]byte(token)) // who reached it has it at once
				_ = conn.Close()
			}
		}()
	}
}

func listen(t *testing.T, network, at string) net.Listener {
	t.Helper()
	ln, err := net.Listen(network, at)
	if err != nil {
		t.Fatal(err)
	}
	return ln
}

// hostOf is a host full of what an attacker is after, of the world's user.
func hostOf(t *testing.T, w *world) target {
	t.Helper()
	at := target{
		Home: w.home, Start: w.home, Postern: filepath.Join(w.home, ".postern"), Program: w.postern, Dir: w.dir, Broker: os.Getpid(),
		Token: fmt.Sprintf("token-%x", rand.Uint64()), Abstract: fmt.Sprintf("@clients-%x", rand.Uint64()), Memory: int(rand.Int32()>>1) + 1, Key: fmt.Sprintf("clients-%x", rand.Uint64()),
	}
	at.Sockets = []string{filepath.Join(w.home, "service.sock"), filepath.Join(filepath.Dir(w.home), "other.sock")}
	tcp := listen(t, "tcp", ":0")
	_, at.Port, _ = net.SplitHostPort(tcp.Addr().String())
	all := []net.Listener{tcp, listen(t, "unix", at.Abstract)}
	for _, path := range at.Sockets {
		all = append(all, listen(t, "unix", path))
		if err := os.Chmod(path, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	bait(t, at.Token, all...)
	hosts := []string{"127.0.0.1", "::1", "::ffff:127.0.0.1", "127.1.2.3", "0.0.0.0", "::", "64:ff9b::7f00:1", "2002:7f00:1::1", "::7f00:1"}
	if addresses, err := net.InterfaceAddrs(); err == nil {
		for _, a := range addresses {
			if n, isNet := a.(*net.IPNet); isNet && !n.IP.IsLoopback() && !n.IP.IsLinkLocalUnicast() {
				hosts = append(hosts, n.IP.String())
			}
		}
	}
	for _, host := range hosts {
		at.TCP = append(at.TCP, net.JoinHostPort(host, at.Port))
	}
	handle, _, err := unix.NameToHandleAt(unix.AT_FDCWD, at.rootKey(), 0)
	if err == nil {
		at.Handle, at.HandleOf = handle.Bytes(), handle.Type()
	}
	var st unix.Stat_t
	if err := unix.Stat(at.rootKey(), &st); err != nil {
		t.Fatal(err)
	}
	at.Inode = st.Ino
	id, err := unix.SysvShmGet(at.Memory, 4096, unix.IPC_CREAT|0o666)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = unix.SysvShmCtl(id, unix.IPC_RMID, nil) })
	return at
}

// The attacker knows the host and every path on it, and tries from inside what a
// process of its user can try.
func TestAnAttackerInsideGainsNothing(t *testing.T) {
	for _, c := range []struct {
		name  string
		root  bool // who calls Postern
		owner int  // of the agent's directory, and so who the attacker is
		args  []string
	}{
		{"as the user of Postern", false, ordinary, nil},
		{"started by root, as another user", true, ordinary, nil},
		{"as root", true, 0, []string{"--as-root"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.root && os.Geteuid() != 0 {
				t.Skip("skipped: this is about root")
			}
			t.Parallel()
			w := newWorldOf(t, c.root, c.owner)
			for _, dir := range []string{filepath.Join(w.dir, ".git", "hooks"), filepath.Join(w.home, ".git", "hooks")} {
				w.write(filepath.Join(dir, "sample"), "#!/bin/sh\n")
			}
			w.own(filepath.Join(w.dir, ".git"), c.owner)
			w.own(filepath.Join(w.home, ".git"), c.owner)
			at := hostOf(t, w)
			if c.root && c.owner != 0 { // who has no entry, and so no home but this
				at.Start = w.dir
				w.write(filepath.Join(w.dir, ".bashrc"), "# start-up\n")
				w.own(filepath.Join(w.dir, ".bashrc"), c.owner)
			}
			w.attack(t, at, !c.root, c.args...)
		})
	}
}

// attack lets the attacker loose inside; where control is set, outside as well.
func (w *world) attack(t *testing.T, at target, control bool, args ...string) {
	at.Broker = w.serve()
	program := w.attacker()
	text, err := json.Marshal(at)
	if err != nil {
		t.Fatal(err)
	}
	if out, err := w.as(program, attackerName, string(text), "key").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	args = append(append([]string{"run"}, args...), "--", program, attackerName, string(text))
	run := w.as(w.postern, args...)
	secret, err := os.Open(at.rootKey())
	if err != nil {
		t.Fatal(err)
	}
	defer secret.Close()
	run.ExtraFiles = []*os.File{secret} // whoever starts Postern may leave something open
	said, err := run.CombinedOutput()
	inside := results(string(said))
	if err != nil || len(inside) != len(fileAttacks())+len(processAttacks())+len(networkAttacks()) {
		t.Fatalf("the attacker was stopped (%v):\n%s", err, said)
	}
	free := map[string]bool{}
	if control {
		out, err := w.as(program, attackerName, string(text)).CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		free = gains(results(string(out)))
		for _, name := range []string{"read the root key", "move Postern's directory away", "change a start-up file", "write a hook of git",
			"write a hook of the repository around", "attach the host's shared memory", "read the user's keyring", "leave by namespaces of its own",
			"reach a service of the host", "reach a socket without a path", "reach a socket by its path"} {
			if !free[name] {
				t.Errorf("%q does not work outside either, so it shows nothing:\n%s", name, out)
			}
		}
	}
	for _, r := range inside {
		t.Logf("%-40s outside: %-6s inside: %.200s", r.Name, map[bool]string{true: "works", false: "-"}[free[r.Name]], r.Why)
		if r.Gain != "" {
			t.Errorf("%s: %s %s", r.Name, r.Gain, r.Why)
		}
	}
}

func gains(list []result) map[string]bool {
	found := map[string]bool{}
	for _, r := range list {
		found[r.Name] = r.Gain != ""
	}
	return found
}

// attacker puts this test program where the ordinary user can start it.
func (w *world) attacker() string {
	w.Helper()
	own, err := os.Executable()
	if err != nil {
		w.Fatal(err)
	}
	program := filepath.Join(filepath.Dir(w.home), "attacker")
	w.command("cp", own, program)
	w.command("chmod", "755", program)
	return program
}
