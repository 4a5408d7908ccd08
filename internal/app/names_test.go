package app

import (
	"net/netip"
	"testing"
	"time"
)

func TestNamesAreRememberedForAWhile(t *testing.T) {
	now, asked := time.Unix(1_000_000, 0), 0
	name, known := "one.example", true
	names := remembered(func(netip.Addr) (string, bool) {
		asked++
		return name, known
	}, func() time.Time { return now })
	addr := netip.MustParseAddr("198.18.0.1")
	for _, step := range []struct {
		after time.Duration
		say   string
		known bool
		want  string
		asked int // in all
	}{
		{0, "one.example", true, "one.example", 1},
		{time.Second, "two.example", true, "one.example", 1},
		{time.Second, "two.example", true, "two.example", 2},
		{rememberFor, "", false, "", 3},
		{0, "three.example", true, "three.example", 4},
	} {
		now = now.Add(step.after)
		name, known = step.say, step.known
		got, ok := names(addr)
		if got != step.want || ok != (step.want != "") || asked != step.asked {
			t.Errorf("after %v: %q, %v, asked %d times; want %q, asked %d times", step.after, got, ok, asked, step.want, step.asked)
		}
	}
}

func TestRememberedNamesAreBounded(t *testing.T) {
	asked := 0
	names := remembered(func(netip.Addr) (string, bool) { asked++; return "a.example", true }, time.Now)
	addr := netip.MustParseAddr("198.18.0.1")
	for range 3 * maxRemember {
		names(addr)
		addr = addr.Next()
	}
	if asked != 3*maxRemember {
		t.Errorf("asked %d times, want %d", asked, 3*maxRemember)
	}
}
