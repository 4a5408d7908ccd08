package broker

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strconv"
	"testing"
	"time"
)

func TestAddressesAreClassified(t *testing.T) {
	t.Parallel()
	b := New(Config{})
	for name, tt := range map[string]struct {
		answer []string
		ok     bool
	}{
		"public":             {[]string{"93.184.216.34", "2606:2800:220:1::1"}, true},
		"loopback":           {[]string{"127.0.0.1"}, false},
		"one of two private": {[]string{"93.184.216.34", "10.0.0.1"}, false},
		"metadata":           {[]string{"169.254.169.254"}, false},
		"mapped loopback":    {[]string{"::ffff:127.0.0.1"}, false},
		"mapped public":      {[]string{"::ffff:93.184.216.34"}, true},
		"NAT64":              {[]string{"64:ff9b::a00:1"}, false},
		"6to4":               {[]string{"2002:a00:1::"}, false},
		"unspecified":        {[]string{"0.0.0.0"}, false},
		"none":               {nil, false},
	} {
		b.resolve = func(context.Context, string) ([]netip.Addr, error) {
			var list []netip.Addr
			for _, a := range tt.answer {
				list = append(list, netip.MustParseAddr(a))
			}
			return list, nil
		}
		addrs, err := b.addresses(t.Context(), "api.example", false)
		if (err == nil) != tt.ok || tt.ok && len(addrs) != len(tt.answer) {
			t.Errorf("%s: got %v %v", name, addrs, err)
		}
	}
}

// The name is resolved once: what was checked is what is dialled.
func TestResolvedOnce(t *testing.T) {
	t.Parallel()
	b, calls := New(Config{}), 0
	b.resolve = func(context.Context, string) ([]netip.Addr, error) {
		if calls++; calls == 1 {
			return []netip.Addr{netip.MustParseAddr("192.0.2.1")}, nil // not public, by its purpose
		}
		return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
	}
	_, err := b.dial(t.Context(), newTarget("rebind.example", 443), false)
	var private *errPrivate
	if !errors.As(err, &private) || calls != 1 {
		t.Errorf("got %v after %d look-ups", err, calls)
	}
}

func TestDialsTheAddressThatAnswers(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	_, text, _ := net.SplitHostPort(ln.Addr().String())
	port, _ := strconv.Atoi(text)
	b := New(Config{})
	b.resolve = func(context.Context, string) ([]netip.Addr, error) {
		return []netip.Addr{netip.MustParseAddr("127.0.0.2"), netip.MustParseAddr("127.0.0.3"), netip.MustParseAddr("127.0.0.1")}, nil
	}
	start := time.Now()
	c, err := b.dial(t.Context(), newTarget("local.example", port), true)
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
	if time.Since(start) > dialStagger {
		t.Error("addresses that refuse at once were waited for")
	}
}

func TestCanonicalHost(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"API.Example": "api.example", "api.example.": "api.example", "[::1]": "::1", "1.2.3.4": "1.2.3.4", "a_b.example": "a_b.example",
		"xn--bcher-kva.example": "xn--bcher-kva.example", "[::ffff:1.2.3.4]": "1.2.3.4",
		"": "", ".": "", "a..b": "", "a b": "", "a\x00b": "", "a%2eb": "", "a@b": "", "a/b": "", `a\b`: "", "a:1": "", "::1": "", "[::1": "", "[fe80::1%eth0]": "",
		"2130706433": "", "0x7f.1": "", "127.1": "", "017700000001": "", "1.2.3.04": "", "1.2.3.4.5": "", "-a.example": "", "a-.example": "", "bücher.example": "", "xn--.example": "",
	} {
		if got, err := canonicalHost(in); got != want || (err == nil) != (want != "") {
			t.Errorf("%q: got %q %v, want %q", in, got, err, want)
		}
	}
}

func FuzzParseTarget(f *testing.F) {
	for _, s := range []string{"api.example:443", "[::1]:80", "a..b", "user@host:1", "0x7f.1:443", "[fe80::1%25eth0]:443"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := parseTarget(s, 443)
		if err != nil {
			return
		}
		again, err := parseTarget(got.key, 0)
		if err != nil || again != got {
			t.Errorf("%q is %+v and, read again, %+v (%v)", s, got, again, err)
		}
	})
}

func FuzzPathViews(f *testing.F) {
	for _, s := range []string{"/", "/a/../b", "/a;x/b", "/%41", "//a", "/a%2fb", "/%2e%2e/"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		views, err := pathViews([]byte(s))
		if err != nil {
			return
		}
		for _, v := range views {
			for i := 0; i+2 < len(v); i++ {
				if v[i:i+3] == "/.." && (i+3 == len(v) || v[i+3] == '/') {
					t.Errorf("%q is read as %q", s, v)
				}
			}
		}
	})
}
