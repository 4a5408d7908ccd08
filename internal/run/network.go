package run

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// way is how connections are led to the broker.
type way string

const (
	transparent way = "transparent" // nftables TPROXY: the destination is the connection's local address
	redirected  way = "redirected"  // nftables redirect: the destination is asked for, see Original
)

const (
	resolverPort = 53
	loopback     = 1 // index of lo in a new network namespace
)

// ownAddress is lo's address beside 127.0.0.1: what connections to elsewhere come
// from. 198.18.0.0/15 is set aside for benchmarks (RFC 2544) and leads nowhere.
func ownAddress() netip.Addr { return netip.AddrFrom4([4]byte{198, 19, 255, 254}) }

// resolverAddress is where the resolver listens inside.
func resolverAddress() netip.Addr { return netip.AddrFrom4([4]byte{127, 0, 0, 53}) }

// setUpNetwork makes every destination lead to lo, and there all TCP to the
// returned listening socket, by the given way or the best one. Whatever else is sent meets a closed port of our
// own and is refused at once: there is no other interface.
func setUpNetwork(lead way) (*os.File, way, error) {
	if err := loopbackUp(); err != nil {
		return nil, "", err
	}
	if err := everythingLocal(unix.AF_INET, ownAddress()); err != nil {
		return nil, "", err
	}
	listener, port, six, err := transparentListener()
	if err != nil {
		return nil, "", err
	}
	if six {
		// Where this fails, IPv6 leads nowhere and is refused: names have no such
		// address inside anyhow.
		_ = everythingLocal(unix.AF_INET6, netip.IPv6Loopback())
	}
	ways := []way{transparent, redirected}
	if lead != "" {
		ways = []way{lead}
	}
	for _, lead = range ways {
		err = loadRules(lead, port)
		if !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EOPNOTSUPP) {
			break // done, or not for want of a part of the kernel
		}
	}
	if err != nil {
		return nil, "", errors.Join(fmt.Errorf("loading the rule that leads connections to the broker: %w", err), listener.Close())
	}
	return listener, lead, nil
}

func loopbackUp() error {
	body := []byte{unix.AF_UNSPEC, 0, 0, 0}
	body = binary.NativeEndian.AppendUint32(body, loopback)
	body = binary.NativeEndian.AppendUint32(body, unix.IFF_UP) // flags
	body = binary.NativeEndian.AppendUint32(body, unix.IFF_UP) // which of them are meant
	if err := netlink(unix.NETLINK_ROUTE, netlinkMessage(nil, unix.RTM_NEWLINK, unix.NLM_F_REQUEST|unix.NLM_F_ACK, 1, body), 1); err != nil {
		return fmt.Errorf("bringing lo up: %w", err)
	}
	return nil
}

// everythingLocal adds a local default route over lo, with own as the source:
// without one the handshake hangs. A source that is not loopback's is given to
// lo first, so that programs which look for an address find one.
func everythingLocal(family byte, own netip.Addr) error {
	const create = unix.NLM_F_REQUEST | unix.NLM_F_ACK | unix.NLM_F_CREATE
	source := own.AsSlice()
	if !own.IsLoopback() {
		body := []byte{family, byte(own.BitLen()), 0, unix.RT_SCOPE_HOST}
		body = binary.NativeEndian.AppendUint32(body, loopback)
		body = attribute(body, unix.IFA_LOCAL, source)
		body = attribute(body, unix.IFA_ADDRESS, source)
		if err := netlink(unix.NETLINK_ROUTE, netlinkMessage(nil, unix.RTM_NEWADDR, create, 1, body), 1); err != nil {
			return fmt.Errorf("giving lo an address: %w", err)
		}
	}
	body := []byte{family, 0, 0, 0, unix.RT_TABLE_LOCAL, unix.RTPROT_STATIC, unix.RT_SCOPE_HOST, unix.RTN_LOCAL, 0, 0, 0, 0}
	body = attribute(body, unix.RTA_OIF, binary.NativeEndian.AppendUint32(nil, loopback))
	body = attribute(body, unix.RTA_PREFSRC, source)
	if err := netlink(unix.NETLINK_ROUTE, netlinkMessage(nil, unix.RTM_NEWROUTE, create, 2, body), 1); err != nil {
		return fmt.Errorf("adding the route: %w", err)
	}
	return nil
}

// transparentListener listens for both families where the kernel has both.
func transparentListener() (file *os.File, port uint16, six bool, err error) {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	six = err == nil
	if !six {
		if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return nil, 0, false, err
		}
	}
	file = os.NewFile(uintptr(fd), "transparent listener")
	fail := func(err error) (*os.File, uint16, bool, error) {
		return nil, 0, false, errors.Join(fmt.Errorf("making the listener: %w", err), file.Close())
	}
	var any unix.Sockaddr = &unix.SockaddrInet4{}
	if six {
		any = &unix.SockaddrInet6{}
		if err := unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_V6ONLY, 0); err != nil {
			return fail(err)
		}
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_TRANSPARENT, 1); err != nil {
		return fail(err)
	}
	if err := unix.Bind(fd, any); err != nil {
		return fail(err)
	}
	if err := unix.Listen(fd, 4096); err != nil {
		return fail(err)
	}
	at, err := unix.Getsockname(fd)
	if err != nil {
		return fail(err)
	}
	switch at := at.(type) {
	case *unix.SockaddrInet4:
		port = uint16(at.Port)
	case *unix.SockaddrInet6:
		port = uint16(at.Port)
	}
	return file, port, six, nil
}

// listenAt makes a listening socket inside; a datagram one where kind says so.
func listenAt(at netip.AddrPort, kind int) (*os.File, error) {
	family, address := unix.AF_INET, unix.Sockaddr(nil)
	if at.Addr().Is4() {
		address = &unix.SockaddrInet4{Port: int(at.Port()), Addr: at.Addr().As4()}
	} else {
		family, address = unix.AF_INET6, &unix.SockaddrInet6{Port: int(at.Port()), Addr: at.Addr().As16()}
	}
	fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("listening at %s inside: %w", at, err)
	}
	file := os.NewFile(uintptr(fd), at.String())
	err = unix.Bind(fd, address)
	if err == nil && kind == unix.SOCK_STREAM {
		err = unix.Listen(fd, 128)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("listening at %s inside: %w", at, err), file.Close())
	}
	return file, nil
}

// Original gives the connections of a sandbox's listener the destination that
// was dialled as their local address, where the sandbox could not be made
// transparent; a transparent listener is returned as it is.
func Original(ln net.Listener) net.Listener { return original{ln} }

type original struct{ net.Listener }

func (o original) Accept() (net.Conn, error) {
	conn, err := o.Listener.Accept()
	tcp, isTCP := conn.(*net.TCPConn)
	if err != nil || !isTCP || portOf(conn.LocalAddr()) != portOf(o.Addr()) {
		return conn, err
	}
	to, err := dialled(tcp)
	if err != nil {
		return conn, nil // reached at its own address: the local address is true
	}
	return redirectedConn{tcp, to}, nil
}

func portOf(at net.Addr) int {
	if tcp, isTCP := at.(*net.TCPAddr); isTCP {
		return tcp.Port
	}
	return 0
}

// redirectedConn is a connection with the address that was dialled.
type redirectedConn struct {
	*net.TCPConn
	to *net.TCPAddr
}

func (c redirectedConn) LocalAddr() net.Addr { return c.to }

// dialled asks the kernel where a redirected connection was going.
func dialled(conn *net.TCPConn) (*net.TCPAddr, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	const soOriginalDst = 80 // of both families
	var to *net.TCPAddr
	four := true
	if local, isTCP := conn.RemoteAddr().(*net.TCPAddr); isTCP {
		four = local.IP.To4() != nil
	}
	controlErr := raw.Control(func(fd uintptr) {
		if four {
			// The answer is a sockaddr_in, which has the size of this option's value.
			var m *unix.IPv6Mreq
			if m, err = unix.GetsockoptIPv6Mreq(int(fd), unix.SOL_IP, soOriginalDst); err == nil {
				b := m.Multiaddr
				to = &net.TCPAddr{IP: net.IP(b[4:8]), Port: int(binary.BigEndian.Uint16(b[2:4]))}
			}
			return
		}
		var m *unix.IPv6MTUInfo
		if m, err = unix.GetsockoptIPv6MTUInfo(int(fd), unix.SOL_IPV6, soOriginalDst); err == nil {
			port := m.Addr.Port
			to = &net.TCPAddr{IP: net.IP(m.Addr.Addr[:]), Port: int(port>>8 | port<<8)}
		}
	})
	return to, errors.Join(controlErr, err)
}
