package api_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"postern/internal/api"
)

// pair are two connected ends; raw is what is below theirs.
func pair(t testing.TB) (ours *api.Conn, theirs *api.Conn, raw *net.UnixConn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ends := make([]*net.UnixConn, 2)
	for i, fd := range fds {
		file := os.NewFile(uintptr(fd), "end")
		conn, err := net.FileConn(file)
		_ = file.Close()
		if err != nil {
			t.Fatal(err)
		}
		ends[i] = conn.(*net.UnixConn)
		if err := ends[i].SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = ends[i].Close() })
	}
	return api.NewConn(ends[0]), api.NewConn(ends[1]), ends[1]
}

func TestMessagesArriveAsTheyWereSent(t *testing.T) {
	ours, theirs, _ := pair(t)
	for _, sent := range []api.Request{
		{Op: api.OpStatus},
		{Op: api.OpServe, Agent: "bot"},
		{Op: api.OpUnlock, Passphrase: []byte("several words\x00\xff")},
		{Op: api.OpUnlock, Passphrase: bytes.Repeat([]byte("long "), 13000)},
	} {
		done := make(chan error, 1)
		go func() { done <- theirs.Send(sent) }()
		var got api.Request
		if _, err := ours.Receive(&got, 0); err != nil {
			t.Fatal(err)
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(sent, got); diff != "" {
			t.Error(diff)
		}
	}
}

func TestDescriptorsTravelBesideAMessage(t *testing.T) {
	ours, theirs, _ := pair(t)
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte("read me"), 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := theirs.Send(api.Request{Op: api.OpServe}, file); err != nil {
		t.Fatal(err)
	}
	var r api.Request
	files, err := ours.Receive(&r, 1)
	if err != nil || len(files) != 1 {
		t.Fatalf("%v, %d descriptors", err, len(files))
	}
	defer files[0].Close()
	if text, err := io.ReadAll(files[0]); err != nil || string(text) != "read me" {
		t.Errorf("%q, %v", text, err)
	}
	flags, err := unix.FcntlInt(files[0].Fd(), unix.F_GETFD, 0)
	if err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("a received descriptor would pass to programs that are started: %v", err)
	}
}

func TestMoreDescriptorsThanExpectedAreClosed(t *testing.T) {
	for _, extra := range []int{1, 2, 20} {
		before := openFiles(t)
		ours, theirs, raw := pair(t)
		null, err := os.Open(os.DevNull)
		if err != nil {
			t.Fatal(err)
		}
		files := make([]*os.File, extra)
		for i := range files {
			files[i] = null
		}
		if err := theirs.Send(api.Request{Op: api.OpStatus}, files...); err != nil {
			t.Fatal(err)
		}
		var r api.Request
		if got, err := ours.Receive(&r, 0); err == nil || len(got) > 0 {
			t.Errorf("%d descriptors too many were taken", extra)
		}
		_ = null.Close()
		_ = raw.Close()
		_ = theirs
		if after := openFiles(t); after > before+1 { // our own end is open still
			t.Errorf("%d descriptors are left open", after-before-1)
		}
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

func TestLongMessages(t *testing.T) {
	ours, theirs, raw := pair(t)
	if err := theirs.Send(api.Request{Agent: strings.Repeat("x", 256<<10)}); err == nil {
		t.Error("a message that nobody would take was sent")
	}
	head := []byte{0, 0, 0, 0, 0}
	binary.BigEndian.PutUint32(head[1:], 256<<10+1)
	if _, err := raw.Write(head); err != nil {
		t.Fatal(err)
	}
	var r api.Request
	if _, err := ours.Receive(&r, 0); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a length beyond the bound: %v", err)
	}
}

func TestBrokenMessages(t *testing.T) {
	message := func(body string) []byte {
		m := binary.BigEndian.AppendUint32([]byte{0}, uint32(len(body)))
		return append(m, body...)
	}
	cases := map[string][]byte{
		"nothing":        {},
		"half a head":    {0, 0},
		"half a body":    message(`{"op":"status"}`)[:12],
		"no JSON":        message("status"),
		"wrong type":     message(`{"op":7}`),
		"a second value": message(`{"op":"status"} {"op":"lock"}`),
		"empty":          message(""),
		"deep":           message(strings.Repeat("[", 100_000)),
	}
	for name, data := range cases {
		ours, _, raw := pair(t)
		if _, err := raw.Write(data); err != nil {
			t.Fatal(err)
		}
		if err := raw.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		var r api.Request
		if _, err := ours.Receive(&r, 1); err == nil {
			t.Errorf("%s was taken for %+v", name, r)
		}
	}
}

func TestChunks(t *testing.T) {
	ours, theirs, _ := pair(t)
	for _, sent := range []string{"", "x", strings.Repeat("long", 60<<10)} {
		done := make(chan error, 1)
		go func() { done <- theirs.SendChunk(api.ChunkFlush, []byte(sent)) }()
		sort, got, err := ours.ReceiveChunk()
		if err != nil || sort != api.ChunkFlush || string(got) != sent {
			t.Errorf("chunk of %d bytes: %d, %d bytes, %v", len(sent), sort, len(got), err)
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
}

// Whatever a peer writes, a message or an error comes of it, and soon.
func FuzzReceive(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x00\x0f{\"op\":\"status\"}"))
	f.Add([]byte("\x00\xff\xff\xff\xff"))
	f.Add([]byte("\x02\x00\x00\x00\x00"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 64<<10 {
			t.Skip()
		}
		ours, _, raw := pair(t)
		if _, err := raw.Write(data); err != nil {
			t.Fatal(err)
		}
		_ = raw.CloseWrite()
		for range 4 {
			var r api.Request
			_, err := ours.Receive(&r, 1)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatal("it hangs")
			}
			if err != nil {
				return
			}
		}
	})
}
