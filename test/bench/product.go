package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"
)

const (
	echoName = "echo.bench.test:5000"
	bulkName = "bulk.bench.test:5001"
)

// product is one installation of Postern with one agent, as an ordinary user.
type product struct {
	binary string
	agent  string
	dir    string // of the agent
	env    []string
	daemon *process
	proxy  string // the daemon's proxy address
}

// install sets an agent up whose .env holds values keys beside the provider's.
func install(dir, binary, agent string, values int, u *upstream) (*product, error) {
	p := &product{binary: binary, agent: agent, dir: filepath.Join(dir, agent)}
	home := filepath.Join(dir, "home-"+agent)
	for _, d := range []string{home, p.dir, filepath.Join(home, "runtime"), filepath.Join(home, "postern")} {
		if err := os.Mkdir(d, 0o700); err != nil {
			return nil, err
		}
	}
	for _, v := range os.Environ() {
		name, _, _ := strings.Cut(v, "=")
		if name == "PATH" || name == "LANG" {
			p.env = append(p.env, v)
		}
	}
	p.env = append(p.env, "HOME="+home, "POSTERN_HOME="+filepath.Join(home, "postern"), "XDG_RUNTIME_DIR="+filepath.Join(home, "runtime"), "NO_COLOR=1")
	var dotenv strings.Builder
	fmt.Fprintf(&dotenv, "ANTHROPIC_API_KEY=%s\n", u.key)
	for i := range values {
		fmt.Fprintf(&dotenv, "OPENAI_API_KEY_%d=%s%s%s%s\n", i, "sk-"+"proj-", random(74), "T3Blbk"+"FJ", random(74))
	}
	config := fmt.Sprintf("upstream:\n  ca_file: %s\n  dial:\n    %q: %q\n    %q: %q\n    %q: %q\n",
		filepath.Join(u.dir, "ca.pem"), provider+":443", u.addr, echoName, u.echo, bulkName, u.bulk)
	err := errors.Join(
		os.WriteFile(filepath.Join(p.dir, ".env"), []byte(dotenv.String()), 0o600),
		os.WriteFile(filepath.Join(home, "postern", "config.yaml"), []byte(config), 0o600),
	)
	if err != nil {
		return nil, err
	}
	if who := credential(); who != nil {
		if out, err := exec.Command("chown", "-R", fmt.Sprintf("%d:%d", who.Uid, who.Gid), home, p.dir).CombinedOutput(); err != nil {
			return nil, fmt.Errorf("chown: %s", out)
		}
	}
	if out, err := p.command("setup", "--yes", ".").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("postern setup: %w\n%s", err, out)
	}
	return p, nil
}

// random is a text that only looks like the secret part of a key.
func random(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // it never fails
	return base64.RawURLEncoding.EncodeToString(b)[:n]
}

func newKey() string { return "sk-" + "ant-" + "api03-" + random(93) + "AA" }

func (p *product) command(args ...string) *exec.Cmd {
	cmd := exec.Command(p.binary, args...)
	cmd.Dir, cmd.Env = p.dir, p.env
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: credential()}
	return cmd
}

// serve starts the daemon with a proxy for clients outside `run`.
func (p *product) serve(ctx context.Context, pinned bool) (err error) {
	if p.proxy, err = freeAddr(); err != nil {
		return err
	}
	if p.daemon, err = start(place{ordinary: true, pinned: pinned}, p.env, p.dir, p.binary, "serve", "--proxy", p.proxy); err != nil {
		return err
	}
	return waitFor(ctx, p.proxy, p.daemon)
}

func (p *product) stop() {
	if p.daemon != nil {
		p.daemon.stop()
	}
}

var proxyVariable = regexp.MustCompile(`http://([^@]+)@`)

// password is the agent's user and password at a proxy.
func (p *product) password() (string, error) {
	var said bytes.Buffer
	cmd := p.command("run", "--mode", "cooperative", "--", "sh", "-c", "echo $HTTPS_PROXY")
	cmd.Stderr = &said
	out, err := cmd.Output()
	found := proxyVariable.FindSubmatch(out)
	if err != nil || found == nil {
		return "", fmt.Errorf("asking for the proxy's password: %v: %s%s", err, out, said.Bytes())
	}
	return string(found[1]), nil
}

// outside is the way of a client that knows the proxy.
func (p *product) outside(password string) (target, error) {
	key, err := p.placeholder()
	return target{Name: "Postern, proxy", Addr: p.proxy, Connect: provider + ":443", Auth: password, Key: key, Share: 100, pid: p.daemon.pid()}, err
}

func (p *product) placeholder() (string, error) {
	text, err := os.ReadFile(filepath.Join(p.dir, ".env"))
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(text)) {
		if value, found := strings.CutPrefix(line, "ANTHROPIC_API_KEY="); found {
			return strings.Trim(strings.TrimSpace(value), `"'`), nil
		}
	}
	return "", errors.New("the .env has no placeholder")
}

// inside is a client inside `postern run`: it takes orders on standard input.
type inside struct {
	cmd    *exec.Cmd
	orders *json.Encoder
	in     io.Closer
	out    *json.Decoder
	said   bytes.Buffer
}

// order is one thing to do inside; result is what came of it.
type order struct {
	Do     string // "round", "connect" or "bulk"
	Target target
	Work   work
}

type result struct {
	Right, Wrong int
	P50          float64 // µs
	Bytes        int64
	Seconds      float64
	Problem      string
}

// enter starts this binary inside `postern run`.
func (p *product) enter() (*inside, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	i := &inside{cmd: p.command("run", "--", self, "inside")}
	i.cmd.Stderr = &i.said
	in, err := i.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := i.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	i.orders, i.in, i.out = json.NewEncoder(in), in, json.NewDecoder(out)
	return i, i.cmd.Start()
}

func (i *inside) leave() {
	_ = i.in.Close()
	_ = i.cmd.Wait()
}

func (i *inside) do(o order) (result, error) {
	if err := i.orders.Encode(o); err != nil {
		return result{}, err
	}
	var r result
	if err := i.out.Decode(&r); err != nil {
		return r, fmt.Errorf("the client inside ended: %w: %s", err, i.said.String())
	}
	if r.Problem != "" {
		return r, errors.New(r.Problem)
	}
	return r, nil
}

// serveInside is the client inside: it does what it is told, line by line.
func serveInside() error {
	a := newAnswers()
	orders, results := json.NewDecoder(bufio.NewReader(os.Stdin)), json.NewEncoder(os.Stdout)
	for {
		var o order
		if err := orders.Decode(&o); err != nil {
			return nil // the bench is done
		}
		var r result
		var err error
		switch o.Do {
		case "round":
			s := o.Target.drive(o.Work, a)
			r.Right, r.Wrong, r.P50, err = s.right, s.wrong, s.p50, s.problem
		case "connect":
			r.P50, err = connects(echoName, 400)
		case "bulk":
			r.Bytes, r.Seconds, err = receive(bulkName, 1500*time.Millisecond)
		default:
			err = fmt.Errorf("unknown order %q", o.Do)
		}
		if err != nil {
			r.Problem = err.Error()
		}
		if err := results.Encode(r); err != nil {
			return err
		}
	}
}

// connects is the median time from connect to the first byte back, in µs.
func connects(addr string, n int) (float64, error) {
	to, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil {
		return 0, err
	}
	var times []float64
	for range n {
		start := time.Now()
		c, err := net.DialTCP("tcp", nil, to)
		if err != nil {
			return 0, err
		}
		b := []byte{'1'}
		_, err = c.Write(b)
		if err == nil {
			_, err = io.ReadFull(c, b)
		}
		times = append(times, float64(time.Since(start).Nanoseconds())/1e3)
		_ = c.Close()
		if err != nil {
			return 0, err
		}
	}
	return median(times), nil
}

// receive reads what the other side sends for a while.
func receive(addr string, during time.Duration) (int64, float64, error) {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return 0, 0, err
	}
	defer c.Close()
	if _, err := c.Write([]byte{'1'}); err != nil {
		return 0, 0, err
	}
	var total int64
	buffer := make([]byte, 1<<20)
	start := time.Now()
	for time.Since(start) < during {
		n, err := c.Read(buffer)
		if total += int64(n); err != nil {
			return total, 0, err
		}
	}
	return total, time.Since(start).Seconds(), nil
}
