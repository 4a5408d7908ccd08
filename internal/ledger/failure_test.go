package ledger

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"postern/internal/event"
	"postern/internal/fail"
)

// never leaves everything in the journal until Close.
func never() pace { return pace{sync: time.Hour, publish: time.Hour, rotate: 4 * tileWidth} }

func openSlow(t testing.TB, dir string, o Options) *Ledger {
	t.Helper()
	l, err := openAt(dir, o, never())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func journalOf(t testing.TB, dir string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, journalFile))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// unsigned is a ledger as a killed process leaves it: ten entries in the journal
// and no checkpoint.
func unsigned(t testing.TB) (dir string, journal []byte) {
	t.Helper()
	running := filepath.Join(t.TempDir(), "ledger")
	record(t, openSlow(t, running, Options{Key: newKey(t)}), 1, 10)
	journal = journalOf(t, running)
	dir = filepath.Join(t.TempDir(), "ledger")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return dir, journal
}

func lastFrame(t testing.TB, journal []byte) int {
	t.Helper()
	_, n, err := cutHeader(journal)
	if err != nil {
		t.Fatal(err)
	}
	start := n
	for rest := journal[n:]; len(rest) > 0; {
		_, next, err := cutFrame(rest)
		if err != nil {
			t.Fatal(err)
		}
		start, rest = len(journal)-len(rest), next
	}
	return start
}

func TestATornRecordIsCutOff(t *testing.T) {
	dir, journal := unsigned(t)
	for size := lastFrame(t, journal) + 1; size < len(journal); size++ {
		put(t, filepath.Join(dir, journalFile), journal[:size])
		l := openSlow(t, dir, Options{})
		record(t, l, 10, 1)
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		tail, err := ReadTail(dir, 100)
		if err != nil || len(tail) != 10 || tail[9].Seq != 10 {
			t.Fatalf("torn at %d: %d entries, %v", size, len(tail), err)
		}
	}
	if cut, _ := filepath.Glob(filepath.Join(dir, cutPrefix+"*")); len(cut) > 0 {
		t.Errorf("a torn record was kept aside: %v", cut)
	}
}

// What a power cut made unreadable is not thrown away.
func TestWhatTheDiskLostIsKeptAside(t *testing.T) {
	dir, journal := unsigned(t)
	key := newKey(t)
	at := lastFrame(t, journal)
	bad := bytes.Clone(journal)
	bad[at+20] ^= 1
	put(t, filepath.Join(dir, journalFile), bad)
	l := openSlow(t, dir, Options{Key: key})
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	r := verify(t, dir, PublicKey(key))
	if !r.OK() || r.Entries != 9 || !slices.Equal(r.CutOff, []string{"cut-10"}) {
		t.Errorf("got %+v", r)
	}
	if kept, err := os.ReadFile(filepath.Join(dir, "cut-10")); err != nil || !bytes.Equal(kept, bad[at:]) {
		t.Errorf("kept %q, %v", kept, err)
	}
	// A length that reaches beyond the end is no torn record when others follow.
	_, n, _ := cutHeader(journal)
	bad = bytes.Clone(journal)
	bad[n] = 0xff
	other := filepath.Join(t.TempDir(), "ledger")
	if err := os.Mkdir(other, 0o700); err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(other, journalFile), bad)
	if err := openSlow(t, other, Options{Key: key}).Close(); err != nil {
		t.Fatal(err)
	}
	if r := verify(t, other, PublicKey(key)); !slices.Equal(r.CutOff, []string{"cut-1"}) {
		t.Errorf("got %+v", r)
	}
}

func TestOpenRefusesWhatDoesNotAgree(t *testing.T) {
	private := newKey(t)
	tests := []struct {
		name   string
		change func(t *testing.T, dir string)
		id     string
	}{
		{"signed entry torn off", func(t *testing.T, dir string) {
			journal := journalOf(t, dir)
			put(t, filepath.Join(dir, journalFile), journal[:len(journal)-1])
		}, "P-E141"},
		{"signed entry changed", func(t *testing.T, dir string) {
			journal := journalOf(t, dir)
			start := lastFrame(t, journal)
			frame := startFrame(nil)
			frame = append(frame, bytes.Replace(journal[start+frameHeader:], []byte("anthropic"), []byte("anthropiC"), 1)...)
			endFrame(frame)
			put(t, filepath.Join(dir, journalFile), append(journal[:start], frame...))
		}, "P-E141"},
		{"header", func(t *testing.T, dir string) {
			journal := journalOf(t, dir)
			journal[0] ^= 1
			put(t, filepath.Join(dir, journalFile), journal)
		}, "P-E141"},
		{"journal missing", func(t *testing.T, dir string) { _ = os.Remove(filepath.Join(dir, journalFile)) }, "P-E141"},
		{"checkpoint missing", func(t *testing.T, dir string) { _ = os.Remove(filepath.Join(dir, checkpointFile)) }, "P-E141"},
		{"checkpoint empty", func(t *testing.T, dir string) { put(t, filepath.Join(dir, checkpointFile), nil) }, "P-E141"},
		{"another key", func(t *testing.T, dir string) {
			other := filepath.Join(t.TempDir(), "ledger")
			l := open(t, other, newKey(t))
			record(t, l, 1, 1290)
			_ = l.Close()
			data, err := os.ReadFile(filepath.Join(other, checkpointFile))
			if err != nil {
				t.Fatal(err)
			}
			put(t, filepath.Join(dir, checkpointFile), data)
		}, "P-E144"},
		{"journal a link that leads out", func(t *testing.T, dir string) {
			elsewhere := filepath.Join(t.TempDir(), "elsewhere")
			_ = os.Rename(filepath.Join(dir, journalFile), elsewhere)
			_ = os.Symlink(elsewhere, filepath.Join(dir, journalFile))
		}, "P-E140"},
		{"lock a pipe", func(t *testing.T, dir string) {
			_ = os.Remove(filepath.Join(dir, lockFile))
			_ = syscall.Mkfifo(filepath.Join(dir, lockFile), 0o600)
		}, "P-E142"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "ledger")
			l := open(t, dir, private)
			record(t, l, 1, 1290)
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			test.change(t, dir)
			_, err := Open(dir, Options{Key: private})
			var e *fail.Error
			if !errors.As(err, &e) || e.ID != test.id {
				t.Errorf("got %v, want %s", err, test.id)
			}
		})
	}
}

func TestWithoutAKeyRecordsWaitForTheSignature(t *testing.T) {
	dir, key := filepath.Join(t.TempDir(), "ledger"), newKey(t)
	for _, o := range []Options{{}, {Key: key}, {}} {
		l, err := Open(dir, o)
		if err != nil {
			t.Fatal(err)
		}
		record(t, l, 1, 3)
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	r := verify(t, dir, PublicKey(key))
	if !r.OK() || r.Entries != 9 || r.Signed != 6 || len(r.Limits()) != 2 {
		t.Errorf("got %+v", r)
	}
}

func TestTimesStayInOrder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ledger")
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	l, err := Open(dir, Options{Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	at := func(d time.Duration) event.Event { return event.Event{Kind: event.Use, Time: now.Add(d)} }
	for _, e := range []event.Event{{Kind: event.Use}, at(-time.Millisecond), at(time.Minute), at(-24 * time.Hour), at(2 * time.Minute)} {
		if err := l.Record(t.Context(), e, false); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	tail, err := ReadTail(dir, 10)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range tail {
		got = append(got, e.Time.Format("15:04")+e.Detail["clock"])
	}
	want := []string{"12:00", "12:00", "12:01", "12:012026-02-28T12:00:00Z", "12:02"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestRecordRefusesWhatIsTooLarge(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ledger")
	l := open(t, dir, newKey(t))
	frame := len(`{"seq":1,"time":"2026-03-01T12:00:00Z","kind":"use","reason":""}`)
	e := event.Event{Kind: event.Use, Time: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}
	for _, size := range []int{maxEntry - frame + 1, 1 << 20} {
		e.Reason = strings.Repeat("x", size)
		if err := l.Record(t.Context(), e, false); !fail.Is(err, fail.Invalid) {
			t.Errorf("%d bytes: got %v", size, err)
		}
	}
	e.Reason = strings.Repeat("x", maxEntry-frame)
	if err := l.Record(t.Context(), e, false); err != nil {
		t.Errorf("the largest: got %v", err)
	}
	e.Time = time.Date(12026, 1, 1, 0, 0, 0, 0, time.UTC)
	if err := l.Record(t.Context(), e, false); !fail.Is(err, fail.Internal) {
		t.Errorf("a time that JSON cannot hold: got %v", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if tail, err := ReadTail(dir, 10); err != nil || len(tail) != 1 || tail[0].Seq != 1 {
		t.Errorf("got %d entries, %v", len(tail), err)
	}
}

// Without anybody waiting, uses reach the disk and get signed.
func TestUsesAreSyncedAndSignedInTheBackground(t *testing.T) {
	if p := defaultPace(); p.sync > 100*time.Millisecond/2 || p.publish > time.Second {
		t.Errorf("the pace is %+v", p)
	}
	dir := filepath.Join(t.TempDir(), "ledger")
	l, err := openAt(dir, Options{Key: newKey(t)}, hurry())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	synced := make(chan struct{}, 100)
	l.fdatasync = func(*os.File) error {
		synced <- struct{}{}
		return nil
	}
	record(t, l, 1, 3)
	<-synced
	for {
		data, err := os.ReadFile(filepath.Join(dir, checkpointFile))
		if err == nil {
			if c, err := peekCheckpoint(data); err == nil && c.size == 3 {
				return
			}
		}
		runtime.Gosched()
	}
}

// Who waits shares an fsync; who does not wait causes none.
func TestWaitersShareTheSync(t *testing.T) {
	l := openSlow(t, filepath.Join(t.TempDir(), "ledger"), Options{Key: newKey(t)})
	var syncs atomic.Int64
	inSync, proceed := make(chan struct{}, 100), make(chan struct{})
	l.fdatasync = func(*os.File) error {
		syncs.Add(1)
		inSync <- struct{}{}
		<-proceed
		return nil
	}
	record(t, l, 1, 50)
	if syncs.Load() != 0 {
		t.Fatal("a use waited for a sync")
	}
	var done sync.WaitGroup
	wait := func(e event.Event, durable bool) {
		done.Go(func() {
			if err := l.Record(context.Background(), e, durable); err != nil {
				t.Error(err)
			}
		})
	}
	wait(event.Event{Kind: event.Put}, false)
	<-inSync // the disk is busy with the first one; all others come into the next
	for range 20 {
		wait(use(1), true)
		wait(event.Event{Kind: event.PolicyChange}, false)
	}
	for l.sequence() < 91 {
		runtime.Gosched()
	}
	close(proceed)
	done.Wait()
	if n := syncs.Load(); n != 2 {
		t.Errorf("%d syncs for 41 records that wait, want 2", n)
	}
}

func (l *Ledger) sequence() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.tree.size
}

func TestRecordStopsWaitingWithItsContext(t *testing.T) {
	l := openSlow(t, filepath.Join(t.TempDir(), "ledger"), Options{})
	proceed := make(chan struct{})
	defer close(proceed)
	l.fdatasync = func(*os.File) error { <-proceed; return nil }
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.Record(ctx, use(1), true); !errors.Is(err, context.Canceled) || !fail.Is(err, fail.Unavailable) {
		t.Errorf("got %v", err)
	}
	if err := l.Record(ctx, use(2), false); err != nil {
		t.Errorf("a record that does not wait: got %v", err)
	}
}

func TestAFailedSyncEndsRecording(t *testing.T) {
	l := openSlow(t, filepath.Join(t.TempDir(), "ledger"), Options{Key: newKey(t)})
	l.fdatasync = func(*os.File) error { return unix.EIO }
	if err := l.Record(t.Context(), use(1), true); !fail.Is(err, fail.Unavailable) || !errors.Is(err, unix.EIO) {
		t.Errorf("got %v", err)
	}
	if err := l.Record(t.Context(), use(2), false); !errors.Is(err, unix.EIO) {
		t.Errorf("afterwards: got %v", err)
	}
	if err := l.Close(); !errors.Is(err, unix.EIO) {
		t.Errorf("Close: got %v", err)
	}
}

func TestAFailedWriteLeavesNothing(t *testing.T) {
	dir, key := filepath.Join(t.TempDir(), "ledger"), newKey(t)
	l := open(t, dir, key)
	real, failures := l.writeAt, 0
	for i := range 300 {
		l.writeAt = real
		if i%3 == 0 {
			failures++
			l.writeAt = func(f *os.File, b []byte, off int64) (int, error) {
				n, _ := f.WriteAt(b[:i%len(b)], off)
				return n, unix.EIO
			}
		}
		err := l.Record(t.Context(), use(i), false)
		if failed := i%3 == 0; failed != (err != nil) {
			t.Fatalf("record %d: got %v", i, err)
		}
	}
	l.writeAt = real
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if r := verify(t, dir, PublicKey(key)); !r.OK() || r.Entries != uint64(300-failures) {
		t.Errorf("got %+v", r)
	}
}

func TestAfterCloseNothingIsRecorded(t *testing.T) {
	l := open(t, filepath.Join(t.TempDir(), "ledger"), newKey(t))
	if err := errors.Join(l.Close(), l.Close()); err != nil {
		t.Fatal(err)
	}
	if err := l.Record(t.Context(), use(1), false); !fail.Is(err, fail.Unavailable) {
		t.Errorf("got %v", err)
	}
}

func TestFilesAreClosedToOthers(t *testing.T) {
	parent := t.TempDir()
	owner := os.Geteuid()
	if owner == 0 {
		owner = 12345
		if err := os.Chown(parent, owner, 23456); err != nil {
			t.Fatal(err)
		}
	}
	dir := filepath.Join(parent, "ledger")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(dir, owner, -1); err != nil {
		t.Fatal(err)
	}
	made := filepath.Join(parent, "made")
	if err := open(t, made, nil).Close(); err != nil {
		t.Fatal(err)
	}
	l, err := Open(dir, Options{Key: newKey(t), Reserve: 4096})
	if err != nil {
		t.Fatal(err)
	}
	record(t, l, 1, 1300)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := filepath.WalkDir(parent, func(path string, d os.DirEntry, err error) error {
		if err != nil || path == parent {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		if uid := int(info.Sys().(*syscall.Stat_t).Uid); uid != owner {
			t.Errorf("%s belongs to %d, want %d", path, uid, owner)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}
