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

// stdio connects the command to our own streams: by a terminal of its own where
// standard input and output are terminals, else by pipes, each through a filter
// of its own. Our own terminal is never handed over.
type stdio struct {
	spec    Spec
	tty     bool
	child   []*os.File // the command's three streams; none where it has a terminal
	opened  []*os.File // those of them that are closed once the command has them
	master  *os.File   // our side of the terminal
	streams []stream
	before  *term.State
	copies  sync.WaitGroup
	once    sync.Once
	stops   []func()
	signals chan os.Signal
	// keyboard says whether signals may come from one, which a terminal of the
	// command's own does not turn into signals for us.
	keyboard bool
	send     func(s syscall.Signal, group bool)

	mu     sync.Mutex
	failed error
}

// stream is output on its way out.
type stream struct {
	from   *os.File
	to     io.Writer
	filter Filter
	flush  bool
}

func newStdio(s Spec) (*stdio, error) {
	d := &stdio{spec: s, tty: isTerminal(s.Stdin) && isTerminal(s.Stdout)}
	d.catchSignals()
	if d.tty {
		return d, nil
	}
	err := d.pipeIn()
	for _, to := range []*os.File{s.Stdout, s.Stderr} {
		err = errors.Join(err, d.pipeOut(to))
	}
	if err != nil {
		d.restore()
		return nil, fail.New(fail.Unavailable, "P-E123", "the streams of the command could not be made").Wrap(err)
	}
	return d, nil
}

func isTerminal(f *os.File) bool { return f != nil && term.IsTerminal(int(f.Fd())) }

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

// pipeIn gives the command our input, through a pipe where it is a terminal.
func (d *stdio) pipeIn() error {
	switch {
	case d.spec.Stdin == nil:
		return d.null(os.O_RDONLY)
	case !isTerminal(d.spec.Stdin):
		d.child = append(d.child, d.spec.Stdin)
		return nil
	}
	end, feed, err := os.Pipe()
	if err != nil {
		return err
	}
	d.give(end)
	d.stops = append(d.stops, func() { _ = feed.Close() })
	go func() {
		_, _ = io.Copy(feed, d.spec.Stdin)
		_ = feed.Close()
	}()
	return nil
}

func (d *stdio) null(how int) error {
	file, err := os.OpenFile(os.DevNull, how, 0)
	if err == nil {
		d.child, d.opened = append(d.child, file), append(d.opened, file)
	}
	return err
}

// pipeOut gives the command one of our outputs, through a filter.
func (d *stdio) pipeOut(to *os.File) error {
	switch {
	case to == nil:
		return d.null(os.O_WRONLY)
	case d.spec.Filter == nil && !isTerminal(to):
		d.child = append(d.child, to)
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
	d.give(end)
	d.streams = append(d.streams, stream{from: from, to: to, filter: filter})
	return nil
}

// give hands one end of a pipe to the command, which may want to open it again
// by its name in /dev.
func (d *stdio) give(end *os.File) {
	if u := d.spec.User; u != nil {
		_ = end.Chown(int(u.UID), int(u.GID))
	}
	d.child, d.opened = append(d.child, end), append(d.opened, end)
}

// handedOver closes the ends that only the command shall hold.
func (d *stdio) handedOver() {
	closeAll(d.opened)
	d.opened = nil
}

// size is that of our terminal.
func (d *stdio) size() (rows, columns uint16) {
	size, err := unix.IoctlGetWinsize(int(d.spec.Stdin.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return 24, 80
	}
	return size.Row, size.Col
}

// begin carries bytes and signals until restore. The command's terminal is the
// file that came from inside.
func (d *stdio) begin(files []*os.File, send func(s syscall.Signal, group bool)) error {
	d.send = send
	if d.tty {
		filter, err := d.filter()
		if err != nil {
			closeAll(files)
			return err
		}
		if d.master, err = polled(files[0]); err != nil {
			return ownFailure(err)
		}
		d.streams = append(d.streams, stream{from: d.master, to: d.spec.Stdout, filter: filter, flush: true})
		if d.before, err = term.MakeRaw(int(d.spec.Stdin.Fd())); err != nil {
			return ownFailure(err)
		}
		go func() { _, _ = io.Copy(d.master, d.spec.Stdin) }()
	}
	d.passSignals()
	for _, s := range d.streams {
		d.copies.Go(func() {
			if err := s.carry(); err != nil {
				d.mu.Lock()
				d.failed = errors.Join(d.failed, err)
				d.mu.Unlock()
			}
		})
	}
	return nil
}

// polled makes a file that came from inside one whose reads can time out.
func polled(file *os.File) (*os.File, error) {
	defer file.Close()
	fd, err := unix.FcntlInt(file.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, err
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), "terminal"), nil
}

// carry moves output through the filter until the command's end is closed, or
// nobody reads ours any more.
func (s stream) carry() error {
	defer s.from.Close()
	buffer, out := make([]byte, 64<<10), []byte(nil)
	for timed := false; ; {
		n, err := s.from.Read(buffer)
		ended := false
		switch {
		case n > 0:
			out = s.filter.Write(out[:0], buffer[:n])
		case errors.Is(err, os.ErrDeadlineExceeded):
			out = s.filter.Flush(out[:0])
		default:
			out, ended = s.filter.Close(out[:0]), true
		}
		if len(out) > 0 {
			if _, err := s.to.Write(out); err != nil {
				return nil // the command will see it as we do
			}
		}
		if ended {
			return nil
		}
		if s.flush && (n > 0 || timed) {
			timed = n > 0
			limit := time.Time{}
			if timed {
				limit = time.Now().Add(flushAfter)
			}
			if err := s.from.SetReadDeadline(limit); err != nil {
				return err
			}
		}
	}
}

// catchSignals keeps the signals that we get from now on for the command. Where
// it has a terminal the keyboard's come about in there.
func (d *stdio) catchSignals() {
	d.keyboard = !d.tty && hasTerminal()
	wanted := []os.Signal{syscall.SIGTERM, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGCONT, syscall.SIGWINCH}
	for _, s := range []os.Signal{syscall.SIGINT, syscall.SIGQUIT, syscall.SIGHUP} {
		if !signal.Ignored(s) { // as nohup has it
			wanted = append(wanted, s)
		}
	}
	if d.keyboard {
		wanted = append(wanted, syscall.SIGTSTP)
	}
	d.signals = make(chan os.Signal, 16)
	signal.Notify(d.signals, wanted...)
	d.stops = append(d.stops, func() { signal.Stop(d.signals) })
}

// passSignals passes them on.
func (d *stdio) passSignals() {
	done := make(chan struct{})
	d.stops = append(d.stops, func() { close(d.signals); <-done })
	go func() {
		defer close(done)
		for s := range d.signals {
			d.pass(s.(syscall.Signal))
		}
	}()
}

// pass passes a signal on. What a keyboard sends is for all of the command's
// process group, as at a terminal; the rest for the command alone, as from a
// supervisor.
func (d *stdio) pass(s syscall.Signal) {
	switch s {
	case syscall.SIGWINCH:
		d.resize()
	case syscall.SIGCONT:
		d.raw()
		d.send(s, true)
	case syscall.SIGTSTP:
		d.send(syscall.SIGSTOP, true)
		_ = unix.Kill(os.Getpid(), unix.SIGSTOP)
	case syscall.SIGINT, syscall.SIGQUIT, syscall.SIGHUP:
		d.send(s, d.keyboard)
	default:
		d.send(s, false)
	}
}

func hasTerminal() bool {
	file, err := os.Open("/dev/tty")
	if err != nil {
		return false
	}
	_ = file.Close()
	return true
}

// resize gives the command's terminal the size of ours, which tells the command.
func (d *stdio) resize() {
	if d.master == nil {
		return
	}
	rows, columns := d.size()
	raw, err := d.master.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		_ = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: columns})
	})
}

// raw puts our terminal into raw mode again where we are in its foreground.
func (d *stdio) raw() {
	if d.before == nil || !d.foreground() {
		return
	}
	_, _ = term.MakeRaw(int(d.spec.Stdin.Fd()))
	d.resize()
}

func (d *stdio) foreground() bool {
	group, err := unix.IoctlGetInt(int(d.spec.Stdin.Fd()), unix.TIOCGPGRP)
	return err != nil || group == unix.Getpgrp()
}

// pause stops us as the command was stopped from its terminal, with ours as it
// was before, until the shell lets us go on. Where no shell could do that, the
// kernel ignores the stop and the command goes on at once.
func (d *stdio) pause() {
	if !d.tty || d.before == nil {
		return
	}
	_ = term.Restore(int(d.spec.Stdin.Fd()), d.before)
	going := make(chan os.Signal, 1)
	signal.Notify(going, syscall.SIGCONT)
	defer signal.Stop(going)
	_ = unix.Kill(0, unix.SIGTSTP)
	select {
	case <-going:
	case <-time.After(200 * time.Millisecond): // counted only while we run
		d.raw()
		d.send(syscall.SIGCONT, true)
	}
}

// finish waits for the last output.
func (d *stdio) finish() error {
	if d.tty && d.send == nil {
		return nil
	}
	if d.send == nil { // the command did not start: its ends are closed, and nothing was written
		for _, s := range d.streams {
			_ = s.from.Close()
		}
		return nil
	}
	d.copies.Wait()
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.failed
}

// restore gives the terminal its mode back and ends what begin started.
func (d *stdio) restore() {
	d.once.Do(func() {
		d.handedOver()
		for _, stop := range d.stops {
			stop()
		}
		if d.before != nil {
			_ = term.Restore(int(d.spec.Stdin.Fd()), d.before)
		}
		if d.master != nil {
			_ = d.master.Close()
		}
	})
}
