package client_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"postern/internal/api"
	"postern/internal/client"
	"postern/internal/fail"
)

// daemon listens where a client connects and behaves as the test wants.
func daemon(t *testing.T, behave func(conn *net.UnixConn, wire *api.Conn)) *client.Client {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	go func() {
		conn, err := ln.AcceptUnix()
		if err != nil {
			return
		}
		defer conn.Close()
		behave(conn, api.NewConn(conn))
	}()
	c, err := client.Dial(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// answering takes requests and gives one answer to each.
func answering(answers ...api.Answer) func(*net.UnixConn, *api.Conn) {
	return func(_ *net.UnixConn, wire *api.Conn) {
		for _, a := range answers {
			var r api.Request
			if _, err := wire.Receive(&r, 1); err != nil || wire.Send(a) != nil {
				return
			}
		}
	}
}

func TestNobodyListens(t *testing.T) {
	_, err := client.Dial(t.Context(), filepath.Join(t.TempDir(), "s"))
	var known *fail.Error
	if !errors.As(err, &known) || known.ID != "P-E152" || known.Kind != fail.Unavailable {
		t.Errorf("%v", err)
	}
}

func TestAnswers(t *testing.T) {
	c := daemon(t, answering(
		api.Answer{Status: &api.Status{PID: 7, Safe: "locked"}},
		api.Answer{},
		api.Answer{Error: "the passphrase is wrong", ID: "P-E063", Kind: fail.Locked},
		api.Answer{Status: &api.Status{PID: 7, Safe: "unlocked"}},
	))
	if s, err := c.Status(t.Context()); err != nil || s.PID != 7 || s.Safe != "locked" {
		t.Errorf("%+v, %v", s, err)
	}
	if err := c.Lock(t.Context()); err != nil {
		t.Error(err)
	}
	err := c.Unlock(t.Context(), []byte("not it"))
	if !fail.Is(err, fail.Locked) || !strings.Contains(err.Error(), "the passphrase is wrong") {
		t.Errorf("%v", err)
	}
	if s, err := c.Status(t.Context()); err != nil || s.Safe != "unlocked" {
		t.Errorf("after a refusal: %+v, %v", s, err)
	}
}

// What is no daemon of ours, or a broken one, is an error, and soon.
func TestBrokenDaemons(t *testing.T) {
	cases := map[string]func(*net.UnixConn, *api.Conn){
		"hangs up":     func(*net.UnixConn, *api.Conn) {},
		"says nothing": answering(api.Answer{}),
		"speaks HTTP": func(c *net.UnixConn, _ *api.Conn) {
			_, _ = c.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n"))
			wait(c)
		},
		"promises much":   func(c *net.UnixConn, _ *api.Conn) { _, _ = c.Write([]byte{0, 0xff, 0xff, 0xff, 0xff}); wait(c) },
		"stops midway":    func(c *net.UnixConn, _ *api.Conn) { _, _ = c.Write([]byte{0, 0, 0, 0, 9, '{'}) },
		"sends no JSON":   func(_ *net.UnixConn, w *api.Conn) { _ = w.SendChunk(0, []byte("hello")) },
		"never answers":   func(c *net.UnixConn, _ *api.Conn) { wait(c) },
		"sends a present": func(c *net.UnixConn, w *api.Conn) { _ = w.Send(api.Answer{Status: &api.Status{}}, os.Stdin); wait(c) },
	}
	for name, behave := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := daemon(t, behave)
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			s, err := c.Status(ctx)
			if !fail.Is(err, fail.Unavailable) {
				t.Errorf("%+v, %v", s, err)
			}
		})
	}
}

// wait keeps a connection open until the other end closes it.
func wait(conn *net.UnixConn) {
	b := make([]byte, 1024)
	for {
		if _, err := conn.Read(b); err != nil {
			return
		}
	}
}

func TestACallEndsWithItsContext(t *testing.T) {
	called := make(chan struct{})
	c := daemon(t, func(conn *net.UnixConn, wire *api.Conn) {
		var r api.Request
		_, _ = wire.Receive(&r, 0)
		close(called)
		wait(conn)
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-called; cancel() }()
	begun := time.Now()
	if err := c.Lock(ctx); err == nil || time.Since(begun) > 10*time.Second {
		t.Errorf("%v after %v", err, time.Since(begun))
	}
}

func TestNamesAreAnsweredOneByOne(t *testing.T) {
	result := make(chan []api.Name, 1)
	c := daemon(t, func(_ *net.UnixConn, wire *api.Conn) {
		var r api.Request
		files, err := wire.Receive(&r, 1)
		if err != nil || len(files) != 1 || wire.Send(api.Answer{}) != nil {
			return
		}
		_ = files[0].Close()
		var names []api.Name
		for _, addr := range []string{"198.18.0.1", "198.18.0.9", "no address", ""} {
			var n api.Name
			if wire.Send(api.Lookup{Addr: addr}) != nil {
				break
			}
			if _, err := wire.Receive(&n, 0); err != nil {
				break
			}
			names = append(names, n)
		}
		result <- names
	})
	listener, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	names := func(a netip.Addr) (string, bool) { return "api.example.com", a.String() == "198.18.0.1" }
	if err := c.Serve(t.Context(), "bot", listener, names); err != nil {
		t.Fatal(err)
	}
	select {
	case got := <-result:
		if len(got) != 4 || !got[0].OK || got[0].Name != "api.example.com" || got[1].OK || got[2].OK || got[3].OK {
			t.Errorf("%+v", got)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the questions were not answered")
	}
}

func TestRedaction(t *testing.T) {
	c := daemon(t, func(_ *net.UnixConn, wire *api.Conn) {
		var r api.Request
		if _, err := wire.Receive(&r, 0); err != nil || r.Op != api.OpRedact || r.Agent != "bot" || wire.Send(api.Answer{}) != nil {
			return
		}
		for {
			sort, chunk, err := wire.ReceiveChunk()
			if err != nil || wire.SendChunk(sort, []byte(strings.ToUpper(string(chunk)))) != nil || sort == api.ChunkClose {
				return
			}
		}
	})
	r, err := c.Redact(t.Context(), "bot")
	if err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("abcdefgh", 50_000) // several pieces
	out := r.Write([]byte("> "), []byte(long))
	out = r.Flush(out)
	out = r.Close(out)
	if string(out) != "> "+strings.ToUpper(long) {
		t.Errorf("%d bytes came out, not %d", len(out), len(long)+2)
	}
}

// After an error nothing comes out but the word that it stopped, once.
func TestRedactionFailsClosed(t *testing.T) {
	c := daemon(t, func(_ *net.UnixConn, wire *api.Conn) {
		var r api.Request
		if _, err := wire.Receive(&r, 0); err != nil || wire.Send(api.Answer{}) != nil {
			return
		}
		if _, _, err := wire.ReceiveChunk(); err == nil {
			_ = wire.SendChunk(api.ChunkData, []byte("first"))
		}
	})
	r, err := c.Redact(t.Context(), "bot")
	if err != nil {
		t.Fatal(err)
	}
	if out := r.Write(nil, []byte("one")); string(out) != "first" {
		t.Errorf("%q", out)
	}
	out := string(r.Write(nil, []byte("a secret thing")))
	if strings.Contains(out, "secret") || !strings.Contains(out, "output stopped") {
		t.Errorf("%q", out)
	}
	for _, out := range [][]byte{r.Write(nil, []byte("a secret thing")), r.Flush(nil), r.Close(nil)} {
		if len(out) > 0 {
			t.Errorf("after the error: %q", out)
		}
	}
}

func TestRefusedRedaction(t *testing.T) {
	c := daemon(t, answering(api.Answer{Error: "the safe is locked", ID: "P-E062"}))
	if _, err := c.Redact(t.Context(), "bot"); err == nil {
		t.Error("a stream without a filter was opened")
	}
}
