package run_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	osexec "os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"postern/internal/run"
)

// otherUser is who the tests become where they run as root.
const otherUser = 12345

func TestMain(m *testing.M) {
	run.ChildMain()
	if os.Getenv(helperRun) != "" {
		os.Exit(helper())
	}
	os.Exit(m.Run())
}

func contextOfTests() context.Context { return context.Background() }

// again runs the test once more as an ordinary user where it runs as root.
func again(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		return
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "postern-run")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chown(dir, otherUser, otherUser); err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "test")
	data, err := os.ReadFile(exe)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(program, data, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := osexec.Command(program, "-test.run", "^"+t.Name()+"$", "-test.v", "-test.timeout=60s")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "TMPDIR="+dir, "HOME="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: otherUser, Gid: otherUser}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("as an ordinary user: %v\n%s", err, out)
	}
	if bytes.Contains(out, []byte("--- SKIP")) {
		t.Logf("skipped as an ordinary user:\n%s", out)
	}
}

func needNamespaces(t *testing.T) {
	t.Helper()
	if err := run.Probe(); err != nil {
		t.Skipf("skipped: %v", err)
	}
}

// sandbox runs a shell script inside; served is given the transparent listener.
func sandbox(t *testing.T, script string, change func(*run.Spec), served func(net.Listener, *run.Process)) (int, string) {
	t.Helper()
	return sandboxBy(t, run.Start, script, change, served)
}

type starter func(context.Context, run.Spec) (*run.Process, error)

func sandboxBy(t *testing.T, start starter, script string, change func(*run.Spec), served func(net.Listener, *run.Process)) (int, string) {
	t.Helper()
	dir := t.TempDir()
	scratch := filepath.Join(dir, "home")
	if err := os.Mkdir(scratch, 0o700); err != nil {
		t.Fatal(err)
	}
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	null, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	spec := run.Spec{
		Command: []string{"sh", "-c", script}, Dir: dir, Env: []string{"PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "HOME=" + dir},
		Hidden: []string{scratch}, Stdin: null, Stdout: writer, Stderr: writer,
		Overlay: map[string][]byte{},
	}
	if change != nil {
		change(&spec)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	p, err := start(ctx, spec)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.FileListener(p.Listener())
	if err != nil {
		t.Fatal(err)
	}
	_ = p.Listener().Close()
	defer ln.Close()
	if served != nil {
		go served(ln, p)
	}
	text := make(chan string)
	go func() {
		data, _ := io.ReadAll(reader)
		text <- string(data)
	}()
	if err := p.Release(); err != nil {
		t.Fatal(err)
	}
	code, err := p.Wait()
	if err != nil && code != 126 && code != 127 {
		t.Fatal(err)
	}
	_ = writer.Close()
	return code, <-text
}

func TestExitCodesPass(t *testing.T) {
	again(t)
	needNamespaces(t)
	for script, want := range map[string]int{"exit 7": 7, "true": 0, "kill -9 $$": 137, "exec /bin/nothing": 127} {
		if code, out := sandbox(t, script, nil, nil); code != want {
			t.Errorf("%q ended with %d, want %d\n%s", script, code, want, out)
		}
	}
	code, _ := sandbox(t, "", func(s *run.Spec) { s.Command = []string{"no-such-command"} }, nil)
	if code != 127 {
		t.Errorf("a command that is not there gave %d, want 127", code)
	}
	code, _ = sandbox(t, "", func(s *run.Spec) { s.Command = []string{"/etc/passwd"} }, nil)
	if code != 126 {
		t.Errorf("a file that cannot be executed gave %d, want 126", code)
	}
}

// Every connection lands at the listener with its own destination, by name or by
// address.
func TestConnectionsReachTheListener(t *testing.T) {
	again(t)
	needNamespaces(t)
	seen := make(chan string, 8)
	serve := func(ln net.Listener, p *run.Process) {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			at := conn.LocalAddr().(*net.TCPAddr).AddrPort()
			name, _ := p.Names(at.Addr().Unmap())
			seen <- fmt.Sprintf("%s:%d", name, at.Port())
			_, _ = fmt.Fprintf(conn, "HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\n%s", "hi\n")
			_ = conn.Close()
		}
	}
	code, out := sandbox(t, "curl -s -m 5 --noproxy '*' http://api.example.com:8080/ && curl -s -m 5 http://192.0.2.7/", nil, serve)
	if code != 0 || out != "hi\nhi\n" {
		t.Fatalf("code %d, output %q", code, out)
	}
	if first, second := <-seen, <-seen; first != "api.example.com:8080" || second != ":80" {
		t.Errorf("the listener saw %q and %q", first, second)
	}
}

// Nothing of the host can be reached but by the listener.
func TestHostIsOutOfReach(t *testing.T) {
	again(t)
	needNamespaces(t)
	host, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	reached := make(chan struct{}, 1)
	go func() {
		if conn, err := host.Accept(); err == nil {
			_ = conn.Close()
			reached <- struct{}{}
		}
	}()
	abstract, err := net.Listen("unix", "@postern-test-"+t.Name())
	if err != nil {
		t.Fatal(err)
	}
	defer abstract.Close()
	port := host.Addr().(*net.TCPAddr).Port
	script := fmt.Sprintf(`
curl -s -m 2 http://127.0.0.1:%d/ && echo reached
python3 - <<'P' 2>/dev/null
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.connect(("8.8.8.8", 53)); s.settimeout(2)
try:
    s.send(b"x"); s.recv(9); print("udp answered")
except ConnectionRefusedError: print("udp refused")
except Exception as e: print("udp", e)
u = socket.socket(socket.AF_UNIX)
try:
    u.connect("\0postern-test-%s"); print("abstract reached")
except OSError: print("abstract gone")
P
grep CapEff /proc/self/status; grep CapBnd /proc/self/status; grep NoNewPrivs /proc/self/status
ls -d /proc/[0-9]* | wc -l
`, port, t.Name())
	_, out := sandbox(t, script, nil, nil)
	for _, want := range []string{"udp refused", "abstract gone", "CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is missing from\n%s", want, out)
		}
	}
	select {
	case <-reached:
		t.Error("a service of the host was reached")
	default:
	}
}

func TestFilesAreHidden(t *testing.T) {
	again(t)
	needNamespaces(t)
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	secret, masked, rc := write("aws/credentials", "secret-one"), write("bot/old.env", "secret-two"), write(".bashrc", "start-up")
	overlaid := write("bundle.pem", "old")
	script := fmt.Sprintf("cat %s; cat %s; cat %s; echo changed >> %s; cat %s; umount %s; mount -o remount,rw %s; echo x > %s; ls %s",
		secret, masked, rc, rc, overlaid, dir+"/aws", dir+"/aws", masked, dir+"/aws")
	_, out := sandbox(t, script, func(s *run.Spec) {
		s.Hidden = append(s.Hidden, filepath.Join(dir, "aws"))
		s.Masked, s.ReadOnly = []string{masked}, []string{rc}
		s.Overlay[overlaid] = []byte("new-bundle\n")
	}, nil)
	if strings.Contains(out, "secret-one") || strings.Contains(out, "secret-two") {
		t.Errorf("a hidden file was read:\n%s", out)
	}
	if !strings.Contains(out, "start-up") || !strings.Contains(out, "new-bundle") {
		t.Errorf("what should be there is not:\n%s", out)
	}
	for path, want := range map[string]string{secret: "secret-one", masked: "secret-two", rc: "start-up", overlaid: "old"} {
		if data, err := os.ReadFile(path); err != nil || string(data) != want {
			t.Errorf("%s now holds %q (%v)", path, data, err)
		}
	}
}

// A grant makes a service of the host reachable, a published port one of the
// command's.
func TestPortsInAndOut(t *testing.T) {
	again(t)
	needNamespaces(t)
	host, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	go func() {
		for {
			conn, err := host.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(conn, "from the host\n")
			_ = conn.Close()
		}
	}()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	public := free.Addr().(*net.TCPAddr).AddrPort()
	_ = free.Close()
	at := host.Addr().(*net.TCPAddr).AddrPort()
	script := fmt.Sprintf(`python3 - <<'P'
import socket
print(socket.create_connection(("127.0.0.1", %d)).recv(99).decode(), end="", flush=True)
l = socket.create_server(("127.0.0.1", 8123)); print("listening", flush=True)
c, _ = l.accept(); c.sendall(b"from inside"); c.close()
P`, at.Port())
	got := make(chan string, 1)
	_, out := sandbox(t, script, func(s *run.Spec) {
		s.TCP = []netip.AddrPort{at}
		s.Publish = []run.Publish{{Host: public, Port: 8123}}
	}, func(net.Listener, *run.Process) {
		for range 200 {
			conn, err := net.Dial("tcp", public.String())
			if err != nil {
				continue
			}
			data, _ := io.ReadAll(conn)
			_ = conn.Close()
			if len(data) > 0 {
				got <- string(data)
				return
			}
			<-time.After(20 * time.Millisecond)
		}
		got <- ""
	})
	if !strings.Contains(out, "from the host") {
		t.Errorf("the granted service was not reached:\n%s", out)
	}
	if text := <-got; text != "from inside" {
		t.Errorf("the published port answered %q", text)
	}
}

// As root the command is the user that was named, and cannot become root again;
// also where there are no user namespaces.
func TestRootBecomesTheUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("skipped: this is about root")
	}
	needNamespaces(t)
	private := filepath.Join(t.TempDir(), "private")
	if err := os.WriteFile(private, []byte("of-root"), 0o600); err != nil {
		t.Fatal(err)
	}
	const script = `id -u; id -g; id -G; cat %s; echo x > /dev/stderr; grep -c "Cap...:.0000000000000000" /proc/self/status; ls -d /proc/[0-9]* | wc -l; (: < /proc/1/environ); cat /proc/sys/kernel/pid_max > /dev/null && echo done`
	for name, start := range map[string]starter{"user namespace": run.Start, "without one": run.StartPowerful} {
		_, out := sandboxBy(t, start, fmt.Sprintf(script, private), func(s *run.Spec) {
			s.User = &run.User{UID: otherUser, GID: otherUser, Groups: []uint32{otherUser, 4}}
			s.Dir = "/"
			s.Filter = func() (run.Filter, error) { return &upper{}, nil }
		}, nil)
		if !strings.Contains(out, "12345\n12345\n12345 4\n5\n") || strings.Contains(out, "of-root") || !strings.Contains(out, "done") {
			t.Errorf("%s: the command was\n%s", name, out)
		}
	}
}

// Where the kernel has no TPROXY the destination is asked for.
func TestRedirected(t *testing.T) {
	again(t)
	needNamespaces(t)
	needPython(t)
	const program = `
import socket
for to in (("192.0.2.7", 443), ("2001:db8::7", 8443)):
    try: print(to[0], "->", socket.create_connection(to, 3).recv(99).decode())
    except OSError as e: print(to[0], "->", e)
`
	got := python(t, program, "", run.Redirected, func(ln net.Listener, p *run.Process) { sayWhere(run.Original(ln), p) })
	if got["192.0.2.7"] != "192.0.2.7:443" || got["2001:db8::7"] != "[2001:db8::7]:8443" {
		t.Errorf("the listener saw %v", got)
	}
}

// When the parent is gone, nothing is left.
func TestNothingOutlivesTheParent(t *testing.T) {
	needNamespaces(t)
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	p, err := run.Start(t.Context(), run.Spec{
		Command: []string{"sh", "-c", "sleep 600 & echo up; wait"}, Dir: dir, Env: []string{"PATH=/usr/bin:/bin"},
		Stdout: writer, Stderr: writer,
	})
	if err != nil {
		t.Fatal(err)
	}
	_ = p.Listener().Close()
	if err := p.Release(); err != nil {
		t.Fatal(err)
	}
	buffer := make([]byte, 3)
	if _, err := io.ReadFull(reader, buffer); err != nil {
		t.Fatal(err)
	}
	_ = writer.Close()
	if err := unix.Kill(p.PID(), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(reader); err != nil { // ends only when the last process inside has
		t.Fatal(err)
	}
	if code, err := p.Wait(); code != 125 || !errors.Is(err, err) {
		t.Errorf("Wait gave %d, %v", code, err)
	}
}

// The same where we are killed without a chance to clean up.
func TestNothingOutlivesUs(t *testing.T) {
	again(t)
	needNamespaces(t)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := osexec.Command(exe)
	cmd.Env = []string{helperRun + "=(trap '' TERM HUP; setsid sleep 600 & sleep 600) & echo up; sleep 600"}
	cmd.Stdout, cmd.Stderr = writer, writer
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = writer.Close()
	if _, err := io.ReadFull(reader, make([]byte, 3)); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if _, err := io.ReadAll(reader); err != nil { // ends only when the last process inside has
		t.Fatal(err)
	}
}

// A descriptor that we were given is not passed on: it could lead around every
// cover.
func TestNoDescriptorLeaks(t *testing.T) {
	again(t)
	needNamespaces(t)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := osexec.Command(exe)
	cmd.Env = []string{helperRun + "=ls /proc/self/fd"}
	root, err := os.Open("/")
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	cmd.ExtraFiles = []*os.File{root}
	out, err := cmd.CombinedOutput()
	if err != nil || strings.Join(strings.Fields(string(out)), " ") != "0 1 2 3" { // 3 is the listing's own
		t.Errorf("descriptors inside: %s %v", out, err)
	}
}

// Orphans are reaped, and those that still run end with the command.
func TestOrphans(t *testing.T) {
	again(t)
	needNamespaces(t)
	const script = `for i in 1 2 3 4 5 6 7 8; do (true &); done; sleep 0.2; (sleep 600 &); cat /proc/[0-9]*/stat | grep -c " Z "; exit 0`
	if code, out := sandbox(t, script, nil, nil); code != 0 || out != "0\n" {
		t.Errorf("code %d, zombies: %s", code, out)
	}
}

func BenchmarkTrue(b *testing.B) {
	dir := b.TempDir()
	for b.Loop() {
		p, err := run.Start(b.Context(), run.Spec{Command: []string{"true"}, Dir: dir, Env: []string{"PATH=/usr/bin:/bin"}})
		if err != nil {
			b.Fatal(err)
		}
		_ = p.Listener().Close()
		if err := p.Release(); err != nil {
			b.Fatal(err)
		}
		if _, err := p.Wait(); err != nil {
			b.Fatal(err)
		}
	}
}
