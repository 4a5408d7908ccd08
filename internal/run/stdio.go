package run

import (
	"errors"
	"io"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"postern/internal/fail"
)

// flushAfter is how long output is held back on a terminal in case that it
// becomes a known value.
const flushAfter = 20 * time.Millisecond

// stdio connects the command to our own streams: by a pseudo-terminal where
// standard input and output are terminals, by pipes otherwise, each through a
// filter of its own.
type stdio struct {
	spec                        Spec
	childIn, childOut, childErr *os.File
	tty                         *os.File // our side of the pseudo-terminal
	pipes                       []pipe
	opened                      []*os.File // the command's ends, closed once it has them
	before                      *term.State
	copies                      sync.WaitGroup
	errs                        chan error
	restoreOnce                 sync.Once
	stopSignals                 func()
}

// pipe is a stream of output on its way out.
type pipe struct {
	from   *os.File
	to     io.Writer
	filter Filter
	flush  bool
}

func newStdio(s Spec) (*stdio, error) {
	d := &stdio{spec: s, childIn: s.Stdin, childOut: s.Stdout, childErr: s.Stderr, errs: make(chan error, 4), stopSignals: func() {}}
	var err error
	switch {
	case s.Stdin != nil && s.Stdout != nil && isTerminal(s.Stdin) && isTerminal(s.Stdout):
		err = d.terminal()
	case s.Filter != nil:
		err = errors.Join(d.pipe(&d.childOut, s.Stdout), d.pipe(&d.childErr, s.Stderr))
	}
	if err != nil {
		return nil, fail.New(fail.Unavailable, "P-E123", "the streams of the command could not be made").Wrap(err)
	}
	return d, nil
}

func isTerminal(f *os.File) bool { return term.IsTerminal(int(f.Fd())) }

func (d *stdio) filter() (Filter, error) {
	if d.spec.Filter == nil {
		return plain{}, nil
	}
	return d.spec.Filter()
}

// plain passes everything.
type plain struct{}

func (plain) Write(dst, chunk []byte) []byte { return append(dst, chunk...) }
func (plain) Flush(dst []byte) []byte        { return dst }
func (plain) Close(dst []byte) []byte        { return dst }

// pipe puts a pipe in the place of one of the command's streams.
func (d *stdio) pipe(child **os.File, to *os.File) error {
	if to == nil {
		return nil
	}
	filter, err := d.filter()
	if err != nil {
		return err
	}
	from, end, err := os.Pipe()
	if err != nil {
		return err
	}
	*child = end
	d.opened = append(d.opened, end)
	d.pipes = append(d.pipes, pipe{from: from, to: to, filter: filter})
	return nil
}

// terminal opens a pseudo-terminal of the size of ours.
func (d *stdio) terminal() error {
	filter, err := d.filter()
	if err != nil {
		return err
	}
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
	if err != nil {
		return err
	}
	fd := int(master.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		return errors.Join(err, master.Close())
	}
	return d.attach(master, filter)
}

// attach opens the command's side by its descriptor, not by its path, which
// belongs to another mount namespace.
func (d *stdio) attach(master *os.File, filter Filter) error {
	fd, _, errno := unix.Syscall(unix.SYS_IOCTL, master.Fd(), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if errno != 0 {
		return errors.Join(errno, master.Close())
	}
	slave := os.NewFile(fd, "terminal")
	d.tty = master
	d.childIn, d.childOut, d.childErr = slave, slave, slave
	d.opened = append(d.opened, slave)
	d.resize()
	d.pipes = append(d.pipes, pipe{from: master, to: d.spec.Stdout, filter: filter, flush: true})
	return nil
}

// resize gives the pseudo-terminal the size of ours.
func (d *stdio) resize() {
	if size, err := unix.IoctlGetWinsize(int(d.spec.Stdin.Fd()), unix.TIOCGWINSZ); err == nil {
		_ = unix.IoctlSetWinsize(int(d.tty.Fd()), unix.TIOCSWINSZ, size)
	}
}

// started closes the ends that only the command shall hold.
func (d *stdio) started() {
	for _, f := range d.opened {
		_ = f.Close()
	}
	d.opened = nil
}

// release begins to carry bytes.
func (d *stdio) release(<-chan answer) {
	for _, p := range d.pipes {
		d.copies.Go(func() {
			if err := p.carry(); err != nil {
				d.errs <- err
			}
		})
	}
	if d.tty == nil {
		return
	}
	if state, err := term.MakeRaw(int(d.spec.Stdin.Fd())); err == nil {
		d.before = state
	}
	changes := make(chan os.Signal, 1)
	signal.Notify(changes, syscall.SIGWINCH)
	d.stopSignals = func() { signal.Stop(changes); close(changes) }
	go func() {
		for range changes {
			d.resize()
		}
	}()
	go func() { _, _ = io.Copy(d.tty, d.spec.Stdin) }()
}

// pause stops ourselves as the command was stopped, with the terminal as it was
// before, and returns when the shell lets us go on.
func (d *stdio) pause() {
	if d.tty == nil {
		return
	}
	if d.before != nil {
		_ = term.Restore(int(d.spec.Stdin.Fd()), d.before)
	}
	_ = unix.Kill(os.Getpid(), unix.SIGSTOP)
	if d.before != nil {
		_, _ = term.MakeRaw(int(d.spec.Stdin.Fd()))
	}
	d.resize()
}

// carry moves output through the filter until the command's end is closed.
func (p pipe) carry() error {
	chunks := make(chan []byte)
	go func() {
		defer close(chunks)
		for {
			buffer := make([]byte, 32<<10)
			n, err := p.from.Read(buffer)
			if n > 0 {
				chunks <- buffer[:n]
			}
			if err != nil {
				return
			}
		}
	}()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	var out []byte
	for {
		var err error
		select {
		case chunk, more := <-chunks:
			if !more {
				_, err = p.to.Write(p.filter.Close(out[:0]))
				return err
			}
			out = p.filter.Write(out[:0], chunk)
			if p.flush {
				timer.Reset(flushAfter)
			}
		case <-timer.C:
			out = p.filter.Flush(out[:0])
		}
		if len(out) > 0 {
			if _, err = p.to.Write(out); err != nil {
				for range chunks { // whoever read us is gone; the command shall not block on that
				}
				return nil
			}
		}
	}
}

// finish waits for the last output.
func (d *stdio) finish() error {
	d.copies.Wait()
	select {
	case err := <-d.errs:
		return err
	default:
		return nil
	}
}

// restore gives the terminal its mode back.
func (d *stdio) restore() {
	d.restoreOnce.Do(func() {
		d.started()
		d.stopSignals()
		if d.before != nil {
			_ = term.Restore(int(d.spec.Stdin.Fd()), d.before)
		}
		if d.tty != nil {
			_ = d.tty.Close()
		}
	})
}
