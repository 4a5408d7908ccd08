package run_test

import (
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/dns/dnsmessage"

	"postern/internal/run"
)

func ask(t testing.TB, name string, kind dnsmessage.Type) []byte {
	t.Helper()
	n, err := dnsmessage.NewName(name)
	if err != nil {
		t.Fatal(err)
	}
	m := dnsmessage.Message{Header: dnsmessage.Header{ID: 7, RecursionDesired: true}, Questions: []dnsmessage.Question{{Name: n, Type: kind, Class: dnsmessage.ClassINET}}}
	packet, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return packet
}

func TestAnswers(t *testing.T) {
	for _, c := range []struct {
		name string
		kind dnsmessage.Type
		want string // the address, or the code's name
	}{
		{"API.Example.com.", dnsmessage.TypeA, "198.18.0.1"},
		{"_srv.example.com.", dnsmessage.TypeA, "198.18.0.1"},
		{"api.example.com.", dnsmessage.TypeAAAA, "RCodeSuccess"},
		{"api.example.com.", dnsmessage.TypeHTTPS, "RCodeSuccess"},
		{"api.example.com.", dnsmessage.TypeTXT, "RCodeRefused"},
		{"api.example.com.", dnsmessage.TypeMX, "RCodeRefused"},
		{"localhost.", dnsmessage.TypeA, "127.0.0.1"},
		{"a.localhost.", dnsmessage.TypeAAAA, "::1"},
		{"database.", dnsmessage.TypeA, "RCodeNameError"},
		{".", dnsmessage.TypeA, "RCodeNameError"},
		{"1.0.0.127.in-addr.arpa.", dnsmessage.TypePTR, "RCodeNameError"},
		{"a b.example.com.", dnsmessage.TypeA, "RCodeNameError"},
	} {
		answer, err := run.Answer(ask(t, c.name, c.kind))
		if err != nil {
			t.Errorf("%s %v: %v", c.name, c.kind, err)
			continue
		}
		var m dnsmessage.Message
		if err := m.Unpack(answer); err != nil {
			t.Fatal(err)
		}
		got := m.RCode.String()
		if len(m.Answers) == 1 {
			switch body := m.Answers[0].Body.(type) {
			case *dnsmessage.AResource:
				got = netip.AddrFrom4(body.A).String()
			case *dnsmessage.AAAAResource:
				got = netip.AddrFrom16(body.AAAA).String()
			}
		}
		if got != c.want || m.ID != 7 || !m.Response || m.Questions[0].Name.String() != c.name {
			t.Errorf("%s %v: %s, want %s (%+v)", c.name, c.kind, got, c.want, m.Header)
		}
	}
}

// Names keep their addresses until all have been given out; then the oldest goes.
func TestNamesAreBounded(t *testing.T) {
	addressOf, nameOf := run.Names()
	first := addressOf("first.example")
	if again := addressOf("first.example"); again != first {
		t.Errorf("a name has two addresses: %v and %v", first, again)
	}
	seen := map[netip.Addr]bool{}
	for i := range 1 << 16 {
		seen[addressOf(strings.Repeat("a", i%50+1)+"."+string(rune('a'+i/50%26))+strings.Repeat("b", i/1300+1)+".example")] = true
	}
	for addr := range seen {
		if !netip.MustParsePrefix("198.18.0.0/15").Contains(addr) || addr == netip.MustParseAddr("198.19.255.254") {
			t.Fatalf("%v was given out", addr)
		}
	}
	if name, found := nameOf(first); !found || name == "first.example" {
		t.Errorf("the oldest address stands for %q", name)
	}
	if name, found := nameOf(netip.MustParseAddr("192.0.2.1")); found {
		t.Errorf("an address of nobody stands for %q", name)
	}
}

func FuzzAnswer(f *testing.F) {
	f.Add(ask(f, "api.example.com.", dnsmessage.TypeA))
	f.Add(ask(f, "localhost.", dnsmessage.TypeAAAA))
	f.Add(ask(f, "x.example.", dnsmessage.TypeTXT)[:20])
	f.Fuzz(func(t *testing.T, packet []byte) {
		answer, err := run.Answer(packet)
		if err != nil {
			return
		}
		var m dnsmessage.Message
		if err := m.Unpack(answer); err != nil || !m.Response || len(m.Questions) != 1 || len(m.Answers) > 1 {
			t.Errorf("the answer %x is %+v, %v", answer, m, err)
		}
	})
}

func TestListeningSockets(t *testing.T) {
	const table = `Num       RefCount Protocol Flags    Type St Inode Path
0000000000000000: 00000002 00000000 00010000 0001 01 21434 /run/dbus/system_bus_socket
0000000000000000: 00000002 00000000 00010000 0001 01 21435 @abstract
0000000000000000: 00000003 00000000 00000000 0001 03 21436 /tmp/connected
0000000000000000: 00000002 00000000 00010000 0005 01 21437 /home/u/with space/a.sock
0000000000000000: 00000002 00000000 00010000 0001 01 21438
broken
`
	want := []string{"/run/dbus/system_bus_socket", "/home/u/with space/a.sock"}
	if diff := cmp.Diff(want, run.Listening([]byte(table))); diff != "" {
		t.Errorf("sockets (-want +got):\n%s", diff)
	}
}

func TestOutermost(t *testing.T) {
	got := run.Outermost([]string{"/a/b/c", "/a-b", "/a/b/", "/a/bc", "/a/b"})
	if diff := cmp.Diff([]string{"/a-b", "/a/b", "/a/bc"}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestCleanEnv(t *testing.T) {
	got := run.CleanEnv(
		[]string{"PATH=/bin", "TOKEN=x", "A=1", "A=2", "SSH_AUTH_SOCK=/tmp/agent", "broken", "=C:=x", "EMPTY="},
		func(key, _ string) bool { return key == "TOKEN" },
		map[string]string{"SSL_CERT_FILE": "/bundle", "PATH": "/usr/bin"})
	want := []string{"A=2", "EMPTY=", "PATH=/usr/bin", "SSL_CERT_FILE=/bundle"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if !slices.Contains(run.BundleVariables(), "NODE_EXTRA_CA_CERTS") {
		t.Error("Node is not told about the certificates")
	}
}

// What is read inside comes from the parent only; broken all the same it is an
// error, not a half set-up.
func TestBrokenStart(t *testing.T) {
	for _, text := range []string{"", "{}", "{\n", `{"Overlay":[{"Path":"/x","Size":9}]}` + "\nabc", `{"Overlay":[{"Size":-1}]}` + "\n"} {
		file, err := os.CreateTemp(t.TempDir(), "start")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := file.WriteString(text); err != nil {
			t.Fatal(err)
		}
		if err := run.ReadStart(file); err == nil {
			t.Errorf("%q was accepted", text)
		}
		_ = file.Close()
	}
}
