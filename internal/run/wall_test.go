package run_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"postern/internal/run"
)

// attack is a Python program that tries the ways around the wall and prints one
// line for each.
const attack = `
import ctypes, os, socket, struct, sys, mmap
def go(name, f):
    try: print(name, "->", f(), flush=True)
    except Exception as e: print(name, "->", type(e).__name__, getattr(e, "errno", ""), flush=True)
def tcp6():
    s = socket.create_connection(("2001:db8::7", 8443), 3); return s.recv(99).decode()
def tcp4():
    s = socket.create_connection(("169.254.169.254", 80), 3); return s.recv(99).decode()
def udp(family, to):
    s = socket.socket(family, socket.SOCK_DGRAM); s.settimeout(2); s.connect(to); s.send(b"x"); return s.recv(9)
def path(p):
    s = socket.socket(socket.AF_UNIX); s.connect(p); return "reached"
libc = ctypes.CDLL(None, use_errno=True)
def call(n, *args):
    r = libc.syscall(n, *args)
    return "allowed" if r >= 0 else "errno %d" % ctypes.get_errno()
go("tcp6", tcp6)
go("tcp4", tcp4)
go("udp4", lambda: udp(socket.AF_INET, ("8.8.8.8", 443)))
go("udp6", lambda: udp(socket.AF_INET6, ("2001:4860:4860::8888", 443)))
go("vsock", lambda: socket.socket(40, socket.SOCK_STREAM) and "made")
go("packet", lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW) and "made")
go("raw", lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1) and "made")
go("io_uring", lambda: call(425, 1, 0))
go("unix path", lambda: path(sys.argv[1]))
go("ptrace init", lambda: call(101, 16, 1, 0, 0))
go("init memory", lambda: open("/proc/1/mem", "rb") and "opened")
go("init fds", lambda: os.readlink("/proc/1/fd/7"))
go("unshare net", lambda: call(272, 0x40000000))
go("setns", lambda: call(308, os.open("/proc/1/ns/net", os.O_RDONLY), 0))
go("mount", lambda: call(165, b"x", b"/mnt", b"tmpfs", 0, 0))
go("umount run", lambda: call(166, b"/run", 2))
go("nested umount", lambda: call(272, 0x10020000) + " " + call(166, b"/run", 2))
go("processes", lambda: len([p for p in os.listdir("/proc") if p.isdigit()]))
go("keyring", lambda: open("/proc/keys").read().count("secret-of-the-session"))
go("shm", lambda: os.listdir("/dev/shm"))
go("pts", lambda: os.listdir("/dev/pts"))
go("groups", lambda: os.getgroups())
print(open("/proc/self/status").read().split("Seccomp:")[1].split()[0], "seccomp")
`

// python runs a program inside and gives its lines by the word in front.
func python(t *testing.T, program string, arg string, change func(*run.Spec), served func(net.Listener, *run.Process)) map[string]string {
	t.Helper()
	_, out := sandbox(t, "", func(s *run.Spec) {
		s.Command = []string{"/usr/bin/python3", "-c", program, arg}
		if change != nil {
			change(s)
		}
	}, served)
	lines := map[string]string{}
	for line := range strings.Lines(out) {
		if name, result, found := strings.Cut(strings.TrimSpace(line), " -> "); found {
			lines[name] = result
		}
	}
	t.Logf("inside:\n%s", out)
	return lines
}

// sayWhere answers each connection with the address that it was made to.
func sayWhere(ln net.Listener, _ *run.Process) {
	for {
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		_, _ = fmt.Fprint(conn, conn.LocalAddr())
		_ = conn.Close()
	}
}

func needPython(t *testing.T) {
	t.Helper()
	if _, err := os.Stat("/usr/bin/python3"); err != nil {
		t.Skip("skipped: /usr/bin/python3 is missing")
	}
}

func TestWaysAroundTheWall(t *testing.T) {
	again(t)
	needNamespaces(t)
	needPython(t)
	socket := filepath.Join(t.TempDir(), "host.sock")
	host, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	got := python(t, attack, socket, nil, sayWhere)
	for name, want := range map[string]string{
		"tcp4": "169.254.169.254:80", "tcp6": "[2001:db8::7]:8443",
		"udp4": "ConnectionRefusedError 111", "udp6": "ConnectionRefusedError 111",
		"vsock": "OSError 97", "packet": "OSError 97", "raw": "PermissionError 1", "io_uring": "errno 38",
		"ptrace init": "errno 1", "init memory": "PermissionError 13", "init fds": "PermissionError 13",
		"unshare net": "errno 1", "mount": "errno 1", "umount run": "errno 1", "keyring": "0", "shm": "[]",
	} {
		if got[name] != want {
			t.Errorf("%s: %q, want %q", name, got[name], want)
		}
	}
	for name, forbidden := range map[string]string{"unix path": "reached", "setns": "allowed", "nested umount": "allowed allowed"} {
		if got[name] == forbidden || got[name] == "" {
			t.Errorf("%s: %q", name, got[name])
		}
	}
}

// A granted socket is reachable although /run is hidden, and nothing beside it.
func TestGrantedSocket(t *testing.T) {
	again(t)
	needNamespaces(t)
	needPython(t)
	dir := t.TempDir()
	paths := []string{filepath.Join(dir, "granted.sock"), filepath.Join(dir, "other.sock")}
	for _, path := range paths {
		ln, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		go func() {
			for {
				conn, err := ln.Accept()
				if err != nil {
					return
				}
				_, _ = conn.Write([]byte("hello"))
				_ = conn.Close()
			}
		}()
	}
	const program = `
import socket, sys
for n in ("granted", "other"):
    try:
        s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1] + "/" + n + ".sock"); print(n, "->", s.recv(9).decode())
    except OSError as e: print(n, "->", "refused")
`
	hide := func(s *run.Spec) { s.Hidden, s.Shown = append(s.Hidden, dir), []string{paths[0]}; s.Dir = "/" }
	if got := python(t, program, dir, hide, nil); got["granted"] != "hello" || got["other"] != "refused" {
		t.Errorf("below a hidden directory: %v", got)
	}
	show := func(s *run.Spec) { s.Shown, s.Dir = []string{paths[0]}, "/" }
	if got := python(t, program, dir, show, nil); got["granted"] != "hello" || got["other"] != "refused" {
		t.Errorf("among others: %v", got)
	}
}

// Root without power: no devices, no kernel settings, nothing of the system to
// change, and none of the files that are hidden.
func TestRootWithoutPower(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("skipped: this is about root")
	}
	needNamespaces(t)
	needPython(t)
	private := filepath.Join(t.TempDir(), "private")
	if err := os.MkdirAll(private, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(private, "key"), []byte("of-postern"), 0o600); err != nil {
		t.Fatal(err)
	}
	const program = `
import os, sys
def go(name, f):
    try: print(name, "->", f())
    except Exception as e: print(name, "->", type(e).__name__, getattr(e, "errno", ""))
go("uid", os.getuid)
go("private", lambda: os.listdir(sys.argv[1]))
go("disks", lambda: [d for d in os.listdir("/dev") if d.startswith(("vd", "sd", "nvme", "mem", "kmsg"))])
go("mknod", lambda: os.mknod("/tmp/postern-test-disk", 0o60600, os.makedev(254, 0)))
go("core pattern", lambda: open("/proc/sys/kernel/core_pattern", "w").write("x"))
go("cron", lambda: open("/etc/cron.d/postern-test", "w"))
go("null", lambda: open("/dev/null", "w").write("x"))
go("chown", lambda: os.chown(".", 1, 1))
go("caps", lambda: [l.split()[1] for l in open("/proc/self/status") if l.startswith("CapEff")][0])
`
	got := python(t, program, private, func(s *run.Spec) { s.Hidden = append(s.Hidden, private) }, nil)
	for name, want := range map[string]string{
		"uid": "0", "private": "[]", "disks": "[]", "mknod": "PermissionError 1", "core pattern": "OSError 30", "cron": "OSError 30", "null": "1",
		"caps": "0000000000000000",
	} {
		if got[name] != want {
			t.Errorf("%s: %q, want %q", name, got[name], want)
		}
	}
}

// A directory above something protected cannot be renamed, which would leave the
// protected name free for a file of the command's own.
func TestWhatIsProtectedStaysInItsPlace(t *testing.T) {
	again(t)
	needNamespaces(t)
	dir := t.TempDir()
	for _, below := range []string{"config/systemd", "state/postern"} {
		if err := os.MkdirAll(filepath.Join(dir, below), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	_, out := sandbox(t, fmt.Sprintf("cd %s; mv config c2; mv state s2; echo x > config/systemd/x; echo x > state/postern/x; echo x > config/y && echo wrote", dir), func(s *run.Spec) {
		s.ReadOnly, s.Hidden = []string{filepath.Join(dir, "config/systemd")}, append(s.Hidden, filepath.Join(dir, "state/postern"))
	}, nil)
	for _, gone := range []string{"c2", "s2", "config/systemd/x", "state/postern/x"} {
		if _, err := os.Lstat(filepath.Join(dir, gone)); err == nil {
			t.Errorf("%s exists\n%s", gone, out)
		}
	}
	if !strings.Contains(out, "wrote") {
		t.Errorf("what is not protected cannot be written\n%s", out)
	}
}
