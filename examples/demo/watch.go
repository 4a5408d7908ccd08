package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"postern/internal/dotenv"
)

// roundTime bounds the agent's round.
const roundTime = 60 * time.Second

// setUp lets Postern take the keys, and reads what it left instead.
func (w *world) setUp(ctx context.Context) error {
	// The key file, because a systemd credential may leave a host key behind in /var/lib.
	cmd := w.postern(ctx, "setup", "--yes", "--root", "keyfile")
	var progress bytes.Buffer
	cmd.Stderr = &progress
	out, err := cmd.Output()
	for line := range strings.Lines(string(out)) {
		if line = strings.TrimRight(line, "\n"); line != "" && !strings.Contains(line, "  next  ") {
			say("%s", strings.ReplaceAll(line, w.scratch, "…"))
		}
	}
	if err != nil {
		return fmt.Errorf("postern setup: %w\n%s", err, strings.TrimSpace(progress.String()))
	}
	data, err := os.ReadFile(filepath.Join(w.dir, ".env"))
	if err != nil {
		return err
	}
	file, err := dotenv.Parse(data, dotenv.Node)
	if err != nil {
		return err
	}
	w.held = file.Values()
	return nil
}

// heldFor shows what the agent had for a host.
func (w *world) heldFor(host string) string {
	for _, k := range w.keys {
		provider, _, _ := strings.Cut(k.kind, ".")
		if text := w.held[k.name]; strings.Contains(host, provider) && text != "" {
			return text[:min(12, len(text))] + "… of its own"
		}
	}
	return "?"
}

// watch runs the agent and looks at it from all sides while it lives.
func (w *world) watch(ctx context.Context) (measured, error) {
	say("\n$ postern run -- %s", strings.Join(w.agent.command, " "))
	var m measured
	var needles []needle
	for _, k := range w.keys {
		needles = append(needles, forms(k.name, k.value)...)
		if text := w.held[k.name]; text != "" && text != k.value {
			needles = append(needles, needle{k.name, controlForm, []byte(text)})
		}
	}
	for _, n := range needles {
		if n.form != controlForm {
			w.forms++
		}
	}
	search := newSearcher(needles)
	run := w.postern(ctx, w.runArgs(w.agent.command...)...)
	received, waiting, err := w.start(run, &m)
	if err != nil {
		return m, err
	}
	timer := time.NewTimer(roundTime)
	defer timer.Stop()
	select {
	case <-waiting:
	case <-timer.C:
		m.early = true
	case <-ctx.Done():
	}
	if ctx.Err() == nil && !m.early && !received.ended() {
		m.inside, m.probing = w.probeFromInside(ctx)
		m.outside = probe(w.fakes.Addr())
		m.blind = inspect(run.Process.Pid, []string{w.dir, w.home()}, search, &m.found)
	} else {
		m.early, m.probing = true, errors.New("the agent had ended")
	}
	if err := run.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return m, err
	}
	<-received.closed
	var exit *exec.ExitError
	if err := run.Wait(); errors.As(err, &exit) {
		m.exit = exit.ExitCode()
	} else if err != nil {
		return m, err
	}
	search.in(received.text.Bytes(), m.found.at("what it printed"))
	return m, ctx.Err()
}

// output is what the agent and Postern said.
type output struct {
	text   bytes.Buffer
	closed chan struct{}
}

func (o *output) ended() bool {
	select {
	case <-o.closed:
		return true
	default:
		return false
	}
}

// start starts the agent and shows its lines. waiting closes once its round is
// done or it has ended.
func (w *world) start(run *exec.Cmd, m *measured) (*output, <-chan struct{}, error) {
	reader, writer, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	defer writer.Close()
	run.Stdout, run.Stderr = writer, writer
	if err := run.Start(); err != nil {
		return nil, nil, errors.Join(err, reader.Close())
	}
	o := &output{closed: make(chan struct{})}
	waiting := make(chan struct{})
	done := sync.OnceFunc(func() { close(waiting) })
	go func() {
		defer done()
		defer close(o.closed)
		defer reader.Close()
		lines := bufio.NewScanner(io.TeeReader(reader, &o.text))
		for lines.Scan() {
			say("%s", lines.Text())
			if strings.Contains(lines.Text(), " failed: ") {
				m.failures = append(m.failures, lines.Text())
			}
			if strings.Contains(lines.Text(), w.agent.waits) {
				done()
			}
		}
	}()
	return o, waiting, nil
}

// probeFromInside joins the agent's sandbox with a second command.
func (w *world) probeFromInside(ctx context.Context) (reached, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	var r reached
	cmd := w.postern(ctx, w.runArgs(w.bin("probe"), "probe", w.fakes.Addr())...)
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err == nil {
		err = json.Unmarshal(out, &r)
	}
	if err != nil {
		err = fmt.Errorf("asking from inside: %w %s", err, strings.TrimSpace(said.String()))
	}
	return r, err
}
