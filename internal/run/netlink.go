package run

import (
	"encoding/binary"
	"errors"

	"golang.org/x/sys/unix"
)

// A few netlink messages stand here instead of a library: they are the whole
// use that is made of it, and start-up time is counted in milliseconds.

// attribute appends a netlink attribute (struct nlattr, padded to 4 bytes).
func attribute(dst []byte, kind uint16, value []byte) []byte {
	dst = binary.NativeEndian.AppendUint16(dst, uint16(4+len(value)))
	dst = binary.NativeEndian.AppendUint16(dst, kind)
	dst = append(dst, value...)
	for len(dst)%4 != 0 {
		dst = append(dst, 0)
	}
	return dst
}

func nested(dst []byte, kind uint16, value []byte) []byte {
	return attribute(dst, kind|unix.NLA_F_NESTED, value)
}

func text(s string) []byte { return append([]byte(s), 0) }

func be32(v uint32) []byte { return binary.BigEndian.AppendUint32(nil, v) }

// netlinkMessage appends a message with its header.
func netlinkMessage(dst []byte, kind, flags uint16, seq uint32, body []byte) []byte {
	dst = binary.NativeEndian.AppendUint32(dst, uint32(unix.NLMSG_HDRLEN+len(body)))
	dst = binary.NativeEndian.AppendUint16(dst, kind)
	dst = binary.NativeEndian.AppendUint16(dst, flags)
	dst = binary.NativeEndian.AppendUint32(dst, seq)
	dst = binary.NativeEndian.AppendUint32(dst, 0)
	return append(dst, body...)
}

// netlink sends messages, of which the last answer wanted are acknowledged.
func netlink(protocol int, messages []byte, answers int) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Sendto(fd, messages, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	buffer := make([]byte, 8192)
	for answers > 0 {
		n, _, err := unix.Recvfrom(fd, buffer, 0)
		if err != nil {
			return err
		}
		for b := buffer[:n]; len(b) >= unix.NLMSG_HDRLEN+4; {
			length := int(binary.NativeEndian.Uint32(b))
			if binary.NativeEndian.Uint16(b[4:]) == unix.NLMSG_ERROR {
				if code := int32(binary.NativeEndian.Uint32(b[unix.NLMSG_HDRLEN:])); code != 0 {
					return unix.Errno(-code)
				}
				answers--
			}
			if length < unix.NLMSG_HDRLEN || length > len(b) {
				return errors.New("a netlink answer is malformed")
			}
			b = b[min((length+3)&^3, len(b)):]
		}
	}
	return nil
}
