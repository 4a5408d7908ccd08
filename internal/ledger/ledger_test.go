package ledger

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"testing"
	"time"

	"postern/internal/event"
)

func newKey(t testing.TB) ed25519.PrivateKey {
	t.Helper()
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func open(t testing.TB, dir string, key ed25519.PrivateKey) *Ledger {
	t.Helper()
	l, err := Open(dir, Options{Key: key})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func use(i int) event.Event {
	return event.Event{
		Kind: event.Use, Request: fmt.Sprintf("r-%d", i), Agent: "discord-bot", Credential: "anthropic",
		Version: 1, Fingerprint: "k1:5f0c6d1e8a7b", Host: "api.anthropic.com:443", Method: "POST", Path: "/v1/messages",
		Rule: "agents.discord-bot.grants[0]",
	}
}

func record(t testing.TB, l *Ledger, first, n int) {
	t.Helper()
	for i := first; i < first+n; i++ {
		if err := l.Record(t.Context(), use(i), false); err != nil {
			t.Fatal(err)
		}
	}
}

func TestRecordAndReadBack(t *testing.T) {
	for _, n := range []int{0, 1, 3, 255, 256, 257, 1023, 1024, 1025, 3000} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			dir, key := t.TempDir()+"/ledger", newKey(t)
			l := open(t, dir, key)
			record(t, l, 1, n)
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			seq := uint64(0)
			if err := Find(t.Context(), dir, Filter{}, func(e event.Event) bool {
				seq++
				if e.Seq != seq || e.Request != fmt.Sprintf("r-%d", seq) {
					t.Fatalf("entry %d: got %+v", seq, e)
				}
				return true
			}); err != nil || seq != uint64(n) {
				t.Fatalf("found %d, %v", seq, err)
			}
			tail, err := ReadTail(dir, 5)
			if err != nil || len(tail) != min(n, 5) {
				t.Fatalf("tail: %v, %v", tail, err)
			}
			again := open(t, dir, key)
			record(t, again, n+1, 2)
			if tail, err := ReadTail(dir, 1); err != nil || tail[0].Seq != uint64(n+2) {
				t.Errorf("after opening again: %v, %v", tail, err)
			}
		})
	}
}

func BenchmarkRecord(b *testing.B) {
	l := open(b, b.TempDir()+"/ledger", newKey(b))
	e := use(1)
	e.Time = time.Now()
	b.ReportAllocs()
	for b.Loop() {
		if err := l.Record(context.Background(), e, false); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRecordInParallel(b *testing.B) {
	l := open(b, b.TempDir()+"/ledger", newKey(b))
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := l.Record(context.Background(), use(1), false); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkRecordDurable64(b *testing.B) {
	l := open(b, b.TempDir()+"/ledger", newKey(b))
	b.SetParallelism(32)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := l.Record(context.Background(), use(1), true); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// What a command pays that records one change.
func BenchmarkOpenRecordClose(b *testing.B) {
	dir, key := b.TempDir()+"/ledger", newKey(b)
	for b.Loop() {
		l, err := Open(dir, Options{Key: key, Reserve: 8 << 20})
		if err != nil {
			b.Fatal(err)
		}
		if err := l.Record(context.Background(), event.Event{Kind: event.Put}, true); err != nil {
			b.Fatal(err)
		}
		if err := l.Close(); err != nil {
			b.Fatal(err)
		}
	}
}
