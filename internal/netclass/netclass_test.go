package netclass_test

import (
	"net/netip"
	"testing"

	"pgregory.net/rapid"

	"postern/internal/netclass"
)

func TestClassifyAddr(t *testing.T) {
	tests := []struct{ first, last, class string }{ // both ends of each range
		{"0.0.0.0", "0.0.0.0", "unspecified"},
		{"0.0.0.1", "0.255.255.255", "this network"},
		{"1.0.0.0", "9.255.255.255", "public"},
		{"10.0.0.0", "10.255.255.255", "private"},
		{"11.0.0.0", "100.63.255.255", "public"},
		{"100.64.0.0", "100.127.255.255", "carrier-grade NAT"},
		{"100.100.100.200", "100.100.100.200", "cloud metadata"},
		{"100.128.0.0", "126.255.255.255", "public"},
		{"127.0.0.0", "127.255.255.255", "loopback"},
		{"128.0.0.0", "168.63.129.15", "public"},
		{"168.63.129.16", "168.63.129.16", "cloud metadata"},
		{"168.63.129.17", "169.253.255.255", "public"},
		{"169.254.0.0", "169.254.255.255", "link-local"},
		{"169.254.0.23", "169.254.169.254", "cloud metadata"},
		{"169.254.170.2", "169.254.170.23", "cloud metadata"},
		{"169.254.42.42", "169.254.42.42", "cloud metadata"},
		{"169.255.0.0", "172.15.255.255", "public"},
		{"172.16.0.0", "172.31.255.255", "private"},
		{"172.32.0.0", "191.255.255.255", "public"},
		{"192.0.0.0", "192.0.0.255", "protocol assignment"},
		{"192.0.0.192", "192.0.0.192", "cloud metadata"},
		{"192.0.1.0", "192.0.1.255", "public"},
		{"192.0.2.0", "192.0.2.255", "documentation"},
		{"192.0.3.0", "192.31.195.255", "public"},
		{"192.31.196.0", "192.31.196.255", "AS112 anycast"},
		{"192.52.193.0", "192.52.193.255", "multicast relay"},
		{"192.88.99.0", "192.88.99.255", "6to4 relay"},
		{"192.88.100.0", "192.167.255.255", "public"},
		{"192.168.0.0", "192.168.255.255", "private"},
		{"192.169.0.0", "192.175.47.255", "public"},
		{"192.175.48.0", "192.175.48.255", "AS112 anycast"},
		{"192.175.49.0", "198.17.255.255", "public"},
		{"198.18.0.0", "198.19.255.255", "benchmarking"},
		{"198.20.0.0", "198.51.99.255", "public"},
		{"198.51.100.0", "198.51.100.255", "documentation"},
		{"198.51.101.0", "203.0.112.255", "public"},
		{"203.0.113.0", "203.0.113.255", "documentation"},
		{"203.0.114.0", "223.255.255.255", "public"},
		{"224.0.0.0", "239.255.255.255", "multicast"},
		{"240.0.0.0", "255.255.255.254", "reserved"},
		{"255.255.255.255", "255.255.255.255", "broadcast"},

		{"::", "::", "unspecified"},
		{"::1", "::1", "loopback"},
		{"::2", "::ffff:ffff", "IPv4-compatible"},
		{"::8.8.8.8", "::127.0.0.1", "IPv4-compatible"},
		{"::ffff:0.0.0.0", "::ffff:255.255.255.255", "IPv4-mapped"},
		{"::ffff:8.8.8.8", "::ffff:127.0.0.1", "IPv4-mapped"},
		{"::ffff:169.254.169.254", "::ffff:100.100.100.200", "cloud metadata"},
		{"::ffff:0:0:0", "::ffff:0:8.8.8.8", "IPv4-translated"},
		{"64:ff9b::", "64:ff9b::8.8.8.8", "NAT64"},
		{"64:ff9b:1::", "64:ff9b:1:ffff:ffff:ffff:ffff:ffff", "NAT64"},
		{"64:ff9b:0:0:0:1::", "64:ff9b:2::", "reserved"},
		{"100::", "100::ffff:ffff:ffff:ffff", "discard only"},
		{"100:0:0:1::", "100:0:0:1:ffff:ffff:ffff:ffff", "dummy prefix"},
		{"200::1", "1fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "reserved"},
		{"2000::", "2000:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "public"},
		{"2001::", "2001:0:ffff:ffff:ffff:ffff:ffff:ffff", "Teredo"},
		{"2001:1::1", "2001:1::3", "protocol assignment"},
		{"2001:2::", "2001:2:0:ffff:ffff:ffff:ffff:ffff", "benchmarking"},
		{"2001:2:1::", "2001:2:ffff::", "protocol assignment"},
		{"2001:3::", "2001:3:ffff::", "multicast relay"},
		{"2001:4:112::", "2001:4:112:ffff::", "AS112 anycast"},
		{"2001:10::", "2001:2f:ffff::", "ORCHID"},
		{"2001:30::", "2001:3f:ffff::", "drone identity"},
		{"2001:40::", "2001:1ff:ffff::", "protocol assignment"},
		{"2001:200::", "2001:db7:ffff::", "public"},
		{"2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", "documentation"},
		{"2001:db9::", "2001:ffff::", "public"},
		{"2002::", "2002:7f00:1::", "6to4"},
		{"2003::", "2620:4f:7fff:ffff::", "public"},
		{"2620:4f:8000::", "2620:4f:8000:ffff::", "AS112 anycast"},
		{"2620:4f:8001::", "3ffe:ffff::", "public"},
		{"2606:4700:4700::1111", "2a00:1450:4001:81a::200a", "public"},
		{"2606:4700::5efe:10.0.0.1", "2606:4700::200:5efe:10.0.0.1", "ISATAP"},
		{"3fff::", "3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff", "documentation"},
		{"3fff:1000::", "3fff:ffff::", "public"},
		{"4000::", "5eff:ffff::", "reserved"},
		{"5f00::", "5f00:ffff::", "segment routing"},
		{"5f01::", "fbff:ffff::", "reserved"},
		{"fc00::", "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "private"},
		{"fd00:ec2::254", "fd00:ec2::23", "cloud metadata"},
		{"fd20:ce::254", "fd00:42::42", "cloud metadata"},
		{"fd00:c1::a9fe:a9fe", "fd00:c1::a9fe:a9fe", "cloud metadata"},
		{"fe00::", "fe7f:ffff::", "reserved"},
		{"fe80::", "febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "link-local"},
		{"fe80::1%eth0", "fe80::a9fe:a9fe%1", "link-local"},
		{"fd00:ec2::254%eth0", "fd00:ec2::254%1", "cloud metadata"},
		{"2606:4700::1%eth0", "2606:4700::1%lo", "bound to a zone"},
		{"fec0::", "feff:ffff::", "private"},
		{"ff00::", "ff02::1%eth0", "multicast"},
		{"ff02::1", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "multicast"},
	}
	for _, test := range tests {
		for _, text := range []string{test.first, test.last} {
			class, public := netclass.ClassifyAddr(netip.MustParseAddr(text))
			if class != test.class || public != (test.class == netclass.Public) {
				t.Errorf("%s: got %q, public %v; want %q", text, class, public, test.class)
			}
		}
	}
	if class, public := netclass.ClassifyAddr(netip.Addr{}); public || class != "not an address" {
		t.Errorf("zero address: got %q, public %v", class, public)
	}
}

// Whatever IPv4 address is hidden in another form, the form is refused.
func TestEmbeddedIPv4IsRefused(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v4 := [4]byte(rapid.SliceOfN(rapid.Byte(), 4, 4).Draw(t, "v4"))
		prefix := rapid.SampledFrom([]string{"::", "::ffff:0:0", "::ffff:0:0:0", "64:ff9b::", "64:ff9b:1::", "2001::", "2606:4700::5efe:0:0"}).Draw(t, "prefix")
		ip := netip.MustParseAddr(prefix).As16()
		copy(ip[12:], v4[:])
		sixToFour := [16]byte{0x20, 0x02, v4[0], v4[1], v4[2], v4[3], 15: 1}
		for _, form := range [][16]byte{ip, sixToFour} {
			if class, public := netclass.ClassifyAddr(netip.AddrFrom16(form)); public {
				t.Fatalf("%s is %q and public", netip.AddrFrom16(form), class)
			}
		}
	})
}

// What the standard library knows to be special is never public.
func TestAgreesWithTheStandardLibrary(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.SampledFrom([]int{4, 16}).Draw(t, "size")
		addr, _ := netip.AddrFromSlice(rapid.SliceOfN(rapid.Byte(), size, size).Draw(t, "ip"))
		special := !addr.IsGlobalUnicast() || addr.IsPrivate()
		if class, public := netclass.ClassifyAddr(addr); public && special {
			t.Fatalf("%s is %q and public", addr, class)
		}
	})
}

func TestClassifyAddrDoesNotAllocate(t *testing.T) {
	for _, text := range []string{"93.184.215.14", "2606:4700::1111"} {
		addr := netip.MustParseAddr(text)
		if n := testing.AllocsPerRun(100, func() { netclass.ClassifyAddr(addr) }); n > 0 {
			t.Errorf("%s: %v allocations", text, n)
		}
	}
}
