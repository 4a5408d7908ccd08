// Package netclass says what sort of address an IP address is, and whether it
// is an ordinary host of the public Internet. What is not plainly public is
// refused: the broker lends keys to programs, and an address that leads back
// into the machine, its network or its cloud is a way around every rule.
package netclass

import "net/netip"

// The classes that callers tell apart; every other one is only shown.
const (
	Public    = "public"
	Loopback  = "loopback"
	Private   = "private"
	LinkLocal = "link-local"
	Metadata  = "cloud metadata"
	Multicast = "multicast"
)

// ClassifyAddr returns the class of addr in words for a person and whether it
// is public. Addresses that carry an IPv4 address inside (mapped, NAT64, 6to4,
// Teredo and the like) are not public whatever they carry, because what is
// reached in the end is decided by a gateway; callers that get mapped addresses
// from a resolver unmap them first. An address with a zone is not public.
//
// The ranges are those of the IANA IPv4 and IPv6 Special-Purpose Address
// Registries; of IPv6, only global unicast (2000::/3) may be public.
func ClassifyAddr(addr netip.Addr) (class string, public bool) {
	switch {
	case !addr.IsValid():
		return "not an address", false
	case isMetadata(addr.Unmap().WithZone("")):
		return Metadata, false
	case addr.Is4():
		return classify4(addr.As4())
	}
	class, public = classify6(addr.As16())
	if public && addr.Zone() != "" {
		return "bound to a zone", false
	}
	return class, public
}

// isMetadata knows the addresses at which clouds hand credentials or secrets of
// the machine to whoever asks from inside it. Most lie in a range that is
// refused anyway and are only named here; Azure's does not.
func isMetadata(addr netip.Addr) bool {
	if addr.Is4() {
		switch addr.As4() {
		case [4]byte{169, 254, 169, 254}, // AWS, Azure, Google, Oracle, DigitalOcean, Hetzner and others
			[4]byte{169, 254, 170, 2},   // AWS ECS task credentials
			[4]byte{169, 254, 170, 23},  // AWS EKS pod identity
			[4]byte{169, 254, 0, 23},    // Tencent Cloud
			[4]byte{169, 254, 42, 42},   // Scaleway
			[4]byte{168, 63, 129, 16},   // Azure platform (wire server), in an ordinary range
			[4]byte{100, 100, 100, 200}, // Alibaba Cloud
			[4]byte{192, 0, 0, 192}:     // Oracle Cloud Classic
			return true
		}
		return false
	}
	switch groupsOf(addr.As16()) {
	case groups{0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254}, // AWS
		groups{0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23},       // AWS EKS pod identity
		groups{0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254},       // Google
		groups{0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42},        // Scaleway
		groups{0xfd00, 0xc1, 0, 0, 0, 0, 0xa9fe, 0xa9fe}: // Oracle
		return true
	}
	return false
}

type range4 struct {
	start [4]byte
	bits  int
	class string
}

// classify4 goes through the ranges in order; the first that holds ip decides.
func classify4(ip [4]byte) (string, bool) {
	for _, r := range [...]range4{
		{[4]byte{0, 0, 0, 0}, 32, "unspecified"},
		{[4]byte{0}, 8, "this network"},                 // RFC 791
		{[4]byte{10}, 8, Private},                       // RFC 1918
		{[4]byte{100, 64}, 10, "carrier-grade NAT"},     // RFC 6598
		{[4]byte{127}, 8, Loopback},                     // RFC 1122
		{[4]byte{169, 254}, 16, LinkLocal},              // RFC 3927
		{[4]byte{172, 16}, 12, Private},                 // RFC 1918
		{[4]byte{192, 0, 0}, 24, "protocol assignment"}, // RFC 6890
		{[4]byte{192, 0, 2}, 24, "documentation"},       // RFC 5737
		{[4]byte{192, 31, 196}, 24, "AS112 anycast"},    // RFC 7535
		{[4]byte{192, 52, 193}, 24, "multicast relay"},  // RFC 7450
		{[4]byte{192, 88, 99}, 24, "6to4 relay"},        // RFC 7526
		{[4]byte{192, 168}, 16, Private},                // RFC 1918
		{[4]byte{192, 175, 48}, 24, "AS112 anycast"},    // RFC 7534
		{[4]byte{198, 18}, 15, "benchmarking"},          // RFC 2544
		{[4]byte{198, 51, 100}, 24, "documentation"},    // RFC 5737
		{[4]byte{203, 0, 113}, 24, "documentation"},     // RFC 5737
		{[4]byte{224}, 4, Multicast},                    // RFC 1112
		{[4]byte{255, 255, 255, 255}, 32, "broadcast"},  // RFC 919
		{[4]byte{240}, 4, "reserved"},                   // RFC 1112
	} {
		if sharePrefix(ip[:], r.start[:], r.bits) {
			return r.class, false
		}
	}
	return Public, true
}

// groups are the eight 16-bit groups of an IPv6 address, as it is written.
type groups [8]uint16

func groupsOf(ip [16]byte) (g groups) {
	for i := range g {
		g[i] = uint16(ip[2*i])<<8 | uint16(ip[2*i+1])
	}
	return g
}

func (g groups) bytes() (ip [16]byte) {
	for i, v := range g {
		ip[2*i], ip[2*i+1] = byte(v>>8), byte(v)
	}
	return ip
}

type range6 struct {
	start groups
	bits  int
	class string
}

// classify6 goes through the ranges in order; the first that holds ip decides.
func classify6(ip [16]byte) (string, bool) {
	for _, r := range [...]range6{
		{groups{}, 128, "unspecified"},
		{groups{7: 1}, 128, Loopback},                       // RFC 4291
		{groups{5: 0xffff}, 96, "IPv4-mapped"},              // RFC 4291
		{groups{4: 0xffff}, 96, "IPv4-translated"},          // RFC 2765
		{groups{}, 96, "IPv4-compatible"},                   // RFC 4291, deprecated
		{groups{0x64, 0xff9b}, 96, "NAT64"},                 // RFC 6052
		{groups{0x64, 0xff9b, 1}, 48, "NAT64"},              // RFC 8215
		{groups{0x100}, 64, "discard only"},                 // RFC 6666
		{groups{0x100, 0, 0, 1}, 64, "dummy prefix"},        // RFC 9780
		{groups{0x2001}, 32, "Teredo"},                      // RFC 4380
		{groups{0x2001, 2}, 48, "benchmarking"},             // RFC 5180
		{groups{0x2001, 3}, 32, "multicast relay"},          // RFC 7450
		{groups{0x2001, 4, 0x112}, 48, "AS112 anycast"},     // RFC 7535
		{groups{0x2001, 0x10}, 28, "ORCHID"},                // RFC 4843, deprecated
		{groups{0x2001, 0x20}, 28, "ORCHID"},                // RFC 7343
		{groups{0x2001, 0x30}, 28, "drone identity"},        // RFC 9374
		{groups{0x2001}, 23, "protocol assignment"},         // RFC 2928
		{groups{0x2001, 0xdb8}, 32, "documentation"},        // RFC 3849
		{groups{0x2002}, 16, "6to4"},                        // RFC 3056
		{groups{0x2620, 0x4f, 0x8000}, 48, "AS112 anycast"}, // RFC 7534
		{groups{0x3fff}, 20, "documentation"},               // RFC 9637
		{groups{0x5f00}, 16, "segment routing"},             // RFC 9602
		{groups{0xfc00}, 7, Private},                        // RFC 4193, unique local
		{groups{0xfe80}, 10, LinkLocal},                     // RFC 4291
		{groups{0xfec0}, 10, Private},                       // RFC 3879, site-local, deprecated
		{groups{0xff00}, 8, Multicast},                      // RFC 4291
	} {
		start := r.start.bytes()
		if sharePrefix(ip[:], start[:], r.bits) {
			return r.class, false
		}
	}
	// An interface identifier 0000:5efe or 0200:5efe carries an IPv4 address
	// behind it (ISATAP, RFC 5214).
	if (ip[8] == 0 || ip[8] == 2) && ip[9] == 0 && ip[10] == 0x5e && ip[11] == 0xfe {
		return "ISATAP", false
	}
	if ip[0]>>5 != 1 { // outside 2000::/3 nothing is assigned to hosts
		return "reserved", false
	}
	return Public, true
}

// sharePrefix says whether a and b are the same in their first bits.
func sharePrefix(a, b []byte, bits int) bool {
	for i := 0; bits > 0; i, bits = i+1, bits-8 {
		if differ := a[i] ^ b[i]; differ>>max(0, 8-bits) != 0 {
			return false
		}
	}
	return true
}
