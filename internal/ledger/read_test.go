package ledger

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"postern/internal/event"
	"postern/internal/fail"
)

func TestFind(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ledger")
	clock := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	start := clock
	l, err := Open(dir, Options{Key: newKey(t), Now: func() time.Time { return clock }})
	if err != nil {
		t.Fatal(err)
	}
	for i := 1; i <= 2000; i++ {
		clock = start.Add(time.Duration(i) * time.Second)
		e := event.Event{Kind: event.Egress, Agent: fmt.Sprint("bot-", i%2), Host: fmt.Sprintf("h%d.example:%d", i%3, 443+i%4)}
		if i%500 == 0 {
			e.Kind, e.Credential = event.Use, "anthropic"
		}
		if err := l.Record(t.Context(), e, false); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name   string
		filter Filter
		want   int
		first  uint64
	}{
		{"all", Filter{}, 2000, 1},
		{"agent", Filter{Agent: "bot-0"}, 1000, 2},
		{"credential", Filter{Credential: "anthropic"}, 4, 500},
		{"kind", Filter{Kind: event.Use}, 4, 500},
		{"host", Filter{Host: "h0.example"}, 666, 3},
		{"host and port", Filter{Host: "h0.example:443"}, 166, 12},
		{"part of a host", Filter{Host: "h0"}, 0, 0},
		{"since", Filter{Since: start.Add(1500 * time.Second)}, 501, 1500},
		{"since the last", Filter{Since: start.Add(2000 * time.Second)}, 1, 2000},
		{"since later", Filter{Since: start.Add(2001 * time.Second)}, 0, 0},
		{"after", Filter{After: 1990}, 10, 1991},
		{"after and since", Filter{After: 100, Since: start.Add(50 * time.Second)}, 1900, 101},
		{"none", Filter{Agent: "nobody"}, 0, 0},
	}
	for _, test := range tests {
		n, first := 0, uint64(0)
		if err := Find(t.Context(), dir, test.filter, func(e event.Event) bool {
			if n++; n == 1 {
				first = e.Seq
			}
			return true
		}); err != nil || n != test.want || first != test.first {
			t.Errorf("%s: got %d from %d, %v; want %d from %d", test.name, n, first, err, test.want, test.first)
		}
	}
	stopped := 0
	if err := Find(t.Context(), dir, Filter{}, func(event.Event) bool { stopped++; return stopped < 3 }); err != nil || stopped != 3 {
		t.Errorf("stopped after %d, %v", stopped, err)
	}
	if tail, err := ReadTail(dir, 700); err != nil || len(tail) != 700 || tail[0].Seq != 1301 {
		t.Errorf("tail: %d, %v", len(tail), err)
	}
	missing := filepath.Join(t.TempDir(), "none")
	if err := Find(t.Context(), missing, Filter{}, nil); !fail.Is(err, fail.NotFound) {
		t.Errorf("without a ledger: got %v", err)
	}
	empty := t.TempDir()
	for _, change := range []func() error{
		func() error { return nil },
		func() error { return os.WriteFile(filepath.Join(empty, lockFile), nil, 0o600) },
	} {
		if err := change(); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadTail(empty, 1); !fail.Is(err, fail.NotFound) {
			t.Errorf("before the first record: got %v", err)
		}
	}
	put(t, filepath.Join(dir, journalFile), []byte("x"))
	if _, err := ReadTail(dir, 1); !fail.Is(err, fail.Conflict) {
		t.Errorf("damaged: got %v", err)
	}
}
