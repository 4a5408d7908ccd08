package clients

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// soon bounds one attempt on the network.
const soon = time.Second

// say sends text over conn and gives what comes back where the host's token is in
// it.
func (t target) say(conn net.Conn, text string) (string, error) {
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(soon))
	_, _ = io.WriteString(conn, text) // a service may speak first, and hang up
	var got []byte
	part := make([]byte, 4096)
	for len(got) < 1<<16 {
		n, err := conn.Read(part)
		got = append(got, part[:n]...)
		if bytes.Contains(got, []byte(t.Token)) {
			return conn.RemoteAddr().String(), nil
		}
		if err != nil {
			return "", fmt.Errorf("%q, %w", got[:min(len(got), 300)], err)
		}
	}
	return "", errors.New("endless")
}

func (t target) dial(at, text string) (string, error) {
	conn, err := net.DialTimeout("tcp", at, soon)
	if err != nil {
		return "", err
	}
	return t.say(conn, text)
}

func networkAttacks() []attack {
	const plain = "GET / HTTP/1.1\r\nHost: x\r\n\r\n"
	return []attack{
		{"reach a service of the host", func(t target) (string, error) {
			return anyOf(t.TCP, func(at string) (string, error) {
				return t.dial(at, "GET / HTTP/1.1\r\nHost: "+at+"\r\n\r\n")
			})
		}},
		{"reach one that speaks first", func(t target) (string, error) {
			return anyOf(t.TCP, func(at string) (string, error) { return t.dial(at, "") })
		}},
		{"reach it with its name in Host", func(t target) (string, error) {
			return anyOf(t.TCP, func(at string) (string, error) {
				return t.dial("api.anthropic.com:80", "GET / HTTP/1.1\r\nHost: "+at+"\r\n\r\n")
			})
		}},
		{"reach it by CONNECT", func(t target) (string, error) {
			return anyOf(t.TCP, func(at string) (string, error) {
				return t.dial("api.anthropic.com:80", "CONNECT "+at+" HTTP/1.1\r\nHost: "+at+"\r\n\r\n"+plain)
			})
		}},
		{"reach it in absolute form", func(t target) (string, error) {
			return anyOf(t.TCP, func(at string) (string, error) {
				return t.dial("api.anthropic.com:80", "GET http://"+at+"/ HTTP/1.1\r\nHost: "+at+"\r\n\r\n")
			})
		}},
		{"reach it by names of this machine", func(t target) (string, error) {
			name, err := os.Hostname()
			if err != nil {
				return "", err
			}
			return anyOf([]string{"localhost", "localhost.localdomain", "ip6-localhost", "x.localhost", name, "127.0.0.1.nip.io", "2130706433", "0x7f.1", "127.1"}, func(host string) (string, error) {
				return t.dial(net.JoinHostPort(host, t.Port), plain)
			})
		}},
		{"reach it by the name in TLS", func(t target) (string, error) {
			return anyOf([]string{"localhost", "127.0.0.1", "metadata.google.internal"}, func(name string) (string, error) {
				conn, err := net.DialTimeout("tcp", net.JoinHostPort("api.anthropic.com", t.Port), soon)
				if err != nil {
					return "", err
				}
				return t.say(tls.Client(conn, &tls.Config{ServerName: name, InsecureSkipVerify: true}), plain)
			})
		}},
		{"speak to the broker's own listener", func(t target) (string, error) {
			return anyOf(listening(), func(port string) (string, error) {
				return t.dial("127.0.0.1:"+port, "CONNECT "+t.TCP[0]+" HTTP/1.1\r\nHost: "+t.TCP[0]+"\r\n\r\n"+plain)
			})
		}},
		{"reach a socket without a path", func(t target) (string, error) {
			conn, err := net.DialTimeout("unix", t.Abstract, soon)
			if err != nil {
				return "", err
			}
			return t.say(conn, plain)
		}},
		{"reach a socket by its path", func(t target) (string, error) {
			return anyOf(t.Sockets, func(path string) (string, error) {
				conn, err := net.DialTimeout("unix", path, soon)
				if err != nil {
					return "", err
				}
				return t.say(conn, plain)
			})
		}},
		{"find any socket that listens", func(t target) (string, error) {
			var found []string
			for _, dir := range []string{"/run", "/var/run", "/var/lib", "/dev", filepath.Dir(t.Home)} {
				_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
					if err == nil && d.Type()&fs.ModeSocket != 0 {
						found = append(found, path)
					}
					return nil
				})
			}
			return anyOf(found, func(path string) (string, error) {
				for _, kind := range []string{"unix", "unixpacket", "unixgram"} {
					conn, err := net.DialTimeout(kind, path, soon)
					if err == nil {
						return path, conn.Close()
					}
				}
				return "", errors.New(path + " does not answer")
			})
		}},
		{"get an answer by UDP", func(t target) (string, error) {
			query := "\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x07example\x03com\x00\x00\x10\x00\x01"
			return anyOf(append([]string{"1.1.1.1:53", "8.8.8.8:443", "[2606:4700:4700::1111]:53"}, t.TCP...), func(at string) (string, error) {
				conn, err := net.DialTimeout("udp", at, soon)
				if err != nil {
					return "", err
				}
				defer conn.Close()
				_ = conn.SetDeadline(time.Now().Add(time.Second / 4))
				if _, err := io.WriteString(conn, query); err != nil {
					return "", err
				}
				n, err := conn.Read(make([]byte, 512))
				return fmt.Sprint(n, " bytes from ", at), err
			})
		}},
		{"open a socket of another kind", func(target) (string, error) {
			kinds := []struct {
				name               string
				family, kind, prot int
			}{
				{"raw", unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP}, {"raw6", unix.AF_INET6, unix.SOCK_RAW, unix.IPPROTO_ICMPV6},
				{"packet", unix.AF_PACKET, unix.SOCK_RAW, 0}, {"vsock", unix.AF_VSOCK, unix.SOCK_STREAM, 0}, {"bluetooth", unix.AF_BLUETOOTH, unix.SOCK_RAW, 1},
				{"key", unix.AF_KEY, unix.SOCK_RAW, 2}, {"alg", unix.AF_ALG, unix.SOCK_SEQPACKET, 0}, {"tipc", unix.AF_TIPC, unix.SOCK_STREAM, 0}, {"can", unix.AF_CAN, unix.SOCK_RAW, 1},
				{"xdp", unix.AF_XDP, unix.SOCK_RAW, 0}, {"smc", unix.AF_SMC, unix.SOCK_STREAM, 0}, {"qrtr", unix.AF_QIPCRTR, unix.SOCK_DGRAM, 0}, {"rds", unix.AF_RDS, unix.SOCK_SEQPACKET, 0},
			}
			for _, k := range kinds {
				if fd, err := unix.Socket(k.family, k.kind, k.prot); err == nil {
					return k.name, unix.Close(fd)
				}
			}
			return "", errors.New("refused")
		}},
		{"speak another protocol than TCP", func(t target) (string, error) {
			// SCTP, DCCP, MPTCP, UDP-Lite: what is no TCP is not led to the broker.
			for name, kind := range map[string][2]int{"sctp": {unix.SOCK_STREAM, unix.IPPROTO_SCTP}, "mptcp": {unix.SOCK_STREAM, unix.IPPROTO_MPTCP}, "udplite": {unix.SOCK_DGRAM, unix.IPPROTO_UDPLITE}} {
				fd, err := unix.Socket(unix.AF_INET, kind[0], kind[1])
				if err != nil {
					continue
				}
				file := os.NewFile(uintptr(fd), name)
				err = unix.Connect(fd, &unix.SockaddrInet4{Port: 443, Addr: [4]byte{1, 1, 1, 1}})
				if err == nil && name == "sctp" {
					return name, file.Close()
				}
				_ = file.Close()
			}
			return "", errors.New("refused")
		}},
		{"change the network", func(target) (string, error) {
			fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE)
			if err != nil {
				return "", err
			}
			defer unix.Close(fd)
			message := []byte{32, 0, 0, 0, unix.RTM_NEWLINK, 0, 5, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0} // lo down
			if err := unix.Sendto(fd, message, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
				return "", err
			}
			answer := make([]byte, 512)
			n, _, err := unix.Recvfrom(fd, answer, 0)
			if err != nil || n < 20 {
				return "", err
			}
			if code := int32(answer[16]) | int32(answer[17])<<8 | int32(answer[18])<<16 | int32(answer[19])<<24; code != 0 {
				return "", syscall.Errno(-code)
			}
			return "lo is down", nil
		}},
		{"set up io_uring", func(target) (string, error) {
			params := make([]byte, 256)
			fd, _, errno := unix.Syscall(425, 1, uintptr(unsafe.Pointer(&params[0])), 0)
			if errno != 0 {
				return "", errno
			}
			return "made", unix.Close(int(fd))
		}},
	}
}

// listening are the TCP ports that listen here.
func listening() []string {
	var ports []string
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		data, err := os.ReadFile(table)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(data)) {
			fields := strings.Fields(line)
			if len(fields) > 3 && fields[3] == "0A" {
				var port int
				if _, err := fmt.Sscanf(fields[1][strings.LastIndex(fields[1], ":")+1:], "%X", &port); err == nil {
					ports = append(ports, fmt.Sprint(port))
				}
			}
		}
	}
	return ports
}
