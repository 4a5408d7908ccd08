package run

import (
	"context"
	"net/netip"
	"os"
)

// Redirected makes a sandbox as on a kernel without TPROXY.
func Redirected(s *Spec) { s.lead = redirected }

// StartPowerful is Start for root where there are no user namespaces.
func StartPowerful(ctx context.Context, s Spec) (*Process, error) { return openWith(ctx, s, true) }

// Answer is the resolver's answer to a packet.
func Answer(packet []byte) ([]byte, error) { return testResolver().answer(packet) }

func testResolver() *resolver { return &resolver{addrs: map[string]int{}} }

// Names are the two look-ups of a new resolver.
func Names() (addressOf func(string) netip.Addr, nameOf func(netip.Addr) (string, bool)) {
	r := testResolver()
	return func(name string) netip.Addr {
		n := r.addressOf(name)
		return netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
	}, r.nameOf
}

// Listening reads the kernel's table of local sockets.
func Listening(table []byte) []string { return listening(table) }

// Outermost leaves out paths below others.
func Outermost(paths []string) []string { return outermost(paths) }

// ReadStart reads what travels inside.
func ReadStart(file *os.File) error {
	_, err := readStart(file)
	return err
}
