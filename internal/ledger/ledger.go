// Package ledger is the append-only, tamper-evident record of every use and
// every change. Its directory is a transparency log that others can check:
// entries and Merkle tiles as in C2SP tlog-tiles, and a checkpoint signed as in
// C2SP signed-note. New entries go to a journal first. Several processes may
// share a directory; values never stand in it, which is the callers' duty.
package ledger

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/sys/unix"

	"postern/internal/event"
	"postern/internal/fail"
)

// pace is how often the work in the background is done.
type pace struct {
	sync    time.Duration // how long a use may wait for its fsync
	publish time.Duration // how long an entry may wait for tiles and a signed checkpoint
	rotate  uint64        // how many published entries the journal may hold
}

// defaultPace leaves the disk half of the 100 ms that the design promises.
func defaultPace() pace {
	return pace{sync: 50 * time.Millisecond, publish: time.Second, rotate: 4 * tileWidth}
}

// Options say how a ledger is kept.
type Options struct {
	// Key signs checkpoints. Without it (a locked safe) records are written but
	// not signed; the next process that has the key signs them.
	Key ed25519.PrivateKey
	Now func() time.Time
	// Reserve is the size in bytes of the file that is given up when the disk is
	// full: three quarters for anything, the last quarter for everything but
	// uses. 0 means none.
	Reserve int64
}

// Ledger is an open ledger. It is safe for concurrent use.
type Ledger struct {
	dir     *dir
	now     func() time.Time
	pace    pace
	signer  *signer
	reserve reserve
	lock    *os.File
	lockFD  int

	wake, urgent chan struct{} // to the loop: something was written; somebody waits
	stop, done   chan struct{}

	mu        sync.Mutex // guards all below; the file lock is taken under it
	journal   *os.File
	retired   []*os.File // replaced journals, which the loop may still be syncing
	size      int64      // length of the journal as far as it is understood
	base      uint64     // entries before the journal
	starts    []int64    // where the bundles that are not published begin in the journal, the unfinished one last
	tree      tree
	full      []tile // tiles that are complete and not yet written
	published uint64 // size of the last checkpoint that is known
	last      time.Time
	dirty     bool
	group     *group
	closed    bool
	broken    error // a sync failed: what the disk holds is not known any more

	event  event.Event // the one being written; here so that it does not escape on each call
	buffer bytes.Buffer
	frame  []byte
	stat   unix.Stat_t

	// What tests make fail.
	writeAt   func(f *os.File, b []byte, off int64) (int, error)
	fdatasync func(f *os.File) error
}

// group is everybody who waits for the same fsync.
type group struct {
	done chan struct{}
	err  error
}

// Open opens the ledger in dir, which it makes where it is missing, and cuts off
// a record that was being written when its process was killed. It refuses a
// directory that does not agree with its own checkpoint, or was signed with
// another key.
func Open(name string, o Options) (*Ledger, error) { return openAt(name, o, defaultPace()) }

func openAt(name string, o Options, p pace) (*Ledger, error) {
	d, err := openDir(name, true)
	if err != nil {
		return nil, cannotOpen(name).Wrap(err)
	}
	l := &Ledger{
		dir: d, now: o.Now, pace: p, wake: make(chan struct{}, 1), urgent: make(chan struct{}, 1),
		stop: make(chan struct{}), done: make(chan struct{}), group: &group{done: make(chan struct{})},
		reserve:   reserve{dir: d, want: o.Reserve},
		writeAt:   (*os.File).WriteAt,
		fdatasync: func(f *os.File) error { return unix.Fdatasync(int(f.Fd())) },
	}
	if l.now == nil {
		l.now = time.Now
	}
	if o.Key != nil {
		l.signer = newSigner(o.Key)
	}
	if l.lock, err = d.open(lockFile, true); err != nil {
		return nil, errors.Join(cannotOpen(name).Wrap(err), d.close())
	}
	l.lockFD = int(l.lock.Fd())
	err = l.locked(func() error {
		if err := l.begin(); err != nil {
			return err
		}
		if err := l.load(); err != nil {
			return err
		}
		l.reserve.fill()
		return nil
	})
	if err != nil {
		_ = l.closeFiles()
		var known *fail.Error
		if errors.As(err, &known) {
			return nil, err
		}
		return nil, cannotOpen(name).Wrap(err)
	}
	go l.loop()
	if l.tree.size > l.published { // left by a process that was killed
		l.noteWritten()
	}
	return l, nil
}

func cannotOpen(name string) *fail.Error {
	return fail.New(fail.Unavailable, "P-E142", "could not open the ledger %s", name)
}

// locked runs f with the lock that all processes share.
func (l *Ledger) locked(f func() error) error {
	if err := flock(l.lockFD, unix.LOCK_EX); err != nil {
		return err
	}
	err := f()
	return errors.Join(err, flock(l.lockFD, unix.LOCK_UN))
}

// begin makes an empty journal in a directory where there is nothing yet.
func (l *Ledger) begin() error {
	for _, name := range []string{journalFile, checkpointFile, "tile"} {
		if _, err := l.dir.root.Lstat(name); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if err := l.dir.write(journalFile, appendHeader(nil, &tree{}), true); err != nil {
		return err
	}
	return l.dir.sync(".")
}

// Record appends e and returns once it is written: a kill of this process no
// longer loses it. It reaches the disk within 100 ms; a change, or a durable
// one, is on disk when Record returns, or ctx ends the wait. The ledger gives
// the sequence number, and the time where there is none; a time before that of
// the last entry is replaced by it.
//
// An error means that the event may not be recorded, and that what it is about
// must not happen.
func (l *Ledger) Record(ctx context.Context, e event.Event, durable bool) error {
	durable = durable || e.Kind.Change()
	l.mu.Lock()
	err := l.append(&e)
	g := l.group
	if err == nil {
		l.noteWritten()
	}
	l.mu.Unlock()
	if err != nil || !durable {
		return err
	}
	select {
	case l.urgent <- struct{}{}:
	default:
	}
	select {
	case <-g.done:
		return g.err
	case <-ctx.Done():
		return cannotWrite().Wrap(ctx.Err())
	}
}

// noteWritten tells the loop that something waits for its sync.
func (l *Ledger) noteWritten() {
	if l.dirty {
		return
	}
	l.dirty = true
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

func cannotWrite() *fail.Error {
	return fail.New(fail.Unavailable, "P-E140", "could not write the ledger").
		Hint("df -h   is the disk full?").Hint("postern doctor")
}

// append writes e into the journal, with the lock of this process held.
func (l *Ledger) append(e *event.Event) error {
	switch {
	case l.closed:
		return cannotWrite().Because("it is closed")
	case l.broken != nil:
		return cannotWrite().Wrap(l.broken)
	}
	if err := flock(l.lockFD, unix.LOCK_EX); err != nil {
		return cannotWrite().Wrap(err)
	}
	err := l.appendLocked(e)
	if unlock := flock(l.lockFD, unix.LOCK_UN); err == nil && unlock != nil {
		err = cannotWrite().Wrap(unlock)
	}
	return err
}

func (l *Ledger) appendLocked(e *event.Event) error {
	if err := l.catchUp(); err != nil {
		if fail.Is(err, fail.Conflict) { // damaged under our hands: nothing may be added to that
			l.broken = err
		}
		return err
	}
	if err := l.encode(e); err != nil {
		return err
	}
	leaf := endFrame(l.frame)
	if err := l.writeFrame(l.event.Kind); err != nil {
		return cannotWrite().Wrap(err)
	}
	l.last = l.event.Time
	l.grow(leaf, int64(len(l.frame)))
	return nil
}

// encode makes a frame of e, but for its header.
func (l *Ledger) encode(e *event.Event) error {
	l.event = *e
	l.event.Seq = l.tree.size + 1
	if l.event.Time.IsZero() {
		l.event.Time = l.now()
	}
	l.event.Time = l.event.Time.UTC()
	l.orderTime()
	l.buffer.Reset()
	enc := json.NewEncoder(&l.buffer)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(&l.event); err != nil {
		return fail.New(fail.Internal, "P-E143", "could not record an event").Wrap(err)
	}
	text := bytes.TrimSuffix(l.buffer.Bytes(), []byte("\n"))
	if len(text) > maxEntry {
		return fail.New(fail.Invalid, "P-E143", "could not record an event").
			Because("it has %d bytes, and an entry of the ledger at most %d", len(text), maxEntry)
	}
	l.frame = append(startFrame(l.frame), text...)
	return nil
}

// orderTime keeps the times of the entries in order. Calls that run side by side
// are a little out of order; a clock that was set back is written down.
func (l *Ledger) orderTime() {
	behind := l.last.Sub(l.event.Time)
	if behind <= 0 {
		return
	}
	if behind > time.Second {
		detail := map[string]string{"clock": l.event.Time.Format(time.RFC3339)}
		for key, value := range l.event.Detail {
			detail[key] = value
		}
		l.event.Detail = detail
	}
	l.event.Time = l.last
}

// writeFrame writes the frame behind the journal. On a full disk it gives up a
// piece of the reserve and tries again.
func (l *Ledger) writeFrame(kind event.Kind) error {
	for {
		n, err := l.writeAt(l.journal, l.frame, l.size)
		if err == nil {
			return nil
		}
		if n > 0 { // a torn record, which must not stay
			if cut := l.journal.Truncate(l.size); cut != nil {
				return errors.Join(err, cut)
			}
		}
		full := errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT)
		if !full || !l.reserve.release(kind == event.Use) {
			return err
		}
	}
}

// grow takes a frame of n bytes that lies at the end of the journal into account.
func (l *Ledger) grow(leaf hash, n int64) {
	l.size += n
	l.full = l.tree.add(leaf, l.full)
	if l.tree.size%tileWidth == 0 {
		l.starts = append(l.starts, l.size)
	}
}

// catchUp reads what other processes have written since.
func (l *Ledger) catchUp() error {
	if err := unix.Fstat(int(l.journal.Fd()), &l.stat); err != nil {
		return cannotWrite().Wrap(err)
	}
	switch {
	case l.stat.Nlink == 0: // replaced by a shorter one
		return l.load()
	case l.stat.Size < l.size:
		return damaged("the journal became shorter")
	case l.stat.Size > l.size:
		return l.replay(l.stat.Size)
	}
	return nil
}

// Close syncs what was written, signs a last checkpoint and closes the files.
func (l *Ledger) Close() error {
	l.mu.Lock()
	closed := l.closed
	l.closed = true
	l.mu.Unlock()
	if closed {
		return nil
	}
	close(l.stop)
	<-l.done
	l.mu.Lock()
	defer l.mu.Unlock()
	return errors.Join(l.broken, l.closeFiles())
}

func (l *Ledger) closeFiles() error {
	var errs []error
	for _, f := range append(l.retired, l.journal, l.lock) {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(append(errs, l.dir.close())...)
}

// verifier checks signatures with the ledger's own key; nil without one.
func (l *Ledger) verifier() (note.Verifier, error) {
	if l.signer == nil {
		return nil, nil
	}
	return note.NewVerifier(PublicKey(l.signer.key))
}
