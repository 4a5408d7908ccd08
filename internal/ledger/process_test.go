package ledger

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"postern/internal/event"
	"postern/internal/fail"
)

// hurry does the work in the background so often that a kill meets it.
func hurry() pace {
	return pace{sync: time.Millisecond, publish: 2 * time.Millisecond, rotate: tileWidth}
}

const childVariable = "LEDGER_TEST_CHILD"

func TestMain(m *testing.M) {
	switch child := os.Getenv(childVariable); child {
	case "":
		os.Exit(m.Run())
	case "write":
		childWrite()
	case "full":
		childFull()
	}
}

func childFailed(err error) {
	fmt.Println("failed:", err)
	os.Exit(1)
}

// childWrite records events and says of each that it was acknowledged, for ever
// or as many as it is told.
func childWrite() {
	seed, err := hex.DecodeString(os.Getenv("SEED"))
	if err != nil {
		childFailed(err)
	}
	l, err := openAt(os.Getenv("DIR"), Options{Key: ed25519.NewKeyFromSeed(seed), Reserve: 1 << 20}, hurry())
	if err != nil {
		childFailed(err)
	}
	count := 0
	if _, err := fmt.Sscan(os.Getenv("COUNT"), &count); err != nil {
		childFailed(err)
	}
	for i := 1; count == 0 || i <= count; i++ {
		e := event.Event{Kind: event.Use, Agent: os.Getenv("NAME"), Request: fmt.Sprint(i)}
		if i%40 == 0 {
			e.Kind = event.Put
		}
		if err := l.Record(context.Background(), e, false); err != nil {
			childFailed(err)
		}
		fmt.Println(i)
	}
	if err := l.Close(); err != nil {
		childFailed(err)
	}
	fmt.Println("done")
}

func child(t *testing.T, kind string, env ...string) (*exec.Cmd, *bufio.Scanner) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe)
	cmd.Env = append(append(os.Environ(), childVariable+"="+kind), env...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	return cmd, bufio.NewScanner(out)
}

// What was acknowledged is there after a kill at any moment, the ledger opens,
// and it is whole.
func TestKilledWritersLoseNothing(t *testing.T) {
	rounds := 60
	if testing.Short() {
		rounds = 10
	}
	dir, key := filepath.Join(t.TempDir(), "ledger"), newKey(t)
	seed := hex.EncodeToString(key.Seed())
	acknowledged := map[string]int{}
	for round := range rounds {
		name := fmt.Sprint("round-", round)
		cmd, out := child(t, "write", "DIR="+dir, "SEED="+seed, "NAME="+name, "COUNT=0")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		killAt := 1 + rand.IntN(400)
		for out.Scan() {
			n := 0
			if _, err := fmt.Sscan(out.Text(), &n); err != nil {
				t.Fatalf("round %d: %s", round, out.Text())
			}
			if acknowledged[name] = n; n == killAt {
				_ = cmd.Process.Signal(syscall.SIGKILL)
			}
		}
		_ = cmd.Wait()
		if acknowledged[name] < killAt {
			t.Fatalf("round %d ended after %d", round, acknowledged[name])
		}
	}
	l := open(t, dir, key)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	r := verify(t, dir, PublicKey(key))
	if !r.OK() || r.Signed != r.Entries || len(r.CutOff) > 0 {
		t.Fatalf("got %+v", r)
	}
	found := map[string]int{}
	if err := Find(t.Context(), dir, Filter{}, func(e event.Event) bool {
		if found[e.Agent]++; fmt.Sprint(found[e.Agent]) != e.Request {
			t.Fatalf("%s: request %s comes as number %d", e.Agent, e.Request, found[e.Agent])
		}
		return true
	}); err != nil {
		t.Fatal(err)
	}
	for name, n := range acknowledged {
		if found[name] < n || found[name] > n+1 {
			t.Errorf("%s: %d acknowledged, %d found", name, n, found[name])
		}
	}
}

func TestProcessesShareADirectory(t *testing.T) {
	const writers, each = 3, 1500
	dir, key := filepath.Join(t.TempDir(), "ledger"), newKey(t)
	done := make(chan string, writers)
	for w := range writers {
		cmd, out := child(t, "write", "DIR="+dir, "SEED="+hex.EncodeToString(key.Seed()), "NAME="+fmt.Sprint(w), fmt.Sprint("COUNT=", each))
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		go func() {
			last := ""
			for out.Scan() {
				last = out.Text()
			}
			_ = cmd.Wait()
			done <- last
		}()
	}
	// Somebody reads and verifies meanwhile.
	left := writers
	for left > 0 {
		select {
		case last := <-done:
			if left--; last != "done" {
				t.Error(last)
			}
		default:
			r, err := Verify(t.Context(), dir, PublicKey(key))
			if err != nil && !fail.Is(err, fail.NotFound) && !fail.Is(err, fail.Conflict) {
				t.Error(err)
			}
			if err == nil && !r.OK() {
				t.Fatalf("while it is written: %+v", r)
			}
		}
	}
	r := verify(t, dir, PublicKey(key))
	if !r.OK() || r.Entries != writers*each || r.Signed != r.Entries {
		t.Errorf("got %+v", r)
	}
	next := [writers]int{}
	if err := Find(t.Context(), dir, Filter{}, func(e event.Event) bool {
		w := int(e.Agent[0] - '0')
		if next[w]++; e.Request != fmt.Sprint(next[w]) {
			t.Fatalf("writer %d: request %s is number %d", w, e.Request, next[w])
		}
		return true
	}); err != nil {
		t.Fatal(err)
	}
	if partial, _ := filepath.Glob(filepath.Join(dir, "tile/*/*.p/*")); len(partial) > 3 {
		t.Errorf("superfluous partial tiles stay: %v", partial)
	}
}

// childFull runs in namespaces of its own, with a small disk.
func childFull() {
	if err := unix.Mount("tmpfs", os.Getenv("DIR"), "tmpfs", 0, "size=4m"); err != nil {
		fmt.Println("skip:", err)
		return
	}
	if err := fillDisk(os.Getenv("DIR")); err != nil {
		childFailed(err)
	}
	fmt.Println("done")
}

func fillDisk(disk string) error {
	dir := filepath.Join(disk, "ledger")
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		return err
	}
	p := hurry()
	p.publish = time.Hour // tiles are not what is looked at here
	l, err := openAt(dir, Options{Key: key, Reserve: 1 << 20}, p)
	if err != nil {
		return err
	}
	ballast, err := os.Create(filepath.Join(disk, "ballast"))
	if err != nil {
		return err
	}
	if _, err = io.Copy(ballast, endless{}); !errors.Is(err, unix.ENOSPC) {
		return fmt.Errorf("the disk is not full: %w", err)
	}
	count := func(kind event.Kind) (n int, err error) {
		for ; n < 100000; n++ {
			e := event.Event{Kind: kind, Agent: "bot", Reason: strings.Repeat("x", 100)}
			if err := l.Record(context.Background(), e, false); err != nil {
				return n, err
			}
		}
		return n, errors.New("the disk never was full")
	}
	uses, err := count(event.Use)
	if !fail.Is(err, fail.Unavailable) || !errors.Is(err, unix.ENOSPC) || uses < 1000 {
		return fmt.Errorf("after %d uses: %w", uses, err)
	}
	refusals, err := count(event.Refused)
	if !fail.Is(err, fail.Unavailable) || !errors.Is(err, unix.ENOSPC) || refusals < 500 {
		return fmt.Errorf("after %d refusals: %w", refusals, err)
	}
	if err := errors.Join(ballast.Close(), os.Remove(ballast.Name())); err != nil {
		return err
	}
	// It works again at once, until the disk is full anew.
	if again, err := count(event.Use); !errors.Is(err, unix.ENOSPC) || again < 1000 {
		return fmt.Errorf("with room again, after %d uses: %w", again, err)
	}
	if err := os.WriteFile(filepath.Join(disk, "x"), nil, 0o600); err != nil {
		return err
	}
	_ = l.Close()
	r, err := Verify(context.Background(), dir, PublicKey(key))
	if err != nil || !r.OK() || r.Entries < uint64(uses+refusals) {
		return fmt.Errorf("%d uses, %d refusals: %+v, %w", uses, refusals, r, err)
	}
	return nil
}

type endless struct{}

func (endless) Read(b []byte) (int, error) { return len(b), nil }

func TestFullDisk(t *testing.T) {
	cmd, out := child(t, "full", "DIR="+t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	if err := cmd.Start(); err != nil {
		t.Skipf("no user namespace: %v", err)
	}
	last := ""
	for out.Scan() {
		last = out.Text()
	}
	_ = cmd.Wait()
	if strings.HasPrefix(last, "skip") {
		t.Skip(last)
	}
	if last != "done" {
		t.Error(last)
	}
}
